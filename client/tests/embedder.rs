//! The library in an embedder's hands: packets and host of its own, and none of the program's features needed.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_client::host_plan::{HostFault, HostHooks};
use adit_client::packet_source::{BoxFuture, PacketSource, Packets};
use adit_client::profile::Profile;
use adit_client::protocols::NetworkSettings;
use adit_client::run::{ClientSession, SessionConfig};
use adit_client::state::{Obstacle, State};
use adit_net::carrier::Carrier;
use adit_net::carrier::quic::Datagrams;
use adit_net::http::h3::H3Connection;
use adit_net::packet_buffer::PacketBuffer;
use adit_net::{quic, tls};
use adit_program::exit::{Exit, Failure};
use adit_program::task::{self, Task};
use adit_proto::connect_ip::request::{Incoming, Request};
use adit_proto::connect_ip::server::{Assignment, Server};
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::packet::checksum::Checksum;
use adit_proto::range::RouteRange;
use adit_proto::role::Role;
use bytes::Bytes;
use ipnet::IpNet;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::sync::mpsc;

/// How long anything may take before a test fails.
const LIMIT: Duration = Duration::from_secs(20);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 64, 3, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 9);

/// The embedder's end of the tunnel: two channels.
struct ChannelDevice {
    outgoing: tokio::sync::Mutex<mpsc::Receiver<PacketBuffer>>,
    incoming: mpsc::Sender<Bytes>,
}

impl PacketSource for ChannelDevice {
    fn receive<'a>(&'a self, batch: &'a mut Vec<PacketBuffer>, _limit: usize) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async {
            let packet = self.outgoing.lock().await.recv().await;
            batch.push(packet.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn deliver(&self, packets: &[Bytes]) -> usize {
        packets.iter().take_while(|packet| self.incoming.try_send((*packet).clone()).is_ok()).count()
    }
}

/// What a session asked of the embedder's host, in order; refuses settings if it is told to.
#[derive(Clone, Default)]
struct RecordedHost {
    asked: Arc<Mutex<Vec<String>>>,
    refusal: Option<HostFault>,
}

impl RecordedHost {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    /// What was asked, but for the MTU, which depends on the path.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|what| !what.starts_with("mtu")).cloned().collect()
    }
}

impl HostHooks for RecordedHost {
    fn apply<'a>(&'a mut self, settings: &'a NetworkSettings) -> BoxFuture<'a, Result<(), HostFault>> {
        Box::pin(async {
            self.note(format!("apply {:?}", settings.addresses));
            self.refusal.clone().map_or(Ok(()), Err)
        })
    }

    fn set_mtu(&mut self, mtu: u16) -> BoxFuture<'_, Result<(), HostFault>> {
        self.note(format!("mtu {mtu}"));
        Box::pin(async { Ok(()) })
    }

    fn undo(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.note("undo".to_owned());
        Box::pin(async { Ok(()) })
    }

    fn device(&self) -> Option<&str> {
        Some("embedded0")
    }
}

/// A gateway on the loopback that gives one client [`CLIENT`] and sends its packets back with source and destination
/// swapped.
struct EchoGateway {
    address: SocketAddr,
    authority_pem: String,
    _serving: Task,
}

impl EchoGateway {
    fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = params.self_signed(&key).unwrap();
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, key)).unwrap();
        let leaf_key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
        let identity = tls::ServerIdentity::new(vec![leaf.into(), authority.der().clone()], leaf_key).unwrap();
        let config = tls::server_config(Arc::new(identity), authority.der()).unwrap();
        let keys = quic::EndpointKeys { reset: [1; 32], token: [2; 32], connection_id: 3 };
        let socket = quic::bind((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
        let endpoint = quic::server_endpoint(socket, config, &keys).unwrap();
        let address = endpoint.local_addr().unwrap();
        Self { address, authority_pem: authority.pem(), _serving: task::spawn(serve(endpoint)) }
    }

    /// A profile for this gateway, as one would be written by hand.
    fn profile(&self) -> Profile {
        let (port, authority) = (self.address.port(), &self.authority_pem);
        let text = format!("host = '127.0.0.1'\nport = {port}\ntoken = 't'\nauthority = '''\n{authority}'''\n");
        Profile::parse("home".parse().unwrap(), &text).unwrap()
    }
}

