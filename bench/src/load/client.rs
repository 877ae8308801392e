//! The life of one client: it connects, logs in, opens a tunnel, keeps ESP going and moves when it is told to, until it
//! is dropped; or it only looks in.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::Carried as _;
use adit_net::carrier::esp::{EspControl, EspSetup};
use adit_net::carrier::following::{Following, Step};
use adit_net::carrier::quic::Datagrams;
use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_net::quic;
use adit_proto::connect_ip::client::{Client, ClientConfig, ClientEvent};
use adit_proto::connect_ip::template::FULL_TUNNEL_PATH;
use adit_proto::esp::field::Offer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::http::field::value;
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::role::Role;
use anyhow::{Context as _, Error, Result, bail};
use bytes::Bytes;
use tokio::time::{sleep, sleep_until, timeout};

use super::anyconnect::Channel;
use super::load_path::{LoadPath, Receive as _};
use super::plan::{Pass, Shared};
use super::roam::seek_pause;
use super::session::Session;

/// Longest time from the first datagram to the gateway's yes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Packets taken from a connection at a time.
const BATCH: usize = 16;

/// Pause after which a client that only looks in repeats an unanswered echo request.
const REPEAT: Duration = Duration::from_millis(500);

/// Longest wait before a client that lost its tunnel connects again; that of the real client.
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// Largest packet that goes by ESP, in bytes; that of the real client.
const LARGEST_PACKET: u16 = 1420;

/// A tunnel of either kind.
enum Tunnel {
    Native(Box<NativeTunnel>),
    AnyConnect(Box<Channel>),
}

/// An accepted request for a tunnel.
struct NativeTunnel {
    following: Following<Client, Session>,
    session: Arc<Session>,
    datagrams: Arc<Datagrams>,
    packets: Vec<Bytes>,
    /// When the client last looked whether it is back from a move.
    sought: Instant,
    /// The socket of a client that moves; the others share theirs.
    own: Option<quinn::Endpoint>,
    // Dropped last: it closes the connection.
    http: H3Connection,
}

/// Lives the life of a client; it moves if it `roams`, and comes back where that is expected. Ends only where something
/// went wrong.
///
/// # Errors
/// Why the client could not connect, or lost its tunnel.
pub(super) async fn live(shared: &Shared, number: u32, pass: &Pass, roams: bool) -> Result<()> {
    let began = Instant::now();
    let mut tunnel = connect(shared, number, pass, roams).await?;
    loop {
        let ended = follow_to_the_end(&mut tunnel, shared, began).await;
        tunnel.session().carriers().close();
        if !shared.returns.are_expected() {
            return Err(ended);
        }
        let before = tunnel.session().address();
        drop(tunnel);
        tunnel = come_back(shared, (number, pass, roams), before).await?;
    }
}

/// Follows a tunnel until it ends; returns why it did.
async fn follow_to_the_end(tunnel: &mut Tunnel, shared: &Shared, began: Instant) -> Error {
    loop {
        match tunnel.follow(shared).await {
            Ok(true) => shared.note_connected(began.elapsed(), tunnel.session()),
            Ok(false) => {}
            Err(error) => return error,
        }
    }
}

