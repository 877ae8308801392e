//! Moves a session's life cycle along: feeds it what happens, and does what it asks for.
//!
//! One task owns everything of a session. While the life cycle is `Reconnecting` or `Blocked`, the host stays as it is,
//! so that nothing leaves outside the tunnel.

mod certificate;
mod changes;
mod host;
mod login;

use std::future::pending;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_program::exit::Failure;
use adit_program::random::random;
use adit_program::task::{self, Task};
use adit_proto::invite::Place;
use adit_proto::packet::IPV6_MIN_MTU;
use adit_proto::range::RouteRange;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::sync::{mpsc, watch};

use super::protocol::{OpenConnection, Protocol};
use super::renewal::{self, RenewalError};
use super::status::{NO_RESOLVER, Status};
use super::{Command, SessionConfig, Snapshot, way_out};
use crate::gateway_addresses::{self, Lookups};
use crate::host_plan::{GuardStatus, HostFault, HostHooks, HostPlan, own_hosts};
use crate::obstacle;
use crate::own_question::LocalResolvers;
use crate::profile::Profile;
use crate::protocols::{ConnectError, ConnectionEvent, GatewayAccess, NetworkSettings};
use crate::state::{Event, LifeCycle, Obstacle, RESOLVE_TIMEOUT, State};
use changes::Changes;
use login::LoginWatch;

/// How long to wait for routes once there are addresses; a gateway need not advertise any.
const ROUTES_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a connection may take to say goodbye: a gateway that does not answer must not hold up the end.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What an attempt brings.
type Attempted<C> = Result<Success<C>, ConnectError>;

/// A connection and its first settings.
struct Success<C> {
    connection: C,
    first: FirstSettings,
}

/// What a new connection says before packets flow.
#[derive(Default)]
struct FirstSettings {
    network: NetworkSettings,
    mtu: Option<u16>,
}

/// The task of one session.
pub(super) struct Driver<P: Protocol> {
    config: SessionConfig,
    protocol: P,
    commands: mpsc::Receiver<Command>,
    publish: watch::Sender<Snapshot>,
    life: LifeCycle,
    lookups: Lookups,
    local_resolvers: LocalResolvers,
    attempt: Option<Task<Attempted<P::Connection>>>,
    connection: Option<P::Connection>,
    renewal: Option<Task<Result<String, RenewalError>>>,
    next_renewal_check: Option<Instant>,
    login: LoginWatch,
    next_login_look: Option<Instant>,
    network: Option<NetworkSettings>,
    changes: Changes,
    mtu: u16,
    plan: HostPlan,
    host_failure: Option<Failure>,
    guards: Vec<GuardStatus>,
    /// What stands in the way of a connection and was told already.
    told_obstacles: Vec<Obstacle>,
}

/// What happened to a session.
enum Input<C> {
    Timeout,
    Attempted(Attempted<C>),
    Connection(ConnectionEvent),
    Command(Command),
    RenewalCheck,
    LoginLook,
    Renewed(Result<String, RenewalError>),
    HostChanged,
    ChangesDue,
}

impl<P: Protocol> Driver<P> {
    pub(super) fn new(
        config: SessionConfig,
        protocol: P,
        commands: mpsc::Receiver<Command>,
        publish: watch::Sender<Snapshot>,
    ) -> Self {
        let life = LifeCycle::new(config.patience, now());
        let Profile { host, port, .. } = &config.profile;
        let lookups = Lookups::new(vec![Place { host: host.clone(), port: *port }]);
        Self {
            config,
            protocol,
            commands,
            publish,
            life,
            lookups,
            local_resolvers: LocalResolvers::default(),
            attempt: None,
            connection: None,
            renewal: None,
            next_renewal_check: None,
            login: LoginWatch::default(),
            next_login_look: None,
            network: None,
            changes: Changes::default(),
            mtu: IPV6_MIN_MTU,
            plan: HostPlan::default(),
            host_failure: None,
            guards: Vec::new(),
            told_obstacles: Vec::new(),
        }
    }

