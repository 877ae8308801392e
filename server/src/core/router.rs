//! Decides where packets go and which may pass. The workers ask it; what comes by a session's connection goes through
//! it, too.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use adit_net::carrier::counters::Counters;
use adit_net::packet_buffer::PacketBuffer;
use adit_net::tun::{Queue, Tun};
use adit_net::worker::Routing;
use adit_proto::drop_reason::DropReason;
use adit_proto::packet::IpPacket;
use adit_proto::packet::icmp::{GatewayAddresses, RateLimit, packet_prohibited};
use bytes::Bytes;

use crate::core::sessions::{Session, SessionTable};

/// Refused packets that are told to their senders in a second, of all clients together.
const REFUSALS: u32 = 100;

/// What may go where.
pub struct Router {
    tun: Tun,
    sessions: Arc<SessionTable>,
    /// Drops of packets that belong to no session.
    counters: Counters,
    refusals: Mutex<RateLimit>,
}

impl Router {
    /// Routes between `tun` and `sessions`.
    pub fn new(tun: Tun, sessions: Arc<SessionTable>) -> Self {
        let refusals = Mutex::new(RateLimit::new(REFUSALS, REFUSALS));
        Self { tun, sessions, counters: Counters::default(), refusals }
    }

    /// The TUN device's name.
    pub fn tun_name(&self) -> &str {
        self.tun.name()
    }

    /// The TUN device's queues, one for each worker.
    pub fn queues(&self) -> &[Arc<Queue>] {
        self.tun.queues()
    }

    /// Takes packets that came from a client by its connection, checks each and gives those that may pass to the
    /// kernel. Empties `packets`. What comes by the connection of a session that another one has taken over from counts
    /// as that one's.
    pub fn from_client(&self, session: &Session, packets: &mut Vec<Bytes>) {
        if let Some(successor) = session.successor() {
            return self.from_client(successor, packets);
        }
        let counters = session.carriers.counters();
        packets.retain(|packet| match self.admit_bytes(session, packet) {
            Ok(()) => true,
            Err(reason) => {
                counters.count_drop(reason);
                self.refused(session, packet, reason);
                false
            }
        });
        counters.count_rx(packets.len() as u64, packets.iter().map(|packet| packet.len() as u64).sum());
        for _refused in self.tun.send(packets)..packets.len() {
            counters.count_drop(DropReason::TunWriteFailed);
        }
        packets.clear();
    }

    fn admit_bytes(&self, session: &Session, packet: &[u8]) -> Result<(), DropReason> {
        if session.carriers.is_closed() {
            return Err(DropReason::NotConnected);
        }
        self.admit(session, &IpPacket::parse(packet)?)
    }
}

impl Routing for Router {
    type Session = Session;

    fn session_of(&self, packet: &IpPacket) -> Option<Arc<Session>> {
        self.sessions.lookup(packet.destination)
    }

    /// A client's packet must bear the session's own source (RFC 9484 section 4.7.1, BCP 38), and go where the gateway
    /// offered to take it.
    fn admit(&self, session: &Session, packet: &IpPacket) -> Result<(), DropReason> {
        session.source.check(packet)?;
        session.policy.check(packet)?;
        match &session.meter {
            None => Ok(()),
            Some(meter) => meter.admit_up(packet.len),
        }
    }

    fn admit_to(&self, session: &Session, bytes: usize) -> Result<(), DropReason> {
        match &session.meter {
            None => Ok(()),
            Some(meter) => meter.admit_down(bytes),
        }
    }

    /// A program that goes where it may not hears so at once, as it does of what the firewall refuses. The answer bears
    /// the name of the destination, and never waits: of two at once, one is dropped.
    fn refused(&self, session: &Session, packet: &[u8], reason: DropReason) {
        if session.denials.is_first(reason) {
            let next = "`adit-server explain` says why; `adit-server sessions` counts them";
            tracing::info!(
                session = session.id,
                reason = reason.label(),
                next,
                "the first packet of this kind is refused"
            );
        }
        if !matches!(reason, DropReason::DestinationIsolated | DropReason::NoRoute) {
            return;
        }
        let allowed = self.refusals.try_lock().is_ok_and(|mut limit| limit.allow(Instant::now()));
        let Ok(IpPacket { destination, .. }) = IpPacket::parse(packet) else { return };
        let from = match destination {
            IpAddr::V4(v4) => GatewayAddresses { v4: Some(v4), v6: None },
            IpAddr::V6(v6) => GatewayAddresses { v4: None, v6: Some(v6) },
        };
        let mut answer = Vec::new();
        if allowed && packet_prohibited(packet, from, &mut answer) {
            session.carriers.connection().send(&mut vec![PacketBuffer::copy_from(&answer)]);
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use adit_proto::packet::checksum::Checksum;
    use adit_testing::namespace::in_namespace_async;

    use super::*;
    use crate::core::sessions::Ending;
    use crate::core::tests::session;

    /// An empty UDP packet from the address of [`session`]s with the number 2.
    pub(crate) fn packet() -> Bytes {
        let mut packet = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 2, 192, 0, 2, 1, 0, 9, 0, 9, 0, 8, 0, 0];
        let checksum = Checksum::new().with(&packet[..20]).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&checksum);
        Bytes::copy_from_slice(&packet)
    }

    /// Packets taken from a client, and those refused since its session is over.
    fn taken(session: &Session) -> (u64, u64) {
        let traffic = session.carriers.counters().traffic();
        let of_nobody = traffic.drops.iter().find(|(reason, _)| *reason == DropReason::NotConnected.label());
        (traffic.rx_packets, of_nobody.map_or(0, |(_, count)| *count))
    }

    #[test]
    fn what_comes_by_a_connection_that_was_left_is_of_the_session_that_took_over_and_ends_with_it() {
        in_namespace_async(|| async {
            let router = Router::new(Tun::create("adit0", 1, true).unwrap(), Arc::default());
            let [old, new, newest] = [1, 2, 3].map(|id| session(id, "dev-a", 2));
            let send = || router.from_client(&old, &mut vec![packet()]);
            send();
            assert_eq!(taken(&old), (1, 0));
            old.stop(Ending::Replaced);
            send();
            assert_eq!(taken(&old), (1, 1), "nobody has taken over");
            old.hand_over_to(&new);
            send();
            assert_eq!((taken(&old), taken(&new)), ((1, 1), (1, 0)));
            new.hand_over_to(&newest);
            new.stop(Ending::Replaced);
            send();
            assert_eq!((taken(&new), taken(&newest)), ((1, 0), (1, 0)));
            newest.stop(Ending::Revoked);
            send();
            assert_eq!((taken(&old), taken(&newest)), ((1, 1), (1, 1)), "whoever is shut out gets in by no connection");
        });
    }
}
