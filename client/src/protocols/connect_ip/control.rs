//! The control side of a connection: asks for the tunnel, follows its capsules, and tells when it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_net::carrier::Carried as _;
use adit_net::carrier::following::{FollowError, Following, Step};
use adit_net::http::StreamError;
use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_program::foreign_text::printable;
use adit_proto::capsule::dns::DnsAssign;
use adit_proto::connect_ip::client::{Client, ClientConfig, ClientEvent, ResponseError};
use adit_proto::connect_ip::template::FULL_TUNNEL_PATH;
use adit_proto::esp::field::Offer;
use adit_proto::http::field::{Field, value};
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::login::message::{LOGIN_FIELD, LOGIN_NEEDED};
use adit_proto::role::Role;
use adit_proto::waking::WakeEvent;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::esp;
use super::explain::explain;
use super::liveness::{Finding, Liveness, Sending};
use super::roaming::Roaming;
use super::silence::{Doubt, SilenceWatch};
use super::waking::Sleeps;
use super::{ConnectError, ConnectionEvent, Credentials, GatewayAccess, NetworkSettings, WhenNarrow};
use crate::packet_source::TunnelSession;
use crate::protocols::data::DataPath;

/// Header by which our gateway says in words why it refused.
pub(super) const REASON_FIELD: &str = "adit-reason";

/// An accepted CONNECT-IP request.
pub(super) struct Tunnel {
    http: H3Connection,
    stream: TunnelStream,
    machine: Client,
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
    let machine = machine(target, esp);
    let mut stream = TunnelStream::from(http.open_request().await.map_err(|error| explain(&error, remote))?);
    stream.expect_tunnel();
    stream.send_headers(&machine.request()).await.map_err(|error| stream_error(error, remote))?;
    let mut tunnel = Tunnel { http, stream, machine };
    tunnel.await_acceptance(remote).await?;
    Ok(tunnel)
}

/// This end of a tunnel that is about to be asked for, with an offer of ESP or without.
pub(super) fn machine(target: &GatewayAccess, esp: Option<Offer>) -> Client {
    Client::new(ClientConfig {
        authority: target.authority(),
        path: FULL_TUNNEL_PATH.to_owned(),
        bearer: match &target.credentials {
            Credentials::Token(token) => Some(token.clone()),
            Credentials::Certificate { .. } | Credentials::Login => None,
        },
        wants_dns: true,
        login: target.login.as_ref().map(|token| token.to_string()),
        esp,
    })
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
}

/// Runs the tunnel's control side until it ends; the last event is always `Closed`.
pub(super) async fn run(
    tunnel: Tunnel,
    quic: quinn::Connection,
    data: Arc<DataPath>,
    (host, when_narrow): ((Roaming, Sleeps, SilenceWatch), WhenNarrow),
    events: mpsc::Sender<ConnectionEvent>,
) {
    let Tunnel { http, stream, machine } = tunnel;
    let esp = esp::start(&machine, &stream, quic.remote_address(), &data);
    let mut following = Following::new(stream, machine, esp);
    let ended = follow(&mut following, (host, when_narrow), &quic, &data, &events).await;
    following.end_esp();
    data.end();
    let error = match ended {
        Ok(Ended::ByGateway) => match quic.close_reason() {
            Some(reason) => explain(&reason, quic.remote_address()),
            None => ConnectError::Closed("the gateway ended the session".to_owned()),
        },
        Ok(Ended::Silent) => ConnectError::Unreachable(quic.remote_address().to_string()),
        Ok(Ended::Narrow) => ConnectError::Closed(Doubt::Narrow.reason().to_owned()),
        Err(FollowError::Stream(error)) => stream_error(error, quic.remote_address()),
        Err(error @ (FollowError::Esp(_) | FollowError::Unread)) => ConnectError::Protocol(error.to_string()),
    };
    tracing::debug!(%error, "tunnel ended");
    let _reader_gone = events.send(ConnectionEvent::Closed(error)).await;
    // Before the stream, which would end by itself: the gateway is to hear that the connection does.
    drop(http);
}

/// How a tunnel ended that broke no rule.
enum Ended {
    /// The gateway ended the request or the connection.
    ByGateway,
    /// Nothing comes from the gateway any more.
    Silent,
    /// The path takes no datagrams that carry the least packets.
    Narrow,
}

/// Forgets what was learnt about the path, and lets the gateway hear of this host by both ways that there are.
fn look_around(following: &mut Following<Client, TunnelSession>) {
    following.handle_rebind(Instant::now());
    following.ask();
}

