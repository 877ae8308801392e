//! The ESP carrier of a connection, if the gateway agreed to it.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_net::carrier::esp::{EspControl, EspSetup};
use adit_net::http::stream::TunnelStream;
use adit_proto::connect_ip::client::Client;

use crate::packet_source::TunnelSession;
use crate::protocols::data::DataPath;

/// Starts the first epoch of ESP on a connection, towards the address of the gateway; `None` if the gateway did not
/// accept the offer of `machine`.
pub(super) fn start(
    machine: &Client,
    stream: &TunnelStream,
    gateway: SocketAddr,
    data: &DataPath,
) -> Option<EspControl<TunnelSession>> {
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
    Some(EspControl::client(setup, gateway, Instant::now()))
}