    /// Runs until the life cycle has finished, then undoes host changes.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        self.life.handle_start(now());
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

    async fn next_input(&mut self) -> Input<P::Connection> {
        let (timeout, renewal_check) = (self.life.poll_timeout(), self.next_renewal_check);
        let (changes_due, login_look) = (self.changes.due(), self.next_login_look);
        tokio::select! {
            // What the user wants, and what protects the host, comes before whatever a gateway sends.
            biased;
            // Without any handle left nobody can stop us, which is what the owner asked for by keeping only the
            // session.
            Some(command) = self.commands.recv() => Input::Command(command),
            () = until(timeout) => Input::Timeout,
            () = until(changes_due) => Input::ChangesDue,
            () = host_changed(&mut self.config.host) => Input::HostChanged,
            () = until(renewal_check) => Input::RenewalCheck,
            () = until(login_look) => Input::LoginLook,
            result = renewed(&mut self.renewal) => Input::Renewed(result),
            result = attempted(&mut self.attempt) => Input::Attempted(result),
            event = connection_event(&mut self.connection) => Input::Connection(event),
        }
    }

    async fn handle(&mut self, input: Input<P::Connection>) {
        match input {
            Input::Timeout => self.life.handle_timeout(random_number(), now()),
            Input::Attempted(Ok(success)) => self.handle_attempt_succeeded(success).await,
            Input::Attempted(Err(error)) => {
                self.attempt = None;
                tracing::debug!(%error, "attempt failed");
                self.fail_attempt(obstacle::obstacle(&error), &error.to_string());
            }
            Input::Connection(ConnectionEvent::Network(network)) => self.changes.take_network(network, now()),
            Input::Connection(ConnectionEvent::Mtu(mtu)) => self.changes.take_mtu(mtu, now()),
            Input::Connection(ConnectionEvent::Closed(error)) => {
                self.handle_lost(obstacle::obstacle(&error), &error.to_string());
            }
            Input::Command(Command::Status(answer)) => {
                // The asker may have gone; then nobody needs the answer.
                answer.send(self.status()).ok();
            }
            Input::Command(Command::Stop) => self.life.handle_stop(now()),
            Input::Command(Command::LoggedIn) => self.handle_login(),
            Input::LoginLook => self.look_at_login(),
            Input::RenewalCheck => self.check_renewal(),
            Input::Renewed(result) => self.handle_renewed(result),
            Input::HostChanged => self.hold_host().await,
            Input::ChangesDue => self.apply_changes().await,
        }
    }

    fn begin_attempt(&mut self, timeout: Duration) -> Task<Attempted<P::Connection>> {
        let profile = self.config.profile.clone();
        let (protocol, packets, mark) = (self.protocol.clone(), self.config.packets.clone(), self.config.mark);
        // A resolver that is asked through the tunnel cannot answer while it is down.
        let may_resolve = self.config.host.is_none() || !self.plan.takes_resolver();
        let own_way = self.own_way();
        self.lookups.ask_alone(own_way);
        let mut addresses = self.lookups.candidates(&profile.addresses, may_resolve);
        self.refresh_login();
        let login = self.login_token();
        task::spawn(async move {
            if !tokio::time::timeout(RESOLVE_TIMEOUT, addresses.is_ready()).await.unwrap_or_default() {
                return Err(ConnectError::Unreachable(format!("{}: its name cannot be resolved", profile.gateway())));
            }
            let target = GatewayAccess { login, ..profile.target(addresses, mark) };
            let mut connection = protocol.connect(target, packets, timeout).await?;
            let first = first_settings(&mut connection).await?;
            Ok(Success { connection, first })
        })
    }

    /// Whom to ask for the gateway's name where the host's own resolver may not get out: the resolvers of the local
    /// network, but for the tunnel's.
    fn own_way(&mut self) -> Option<(LocalResolvers, u32)> {
        let is_shut_in = self.config.profile.full_tunnel || self.plan.takes_resolver();
        let mark = self.config.mark.filter(|_| self.config.host.is_some() && is_shut_in)?;
        let tunnels = self.network.as_ref().map_or(&[][..], |network| network.dns_servers.as_slice());
        self.local_resolvers.refresh(tunnels);
        Some((self.local_resolvers.clone(), mark))
    }

