//! Which session the packets of the device go to, and which packets of a gateway reach the device.

use std::sync::Arc;

use adit_net::carrier::counters::Counters;
use adit_net::worker::Routing;
use adit_proto::drop_reason::DropReason;
use adit_proto::packet::IpPacket;
use arc_swap::ArcSwapOption;

use crate::packet_source::TunnelSession;

/// All packets of the device go to the one session there is.
#[derive(Default)]
pub(super) struct ClientRouting {
    current: ArcSwapOption<TunnelSession>,
    drops: Counters,
}

impl ClientRouting {
    /// Takes a session as the one there is.
    pub(super) fn begin(&self, session: &Arc<TunnelSession>) {
        session.begin();
        self.current.store(Some(Arc::clone(session)));
    }

    /// Forgets a session, unless another one has begun.
    pub(super) fn end(&self, session: &Arc<TunnelSession>) {
        session.end();
        self.current.rcu(|current| current.clone().filter(|current| !Arc::ptr_eq(current, session)));
    }

    /// Drops of packets that belonged to no session.
    pub(super) fn drops(&self) -> &Counters {
        &self.drops
    }
}

impl Routing for ClientRouting {
    type Session = TunnelSession;

    /// The only source is this host.
    const TOO_BIG_PARTS: u32 = 1;

    fn session_of(&self, _packet: &IpPacket) -> Option<Arc<TunnelSession>> {
        self.current.load_full()
    }

    fn admit(&self, session: &TunnelSession, packet: &IpPacket) -> Result<(), DropReason> {
        session.admit(packet)
    }

    fn counters(&self) -> &Counters {
        &self.drops
    }
}

#[cfg(test)]
mod tests {
    use adit_net::testing::Keeper;

    use super::*;

    fn session(addresses: &[&str]) -> Arc<TunnelSession> {
        let session = TunnelSession::new(Arc::new(Keeper::new(1400)));
        session.set_addresses(addresses.iter().map(|text| text.parse().unwrap()).collect());
        Arc::new(session)
    }

    /// An empty UDP packet to an address.
    fn packet_to(destination: [u8; 4]) -> IpPacket {
        let mut packet = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 9, 0, 9, 0, 8, 0, 0];
        packet[16..20].copy_from_slice(&destination);
        let checksum = adit_proto::packet::checksum::Checksum::new().with(&packet[..20]).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&checksum);
        IpPacket::parse(&packet).unwrap()
    }

    #[test]
    fn only_packets_to_our_addresses_are_admitted() {
        let (routing, session) = (ClientRouting::default(), session(&["10.64.3.2", "10.64.8.1"]));
        routing.begin(&session);
        let admit = |destination| routing.admit(&session, &packet_to(destination));
        for ours in [[10, 64, 3, 2], [10, 64, 8, 1]] {
            assert_eq!(admit(ours), Ok(()));
        }
        for others in [[10, 64, 3, 3], [10, 64, 8, 2], [127, 0, 0, 1], [255; 4], [224, 0, 0, 1], [0; 4]] {
            assert_eq!(admit(others), Err(DropReason::DestinationNotLeased), "{others:?}");
        }
        session.set_addresses(vec!["10.64.3.9".parse().unwrap()]);
        assert_eq!(admit([10, 64, 3, 2]), Err(DropReason::DestinationNotLeased), "an address was taken away");
        session.set_addresses(Vec::new());
        assert_eq!(admit([10, 64, 3, 9]), Err(DropReason::DestinationNotLeased));
    }

    #[test]
    fn nothing_is_admitted_before_the_host_is_ready_nor_after_the_end() {
        let (routing, session) = (ClientRouting::default(), session(&["10.64.3.2"]));
        let admit = || routing.admit(&session, &packet_to([10, 64, 3, 2]));
        assert_eq!(admit(), Err(DropReason::NotConnected));
        routing.begin(&session);
        assert_eq!(admit(), Ok(()));
        routing.end(&session);
        assert_eq!(admit(), Err(DropReason::NotConnected));
    }

    #[test]
    fn packets_go_to_the_session_that_began_last() {
        let (routing, packet) = (ClientRouting::default(), packet_to([192, 0, 2, 7]));
        assert!(routing.session_of(&packet).is_none());
        let (first, second) = (session(&[]), session(&[]));
        routing.begin(&first);
        routing.begin(&second);
        routing.end(&first);
        assert!(Arc::ptr_eq(&routing.session_of(&packet).unwrap(), &second), "an old session's end ended the new one");
        routing.end(&second);
        assert!(routing.session_of(&packet).is_none());
    }
}
