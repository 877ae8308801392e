//! A client of the AnyConnect family: it comes with the cookie of a login, and its packets travel in frames on TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::cstp::{Cstp, FollowedChannel};
use adit_net::carrier::stream::{Pump, StreamCarrier};
use adit_net::http::h1::{Heard, ask_verbatim, connect};
use adit_net::tls::{self, KnownBy};
use adit_program::task::{self, Task};
use adit_proto::anyconnect::channel;
use adit_proto::anyconnect::tunnel::Wish;
use adit_proto::anyconnect::tunnel::settings::TunnelSettings;
use adit_proto::http::field::value;
use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpSocket;
use tokio::sync::{Notify, mpsc};

use super::load_path::{LoadPath, Receive as _};
use super::plan::{Pass, Plan, Shared};
use super::session::Session;

/// What the clients call themselves: as openconnect does.
const AGENT: &str = "Open AnyConnect VPN Agent v9.01";
/// Largest packet, in bytes; that of the real client.
const LARGEST_PACKET: u16 = 1420;
/// How long a gateway may be silent that says nothing of it, before it is asked whether it is there.
const DPD: Duration = Duration::from_secs(30);
/// How long it may leave unread what is said to it.
const UNREAD: Duration = Duration::from_secs(15);
/// Pieces of frames that are no packets and may wait.
const FRAMES: usize = 4;

/// The settings of connections to a gateway with this authority.
///
/// # Errors
/// The authority is none.
pub(super) fn trusting(authority: &CertificateDer<'static>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).context("trust the gateway's authority")?;
    Ok(tls::foreign_client_config(KnownBy::Roots(roots), None)?)
}

/// The tunnel of one client.
pub(super) struct Channel {
    session: Arc<Session>,
    frames: FollowedChannel,
    pump: Task<io::Result<()>>,
    /// Told when packets have come.
    arrived: Arc<Notify>,
    /// Whether somebody has heard that it has its address.
    is_told: bool,
}

impl Channel {
    /// Connects with the token of a login, and opens the tunnel.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn open(shared: &Shared, number: u32, pass: &Pass, tls: &Arc<ClientConfig>) -> Result<Self> {
        let plan = &shared.plan;
        let path = Arc::new(LoadPath::new(Arc::clone(&shared.sockets), number));
        let heard = ask(plan, &path, (number, pass), tls).await?;
        let settings = TunnelSettings::of(&heard.fields)?;
        let address = settings.v4.context("the gateway assigned no IPv4 address")?;
        // As the real client has it, but for the TUN device.
        let carrier = StreamCarrier::new(plan.gateway, settings.mtu.min(LARGEST_PACKET));
        let connection = Arc::<StreamCarrier<Cstp>>::clone(&carrier);
        let session = Arc::new(Session::new(number, connection, path, Arc::clone(&shared.echoes)));
        session.assign(address);
        let (receiver, arrived) = (Arc::clone(&session), Arc::<Notify>::default());
        let arrival = Arc::clone(&arrived);
        let deliver = move |packets: &mut Vec<Bytes>| {
            packets.drain(..).for_each(|packet| receiver.receive(&packet));
            arrival.notify_one();
        };
        let (others, frames) = mpsc::channel(FRAMES);
        let pump = Pump::new(Arc::clone(&carrier), Cstp, heard.connection, &heard.early, deliver, others)?;
        let pump = task::spawn(pump.run());
        let mut channel = channel::Channel::new(settings.dpd.unwrap_or(DPD), Instant::now());
        if let Some(every) = settings.keepalive {
            channel.keep_alive(every, Instant::now());
        }
        let frames = FollowedChannel::new(carrier, channel, frames, UNREAD);
        Ok(Self { session, frames, pump, arrived, is_told: false })
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Says at first that the session has its address; from then on it waits for packets, or for the end.
    ///
    /// # Errors
    /// Why the tunnel ended.
    pub(super) async fn follow(&mut self) -> Result<bool> {
        if !self.is_told {
            self.is_told = true;
            return Ok(true);
        }
        let end = tokio::select! {
            () = self.arrived.notified() => return Ok(false),
            end = self.frames.over() => format!("the tunnel is over: {end:?}"),
            moved = &mut self.pump => format!("the connection is over: {moved:?}"),
        };
        bail!(end)
    }
}

/// Connects from the address of a path and asks for a tunnel; the answer is a yes.
async fn ask(
    plan: &Plan,
    path: &LoadPath<Session>,
    (number, pass): (u32, &Pass),
    tls: &Arc<ClientConfig>,
) -> Result<Heard> {
    let Pass::Token(token) = pass else { bail!("only the token of a login opens a tunnel over TLS") };
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((path.source(), 0)))?;
    let stream = connect(socket.connect(plan.gateway).await?, Arc::clone(tls), &plan.host).await?;
    let host_name = format!("load{number}");
    let (authority, host_name) = (plan.host.as_str(), host_name.as_str());
    let wish = Wish { authority, agent: AGENT, host_name, token, mtu: LARGEST_PACKET, takes_dtls: false };
    let heard = ask_verbatim(stream, &wish.head()).await?;
    let reason = || value(&heard.fields, "x-reason").unwrap_or("without a reason").to_owned();
    ensure!(heard.status == 200, "status {}: {}", heard.status, reason());
    Ok(heard)
}