    async fn handle_attempt_succeeded(&mut self, success: Success<P::Connection>) {
        self.attempt = None;
        let Success { mut connection, first: FirstSettings { network, mtu } } = success;
        let network = self.with_known_routes(network);
        if let Err(HostFault { obstacle, failure }) = self.configure_host(&network).await {
            connection.close().await;
            self.fail_attempt(obstacle, &failure.reason);
            self.host_failure = Some(failure);
            return;
        }
        connection.admit(own_hosts(&network));
        connection.attach();
        self.adopt(network);
        self.learn_addresses(&connection);
        self.connection = Some(connection);
        if let Some(mtu) = mtu {
            self.handle_mtu(mtu).await;
        }
        self.life.handle_connected(now());
        self.told_obstacles.clear();
        self.next_renewal_check = Some(now());
        tracing::info!("connected");
        if let Some(fault) = self.way_out_fault() {
            tracing::warn!("the client's own datagrams go through a tunnel; see `adit-client status`");
            tracing::debug!(fault, "the client's own datagrams go through a tunnel");
        }
    }

    /// Applies what the gateway changed lately.
    async fn apply_changes(&mut self) {
        let (network, mtu) = self.changes.apply(now());
        if let Some(network) = network {
            self.handle_network(network).await;
        }
        if let Some(mtu) = mtu {
            self.handle_mtu(mtu).await;
        }
    }

    async fn handle_network(&mut self, network: NetworkSettings) {
        let network = self.with_known_routes(network);
        if self.network.as_ref() == Some(&network) {
            return;
        }
        match self.configure_host(&network).await {
            Ok(()) => {
                tracing::info!("the gateway changed the network settings");
                if let Some(connection) = &mut self.connection {
                    connection.admit(own_hosts(&network));
                }
                self.adopt(network);
            }
            Err(HostFault { obstacle, failure }) => {
                self.handle_lost(obstacle, &failure.reason);
                self.host_failure = Some(failure);
            }
        }
    }

    /// Settings in which the routes known before stand in for those that the gateway has not told yet: a tunnel that
    /// was full stays full until the gateway says otherwise.
    fn with_known_routes(&self, network: NetworkSettings) -> NetworkSettings {
        if network.tells_routes() {
            return network;
        }
        match &self.network {
            Some(known) => {
                let (dns_servers, dns_domains) = match network.dns_servers.is_empty() {
                    true => (known.dns_servers.clone(), known.dns_domains.clone()),
                    false => (network.dns_servers, network.dns_domains),
                };
                let (routes, has_no_routes) = (known.routes.clone(), known.has_no_routes);
                NetworkSettings { addresses: network.addresses, routes, has_no_routes, dns_servers, dns_domains }
            }
            None if self.config.profile.full_tunnel => NetworkSettings { routes: everything(), ..network },
            None => network,
        }
    }

    /// Takes settings as those in force, and remembers whether all traffic goes into the tunnel.
    fn adopt(&mut self, network: NetworkSettings) {
        // An embedder's host may accept what ours would refuse; the status lists no route of it then.
        let plan = HostPlan::new(&network, true).unwrap_or_default();
        if plan.lacks_resolver() && !self.plan.lacks_resolver() {
            tracing::warn!("{NO_RESOLVER}");
        }
        let remembers = self.config.profile.full_tunnel;
        self.config.profile.full_tunnel = plan.full_tunnel;
        self.plan = plan;
        self.network = Some(network);
        if remembers != self.plan.full_tunnel {
            self.save_profile();
        }
    }

