//! Whole connections over the loopback, to a gateway made of the network crate's parts.

use std::future::pending;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use adit_net::carrier::counters::Counters;
use adit_net::carrier::esp::{EspSettings, exporter_secret};
use adit_net::carrier::quic::Datagrams;
use adit_net::carrier::{Carried, Carriers};
use adit_net::http::h3::{H3Connection, RequestStream};
use adit_net::tun::Tun;
use adit_net::udp::{Group, bind_group};
use adit_net::worker::{DataPlane, Routing, Settings, Workers};
use adit_program::task::{self, Task};
use adit_proto::connect_ip::request::{Incoming, Request};
use adit_proto::connect_ip::server::{Assignment, Server, ServerEvent};
use adit_proto::drop_reason::DropReason;
use adit_proto::esp::capsule::{EspCapsule, FLAG_EXTENDED_SEQUENCE, SaInit};
use adit_proto::esp::field::{Answer, Offer};
use adit_proto::esp::spi::Spi;
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::packet::IpPacket;
use adit_proto::role::Role;
use adit_proto::sealing::suite::Suite;
use arc_swap::ArcSwapOption;
use data_encoding::BASE64;
use tokio::sync::mpsc;

use super::*;
use crate::host_plan::own_hosts;
use crate::packet_path::{DEFAULT_MTU, PacketPath, PacketPathSettings};
use crate::packet_source::{PacketWorkers, Packets};
use crate::protocols::connect_ip::Connection;
use crate::protocols::connect_ip::dial::tests::gateway_on;
use crate::protocols::{ConnectError, ConnectionEvent, Credentials, GatewayAccess, OpenConnection};
use adit_testing::namespace::{in_namespace_async, ip, up};

const PATIENCE: Duration = Duration::from_secs(20);

/// A session as the gateway's worker sees it.
struct Peer(Carriers);

impl Carried for Peer {
    fn carriers(&self) -> &Carriers {
        &self.0
    }
}

/// Sends what comes from the gateway's device to the one client; tells the test what comes from that.
struct GatewayRouting {
    peer: ArcSwapOption<Peer>,
    arrived: mpsc::Sender<IpAddr>,
    counters: Counters,
}

impl Routing for GatewayRouting {
    type Session = Peer;

    fn session_of(&self, _packet: &IpPacket) -> Option<Arc<Peer>> {
        self.peer.load_full()
    }

