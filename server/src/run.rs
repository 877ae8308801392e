//! The life of a running gateway: everything is loaded and checked first, then the host is set up, then it listens; on
//! the way out the host is left as it was.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_host::{HostChanges, PolicyTable};
use adit_net::control::{self, ControlServer};
use adit_net::quic;
use adit_net::tls::{self, ServerIdentity};
use adit_net::worker::Workers;
use adit_program::exit::{Exit, Failure};
use adit_program::random::random;
use adit_program::service;
use adit_program::signals::{SignalRequest, Signals};
use adit_program::task::{self, Task};
use adit_proto::address_pool::AddressPool;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::mpsc;

use crate::accounts::Accounts;
use crate::accounts::sqlite::{HostClock, Store, Written};
use crate::admin::{Admin, GatewayView, LiveGateway};
use crate::cleanup::{host_failure, host_options};
use crate::config::{self, Config, Values};
use crate::core::Core;
use crate::core::enforcement::Enforcement;
use crate::core::leases::restore_pool;
use crate::core::local::LocalCore;
use crate::core::login::logins::Logins;
use crate::core::observer::SessionObserver;
use crate::core::overdue;
use crate::core::personal::{PersonalTerms, TermsInForce};
use crate::core::router::Router;
use crate::core::sessions::{Ending, Session, SessionTable};
use crate::enroll::Enrollment;
use crate::front_ends::connect_ip::{FrontEnd, Upgrades};
use crate::identity::{Authority, IdentityError, ServiceKey};
use crate::listener::Guest;
use crate::policy::PolicyFile;
use crate::reload::{ReloadOrder, ReloadRequest, Reloading};
use crate::sources::{Source, radius};
use crate::state_files::StateFiles;

mod clock;
mod flows;
mod listen;
mod listeners;
mod memory;
mod names;
mod network;
mod public_certificate;
mod recheck;
mod reloading;
pub(crate) mod resolver;
mod sources;

use flows::HostFlows;
use listen::Sockets;
use reloading::Reachable;
use sources::Sources;

/// What to do when the system gives no more threads or sockets.
pub(crate) const RAISE_LIMITS: &str = "raise the limits of threads and open files (`ulimit -u`, `ulimit -n`)";
/// What to do when the authority's key and certificate are of no use to TLS.
const RESTORE_KEYS: &str = "restore `authority.key` and `authority.pem` of the state directory from a backup";
/// How long clients get to hear that the gateway stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often the store forgets what is over.
const PRUNE_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// What leads to the file of this host's time zone, which bears the zone's name.
const LOCALTIME: &str = "/etc/localtime";
/// How often it is looked who has used up a quota.
const QUOTA_PACE: Duration = Duration::from_secs(1);
/// How often it is tried to write revocations that the disk has not taken.
const WRITE_RETRY: Duration = Duration::from_secs(5);

/// Runs the gateway until TERM or INT.
///
/// # Errors
/// What could not be loaded, bound or set up; the host is then as it was before.
pub async fn run(mut config: Config, as_read: AsRead) -> Result<(), Failure> {
    if let Some(warning) = config.leave_out_ipv6() {
        tracing::warn!("{warning}");
    }
    let loaded = Loaded::load(config, as_read)?;
    let mut changes = open_journal(&loaded.config).await?;
    let outcome = serve(loaded, &mut changes).await;
    let undone = changes.undo().await.map_err(|error| host_failure("undo host changes", &error));
    outcome.and(undone)
}

/// Where a configuration comes from, to read it again.
pub struct AsRead {
    /// The file, and what is said on top of it.
    pub source: config::Source,
    /// What they said.
    pub values: Values,
}

/// Everything a gateway needs before it touches the host.
struct Loaded {
    config: Arc<Config>,
    as_read: AsRead,
    store: Arc<Store>,
    authority: Arc<Authority>,
    keys: quic::EndpointKeys,
    identity: Arc<ServerIdentity>,
    pool: AddressPool,
    terms: TermsInForce,
    sockets: Sockets,
    logins: Arc<Logins>,
    sources: Sources,
}

