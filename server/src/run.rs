//! The life of a running gateway: everything is loaded and checked first, then the host is set up, then it listens; on
//! the way out the host is left as it was.

#[cfg(feature = "acme")]
mod acme;
mod clock;
mod flows;
mod followers;
mod listen;
mod listeners;
mod loading;
mod memory;
mod names;
mod network;
mod public_certificate;
mod recheck;
mod reloading;
pub(crate) mod resolver;
mod sources;
mod upkeep;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use adit_host::{HostChanges, PolicyTable};
use adit_net::control::{self, ControlServer};
use adit_net::quic;
use adit_net::tls::{self, ServerIdentity};
use adit_net::udp::{Arrivals, EspSocket};
use adit_net::worker::{Workers, WorkersHandle};
use adit_program::exit::{Exit, Failure};
use adit_program::log::Log;
use adit_program::service;
use adit_program::signals::{SignalRequest, Signals};
use adit_program::task::{self, Task};
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::mpsc;

use crate::accounts::Accounts;
use crate::accounts::sqlite::Store;
use crate::admin::{Admin, GatewayView, LiveGateway};
use crate::cleanup::{host_failure, host_options};
use crate::config::{self, Config, Values};
use crate::core::Core;
use crate::core::enforcement::Enforcement;
use crate::core::local::LocalCore;
use crate::core::router::Router;
use crate::core::sessions::{Ending, Session, SessionTable};
use crate::enroll::Enrollment;
use crate::front_ends::anyconnect::{self, DtlsDoor};
use crate::front_ends::connect_ip::{FrontEnd, Upgrades};
use crate::identity::Authority;
use crate::listener::{Challenges, Guest};
use crate::reload::{ReloadOrder, ReloadRequest, Reloading};
use crate::sources::radius::SessionAccounting;

use flows::HostFlows;
use listeners::Strangers;
use loading::Loaded;
use reloading::Reachable;
use upkeep::Upkeep;

/// What to do when the system gives no more threads or sockets.
pub(crate) const RAISE_LIMITS: &str = "raise the limits of threads and open files (`ulimit -u`, `ulimit -n`)";
/// What to do when the authority's key and certificate are of no use to TLS.
const RESTORE_KEYS: &str = "restore `authority.key` and `authority.pem` of the state directory from a backup";
/// How long clients get to hear that the gateway stops.
const FAREWELL: Duration = Duration::from_secs(1);

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
    /// The log that goes by it.
    pub log: Log,
}

/// The running parts; dropping them stops them.
struct Running {
    core: Arc<LocalCore>,
    accounting: SessionAccounting,
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
    let Loaded { config, as_read, store, authority, keys, identity, pool, terms, sockets, logins, sources } = loaded;
    let own = pool.gateway();
    let policy = terms.load().policy().cloned();
    let network = network::set_up(&config, own, policy.as_deref(), changes).await?;
    let enforcement = network.policy.as_ref().map(start_enforcement).transpose()?.unwrap_or_default();
    let sessions = Arc::<SessionTable>::default();
    let router = Arc::new(Router::new(network.tun, Arc::clone(&sessions)));
    let workers = Workers::start(&router, router.queues(), sockets.esp, config.workers.settings)
        .map_err(|error| Failure::new(Exit::Other, "workers", error.to_string(), RAISE_LIMITS))?;
    let endpoints = endpoints(sockets.quic, &identity, &authority, &keys)?;
    let listen = endpoints.iter().filter_map(|endpoint| endpoint.local_addr().ok()).collect();
    let accounting = SessionAccounting::start(&config)
        .map_err(|problem| Failure::new(Exit::Usage, problem.what, problem.reason, problem.next))?;
    let (accounts, limit): (Arc<dyn Accounts>, _) = (Arc::<Store>::clone(&store), config.limits.sessions);
    let core = LocalCore::new(accounts, Arc::new(HostFlows), pool, terms, limit, Arc::clone(&sessions));
    let core = core.enforcing(enforcement).observed_by(accounting.observer()).with_logins(Arc::clone(&logins));
    let core = Arc::new(core);
    core.set_banner(config.login.banner.clone());
    let (orders, reloads) = mpsc::channel(1);
    let view = Arc::new(GatewayView::new(Arc::clone(&core), Arc::clone(&router), listen, orders));
    let current = Arc::new(ArcSwap::new(Arc::clone(&config)));
    let reloading = Reloading::new(as_read.source, as_read.values, policy);
    let policy_table = Arc::new(ArcSwapOption::new(network.policy));
    let live: Arc<dyn LiveGateway> = Arc::<GatewayView>::clone(&view);
    let admin =
        serve_admin(&config, Admin::new(Arc::clone(&store), Arc::clone(&authority), Arc::clone(&current), live))?;
    let enrollment = Enrollment::new(Arc::clone(&store), Arc::clone(&authority), config.certificate_lifetime);
    let enrollment = Arc::new(enrollment.renewing(config.certificate_renewal).with_logins(logins));
    let (serving, plane): (Arc<dyn Core>, _) = (Arc::<LocalCore>::clone(&core), Arc::clone(workers.handle()));
    let door = (!sockets.dtls.is_empty())
        .then(|| DtlsDoor::new(Arc::<WorkersHandle<Session>>::clone(&plane), config.anyconnect.dtls_port));
    let made = || {
        let made = anyconnect::FrontEnd::new(Arc::clone(&serving), Arc::clone(&router), config.tun.mtu, door.clone());
        if config.anyconnect.cisco { made.for_cisco(Arc::clone(&identity)) } else { made }
    };
    let anyconnect = config.anyconnect.enabled.then(|| Arc::new(made()));
    anyconnect.iter().for_each(|front_end| front_end.set_rekey_after(config.anyconnect.rekey_after));
    let guests = anyconnect.clone().map(|front_end| front_end as Arc<dyn Guest>);
    let front_end = Arc::new(FrontEnd::new(serving, router, Arc::clone(&enrollment), &config, plane));
    let pending = front_end.pending();
    let upgrades: Arc<dyn Guest> = Arc::new(Upgrades::new(Arc::clone(&front_end)));
    let guests = guests.into_iter().chain([upgrades]).collect();
    let challenges = Arc::<Challenges>::default();
    let strangers = Strangers { pending, challenges: &challenges };
    let listeners = listeners::start(&config, &identity, &authority, sockets.tcp, &sources, guests, strangers)?;
    let dtls = door.map(|door| serve_dtls(&door, sockets.dtls)).transpose()?;
    let mut followers = vec![
        followers::log(as_read.log),
        followers::core(Arc::clone(&core)),
        followers::store(Arc::clone(&store)),
        sources.follower(Arc::clone(&core)),
        followers::accounting(accounting.clone()),
        followers::enrollment(enrollment),
        followers::front_end(Arc::clone(&front_end)),
        followers::certificates(Arc::clone(&identity), Arc::clone(&authority), Arc::clone(&current)),
    ];
    followers.extend(anyconnect.map(followers::anyconnect));
    let reachable = Reachable {
        reloading,
        core: Arc::clone(&core),
        config: Arc::clone(&current),
        policy_table: Arc::clone(&policy_table),
        own,
        followers,
    };
    let upkeep = Upkeep {
        config,
        current,
        policy_table,
        own,
        core: Arc::clone(&core),
        store,
        sessions,
        authority,
        identity,
        challenges,
        view: Arc::clone(&view),
    };
    let mut tasks = upkeep.start();
    tasks.extend(listeners);
    tasks.extend(dtls.into_iter().flatten());
    tasks.extend(endpoints.iter().map(|endpoint| task::spawn(Arc::clone(&front_end).serve(endpoint.clone()))));
    Ok(Running { core, accounting, view, reachable, reloads, endpoints, _admin: admin, workers, _tasks: tasks })
}

