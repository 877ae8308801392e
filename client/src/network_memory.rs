//! What a client remembers of the networks it was in.

use std::net::IpAddr;
use std::sync::Arc;

use crate::packet_source::BoxFuture;

/// Knows networks again.
pub trait NetworkMemory: Send + Sync + 'static {
    /// The network that leads to `gateway` now; `None` where it cannot be told from others.
    fn here(&self, gateway: IpAddr) -> BoxFuture<'_, Option<Arc<dyn KnownNetwork>>>;
}

/// A network that this host was in when it was looked at.
pub trait KnownNetwork: Send + Sync + 'static {
    /// Whether no UDP came back when this host was last in it.
    fn blocks_udp(&self) -> BoxFuture<'_, bool>;

    /// UDP came back that was sent when it was looked at, or did not. Nothing is noted where this host is in another
    /// network by now: it was on the way, so neither of them is to blame.
    fn note_udp(&self, passes: bool) -> BoxFuture<'_, ()>;
}
