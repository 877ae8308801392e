//! A connection to a gateway of the AnyConnect family, of whatever make: TLS over TCP, a CONNECT with the token of a
//! login, and then packets in frames on the same stream, or in records of DTLS beside it. [`login`] is how a user
//! comes by the token.

mod asker;
mod beside;
pub mod login;
mod records;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::cstp::{ChannelEnd, Cstp, FollowedChannel};
use adit_net::carrier::stream::StreamCarrier;
use adit_net::tls::{self, KnownBy};
use adit_program::foreign_text::{printable, printable_bytes};
use adit_proto::anyconnect::channel::Channel;
use adit_proto::anyconnect::frame::farewell;
use adit_proto::anyconnect::tunnel::settings::TunnelSettings;
use bytes::Bytes;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::mpsc;

use super::connect_ip::{self, Endpoint};
use super::stream::{Moving, StreamConnection};
use super::{ConnectError, ConnectionEvent, GatewayAccess, NetworkSettings};
use crate::clock;
use crate::packet_source::Packets;
use crate::public_roots;
use asker::{Asker, Granted};
use beside::{BesideChannel, Ended, Next};

/// What this client calls itself. Gateways look for the name and version of a stock client, and tell others less.
const AGENT: &str = concat!("Open AnyConnect VPN Agent v9.01 (Adit ", env!("CARGO_PKG_VERSION"), ")");
/// The version of the login's documents.
const VERSION: &str = "v9.01";
/// How long a gateway may be silent before it is asked whether it is there, if it does not say so itself.
const DPD: Duration = Duration::from_secs(30);
/// How long a gateway may leave unread what is no packet.
const UNREAD: Duration = Duration::from_secs(15);

/// An open connection; dropping it closes it.
pub type ChannelConnection = StreamConnection<Cstp>;

impl StreamConnection<Cstp> {
    /// Connects with the token of a login. Of `packets` only the carriers matter until packets flow.
    ///
    /// `timeout` bounds all of it; errors as [`ConnectError`] says.
    pub async fn open(target: &GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        let opened = tokio::time::timeout(timeout, Self::open_channel(target, packets, timeout)).await;
        opened.unwrap_or_else(|_elapsed| Err(ConnectError::Unreachable(target.authority())))
    }

    async fn open_channel(target: &GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        let asker = Asker::new(target, &packets)?;
        let (stream, remote) = asker.shake(target.addresses.clone(), timeout).await?;
        let Granted { settings, terms, connection } = asker.ask(stream, remote).await?;
        let carrier = StreamCarrier::new(remote, settings.mtu.min(asker.largest));
        let (moving, frames) = Moving::start(carrier, Cstp, connection, packets)?;
        let beside = BesideChannel::new(asker, remote, &settings, terms, &moving.data);
        let control = |moving, events| control(settings, beside, moving, frames, events);
        Self::followed_by(moving, farewell("the client disconnects"), control).await
    }
}

/// The gateway as it is reached.
pub(crate) fn endpoint(target: &GatewayAccess) -> Result<Endpoint<'_>, ConnectError> {
    let GatewayAccess { host, port, addresses, authority_pem, pin, mark, .. } = target;
    let (known_by, trusts) = match (pin, authority_pem.as_str()) {
        (Some(pin), _) => (KnownBy::Pin(*pin), "the fingerprint in the profile"),
        (None, "") => (KnownBy::Roots(public_roots::load().map_err(local)?), public_roots::CALLED),
        (None, pem) => (KnownBy::Roots(roots(pem)?), "the certificate authority in the profile"),
    };
    let tls = tls::foreign_client_config(known_by, target.own_certificate()?)
        .map_err(|error| connect_ip::unusable("the profile's certificate or key", &error))?;
    let known_past = clock::known_past(std::iter::empty());
    let addresses = addresses.clone();
    Ok(Endpoint { host, port: *port, addresses, mark: *mark, tls, trusts, known_past })
}

fn local(reason: &str) -> ConnectError {
    ConnectError::Local(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason.to_owned()))
}

