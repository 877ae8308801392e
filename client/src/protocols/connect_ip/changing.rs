//! A session's connection over whichever of QUIC and TLS the network passes, which goes over to the other one when that
//! changes.
//!
//! The one that is left is read to its end, so that what is under way there still arrives.

use std::collections::VecDeque;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_program::random::random;
use adit_program::task::{self, Task};
use adit_proto::carrier_choice::{Change, ChangeEvent, TLS_AFTER, Transport};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::either::{EitherConnection, Proven};
use super::racing::{self, Won};
use super::silence::Doubt;
use crate::network_memory::{KnownNetwork, NetworkMemory};
use crate::packet_source::Packets;
use crate::protocols::{
    ConnectError, ConnectionEvent, ConnectionStats, GatewayAccess, NetworkSettings, OpenConnection,
};

/// How long the gateway may take to shake hands beside an open session, and then to answer.
const DIAL_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to remember a network: as long as QUIC is tried alone in one that is not known.
const REMEMBER_WITHIN: Duration = TLS_AFTER;
/// How long a connection that the session has left may go on to bring packets.
const FORMER: Duration = Duration::from_secs(2);

/// An open connection over QUIC where that passes, else over TLS; dropping it closes it.
pub struct ChangingConnection {
    target: Arc<GatewayAccess>,
    packets: Packets,
    change: Change,
    current: EitherConnection,
    doubts: Option<watch::Receiver<Option<Doubt>>>,
    /// Why QUIC was doubted last.
    doubt: Option<Doubt>,
    /// Why packets do not go over UDP, in words, if they do not.
    why: Option<String>,
    memory: Memory,
    /// What the gateway gave, as it was told last.
    network: NetworkSettings,
    admitted: Vec<IpAddr>,
    is_attached: bool,
    /// Whether the connection in use was told to be silent.
    is_silent: bool,
    /// What is under way to another connection.
    beside: Option<Task<(Sought, Step)>>,
    /// The other connection, before it is asked for the session.
    proven: Option<Proven>,
    /// How the connection in use ended while the session was moving.
    ended: Option<ConnectError>,
    /// Reads the connection that the session has left.
    former: Option<Task>,
    events: VecDeque<ConnectionEvent>,
    /// Whether its end was told, after which nothing happens any more.
    is_over: bool,
}

/// What is remembered of the networks that lead to a gateway.
struct Memory {
    networks: Option<(Arc<dyn NetworkMemory>, IpAddr)>,
    sought: Sought,
    noting: Option<Task>,
}

/// Where this host was when it began to look for a connection.
#[derive(Clone, Default)]
struct Sought {
    network: Option<Arc<dyn KnownNetwork>>,
    /// Whether that is remembered to block UDP.
    blocks_udp: bool,
}

/// What came of the other connection.
enum Step {
    Proven(Proven),
    /// It is open, and these are its settings.
    Opened(Box<(EitherConnection, NetworkSettings)>),
    Failed(ConnectError),
}

impl ChangingConnection {
    /// As [`Connection::open`](super::Connection::open), over whichever answers first.
    pub(crate) async fn open(
        target: GatewayAccess,
        packets: Packets,
        networks: Option<Arc<dyn NetworkMemory>>,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let memory = Memory::of(networks, &target).await;
        let target = Arc::new(target);
        let won = racing::race(Arc::clone(&target), packets.clone(), memory.sought.blocks_udp, deadline).await?;
        let Won { connection, why } = won;
        let why =
            why.map(|why| if memory.sought.blocks_udp { format!("{why}, as before in this network") } else { why });
        let mut opened = Self::begin(connection, target, packets, memory);
        opened.why = why;
        if opened.change.current() == Transport::Quic {
            opened.memory.note(true);
        }
        Ok(opened)
    }

    /// Begins with this connection.
    fn begin(connection: EitherConnection, target: Arc<GatewayAccess>, packets: Packets, memory: Memory) -> Self {
        Self {
            target,
            packets,
            change: Change::new(connection.transport(), now()),
            doubts: connection.doubts(),
            current: connection,
            doubt: None,
            why: None,
            memory,
            network: NetworkSettings::default(),
            admitted: Vec::new(),
            is_attached: false,
            is_silent: false,
            beside: None,
            proven: None,
            ended: None,
            former: None,
            events: VecDeque::new(),
            is_over: false,
        }
    }

