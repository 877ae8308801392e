//! A connection to a gateway of the AnyConnect family, of whatever make: TLS over TCP, a CONNECT with the token of a
//! login, and then packets in frames on the same stream, or in records of DTLS beside it. [`login`] is how a user
//! comes by the token.

pub mod login;
mod records;

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::cstp::{ChannelEnd, Cstp, FollowedChannel};
use adit_net::carrier::stream::StreamCarrier;
use adit_net::http::h1::ask_verbatim;
use adit_net::tls::{self, KnownBy};
use adit_program::foreign_text::{printable, printable_bytes};
use adit_proto::anyconnect::channel::Channel;
use adit_proto::anyconnect::frame::farewell;
use adit_proto::anyconnect::tunnel::Wish;
use adit_proto::anyconnect::tunnel::settings::TunnelSettings;
use adit_proto::http::field::{Field, value};
use bytes::Bytes;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::connect_ip::{self, Endpoint, Roaming};
use super::data::DataPath;
use super::stream::{Moving, StreamConnection, largest_packet, shake};
use super::{ConnectError, ConnectionEvent, GatewayAccess, NetworkSettings};
use crate::clock;
use crate::join::device_name;
use crate::packet_source::Packets;
use crate::public_roots;
use records::{Records, Terms};

/// What this client calls itself. Gateways look for the name and version of a stock client, and tell others less.
const AGENT: &str = concat!("Open AnyConnect VPN Agent v9.01 (Adit ", env!("CARGO_PKG_VERSION"), ")");
/// The version of the login's documents.
const VERSION: &str = "v9.01";
/// How long a gateway may be silent before it is asked whether it is there, if it does not say so itself.
const DPD: Duration = Duration::from_secs(30);
/// How long a gateway may leave unread what is no packet.
const UNREAD: Duration = Duration::from_secs(15);
/// How often it is looked whether this host has moved.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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
        let Some(token) = &target.login else {
            return Err(ConnectError::LoginNeeded("nobody has logged in yet".to_owned()));
        };
        let (stream, remote) = shake(&endpoint(target)?, timeout).await?;
        let largest = largest_packet(&packets);
        let (authority, host_name) = (target.authority(), device_name());
        let takes_dtls = packets.workers().is_some_and(|workers| workers.has_sockets());
        let wish = Wish { authority: &authority, agent: AGENT, host_name: &host_name, token, mtu: largest, takes_dtls };
        let heard = ask_verbatim(stream, &wish.head()).await;
        let heard = heard.map_err(|error| connect_ip::explain_tcp(&error, remote))?;
        if heard.status != 200 {
            return Err(refusal(heard.status, &heard.fields));
        }
        let settings = TunnelSettings::of(&heard.fields).map_err(|fault| ConnectError::Protocol(fault.to_string()))?;
        let terms = settings.dtls.filter(|_| takes_dtls).and_then(|dtls| Terms::new(dtls, &heard.connection.1));
        let carrier = StreamCarrier::new(remote, settings.mtu.min(largest));
        let (moving, frames) = Moving::start(carrier, Cstp, (heard.connection, heard.early), packets)?;
        let beside = BesideChannel {
            records: terms.and_then(|terms| Records::new(terms, remote, &moving.data)),
            // Without a mark the way that is looked at may be the one through the tunnel.
            roaming: target.mark.map(|mark| Roaming::new(remote, Some(mark))),
            told_mtu: moving.data.mtu(),
        };
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
    let tls = tls::foreign_client_config(known_by)
        .map_err(|error| connect_ip::unusable("what the gateway is known by", &error))?;
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

