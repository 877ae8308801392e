//! The DTLS side of one session: its associations, what is said in their records, and whether packets go there.

use std::iter::from_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_net::carrier::{DatagramRoute, Origin, OutboundSa};
use adit_net::cipher::Cipher;
use adit_net::worker::{Association, RecordReport};
use adit_proto::anyconnect::datagrams::{Datagrams, Farewell, State};
use adit_proto::anyconnect::record::HEAD_LEN;
use adit_proto::anyconnect::tunnel::PSK_LEN;
use adit_proto::dtls::handshake::{Credential, Setup};
use adit_proto::dtls::record::ContentType;
use adit_proto::dtls::sa::Outbound;
use adit_proto::dtls::succession::{Change, Succession};
use adit_proto::dtls::suite::CipherSuite;
use adit_proto::esp::session::Hints;
use adit_proto::packet::IPV6_MIN_MTU;
use adit_proto::packet::ecn::NOT_ECT;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use zeroize::Zeroizing;

use super::dtls_door::{FromClient, Registration, random};
use crate::core::sessions::Session;

/// How long a client may be silent in records before it is asked whether it gets any.
pub(super) const DPD: Duration = Duration::from_secs(10);
/// How often at least it is looked whether records came.
const LOOK: Duration = Duration::from_secs(5);
/// Reports of workers that wait; more are dropped, and what they told is said again.
const REPORTS: usize = 32;
/// Bytes of the largest datagram of a handshake: what every path takes.
const HANDSHAKE: usize = 1200;
/// Bytes of the largest packet of most links, and of the headers of IP and UDP in it.
const LINK: usize = 1500;
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// Records after which the client is to begin a new association: half of what a key of AES-GCM may protect.
const WORN: u64 = 1 << 31;

/// The present association, as the packet path knows it.
struct Present {
    peer: SocketAddr,
    /// Counts the records that its worker opened.
    records: Arc<AtomicU64>,
    /// How many there were when it was looked last.
    seen: u64,
    /// Largest packet that fits a record on its path, in bytes.
    mtu: u16,
}

/// The DTLS side of one session. Dropping it ends what there is.
pub(super) struct Records {
    session: Arc<Session>,
    registration: Registration,
    from_client: mpsc::Receiver<FromClient>,
    reports: mpsc::Receiver<RecordReport>,
    psk: Zeroizing<[u8; PSK_LEN]>,
    succession: Succession<Cipher, Arc<Outbound<Cipher>>>,
    datagrams: Datagrams,
    /// Where the datagrams of the newest hello arrived, and from whom; those of the hello before.
    origins: [Option<(SocketAddr, Origin)>; 2],
    present: Option<Present>,
    /// The address and the largest packet of the route that the workers have.
    routed: Option<(SocketAddr, u16)>,
}

impl Records {
    /// Begins without an association, for a client that takes the same key from TLS.
    pub(super) fn new(
        session: Arc<Session>,
        (registration, from_client): (Registration, mpsc::Receiver<FromClient>),
        psk: Zeroizing<[u8; PSK_LEN]>,
    ) -> Self {
        let (_, reports) = mpsc::channel(1);
        Self {
            session,
            registration,
            from_client,
            reports,
            psk,
            succession: Succession::default(),
            datagrams: Datagrams::new(DPD, Instant::now()),
            origins: [None; 2],
            present: None,
            routed: None,
        }
    }

    /// Waits until something happens and does what follows from it. Cancel-safe.
    pub(super) async fn turn(&mut self) -> Option<Farewell> {
        let due = [self.datagrams.poll_timeout(), self.succession.poll_timeout()].into_iter().flatten().min();
        let look = Instant::now() + LOOK;
        let mut farewell = None;
        tokio::select! {
            Some(datagram) = self.from_client.recv() => self.handle_datagram(datagram),
            Some(report) = self.reports.recv() => farewell = self.handle_report(&report),
            hints = self.session.carriers.hinted() => self.handle_hints(hints),
            () = sleep_until(due.map_or(look, |due| due.min(look)).into()) => {}
        }
        let now = Instant::now();
        self.look(now);
        self.datagrams.handle_timeout(now);
        self.succession.handle_timeout(now);
        self.drain(now);
        farewell
    }

    fn handle_datagram(&mut self, FromClient { introduction, stray }: FromClient) {
        let (from, mut datagram, now) = (stray.from, stray.datagram, Instant::now());
        let Self { succession, psk, registration, origins, .. } = self;
        let handled = match introduction {
            Some(introduction) => {
                if origins[0].is_none_or(|(known, _)| known != from) {
                    origins.rotate_right(1);
                }
                origins[0] = Some((from, stray.origin));
                let setup = || Setup {
                    credential: Credential::PreSharedKey {
                        key: Zeroizing::new(psk.to_vec()),
                        suites: CipherSuite::PSK.to_vec(),
                    },
                    session_id: registration.app_id.to_vec(),
                    random: random(),
                    largest_datagram: HANDSHAKE,
                };
                succession.handle_hello(&introduction, from, &mut datagram, setup, now)
            }
            None => succession.handle_datagram(&mut datagram, from, now),
        };
        if let Err(reason) = handled {
            self.session.carriers.counters().count_drop(reason);
        }
    }

