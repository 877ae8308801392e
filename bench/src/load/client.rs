//! The life of one client: it connects, logs in with its token, opens a tunnel, and keeps ESP going until it is dropped.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::datagrams::Datagrams;
use adit_net::esp::{EspControl, EspSetup, exporter_secret};
use adit_net::h3::{H3Connection, RequestStream};
use adit_proto::connect_ip::client::{Client, ClientConfig, ClientEvent};
use adit_proto::connect_ip::template::FULL_TUNNEL_PATH;
use adit_proto::esp::field::Offer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::h3::connection::Role;
use adit_proto::h3::fields::value;
use adit_proto::h3::message::MessageEvent;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio::time::{sleep_until, timeout};

use super::generator::Shared;
use super::session::Session;

/// Longest time from the first datagram to the gateway's yes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Packets taken from a connection at a time.
const BATCH: usize = 16;

/// Largest packet that goes by ESP, in bytes; that of the real client.
const LARGEST_PACKET: u16 = 1420;

/// What a client is told.
pub(super) struct Plan {
    /// The gateway's name in its certificate.
    pub(super) host: String,
    /// Where it listens.
    pub(super) gateway: SocketAddr,
    /// The settings of every connection.
    pub(super) quic: quinn::ClientConfig,
    /// Whether clients offer ESP.
    pub(super) esp: bool,
}

/// An accepted request for a tunnel.
struct Tunnel {
    machine: Client,
    stream: RequestStream,
    session: Arc<Session>,
    datagrams: Arc<Datagrams>,
    esp: Option<EspControl<Session>>,
    // Dropped last: it closes the connection.
    http: H3Connection,
}

/// Lives the life of a client. Ends only where something went wrong.
///
/// # Errors
/// Why the client could not connect, or lost its tunnel.
pub(super) async fn live(shared: &Shared, number: u32, token: String) -> Result<()> {
    let began = Instant::now();
    let opened = timeout(PATIENCE, open(shared, number, token)).await;
    let mut tunnel = opened.with_context(|| format!("no answer in {PATIENCE:?}"))??;
    let ended = tunnel.follow(shared, began).await;
    tunnel.session.carriers().close();
    ended
}

async fn open(shared: &Shared, number: u32, token: String) -> Result<Tunnel> {
    let plan = &shared.plan;
    let connecting = shared.endpoint(number).connect_with(plan.quic.clone(), plan.gateway, &plan.host)?;
    let http = H3Connection::start(connecting.await?, Role::Client);
    http.peer_settings().await?;
    let mut machine = Client::new(ClientConfig {
        authority: plan.host.clone(),
        path: FULL_TUNNEL_PATH.to_owned(),
        bearer: Some(token),
        wants_dns: true,
        esp: plan.esp.then(Offer::default),
    });
    let mut stream = http.open_request().await?;
    stream.expect_tunnel();
    stream.send_headers(&machine.request()).await?;
    let Some(MessageEvent::Headers(response)) = stream.next_event().await? else {
        bail!("the gateway closed the request unanswered");
    };
    let reason = || value(&response, "adit-reason").unwrap_or("without a reason").to_owned();
    machine.handle_response(&response, Instant::now()).with_context(reason)?;
    let datagrams = Arc::new(Datagrams::new(http.quic().clone(), stream.id()));
    let lane = shared.lane(number);
    let session = Session::new(number, Arc::clone(&datagrams), Arc::clone(lane), Arc::clone(&shared.echoes));
    let session = Arc::new(session);
    let esp = match (machine.esp(), exporter_secret(http.quic())) {
        (Some(negotiated), Some(mut secret)) => {
            let setup = EspSetup {
                negotiated,
                secret: &mut secret,
                plane: Arc::clone(lane) as _,
                session: Arc::clone(&session),
                policy: RekeyPolicy::default(),
                largest_packet: LARGEST_PACKET,
            };
            Some(EspControl::client(setup, plan.gateway, Instant::now()))
        }
        _ => None,
    };
    Ok(Tunnel { machine, stream, session, datagrams, esp, http })
}

impl Tunnel {
    /// Follows the tunnel until it ends.
    async fn follow(&mut self, shared: &Shared, began: Instant) -> Result<()> {
        let mut packets: Vec<Bytes> = Vec::new();
        loop {
            self.flush().await?;
            let due = self.machine.poll_timeout();
            let counters = self.session.carriers().counters();
            tokio::select! {
                event = self.stream.next_event() => match event? {
                    Some(MessageEvent::Data(data)) => self.machine.handle_data(&data)?,
                    Some(MessageEvent::Headers(_)) => {}
                    Some(MessageEvent::End) | None => bail!("the gateway ended the session"),
                },
                () = sleep_until(due.unwrap_or(began).into()), if due.is_some() => {
                    self.machine.handle_timeout(Instant::now());
                }
                passed = next(&mut self.esp) => passed?,
                received = self.datagrams.receive(&mut packets, BATCH, counters) => {
                    received?;
                    packets.drain(..).for_each(|packet| self.session.receive(&packet));
                }
            }
            self.drain(shared, began)?;
        }
    }

    /// Sends what waits on the request stream.
    async fn flush(&mut self) -> Result<()> {
        let control = self.esp.iter_mut();
        for capsule in control.flat_map(|control| std::iter::from_fn(|| control.poll_capsule())) {
            self.machine.send_esp(capsule);
        }
        while let Some(capsules) = self.machine.poll_transmit() {
            self.stream.send_data(&capsules).await?;
        }
        Ok(())
    }

    /// Handles what the machine found on the request stream.
    fn drain(&mut self, shared: &Shared, began: Instant) -> Result<()> {
        while let Some(event) = self.machine.poll_event() {
            match event {
                ClientEvent::Addresses(addresses) => {
                    let v4 = addresses.iter().find_map(|address| match address.addr() {
                        IpAddr::V4(v4) => Some(v4),
                        IpAddr::V6(_) => None,
                    });
                    if v4.is_some_and(|v4| self.session.assign(v4)) {
                        shared.note_connected(began.elapsed(), &self.session);
                    }
                }
                ClientEvent::Packet(packet) => self.session.receive(&packet),
                ClientEvent::Esp(capsule) => {
                    if let Some(esp) = &mut self.esp {
                        esp.handle_capsule(capsule, Instant::now())?;
                    }
                }
                ClientEvent::Routes(_) | ClientEvent::Dns(_) => {}
            }
        }
        match self.http.quic().close_reason() {
            Some(reason) => Err(reason.into()),
            None => Ok(()),
        }
    }
}

/// Waits until ESP has something to do, and does it; for ever without ESP.
async fn next(esp: &mut Option<EspControl<Session>>) -> Result<()> {
    match esp {
        Some(esp) => Ok(esp.next().await?),
        None => pending().await,
    }
}