    fn handle_lost(&mut self, obstacle: Obstacle, reason: &str) {
        self.connection = None;
        self.changes = Changes::default();
        self.next_renewal_check = None;
        self.life.handle_lost(obstacle, reason, random_number(), now());
        let state = self.life.state();
        if matches!(state, State::Reconnecting | State::Blocked | State::LoginNeeded) {
            if self.way_out_fault().is_some() {
                tracing::warn!("the client's own datagrams go through a tunnel; see `adit-client status`");
            }
            tracing::warn!(%state, "the connection was lost");
            tracing::debug!(reason, "the connection was lost");
        }
    }

    fn fail_attempt(&mut self, obstacle: Obstacle, reason: &str) {
        let before = self.life.state();
        self.life.handle_attempt_failed(obstacle, reason, random_number(), now());
        if self.life.state() == State::Blocked && before != State::Blocked {
            tracing::warn!("the gateway refuses this device; trying on slowly");
        }
        if self.life.state() == State::LoginNeeded {
            if before != State::LoginNeeded {
                tracing::warn!("the login is over; log in again with `adit-client login`");
            }
            // Somebody may have logged in while the attempt was under way.
            if self.refresh_login() {
                self.life.handle_login(now());
            }
        }
        self.tell_obstacle(obstacle, reason);
    }

    /// Says, once until there is a connection, what a client meets instead of the gateway and goes on trying against.
    fn tell_obstacle(&mut self, obstacle: Obstacle, reason: &str) {
        if self.told_obstacles.contains(&obstacle) {
            return;
        }
        match obstacle {
            Obstacle::Clock => tracing::warn!("no connection yet, trying on: {reason}"),
            Obstacle::IdentityMismatch => {
                tracing::warn!("no connection yet, trying on: another certificate than the gateway's was shown");
            }
            Obstacle::BrokenOff => tracing::warn!("no connection yet, trying on: the handshake was broken off"),
            Obstacle::NarrowPath => {
                tracing::warn!("no connection yet, trying on: the path to the gateway is too narrow for a tunnel");
            }
            Obstacle::NoAnswer
            | Obstacle::Firewall
            | Obstacle::Protocol
            | Obstacle::Refused
            | Obstacle::LoginNeeded
            | Obstacle::Permission
            | Obstacle::Local
            | Obstacle::DeviceGone => return,
        }
        self.told_obstacles.push(obstacle);
    }

    /// Remembers the addresses that worked or might: once the tunnel has taken the resolver, nothing else leads back.
    fn learn_addresses(&mut self, connection: &P::Connection) {
        let profile = &mut self.config.profile;
        let working = connection.stats().remote.into_iter();
        let learned = gateway_addresses::remember(working.chain(self.lookups.resolved()), &profile.addresses);
        if profile.addresses != learned {
            profile.addresses = learned;
            self.save_profile();
        }
    }

    fn save_profile(&self) {
        if let Some(store) = &self.config.store
            && let Err(error) = renewal::save(store, &self.config.profile)
        {
            tracing::warn!(%error, "the profile could not be saved");
        }
    }

    async fn close(&mut self) {
        self.publish();
        if let Some(connection) = self.connection.take()
            && tokio::time::timeout(GOODBYE_TIMEOUT, connection.close()).await.is_err()
        {
            tracing::debug!("the gateway does not answer the goodbye");
        }
        self.life.handle_closed(now());
    }