/// Why a CONNECT gives no tunnel, by the answer to it.
fn refusal(status: u16, fields: &[Field]) -> ConnectError {
    let reason = value(fields, "x-reason").map(printable);
    match status {
        401 => ConnectError::LoginNeeded(reason.unwrap_or_else(|| "the last one is over".to_owned())),
        403 => ConnectError::Refused(reason.unwrap_or_else(|| "it does not say why".to_owned())),
        status => {
            let reason = reason.map(|reason| format!(", {reason}")).unwrap_or_default();
            ConnectError::Closed(format!("HTTP status {status}{reason}"))
        }
    }
}

/// Tells the settings, and follows the connection until it is over; the last event is always `Closed`.
async fn control(
    settings: TunnelSettings,
    beside: BesideChannel,
    moving: Moving<Cstp>,
    frames: mpsc::Receiver<Bytes>,
    events: mpsc::Sender<ConnectionEvent>,
) {
    let mut channel = Channel::new(settings.dpd.unwrap_or(DPD), Instant::now());
    if let Some(every) = settings.keepalive {
        channel.keep_alive(every, Instant::now());
    }
    let lasts = settings.lasts.map(ConnectionEvent::LoginLasts);
    let told = [ConnectionEvent::Network(network(settings)), ConnectionEvent::Mtu(beside.told_mtu)];
    for event in told.into_iter().chain(lasts) {
        let _reader_gone = events.send(event).await;
    }
    let remote = moving.carrier.remote();
    let channel = FollowedChannel::new(Arc::clone(&moving.carrier), channel, frames, UNREAD);
    let end = beside.follow(channel, &moving.data, &events).await;
    let error = match (end, moving.end().await) {
        (Ended::Moved, _) => ConnectError::Closed("this host's network has changed".to_owned()),
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
    };
    tracing::debug!(%error, "tunnel ended");
    let _reader_gone = events.send(ConnectionEvent::Closed(error)).await;
}

/// Why a connection is over.
enum Ended {
    /// The channel is.
    Channel(ChannelEnd),
    /// This host has another address now, from which nothing comes to the gateway on this connection.
    Moved,
}

/// What is followed beside the channel.
struct BesideChannel {
    records: Option<Records>,
    roaming: Option<Roaming>,
    /// The largest packet as it was told last, in bytes.
    told_mtu: u16,
}

impl BesideChannel {
    /// Follows the connection until it is over. What happens beside the channel must not put off what that waits for.
    async fn follow(
        mut self,
        mut channel: FollowedChannel,
        data: &DataPath,
        events: &mpsc::Sender<ConnectionEvent>,
    ) -> Ended {
        let mut over = pin!(channel.over());
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                end = &mut over => return Ended::Channel(end),
                () = turn(&mut self.records) => {}
                _ = looks.tick() => if self.roaming.as_mut().is_some_and(Roaming::has_moved) {
                    return Ended::Moved;
                },
            }
            let mtu = data.mtu();
            if std::mem::replace(&mut self.told_mtu, mtu) != mtu {
                let _reader_gone = events.send(ConnectionEvent::Mtu(mtu)).await;
            }
        }
    }
}

/// Does what is next in records, if there may be any.
async fn turn(records: &mut Option<Records>) {
    match records {
        Some(records) => records.turn().await,
        None => pending().await,
    }
}

fn network(settings: TunnelSettings) -> NetworkSettings {
    NetworkSettings {
        addresses: settings.addresses(),
        has_no_routes: settings.routes.is_empty(),
        routes: settings.routes,
        dns_servers: settings.resolvers,
        dns_domains: settings.domains,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_and_name_the_gateways_reason() {
        let reason = [Field::new("x-reason", "this device was \u{1b}revoked")];
        let said = |status, fields: &[Field]| refusal(status, fields).to_string();
        assert_eq!(said(401, &reason), "the gateway wants a login: this device was \\u{1b}revoked");
        assert!(matches!(refusal(401, &[]), ConnectError::LoginNeeded(reason) if reason.contains("over")));
        assert!(matches!(refusal(403, &[]), ConnectError::Refused(_)));
        assert_eq!(said(503, &[]), "the connection was closed: HTTP status 503");
    }
}
