//! The ESP carrier of a connection, if the gateway agreed to it.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_net::carrier::esp::{EspControl, EspError, EspSetup};
use adit_net::http::stream::TunnelStream;
use adit_proto::connect_ip::client::Client;
use adit_proto::esp::capsule::EspCapsule;

use super::data::DataPath;
use super::roaming::Roaming;
use crate::packet_source::TunnelSession;

/// ESP on one connection; nothing if it was not negotiated.
pub(super) struct Esp(Option<Negotiated>);

struct Negotiated {
    control: EspControl<TunnelSession>,
    roaming: Roaming,
}

impl Esp {
    /// Starts the first epoch if the gateway, whose address is given, accepted the offer of `machine`.
    pub(super) fn start(machine: &Client, stream: &TunnelStream, gateway: SocketAddr, data: &DataPath) -> Self {
        Self(negotiate(machine, stream, gateway, data))
    }

    /// Takes a capsule of the gateway.
    ///
    /// # Errors
    /// The two ends no longer agree, and the connection has to end.
    pub(super) fn handle_capsule(&mut self, capsule: EspCapsule) -> Result<(), EspError> {
        // Without negotiation the machine lets none through.
        self.0.as_mut().map_or(Ok(()), |esp| esp.control.handle_capsule(capsule, Instant::now()))
    }

    /// Looks whether this host has moved, once a second, and says so.
    pub(super) fn look(&mut self) -> bool {
        let Some(esp) = &mut self.0 else { return false };
        let moved = esp.roaming.has_moved();
        if moved {
            esp.control.handle_rebind(Instant::now());
        }
        moved
    }

    /// Waits until something is to be done, and does it; for ever without ESP. Cancel-safe.
    ///
    /// # Errors
    /// ESP cannot go on, and the connection has to end.
    pub(super) async fn next(&mut self) -> Result<(), EspError> {
        match &mut self.0 {
            Some(esp) => esp.control.next().await,
            None => pending().await,
        }
    }

    /// Whether ESP, which is in use, left a probe unanswered since this was last asked.
    pub(super) fn take_doubt(&mut self) -> bool {
        self.0.as_mut().is_some_and(|esp| esp.control.take_unanswered())
    }

    /// Hands what is to be sent on the request stream to the machine.
    pub(super) fn send_capsules(&mut self, machine: &mut Client) {
        let control = self.0.as_mut().map(|esp| &mut esp.control);
        for capsule in control.into_iter().flat_map(|control| std::iter::from_fn(|| control.poll_capsule())) {
            machine.send_esp(capsule);
        }
    }
}

fn negotiate(machine: &Client, stream: &TunnelStream, gateway: SocketAddr, data: &DataPath) -> Option<Negotiated> {
    let (negotiated, workers) = (machine.esp()?, data.packets().workers()?);
    let policy = workers.esp()?.policy;
    let gateway = SocketAddr::new(gateway.ip().to_canonical(), gateway.port());
    let mut secret = stream.exporter_secret()?;
    let setup = EspSetup {
        negotiated,
        secret: &mut secret,
        plane: workers.plane(),
        session: Arc::clone(data.session()),
        policy,
        largest_packet: workers.mtu(),
    };
    let control = EspControl::client(setup, gateway, Instant::now());
    Some(Negotiated { control, roaming: Roaming::new(gateway, workers.mark()) })
}

#[cfg(test)]
mod tests;