    /// Does what the choice of the connection asks for.
    fn follow_change(&mut self) {
        while let Some(event) = self.change.poll_event() {
            match event {
                ChangeEvent::Dial(transport) => self.dial(transport),
                ChangeEvent::Ask => self.ask(),
                ChangeEvent::Drop => {
                    (self.beside, self.proven) = (None, None);
                    self.events.extend(self.ended.take().map(ConnectionEvent::Closed));
                }
                ChangeEvent::Reopen => {
                    let away = ConnectError::Unreachable(self.target.authority());
                    self.events.push_back(ConnectionEvent::Closed(away));
                }
            }
        }
    }

    fn dial(&mut self, transport: Transport) {
        let (target, networks) = (Arc::clone(&self.target), self.memory.networks.clone());
        self.beside = Some(task::spawn(async move {
            let sought = timeout(REMEMBER_WITHIN, Sought::look(networks)).await.unwrap_or_default();
            let dialled = Proven::dial(transport, &target, DIAL_WITHIN).await;
            (sought, dialled.map_or_else(Step::Failed, Step::Proven))
        }));
    }

    fn ask(&mut self) {
        let Some(proven) = self.proven.take() else { return };
        let (target, packets, sought) = (Arc::clone(&self.target), self.packets.clone(), self.memory.sought.clone());
        self.beside = Some(task::spawn(async move {
            let silent = || Step::Failed(ConnectError::Unreachable(target.authority()));
            let opened = timeout(ANSWER_WITHIN, open(proven, &target, packets)).await;
            let step = opened.map_or_else(|_elapsed| silent(), |opened| opened.map_or_else(Step::Failed, Step::Opened));
            (sought, step)
        }));
    }

    fn take(&mut self, (sought, step): (Sought, Step)) {
        self.beside = None;
        self.memory.sought = sought;
        match step {
            Step::Proven(proven) => {
                if self.change.current() == Transport::Tls {
                    self.memory.note(true);
                }
                self.proven = Some(proven);
                self.change.handle_proven(now());
            }
            Step::Opened(opened) => self.move_to(*opened),
            Step::Failed(error) => {
                tracing::debug!(%error, "the session stays on its connection");
                self.change.handle_failed(random_number(), now());
                if self.change.current() == Transport::Tls {
                    if matches!(error, ConnectError::Unreachable(_)) {
                        self.memory.note(false);
                    }
                    self.why = Some(error.to_string());
                }
                self.events.extend(self.ended.take().map(ConnectionEvent::Closed));
            }
        }
    }

    /// Has packets go by another connection, on which the session is now.
    fn move_to(&mut self, (mut connection, network): (EitherConnection, NetworkSettings)) {
        self.ended = None;
        if network.addresses != self.network.addresses {
            // This host is not set up for them: that is for whoever opens sessions.
            let error = ConnectError::Closed("the gateway gave other addresses on another connection".to_owned());
            return self.events.push_back(ConnectionEvent::Closed(error));
        }
        connection.admit(self.admitted.clone());
        if self.is_attached {
            connection.attach();
        }
        self.change.handle_moved(random_number(), now());
        let left = self.doubt.filter(|_| connection.transport() == Transport::Tls);
        self.why = left.map(|doubt| doubt.reason().to_owned());
        self.doubts = connection.doubts();
        let mut former = std::mem::replace(&mut self.current, connection);
        former.stop_sending();
        self.former = Some(task::spawn(read_to_the_end(former)));
        tracing::info!(carrier = self.current.stats().carrier, "the session goes on by another connection");
        self.events.push_back(ConnectionEvent::Carrier);
        if std::mem::take(&mut self.is_silent) {
            self.events.push_back(ConnectionEvent::Silent(false));
        }
        if network != self.network {
            self.network = network.clone();
            self.events.push_back(ConnectionEvent::Network(network));
        }
    }

