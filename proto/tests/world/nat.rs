//! A NAT with one binding for the client: its port changes whenever the binding had to be made anew.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The NAT in front of a client.
pub(crate) struct Nat {
    /// How the rest of the world sees the client.
    pub(crate) address: IpAddr,
    /// How long a binding lasts that the client does not use.
    pub(crate) timeout: Duration,
    binding: Option<Binding>,
    last_port: u16,
}

struct Binding {
    inside: SocketAddr,
    port: u16,
    used: Instant,
}

impl Nat {
    pub(crate) const fn new(address: IpAddr, timeout: Duration) -> Self {
        Self { address, timeout, binding: None, last_port: 20_000 }
    }

    /// It was switched off and on.
    pub(crate) fn restart(&mut self) {
        self.binding = None;
    }

    /// Where a datagram that leaves comes from, for the rest of the world.
    pub(crate) fn outbound(&mut self, inside: SocketAddr, now: Instant) -> SocketAddr {
        let is_bound = self.is_bound(inside, now);
        let last_port = &mut self.last_port;
        let binding = self.binding.take().filter(|_| is_bound).unwrap_or_else(|| {
            *last_port += 1;
            Binding { inside, port: *last_port, used: now }
        });
        let binding = self.binding.insert(Binding { used: now, ..binding });
        SocketAddr::new(self.address, binding.port)
    }

    /// How the rest of the world saw the client last.
    pub(crate) fn public(&self) -> Option<SocketAddr> {
        self.binding.as_ref().map(|binding| SocketAddr::new(self.address, binding.port))
    }

    /// Whether a datagram to this address goes on to the client.
    pub(crate) fn lets_in(&self, to: SocketAddr, inside: SocketAddr, now: Instant) -> bool {
        let port = self.binding.as_ref().map(|binding| binding.port);
        self.is_bound(inside, now) && to.ip() == self.address && Some(to.port()) == port
    }

    fn is_bound(&self, inside: SocketAddr, now: Instant) -> bool {
        self.binding.as_ref().is_some_and(|binding| binding.inside == inside && now - binding.used < self.timeout)
    }
}