    fn admit(&self, _peer: &Peer, packet: &IpPacket) -> Result<(), DropReason> {
        self.arrived.try_send(packet.destination).unwrap();
        Err(DropReason::DestinationNotLeased)
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// What a gateway does when the test says so.
enum Order {
    /// Send a capsule, against the rules.
    Send(EspCapsule),
    /// Forget the keys of ESP, as by a restart, but keep the QUIC connection.
    Forget,
}

/// What the gateway heard of ESP from its client.
#[derive(Default)]
struct Heard {
    /// The request offered it.
    offered: AtomicBool,
    /// Bytes of capsules, of which the client sends no others here.
    content: AtomicUsize,
}

impl Heard {
    fn offered(&self) -> bool {
        self.offered.load(Ordering::Relaxed)
    }

    fn content(&self) -> usize {
        self.content.load(Ordering::Relaxed)
    }
}

/// A gateway with one client.
struct Gateway {
    target: GatewayAccess,
    heard: Arc<Heard>,
    arrived: mpsc::Receiver<IpAddr>,
    /// What the gateway is made to do.
    orders: mpsc::Sender<Order>,
    _serving: Task,
}

/// Starts a gateway that permits what is given, and has the device `gateway0` with a route to the client's address.
fn gateway(permitted: Option<Offer>) -> Gateway {
    ip("link set lo up");
    let tun = Tun::create("gateway0", 1, true).unwrap();
    ip("address add 10.64.9.1/24 dev gateway0");
    up("gateway0");
    ip("route add 10.64.3.2/32 dev gateway0");
    let Group { main, esp } = bind_group("127.0.0.1:0".parse().unwrap(), 1, true).unwrap();
    let address = main.local_addr().unwrap();
    let (endpoint, authority) = gateway_on(main);
    let (arrived, arriving) = mpsc::channel(1024);
    let routing = Arc::new(GatewayRouting { peer: ArcSwapOption::empty(), arrived, counters: Counters::default() });
    let sockets = vec![esp.into_iter().map(Arc::new).collect()];
    let workers = Workers::start(&routing, tun.queues(), sockets, Settings::default()).unwrap();
    let (ordering, orders) = mpsc::channel(1);
    let heard = Arc::new(Heard::default());
    let hearing = Arc::clone(&heard);
    let serving = async move {
        let quic = endpoint.accept().await.unwrap().await.unwrap();
        let http = H3Connection::start(quic, Role::Server);
        let stream = http.accept_request().await.unwrap();
        let plane = Arc::clone(workers.handle()) as Arc<dyn DataPlane<Peer>>;
        serve(&http, stream, permitted, &routing, plane, &hearing, orders).await;
        drop((workers, tun));
    };
    let authority_pem =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(&authority));
    let target = GatewayAccess {
        host: "gw.example".to_owned(),
        port: address.port(),
        addresses: vec![address].into(),
        authority_pem,
        pin: None,
        credentials: Credentials::Token("t".to_owned()),
        login: None,
        mark: None,
    };
    Gateway { target, heard, arrived: arriving, orders: ordering, _serving: task::spawn(serving) }
}

/// Serves one tunnel until it ends.
async fn serve(
    http: &H3Connection,
    mut stream: RequestStream,
    permitted: Option<Offer>,
    routing: &GatewayRouting,
    plane: Arc<dyn DataPlane<Peer>>,
    heard: &Heard,
    mut orders: mpsc::Receiver<Order>,
) {
    let Some(MessageEvent::Headers(fields)) = stream.next_event().await.unwrap() else { panic!("no request") };
    let Ok(Incoming::ConnectIp(request)) = Request::parse(&fields) else { panic!("another request") };
    stream.expect_tunnel();
    heard.offered.store(request.esp.is_some(), Ordering::Relaxed);
    let answer = permitted.and_then(|permitted| permitted.choose(request.esp.as_ref()?));
    let assignment = Assignment { addresses: vec!["10.64.3.2/32".parse().unwrap()], ..Assignment::default() };
    let mut machine = Server::new(&request, assignment, answer);
    stream.send_headers(&machine.response()).await.unwrap();
    let datagrams = Arc::new(Datagrams::new(http.quic().clone(), stream.id()));
    let peer = Arc::new(Peer(Carriers::new(datagrams)));
    routing.peer.store(Some(Arc::clone(&peer)));
    let mut esp = answer.map(|negotiated| server(negotiated, http.quic(), plane, &peer));
    let mut forget = false;
    loop {
        while let Some(capsule) = esp.as_mut().and_then(EspControl::poll_capsule) {
            machine.send_esp(capsule);
        }
        while let Some(bytes) = machine.poll_transmit() {
            stream.send_data(&bytes).await.unwrap();
        }
        let kept = async {
            match &mut esp {
                Some(esp) => esp.drive().await.unwrap(),
                None => pending().await,
            }
        };
        tokio::select! {
            event = stream.next_event() => match event {
                Ok(Some(MessageEvent::Data(data))) => {
                    heard.content.fetch_add(data.len(), Ordering::Relaxed);
                    machine.handle_data(&data).unwrap();
                }
                _ => return,
            },
            () = kept => {}
            Some(order) = orders.recv() => match order {
                Order::Send(capsule) => machine.send_esp(capsule),
                Order::Forget => forget = true,
            },
        }
        if forget {
            esp = None;
        }
        while let Some(event) = machine.poll_event() {
            if let (ServerEvent::Esp(capsule), Some(esp)) = (event, &mut esp) {
                esp.handle_capsule(capsule, Instant::now()).unwrap();
            }
        }
    }
}

fn server(
    negotiated: Answer,
    quic: &quinn::Connection,
    plane: Arc<dyn DataPlane<Peer>>,
    peer: &Arc<Peer>,
) -> EspControl<Peer> {
    let mut secret = exporter_secret(quic).unwrap();
    let (session, policy) = (Arc::clone(peer), EspSettings::default().policy);
    let setup = EspSetup { negotiated, secret: &mut secret, plane, session, policy, largest_packet: DEFAULT_MTU };
    EspControl::server(setup, Instant::now())
}

/// A client's packet path over `adit0`, which 10.99.0.0/16 is routed to.
fn packet_path(esp: Option<EspSettings>) -> Arc<PacketPath> {
    let settings = PacketPathSettings { esp, udp_offload: true, ..PacketPathSettings::default() };
    let path = PacketPath::start(Tun::create("adit0", 1, true).unwrap(), settings).unwrap();
    ip("address add 192.0.2.1/32 dev adit0");
    up("adit0");
    ip("route add 10.99.0.0/16 dev adit0");
    Arc::new(path)
}

async fn connect(gateway: &Gateway, path: &Arc<PacketPath>) -> Connection {
    let opening =
        Connection::open(&gateway.target, Packets::Device(Arc::clone(path) as Arc<dyn PacketWorkers>), PATIENCE);
    let mut connection = opening.await.unwrap_or_else(|error| panic!("{error}"));
    let ConnectionEvent::Network(network) = connection.next_event().await else { panic!("no settings come first") };
    connection.admit(own_hosts(&network));
    connection.attach();
    connection
}

/// Waits for the next MTU.
async fn next_mtu(connection: &mut Connection) -> u16 {
    loop {
        match tokio::time::timeout(PATIENCE, connection.next_event()).await.unwrap() {
            ConnectionEvent::Mtu(mtu) => return mtu,
            // The gateway tells that it has no routes, maybe after the addresses.
            ConnectionEvent::Network(_) | ConnectionEvent::Carrier => {}
            event @ (ConnectionEvent::LoginLasts(_) | ConnectionEvent::Silent(_) | ConnectionEvent::Closed(_)) => {
                panic!("{event:?}")
            }
        }
    }
}

/// Sends packets to the client until one arrived, by whatever carrier.
async fn receive(connection: &Connection) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let before = connection.stats().rx_packets;
    let received = async {
        while connection.stats().rx_packets == before {
            socket.send_to(b"down", "10.64.3.2:9").unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, received).await.unwrap();
}

/// Sends packets both ways until one arrived in each direction.
async fn exchange(gateway: &mut Gateway, connection: &Connection) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let before = connection.stats().rx_packets;
    let exchanged = async {
        socket.send_to(b"up", "10.99.0.1:9").unwrap();
        assert_eq!(gateway.arrived.recv().await, Some("10.99.0.1".parse().unwrap()));
        socket.send_to(b"down", "10.64.3.2:9").unwrap();
        while connection.stats().rx_packets == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, exchanged).await.unwrap();
}