    /// The next event, unless the end was told.
    async fn follow(&mut self) -> ConnectionEvent {
        loop {
            self.follow_change();
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let due = self.change.poll_timeout();
            tokio::select! {
                biased;
                doubt = next_doubt(&mut self.doubts) => {
                    self.doubt = doubt.or(self.doubt);
                    self.change.handle_doubt(doubt.is_some(), now());
                }
                event = self.current.next_event(), if self.ended.is_none() => {
                    if let Some(event) = self.pass_on(event) {
                        return event;
                    }
                }
                step = next_step(&mut self.beside) => self.take(step),
                () = until(due) => self.change.handle_timeout(now()),
            }
        }
    }

    /// The next event of the connection in use, for its reader; `None` if it concerns nobody yet.
    fn pass_on(&mut self, event: ConnectionEvent) -> Option<ConnectionEvent> {
        match event {
            // A gateway ends a device's former connection when it accepts another.
            ConnectionEvent::Closed(error) if self.change.is_moving() => {
                self.ended = Some(error);
                None
            }
            ConnectionEvent::Network(network) => {
                self.network = network.clone();
                Some(ConnectionEvent::Network(network))
            }
            ConnectionEvent::Silent(is_silent) => {
                self.is_silent = is_silent;
                Some(ConnectionEvent::Silent(is_silent))
            }
            event @ (ConnectionEvent::Closed(_)
            | ConnectionEvent::Mtu(_)
            | ConnectionEvent::Carrier
            | ConnectionEvent::LoginLasts(_)) => Some(event),
        }
    }
}

impl Memory {
    /// A memory that does not answer in time knows nothing.
    async fn of(networks: Option<Arc<dyn NetworkMemory>>, target: &GatewayAccess) -> Self {
        let gateway = target.addresses.known().first().map(SocketAddr::ip);
        let networks = networks.zip(gateway);
        let sought = timeout(REMEMBER_WITHIN, Sought::look(networks.clone())).await.unwrap_or_default();
        Self { networks, sought, noting: None }
    }

    /// UDP passes where the connection was sought, or does not.
    fn note(&mut self, passes: bool) {
        let is_known = passes && !self.sought.blocks_udp;
        let Some(network) = self.sought.network.clone().filter(|_| !is_known) else { return };
        self.sought.blocks_udp = !passes;
        self.noting = Some(task::spawn(async move { network.note_udp(passes).await }));
    }
}

impl Sought {
    async fn look(networks: Option<(Arc<dyn NetworkMemory>, IpAddr)>) -> Self {
        let Some((networks, gateway)) = networks else { return Self::default() };
        let network = networks.here(gateway).await;
        let blocks_udp = match &network {
            Some(network) => network.blocks_udp().await,
            None => false,
        };
        Self { network, blocks_udp }
    }
}

impl OpenConnection for ChangingConnection {
    fn admit(&mut self, addresses: Vec<IpAddr>) {
        self.current.admit(addresses.clone());
        self.admitted = addresses;
    }

    fn attach(&mut self) {
        self.current.attach();
        self.is_attached = true;
    }

    async fn next_event(&mut self) -> ConnectionEvent {
        if self.is_over {
            return ConnectionEvent::Closed(ConnectError::Closed("the connection has ended".to_owned()));
        }
        let event = self.follow().await;
        if matches!(event, ConnectionEvent::Closed(_)) {
            self.is_over = true;
            self.events.clear();
            (self.beside, self.proven, self.former) = (None, None, None);
        }
        event
    }

    fn handle_wake(&mut self, slept: Duration) {
        self.current.handle_wake(slept);
    }

    fn outlives_moves(&self) -> bool {
        self.current.outlives_moves()
    }

    fn make_way(&mut self, is_replaced: bool) {
        if !self.is_over {
            self.change.handle_hold(is_replaced, now());
            self.follow_change();
        }
    }

    fn stats(&self) -> ConnectionStats {
        ConnectionStats { not_by_udp: self.why.clone(), ..self.current.stats() }
    }

