//! The control side of a connection: asks for the tunnel, follows its capsules, and tells when it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::Carried as _;
use adit_net::carrier::esp::EspError;
use adit_net::http::StreamError;
use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_proto::capsule::dns::DnsAssign;
use adit_proto::connect_ip::client::{Client, ClientConfig, ClientEvent, ResponseError};
use adit_proto::connect_ip::template::FULL_TUNNEL_PATH;
use adit_proto::esp::field::Offer;
use adit_proto::http::field::{Field, value};
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::role::Role;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::data::DataPath;
use super::dial::explain;
use super::esp::Esp;
use super::liveness::{Finding, Liveness};
use super::{ConnectError, ConnectionEvent, Credentials, GatewayAccess, NetworkSettings};

/// How often the carrier's packet size, and whether the gateway lives, is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Header by which our gateway says in words why it refused.
const REASON_FIELD: &str = "adit-reason";

/// An accepted CONNECT-IP request.
pub(super) struct Tunnel {
    http: H3Connection,
    stream: TunnelStream,
    machine: Client,
    settings: NetworkSettings,
}

impl Tunnel {
    pub(super) fn stream_id(&self) -> u64 {
        self.stream.id()
    }
}

/// Asks for a tunnel, offering the ESP carrier or not, and waits for the gateway's yes (RFC 9484 section 4.2).
pub(super) async fn request(
    quic: &quinn::Connection,
    target: &GatewayAccess,
    esp: Option<Offer>,
) -> Result<Tunnel, ConnectError> {
    let remote = quic.remote_address();
    let http = H3Connection::start(quic.clone(), Role::Client);
    let settings = http.peer_settings().await.map_err(|error| explain(&error, remote))?;
    if !settings.connect_protocol || !settings.datagrams {
        return Err(ConnectError::Protocol(
            "the server does not offer CONNECT-IP (no extended CONNECT or datagrams)".into(),
        ));
    }
    let machine = Client::new(ClientConfig {
        authority: target.authority(),
        path: FULL_TUNNEL_PATH.to_owned(),
        bearer: match &target.credentials {
            Credentials::Token(token) => Some(token.clone()),
            Credentials::Certificate { .. } => None,
        },
        wants_dns: true,
        esp,
    });
    let mut stream = TunnelStream::from(http.open_request().await.map_err(|error| explain(&error, remote))?);
    stream.expect_tunnel();
    stream.send_headers(&machine.request()).await.map_err(|error| stream_error(error, remote))?;
    let mut tunnel = Tunnel { http, stream, machine, settings: NetworkSettings::default() };
    tunnel.await_acceptance(remote).await?;
    Ok(tunnel)
}

impl Tunnel {
    async fn await_acceptance(&mut self, remote: SocketAddr) -> Result<(), ConnectError> {
        match self.stream.next_event().await.map_err(|error| stream_error(error, remote))? {
            Some(MessageEvent::Headers(fields)) => {
                self.machine.handle_response(&fields, Instant::now()).map_err(|error| refusal(error, &fields))
            }
            Some(_) | None => Err(ConnectError::Protocol("the gateway closed the request unanswered".to_owned())),
        }
    }

    /// Feeds one piece of the stream into the machine; `true` while the tunnel lives.
    fn handle(&mut self, event: Option<MessageEvent>) -> Result<bool, StreamError> {
        let handled = match event {
            Some(MessageEvent::Data(data)) => self.machine.handle_data(&data).map(|()| true),
            Some(MessageEvent::Headers(_)) => Ok(true),
            Some(MessageEvent::End) | None => self.machine.handle_end().map(|()| false),
        };
        handled.map_err(|fault| self.stream.fail(fault))
    }

    /// Has the gateway say on QUIC whether it knows this connection, by a DATA frame without content: it is acknowledged, or answered
    /// by a stateless reset if the gateway restarted (RFC 9000 section 10.3).
    async fn ask(&mut self) -> Result<(), StreamError> {
        self.stream.send_data(&[]).await
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        while let Some(capsules) = self.machine.poll_transmit() {
            self.stream.send_data(&capsules).await?;
        }
        Ok(())
    }

    /// Drains the machine; `Some` with the newest settings if they changed and hold an address.
    fn drain(&mut self, data: &DataPath, esp: &mut Esp) -> Result<Option<NetworkSettings>, EspError> {
        let before = self.settings.clone();
        while let Some(event) = self.machine.poll_event() {
            match event {
                ClientEvent::Addresses(addresses) => {
                    data.set_addresses(&addresses);
                    self.settings.addresses = addresses;
                }
                ClientEvent::Routes(routes) => self.settings.routes = routes,
                ClientEvent::Dns(dns) => set_dns(&mut self.settings, &dns),
                ClientEvent::Packet(packet) => data.deliver_capsule(packet),
                ClientEvent::Esp(capsule) => esp.handle_capsule(capsule)?,
            }
        }
        let changed = self.settings != before && !self.settings.addresses.is_empty();
        Ok(changed.then(|| self.settings.clone()))
    }
}

