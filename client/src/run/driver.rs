//! Moves a session's life cycle along: feeds it what happens, and does what it asks for.
//!
//! One task owns everything of a session. While the life cycle is `Reconnecting` or `Blocked`, the host stays as it is,
//! so that nothing leaves outside the tunnel.

mod attempt;
mod certificate;
mod changes;
mod host;
mod login;
mod moves;
mod network;
mod portal;
mod report;
mod waking;

use std::future::pending;
use std::time::{Duration, Instant, SystemTime};

use adit_program::exit::{Exit, Failure};
use adit_program::random::random;
use adit_program::task::Task;
use adit_proto::captive_portal::PageAddress;
use adit_proto::packet::IPV6_MIN_MTU;
use tokio::sync::{broadcast, mpsc, watch};

use super::event::{MOST_UNREAD, Standing, StatusEvent};
use super::protocol::Protocol;
use super::renewal::{self, RenewalError};
use super::{Command, SessionConfig, Snapshot};
use crate::clock;
use crate::gateway_addresses::Lookups;
use crate::host_plan::{GuardStatus, HostHooks, HostPlan};
use crate::obstacle;
use crate::own_question::LocalResolvers;
use crate::protocols::{ConnectError, ConnectionEvent, NetworkSettings, OpenConnection};
use crate::state::{Event, LifeCycle, Obstacle, State};
use attempt::Attempted;
use changes::Changes;
use login::LoginWatch;
use moves::Whereabouts;
use portal::PortalWatch;
use waking::SleepAlarm;

pub(super) use waking::{SleepClock, since_boot};

/// How long a connection may take to say goodbye: a gateway that does not answer must not hold up the end.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// The task of one session.
pub(super) struct Driver<P: Protocol> {
    config: SessionConfig,
    protocol: P,
    commands: mpsc::Receiver<Command>,
    publish: watch::Sender<Snapshot>,
    followers: broadcast::Sender<StatusEvent>,
    /// The carrier that was in use when this was last looked at, and since when.
    carrier: Option<(&'static str, Instant)>,
    /// What followers were told last.
    told_standing: Option<Standing>,
    life: LifeCycle,
    lookups: Lookups,
    local_resolvers: LocalResolvers,
    attempt: Option<Task<Attempted<P::Connection>>>,
    connection: Option<P::Connection>,
    renewal: Option<Task<Result<String, RenewalError>>>,
    next_renewal_check: Option<Instant>,
    login: LoginWatch,
    next_login_look: Option<Instant>,
    sleep: SleepAlarm,
    portal: PortalWatch,
    network: Option<NetworkSettings>,
    changes: Changes,
    whereabouts: Whereabouts,
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
    PortalLooked(Option<PageAddress>),
    Renewed(Result<String, RenewalError>),
    Woke(Duration),
    HostChanged,
    ChangesDue,
    MayHaveMoved,
}

impl<P: Protocol> Driver<P> {
    pub(super) fn new(
        config: SessionConfig,
        protocol: P,
        commands: mpsc::Receiver<Command>,
        publish: watch::Sender<Snapshot>,
        clock: SleepClock,
    ) -> Self {
        let life = LifeCycle::new(config.patience, now());
        let lookups = Lookups::new(config.profile.places(), config.mark);
        let whereabouts = Whereabouts::new(config.mark);
        Self {
            config,
            protocol,
            commands,
            publish,
            followers: broadcast::Sender::new(MOST_UNREAD),
            carrier: None,
            told_standing: None,
            life,
            lookups,
            local_resolvers: LocalResolvers::default(),
            attempt: None,
            connection: None,
            renewal: None,
            next_renewal_check: None,
            login: LoginWatch::default(),
            next_login_look: None,
            sleep: SleepAlarm::start(clock),
            portal: PortalWatch::default(),
            network: None,
            changes: Changes::default(),
            whereabouts,
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
            if let Some(connection) = &mut self.connection {
                connection.make_way(self.attempt.is_some());
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
            slept = self.sleep.woke() => Input::Woke(slept),
            () = host_changed(&mut self.config.host) => Input::HostChanged,
            () = self.whereabouts.may_differ() => Input::MayHaveMoved,
            () = until(renewal_check) => Input::RenewalCheck,
            () = until(login_look) => Input::LoginLook,
            page = self.portal.looked() => Input::PortalLooked(page),
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
            Input::Connection(ConnectionEvent::Silent(is_silent)) => self.handle_silence(is_silent),
            Input::Connection(ConnectionEvent::LoginLasts(lasts)) => self.handle_login_lasts(lasts),
            // All that is to be done is done after every input: to tell followers.
            Input::Connection(ConnectionEvent::Carrier) => {}
            Input::Connection(ConnectionEvent::Closed(ConnectError::Restarts(back_in))) => self.handle_restart(back_in),
            Input::Connection(ConnectionEvent::Closed(error)) => {
                self.handle_lost(obstacle::obstacle(&error), &error.to_string());
            }
            Input::Command(Command::Status(answer)) => {
                // The asker may have gone; then nobody needs the answer.
                answer.send(self.status()).ok();
            }
            Input::Command(Command::Follow(answer)) => {
                answer.send(self.follow()).ok();
            }
            Input::Command(Command::Stop) => self.life.handle_stop(now()),
            Input::Command(Command::LoggedIn) => self.handle_login(),
            Input::LoginLook => self.look_at_login(),
            Input::PortalLooked(page) => self.handle_looked(page),
            Input::RenewalCheck => self.check_renewal(),
            Input::Renewed(result) => self.handle_renewed(result),
            Input::Woke(slept) => self.handle_wake(slept),
            Input::HostChanged => {
                self.sleep.look();
                self.hold_host().await;
            }
            Input::ChangesDue => self.apply_changes().await,
            Input::MayHaveMoved => self.look_around(),
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

    /// The gateway said when it is back.
    fn handle_restart(&mut self, back_in: Duration) {
        let back_at = clock::shown(SystemTime::now() + back_in);
        self.handle_lost(Obstacle::NoAnswer, &format!("the gateway restarts, back at {back_at}"));
        self.life.handle_restart(back_in, random_number(), now());
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
        let ended = self.outcome(obstacle, undone);
        self.publish_snapshot();
        self.tell_end(ended.as_ref().err().map_or(Exit::Ok, |failure| failure.exit));
        ended
    }

    /// What becomes of a session that ends because of this obstacle, or because it was told to.
    fn outcome(&mut self, obstacle: Option<Obstacle>, undone: Result<(), Failure>) -> Result<(), Failure> {
        let Some(obstacle) = obstacle else { return undone };
        if let Err(failure) = undone {
            tracing::warn!("something stays behind on this host; run `adit-client cleanup`");
            tracing::debug!(reason = failure.reason, "something stays behind on this host");
        }
        let gateway = self.config.profile.gateway();
        let told = || obstacle::failure(&gateway, obstacle, self.life.reason());
        Err(self.host_failure.take().unwrap_or_else(told))
    }
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
