//! Alerts (RFC 5246 section 7.2): `level (1)  description (1)`.

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// The description of a proper end.
pub const CLOSE_NOTIFY: u8 = 0;

/// The description by which a renegotiation is declined.
pub const NO_RENEGOTIATION: u8 = 100;

/// What one end tells the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Whether the association is over.
    pub is_fatal: bool,
    /// What it is about.
    pub description: u8,
}

impl Alert {
    /// A proper end.
    pub const CLOSE: Self = Self { is_fatal: false, description: CLOSE_NOTIFY };

    /// Declines a renegotiation; the association goes on.
    pub const NO_RENEGOTIATION: Self = Self { is_fatal: false, description: NO_RENEGOTIATION };

    /// What a record holds; `None` if it is no alert.
    pub const fn parse(content: &[u8]) -> Option<Self> {
        match *content {
            [WARNING, description] => Some(Self { is_fatal: false, description }),
            [FATAL, description] => Some(Self { is_fatal: true, description }),
            _ => None,
        }
    }

    /// What the record of the alert holds.
    pub const fn encode(self) -> [u8; 2] {
        [if self.is_fatal { FATAL } else { WARNING }, self.description]
    }
}

/// Why a handshake cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A message came that is not expected now.
    #[error("message out of turn")]
    Unexpected,
    /// A message is malformed.
    #[error("malformed message")]
    Malformed,
    /// No suite that one end offers is known to the other.
    #[error("no cipher suite in common")]
    NoCommonSuite,
    /// The other end chose what was not on offer, or another session.
    #[error("choice that was not on offer")]
    NotOffered,
    /// The two ends did not see the same handshake.
    #[error("handshake was changed on its way")]
    Changed,
    /// Keys cannot be made, or the cipher does not take them.
    #[error("no keys can be made")]
    NoKeys,
}

impl Refusal {
    /// How the other end is told (RFC 5246 section 7.2.2).
    pub const fn alert(self) -> Alert {
        let description = match self {
            Self::Unexpected => 10,
            Self::NoCommonSuite => 40,
            Self::NotOffered => 47,
            Self::Malformed => 50,
            Self::Changed => 51,
            Self::NoKeys => 80,
        };
        Alert { is_fatal: true, description }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_two_exact_bytes() {
        for alert in [Alert::CLOSE, Alert::NO_RENEGOTIATION, Refusal::Changed.alert()] {
            assert_eq!(Alert::parse(&alert.encode()), Some(alert));
        }
        for content in [&[][..], &[1], &[0, 0], &[3, 0], &[1, 0, 0]] {
            assert_eq!(Alert::parse(content), None);
        }
    }
}
