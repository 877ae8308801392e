//! One authenticated connection to a gateway: QUIC, HTTP/3 and CONNECT-IP, carrying packets as QUIC datagrams, or by
//! ESP where there is a TUN device and the gateway agrees. Or TLS, HTTP/1.1 and CONNECT-IP: [`TlsConnection`]. Or
//! whichever of the two passes: [`ChangingConnection`].

mod asked;
mod changing;
mod control;
mod dial;
mod either;
mod esp;
mod explain;
mod liveness;
mod obstruction;
mod post;
mod racing;
mod roaming;
mod silence;
mod tls;
mod unacknowledged;
mod waking;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_net::carrier::quic::Datagrams;
use adit_net::http::h3::close;
use adit_program::task::{self, Task};
use adit_proto::http::h3::error::Code;
use tokio::sync::{mpsc, watch};

use super::data::{self, DataPath};
use super::{
    ConnectError, ConnectionEvent, ConnectionStats, Credentials, GatewayAccess, NetworkSettings, OpenConnection,
    udp_overhead,
};
use crate::packet_source::Packets;
use roaming::Roaming;
use silence::{Doubt, SilenceWatch};
use waking::Sleeps;

#[cfg(feature = "cli")]
pub(crate) use asked::answers_by_tls;
pub(crate) use asked::{answers, speaks_connect_ip};
pub use changing::ChangingConnection;
pub use dial::Endpoint;
pub(crate) use dial::more_telling;
pub(super) use dial::{no_route, race, unusable};
pub(super) use explain::{explain_tcp, explain_unproven_tcp};
pub use post::{PostReply, post};
pub use tls::TlsConnection;

/// Events that may wait for their reader; the control task waits when it is full.
pub(super) const EVENT_QUEUE: usize = 16;
/// How long a farewell may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// What becomes of a connection whose path gets too narrow for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenNarrow {
    /// It ends: there is nothing else that could carry them.
    End,
    /// It is doubted, and goes on until the session has left it.
    Doubt,
}

/// An open connection; dropping it closes it.
pub struct Connection {
    endpoint: quinn::Endpoint,
    quic: quinn::Connection,
    datagrams: Arc<Datagrams>,
    data: Arc<DataPath>,
    first: Option<ConnectionEvent>,
    publish: mpsc::Sender<ConnectionEvent>,
    events: mpsc::Receiver<ConnectionEvent>,
    sleeps: mpsc::Sender<Duration>,
    /// Why the session may have to leave the connection.
    doubts: watch::Receiver<Option<Doubt>>,
    _control: Task,
    /// What takes packets for the gateway, and what brings those that come by QUIC.
    outward: Option<Task>,
    inward: Option<Task>,
}

impl Connection {
    /// Connects, authenticates and waits for the first network settings (the first event is always `Network`). Of
    /// `packets` only the carriers matter until [`Self::attach`].
    ///
    /// `timeout` bounds all of it; errors as [`ConnectError`] says.
    pub async fn open(target: &GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        match tokio::time::timeout(timeout, Self::open_unbounded(target, packets, timeout)).await {
            Ok(opened) => opened,
            Err(_elapsed) => Err(ConnectError::Unreachable(target.authority())),
        }
    }

    async fn open_unbounded(target: &GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        let opened = Self::open_tunnel(target, packets, timeout).await;
        opened.map_err(|error| target.explain_dates(error))
    }

    async fn open_tunnel(target: &GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        let dialled = Self::dial(target, timeout).await?;
        Self::ask(dialled, target, packets, WhenNarrow::End).await
    }

    /// Shakes hands, and no more.
    async fn dial(target: &GatewayAccess, timeout: Duration) -> Result<dial::Dialled, ConnectError> {
        let gateway = target.endpoint()?;
        let dialling = dial::dial(&gateway, dial::Needs::Packets, timeout);
        obstruction::watch(dialling, &target.addresses, target.mark).await
    }

    /// Asks for the session.
    async fn ask(
        dialled: dial::Dialled,
        target: &GatewayAccess,
        packets: Packets,
        when_narrow: WhenNarrow,
    ) -> Result<Self, ConnectError> {
        let esp = packets.workers().and_then(|workers| workers.esp()).map(|esp| esp.offer.clone());
        let tunnel = control::request(&dialled.quic, target, esp).await?;
        let (stream, roaming) = (tunnel.stream_id(), Roaming::new(dialled.quic.remote_address(), target.mark));
        let quic = dialled.quic.clone();
        Self::followed_by(dialled, stream, packets, |data, (sleeps, silence), events| {
            control::run(tunnel, quic, data, ((roaming, sleeps, silence), when_narrow), events)
        })
        .await
    }

