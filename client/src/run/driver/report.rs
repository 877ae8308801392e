//! The driver's part that says how the session stands.

use std::net::SocketAddr;

use super::{Driver, OpenConnection, Protocol, now};
use crate::run::status::Status;
use crate::run::{Snapshot, way_out};

impl<P: Protocol> Driver<P> {
    pub(super) fn publish(&self) {
        let snapshot = Snapshot { state: self.life.state(), network: self.network.clone(), mtu: self.mtu };
        self.publish.send_if_modified(|current| {
            let changed = *current != snapshot;
            *current = snapshot;
            changed
        });
    }

    pub(super) fn status(&self) -> Status {
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
