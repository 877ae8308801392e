//! Moves a session's life cycle along: feeds it what happens, and does what it asks for.
//!
//! One task owns everything of a session. While the life cycle is `Reconnecting` or `Blocked`, the host stays as it is, so that
//! nothing leaves outside the tunnel.

use std::future::pending;
use std::time::{Duration, Instant, SystemTime};

use adit_net::task::{self, Task};
use adit_proto::exit::{Exit, Failure};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::dial::{Dial, Line};
use super::renewal::{self, RenewalError};
use super::resolve;
use super::status::Status;
use super::{Command, SessionConfig, Snapshot, obstacle};
use crate::connection::{ConnectError, ConnectionEvent, NetworkSettings};
use crate::host::{HostSetup, HostSetupError, SMALLEST_MTU, journal_failure};
use crate::profile::Identity;
use crate::state::{Event, LifeCycle, Obstacle, State};

/// How long to wait for routes once there are addresses; a gateway need not advertise any.
const ROUTES_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the gateway's name may take to resolve within one attempt.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);

/// What an attempt brings: a connection and its first settings.
type Attempted<L> = Result<(L, FirstSettings), ConnectError>;

/// What a new connection says before packets flow.
#[derive(Default)]
struct FirstSettings {
    network: NetworkSettings,
    mtu: Option<u16>,
}

/// The task of one session.
pub(super) struct Driver<D: Dial> {
    config: SessionConfig,
    dial: D,
    commands: mpsc::Receiver<Command>,
    publish: watch::Sender<Snapshot>,
    life: LifeCycle,
    attempt: Option<Task<Attempted<D::Line>>>,
    line: Option<D::Line>,
    renewal: Option<Task<Result<String, RenewalError>>>,
    next_renewal_check: Option<Instant>,
    network: Option<NetworkSettings>,
    mtu: u16,
    host_failure: Option<Failure>,
}

/// What happened to a session.
enum Input<L> {
    Timeout,
    Attempted(Attempted<L>),
    Connection(ConnectionEvent),
    Command(Command),
    RenewalCheck,
    Renewed(Result<String, RenewalError>),
}

impl<D: Dial> Driver<D> {
    pub(super) fn new(
        config: SessionConfig,
        dial: D,
        commands: mpsc::Receiver<Command>,
        publish: watch::Sender<Snapshot>,
    ) -> Self {
        let life = LifeCycle::new(config.patience, Instant::now());
        Self {
            config,
            dial,
            commands,
            publish,
            life,
            attempt: None,
            line: None,
            renewal: None,
            next_renewal_check: None,
            network: None,
            mtu: SMALLEST_MTU,
            host_failure: None,
        }
    }

