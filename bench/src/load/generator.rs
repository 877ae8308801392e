//! All clients together, in the threads of one runtime inside the clients' host.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use adit_net::task::{self, Task};
use adit_net::{quic, tls};
use anyhow::{Context as _, Result, anyhow, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{sleep, sleep_until};

use super::Carrier;
use super::client::{Plan, live};
use super::histogram::{Histogram, Percentiles};
use super::lane::Lane;
use super::session::{Echoes, Session};
use super::site::Site;

/// Threads that do the clients' work.
pub(super) const THREADS: usize = 2;
/// UDP sockets for ESP.
const LANES: usize = 4;
/// Packets sent before others get their turn.
const BURST: u32 = 64;
/// Reasons of failed clients that are kept; their number is not bounded.
const MAX_REASONS: usize = 8;
/// How often whoever waits looks around.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for the connections to be closed.
const CLOSING: Duration = Duration::from_secs(5);

/// What all clients share.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) echoes: Arc<Echoes>,
    endpoints: Vec<quinn::Endpoint>,
    lanes: Vec<Arc<Lane>>,
    connect_times: Histogram,
    sessions: Mutex<Vec<Arc<Session>>>,
    ended: AtomicU32,
    reasons: Mutex<Vec<String>>,
}

impl Shared {
    /// The endpoint on which a client connects.
    pub(super) fn endpoint(&self, number: u32) -> &quinn::Endpoint {
        &self.endpoints[number as usize % self.endpoints.len()]
    }

    /// The socket by which its ESP goes.
    pub(super) fn lane(&self, number: u32) -> &Arc<Lane> {
        &self.lanes[number as usize % self.lanes.len()]
    }

    /// A session has its address.
    pub(super) fn note_connected(&self, after: Duration, session: &Arc<Session>) {
        self.connect_times.note(after);
        self.sessions().push(Arc::clone(session));
    }

    fn note_ended(&self, reason: &anyhow::Error) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = format!("{reason:#}");
        if reasons.len() < MAX_REASONS && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clients, and the threads they live in.
pub(super) struct Generator {
    // Before the runtime that runs them.
    clients: Vec<Task>,
    serving: Vec<Task<io::Result<()>>>,
    shared: Arc<Shared>,
    runtime: Runtime,
}

/// How well the generator kept to its own plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How late things were done.
    pub(super) lateness: Percentiles,
    /// From the first to the last.
    pub(super) took: Duration,
}

