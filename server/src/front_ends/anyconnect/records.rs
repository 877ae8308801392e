//! The DTLS side of one session: its associations, what is said in their records, and whether packets go there.

use std::iter::from_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::Origin;
use adit_net::carrier::dtls::DtlsCarrier;
use adit_net::cipher::Cipher;
use adit_net::worker::{RecordReport, Stray};
use adit_proto::anyconnect::datagrams::{Datagrams, Farewell, State};
use adit_proto::anyconnect::frame::FrameKind;
use adit_proto::anyconnect::record;
use adit_proto::anyconnect::tunnel::PSK_LEN;
use adit_proto::dtls::handshake::{Credential, Setup};
use adit_proto::dtls::record::ContentType;
use adit_proto::dtls::sa::Outbound;
use adit_proto::dtls::secret::{MASTER_LEN, MasterSecret};
use adit_proto::dtls::succession::{Change, Succession};
use adit_proto::dtls::suite::CipherSuite;
use adit_proto::esp::session::Hints;
use adit_proto::packet::IPV6_MIN_MTU;
use adit_proto::packet::ecn::NOT_ECT;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use zeroize::Zeroizing;

use super::dtls_door::{FromClient, Registration, random};
use crate::core::router::Router;
use crate::core::sessions::Session;

/// How long a client may be silent in records before it is asked whether it gets any.
pub(super) const DPD: Duration = Duration::from_secs(10);
/// How often at least it is looked whether records came.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes of the largest datagram of a handshake: what every path takes.
const HANDSHAKE: usize = 1200;

/// What the keys of a session's associations come from. It has no `Debug`.
pub(super) enum Secret {
    /// A key that both have from their TLS connection.
    PreSharedKey(Zeroizing<[u8; PSK_LEN]>),
    /// What the client has told over its TLS connection, and the suite that was chosen with it.
    Resumed { master: Zeroizing<[u8; MASTER_LEN]>, suite: CipherSuite },
}

impl Secret {
    fn credential(&self) -> Credential {
        match self {
            Self::PreSharedKey(key) => {
                Credential::PreSharedKey { key: Zeroizing::new(key.to_vec()), suites: CipherSuite::PSK.to_vec() }
            }
            Self::Resumed { master, suite } => {
                Credential::Resumed { master: MasterSecret::new(**master), suite: *suite }
            }
        }
    }
}

/// The DTLS side of one session. Dropping it ends what there is.
pub(super) struct Records {
    session: Arc<Session>,
    router: Arc<Router>,
    registration: Registration,
    from_client: mpsc::Receiver<FromClient>,
    secret: Secret,
    succession: Succession<Cipher, Arc<Outbound<Cipher>>, Origin>,
    datagrams: Datagrams,
    carrier: DtlsCarrier<Session>,
}

impl Records {
    /// Begins without an association, for a client that knows the same secret.
    pub(super) fn new(
        session: Arc<Session>,
        router: Arc<Router>,
        (registration, from_client): (Registration, mpsc::Receiver<FromClient>),
        secret: Secret,
    ) -> Self {
        let carrier = DtlsCarrier::new(Arc::clone(&session), Arc::clone(registration.door.plane()));
        Self {
            session,
            router,
            registration,
            from_client,
            secret,
            succession: Succession::default(),
            datagrams: Datagrams::new(DPD, Instant::now()),
            carrier,
        }
    }