    /// Runs until the life cycle has finished, then undoes host changes.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        self.life.handle_start(Instant::now());
        loop {
            while let Some(event) = self.life.poll_event() {
                match event {
                    Event::Attempt { timeout } => self.attempt = Some(self.begin_attempt(timeout)),
                    Event::Abandon => self.attempt = None,
                    Event::Close => self.close().await,
                    Event::Finished(obstacle) => return self.finish(obstacle).await,
                }
            }
            self.publish();
            let input = self.next_input().await;
            self.handle(input).await;
        }
    }

    async fn next_input(&mut self) -> Input<D::Line> {
        let (timeout, renewal_check) = (self.life.poll_timeout(), self.next_renewal_check);
        tokio::select! {
            () = until(timeout) => Input::Timeout,
            result = attempted(&mut self.attempt) => Input::Attempted(result),
            event = connection_event(&mut self.line) => Input::Connection(event),
            // Without any handle left nobody can stop us, which is what the owner asked for by keeping only the session.
            Some(command) = self.commands.recv() => Input::Command(command),
            () = until(renewal_check) => Input::RenewalCheck,
            result = renewed(&mut self.renewal) => Input::Renewed(result),
        }
    }

    async fn handle(&mut self, input: Input<D::Line>) {
        match input {
            Input::Timeout => self.life.handle_timeout(random(), Instant::now()),
            Input::Attempted(Ok((line, first))) => self.handle_attempt_succeeded(line, first).await,
            Input::Attempted(Err(error)) => {
                self.attempt = None;
                debug!(%error, "attempt failed");
                self.fail_attempt(obstacle::obstacle(&error), &error.to_string());
            }
            Input::Connection(ConnectionEvent::Network(network)) => self.handle_network(network).await,
            Input::Connection(ConnectionEvent::Mtu(mtu)) => self.handle_mtu(mtu).await,
            Input::Connection(ConnectionEvent::Closed(error)) => {
                self.handle_lost(obstacle::obstacle(&error), &error.to_string());
            }
            Input::Command(Command::Status(answer)) => {
                // The asker may have gone; then nobody needs the answer.
                answer.send(self.status()).ok();
            }
            Input::Command(Command::Stop) => self.life.handle_stop(Instant::now()),
            Input::RenewalCheck => self.check_renewal(),
            Input::Renewed(result) => self.handle_renewed(result),
        }
    }

    fn begin_attempt(&self, timeout: Duration) -> Task<Attempted<D::Line>> {
        let profile = self.config.profile.clone();
        let (dial, mark) = (self.dial.clone(), self.config.mark);
        // Behind a claimed default route the resolver is inside the tunnel, which is down now.
        let may_resolve = !self.claims_everything();
        task::spawn(async move {
            let resolved = match may_resolve {
                true => resolve::resolve(&profile.host, profile.port, RESOLVE_TIMEOUT).await,
                false => Vec::new(),
            };
            let addresses = resolve::merge(resolved, &profile.addresses);
            if addresses.is_empty() {
                return Err(ConnectError::Unreachable(format!("{}: its name cannot be resolved", profile.gateway())));
            }
            let mut line = dial.dial(profile.target(addresses, mark), timeout).await?;
            let first = first_settings(&mut line).await?;
            Ok((line, first))
        })
    }

    async fn handle_attempt_succeeded(&mut self, mut line: D::Line, first: FirstSettings) {
        self.attempt = None;
        let FirstSettings { network, mtu } = first;
        if let Err(error) = self.configure_host(&network).await {
            line.close().await;
            self.note_host_failure(&error);
            self.fail_attempt(host_obstacle(&error), &error.describe());
            return;
        }
        line.attach(self.config.source.clone());
        self.network = Some(network);
        self.learn_address(&line);
        self.line = Some(line);
        if let Some(mtu) = mtu {
            self.handle_mtu(mtu).await;
        }
        self.life.handle_connected(Instant::now());
        self.next_renewal_check = Some(Instant::now());
        info!("connected");
    }

    async fn handle_network(&mut self, network: NetworkSettings) {
        if self.network.as_ref() == Some(&network) {
            return;
        }
        match self.configure_host(&network).await {
            Ok(()) => {
                info!("the gateway changed the network settings");
                self.network = Some(network);
            }
            Err(error) => {
                self.note_host_failure(&error);
                self.handle_lost(host_obstacle(&error), &error.describe());
            }
        }
    }

    async fn handle_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.max(SMALLEST_MTU);
        if let HostSetup::Managed(host) = &mut self.config.host
            && let Err(error) = host.set_mtu(self.mtu).await
        {
            warn!("the device's MTU could not be set");
            debug!(error = error.describe(), "the device's MTU could not be set");
        }
    }

    fn handle_lost(&mut self, obstacle: Obstacle, reason: &str) {
        self.line = None;
        self.next_renewal_check = None;
        self.life.handle_lost(obstacle, reason, random(), Instant::now());
        let state = self.life.state();
        if matches!(state, State::Reconnecting | State::Blocked) {
            warn!(%state, "the connection was lost");
            debug!(reason, "the connection was lost");
        }
    }

    fn fail_attempt(&mut self, obstacle: Obstacle, reason: &str) {
        let before = self.life.state();
        self.life.handle_attempt_failed(obstacle, reason, random(), Instant::now());
        if self.life.state() == State::Blocked && before != State::Blocked {
            warn!("the gateway answers but refuses this device, or is not the right one; trying on slowly");
        }
    }

    async fn configure_host(&mut self, network: &NetworkSettings) -> Result<(), HostSetupError> {
        match &mut self.config.host {
            HostSetup::Managed(host) => host.apply(network).await,
            HostSetup::None => Ok(()),
        }
    }

    fn note_host_failure(&mut self, error: &HostSetupError) {
        warn!("the host could not be configured");
        debug!(error = error.describe(), "the host could not be configured");
        self.host_failure = Some(host_failure(error));
    }

    fn claims_everything(&self) -> bool {
        let routes = self.network.iter().flat_map(|network| &network.routes);
        matches!(self.config.host, HostSetup::Managed(_))
            && routes.into_iter().any(|route| route.start.is_unspecified())
    }

    /// Remembers the address that worked, for times when the name does not resolve.
    fn learn_address(&mut self, line: &D::Line) {
        let Some(remote) = line.stats().remote else { return };
        let profile = &mut self.config.profile;
        if profile.addresses.first() == Some(&remote) {
            return;
        }
        profile.addresses = resolve::merge([remote], &profile.addresses);
        self.save_profile();
    }

    fn save_profile(&self) {
        if let Some(store) = &self.config.store
            && let Err(error) = renewal::save(store, &self.config.profile)
        {
            warn!(%error, "the profile could not be saved");
        }
    }

    fn check_renewal(&mut self) {
        let Identity::Certificate { chain_pem, .. } = &self.config.profile.identity else {
            self.next_renewal_check = None;
            return;
        };
        let wait = match renewal::plan(chain_pem, SystemTime::now()) {
            renewal::Plan::Wait(wait) => wait,
            renewal::Plan::Renew(wait) => {
                let (profile, mark) = (self.config.profile.clone(), self.config.mark);
                let addresses = profile.addresses.clone();
                self.renewal = Some(task::spawn(renewal::renew(profile, addresses, mark)));
                wait
            }
        };
        self.next_renewal_check = Some(Instant::now() + wait);
    }

    fn handle_renewed(&mut self, result: Result<String, RenewalError>) {
        self.renewal = None;
        match (result, &mut self.config.profile.identity) {
            (Ok(certificate), Identity::Certificate { chain_pem, .. }) => {
                // Never at once: a new certificate that is due already must not be renewed in a loop.
                let wait = renewal::plan(&certificate, SystemTime::now()).wait().max(renewal::SHORTEST_RETRY);
                self.next_renewal_check = Some(Instant::now() + wait);
                *chain_pem = certificate;
                info!("the device certificate was renewed");
                self.save_profile();
            }
            (Ok(_), Identity::Token(_)) => {}
            (Err(error), _) => {
                warn!("the device certificate was not renewed; it will be tried again");
                debug!(error = crate::host::describe(&error), "the device certificate was not renewed");
            }
        }
    }

    async fn close(&mut self) {
        self.publish();
        if let Some(line) = self.line.take() {
            line.close().await;
        }
        self.life.handle_closed(Instant::now());
    }

    async fn finish(mut self, obstacle: Option<Obstacle>) -> Result<(), Failure> {
        self.attempt = None;
        self.line = None;
        let undone = match &mut self.config.host {
            HostSetup::Managed(host) => host.undo().await.map_err(|error| journal_failure("undo host changes", &error)),
            HostSetup::None => Ok(()),
        };
        self.publish();
        let Some(obstacle) = obstacle else { return undone };
        if let Err(failure) = undone {
            warn!(reason = failure.reason, "something stays behind on this host; run `adit-client cleanup`");
        }
        let gateway = self.config.profile.gateway();
        Err(self.host_failure.unwrap_or_else(|| obstacle::failure(&gateway, obstacle, self.life.reason())))
    }

    fn publish(&self) {
        let snapshot = Snapshot { state: self.life.state(), network: self.network.clone(), mtu: self.mtu };
        self.publish.send_if_modified(|current| {
            let changed = *current != snapshot;
            *current = snapshot;
            changed
        });
    }

    fn status(&self) -> Status {
        let reason = self.life.reason();
        let mut status = Status {
            name: self.config.profile.name.to_string(),
            state: self.life.state().label().to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            since_seconds: Some(self.life.since().elapsed().as_secs()),
            gateway: self.config.profile.gateway(),
            ..Status::default()
        };
        if let HostSetup::Managed(host) = &self.config.host {
            status.tun = Some(host.link().to_owned());
        }
        if let Some(network) = &self.network {
            status.add_network(network);
            status.mtu = Some(self.mtu);
        }
        if let Some(line) = &self.line {
            status.add_stats(line.stats());
        }
        status
    }
}

