use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, Weak};
use std::time::Duration;

use adit_proto::esp::field::Answer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::esp::packet::{self, NextHeader, PREFIX_LEN};
use adit_proto::esp::probe::Probe;
use adit_proto::esp::rekey::RekeyError;
use adit_proto::esp::sa::Opened;
use adit_proto::esp::spi::Spi;
use adit_proto::packet::IPV6_MIN_MTU;
use adit_proto::sealing::replay::Arrival;
use adit_proto::sealing::suite::Suite;
use tokio::time::Instant as Clock;

use super::*;
use crate::carrier::esp::key_exchange::ExchangeError;
use crate::testing::Keeper;
use crate::worker::Installation;

const LARGEST: u16 = 1438;

fn gateway() -> SocketAddr {
    "192.0.2.1:443".parse().unwrap()
}

fn home() -> SocketAddr {
    "198.51.100.7:40000".parse().unwrap()
}

fn roaming() -> SocketAddr {
    "[2001:db8::7]:40001".parse().unwrap()
}

fn attacker() -> SocketAddr {
    "203.0.113.66:6666".parse().unwrap()
}

struct Session(Carriers);

impl Carried for Session {
    fn carriers(&self) -> &Carriers {
        &self.0
    }
}

/// The worker of one end: opens what comes at once, and sends into the other.
struct Worker {
    address: Mutex<SocketAddr>,
    peer: Mutex<Weak<Self>>,
    sas: Mutex<HashMap<Spi, Installation<Session>>>,
    claimed: Mutex<Vec<Spi>>,
    drawn: AtomicU32,
    /// Nothing it sends arrives.
    blocked: AtomicBool,
    /// Which of its sockets datagrams arrive at.
    socket: AtomicU32,
    /// Larger datagrams get lost.
    passes: AtomicU64,
    /// Larger datagrams are refused by the system.
    interface: AtomicU64,
    /// Datagrams that could not be opened.
    failed: AtomicU64,
    /// IP packets opened.
    opened: AtomicU64,
    /// Datagrams sent: where to, and their bytes.
    sent: Mutex<Vec<(SocketAddr, Vec<u8>)>>,
}

impl Worker {
    fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            address: Mutex::new(address),
            peer: Mutex::default(),
            sas: Mutex::default(),
            claimed: Mutex::default(),
            drawn: AtomicU32::new(1),
            blocked: AtomicBool::new(false),
            socket: AtomicU32::new(3),
            passes: AtomicU64::new(1472),
            interface: AtomicU64::new(u64::MAX),
            failed: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            sent: Mutex::default(),
        })
    }

    fn receive(&self, from: SocketAddr, mut datagram: Vec<u8>) {
        let len = datagram.len();
        let spi = Spi::from_wire(u32::from_be_bytes(*datagram.first_chunk().unwrap())).unwrap();
        let mut sas = self.sas.lock().unwrap();
        let opened = sas.get_mut(&spi).and_then(|installation| {
            let opened = installation.sa.open(&mut datagram).ok()?;
            Some((opened, installation))
        });
        let Some((opened, installation)) = opened else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.report(installation, from, len, &opened, &datagram);
    }

    fn report(&self, to: &Installation<Session>, from: SocketAddr, len: usize, opened: &Opened, datagram: &[u8]) {
        let is_dummy = opened.next_header == NextHeader::Nothing;
        self.opened.fetch_add(u64::from(!is_dummy), Ordering::Relaxed);
        let probe = is_dummy.then(|| Probe::decode(&datagram[opened.range()])).flatten();
        let is_proven = to.session.0.route().as_ref().is_some_and(|route| route.to == from);
        if probe.is_some() || !is_proven {
            let (epoch, newest) = (to.epoch, opened.arrival == Arrival::Newest);
            let origin = Origin { socket: self.socket.load(Ordering::Relaxed) as usize, local: None };
            let report = Report { epoch, from, origin, len, newest, probe };
            to.reports.try_send(report).ok();
        }
    }

    fn sent_to(&self, to: SocketAddr) -> Vec<Vec<u8>> {
        let sent = self.sent.lock().unwrap();
        sent.iter().filter(|(address, _)| *address == to).map(|(_, datagram)| datagram.clone()).collect()
    }
}

impl DataPlane<Session> for Worker {
    fn claim_spi(&self, _beside: Option<Spi>) -> Option<Spi> {
        let spi = Spi::new(0, self.drawn.fetch_add(1, Ordering::Relaxed))?;
        self.claimed.lock().unwrap().push(spi);
        Some(spi)
    }

    fn install(&self, installation: Installation<Session>) {
        assert!(self.claimed.lock().unwrap().contains(&installation.sa.spi()));
        self.sas.lock().unwrap().insert(installation.sa.spi(), installation);
    }

