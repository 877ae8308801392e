//! All clients together, in the threads of one runtime inside the clients' host.

mod schedule;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use adit_net::carrier::Carried as _;
use adit_net::{quic, tls};
use adit_program::task::Task;
use anyhow::{Context as _, Result, anyhow, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::anyconnect;
use super::histogram::Percentiles;
use super::load_path::SharedSockets;
use super::moves::Roaming;
use super::options::{Carrier, Options};
use super::plan::{Load, Pass, Plan, Shared};
use super::returning::Returns;
use super::roam;
use super::session::{Echoes, Session};
use super::site::Site;
use crate::runtime::on;
use schedule::{arrive, churn, send};

/// Threads that do the clients' work.
pub(super) const THREADS: usize = 2;
/// UDP sockets for ESP.
const SOCKETS: usize = 4;
/// How often whoever waits looks around.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for clients that moved last.
const RETURNING: Duration = Duration::from_secs(5);
/// Longest time for which clients send whose gateway restarts.
const OUTAGE: Duration = Duration::from_secs(60 * 60);
/// Longest wait for clients whose gateway restarted.
const COMING_BACK: Duration = Duration::from_secs(60);
/// Longest wait for the connections to be closed.
const CLOSING: Duration = Duration::from_secs(5);

/// The clients, and the threads they live in.
pub(super) struct Generator {
    // Before the runtime that runs them.
    clients: Vec<Task>,
    roaming: Option<Task>,
    _serving: Vec<Task<io::Result<()>>>,
    shared: Arc<Shared>,
    runtime: Runtime,
}

/// Clients that came and went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visits {
    /// How many came.
    pub(super) count: u32,
    /// Of these, those that could not connect or were not answered.
    pub(super) failed: u32,
    /// From the first datagram to the address.
    pub(super) times: Percentiles,
    /// When they came, and how long it took until the last had left.
    pub(super) pace: Pace,
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
    /// Makes the runtime and its sockets in the clients' host, for a client with each of these passes.
    ///
    /// # Errors
    /// What the system refuses.
    pub(super) fn new(site: &Site, passes: Vec<Pass>, options: &Options) -> Result<Self> {
        let pem = std::fs::read(site.authority()).context("read the gateway's authority")?;
        let authority = CertificateDer::from_pem_slice(&pem).context("understand the gateway's authority")?;
        let plan = Plan {
            host: site.address().ip().to_string(),
            gateway: site.address(),
            inner: site.inner(),
            quic: quic::client_config(tls::client_config(&authority, None)?)?,
            authority: authority.clone(),
            esp: options.carrier == Carrier::Esp,
            anyconnect: (options.carrier == Carrier::Tls).then(|| anyconnect::trusting(&authority)).transpose()?,
        };
        let sources = site.sources();
        // Its threads belong to the host whose thread starts them.
        let (runtime, endpoints, sockets) = site.clients().run(move || {
            let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
            let entered = runtime.enter();
            let open = |source: &Ipv4Addr| quic::client_endpoint(quic::bind(SocketAddr::from((*source, 0)), None)?);
            let endpoints = sources.iter().map(open).collect::<io::Result<Vec<_>>>()?;
            let sockets = Arc::new(SharedSockets::bind(SOCKETS, sources)?);
            drop(entered);
            io::Result::Ok((runtime, endpoints, sockets))
        })?;
        let serving = (0..SOCKETS).map(|at| on(&runtime, Arc::clone(&sockets).serve(at))).collect();
        let shared = Shared::new(plan, endpoints, sockets, passes, options.roam);
        Ok(Self { clients: Vec::new(), roaming: None, _serving: serving, shared: Arc::new(shared), runtime })
    }

    /// Lets one client after the other connect, `rate` each second, and returns when each of them has, or has failed.
    ///
    /// # Errors
    /// When `check` fails.
    pub(super) fn connect(&mut self, rate: f64, check: &dyn Fn() -> Result<()>) -> Result<Pace> {
        let wanted = self.shared.passes.len();
        let start = Instant::now();
        let arriving = on(&self.runtime, arrive(Arc::clone(&self.shared), rate));
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

    /// Lets each of these sessions in turn send an echo request, `rate` of them each second in all.
    ///
    /// # Errors
    /// When `check` fails, or without a session.
    pub(super) fn echo(&self, load: Load, duration: Duration, check: &dyn Fn() -> Result<()>) -> Result<Pace> {
        self.echo_with(load, None, duration, check)
    }

    /// The same with two loads at once; the pace is that of the first.
    ///
    /// # Errors
    /// As [`Self::echo`].
    pub(super) fn echo_with(
        &self,
        load: Load,
        other: Option<Load>,
        duration: Duration,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Pace> {
        ensure!(!load.sessions.is_empty(), "no session is up");
        let (inner, start) = (self.shared.plan.inner, Instant::now());
        let _other = other.filter(|other| other.rate > 0.0 && !other.sessions.is_empty()).map(|other| {
            // Dropped, and so ended, with the first at the latest.
            on(&self.runtime, send(other, inner, duration))
        });
        let sending = on(&self.runtime, send(load, inner, duration));
        let lateness = self.wait_for(sending, check)?;
        Ok(Pace { lateness, took: start.elapsed() })
    }

    /// Lets the clients that roam move about for a time, each once in `every`. Returns at once, with their number.
    pub(super) fn roam(&mut self, every: Duration, duration: Duration) -> u32 {
        let mut sessions = self.sessions();
        sessions.retain(|session| self.shared.roams(session.number()));
        let count = u32::try_from(sessions.len()).expect("clients are numbered by u32");
        self.roaming = (count > 0).then(|| on(&self.runtime, roam::roam(sessions, every, duration)));
        count
    }

    /// Waits until all clients that moved are back, or too long, and sums up.
    ///
    /// # Errors
    /// When `check` fails.
    pub(super) fn return_home(
        &mut self,
        clients: u32,
        every: Duration,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Roaming> {
        if let Some(roaming) = self.roaming.take() {
            self.wait_for(roaming, check)?;
        }
        let deadline = Instant::now() + RETURNING;
        // An order that was just given is obeyed by then.
        Self::pause(check)?;
        while Instant::now() < deadline && self.sessions().iter().any(|session| session.away().is_some()) {
            Self::pause(check)?;
        }
        Ok(self.shared.echoes.moves.report(clients, every))
    }

    /// Lets all sessions send, while the gateway goes and comes back by `restart`, and waits until all clients are
    /// back, or too long. Says how many had a session.
    ///
    /// # Errors
    /// When `check` or `restart` fails.
    pub(super) fn restart(&self, restart: impl FnOnce() -> Result<()>, check: &dyn Fn() -> Result<()>) -> Result<u32> {
        let (sessions, inner) = (self.sessions(), self.shared.plan.inner);
        ensure!(!sessions.is_empty(), "no session is up");
        let count = u32::try_from(sessions.len()).expect("clients are numbered by u32");
        self.shared.returns.begin();
        // Each client once a second, until this is dropped.
        let load = Load { sessions, rate: f64::from(count) };
        let _sending = on(&self.runtime, send(load, inner, OUTAGE));
        restart()?;
        self.shared.returns.note_ready();
        let deadline = Instant::now() + COMING_BACK;
        while self.shared.returns.count() < count && Instant::now() < deadline {
            Self::pause(check)?;
        }
        self.shared.returns.end();
        Ok(count)
    }

    /// What became of them.
    pub(super) fn returns(&self) -> &Returns {
        &self.shared.returns
    }

    /// Lets clients come, get one echo and leave, `rate` each second.
    ///
    /// # Errors
    /// When `check` fails.
    pub(super) fn churn(&self, rate: f64, duration: Duration, check: &dyn Fn() -> Result<()>) -> Result<Visits> {
        let start = Instant::now();
        let coming = on(&self.runtime, churn(Arc::clone(&self.shared), rate, duration));
        let (count, lateness) = self.wait_for(coming, check)?;
        Ok(Visits {
            count,
            failed: self.shared.visits_failed.load(Ordering::Relaxed),
            times: self.shared.visit_times.percentiles(),
            pace: Pace { lateness, took: start.elapsed() },
        })
    }

    /// Ends every session and tells the gateway so.
    pub(super) fn disconnect(&mut self) {
        self.roaming = None;
        self.clients.clear();
        self.shared.sessions().clear();
        let shared = Arc::clone(&self.shared);
        let closing = async move {
            for endpoint in &shared.endpoints {
                endpoint.wait_idle().await;
            }
        };
        // Silence says the same, only later.
        let _late = self.runtime.block_on(async { tokio::time::timeout(CLOSING, closing).await });
    }

    /// All sessions, in the order in which they got their addresses.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.shared.sessions().clone()
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
        (self.shared.ended.load(Ordering::Relaxed), self.shared.reasons())
    }

    /// How long clients took to connect, from the first datagram to the address.
    pub(super) fn connect_times(&self) -> Percentiles {
        self.shared.connect_times.percentiles()
    }

    /// What came back to all sessions.
    pub(super) fn echoes(&self) -> &Echoes {
        &self.shared.echoes
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
