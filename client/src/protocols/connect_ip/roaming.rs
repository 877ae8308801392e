//! Notices that this host has moved: that datagrams to the gateway would leave from another address.

use std::net::{IpAddr, SocketAddr};

use adit_net::network_watch::NetworkWatch;

use crate::ways::source_address;

/// From which address datagrams to the gateway leave.
pub(super) struct Roaming {
    gateway: SocketAddr,
    mark: Option<u32>,
    local: Option<IpAddr>,
    watch: NetworkWatch,
}

impl Roaming {
    /// Remembers where the host is now. `mark` is the SO_MARK of its outer sockets, which routes may depend on.
    pub(super) fn new(gateway: SocketAddr, mark: Option<u32>) -> Self {
        // First, so that no move falls between the two.
        let watch = NetworkWatch::open();
        Self { gateway, mark, local: source_address(gateway, mark).ok(), watch }
    }

    /// Waits until the host's network changed, which may be a move. Cancel-safe.
    pub(super) async fn network_changed(&mut self) {
        self.watch.changed().await;
    }

    /// Whether the address is another than before. A host without a way to the gateway has not moved yet.
    pub(super) fn has_moved(&mut self) -> bool {
        self.moved_to(source_address(self.gateway, self.mark).ok())
    }

    fn moved_to(&mut self, local: Option<IpAddr>) -> bool {
        let moved = local.is_some() && local != self.local;
        self.local = local.or(self.local);
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn only_another_address_is_a_move() {
        let [home, away] = ["192.0.2.1", "198.51.100.1"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut roaming = Roaming::new("127.0.0.1:443".parse().unwrap(), None);
        assert_eq!(roaming.local, Some(Ipv4Addr::LOCALHOST.into()));
        assert!(!roaming.has_moved());
        let steps = [(Some(home), true), (Some(home), false), (None, false), (Some(home), false), (Some(away), true)];
        for (local, moved) in steps {
            assert_eq!(roaming.moved_to(local), moved, "{local:?}");
        }
    }
}