fn endpoints(
    sockets: Vec<UdpSocket>,
    identity: &Arc<ServerIdentity>,
    authority: &Authority,
    keys: &quic::EndpointKeys,
) -> Result<Vec<quinn::Endpoint>, Failure> {
    let tls = tls::server_config(Arc::clone(identity), &authority.certificate())
        .map_err(|error| Failure::new(Exit::Other, "TLS", error.to_string(), RESTORE_KEYS))?;
    let made = sockets.into_iter().map(|socket| quic::server_endpoint(socket, Arc::clone(&tls), keys));
    made.collect::<Result<_, _>>()
        .map_err(|error| Failure::new(Exit::Other, "QUIC endpoint", error.to_string(), RAISE_LIMITS))
}

fn serve_admin(config: &Config, admin: Admin) -> Result<ControlServer, Failure> {
    let socket = config.runtime_dir.socket();
    control::serve(&socket, Arc::new(admin)).map_err(|error| {
        let next = "stop the other gateway, or give this one another runtime_dir";
        Failure::new(Exit::Other, socket.display().to_string(), error.to_string(), next)
    })
}

/// Serves handshakes of DTLS on these sockets, each with its place among a worker's ones.
fn serve_dtls(door: &Arc<DtlsDoor>, sockets: Vec<(usize, EspSocket)>) -> Result<Vec<Task>, Failure> {
    let mut tasks = vec![task::spawn(Arc::clone(door).serve_workers())];
    for (number, socket) in sockets {
        let arrivals = Arrivals::new(socket)
            .map_err(|error| Failure::new(Exit::Other, "listen for DTLS", error.to_string(), RAISE_LIMITS))?;
        tasks.push(task::spawn(Arc::clone(door).serve(number, arrivals)));
    }
    Ok(tasks)
}

impl Running {
    async fn stop(self) {
        let restart = self.view.announced_restart().map(|back_in| u16::try_from(back_in.as_secs()).unwrap_or(u16::MAX));
        self.core.close_all(restart.map_or(Ending::Shutdown, Ending::Restart));
        for endpoint in &self.endpoints {
            endpoint.close(quinn::VarInt::from_u32(0x100), Ending::Shutdown.reason().as_bytes());
        }
        let idle = async {
            for endpoint in &self.endpoints {
                endpoint.wait_idle().await;
            }
        };
        let _clients_silent = tokio::time::timeout(FAREWELL, idle).await;
        self.accounting.observer().finish();
        // Their threads have ended when this returns: the host can be put back.
        drop(self.workers);
    }
}

fn start_enforcement(table: &Arc<PolicyTable>) -> Result<Enforcement, Failure> {
    Enforcement::start(Arc::<PolicyTable>::clone(table))
        .map_err(|error| Failure::new(Exit::Other, "the policy's thread", error.to_string(), RAISE_LIMITS))
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
        "statistics"
    );
}