    async fn finish(mut self, obstacle: Option<Obstacle>) -> Result<(), Failure> {
        self.attempt = None;
        self.connection = None;
        // Everything was to go through a device that somebody deleted; nobody has asked to open the host.
        let stays_closed = obstacle == Some(Obstacle::DeviceGone) && self.plan.full_tunnel;
        let undone = match &mut self.config.host {
            Some(host) if obstacle.is_none() => host.undo().await,
            Some(_) if stays_closed => Ok(()),
            // Nobody asked for the end, so nobody asked for traffic in clear.
            Some(host) => host.undo_but_stay_closed().await,
            None => Ok(()),
        };
        self.publish();
        let Some(obstacle) = obstacle else { return undone };
        if let Err(failure) = undone {
            tracing::warn!("something stays behind on this host; run `adit-client cleanup`");
            tracing::debug!(reason = failure.reason, "something stays behind on this host");
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

    /// What is wrong with the way of our own datagrams, if this session configures the host.
    fn way_out_fault(&self) -> Option<String> {
        let host = self.config.host.as_ref()?;
        way_out::fault(self.gateway_in_use()?, self.config.mark, host.as_ref())
    }

    /// The address of the gateway that is or was last connected to.
    fn gateway_in_use(&self) -> Option<SocketAddr> {
        let connected = self.connection.as_ref().and_then(|connection| connection.stats().remote);
        connected.or_else(|| self.config.profile.addresses.first().copied())
    }

    fn status(&self) -> Status {
        let reason = self.life.reason();
        let mut status = Status {
            name: self.config.profile.name.to_string(),
            state: self.life.state().label().to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            since_seconds: Some(now().saturating_duration_since(self.life.since()).as_secs()),
            gateway: self.config.profile.gateway(),
            tun: self.config.host.as_ref().and_then(|host| host.device()).map(str::to_owned),
            guards: self.guards.clone(),
            ..Status::default()
        };
        self.describe_login(&mut status);
        status.warnings.extend(self.config.host.iter().flat_map(|host| host.warnings()));
        status.warnings.extend(self.way_out_fault());
        let covered = self.gateway_in_use().and_then(|gateway| way_out::covered(gateway, &self.plan));
        status.warnings.extend(covered);
        if let Some(network) = &self.network {
            status.add_network(network);
            status.mtu = Some(self.mtu);
        }
        if let Some(connection) = &self.connection {
            status.add_stats(connection.stats());
        }
        if let Some(workers) = self.config.packets.workers() {
            status.add_drops(workers.counters().traffic().drops);
        }
        status
    }
}

/// Waits for addresses, and a little longer for routes: capsules come one by one, and a full tunnel must not count as
/// connected before its routes are there.
async fn first_settings<C: OpenConnection>(connection: &mut C) -> Result<FirstSettings, ConnectError> {
    let mut first = FirstSettings::default();
    let mut routes_due = None;
    while first.network.addresses.is_empty() || !first.network.tells_routes() {
        let event = tokio::select! {
            event = connection.next_event() => event,
            () = until(routes_due) => break,
        };
        match event {
            ConnectionEvent::Network(network) => {
                first.network = network;
                routes_due = routes_due.or_else(|| Some(now() + ROUTES_TIMEOUT));
            }
            ConnectionEvent::Mtu(mtu) => first.mtu = Some(mtu),
            ConnectionEvent::Closed(error) => return Err(error),
        }
    }
    Ok(first)
}

/// All destinations of both families.
fn everything() -> Vec<RouteRange> {
    [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].map(RouteRange::from).to_vec()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

async fn attempted<C>(attempt: &mut Option<Task<Attempted<C>>>) -> Attempted<C> {
    match attempt {
        Some(task) => task.await.unwrap_or_else(|error| Err(ConnectError::Protocol(error.to_string()))),
        None => pending().await,
    }
}

async fn connection_event<C: OpenConnection>(connection: &mut Option<C>) -> ConnectionEvent {
    match connection {
        Some(connection) => connection.next_event().await,
        None => pending().await,
    }
}

async fn host_changed(host: &mut Option<Box<dyn HostHooks>>) {
    match host {
        Some(host) => host.changed().await,
        None => pending().await,
    }
}

async fn renewed(renewal: &mut Option<Task<Result<String, RenewalError>>>) -> Result<String, RenewalError> {
    match renewal {
        Some(task) => task.await.unwrap_or(Err(RenewalError::Answer)),
        None => pending().await,
    }
}

/// The time by the runtime's clock, on which the timers of a session run; tests turn it forward.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A random number for the jitter.
fn random_number() -> u32 {
    u32::from_ne_bytes(random().expect("the system has randomness: TLS came before"))
}

#[cfg(test)]
mod tests;
