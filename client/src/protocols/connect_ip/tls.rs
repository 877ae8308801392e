//! A connection to a gateway over TLS and TCP, for networks that pass no UDP: CONNECT-IP by an upgrade of HTTP/1.1.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::following::{FollowError, Following, Step};
use adit_net::carrier::stream::open;
use adit_net::carrier::tls::{CapsuleCarrier, CapsulePump, Capsules};
use adit_net::http::h1::{self, Shaken, UpgradedStream};
use adit_net::http::stream::TunnelStream;
use adit_net::tls;
use adit_program::task::{self, Task};
use adit_proto::connect_ip::client::Client;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::control::{News, machine, refusal};
use super::data::{DataPath, move_out};
use super::dial::{leads_nowhere, no_route, race};
use super::explain::{explain_tcp, explain_unproven_tcp};
use super::{ConnectError, ConnectionEvent, ConnectionStats, EVENT_QUEUE, FAREWELL, GatewayAccess, OpenConnection};
use crate::packet_source::{Packets, TunnelSession};

/// Pieces of capsules that may wait for the tunnel, each as much as is read at a time.
const CAPSULES: usize = 4;
/// Largest packet for an embedder, in bytes: what the workers of a TUN device take by default.
const EMBEDDERS_MTU: u16 = 1420;

/// An open connection over TLS; dropping it closes it.
pub struct TlsConnection {
    carrier: Arc<CapsuleCarrier>,
    data: Arc<DataPath>,
    first: Option<ConnectionEvent>,
    publish: mpsc::Sender<ConnectionEvent>,
    events: mpsc::Receiver<ConnectionEvent>,
    control: Task,
    moving: Option<Task>,
}

impl TlsConnection {
    /// See [`Connection::open`](super::Connection::open).
    pub async fn open(target: &GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        let opened = tokio::time::timeout(timeout, Self::open_tunnel(target, packets, timeout)).await;
        let opened = opened.unwrap_or_else(|_elapsed| Err(ConnectError::Unreachable(target.authority())));
        opened.map_err(|error| target.explain_dates(error))
    }

    async fn open_tunnel(target: &GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        let (stream, remote) = dial(target, timeout).await?;
        let mut machine = machine(target, None);
        let answered = h1::request_tunnel(stream, &machine.request()).await;
        let answered = answered.map_err(|error| explain_tcp(&error, remote))?;
        machine.handle_response(&answered.fields, Instant::now()).map_err(|error| refusal(error, &answered.fields))?;
        let Some((connection, early)) = answered.upgraded else {
            return Err(ConnectError::Protocol("the gateway gives no tunnel, and does not say why".to_owned()));
        };
        let mtu = packets.workers().map_or(EMBEDDERS_MTU, |workers| workers.mtu());
        let carrier = CapsuleCarrier::new(remote, mtu);
        let data = Arc::new(DataPath::new(Arc::<CapsuleCarrier>::clone(&carrier), packets));
        let (others, capsules) = mpsc::channel(CAPSULES);
        let receiver = Arc::clone(&data);
        let deliver = move |packets: &mut Vec<Bytes>| receiver.deliver(packets);
        let pump = CapsulePump::new(Arc::clone(&carrier), Capsules::default(), connection, &early, deliver, others)
            .map_err(ConnectError::Local)?;
        let pump = task::spawn(pump.run());
        let (publish, mut events) = mpsc::channel(EVENT_QUEUE);
        let stream = TunnelStream::from(UpgradedStream::new(Arc::clone(&carrier), capsules));
        let following = Following::new(stream, machine, None);
        let span = tracing::debug_span!("session", gateway = %remote);
        let control = control(following, pump, Arc::clone(&data), Arc::clone(&carrier), publish.clone());
        let control = task::spawn(tracing::Instrument::instrument(control, span));
        let first = match events.recv().await {
            Some(ConnectionEvent::Closed(error)) => return Err(error),
            Some(event) => Some(event),
            None => return Err(ConnectError::Protocol("the gateway gave no address".to_owned())),
        };
        Ok(Self { carrier, data, first, publish, events, control, moving: None })
    }
}

impl OpenConnection for TlsConnection {
    fn admit(&mut self, addresses: Vec<IpAddr>) {
        self.data.set_addresses(addresses);
    }

    fn attach(&mut self) {
        self.data.begin();
        self.moving = Some(task::spawn(move_out(Arc::clone(&self.data), self.publish.clone())));
    }

    async fn next_event(&mut self) -> ConnectionEvent {
        super::next_event(&mut self.first, &mut self.events).await
    }

    fn stats(&self) -> ConnectionStats {
        self.data.stats(self.carrier.rtt().unwrap_or_default(), self.carrier.remote())
    }

    async fn close(mut self) {
        self.data.end();
        self.carrier.close();
        // Nobody may be left to read the last events.
        self.events.close();
        let _unheard = tokio::time::timeout(FAREWELL, &mut self.control).await;
    }
}

impl Drop for TlsConnection {
    fn drop(&mut self) {
        self.data.end();
    }
}

/// Reaches the gateway at whichever of its addresses answers first.
async fn dial(target: &GatewayAccess, timeout: Duration) -> Result<(Shaken, SocketAddr), ConnectError> {
    let gateway = target.endpoint()?;
    let config = tls::over_tcp(&gateway.tls);
    let (trusts, known_past, mark) = (gateway.trusts, gateway.known_past, gateway.mark);
    race(gateway.host, &gateway.addresses, timeout, |address| {
        let (config, host) = (Arc::clone(&config), gateway.host.to_owned());
        async move {
            let failed = |error: io::Error| match leads_nowhere(&error) {
                true => no_route(address),
                false => explain_unproven_tcp(&error, address, trusts, known_past),
            };
            let socket = open(address, mark).await.map_err(failed)?;
            Ok((h1::connect(socket, config, &host).await.map_err(failed)?, address))
        }
    })
    .await
}

/// Follows the tunnel until it ends; the last event is always `Closed`.
async fn control(
    mut following: Following<Client, TunnelSession>,
    pump: Task<io::Result<()>>,
    data: Arc<DataPath>,
    carrier: Arc<CapsuleCarrier>,
    events: mpsc::Sender<ConnectionEvent>,
) {
    let followed = follow(&mut following, &data, &events).await;
    data.end();
    carrier.close();
    let pumped = tokio::time::timeout(FAREWELL, pump).await;
    let error = match (followed, pumped) {
        (Err(error), _) => ConnectError::Protocol(error.to_string()),
        (Ok(()), Ok(Ok(Err(error)))) => explain_tcp(&error, carrier.remote()),
        (Ok(()), _) => ConnectError::Closed("the gateway ended the session".to_owned()),
    };
    tracing::debug!(%error, "tunnel ended");
    let _reader_gone = events.send(ConnectionEvent::Closed(error)).await;
}

async fn follow(
    following: &mut Following<Client, TunnelSession>,
    data: &DataPath,
    events: &mpsc::Sender<ConnectionEvent>,
) -> Result<(), FollowError> {
    let mut news = News::default();
    loop {
        match following.step().await? {
            Step::Event(event) => news.take(event, data),
            Step::Drained => news.tell(data, events).await,
            Step::Ended => return Ok(()),
        }
    }
}