    fn retire(&self, spi: Spi) {
        self.sas.lock().unwrap().remove(&spi);
        self.claimed.lock().unwrap().retain(|claimed| *claimed != spi);
    }

    fn origin(&self, _: SocketAddr) -> Origin {
        Origin::default()
    }

    fn send(&self, _: Origin, to: SocketAddr, datagram: &[u8], _ecn: u8) -> io::Result<()> {
        if datagram.len() as u64 > self.interface.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        self.sent.lock().unwrap().push((to, datagram.to_vec()));
        let peer = self.peer.lock().unwrap().upgrade().unwrap();
        let passes = self.passes.load(Ordering::Relaxed) >= datagram.len() as u64;
        let is_there = *peer.address.lock().unwrap() == to;
        if passes && is_there && !self.blocked.load(Ordering::Relaxed) {
            let from = *self.address.lock().unwrap();
            peer.receive(from, datagram.to_vec());
        }
        Ok(())
    }
}

struct End {
    control: EspControl<Session>,
    session: Arc<Session>,
    worker: Arc<Worker>,
}

impl End {
    fn carriers(&self) -> &Carriers {
        &self.session.0
    }

    /// Sends an IP packet as a worker does; says whether it went by ESP.
    fn send_packet(&self) -> bool {
        let route = self.carriers().route();
        let Some(route) = route.as_ref() else { return false };
        let mut datagram = vec![0; packet::sealed_len(60)];
        datagram[PREFIX_LEN] = 0x45;
        let len = route.seal(&mut datagram, 60, NextHeader::Ipv4).unwrap();
        self.worker.send(route.origin, route.to, &datagram[..len], 0).unwrap();
        self.carriers().note_sent();
        true
    }

    fn route_to(&self) -> Option<SocketAddr> {
        self.carriers().route().as_ref().map(|route| route.to)
    }

    fn route_from(&self) -> Option<usize> {
        self.carriers().route().as_ref().map(|route| route.origin.socket)
    }
}

struct World {
    client: End,
    server: End,
}

fn answer() -> Answer {
    Answer { suite: Suite::Aes256Gcm, group: Group::X25519, vouched: true }
}

fn policy() -> RekeyPolicy {
    RekeyPolicy::default()
}

fn setup<'a>(
    worker: &Arc<Worker>,
    session: &Arc<Session>,
    secret: &'a mut [u8; 32],
    (negotiated, policy): (Answer, RekeyPolicy),
) -> EspSetup<'a, Session> {
    let plane: Arc<dyn DataPlane<Session>> = Arc::<Worker>::clone(worker);
    EspSetup { negotiated, secret, plane, session: Arc::clone(session), policy, largest_packet: LARGEST }
}

impl World {
    fn new(negotiated: Answer, client_policy: RekeyPolicy, server_policy: RekeyPolicy) -> Self {
        let [at_client, at_server] = [home(), gateway()].map(Worker::new);
        *at_client.peer.lock().unwrap() = Arc::downgrade(&at_server);
        *at_server.peer.lock().unwrap() = Arc::downgrade(&at_client);
        let [of_client, of_server] = [(); 2].map(|()| Arc::new(Session(Carriers::new(Arc::new(Keeper::new(1280))))));
        let mut secrets = [[7; 32]; 2];
        let [client_secret, server_secret] = &mut secrets;
        let now = now();
        let client = EspControl::client(
            setup(&at_client, &of_client, client_secret, (negotiated, client_policy)),
            gateway(),
            now,
        );
        let server = EspControl::server(setup(&at_server, &of_server, server_secret, (negotiated, server_policy)), now);
        assert_eq!(secrets, [[0; 32]; 2], "taken and erased");
        Self {
            client: End { control: client, session: of_client, worker: at_client },
            server: End { control: server, session: of_server, worker: at_server },
        }
    }

    fn usual() -> Self {
        Self::new(answer(), policy(), policy())
    }

    fn exchange_capsules(&mut self) -> Result<(), EspError> {
        loop {
            let mut is_quiet = true;
            while let Some(capsule) = self.client.control.poll_capsule() {
                is_quiet = false;
                self.server.control.handle_capsule(capsule, now())?;
            }
            while let Some(capsule) = self.server.control.poll_capsule() {
                is_quiet = false;
                self.client.control.handle_capsule(capsule, now())?;
            }
            if is_quiet {
                return Ok(());
            }
        }
    }

    /// Lets time pass.
    async fn run(&mut self, time: Duration) {
        let end = Clock::now() + time;
        loop {
            self.exchange_capsules().unwrap();
            tokio::select! {
                biased;
                outcome = self.client.control.drive() => outcome.unwrap(),
                outcome = self.server.control.drive() => outcome.unwrap(),
                () = tokio::time::sleep_until(end) => return,
            }
        }
    }