    /// The connection that `control` follows, once that has told the first event. Its packets go by the datagrams of
    /// the request stream with this id.
    async fn followed_by<C: Future<Output = ()> + Send + 'static>(
        dial::Dialled { endpoint, quic }: dial::Dialled,
        stream: u64,
        packets: Packets,
        control: impl FnOnce(Arc<DataPath>, (Sleeps, SilenceWatch), mpsc::Sender<ConnectionEvent>) -> C,
    ) -> Result<Self, ConnectError> {
        let datagrams = Arc::new(Datagrams::new(quic.clone(), stream));
        let data = Arc::new(DataPath::new(Arc::<Datagrams>::clone(&datagrams), packets));
        let (publish, mut events) = mpsc::channel(EVENT_QUEUE);
        let span = tracing::debug_span!("session", gateway = %quic.remote_address());
        let (sleeps, waking) = mpsc::channel(1);
        let silence = SilenceWatch::new(Arc::clone(&datagrams));
        let doubts = silence.doubts();
        let control = control(Arc::clone(&data), (Sleeps::new(waking), silence), publish.clone());
        let _control = task::spawn(tracing::Instrument::instrument(control, span));
        let first = match events.recv().await {
            Some(ConnectionEvent::Closed(error)) => return Err(error),
            Some(event) => Some(event),
            None => return Err(ConnectError::Protocol("the gateway gave no address".to_owned())),
        };
        Ok(Self {
            endpoint,
            quic,
            datagrams,
            data,
            first,
            publish,
            events,
            sleeps,
            doubts,
            _control,
            outward: None,
            inward: None,
        })
    }
}

impl OpenConnection for Connection {
    fn admit(&mut self, addresses: Vec<IpAddr>) {
        self.data.set_addresses(addresses);
    }

    fn attach(&mut self) {
        let (data, publish) = (Arc::clone(&self.data), self.publish.clone());
        self.data.begin();
        self.outward = Some(task::spawn(data::move_out(data, publish)));
        self.inward = Some(task::spawn(data::downlink(Arc::clone(&self.data), Arc::clone(&self.datagrams))));
    }

    async fn next_event(&mut self) -> ConnectionEvent {
        next_event(&mut self.first, &mut self.events).await
    }

    fn handle_wake(&mut self, slept: Duration) {
        // One that waits already leads to the same questions.
        self.sleeps.try_send(slept).ok();
    }

    fn stats(&self) -> ConnectionStats {
        let remote = self.quic.remote_address();
        let path_mtu = self.quic.stats().path.current_mtu.saturating_add(udp_overhead(remote));
        ConnectionStats { path_mtu: Some(path_mtu), ..self.data.stats(self.quic.rtt(), remote) }
    }

    fn outlives_moves(&self) -> bool {
        true
    }

    async fn close(self) {
        self.data.end();
        close(&self.quic, Code::NO_ERROR, "the client disconnects");
        let _gateway_silent = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.data.end();
        close(&self.quic, Code::NO_ERROR, "the client disconnects");
    }
}

/// The next event of a connection whose first one was held back.
pub(super) async fn next_event(
    first: &mut Option<ConnectionEvent>,
    events: &mut mpsc::Receiver<ConnectionEvent>,
) -> ConnectionEvent {
    if let Some(first) = first.take() {
        return first;
    }
    match events.recv().await {
        Some(event) => {
            if matches!(event, ConnectionEvent::Closed(_)) {
                events.close();
            }
            event
        }
        None => ConnectionEvent::Closed(ConnectError::Closed("the connection has ended".to_owned())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::future::pending;
    use std::io;

    use adit_net::packet_buffer::PacketBuffer;
    use bytes::Bytes;

    use super::*;
    use crate::packet_source::{BoxFuture, PacketSource};

    /// A source whose device was deleted.
    struct Deleted;

    impl PacketSource for Deleted {
        fn receive<'a>(&'a self, _batch: &'a mut Vec<PacketBuffer>, _limit: usize) -> BoxFuture<'a, io::Result<()>> {
            Box::pin(std::future::ready(Err(io::ErrorKind::NotFound.into())))
        }

        fn deliver(&self, _packets: &[Bytes]) -> usize {
            0
        }
    }

    /// A connection whose gateway says nothing more after its first settings, and that gateway.
    pub(super) async fn connection(packets: Packets) -> (Connection, quinn::Endpoint) {
        let (gateway, authority) = dial::tests::gateway();
        let tls = adit_net::tls::client_config(&authority, None).unwrap();
        let address = [gateway.local_addr().unwrap()];
        let endpoint = dial::tests::endpoint(&address, tls);
        let dialling = dial::dial(&endpoint, dial::Needs::Packets, Duration::from_secs(10));
        let dialled = dial::tests::served(&[&gateway], dialling).await;
        let dialled = dialled.unwrap_or_else(|error| panic!("{error}"));
        let opened = Connection::followed_by(dialled, 0, packets, |_, host, events| async move {
            events.send(ConnectionEvent::Network(NetworkSettings::default())).await.unwrap();
            pending::<()>().await;
            drop(host);
        });
        (opened.await.unwrap_or_else(|error| panic!("{error}")), gateway)
    }

    #[tokio::test]
    async fn source_that_fails_ends_the_connection() {
        let (mut connection, _gateway) = connection(Packets::Embedder(Arc::new(Deleted))).await;
        assert!(matches!(connection.next_event().await, ConnectionEvent::Network(_)));
        connection.attach();
        for _ in 0..2 {
            let event = tokio::time::timeout(Duration::from_secs(5), connection.next_event()).await.unwrap();
            assert!(matches!(event, ConnectionEvent::Closed(_)), "{event:?}");
        }
    }
}