/// Runs the tunnel's control side until it ends; the last event is always `Closed`.
pub(super) async fn run(
    mut tunnel: Tunnel,
    quic: quinn::Connection,
    data: Arc<DataPath>,
    events: mpsc::Sender<ConnectionEvent>,
) {
    let ended = follow(&mut tunnel, &quic, &data, &events).await;
    data.end();
    let error = match ended {
        Ok(Ended::ByGateway) => match quic.close_reason() {
            Some(reason) => explain(&reason, quic.remote_address()),
            None => ConnectError::Closed("the gateway ended the session".to_owned()),
        },
        Ok(Ended::Silent) => ConnectError::Unreachable(quic.remote_address().to_string()),
        Err(Broken::Stream(error)) => stream_error(error, quic.remote_address()),
        Err(Broken::Esp(error)) => ConnectError::Protocol(error.to_string()),
    };
    tracing::debug!(%error, "tunnel ended");
    let _reader_gone = events.send(ConnectionEvent::Closed(error)).await;
    drop(tunnel.http);
}

/// How a tunnel ended that broke no rule.
enum Ended {
    /// The gateway ended the request or the connection.
    ByGateway,
    /// Nothing comes from the gateway any more.
    Silent,
}

/// Why a tunnel cannot go on.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Esp(#[from] EspError),
}

async fn follow(
    tunnel: &mut Tunnel,
    quic: &quinn::Connection,
    data: &DataPath,
    events: &mpsc::Sender<ConnectionEvent>,
) -> Result<Ended, Broken> {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut announced_mtu = None;
    let mut liveness = Liveness::default();
    let mut esp = Esp::start(&tunnel.machine, &tunnel.stream, quic.remote_address(), data);
    loop {
        esp.send_capsules(&mut tunnel.machine);
        tunnel.flush().await?;
        if esp.take_doubt() {
            tunnel.ask().await?;
        }
        if !tunnel.settings.addresses.is_empty() {
            announce_mtu(data, &mut announced_mtu, events).await;
        }
        let timeout = tunnel.machine.poll_timeout();
        tokio::select! {
            event = tunnel.stream.next_event() => {
                if !tunnel.handle(event?)? {
                    return Ok(Ended::ByGateway);
                }
            }
            () = sleep_until(timeout.unwrap_or_else(Instant::now).into()), if timeout.is_some() => {
                tunnel.machine.handle_timeout(Instant::now());
            }
            passed = esp.next() => passed?,
            _ = looks.tick() => {
                let by_esp = data.session().carriers().esp().is_some();
                match liveness.look(data.datagrams_received(), by_esp) {
                    Finding::Alive => {}
                    Finding::Ask => tunnel.ask().await?,
                    Finding::Gone => return Ok(Ended::Silent),
                }
                if esp.look() {
                    // So that the gateway hears of the new address by QUIC as well.
                    tunnel.ask().await?;
                }
            }
        }
        if let Some(settings) = tunnel.drain(data, &mut esp)? {
            let _reader_gone = events.send(ConnectionEvent::Network(settings)).await;
        }
    }
}

/// Tells how large packets may be, if that changed: with the carrier, or with what it found out about its path.
async fn announce_mtu(data: &DataPath, announced: &mut Option<u16>, events: &mpsc::Sender<ConnectionEvent>) {
    let mtu = data.mtu();
    if announced.replace(mtu) != Some(mtu) {
        let _reader_gone = events.send(ConnectionEvent::Mtu(mtu)).await;
    }
}

fn set_dns(settings: &mut NetworkSettings, dns: &DnsAssign) {
    settings.dns_servers = dns.plain_servers();
    settings.dns_domains = dns.domains();
}

fn refusal(error: ResponseError, fields: &[Field]) -> ConnectError {
    let reason = value(fields, REASON_FIELD);
    match error {
        ResponseError::Refused { status: 401 | 403 } => {
            ConnectError::Refused(reason.unwrap_or("it does not know this certificate or token").to_owned())
        }
        ResponseError::Refused { status } => ConnectError::Closed(format!(
            "HTTP status {status}{}",
            reason.map(|r| format!(", {r}")).unwrap_or_default()
        )),
        ResponseError::Malformed(fault) => ConnectError::Protocol(fault.reason().to_owned()),
    }
}

/// Puts the end of a request stream into the client's words.
pub(super) fn stream_error(error: StreamError, remote: SocketAddr) -> ConnectError {
    match error {
        StreamError::Connection(error) => explain(&error, remote),
        StreamError::Reset(_) | StreamError::Closed => ConnectError::Closed(error.to_string()),
        StreamError::Protocol(_) | StreamError::TooLong(_) => ConnectError::Protocol(error.to_string()),
    }
}