impl Loaded {
    fn load(config: Config, as_read: AsRead) -> Result<Self, Failure> {
        let StateFiles { store, authority, keys, policy } =
            StateFiles::load(&config).map_err(|error| error.into_failure())?;
        let identity = Arc::new(issue(&authority, &config)?);
        if let Some(files) = config.tls.files()? {
            public_certificate::show(&identity, &files)?;
        }
        let remembered = store.leases().map_err(|error| Store::failure(&config.state_dir.store(), error))?;
        let pool = restore_pool(&config, remembered, Instant::now());
        if let Some(policy) = &policy {
            warn_of_failed_tests(policy);
        }
        let sockets = Sockets::bind(&config)?;
        let store = Arc::new(store);
        store.limit_devices(config.limits.devices_per_user);
        let key = ServiceKey::load_or_create(&config.state_dir).map_err(IdentityError::into_failure)?;
        let terms = PersonalTerms::new(&config, pool.gateway(), policy.map(Arc::new)).into();
        let mut sources = Sources::make(&config, &store, &key, &terms)?;
        let logins = Arc::new(logins(&config, &store, &key, mem::take(&mut sources.chain), &terms)?);
        Ok(Self {
            config: Arc::new(config),
            as_read,
            store,
            authority: Arc::new(authority),
            keys,
            identity,
            pool,
            terms,
            sockets,
            logins,
            sources,
        })
    }
}

/// The logins of the users that these sources know. Each lasts as its user's groups say.
fn logins(
    config: &Config,
    store: &Arc<Store>,
    key: &ServiceKey,
    chain: Vec<Arc<dyn Source>>,
    terms: &TermsInForce,
) -> Result<Logins, Failure> {
    let secret = random().map_err(|error| Failure::new(Exit::Other, "logins", error.to_string(), "try again"))?;
    let (terms, otherwise) = (terms.clone(), config.login.session_lifetime);
    let logins = Logins::new(chain, Arc::clone(store), key, secret, otherwise);
    Ok(logins.lasting_each(move |known| terms.lifetime_of(&known.into(), otherwise)))
}

/// The running parts; dropping them stops them.
struct Running {
    core: Arc<LocalCore>,
    accounting: Arc<dyn SessionObserver>,
    view: Arc<GatewayView>,
    reachable: Reachable,
    reloads: mpsc::Receiver<ReloadOrder>,
    endpoints: Vec<quinn::Endpoint>,
    _admin: ControlServer,
    workers: Workers<Session>,
    _tasks: Vec<Task>,
}

async fn serve(loaded: Loaded, changes: &mut HostChanges) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut running = start(loaded, changes).await?;
    running.view.tell_guards(changes.hold().await);
    service::ready();
    tracing::info!("ready");
    let outcome = run_until_stopped(&mut signals, &mut running, changes).await;
    service::stopping();
    tracing::info!("stopping");
    running.stop().await;
    outcome
}