    async fn close(self) {
        self.current.close().await;
    }
}

/// Asks for the session on a connection, and waits for its settings.
async fn open(
    proven: Proven,
    target: &GatewayAccess,
    packets: Packets,
) -> Result<Box<(EitherConnection, NetworkSettings)>, ConnectError> {
    let mut connection = proven.ask(target, packets).await?;
    loop {
        match connection.next_event().await {
            ConnectionEvent::Network(network) => return Ok(Box::new((connection, network))),
            ConnectionEvent::Closed(error) => return Err(error),
            ConnectionEvent::Mtu(_)
            | ConnectionEvent::Carrier
            | ConnectionEvent::Silent(_)
            | ConnectionEvent::LoginLasts(_) => {}
        }
    }
}

/// Has a connection bring what is still under way, until the gateway ends it.
async fn read_to_the_end(mut former: EitherConnection) {
    let end = async { while !matches!(former.next_event().await, ConnectionEvent::Closed(_)) {} };
    let _in_time = timeout(FORMER, end).await;
    former.close().await;
}

/// Waits until the connection is doubted, or no more. Cancel-safe.
async fn next_doubt(doubts: &mut Option<watch::Receiver<Option<Doubt>>>) -> Option<Doubt> {
    if let Some(doubts) = doubts
        && doubts.changed().await.is_ok()
    {
        return *doubts.borrow_and_update();
    }
    // The connection has ended, which it tells itself.
    pending().await
}

async fn next_step(beside: &mut Option<Task<(Sought, Step)>>) -> (Sought, Step) {
    match beside {
        Some(task) => task
            .await
            .unwrap_or_else(|error| (Sought::default(), Step::Failed(ConnectError::Protocol(error.to_string())))),
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A random number for the jitter.
fn random_number() -> u32 {
    u32::from_ne_bytes(random().expect("the system has randomness: TLS came before"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::packet_source::BoxFuture;
    use crate::packet_source::tests::no_packets;
    use crate::protocols::Credentials;
    use crate::protocols::connect_ip::tests::connection;

    const LONG: Duration = Duration::from_secs(60);

    /// A gateway that nothing leads to.
    pub(crate) fn nowhere() -> GatewayAccess {
        GatewayAccess {
            host: "gw.example".to_owned(),
            port: 443,
            addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9))].into(),
            authority_pem: String::new(),
            pin: None,
            credentials: Credentials::Login,
            login: None,
            mark: None,
        }
    }

    /// A memory that never answers.
    struct Forgotten;

    impl NetworkMemory for Forgotten {
        fn here(&self, _gateway: IpAddr) -> BoxFuture<'_, Option<Arc<dyn KnownNetwork>>> {
            Box::pin(pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_that_does_not_answer_holds_up_no_attempt() {
        let memory =
            timeout(LONG, Memory::of(Some(Arc::new(Forgotten)), &nowhere())).await.expect("it is not waited for");
        assert!(!memory.sought.blocks_udp);
    }

    #[tokio::test]
    async fn session_that_is_to_be_opened_anew_is_over() {
        let (quic, _gateway) = connection(no_packets()).await;
        let memory = Memory { networks: None, sought: Sought::default(), noting: None };
        let mut opened =
            ChangingConnection::begin(EitherConnection::Quic(quic), Arc::new(nowhere()), no_packets(), memory);
        assert!(matches!(opened.next_event().await, ConnectionEvent::Network(_)));
        // Both have failed, and then the gateway is back by TLS.
        let now = now();
        opened.change.handle_doubt(true, now);
        opened.change.handle_failed(0, now);
        opened.change.handle_timeout(now + LONG);
        opened.change.handle_proven(now + LONG);
        opened.change.handle_timeout(now + LONG * 2);
        for _ in 0..2 {
            let event = timeout(LONG, opened.next_event()).await.expect("it is told at once");
            assert!(matches!(event, ConnectionEvent::Closed(_)), "{event:?}");
            opened.make_way(true);
            opened.make_way(false);
            assert!(opened.beside.is_none() && opened.proven.is_none(), "no other connection is made");
        }
    }
}
