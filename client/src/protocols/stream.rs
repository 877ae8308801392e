//! Connections over TLS and TCP: how a gateway is reached, and what moves packets in the frames of its protocol.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use adit_net::carrier::stream::{Framing, Pump, StreamCarrier, open};
use adit_net::http::h1::{self, Shaken};
use adit_program::task::{self, Task};
use bytes::Bytes;
use rustls::ClientConnection;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::connect_ip::{self, EVENT_QUEUE, Endpoint, FAREWELL};
use super::data::{DataPath, move_out};
use super::{ConnectError, ConnectionEvent, ConnectionStats, OpenConnection};
use crate::packet_source::Packets;
use crate::ways::leads_nowhere;

/// Pieces of frames that may wait for the control side, each as much as is read at a time.
const FRAMES: usize = 4;
/// Largest packet for an embedder, in bytes: what the workers of a TUN device take by default.
const EMBEDDERS_MTU: u16 = 1420;

/// Largest packet that the near end of a tunnel takes, in bytes.
pub(super) fn largest_packet(packets: &Packets) -> u16 {
    packets.workers().map_or(EMBEDDERS_MTU, |workers| workers.mtu())
}

/// Reaches a gateway at whichever of its addresses answers first, and shakes hands. Its TLS is one for TCP.
pub(super) async fn shake(gateway: &Endpoint<'_>, timeout: Duration) -> Result<(Shaken, SocketAddr), ConnectError> {
    let &Endpoint { host, trusts, known_past, mark, .. } = gateway;
    connect_ip::race(host, &gateway.addresses, timeout, |address| {
        let (config, host) = (Arc::clone(&gateway.tls), host.to_owned());
        async move {
            let failed = |error: io::Error| match leads_nowhere(&error) {
                true => connect_ip::no_route(address),
                false => connect_ip::explain_unproven_tcp(&error, address, trusts, known_past),
            };
            let socket = open(address, mark).await.map_err(failed)?;
            Ok((h1::connect(socket, config, &host).await.map_err(failed)?, address))
        }
    })
    .await
}

/// How long a host may sleep and find its connection as it was: the other end's TCP gives it up about then.
const LONGEST_SLEEP: Duration = Duration::from_secs(20);

/// How long a connection in whose place another one is may go on to bring packets.
pub(super) const FORMER: Duration = Duration::from_secs(2);

/// A connection whose packets move.
pub(super) struct Moving<F> {
    pub(super) carrier: Arc<StreamCarrier<F>>,
    pub(super) data: Arc<DataPath>,
    pump: Task<io::Result<()>>,
    /// What the connection before this one still brings.
    former: Option<Task>,
}

impl<F: Framing> Moving<F> {
    /// Takes over a connection, of whose stream something may have been read. Pieces of frames that are no packets come
    /// out of the receiver, which ends with the connection.
    pub(super) fn start(
        carrier: Arc<StreamCarrier<F>>,
        framing: F,
        (connection, early): ((TcpStream, ClientConnection), Bytes),
        packets: Packets,
    ) -> Result<(Self, mpsc::Receiver<Bytes>), ConnectError> {
        let data = Arc::new(DataPath::new(Arc::<StreamCarrier<F>>::clone(&carrier), packets));
        let (pump, frames) = pump(&carrier, &data, framing, (connection, early))?;
        Ok((Self { carrier, data, pump, former: None }, frames))
    }

    /// Goes on over another connection, of whose stream something may have been read; returns what comes out of that
    /// besides packets. The former one, of which these are the frames, is read to its end.
    pub(super) fn take_over(
        &mut self,
        framing: F,
        (connection, early): ((TcpStream, ClientConnection), Bytes),
        frames: mpsc::Receiver<Bytes>,
    ) -> Result<mpsc::Receiver<Bytes>, ConnectError> {
        let (pump, next) = pump(&self.carrier, &self.data, framing, (connection, early))?;
        let former = std::mem::replace(&mut self.pump, pump);
        self.former = Some(task::spawn(read_to_the_end(former, frames)));
        Ok(next)
    }

    /// Ends the connection, and returns why it had ended before, if it had.
    pub(super) async fn end(self) -> Option<ConnectError> {
        self.data.end();
        drop(self.former);
        self.carrier.close();
        match tokio::time::timeout(FAREWELL, self.pump).await {
            Ok(Ok(Err(error))) => Some(connect_ip::explain_tcp(&error, self.carrier.remote())),
            Ok(Ok(Ok(())) | Err(_)) | Err(_) => None,
        }
    }
}