async fn start(loaded: Loaded, changes: &mut HostChanges) -> Result<Running, Failure> {
    let Loaded { config, as_read, store, authority, keys, identity, pool, terms, sockets, logins, mut sources } =
        loaded;
    let own = pool.gateway();
    let network = network::set_up(&config, own, terms.load().policy().map(AsRef::as_ref), changes).await?;
    let enforcement = network.policy.as_ref().map(start_enforcement).transpose()?;
    let sessions = Arc::<SessionTable>::default();
    let router = Arc::new(Router::new(network.tun, Arc::clone(&sessions)));
    let workers = Workers::start(&router, router.queues(), sockets.esp, config.workers.settings)
        .map_err(|error| Failure::new(Exit::Other, "workers", error.to_string(), RAISE_LIMITS))?;
    let tls = tls::server_config(Arc::clone(&identity), &authority.certificate())
        .map_err(|error| Failure::new(Exit::Other, "TLS", error.to_string(), RESTORE_KEYS))?;
    let endpoints = sockets
        .quic
        .into_iter()
        .map(|socket| quic::server_endpoint(socket, Arc::clone(&tls), &keys))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::new(Exit::Other, "QUIC endpoint", error.to_string(), RAISE_LIMITS))?;
    let listen = endpoints.iter().filter_map(|endpoint| endpoint.local_addr().ok()).collect();
    let memory = task::spawn(memory::look_after(Arc::clone(&sessions)));
    let policy = terms.load().policy().cloned();
    let limit = config.limits.sessions;
    let accounts: Arc<dyn Accounts> = Arc::<Store>::clone(&store);
    let accounting = radius::accounting(&config)
        .map_err(|problem| Failure::new(Exit::Usage, problem.what, problem.reason, problem.next))?;
    let core = LocalCore::new(accounts, Arc::new(HostFlows), pool, terms, limit, sessions).enforcing(enforcement);
    let core = Arc::new(core.observed_by(Arc::clone(&accounting)).with_logins(Arc::clone(&logins)));
    let (orders, reloads) = mpsc::channel(1);
    let view = Arc::new(GatewayView::new(Arc::clone(&core), Arc::clone(&router), listen, orders));
    let live: Arc<dyn LiveGateway> = Arc::<GatewayView>::clone(&view);
    let current = Arc::new(ArcSwap::new(Arc::clone(&config)));
    let reachable = Reachable {
        reloading: Reloading::new(as_read.source, as_read.values, policy),
        core: Arc::clone(&core),
        store: Arc::clone(&store),
        config: Arc::clone(&current),
        own,
    };
    let admin = Admin::new(Arc::clone(&store), Arc::clone(&authority), current, live);
    let admin = control::serve(&config.runtime_dir.socket(), Arc::new(admin)).map_err(|error| {
        let next = "stop the other gateway, or give this one another runtime_dir";
        Failure::new(Exit::Other, config.runtime_dir.socket().display().to_string(), error.to_string(), next)
    })?;
    let plane = Arc::clone(workers.handle());
    let enrollment = Enrollment::new(Arc::clone(&store), Arc::clone(&authority), config.certificate_lifetime);
    let enrollment = enrollment.renewing(config.certificate_renewal).with_logins(logins);
    let serving: Arc<dyn Core> = Arc::<LocalCore>::clone(&core);
    let front_end = Arc::new(FrontEnd::new(serving, router, Arc::new(enrollment), &config, plane));
    let pending = front_end.pending();
    let upgrades: Vec<Arc<dyn Guest>> = vec![Arc::new(Upgrades::new(Arc::clone(&front_end)))];
    let listeners = listeners::start(&config, &identity, &authority, sockets.tcp, &mut sources, upgrades, pending)?;
    let asked = Arc::clone(&config);
    let public = config.tls.files()?.map(|files| task::spawn(public_certificate::follow(Arc::clone(&identity), files)));
    let recheck_every = config.login.recheck;
    let mut tasks = vec![
        task::spawn(clock::look_after(identity, authority, config, Arc::clone(&store), Arc::clone(&core))),
        task::spawn(prune(Arc::clone(&store))),
        memory,
    ];
    tasks.push(task::spawn(overdue::look_after(Arc::clone(&core))));
    tasks.extend(listeners);
    tasks.extend(public);
    tasks.push(task::spawn(recheck::look_after(Arc::clone(&core), Arc::clone(&store), recheck_every)));
    tasks.push(task::spawn(write_revocations(store, Arc::clone(&core))));
    if let Some(table) = network.policy {
        tasks.push(task::spawn(names::look_up(table, asked.dns.servers.clone())));
        tasks.push(task::spawn(count_quotas(Arc::clone(&core))));
    }
    tasks.push(task::spawn(async move { resolver::warn_of_unhelpful(&asked, own).await }));
    tasks.extend(sources.serve());
    tasks.extend(endpoints.iter().map(|endpoint| task::spawn(Arc::clone(&front_end).serve(endpoint.clone()))));
    Ok(Running { core, accounting, view, reachable, reloads, endpoints, _admin: admin, workers, _tasks: tasks })
}

impl Running {
    async fn stop(self) {
        self.core.close_all(Ending::Shutdown);
        for endpoint in &self.endpoints {
            endpoint.close(quinn::VarInt::from_u32(0x100), Ending::Shutdown.reason().as_bytes());
        }
        let idle = async {
            for endpoint in &self.endpoints {
                endpoint.wait_idle().await;
            }
        };
        let _clients_silent = tokio::time::timeout(FAREWELL, idle).await;
        self.accounting.finish();
        // Their threads have ended when this returns: the host can be put back.
        drop(self.workers);
    }
}

/// Looks every second who has used up a quota.
async fn count_quotas(core: Arc<LocalCore>) {
    let zone = hosts_zone();
    loop {
        tokio::time::sleep(QUOTA_PACE).await;
        if let Ok(now) = Timestamp::try_from(SystemTime::now()) {
            core.count_quotas(zone.to_datetime(now).date());
        }
    }
}

