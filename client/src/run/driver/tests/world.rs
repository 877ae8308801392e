//! Connections, hosts and packet sources in memory, which do what a test says.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use adit_program::exit::Failure;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::settings;
use crate::captive_portal::CaptiveProbe;
use crate::host_plan::{GuardStatus, HostFault, HostHooks, InForce};
use crate::packet_source::tests::no_packets;
use crate::packet_source::{BoxFuture, Packets};
use crate::profile::tests::profile;
use crate::profile::{Profile, ProfileStore};
use crate::protocols::{
    ConnectError, ConnectionEvent, ConnectionStats, GatewayAccess, NetworkSettings, OpenConnection,
};
use crate::run::protocol::Protocol;
use crate::run::{ClientSession, SessionConfig};
use crate::state::State;

impl Prepared {
    pub(super) fn begin(self) -> World {
        let (outcomes, received) = mpsc::channel(8);
        let config = SessionConfig {
            profile: self.profile,
            packets: no_packets(),
            host: self.host,
            patience: self.patience,
            mark: self.mark,
            store: self.store,
            networks: None,
        };
        let asleep = Arc::new(AtomicU64::new(0));
        let (booted, seconds) = (Instant::now(), Arc::clone(&asleep));
        let clock = move || booted.elapsed() + Duration::from_secs(seconds.load(Ordering::Relaxed));
        let attempts = Arc::new(AtomicUsize::new(0));
        let protocol = ScriptedProtocol { attempts: Arc::clone(&attempts), outcomes: Arc::new(Mutex::new(received)) };
        let session = ClientSession::start_by(config, protocol, Box::new(clock));
        let (admitted, woke, closed) = (Arc::default(), Arc::default(), Arc::default());
        let (close_hangs, outlives_moves, makes_way) = (false, true, Arc::default());
        World { session, attempts, outcomes, admitted, woke, closed, close_hangs, outlives_moves, makes_way, asleep }
    }
}

/// A connection whose events the test sends.
pub(super) struct ScriptedConnection {
    pub(super) events: mpsc::Receiver<ConnectionEvent>,
    pub(super) admitted: Arc<Mutex<Vec<IpAddr>>>,
    /// How long the host slept, each time.
    pub(super) woke: Arc<Mutex<Vec<Duration>>>,
    pub(super) closed: Arc<AtomicUsize>,
    pub(super) close_hangs: bool,
    pub(super) outlives_moves: bool,
    /// Whether it was told to make way.
    pub(super) makes_way: Arc<AtomicBool>,
}

impl OpenConnection for ScriptedConnection {
    fn admit(&mut self, addresses: Vec<IpAddr>) {
        *self.admitted.try_lock().unwrap() = addresses;
    }

    fn attach(&mut self) {}

    async fn next_event(&mut self) -> ConnectionEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => pending().await,
        }
    }

    fn handle_wake(&mut self, slept: Duration) {
        self.woke.try_lock().unwrap().push(slept);
    }

    fn make_way(&mut self, is_replaced: bool) {
        self.makes_way.store(is_replaced, Ordering::Relaxed);
    }

    fn stats(&self) -> ConnectionStats {
        let remote = Some("192.0.2.9:4443".parse().unwrap());
        ConnectionStats { carrier: "quic", rx_packets: 7, remote, path_mtu: Some(1499), ..ConnectionStats::default() }
    }

    fn outlives_moves(&self) -> bool {
        self.outlives_moves
    }

    async fn close(self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        if self.close_hangs {
            pending::<()>().await;
        }
    }
}

/// Attempts whose outcomes the test sends; without one, an attempt hangs.
#[derive(Clone)]
struct ScriptedProtocol {
    attempts: Arc<AtomicUsize>,
    outcomes: Arc<Mutex<mpsc::Receiver<Result<ScriptedConnection, ConnectError>>>>,
}

impl Protocol for ScriptedProtocol {
    type Connection = ScriptedConnection;

    async fn connect(
        &self,
        _target: GatewayAccess,
        _packets: Packets,
        _timeout: Duration,
    ) -> Result<ScriptedConnection, ConnectError> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        match self.outcomes.lock().await.recv().await {
            Some(outcome) => outcome,
            None => pending().await,
        }
    }
}

/// A host that counts how often it is configured.
pub(super) struct CountingHost(Arc<AtomicUsize>);

impl CountingHost {
    pub(super) fn new() -> (Box<Self>, Arc<AtomicUsize>) {
        let applied = Arc::new(AtomicUsize::new(0));
        (Box::new(Self(Arc::clone(&applied))), applied)
    }
}

impl HostHooks for CountingHost {
    fn apply<'a>(&'a mut self, _settings: &'a NetworkSettings) -> BoxFuture<'a, Result<(), HostFault>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn set_mtu(&mut self, _mtu: u16) -> BoxFuture<'_, Result<(), HostFault>> {
        Box::pin(async { Ok(()) })
    }

    fn undo(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }

    fn device(&self) -> Option<&str> {
        None
    }
}

