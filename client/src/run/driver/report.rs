//! The driver's part that says how the session stands.

use std::net::SocketAddr;

use adit_program::exit::Exit;
use tokio::sync::broadcast;

use super::{Driver, OpenConnection, Protocol, now};
use crate::host_plan::InForce;
use crate::run::status::Status;
use crate::run::{Snapshot, Standing, StatusEvent, way_out};
use crate::state::State;

impl<P: Protocol> Driver<P> {
    /// Tells the embedder and all followers how the session stands, if that changed.
    pub(super) fn publish(&mut self) {
        self.publish_snapshot();
        self.look_at_carrier();
        if self.followers.receiver_count() > 0 {
            let standing = self.standing();
            if self.told_standing.as_ref() != Some(&standing) {
                self.tell(standing);
            }
        }
    }

    /// Notes since when packets travel by the carrier in use. Connections say when that changes.
    fn look_at_carrier(&mut self) {
        let carrier = self.connection.as_ref().map(|connection| connection.stats().carrier);
        if carrier != self.carrier.map(|(known, _)| known) {
            self.carrier = carrier.map(|carrier| (carrier, now()));
        }
    }

    /// Tells the embedder alone.
    pub(super) fn publish_snapshot(&self) {
        let snapshot = Snapshot { state: self.life.state(), network: self.network.clone(), mtu: self.mtu };
        self.publish.send_if_modified(|current| {
            let changed = *current != snapshot;
            *current = snapshot;
            changed
        });
    }

    /// Begins to tell somebody how the session stands.
    pub(super) fn follow(&mut self) -> (StatusEvent, broadcast::Receiver<StatusEvent>) {
        // Those that follow already hear of a change that came with the same input.
        self.publish();
        let standing = self.standing();
        self.told_standing = Some(standing.clone());
        (StatusEvent::now(self.since_seconds(), standing), self.followers.subscribe())
    }

    /// Tells followers that the session is over.
    pub(super) fn tell_end(&mut self, exit: Exit) {
        let standing = self.standing().ended(exit);
        self.tell(standing);
    }

    fn tell(&mut self, standing: Standing) {
        self.told_standing = Some(standing.clone());
        // The last follower may just have gone.
        self.followers.send(StatusEvent::now(self.since_seconds(), standing)).ok();
    }

    fn standing(&self) -> Standing {
        let reason = self.life.reason();
        let stats = self.connection.as_ref().map(OpenConnection::stats);
        let is_connected = self.life.state() == State::Connected;
        let in_force = self.config.host.as_ref().map(|host| host.in_force());
        let InForce { routes, resolver } = in_force.unwrap_or(InForce { routes: true, resolver: true });
        Standing {
            name: self.config.profile.name.to_string(),
            state: self.life.state().label().to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            portal: self.portal_page(),
            carrier: stats.as_ref().map(|stats| stats.carrier.to_owned()),
            remote: stats.and_then(|stats| stats.remote),
            addresses: self.network.as_ref().map(|network| network.addresses.clone()).unwrap_or_default(),
            mtu: self.network.as_ref().map(|_| self.mtu),
            route: is_connected && routes,
            dns: is_connected && resolver,
            exit: None,
        }
    }

    fn since_seconds(&self) -> u64 {
        now().saturating_duration_since(self.life.since()).as_secs()
    }

    pub(super) fn status(&self) -> Status {
        let reason = self.life.reason();
        let mut status = Status {
            name: self.config.profile.name.to_string(),
            state: self.life.state().label().to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            since_seconds: Some(self.since_seconds()),
            portal: self.portal_page(),
            gateway: self.config.profile.gateway(),
            tun: self.config.host.as_ref().and_then(|host| host.device()).map(str::to_owned),
            local_dns: self.local_resolvers.addresses(),
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
            let lasts = self.carrier.map(|(_, since)| now().saturating_duration_since(since).as_secs());
            status.carrier_seconds = lasts;
        }
        if let Some(workers) = self.config.packets.workers() {
            status.add_drops(workers.counters().traffic().drops);
        }
        status
    }

    /// What is wrong with the way of our own datagrams, if this session configures the host.
    pub(super) fn way_out_fault(&self) -> Option<String> {
        let host = self.config.host.as_ref()?;
        way_out::fault(self.gateway_in_use()?, self.config.mark, host.as_ref())
    }

    /// The address of the gateway that is or was last connected to.
    fn gateway_in_use(&self) -> Option<SocketAddr> {
        let connected = self.connection.as_ref().and_then(|connection| connection.stats().remote);
        connected.or_else(|| self.config.profile.addresses.first().copied())
    }
}