#[test]
fn packets_go_by_esp_once_it_is_up_and_the_mtu_follows() {
    in_namespace_async(|| async {
        let mut gateway = gateway(Some(Offer::default()));
        let path = packet_path(Some(EspSettings::default()));
        let mut connection = connect(&gateway, &path).await;
        while next_mtu(&mut connection).await != DEFAULT_MTU {}
        exchange(&mut gateway, &connection).await;
        let stats = connection.stats();
        assert_eq!((stats.carrier, stats.suite), ("esp", Some("aes-256-gcm")));
        assert!(stats.tx_packets > 0 && stats.drops.is_empty(), "{stats:?}");
        assert!(gateway.heard.offered() && gateway.heard.content() > 0, "what others must not say is heard");
        drop(connection);
        assert_eq!(path.plane().claim_spi(None).map(|spi| spi.worker()), Some(0), "the path outlives the connection");
    });
}

#[test]
fn gateway_that_does_not_permit_esp_gets_no_capsule_of_it() {
    in_namespace_async(|| async {
        let gateway = gateway(None);
        let path = packet_path(Some(EspSettings::default()));
        let mut connection = connect(&gateway, &path).await;
        let mtu = next_mtu(&mut connection).await;
        assert_ne!(mtu, DEFAULT_MTU);
        receive(&connection).await;
        let stats = connection.stats();
        assert_eq!((stats.carrier, stats.suite), ("quic", None));
        assert!(gateway.heard.offered());
        assert_eq!(gateway.heard.content(), 0);
    });
}

#[test]
fn client_without_esp_does_not_offer_it() {
    in_namespace_async(|| async {
        let gateway = gateway(Some(Offer::default()));
        let connection = connect(&gateway, &packet_path(None)).await;
        receive(&connection).await;
        assert_eq!(connection.stats().carrier, "quic");
        assert_eq!((gateway.heard.offered(), gateway.heard.content()), (false, 0));
    });
}

#[test]
fn gateway_that_breaks_the_rules_of_esp_loses_its_client() {
    in_namespace_async(|| async {
        let gateway = gateway(Some(Offer::default()));
        let path = packet_path(Some(EspSettings::default()));
        let mut connection = connect(&gateway, &path).await;
        while next_mtu(&mut connection).await != DEFAULT_MTU {}
        let spi = Spi::choose(0, || 0x1234, |_| false).unwrap();
        let share = bytes::Bytes::new();
        let strange =
            SaInit { epoch: 7, suite: Suite::Aes256Gcm, flags: FLAG_EXTENDED_SEQUENCE, spi, group: None, share };
        gateway.orders.send(Order::Send(EspCapsule::SaInit(strange))).await.unwrap();
        let ended = async {
            loop {
                if let ConnectionEvent::Closed(error) = connection.next_event().await {
                    return error;
                }
            }
        };
        let error = tokio::time::timeout(PATIENCE, ended).await.unwrap();
        assert!(matches!(error, ConnectError::Protocol(_)), "{error:?}");
        assert_eq!(connection.stats().carrier, "quic", "its security associations outlived it");
    });
}

#[test]
fn gateway_is_asked_by_quic_as_soon_as_esp_is_in_doubt() {
    in_namespace_async(|| async {
        let mut gateway = gateway(Some(Offer::default()));
        let path = packet_path(Some(EspSettings::default()));
        let mut connection = connect(&gateway, &path).await;
        while next_mtu(&mut connection).await != DEFAULT_MTU {}
        exchange(&mut gateway, &connection).await;
        let asked = || connection.quic.stats().frame_tx.stream;
        gateway.orders.send(Order::Forget).await.unwrap();
        // There is room for an order again once the gateway has received this one. It obeys a moment later; packets are
        // sent until that shows. Keys are agreed on since the exchange, so the client has nothing else to say.
        drop(gateway.orders.reserve().await.unwrap());
        let before = asked();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let doubt = async {
            while asked() == before {
                socket.send_to(b"up", "10.99.0.1:9").unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, doubt).await.unwrap();
        assert_eq!(connection.stats().carrier, "esp", "it was asked before ESP was given up");
        while connection.stats().carrier == "esp" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(connection.quic.close_reason(), None, "a frame without content breaks no rule");
    });
}