    /// Waits until something happens and does what follows from it. Cancel-safe.
    pub(super) async fn turn(&mut self) -> Option<Farewell> {
        let due = [self.datagrams.poll_timeout(), self.succession.poll_timeout()].into_iter().flatten().min();
        let look = Instant::now() + LOOK;
        let mut farewell = None;
        tokio::select! {
            Some(datagram) = self.from_client.recv() => self.handle_datagram(datagram),
            report = self.carrier.report() => farewell = self.handle_report(&report),
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
        let (Stray { from, origin, mut datagram }, now) = (stray, Instant::now());
        let Self { succession, secret, registration, .. } = self;
        let handled = match introduction {
            Some(introduction) => {
                let setup = || Setup {
                    credential: secret.credential(),
                    session_id: registration.app_id.to_vec(),
                    random: random(),
                    largest_datagram: HANDSHAKE,
                };
                succession.handle_hello(&introduction, from, origin, &mut datagram, setup, now)
            }
            None => succession.handle_datagram(&mut datagram, from, origin, now),
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
        let narrower = hints.too_big.and_then(|datagram| self.carrier.handle_too_big(datagram));
        if narrower.is_some_and(|mtu| mtu < IPV6_MIN_MTU) {
            tracing::debug!(mtu = narrower, "packets do not fit the records of this path");
            self.succession.handle_close();
        }
    }

    /// Looks whether records came, and whether the keys have served their time: then the client is to begin anew.
    fn look(&mut self, now: Instant) {
        if self.carrier.has_heard() {
            self.datagrams.handle_heard(now);
        }
        if self.succession.outbound().is_some_and(|sa| self.carrier.is_worn(sa)) {
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
                Change::Data(body) => self.handle_data(&body, now),
                Change::Closed(ending) => {
                    tracing::debug!(?ending, "no association any more");
                    self.retire();
                }
            }
        }
        for (to, origin, datagram) in handshake {
            self.send(origin, to, &datagram);
        }
        while let Some(plaintext) = self.datagrams.poll_transmit() {
            let sealed = self.succession.outbound().map(|sa| sa.record(ContentType::ApplicationData, &plaintext));
            let way = self.succession.origin().zip(self.carrier.peer());
            if let (Some(Ok(record)), Some((origin, peer))) = (sealed, way) {
                self.send(origin, peer, &record);
            }
        }
        self.set_route();
    }

    /// Takes what a record held that came before the worker took over.
    fn handle_data(&mut self, body: &[u8], now: Instant) {
        if let Some((FrameKind::Data, packet)) = record::split(body) {
            self.datagrams.handle_heard(now);
            self.router.from_client(&self.session, &mut vec![Bytes::copy_from_slice(packet)]);
        } else {
            // What it says of the session is said again.
            self.datagrams.handle_record(body, now);
        }
    }

    fn establish(&mut self, peer: SocketAddr) {
        let Some(sa) = self.succession.take_inbound() else { return };
        self.carrier.associate(peer, sa);
        self.datagrams.handle_established();
    }

    /// Lets go of the present association.
    fn retire(&mut self) {
        self.datagrams.handle_closed();
        self.carrier.dissociate();
    }

    /// Has the workers send in records while those pass, and by TLS while they do not.
    fn set_route(&mut self) {
        let is_passing = self.datagrams.state() == State::Passing;
        let route = self.succession.outbound().zip(self.succession.origin()).filter(|_| is_passing);
        let route = route.zip(self.carrier.largest_packet()).map(|((sa, origin), largest)| {
            let mtu = self.datagrams.path_mtu().map_or(largest, |mtu| mtu.min(largest));
            (sa, origin, mtu)
        });
        self.carrier.set_route(route);
    }

    fn send(&self, origin: Origin, to: SocketAddr, datagram: &[u8]) {
        // What is lost here is sent again like what is lost on its way.
        self.registration.door.plane().send(origin, to, datagram, NOT_ECT).ok();
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.succession.handle_close();
        self.drain(Instant::now());
        self.retire();
    }
}

#[cfg(test)]
mod tests {
    use adit_net::tun::Tun;
    use adit_proto::dtls::association::Association;
    use adit_testing::PATIENCE;
    use adit_testing::namespace::in_namespace_async;
    use tokio::time::timeout;

    use super::super::dtls_door::DtlsDoor;
    use super::super::dtls_door::tests::{Sent, address};
    use super::*;
    use crate::core::router;
    use crate::core::tests::session;

    const MASTER: [u8; MASTER_LEN] = [7; MASTER_LEN];
    const SUITE: CipherSuite = CipherSuite::RsaAes256Gcm;

    type Client = Association<Cipher, Arc<Outbound<Cipher>>>;

    /// One that may send as soon as it has said its last word of the handshake.
    fn client(registration: &Registration) -> Client {
        let credential = Credential::Resumed { master: MasterSecret::new(MASTER), suite: SUITE };
        let session_id = registration.app_id.to_vec();
        Client::client(Setup { credential, session_id, random: random(), largest_datagram: HANDSHAKE }, Instant::now())
    }

    #[test]
    fn packet_that_overtakes_the_end_of_a_handshake_is_not_lost() {
        in_namespace_async(|| async {
            let router = Arc::new(Router::new(Tun::create("adit0", 1, true).unwrap(), Arc::default()));
            let (session, sent) = (session(1, "dev-a", 2), Arc::<Sent>::default());
            let door = DtlsDoor::new(Arc::<Sent>::clone(&sent), None);
            let registered = door.register();
            let mut client = client(&registered.0);
            let secret = Secret::Resumed { master: Zeroizing::new(MASTER), suite: SUITE };
            let mut records = Records::new(Arc::clone(&session), router, registered, secret);
            let handle = |datagram: Vec<u8>| {
                door.handle(Stray { from: address(1000), origin: Origin::default(), datagram }, Instant::now());
            };
            let mut has_sent = false;
            while records.carrier.peer().is_none() {
                let flight: Vec<_> = from_fn(|| client.poll_transmit()).collect();
                if let Some(outbound) = client.outbound().filter(|_| !std::mem::replace(&mut has_sent, true)) {
                    let packet = record::encode(FrameKind::Data, &router::tests::packet());
                    handle(outbound.record(ContentType::ApplicationData, &packet).unwrap());
                }
                flight.into_iter().for_each(handle);
                while !records.from_client.is_empty() {
                    timeout(PATIENCE, records.turn()).await.unwrap();
                }
                for mut datagram in sent.take() {
                    client.handle_datagram(&mut datagram, Instant::now()).unwrap();
                }
            }
            assert!(has_sent, "it was sent before the gateway had the last word of the handshake");
            assert_eq!(session.carriers.counters().traffic().rx_packets, 1);
            assert_eq!(records.datagrams.state(), State::Passing);
        });
    }
}