/// Serves one client until it leaves.
async fn serve(endpoint: quinn::Endpoint) {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let http = H3Connection::start(connection, Role::Server);
    let mut stream = http.accept_request().await.unwrap();
    let Some(MessageEvent::Headers(fields)) = stream.next_event().await.unwrap() else { panic!("no request") };
    let Ok(Incoming::ConnectIp(request)) = Request::parse(&fields) else { panic!("another request") };
    stream.expect_tunnel();
    let everything: IpNet = "0.0.0.0/0".parse().unwrap();
    let assignment = Assignment {
        addresses: vec![IpNet::from(std::net::IpAddr::from(CLIENT))],
        routes: vec![everything.into()],
        dns: None,
    };
    let mut machine = Server::new(&request, assignment, None);
    stream.send_headers(&machine.response()).await.unwrap();
    while let Some(capsules) = machine.poll_transmit() {
        stream.send_data(&capsules).await.unwrap();
    }
    let datagrams = Datagrams::new(http.quic().clone(), stream.id());
    let mut arrived = Vec::new();
    while datagrams.receive(&mut arrived, 16).await.is_ok() {
        let mut answers = arrived.drain(..).map(|packet| PacketBuffer::copy_from(&swapped(&packet))).collect();
        datagrams.send(&mut answers);
    }
}

/// An IPv4 packet with source and destination exchanged, which changes no checksum.
fn swapped(packet: &[u8]) -> Vec<u8> {
    [&packet[..12], &packet[16..20], &packet[12..16], &packet[20..]].concat()
}

/// An empty UDP packet.
fn packet(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&[0, 9, 0, 9, 0, 8, 0, 0]);
    let checksum = Checksum::new().with(&packet[..20]).finish().to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    packet
}

/// A session of the embedder, and its ends of the device.
fn start(
    gateway: &EchoGateway,
    host: &RecordedHost,
) -> (ClientSession, mpsc::Sender<PacketBuffer>, mpsc::Receiver<Bytes>) {
    let (outgoing, sent) = mpsc::channel(16);
    let (incoming, received) = mpsc::channel(16);
    let device = ChannelDevice { outgoing: tokio::sync::Mutex::new(sent), incoming };
    let session = ClientSession::start(SessionConfig {
        profile: gateway.profile(),
        packets: Packets::Embedder(Arc::new(device)),
        host: Some(Box::new(host.clone())),
        patience: Some(LIMIT),
        mark: None,
        store: None,
        networks: None,
    });
    (session, outgoing, received)
}

#[tokio::test]
async fn embedder_connects_with_packets_and_host_of_its_own() {
    let (gateway, host) = (EchoGateway::start(), RecordedHost::default());
    let (session, outgoing, mut received) = start(&gateway, &host);
    let mut snapshots = session.snapshots();
    let connected = snapshots.wait_for(|snapshot| snapshot.state == State::Connected);
    let snapshot = tokio::time::timeout(LIMIT, connected).await.unwrap().unwrap().clone();
    let network = snapshot.network.unwrap();
    assert_eq!(network.routes, [RouteRange::from("0.0.0.0/0".parse::<IpNet>().unwrap())]);
    assert_eq!(host.asked(), ["apply [10.64.3.2/32]"], "settings are in force before packets flow");

    outgoing.send(PacketBuffer::copy_from(&packet(CLIENT, PEER))).await.unwrap();
    let answer = tokio::time::timeout(LIMIT, received.recv()).await.unwrap().unwrap();
    assert_eq!(answer, packet(PEER, CLIENT));
    let status = session.handle().status().await.unwrap();
    assert_eq!((status.carrier.as_deref(), status.tun.as_deref()), (Some("quic"), Some("embedded0")));

    session.handle().stop().await;
    session.wait().await.unwrap();
    assert_eq!(host.asked().last().map(String::as_str), Some("undo"));
}

#[tokio::test]
async fn host_that_refuses_ends_the_first_connection_in_its_own_words() {
    let failure = Failure::new(Exit::Permission, "VPN service", "it is switched off", "switch it on");
    let refusal = HostFault { obstacle: Obstacle::Permission, failure: failure.clone() };
    let (gateway, host) = (EchoGateway::start(), RecordedHost { refusal: Some(refusal), ..RecordedHost::default() });
    let (session, _outgoing, _received) = start(&gateway, &host);
    let ended = tokio::time::timeout(LIMIT, session.wait()).await.unwrap();
    assert_eq!(ended, Err(failure));
    assert_eq!(host.asked(), ["apply [10.64.3.2/32]", "undo"]);
}