/// The time zone of this host; UTC where it has none.
fn hosts_zone() -> TimeZone {
    let linked = std::fs::read_link(LOCALTIME).unwrap_or_default();
    let name = linked.to_str().and_then(|path| path.split_once("zoneinfo/")).map_or("UTC", |(_, name)| name);
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

fn start_enforcement(table: &Arc<PolicyTable>) -> Result<Enforcement, Failure> {
    Enforcement::start(Arc::<PolicyTable>::clone(table))
        .map_err(|error| Failure::new(Exit::Other, "the policy's thread", error.to_string(), RAISE_LIMITS))
}

/// A policy that fails its own tests is better than no gateway.
fn warn_of_failed_tests(policy: &PolicyFile) {
    let failed = policy.failed_tests().len();
    if failed > 0 {
        tracing::warn!(failed, "the policy fails tests of its own; `adit-server policy check` names them");
    }
}

async fn open_journal(config: &Config) -> Result<HostChanges, Failure> {
    let changes = HostChanges::open_with(&config.state_dir.journal(), host_options())
        .await
        .map_err(|error| host_failure("open the journal of host changes", &error))?;
    let undone = changes.recovered().undone;
    if undone > 0 {
        tracing::warn!(undone, "undid host changes that a crash left behind");
    }
    Ok(changes)
}

fn issue(authority: &Authority, config: &Config) -> Result<ServerIdentity, Failure> {
    let issued =
        authority.issue_server(&config.certificate_names(), SystemTime::now()).map_err(IdentityError::into_failure)?;
    ServerIdentity::new(issued.chain, issued.key)
        .map_err(|error| Failure::new(Exit::Other, "the gateway's certificate", error.to_string(), RESTORE_KEYS))
}

async fn prune(store: Arc<Store>) {
    loop {
        tokio::time::sleep(PRUNE_INTERVAL).await;
        let store = Arc::clone(&store);
        let prune = move || {
            // First, or what a wrong clock has given would seem to be long over.
            store.follow_clock(HostClock).and_then(|_set_by| store.prune(HostClock))
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(prune).await {
            tracing::warn!(%error, "store not pruned");
        }
    }
}

/// Writes revocations, which hold already, as soon as the disk takes them.
async fn write_revocations(store: Arc<Store>, core: Arc<LocalCore>) {
    let mut told = None;
    loop {
        match store.revocations() {
            Written::All => store.revocations_added().await,
            Written::NotYet { .. } => {
                let _added_or_time_to_retry = tokio::time::timeout(WRITE_RETRY, store.revocations_added()).await;
            }
        }
        let writing = Arc::clone(&store);
        match tokio::task::spawn_blocking(move || writing.write_revocations()).await {
            Ok(Ok(devices)) => {
                told = None;
                // One of them may have come in since the revocation was asked for.
                for device in &devices {
                    core.shut_out(device, Ending::Revoked);
                }
            }
            Ok(Err(error)) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(error, "revocations hold, but are not written; a restart would forget them");
                }
                told = Some(error);
            }
            Err(_panicked) => {}
        }
    }
}

fn worker_failure(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Other, "TUN device", error.to_string(), "was it deleted? start the gateway again")
}

/// Does what signals ask for, and holds what was set on the host, until a signal asks the gateway to stop.
async fn run_until_stopped(
    signals: &mut Signals,
    running: &mut Running,
    changes: &mut HostChanges,
) -> Result<(), Failure> {
    loop {
        tokio::select! {
            request = signals.next() => match request {
                SignalRequest::Stop => return Ok(()),
                SignalRequest::HangUp => {
                    // The log says what became of it.
                    running.reachable.reload(ReloadRequest::default(), changes).await.ok();
                }
                SignalRequest::Statistics => log_statistics(&running.view),
            },
            Some(ReloadOrder { request, answer }) = running.reloads.recv() => {
                // Whoever asked may have gone; the log says what became of it.
                answer.send(running.reachable.reload(request, changes).await).ok();
            }
            error = running.workers.failed() => return Err(worker_failure(&error)),
            () = changes.changed() => running.view.tell_guards(changes.hold().await),
        }
    }
}

fn log_statistics(gateway: &GatewayView) {
    let status = gateway.status();
    tracing::info!(
        sessions = status.sessions,
        uptime_seconds = status.uptime_seconds,
        drops = ?status.drops,
        logins_turned_away = ?status.logins_turned_away,
        "statistics"
    );
}
