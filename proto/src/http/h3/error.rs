//! Error codes of HTTP/3 (RFC 9114 section 8.1) and its extensions, and what an error ends.

use std::fmt;

use super::super::fault::Fault;

/// An application error code, as carried in QUIC's CONNECTION_CLOSE, RESET_STREAM and STOP_SENDING frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u64);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $label:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The code's registered name; `None` for a code this crate does not know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($label),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Nothing is wrong, but the connection or stream ends (RFC 9114 section 8.1).
    NO_ERROR = 0x100, "H3_NO_ERROR";
    /// The peer broke a rule that has no code of its own (RFC 9114 section 8.1).
    GENERAL_PROTOCOL_ERROR = 0x101, "H3_GENERAL_PROTOCOL_ERROR";
    /// This endpoint failed (RFC 9114 section 8.1).
    INTERNAL_ERROR = 0x102, "H3_INTERNAL_ERROR";
    /// The peer opened a stream that is not acceptable (RFC 9114 section 8.1).
    STREAM_CREATION_ERROR = 0x103, "H3_STREAM_CREATION_ERROR";
    /// A stream that must stay open was closed (RFC 9114 section 8.1).
    CLOSED_CRITICAL_STREAM = 0x104, "H3_CLOSED_CRITICAL_STREAM";
    /// A frame came where its type is not permitted (RFC 9114 section 8.1).
    FRAME_UNEXPECTED = 0x105, "H3_FRAME_UNEXPECTED";
    /// A frame's layout or size is wrong (RFC 9114 section 8.1).
    FRAME_ERROR = 0x106, "H3_FRAME_ERROR";
    /// The peer asks for more than this endpoint is willing to hold (RFC 9114 section 8.1).
    EXCESSIVE_LOAD = 0x107, "H3_EXCESSIVE_LOAD";
    /// A stream or push identifier was used wrongly (RFC 9114 section 8.1).
    ID_ERROR = 0x108, "H3_ID_ERROR";
    /// The payload of SETTINGS is wrong (RFC 9114 section 8.1).
    SETTINGS_ERROR = 0x109, "H3_SETTINGS_ERROR";
    /// The control stream did not begin with SETTINGS (RFC 9114 section 8.1).
    MISSING_SETTINGS = 0x10a, "H3_MISSING_SETTINGS";
    /// The server has not processed the request (RFC 9114 section 8.1).
    REQUEST_REJECTED = 0x10b, "H3_REQUEST_REJECTED";
    /// The request or its response is no longer wanted (RFC 9114 section 8.1).
    REQUEST_CANCELLED = 0x10c, "H3_REQUEST_CANCELLED";
    /// The request stream ended before the request was complete (RFC 9114 section 8.1).
    REQUEST_INCOMPLETE = 0x10d, "H3_REQUEST_INCOMPLETE";
    /// A message is malformed (RFC 9114 section 4.1.2).
    MESSAGE_ERROR = 0x10e, "H3_MESSAGE_ERROR";
    /// The connection behind a CONNECT request was reset or closed (RFC 9114 section 8.1).
    CONNECT_ERROR = 0x10f, "H3_CONNECT_ERROR";
    /// The request must be repeated over HTTP/1.1 (RFC 9114 section 8.1).
    VERSION_FALLBACK = 0x110, "H3_VERSION_FALLBACK";
    /// A datagram could not be parsed (RFC 9297 section 5.2).
    DATAGRAM_ERROR = 0x33, "H3_DATAGRAM_ERROR";
    /// A field section could not be decoded (RFC 9204 section 6).
    QPACK_DECOMPRESSION_FAILED = 0x200, "QPACK_DECOMPRESSION_FAILED";
    /// An instruction on the QPACK encoder stream is wrong (RFC 9204 section 6).
    QPACK_ENCODER_STREAM_ERROR = 0x201, "QPACK_ENCODER_STREAM_ERROR";
    /// An instruction on the QPACK decoder stream is wrong (RFC 9204 section 6).
    QPACK_DECODER_STREAM_ERROR = 0x202, "QPACK_DECODER_STREAM_ERROR";
}

impl Code {
    /// A code from the wire.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number sent on the wire.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A breach of the protocol by the peer, and how much it ends (RFC 9114 section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Closes the whole connection with this code.
    #[error("{reason} ({code})")]
    Connection {
        /// Code for CONNECTION_CLOSE.
        code: Code,
        /// What the peer did.
        reason: &'static str,
    },
    /// Abandons both directions of one stream with this code.
    #[error("{reason} ({code})")]
    Stream {
        /// Code for RESET_STREAM and STOP_SENDING.
        code: Code,
        /// What the peer did.
        reason: &'static str,
    },
}

impl Error {
    pub(crate) const fn connection(code: Code, reason: &'static str) -> Self {
        Self::Connection { code, reason }
    }

    pub(crate) const fn stream(code: Code, reason: &'static str) -> Self {
        Self::Stream { code, reason }
    }

    /// A malformed message (RFC 9114 section 4.1.2).
    pub(crate) const fn malformed(reason: &'static str) -> Self {
        Self::Stream { code: Code::MESSAGE_ERROR, reason }
    }

    /// The error code to send.
    pub const fn code(&self) -> Code {
        match self {
            Self::Connection { code, .. } | Self::Stream { code, .. } => *code,
        }
    }

    /// What the peer did, in a few words.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Connection { reason, .. } | Self::Stream { reason, .. } => reason,
        }
    }

    #[cfg(test)]
    pub(crate) const fn ends_connection(&self) -> bool {
        matches!(self, Self::Connection { .. })
    }
}

/// The codes that RFC 9114 section 8.1, and RFC 9297 section 5.2 for datagrams, have for what is wrong in any version
/// of HTTP.
impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(reason) => Self::malformed(reason),
            Fault::Excessive(reason) => Self::stream(Code::EXCESSIVE_LOAD, reason),
            Fault::Datagram(reason) => Self::connection(Code::DATAGRAM_ERROR, reason),
            Fault::Internal(reason) => Self::stream(Code::INTERNAL_ERROR, reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_code_shows_its_name_and_unknown_its_number() {
        assert_eq!(Code::MESSAGE_ERROR.to_string(), "H3_MESSAGE_ERROR");
        assert_eq!(Code::new(0x1234).to_string(), "code 0x1234");
        assert_eq!(Code::new(0x33), Code::DATAGRAM_ERROR);
    }

    #[test]
    fn every_fault_has_its_code_and_what_it_ends() {
        let stream = |code, reason| Error::Stream { code, reason };
        assert_eq!(Error::from(Fault::Malformed("m")), stream(Code::new(0x10e), "m"));
        assert_eq!(Error::from(Fault::Excessive("e")), stream(Code::new(0x107), "e"));
        assert_eq!(Error::from(Fault::Internal("i")), stream(Code::new(0x102), "i"));
        assert_eq!(Error::from(Fault::Datagram("d")), Error::Connection { code: Code::new(0x33), reason: "d" });
    }

    #[test]
    fn error_says_what_it_ends() {
        assert!(Error::connection(Code::FRAME_ERROR, "x").ends_connection());
        assert!(!Error::malformed("x").ends_connection());
        assert_eq!(Error::malformed("no method").to_string(), "no method (H3_MESSAGE_ERROR)");
    }
}
