//! What can be wrong with a request, its tunnel or its datagrams, whatever version of HTTP carries them.

/// Why a stream or connection cannot go on, with a few words for the log and the peer.
///
/// The edge gives it the code of its version of HTTP: [`h3::error::Error`](super::h3::error::Error) is made from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The peer sent what breaks a rule. The stream ends.
    #[error("{0}")]
    Malformed(&'static str),
    /// The peer asks for more than this end is willing to hold or to do. The stream ends.
    #[error("{0}")]
    Excessive(&'static str),
    /// An HTTP datagram cannot be read, so it is not known whose it is. The connection ends.
    #[error("{0}")]
    Datagram(&'static str),
    /// This end failed; the peer did nothing wrong. The stream ends.
    #[error("{0}")]
    Internal(&'static str),
}

impl Fault {
    /// What is wrong, in a few words.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(reason) | Self::Excessive(reason) | Self::Datagram(reason) | Self::Internal(reason) => {
                reason
            }
        }
    }
}