fn roots(pem: &str) -> Result<RootCertStore, ConnectError> {
    let unusable = |error: &dyn std::fmt::Display| connect_ip::unusable("the profile's authority certificate", error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    Ok(roots)
}

/// Tells the settings, and follows the connection, and those that take its place, until the last one is over; the last
/// event is always `Closed`.
async fn control(
    mut settings: TunnelSettings,
    mut beside: BesideChannel,
    mut moving: Moving<Cstp>,
    mut frames: mpsc::Receiver<Bytes>,
    events: mpsc::Sender<ConnectionEvent>,
) {
    if let Some(banner) = &settings.banner {
        tracing::info!(banner = printable(banner), "the gateway greets");
    }
    for event in news(&settings, None).chain([ConnectionEvent::Mtu(beside.told_mtu())]) {
        let _reader_gone = events.send(event).await;
    }
    let remote = moving.carrier.remote();
    let ended = loop {
        let mut followed = FollowedChannel::new(Arc::clone(&moving.carrier), channel(&settings), frames, UNREAD);
        let stream = match beside.follow(&mut followed, &moving.data, &events).await {
            Next::TakeOver(stream) => *stream,
            Next::Over(ended) => break ended,
        };
        match beside.take_over(stream, &mut moving, followed.into_frames(), &settings).await {
            Ok((next, its_frames)) => {
                for event in news(&next, Some(&settings)) {
                    let _reader_gone = events.send(event).await;
                }
                (settings, frames) = (next, its_frames);
            }
            Err(error) => break Ended::Failed(error),
        }
    };
    drop(beside);
    let error = explain_end(ended, moving.end().await, remote);
    tracing::debug!(%error, "tunnel ended");
    let _reader_gone = events.send(ConnectionEvent::Closed(error)).await;
}

fn channel(settings: &TunnelSettings) -> Channel {
    let mut channel = Channel::new(settings.dpd.unwrap_or(DPD), Instant::now());
    if let Some(every) = settings.keepalive {
        channel.keep_alive(every, Instant::now());
    }
    channel
}

/// In words, with what the connection itself had come to.
fn explain_end(ended: Ended, connection: Option<ConnectError>, remote: SocketAddr) -> ConnectError {
    match (ended, connection) {
        (Ended::Failed(error), _) => error,
        (Ended::Channel(ChannelEnd::Ended(reason)), _) if reason.is_empty() => {
            ConnectError::LoginNeeded("it ended the session".to_owned())
        }
        (Ended::Channel(ChannelEnd::Ended(reason)), _) => {
            ConnectError::LoginNeeded(format!("it ended the session, {}", printable_bytes(&reason)))
        }
        (Ended::Channel(ChannelEnd::Silent), _) => ConnectError::Unreachable(remote.to_string()),
        (Ended::Channel(ChannelEnd::Left | ChannelEnd::Closed), Some(error)) => error,
        (Ended::Channel(ChannelEnd::Left | ChannelEnd::Closed), None) => {
            ConnectError::Closed("the gateway ended the connection".to_owned())
        }
    }
}

/// What a tunnel tells that takes the place of a known one.
fn news(settings: &TunnelSettings, known: Option<&TunnelSettings>) -> impl Iterator<Item = ConnectionEvent> {
    let network = network(settings);
    let is_known = known.map(self::network).as_ref() == Some(&network);
    let network = (!is_known).then_some(ConnectionEvent::Network(network));
    network.into_iter().chain(settings.lasts.map(ConnectionEvent::LoginLasts))
}

fn network(settings: &TunnelSettings) -> NetworkSettings {
    NetworkSettings {
        addresses: settings.addresses(),
        has_no_routes: settings.routes.is_empty(),
        routes: settings.routes.clone(),
        dns_servers: settings.resolvers.clone(),
        dns_domains: settings.domains.clone(),
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::http::field::Field;

    use super::*;

    fn settings(resolver: &str, lasts: &str) -> TunnelSettings {
        let fields = [("address", "10.79.0.2"), ("mtu", "1400"), ("dns", resolver), ("session-timeout", lasts)];
        TunnelSettings::of(&fields.map(|(name, value)| Field::new(format!("x-cstp-{name}"), value))).unwrap()
    }

    #[test]
    fn tunnel_that_takes_the_place_of_another_tells_what_is_new_and_how_long_it_lasts() {
        let known = settings("10.79.0.1", "600");
        let told = |settings: &TunnelSettings, known| {
            let events = news(settings, known).map(|event| match event {
                ConnectionEvent::Network(network) => format!("{:?}", network.dns_servers),
                ConnectionEvent::LoginLasts(lasts) => format!("{} s", lasts.as_secs()),
                event @ (ConnectionEvent::Mtu(_)
                | ConnectionEvent::Carrier
                | ConnectionEvent::Silent(_)
                | ConnectionEvent::Closed(_)) => {
                    panic!("{event:?}")
                }
            });
            events.collect::<Vec<_>>()
        };
        assert_eq!(told(&known, None), ["[10.79.0.1]", "600 s"]);
        assert_eq!(told(&settings("10.79.0.1", "300"), Some(&known)), ["300 s"]);
        assert_eq!(told(&settings("10.79.0.53", "300"), Some(&known)), ["[10.79.0.53]", "300 s"]);
        assert_eq!(told(&settings("10.79.0.1", "none"), Some(&known)), Vec::<String>::new());
    }
}
