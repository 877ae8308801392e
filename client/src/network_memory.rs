//! What a client remembers of the networks it was in.

use std::net::IpAddr;

use crate::packet_source::BoxFuture;

/// Remembers which networks block UDP.
pub trait NetworkMemory: Send + Sync + 'static {
    /// Whether no UDP came back from `gateway` when this host was last in the network it is in.
    fn blocks_udp(&self, gateway: IpAddr) -> BoxFuture<'_, bool>;

    /// In the network this host is in, UDP comes back from `gateway`, or does not.
    fn note_udp(&self, gateway: IpAddr, passes: bool) -> BoxFuture<'_, ()>;
}