/// Follows the tunnel, and looks now and then whether the gateway lives, until one of that ends it, or a sleep of this
/// host. The host may move meanwhile: that is looked at, too, and whenever the system says that the network changed. So
/// is the carrier's packet size.
async fn follow(
    following: &mut Following<Client, TunnelSession>,
    ((mut roaming, mut sleeps, mut silence), when_narrow): ((Roaming, Sleeps, SilenceWatch), WhenNarrow),
    quic: &quinn::Connection,
    data: &DataPath,
    events: &mpsc::Sender<ConnectionEvent>,
) -> Result<Ended, FollowError> {
    let mut liveness = Liveness::new(now());
    let mut news = News::default();
    let mut is_amid_piece = false;
    loop {
        let carriers = data.session().carriers();
        let sending = || Sending { packets: carriers.counters().packets().1, by_esp: carriers.route().is_some() };
        let look_at = liveness.poll_timeout(sending());
        tokio::select! {
            // All that came in one piece is told as one change of the network, so nothing may come in between. Between
            // two pieces the look comes first: a gateway that always has something to say must not put it off.
            biased;
            () = sleep_until(look_at.into()), if !is_amid_piece => {
                match liveness.handle_look(quic.stats().udp_rx.datagrams, sending(), now()) {
                    Finding::Alive => {}
                    Finding::Ask => following.ask(),
                    Finding::Gone => return Ok(Ended::Silent),
                }
                if roaming.has_moved() {
                    look_around(following);
                }
            }
            () = roaming.network_changed(), if !is_amid_piece => if roaming.has_moved() {
                look_around(following);
            },
            event = sleeps.next_event(quic), if !is_amid_piece => match event {
                WakeEvent::Probe => look_around(following),
                WakeEvent::Ask => following.ask(),
                WakeEvent::GiveUp => return Ok(Ended::Silent),
            },
            asks = silence.look(carriers.route().is_some()), if !is_amid_piece => if asks {
                following.ask();
            },
            step = following.step() => match step? {
                Step::Event(event) => {
                    news.take(event, data);
                    is_amid_piece = true;
                    continue;
                }
                Step::Drained => is_amid_piece = false,
                Step::Ended => return Ok(Ended::ByGateway),
            },
        }
        if following.take_unanswered() {
            following.ask();
            silence.note_asked();
        }
        let is_narrow = following.is_too_narrow();
        if is_narrow && when_narrow == WhenNarrow::End {
            return Ok(Ended::Narrow);
        }
        silence.note_narrow(is_narrow);
        news.tell(data, events).await;
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What the gateway said of the network, and what of it, of the packet size and of the carrier was told.
#[derive(Default)]
pub(super) struct News {
    settings: NetworkSettings,
    /// The settings when this was last asked for news.
    drained_settings: NetworkSettings,
    told_mtu: Option<u16>,
    told_carrier: Option<&'static str>,
}

impl News {
    /// Takes what the gateway said; packets go to the packet side at once.
    pub(super) fn take(&mut self, event: ClientEvent, data: &DataPath) {
        match event {
            ClientEvent::Addresses(addresses) => self.settings.addresses = addresses,
            ClientEvent::Routes(routes) => {
                self.settings.has_no_routes = routes.is_empty();
                self.settings.routes = routes;
            }
            ClientEvent::Dns(dns) => set_dns(&mut self.settings, &dns),
            ClientEvent::Packet(packet) => data.deliver_capsule(packet),
            // There is no ESP carrier that it could be for.
            ClientEvent::Esp(_) => {}
        }
    }

    /// Tells the network if it changed, and then how large packets may be if that changed: with the carrier, or with
    /// what it found out about its path. Nothing while there is no address.
    pub(super) async fn tell(&mut self, data: &DataPath, events: &mpsc::Sender<ConnectionEvent>) {
        let has_changed = self.settings != self.drained_settings;
        if has_changed {
            self.drained_settings = self.settings.clone();
        }
        if self.settings.addresses.is_empty() {
            return;
        }
        if has_changed {
            let _reader_gone = events.send(ConnectionEvent::Network(self.settings.clone())).await;
        }
        let mtu = data.mtu();
        if self.told_mtu.replace(mtu) != Some(mtu) {
            let _reader_gone = events.send(ConnectionEvent::Mtu(mtu)).await;
        }
        let carrier = data.carrier();
        if self.told_carrier.replace(carrier).is_some_and(|told| told != carrier) {
            let _reader_gone = events.send(ConnectionEvent::Carrier).await;
        }
    }
}

fn set_dns(settings: &mut NetworkSettings, dns: &DnsAssign) {
    settings.dns_servers = dns.plain_servers();
    settings.dns_domains = dns.domains();
}

pub(super) fn refusal(error: ResponseError, fields: &[Field]) -> ConnectError {
    let reason = value(fields, REASON_FIELD).map(printable);
    match error {
        ResponseError::Refused { status: 401 } if value(fields, LOGIN_FIELD) == Some(LOGIN_NEEDED) => {
            ConnectError::LoginNeeded(reason.unwrap_or_else(|| "the last one is over".to_owned()))
        }
        ResponseError::Refused { status: 401 | 403 } => {
            ConnectError::Refused(reason.unwrap_or_else(|| "it does not know this certificate or token".to_owned()))
        }
        ResponseError::Refused { status } => ConnectError::Closed(format!(
            "HTTP status {status}{}",
            reason.map(|reason| format!(", {reason}")).unwrap_or_default()
        )),
        ResponseError::Malformed(fault) => ConnectError::Protocol(fault.reason().to_owned()),
    }
}

/// Puts the end of a request stream into the client's words.
pub(super) fn stream_error(error: StreamError, remote: SocketAddr) -> ConnectError {
    match error {
        StreamError::Connection(error) => explain(&error, remote),
        StreamError::Reset(_) | StreamError::Closed => ConnectError::Closed(error.to_string()),
        StreamError::Protocol(_) | StreamError::Fault(_) | StreamError::TooLong(_) => {
            ConnectError::Protocol(error.to_string())
        }
    }
}