/// Starts what moves the packets of a connection. Pieces of frames that are no packets come out of the receiver, which
/// ends with it.
fn pump<F: Framing>(
    carrier: &Arc<StreamCarrier<F>>,
    data: &Arc<DataPath>,
    framing: F,
    (connection, early): ((TcpStream, ClientConnection), Bytes),
) -> Result<(Task<io::Result<()>>, mpsc::Receiver<Bytes>), ConnectError> {
    let (others, frames) = mpsc::channel(FRAMES);
    let receiver = Arc::clone(data);
    let deliver = move |packets: &mut Vec<Bytes>| receiver.deliver(packets);
    let pump = Pump::new(Arc::clone(carrier), framing, connection, &early, deliver, others);
    Ok((task::spawn(pump.map_err(ConnectError::Local)?.run()), frames))
}

/// Reads what a connection still brings. What the gateway says there besides packets concerns nobody any more.
async fn read_to_the_end(pump: Task<io::Result<()>>, mut frames: mpsc::Receiver<Bytes>) {
    let unheard = async { while frames.recv().await.is_some() {} };
    let _either = tokio::time::timeout(FORMER, async { tokio::join!(pump, unheard) }).await;
}

/// An open connection over TLS; dropping it closes it.
pub struct StreamConnection<F: Framing> {
    carrier: Arc<StreamCarrier<F>>,
    data: Arc<DataPath>,
    first: Option<ConnectionEvent>,
    publish: mpsc::Sender<ConnectionEvent>,
    events: mpsc::Receiver<ConnectionEvent>,
    control: Task,
    moving: Option<Task>,
    /// The last words to the gateway, where the protocol has any.
    farewell: Bytes,
}

impl<F: Framing> StreamConnection<F> {
    /// The connection that `control` follows, once that has told the first event.
    pub(super) async fn followed_by<C: Future<Output = ()> + Send + 'static>(
        moving: Moving<F>,
        farewell: Bytes,
        control: impl FnOnce(Moving<F>, mpsc::Sender<ConnectionEvent>) -> C,
    ) -> Result<Self, ConnectError> {
        let (carrier, data) = (Arc::clone(&moving.carrier), Arc::clone(&moving.data));
        let (publish, mut events) = mpsc::channel(EVENT_QUEUE);
        let span = tracing::debug_span!("session", gateway = %carrier.remote());
        let control = task::spawn(control(moving, publish.clone()).instrument(span));
        let first = match events.recv().await {
            Some(ConnectionEvent::Closed(error)) => return Err(error),
            Some(event) => Some(event),
            None => return Err(ConnectError::Protocol("the gateway gave no address".to_owned())),
        };
        Ok(Self { carrier, data, first, publish, events, control, moving: None, farewell })
    }

    /// Takes no more packets. Those that it has are still sent, and those that come delivered.
    pub(super) fn stop_sending(&mut self) {
        self.moving = None;
    }
}

impl<F: Framing> OpenConnection for StreamConnection<F> {
    fn admit(&mut self, addresses: Vec<IpAddr>) {
        self.data.set_addresses(addresses);
    }

    fn attach(&mut self) {
        self.data.begin();
        self.moving = Some(task::spawn(move_out(Arc::clone(&self.data), self.publish.clone())));
    }

    async fn next_event(&mut self) -> ConnectionEvent {
        connect_ip::next_event(&mut self.first, &mut self.events).await
    }

    fn handle_wake(&mut self, slept: Duration) {
        if slept >= LONGEST_SLEEP {
            let reason = "this host slept for longer than a connection lasts".to_owned();
            // Where the reader has many events before it, TCP finds out by itself.
            self.publish.try_send(ConnectionEvent::Closed(ConnectError::Closed(reason))).ok();
        }
    }

    fn stats(&self) -> ConnectionStats {
        self.data.stats(self.carrier.rtt().unwrap_or_default(), self.carrier.remote())
    }

    fn outlives_moves(&self) -> bool {
        false
    }

    async fn close(mut self) {
        self.data.end();
        self.carrier.queue(&self.farewell);
        self.carrier.close();
        // Nobody may be left to read the last events.
        self.events.close();
        let _unheard = tokio::time::timeout(FAREWELL, &mut self.control).await;
    }
}

impl<F: Framing> Drop for StreamConnection<F> {
    fn drop(&mut self) {
        self.data.end();
    }
}
