//! Which end of a connection one is.

/// One of the two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opens the connection and asks.
    Client,
    /// Answers.
    Server,
}
