//! The frames of a connection that has become a channel.

use adit_net::carrier::cstp::Cstp;
use adit_proto::anyconnect::frame;
use bytes::Bytes;

use crate::core::sessions::Ending;
use crate::front_ends::stream::{StreamConnection, StreamProtocol};

/// The connection of one session.
pub(super) type TlsConnection = StreamConnection<Cstp>;

impl StreamProtocol for Cstp {
    const FRONT_END: &'static str = "anyconnect";

    /// Tells a client that must not come back by itself why; all others come back when the connection ends.
    fn farewell(ending: Ending) -> Option<Bytes> {
        match ending {
            Ending::Replaced | Ending::Shutdown | Ending::Restart(_) => None,
            Ending::Revoked
            | Ending::Disabled
            | Ending::Crowded
            | Ending::Idle
            | Ending::OutsideHours
            | Ending::LoginOver
            | Ending::CertificateOver => Some(frame::farewell(ending.reason())),
        }
    }
}
