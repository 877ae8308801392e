//! The driver's part that connects.

use std::time::Duration;

use adit_program::task::{self, Task};

use super::{Driver, OpenConnection, Protocol, now, random_number, until};
use crate::gateway_addresses;
use crate::host_plan::{HostFault, own_hosts};
use crate::own_question::LocalResolvers;
use crate::protocols::{ConnectError, ConnectionEvent, GatewayAccess, NetworkSettings};
use crate::state::{Obstacle, RESOLVE_TIMEOUT, State};

/// How long to wait for routes once there are addresses; a gateway need not advertise any.
const ROUTES_TIMEOUT: Duration = Duration::from_millis(500);

/// What an attempt brings.
pub(super) type Attempted<C> = Result<Success<C>, ConnectError>;

/// A connection and its first settings.
pub(super) struct Success<C> {
    connection: C,
    first: FirstSettings,
}

/// What a new connection says before packets flow.
#[derive(Default)]
struct FirstSettings {
    network: NetworkSettings,
    mtu: Option<u16>,
    login_lasts: Option<Duration>,
}

impl<P: Protocol> Driver<P> {
    pub(super) fn begin_attempt(&mut self, timeout: Duration) -> Task<Attempted<P::Connection>> {
        self.note_whereabouts();
        let profile = self.config.profile.clone();
        let (protocol, packets, mark) = (self.protocol.clone(), self.config.packets.clone(), self.config.mark);
        // A resolver that is asked through the tunnel cannot answer while it is down.
        let may_resolve = self.config.host.is_none() || !self.plan.takes_resolver();
        let own_way = self.own_way();
        self.lookups.ask_alone(own_way);
        let mut addresses = self.lookups.candidates(&profile.addresses, may_resolve);
        self.refresh_login();
        let login = self.login_token();
        self.look_for_portal();
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
    pub(super) fn own_way(&mut self) -> Option<(LocalResolvers, u32)> {
        let mark = self.config.mark.filter(|_| self.config.host.is_some())?;
        // Before it is known whether the tunnel takes the resolver: afterwards this host's files name its own no more.
        let tunnels = self.network.as_ref().map_or(&[][..], |network| network.dns_servers.as_slice());
        self.local_resolvers.refresh(tunnels);
        let is_shut_in = self.config.profile.full_tunnel || self.plan.takes_resolver();
        is_shut_in.then(|| (self.local_resolvers.clone(), mark))
    }

    pub(super) async fn handle_attempt_succeeded(&mut self, success: Success<P::Connection>) {
        self.attempt = None;
        let Success { mut connection, first: FirstSettings { network, mtu, login_lasts } } = success;
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
        if let Some(lasts) = login_lasts {
            self.handle_login_lasts(lasts);
        }
        self.life.handle_connected(now());
        self.begin_way();
        self.told_obstacles.clear();
        self.forget_portal();
        self.next_renewal_check = Some(now());
        tracing::info!("connected");
        if let Some(fault) = self.way_out_fault() {
            tracing::warn!("the client's own datagrams go through a tunnel; see `adit-client status`");
            tracing::debug!(fault, "the client's own datagrams go through a tunnel");
        }
    }

    pub(super) fn fail_attempt(&mut self, obstacle: Obstacle, reason: &str) {
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
    pub(super) fn tell_obstacle(&mut self, obstacle: Obstacle, reason: &str) {
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
            Obstacle::CaptivePortal => tracing::warn!(
                "no connection yet, trying on: this network has a captive portal; `adit-client status` says where, and \
                 `adit-client portal` lets a browser there out of a closed host"
            ),
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
        let working = connection.stats().remote.map(|address| self.lookups.original(address)).into_iter();
        let learned = gateway_addresses::remember(working.chain(self.lookups.resolved()), &profile.addresses);
        if profile.addresses != learned {
            profile.addresses = learned;
            self.save_profile();
        }
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
            ConnectionEvent::Carrier | ConnectionEvent::Silent(_) => {}
            ConnectionEvent::LoginLasts(lasts) => first.login_lasts = Some(lasts),
            ConnectionEvent::Closed(error) => return Err(error),
        }
    }
    Ok(first)
}