/// Waits for addresses, and a little longer for routes: capsules come one by one, and a full tunnel must not count as connected
/// before its routes are there.
async fn first_settings<L: Line>(line: &mut L) -> Result<FirstSettings, ConnectError> {
    let mut first = FirstSettings::default();
    let mut routes_due = None;
    while first.network.addresses.is_empty() || first.network.routes.is_empty() {
        let event = tokio::select! {
            event = line.next_event() => event,
            () = until(routes_due) => break,
        };
        match event {
            ConnectionEvent::Network(network) => {
                first.network = network;
                routes_due = routes_due.or_else(|| Some(Instant::now() + ROUTES_TIMEOUT));
            }
            ConnectionEvent::Mtu(mtu) => first.mtu = Some(mtu),
            ConnectionEvent::Closed(error) => return Err(error),
        }
    }
    Ok(first)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

async fn attempted<L>(attempt: &mut Option<Task<Attempted<L>>>) -> Attempted<L> {
    match attempt {
        Some(task) => task.await.unwrap_or_else(|error| Err(ConnectError::Protocol(error.to_string()))),
        None => pending().await,
    }
}

async fn connection_event<L: Line>(line: &mut Option<L>) -> ConnectionEvent {
    match line {
        Some(line) => line.next_event().await,
        None => pending().await,
    }
}

async fn renewed(renewal: &mut Option<Task<Result<String, RenewalError>>>) -> Result<String, RenewalError> {
    match renewal {
        Some(task) => task.await.unwrap_or(Err(RenewalError::Answer)),
        None => pending().await,
    }
}

/// A random number for the jitter; a fixed one if the system has none.
fn random() -> u32 {
    let mut bytes = [0xff; 4];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    filled.map_or(u32::MAX, |()| u32::from_ne_bytes(bytes))
}

fn host_obstacle(error: &HostSetupError) -> Obstacle {
    if error.is_permission_denied() { Obstacle::Permission } else { Obstacle::Local }
}

fn host_failure(error: &HostSetupError) -> Failure {
    let reason = error.describe();
    match error {
        HostSetupError::SecondFullTunnel => {
            let next = "end the other with `adit-client down NAME`; `adit-client list` shows which runs";
            Failure::new(Exit::Other, "full tunnel", reason, next)
        }
        HostSetupError::Plan(_) => {
            let next = "ask the gateway's administrator to look at the pools, routes and DNS it gives";
            Failure::new(Exit::Other, "network settings", reason, next)
        }
        HostSetupError::Change(_) | HostSetupError::Lock(_) if error.is_permission_denied() => {
            let next = "run as root, or give the program CAP_NET_ADMIN; in a container, add `--cap-add NET_ADMIN`";
            Failure::new(Exit::Permission, "host set-up", reason, next)
        }
        HostSetupError::Change(_) | HostSetupError::Lock(_) => Failure::new(Exit::Other, "host set-up", reason, ""),
    }
}

#[cfg(test)]
mod tests;