/// What a session is started with.
pub(super) struct Prepared {
    pub(super) profile: Profile,
    pub(super) patience: Option<Duration>,
    pub(super) store: Option<ProfileStore>,
    pub(super) host: Option<Box<dyn HostHooks>>,
    pub(super) mark: Option<u32>,
}

/// A host on which other programs do what the test says.
pub(super) struct ScriptedHost {
    events: mpsc::Receiver<Vec<GuardStatus>>,
    guards: Vec<GuardStatus>,
    undone: Arc<AtomicUsize>,
}

impl ScriptedHost {
    pub(super) fn new() -> (Box<Self>, mpsc::Sender<Vec<GuardStatus>>, Arc<AtomicUsize>) {
        let (interfere, events) = mpsc::channel(8);
        let undone = Arc::new(AtomicUsize::new(0));
        (Box::new(Self { events, guards: Vec::new(), undone: Arc::clone(&undone) }), interfere, undone)
    }
}

impl HostHooks for ScriptedHost {
    fn apply<'a>(&'a mut self, _settings: &'a NetworkSettings) -> BoxFuture<'a, Result<(), HostFault>> {
        Box::pin(async { Ok(()) })
    }

    fn set_mtu(&mut self, _mtu: u16) -> BoxFuture<'_, Result<(), HostFault>> {
        Box::pin(async { Ok(()) })
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            match self.events.recv().await {
                Some(guards) => self.guards = guards,
                None => pending().await,
            }
        })
    }

    fn hold(&mut self) -> BoxFuture<'_, Vec<GuardStatus>> {
        Box::pin(async { self.guards.clone() })
    }

    fn in_force(&self) -> InForce {
        let is_broken = |guard: &str| self.guards.iter().any(|status| status.guard == guard);
        InForce { routes: !is_broken("rule"), resolver: !is_broken("resolver") }
    }

    fn undo(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.undone.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn device(&self) -> Option<&str> {
        Some("adit0")
    }
}

pub(super) struct World {
    pub(super) session: ClientSession,
    /// How many attempts have begun.
    attempts: Arc<AtomicUsize>,
    pub(super) outcomes: mpsc::Sender<Result<ScriptedConnection, ConnectError>>,
    pub(super) admitted: Arc<Mutex<Vec<IpAddr>>>,
    pub(super) woke: Arc<Mutex<Vec<Duration>>>,
    pub(super) closed: Arc<AtomicUsize>,
    pub(super) close_hangs: bool,
    pub(super) outlives_moves: bool,
    pub(super) makes_way: Arc<AtomicBool>,
    asleep: Arc<AtomicU64>,
}

impl World {
    /// The host sleeps: no timer goes on, but the clock does that counts sleep.
    pub(super) fn sleep(&self, seconds: u64) {
        self.asleep.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(super) fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }

    pub(super) fn start(patience: impl Into<Option<Duration>>) -> Self {
        Self::prepare(patience, None).begin()
    }

    pub(super) fn prepare(patience: impl Into<Option<Duration>>, store: Option<ProfileStore>) -> Prepared {
        let patience = patience.into();
        let mut profile = profile("home");
        profile.host = "192.0.2.1".to_owned();
        profile.captive_probe = CaptiveProbe::Off;
        Prepared { profile, patience, store, host: None, mark: None }
    }

    /// Lets the next attempt succeed; returns the gateway's end of the connection.
    pub(super) async fn accept(&self, address: &str) -> mpsc::Sender<ConnectionEvent> {
        self.accept_with(settings(address)).await
    }

    pub(super) async fn accept_with(&self, network: NetworkSettings) -> mpsc::Sender<ConnectionEvent> {
        self.accept_saying([ConnectionEvent::Network(network)]).await
    }

    /// As [`Self::accept`], with a gateway that says this at first.
    pub(super) async fn accept_saying(
        &self,
        first: impl IntoIterator<Item = ConnectionEvent>,
    ) -> mpsc::Sender<ConnectionEvent> {
        let (events, received) = mpsc::channel(8);
        first.into_iter().for_each(|event| events.try_send(event).unwrap());
        let connection = ScriptedConnection {
            events: received,
            admitted: Arc::clone(&self.admitted),
            woke: Arc::clone(&self.woke),
            closed: Arc::clone(&self.closed),
            close_hangs: self.close_hangs,
            outlives_moves: self.outlives_moves,
            makes_way: Arc::clone(&self.makes_way),
        };
        self.outcomes.send(Ok(connection)).await.unwrap_or_else(|_| panic!("the session ended"));
        events
    }

    pub(super) async fn refuse(&self, error: ConnectError) {
        self.outcomes.send(Err(error)).await.unwrap_or_else(|_| panic!("the session ended"));
    }

    pub(super) async fn reach(&self, state: State) {
        let mut snapshots = self.session.snapshots();
        let reached = snapshots.wait_for(|snapshot| snapshot.state == state);
        drop(tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap().unwrap());
    }
}