    fn handle_report(&mut self, report: &RecordReport) -> Option<Farewell> {
        let now = Instant::now();
        match report {
            RecordReport::Heard => self.datagrams.handle_heard(now),
            RecordReport::Opened { content: ContentType::ApplicationData, body } => {
                return self.datagrams.handle_record(body, now);
            }
            RecordReport::Opened { content, body } => {
                if let Err(reason) = self.succession.handle_opened(*content, body, now) {
                    self.session.carriers.counters().count_drop(reason);
                }
            }
        }
        None
    }

    fn handle_hints(&mut self, hints: Hints) {
        // Records that came before the doubt do not speak against it.
        self.look(Instant::now());
        if hints.doubt {
            self.datagrams.handle_doubt();
        }
        if let (Some(datagram), Some(suite)) = (hints.too_big, self.suite())
            && let Some(present) = &mut self.present
        {
            present.mtu = present.mtu.min(largest_packet(suite, usize::from(datagram).saturating_sub(1)));
            if present.mtu < IPV6_MIN_MTU {
                tracing::debug!(mtu = present.mtu, "packets do not fit the records of this path");
                self.succession.handle_close();
            }
        }
    }

    /// Looks whether records came, and whether the key has served its time.
    fn look(&mut self, now: Instant) {
        let Some(present) = &mut self.present else { return };
        let records = present.records.load(Ordering::Relaxed);
        if records != std::mem::replace(&mut present.seen, records) {
            self.datagrams.handle_heard(now);
        }
        if records >= WORN || self.succession.outbound().is_some_and(|sa| sa.usage().packets >= WORN) {
            self.succession.handle_close();
        }
    }

    /// Does what the machines ask for.
    fn drain(&mut self, now: Instant) {
        // The worker has to know the keys before the client hears that they are good.
        let handshake: Vec<_> = from_fn(|| self.succession.poll_transmit()).collect();
        while let Some(change) = self.succession.poll_change() {
            match change {
                Change::Established(peer) => self.establish(peer),
                Change::Data(body) => {
                    // It came before the worker took over; what it says of the session is said again.
                    self.datagrams.handle_record(&body, now);
                }
                Change::Closed(ending) => {
                    tracing::debug!(?ending, "no association any more");
                    self.retire();
                }
            }
        }
        for (to, datagram) in handshake {
            self.send(to, &datagram);
        }
        while let Some(plaintext) = self.datagrams.poll_transmit() {
            let sealed = self.succession.outbound().map(|sa| sa.record(ContentType::ApplicationData, &plaintext));
            if let (Some(Ok(record)), Some(present)) = (sealed, &self.present) {
                self.send(present.peer, &record);
            }
        }
        self.set_route();
    }

    fn establish(&mut self, peer: SocketAddr) {
        self.retire();
        let (Some(sa), Some(suite)) = (self.succession.take_inbound(), self.suite()) else { return };
        tracing::debug!(suite = suite.name(), "association established");
        let headers = if peer.ip().to_canonical().is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        let mtu = largest_packet(suite, LINK - headers).min(self.session.connection.mtu());
        let (records, (sender, reports)) = (Arc::<AtomicU64>::default(), mpsc::channel(REPORTS));
        self.reports = reports;
        self.registration.door.plane().associate(Association {
            peer,
            sa,
            session: Arc::clone(&self.session),
            records: Arc::clone(&records),
            reports: sender,
        });
        self.present = Some(Present { peer, records, seen: 0, mtu });
        self.datagrams.handle_established();
    }

    /// Lets go of the present association.
    fn retire(&mut self) {
        self.datagrams.handle_closed();
        self.set_route();
        if let Some(Present { peer, records, .. }) = self.present.take() {
            self.registration.door.plane().dissociate(peer, &records);
        }
    }

    /// Has the workers send in records while those pass, and by TLS while they do not.
    fn set_route(&mut self) {
        let passing = self.present.as_ref().filter(|_| self.datagrams.state() == State::Passing);
        let mtu = |present: &Present| self.datagrams.path_mtu().map_or(present.mtu, |mtu| mtu.min(present.mtu));
        let wanted = passing.map(|present| (present.peer, mtu(present)));
        if wanted == self.routed {
            return;
        }
        let route = wanted.zip(self.succession.outbound()).map(|((to, mtu), sa)| DatagramRoute {
            sa: OutboundSa::Dtls(Arc::clone(sa)),
            to,
            origin: self.origin(to),
            mtu,
            vouched: false,
            marked: false,
        });
        tracing::debug!(is_passing = route.is_some(), "packets in records");
        self.routed = wanted;
        self.session.carriers.set_route(route);
    }

    fn suite(&self) -> Option<CipherSuite> {
        self.succession.outbound().map(|sa| sa.suite())
    }

    fn origin(&self, to: SocketAddr) -> Origin {
        let known = self.origins.iter().flatten().find(|(from, _)| *from == to).map(|(_, origin)| *origin);
        known.unwrap_or_else(|| self.registration.door.plane().origin(to))
    }

    fn send(&self, to: SocketAddr, datagram: &[u8]) {
        // What is lost here is sent again like what is lost on its way.
        self.registration.door.plane().send(self.origin(to), to, datagram, NOT_ECT).ok();
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.succession.handle_close();
        self.drain(Instant::now());
        self.retire();
    }
}

/// The largest packet that fits a record in a datagram of so many bytes.
fn largest_packet(suite: CipherSuite, datagram: usize) -> u16 {
    u16::try_from(suite.largest_plaintext(datagram).saturating_sub(HEAD_LEN)).unwrap_or(u16::MAX)
}
