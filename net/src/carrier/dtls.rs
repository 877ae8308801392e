//! The `dtls` carrier of one session, at either end of AnyConnect's protocol: the association that there is at present,
//! as the workers know it. The session's control side decides when there is one, and when packets go there.

use std::future::pending;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adit_proto::anyconnect::record::HEAD_LEN;
use adit_proto::dtls::sa::{Inbound, Outbound};
use adit_proto::dtls::suite::CipherSuite;
use tokio::sync::mpsc;

use super::{Carried, DatagramRoute, Origin, OutboundSa};
use crate::cipher::Cipher;
use crate::worker::{Association, AssociationPlane, RecordReport};

/// Reports of workers that wait; more are dropped, and what they told is said again.
const REPORTS: usize = 32;
/// Bytes of the largest packet of most links, and of the headers of IP and UDP in it.
const LINK: usize = 1500;
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// Records after which keys have served their time: half of what one of AES-GCM may protect.
const WORN: u64 = 1 << 31;

/// An association that a worker has.
struct Present {
    peer: SocketAddr,
    suite: CipherSuite,
    /// Counts the records that were opened.
    records: Arc<AtomicU64>,
    /// How many there were when it was looked last.
    seen: u64,
    /// Largest packet that fits a record on its path, in bytes.
    mtu: u16,
}

/// The carrier. Dropping it ends it.
pub struct DtlsCarrier<S: Carried> {
    session: Arc<S>,
    plane: Arc<dyn AssociationPlane<S>>,
    reports: mpsc::Receiver<RecordReport>,
    present: Option<Present>,
    /// The address and the largest packet of the route that the workers have.
    routed: Option<(SocketAddr, u16)>,
}

impl<S: Carried> DtlsCarrier<S> {
    /// Begins without an association.
    #[must_use]
    pub fn new(session: Arc<S>, plane: Arc<dyn AssociationPlane<S>>) -> Self {
        let (_, reports) = mpsc::channel(1);
        Self { session, plane, reports, present: None, routed: None }
    }

    /// The other end of the association.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.present.as_ref().map(|present| present.peer)
    }

    /// Largest packet that fits a record of the association, in bytes, and that the session's connection takes as well.
    #[must_use]
    pub fn largest_packet(&self) -> Option<u16> {
        self.present.as_ref().map(|present| present.mtu)
    }

    /// Has a worker open the records of a peer, in place of those of the association before.
    pub fn associate(&mut self, peer: SocketAddr, sa: Inbound<Cipher>) {
        self.dissociate();
        let suite = sa.suite();
        tracing::debug!(suite = suite.name(), "association established");
        let headers = if peer.ip().to_canonical().is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        let mtu = largest_packet(suite, LINK - headers).min(self.session.carriers().connection().mtu());
        let (records, (sender, reports)) = (Arc::<AtomicU64>::default(), mpsc::channel(REPORTS));
        self.reports = reports;
        let session = Arc::clone(&self.session);
        self.plane.associate(Association { peer, sa, session, records: Arc::clone(&records), reports: sender });
        self.present = Some(Present { peer, suite, records, seen: 0, mtu });
    }

    /// Lets go of the association, if there is one: packets go by the connection.
    pub fn dissociate(&mut self) {
        self.set_route(None);
        if let Some(Present { peer, records, .. }) = self.present.take() {
            self.plane.dissociate(peer, &records);
        }
    }

    /// Waits for the next report of the worker. Cancel-safe.
    pub async fn report(&mut self) -> RecordReport {
        match self.reports.recv().await {
            Some(report) => report,
            None => pending().await,
        }
    }

    /// Whether records were opened since this was last asked.
    pub fn has_heard(&mut self) -> bool {
        self.present.as_mut().is_some_and(|present| {
            let records = present.records.load(Ordering::Relaxed);
            records != mem::replace(&mut present.seen, records)
        })
    }

    /// Whether the keys of the association have served their time. `outbound` is what seals its records.
    #[must_use]
    pub fn is_worn(&self, outbound: &Outbound<Cipher>) -> bool {
        let opened = self.present.as_ref().map_or(0, |present| present.seen);
        opened >= WORN || outbound.usage().packets >= WORN
    }

    /// The system refused a datagram of so many bytes as larger than the path takes. Returns the largest packet that
    /// fits now, in bytes; `None` without an association.
    pub fn handle_too_big(&mut self, datagram: u16) -> Option<u16> {
        let present = self.present.as_mut()?;
        present.mtu = present.mtu.min(largest_packet(present.suite, usize::from(datagram).saturating_sub(1)));
        Some(present.mtu)
    }

    /// Has the workers send packets of at most so many bytes in records sealed by that, which leave from there, or by
    /// the connection.
    pub fn set_route(&mut self, route: Option<(&Arc<Outbound<Cipher>>, Origin, u16)>) {
        let wanted = self.peer().zip(route);
        let routed = wanted.map(|(to, (_, _, mtu))| (to, mtu));
        if routed == self.routed {
            return;
        }
        tracing::debug!(is_passing = routed.is_some(), "packets in records");
        self.routed = routed;
        self.session.carriers().set_route(wanted.map(|(to, (sa, origin, mtu))| DatagramRoute {
            sa: OutboundSa::Dtls(Arc::clone(sa)),
            to,
            origin,
            mtu,
            vouched: false,
            marked: false,
        }));
    }
}