impl Generator {
    /// Makes the runtime and its sockets in the clients' host.
    ///
    /// # Errors
    /// What the system refuses.
    pub(super) fn new(site: &Site, carrier: Carrier) -> Result<Self> {
        let pem = std::fs::read(site.authority()).context("read the gateway's authority")?;
        let authority = CertificateDer::from_pem_slice(&pem).context("understand the gateway's authority")?;
        let plan = Plan {
            host: site.address().ip().to_string(),
            gateway: site.address(),
            quic: quic::client_config(tls::client_config(&authority, None)?)?,
            esp: carrier == Carrier::Esp,
        };
        let sources = site.sources();
        // Its threads belong to the host whose thread starts them.
        let (runtime, endpoints, lanes) = site.clients().run(move || {
            let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
            let entered = runtime.enter();
            let open = |source: Ipv4Addr| quic::client_endpoint(quic::bind(SocketAddr::from((source, 0)), None)?);
            let endpoints = sources.into_iter().map(open).collect::<io::Result<Vec<_>>>()?;
            let lanes = (0..LANES).map(|_| Lane::bind().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
            drop(entered);
            io::Result::Ok((runtime, endpoints, lanes))
        })?;
        let serving = lanes.iter().map(|lane| on(&runtime, Arc::clone(lane).serve())).collect();
        let shared = Shared {
            plan,
            echoes: Arc::new(Echoes::new()),
            endpoints,
            lanes,
            connect_times: Histogram::default(),
            sessions: Mutex::default(),
            ended: AtomicU32::new(0),
            reasons: Mutex::default(),
        };
        Ok(Self { clients: Vec::new(), serving, shared: Arc::new(shared), runtime })
    }

    /// Lets one client after the other connect, `rate` each second, and returns when each of them has, or has failed.
    ///
    /// # Errors
    /// When `check` fails.
    pub(super) fn connect(&mut self, tokens: Vec<String>, rate: f64, check: &dyn Fn() -> Result<()>) -> Result<Pace> {
        let wanted = tokens.len();
        let start = Instant::now();
        let arriving = on(&self.runtime, arrive(Arc::clone(&self.shared), tokens, rate));
        let (clients, lateness) = self.wait_for(arriving, check)?;
        self.clients = clients;
        let is_settled =
            |shared: &Shared| shared.sessions().len() + shared.ended.load(Ordering::Relaxed) as usize >= wanted;
        while !is_settled(&self.shared) {
            Self::pause(check)?;
        }
        Ok(Pace { lateness, took: start.elapsed() })
    }

    /// Waits until every session uses ESP, at most so long; says whether it is so.
    ///
    /// # Errors
    /// When `check` fails.
    pub(super) fn settle(&self, limit: Duration, check: &dyn Fn() -> Result<()>) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while self.on_esp() < self.connected() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            Self::pause(check)?;
        }
        Ok(true)
    }

    /// Lets each session in turn send an echo request to `gateway`, `rate` of them each second in all.
    ///
    /// # Errors
    /// When `check` fails, or without a session.
    pub(super) fn echo(
        &self,
        gateway: Ipv4Addr,
        rate: f64,
        duration: Duration,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Pace> {
        let sessions = self.shared.sessions().clone();
        ensure!(!sessions.is_empty(), "no session is up");
        let start = Instant::now();
        let sending = on(&self.runtime, send(sessions, gateway, rate, duration));
        let lateness = self.wait_for(sending, check)?;
        Ok(Pace { lateness, took: start.elapsed() })
    }

    /// Ends every session and tells the gateway so.
    pub(super) fn disconnect(&mut self) {
        self.clients.clear();
        let shared = Arc::clone(&self.shared);
        let closing = async move {
            for endpoint in &shared.endpoints {
                endpoint.wait_idle().await;
            }
        };
        // Silence says the same, only later.
        let _late = self.runtime.block_on(async { tokio::time::timeout(CLOSING, closing).await });
        self.serving.clear();
    }

    /// Sessions that got an address.
    pub(super) fn connected(&self) -> usize {
        self.shared.sessions().len()
    }

    /// Of these, those that send by ESP now.
    pub(super) fn on_esp(&self) -> usize {
        self.shared.sessions().iter().filter(|session| session.carriers().name() == "esp").count()
    }

    /// Clients that could not connect or lost their tunnel, and why.
    pub(super) fn ended(&self) -> (u32, Vec<String>) {
        let reasons = self.shared.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.shared.ended.load(Ordering::Relaxed), reasons)
    }

    /// How long clients took to connect, from the first datagram to the address.
    pub(super) fn connect_times(&self) -> Percentiles {
        self.shared.connect_times.percentiles()
    }

    /// How long echoes took.
    pub(super) fn round_trips(&self) -> Percentiles {
        self.shared.echoes.round_trips.percentiles()
    }

    /// For each session the echo requests it sent and the answers it got.
    pub(super) fn echoes(&self) -> Vec<(u32, u32)> {
        self.shared.sessions().iter().map(|session| (session.sent(), session.answered())).collect()
    }

    fn pause(check: &dyn Fn() -> Result<()>) -> Result<()> {
        thread::sleep(LOOK);
        check()
    }

    fn wait_for<T>(&self, mut task: Task<T>, check: &dyn Fn() -> Result<()>) -> Result<T> {
        loop {
            let done = self.runtime.block_on(async {
                tokio::select! {
                    done = &mut task => Some(done),
                    () = sleep(LOOK) => None,
                }
            });
            match done {
                Some(done) => return done.map_err(|error| anyhow!(error)),
                None => check()?,
            }
        }
    }
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

/// Starts a task in a runtime's threads.
fn on<F: Future<Output: Send + 'static> + Send + 'static>(runtime: &Runtime, future: F) -> Task<F::Output> {
    let _entered = runtime.enter();
    task::spawn(future)
}

/// Starts the clients when they are due.
async fn arrive(shared: Arc<Shared>, tokens: Vec<String>, rate: f64) -> (Vec<Task>, Percentiles) {
    let (start, lateness) = (Instant::now(), Histogram::default());
    let mut clients = Vec::with_capacity(tokens.len());
    for (number, token) in (0_u32..).zip(tokens) {
        await_turn(start, f64::from(number) / rate, &lateness).await;
        let shared = Arc::clone(&shared);
        clients.push(task::spawn(async move {
            if let Err(error) = live(&shared, number, token).await {
                shared.note_ended(&error);
            }
        }));
    }
    (clients, lateness.percentiles())
}

/// Sends echo requests when they are due, each from the next session.
async fn send(sessions: Vec<Arc<Session>>, gateway: Ipv4Addr, rate: f64, duration: Duration) -> Percentiles {
    let (start, lateness) = (Instant::now(), Histogram::default());
    for (number, session) in (0_u32..).zip(sessions.iter().cycle()) {
        let due = f64::from(number) / rate;
        if due >= duration.as_secs_f64() {
            break;
        }
        await_turn(start, due, &lateness).await;
        session.ping(gateway);
        if number % BURST == 0 {
            yield_now().await;
        }
    }
    lateness.percentiles()
}

/// Waits until so many seconds after `start`, and notes how late it is then.
async fn await_turn(start: Instant, seconds: f64, lateness: &Histogram) {
    let due = start + Duration::from_secs_f64(seconds);
    if Instant::now() < due {
        sleep_until(due.into()).await;
    }
    lateness.note(due.elapsed());
}