/// Connects again after the gateway restarted, as the real client does, and gets one echo answered. `before` is the
/// inner address of before.
async fn come_back(
    shared: &Shared,
    (number, pass, roams): (u32, &Pass, bool),
    before: Option<Ipv4Addr>,
) -> Result<Tunnel> {
    sleep(FIRST_RETRY / 2 + FIRST_RETRY / 200 * (number % 100)).await;
    let mut tunnel = tokio::select! {
        tunnel = connect(shared, number, pass, roams) => tunnel?,
        () = quic::came_up(shared.plan.gateway, None) => connect(shared, number, pass, roams).await?,
    };
    let session = Arc::clone(tunnel.session());
    let answered = async {
        while session.answered() == 0 {
            if tunnel.follow(shared).await? {
                session.ping(shared.plan.inner);
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        outcome = answered => outcome?,
        never = repeat(&session, shared.plan.inner) => match never {},
    }
    shared.returns.note(session.address() == before);
    shared.replace(&session);
    Ok(tunnel)
}

/// Connects, logs in, gets one echo answered and leaves; returns how long it took to connect.
///
/// # Errors
/// Why one of that failed.
pub(super) async fn visit(shared: &Shared, number: u32, pass: &Pass) -> Result<Duration> {
    let began = Instant::now();
    let visit = async {
        let mut tunnel = connect(shared, number, pass, false).await?;
        let session = Arc::clone(tunnel.session());
        let mut connected = None;
        let answered = async {
            while tunnel.session().answered() == 0 {
                if tunnel.follow(shared).await? {
                    connected = Some(began.elapsed());
                    tunnel.session().ping(shared.plan.inner);
                }
            }
            anyhow::Ok(())
        };
        tokio::select! {
            outcome = answered => outcome?,
            never = repeat(&session, shared.plan.inner) => match never {},
        }
        tunnel.session().carriers().close();
        connected.context("the gateway assigned no address")
    };
    timeout(PATIENCE, visit).await.with_context(|| format!("no echo in {PATIENCE:?}"))?
}

/// Repeats a client's echo request for as long as it is polled; requests without an address are none.
async fn repeat(session: &Session, gateway: Ipv4Addr) -> Infallible {
    loop {
        sleep(REPEAT).await;
        session.ping(gateway);
    }
}

async fn connect(shared: &Shared, number: u32, pass: &Pass, roams: bool) -> Result<Tunnel> {
    let opening = async {
        anyhow::Ok(match &shared.plan.anyconnect {
            Some(tls) => Tunnel::AnyConnect(Box::new(Channel::open(shared, number, pass, tls).await?)),
            None => Tunnel::Native(Box::new(open(shared, number, pass, roams).await?)),
        })
    };
    timeout(PATIENCE, opening).await.with_context(|| format!("no answer in {PATIENCE:?}"))?
}

async fn open(shared: &Shared, number: u32, pass: &Pass, roams: bool) -> Result<NativeTunnel> {
    let plan = &shared.plan;
    let path = Arc::new(LoadPath::new(Arc::clone(&shared.sockets), number));
    let own = roams.then(|| quic::client_endpoint(outer_socket(&path)?)).transpose()?;
    let endpoint = own.as_ref().unwrap_or_else(|| shared.endpoint(number));
    let connecting = endpoint.connect_with(plan.quic(pass)?, plan.gateway, &plan.host)?;
    let http = H3Connection::start(connecting.await?, Role::Client);
    http.peer_settings().await?;
    let bearer = match pass {
        Pass::Token(token) => Some(token.clone()),
        Pass::Certificate { .. } => None,
    };
    let mut machine = Client::new(ClientConfig {
        authority: plan.host.clone(),
        path: FULL_TUNNEL_PATH.to_owned(),
        bearer,
        wants_dns: true,
        login: None,
        esp: plan.esp.then(Offer::default),
    });
    let mut stream = TunnelStream::from(http.open_request().await?);
    stream.expect_tunnel();
    stream.send_headers(&machine.request()).await?;
    let Some(MessageEvent::Headers(response)) = stream.next_event().await? else {
        bail!("the gateway closed the request unanswered");
    };
    let reason = || value(&response, "adit-reason").unwrap_or("without a reason").to_owned();
    machine.handle_response(&response, Instant::now()).with_context(reason)?;
    let datagrams = Arc::new(Datagrams::new(http.quic().clone(), stream.id()));
    let connection = Arc::<Datagrams>::clone(&datagrams);
    let session = Session::new(number, connection, Arc::clone(&path), Arc::clone(&shared.echoes));
    let session = Arc::new(session);
    let esp = match (machine.esp(), stream.exporter_secret()) {
        (Some(negotiated), Some(mut secret)) => {
            let setup = EspSetup {
                negotiated,
                secret: &mut secret,
                plane: path,
                session: Arc::clone(&session),
                policy: RekeyPolicy::default(),
                largest_packet: LARGEST_PACKET,
            };
            Some(EspControl::client(setup, plan.gateway, Instant::now()))
        }
        _ => None,
    };
    let following = Following::new(stream, machine, esp);
    Ok(NativeTunnel { following, session, datagrams, packets: Vec::new(), sought: Instant::now(), own, http })
}

/// A socket at the client's present address, on a port of the kernel's choice.
fn outer_socket(path: &LoadPath<Session>) -> std::io::Result<std::net::UdpSocket> {
    quic::bind(SocketAddr::from((path.source(), 0)), None)
}

impl Tunnel {
    fn session(&self) -> &Arc<Session> {
        match self {
            Self::Native(tunnel) => &tunnel.session,
            Self::AnyConnect(channel) => channel.session(),
        }
    }

    /// Follows the tunnel by one step; says whether the session got its address with it.
    ///
    /// # Errors
    /// Why the tunnel ended.
    async fn follow(&mut self, shared: &Shared) -> Result<bool> {
        match self {
            Self::Native(tunnel) => tunnel.follow(shared).await,
            Self::AnyConnect(channel) => channel.follow().await,
        }
    }
}

impl NativeTunnel {
    /// Follows the tunnel by one step; says whether the session got its address with it.
    ///
    /// # Errors
    /// Why the tunnel ended.
    async fn follow(&mut self, shared: &Shared) -> Result<bool> {
        let seek = self.session.away().map(|away| self.sought + seek_pause(away));
        let mut connected = false;
        tokio::select! {
            step = self.following.step() => match step? {
                Step::Event(event) => connected = self.handle(event),
                Step::Drained => {}
                Step::Ended => bail!("the gateway ended the session"),
            },
            received = self.datagrams.receive(&mut self.packets, BATCH) => {
                received?;
                self.packets.drain(..).for_each(|packet| self.session.receive(&packet));
            }
            () = self.session.ordered() => self.depart(shared)?,
            () = sleep_until(seek.unwrap_or(self.sought).into()), if seek.is_some() => self.seek(shared),
        }
        if self.following.take_unanswered() {
            self.following.ask();
        }
        match self.http.quic().close_reason() {
            Some(reason) => Err(reason.into()),
            None => Ok(connected),
        }
    }

    /// Moves: the connection and ESP go on at another address and port.
    fn depart(&mut self, shared: &Shared) -> Result<()> {
        self.session.depart();
        if let Some(endpoint) = &self.own {
            endpoint.rebind(outer_socket(self.session.path())?)?;
        }
        self.following.handle_rebind(Instant::now());
        self.seek(shared);
        Ok(())
    }

    fn seek(&mut self, shared: &Shared) {
        self.sought = Instant::now();
        self.session.seek(shared.plan.inner);
    }

    /// Handles what came on the request stream; says whether the session got its address with it.
    fn handle(&self, event: ClientEvent) -> bool {
        match event {
            ClientEvent::Addresses(addresses) => {
                let v4 = addresses.iter().find_map(|address| match address.addr() {
                    IpAddr::V4(v4) => Some(v4),
                    IpAddr::V6(_) => None,
                });
                return v4.is_some_and(|v4| self.session.assign(v4));
            }
            ClientEvent::Packet(packet) => self.session.receive(&packet),
            ClientEvent::Routes(_) | ClientEvent::Dns(_) | ClientEvent::Esp(_) => {}
        }
        false
    }
}