    /// Lets time pass with packets in both directions every 10 ms; returns when the first end stopped sending by ESP.
    async fn run_busy(&mut self, time: Duration) -> Option<Duration> {
        let start = Clock::now();
        let mut stopped = None;
        while start.elapsed() < time {
            let by_esp = self.client.send_packet() & self.server.send_packet();
            if !by_esp && stopped.is_none() {
                stopped = Some(start.elapsed());
            }
            self.run(Duration::from_millis(10)).await;
        }
        stopped
    }

    fn block(&self, blocked: bool) {
        for end in [&self.client, &self.server] {
            end.worker.blocked.store(blocked, Ordering::Relaxed);
        }
    }

    fn names(&self) -> [&'static str; 2] {
        [&self.client, &self.server].map(|end| end.carriers().name())
    }

    fn failed(&self) -> u64 {
        [&self.client, &self.server].into_iter().map(|end| end.worker.failed.load(Ordering::Relaxed)).sum()
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn path_comes_up_on_both_ends() {
    let mut world = World::usual();
    assert_eq!(world.names(), ["quic", "quic"]);
    world.run(Duration::from_millis(1)).await;
    assert_eq!(world.names(), ["esp", "esp"]);
    assert_eq!((world.client.route_to(), world.server.route_to()), (Some(gateway()), Some(home())));
    assert_eq!(world.client.control.state(), PathState::Up);
    assert_eq!(world.server.route_from(), Some(3), "where the client's packets arrive");
    world.server.worker.socket.store(1, Ordering::Relaxed);
    world.run_busy(seconds(2)).await;
    assert_eq!(world.server.route_from(), Some(1), "wherever that is");
}

#[tokio::test(start_paused = true)]
async fn refused_datagram_makes_packets_smaller_and_one_refusal_counts_once() {
    let mut world = World::usual();
    world.run_busy(seconds(5)).await;
    assert_eq!(world.client.carriers().mtu(), LARGEST);
    world.client.worker.passes.store(1400, Ordering::Relaxed);
    for _ in 0..3 {
        world.client.carriers().note_too_big(u16::try_from(packet::sealed_len(usize::from(LARGEST))).unwrap());
        world.run(Duration::from_millis(1)).await;
        assert!((IPV6_MIN_MTU..LARGEST).contains(&world.client.carriers().mtu()));
        assert_eq!(world.names(), ["esp", "esp"]);
    }
    world.run_busy(seconds(20)).await;
    let found = world.client.carriers().mtu();
    assert!(packet::sealed_len(usize::from(found)) <= 1400 && found > 1350, "{found}");
}

#[tokio::test(start_paused = true)]
async fn probe_that_the_system_refuses_is_not_waited_for() {
    let mut world = World::usual();
    world.client.worker.interface.store(1404, Ordering::Relaxed);
    // Less than an answer to one probe may take.
    world.run_busy(Duration::from_millis(500)).await;
    let found = world.client.carriers().mtu();
    assert!(packet::sealed_len(usize::from(found)) <= 1404 && found > 1350, "{found}");
    assert_eq!(world.names(), ["esp", "esp"]);
}

#[tokio::test(start_paused = true)]
async fn packets_pass_through_rekeys_with_real_keys() {
    for rekeys_at_server in [false, true] {
        let often = RekeyPolicy { after: seconds(1), ..policy() };
        let [client, server] = if rekeys_at_server { [policy(), often] } else { [often, policy()] };
        let mut world = World::new(Answer { group: Group::X25519MlKem768, ..answer() }, client, server);
        world.run(Duration::from_millis(1)).await;
        let stopped = world.run_busy(seconds(6)).await;
        assert_eq!((stopped, world.failed()), (None, 0));
        for end in [&world.client, &world.server] {
            assert!(end.carriers().rekeys() >= 5, "{}", end.carriers().rekeys());
            assert!(end.worker.opened.load(Ordering::Relaxed) > 500);
            let claimed = end.worker.claimed.lock().unwrap().len();
            assert!(claimed <= 16, "old epochs go: {claimed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn blocked_later_is_left_within_three_seconds_and_returns() {
    let mut world = World::usual();
    world.run(seconds(1)).await;
    assert_eq!(world.run_busy(seconds(5)).await, None);
    world.block(true);
    let stopped = world.run_busy(seconds(6)).await.unwrap();
    assert!(stopped <= seconds(3), "{stopped:?}");
    assert_eq!(world.names(), ["quic", "quic"]);
    world.block(false);
    world.run(seconds(17)).await;
    assert_eq!(world.names(), ["esp", "esp"]);
    assert_eq!(world.run_busy(seconds(5)).await, None);
}

#[tokio::test(start_paused = true)]
async fn rebind_moves_the_session_at_once() {
    let mut world = World::usual();
    world.run(seconds(3)).await;
    *world.client.worker.address.lock().unwrap() = roaming();
    world.client.control.handle_rebind(now());
    world.run(Duration::from_millis(1)).await;
    assert_eq!((world.names(), world.server.route_to()), (["esp", "esp"], Some(roaming())));
}

#[tokio::test(start_paused = true)]
async fn end_of_one_control_retires_all_it_had() {
    let often = RekeyPolicy { after: seconds(1), ..policy() };
    let mut world = World::new(answer(), often, policy());
    world.run_busy(seconds(5)).await;
    let World { client, server } = world;
    let (session, worker) = (Arc::clone(&server.session), Arc::clone(&server.worker));
    assert!(worker.sas.lock().unwrap().len() > 1);
    drop(server);
    assert!(worker.sas.lock().unwrap().is_empty() && worker.claimed.lock().unwrap().is_empty());
    assert_eq!(session.0.name(), "quic");
    let (session, worker) = (Arc::clone(&client.session), Arc::clone(&client.worker));
    drop(client);
    assert!(worker.claimed.lock().unwrap().is_empty());
    assert_eq!(session.0.name(), "quic");
}

#[tokio::test(start_paused = true)]
async fn index_of_an_epoch_that_never_came_is_given_back() {
    let World { client, server: _server } = World::usual();
    assert_eq!(client.worker.claimed.lock().unwrap().len(), 1);
    let worker = Arc::clone(&client.worker);
    drop(client);
    assert!(worker.claimed.lock().unwrap().is_empty());
}

/// Runs until the client starts its second epoch, and returns what it sends.
async fn second_offer(world: &mut World) -> adit_proto::esp::capsule::SaInit {
    world.run(Duration::from_millis(1)).await;
    loop {
        match world.client.control.poll_capsule() {
            Some(EspCapsule::SaInit(init)) => return init,
            Some(EspCapsule::RekeyRequest(_)) => panic!("a client asks nobody"),
            None => tokio::select! {
                outcome = world.client.control.drive() => outcome.unwrap(),
                outcome = world.server.control.drive() => outcome.unwrap(),
            },
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unusable_share_ends_the_session() {
    let often = RekeyPolicy { after: seconds(1), ..policy() };
    let mut world = World::new(answer(), often, policy());
    let mut init = second_offer(&mut world).await;
    init.share = vec![0; 32].into();
    let outcome = world.server.control.handle_capsule(EspCapsule::SaInit(init), now());
    assert_eq!(outcome, Err(EspError::Exchange(ExchangeError::Share)));

    let mut world = World::new(answer(), often, policy());
    let mut init = second_offer(&mut world).await;
    init.share = vec![9; 31].into();
    let outcome = world.server.control.handle_capsule(EspCapsule::SaInit(init.clone()), now());
    assert_eq!(outcome, Err(EspError::Rekey(RekeyError::Choice)));
    let spi = Spi::new(0, 0xff).unwrap();
    init.spi = spi;
    init.share = vec![0; 32].into();
    let outcome = world.client.control.handle_capsule(EspCapsule::SaInit(init), now());
    assert_eq!(outcome, Err(EspError::Exchange(ExchangeError::Share)));
}

#[tokio::test(start_paused = true)]
async fn negotiated_suite_and_vouching_hold_on_both_ends() {
    for suite in Suite::ALL {
        for vouched in [false, true] {
            let mut world = World::new(Answer { suite, vouched, ..answer() }, policy(), policy());
            world.run(Duration::from_millis(1)).await;
            for end in [&world.client, &world.server] {
                assert_eq!(end.carriers().suite(), Some(suite));
                assert_eq!(end.carriers().route().as_ref().unwrap().vouched, vouched);
            }
            // What is vouched for is opened only where that was negotiated.
            let route = world.client.carriers().route();
            let route = route.as_ref().unwrap();
            let mut datagram = vec![0; packet::sealed_len(40)];
            datagram[PREFIX_LEN] = 0x45;
            route.seal(&mut datagram, 40, NextHeader::VouchedIpv4).unwrap();
            let before = world.server.worker.opened.load(Ordering::Relaxed);
            world.client.worker.send(route.origin, route.to, &datagram, 0).unwrap();
            let opened = world.server.worker.opened.load(Ordering::Relaxed) - before;
            assert_eq!(opened, u64::from(vouched));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn forged_and_foreign_datagrams_report_nothing() {
    let mut world = World::usual();
    world.run(seconds(3)).await;
    let mut datagram = world.client.worker.sent_to(gateway()).pop().unwrap();
    *datagram.last_mut().unwrap() ^= 1;
    world.server.worker.receive(attacker(), datagram);
    world.run(seconds(1)).await;
    assert!(world.server.worker.sent_to(attacker()).is_empty());
}
