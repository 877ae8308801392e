//! What is judged, and what may become of it.

use std::net::IpAddr;

use crate::packet::{IpPacket, protocol};

/// What happens to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It passes.
    Allow,
    /// It does not.
    Deny,
}

impl Action {
    /// Its word in a policy.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What a verdict depends on: where the first packet of a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The upper-layer protocol (IANA number).
    pub protocol: u8,
    /// Where it goes.
    pub destination: IpAddr,
    /// The port there; `None` where the protocol has none, or the packet does not say.
    pub port: Option<u16>,
}

impl Flow {
    /// The flow that a packet begins: `packet` is its header, `bytes` are the whole of it or its beginning. A later
    /// fragment, and a packet that is cut short, do not say their port.
    pub fn of(packet: &IpPacket, bytes: &[u8]) -> Self {
        let has_ports = [protocol::TCP, protocol::UDP].contains(&packet.protocol);
        let upper = bytes.get(packet.upper_layer..).filter(|_| has_ports && !packet.later_fragment);
        // Both headers begin with the source port and the destination port (RFC 9293 section 3.1, RFC 768).
        let port = upper.and_then(|upper| upper.get(2..4)?.try_into().ok()).map(u16::from_be_bytes);
        Self { protocol: packet.protocol, destination: packet.destination, port }
    }
}