impl<S: Carried> Drop for DtlsCarrier<S> {
    fn drop(&mut self) {
        self.dissociate();
    }
}

/// The largest packet that fits a record in a datagram of so many bytes.
fn largest_packet(suite: CipherSuite, datagram: usize) -> u16 {
    u16::try_from(suite.largest_plaintext(datagram).saturating_sub(HEAD_LEN)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use adit_proto::dtls::secret::{MasterSecret, Randoms};
    use adit_proto::esp::spi::Spi;

    use super::*;
    use crate::testing::world::{self, MTU, Session};
    use crate::worker::{DataPlane, Installation, Stray};

    const PEER: &str = "192.0.2.1:443";

    /// Workers that keep the associations they are given.
    #[derive(Default)]
    struct Given(Mutex<Vec<Association<Session>>>);

    impl Given {
        fn given(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    impl DataPlane<Session> for Given {
        fn claim_spi(&self, _beside: Option<Spi>) -> Option<Spi> {
            None
        }

        fn install(&self, _installation: Installation<Session>) {}

        fn retire(&self, _spi: Spi) {}

        fn origin(&self, _to: SocketAddr) -> Origin {
            Origin::default()
        }

        fn send(&self, _origin: Origin, _to: SocketAddr, _datagram: &[u8], _ecn: u8) -> io::Result<()> {
            Ok(())
        }
    }

    impl AssociationPlane<Session> for Given {
        fn associate(&self, association: Association<Session>) {
            self.0.lock().unwrap().push(association);
        }

        fn dissociate(&self, peer: SocketAddr, records: &Arc<AtomicU64>) {
            self.0.lock().unwrap().retain(|known| known.peer != peer || !Arc::ptr_eq(&known.records, records));
        }

        fn hand_strays_to(&self, _strays: &mpsc::Sender<Stray>) {}
    }

    fn halves() -> (Inbound<Cipher>, Arc<Outbound<Cipher>>) {
        let randoms = Randoms { client: [1; 32], server: [2; 32] };
        let keys = MasterSecret::new([3; 48]).keys(CipherSuite::PskAes256Gcm, &randoms).unwrap();
        (Inbound::new(keys.server_to_client).unwrap(), Arc::new(Outbound::new(keys.client_to_server).unwrap()))
    }

    #[test]
    fn packets_go_in_records_while_they_have_a_route_and_an_association() {
        let ((session, _keeper), plane) = (world::session(), Arc::<Given>::default());
        let workers = Arc::<Given>::clone(&plane) as Arc<dyn AssociationPlane<Session>>;
        let mut carrier = DtlsCarrier::new(Arc::clone(&session), workers);
        let (inbound, outbound) = halves();
        carrier.set_route(Some((&outbound, Origin::default(), 1400)));
        assert_eq!(session.carriers.name(), "quic", "there is no association");

        let peer: SocketAddr = PEER.parse().unwrap();
        carrier.associate(peer, inbound);
        assert_eq!((carrier.peer(), carrier.largest_packet(), plane.given()), (Some(peer), Some(MTU), 1));
        carrier.set_route(Some((&outbound, Origin::default(), 1400)));
        assert_eq!((session.carriers.name(), session.carriers.mtu()), ("dtls", 1400));
        assert!(!carrier.has_heard() && !carrier.is_worn(&outbound));
        plane.0.lock().unwrap()[0].records.store(WORN, Ordering::Relaxed);
        assert!(carrier.has_heard() && !carrier.has_heard() && carrier.is_worn(&outbound));
        assert_eq!(carrier.handle_too_big(1400), Some(1399 - 38), "what is around a packet, and a byte less");
        assert_eq!(carrier.handle_too_big(1450), Some(1399 - 38));

        carrier.associate(peer, halves().0);
        assert_eq!((session.carriers.name(), plane.given()), ("quic", 1), "the new one is not proven");
        carrier.set_route(Some((&outbound, Origin::default(), 1400)));
        drop(carrier);
        assert_eq!((session.carriers.name(), plane.given()), ("quic", 0));
    }
}
