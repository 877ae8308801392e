//! Over which kind of connection a client has its session, where a network may or may not pass UDP.
//!
//! A device has one session, so only one of two connections at a time is asked for it: [`Race`] decides which at first,
//! [`Change`] when the other one is to have it.

mod change;
mod race;

pub use change::{Change, ChangeEvent, DOUBTED_FOR};
pub use race::{ANSWER_WITHIN, Failure, Race, RaceEvent, TLS_AFTER, TLS_ASKED_AFTER};

/// What a connection is made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC, over UDP. Packets travel by `esp` or `quic`.
    Quic,
    /// TLS, over TCP. Packets travel by `tls`.
    Tls,
}

impl Transport {
    /// The one that is not this.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Quic => Self::Tls,
            Self::Tls => Self::Quic,
        }
    }
}
