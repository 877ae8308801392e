//! The workers of a client with a device, and a gateway made of the pure parts behind a socket.

use std::net::UdpSocket;
use std::num::NonZeroU16;

use adit_net::carrier::esp::EspSettings;
use adit_net::testing::Keeper;
use adit_net::tun::Tun;
use adit_program::task;
use adit_proto::dtls::greeting::{Greeter, Greeting};
use adit_proto::packet::checksum::Checksum;
use adit_testing::namespace::{in_namespace_async, ip, up};
use tokio::time::{sleep, timeout};

use super::*;
use crate::packet_path::{PacketPath, PacketPathSettings};
use crate::packet_source::Packets;

const PATIENCE: Duration = Duration::from_secs(20);
const APP_ID: [u8; APP_ID_LEN] = [0xa5; APP_ID_LEN];
const PSK: [u8; PSK_LEN] = [6; PSK_LEN];

fn setup(random: [u8; 32]) -> Setup {
    let credential = Credential::PreSharedKey { key: Zeroizing::new(PSK.to_vec()), suites: CipherSuite::PSK.to_vec() };
    Setup { credential, session_id: APP_ID.to_vec(), random, largest_datagram: HANDSHAKE }
}

/// A packet that came, and from where.
type Arrived = (Vec<u8>, SocketAddr);

/// A gateway that answers questions in records, and hands out the packets in them.
struct Gateway {
    socket: tokio::net::UdpSocket,
    greeter: Greeter,
    succession: Succession<Cipher, Arc<Outbound<Cipher>>>,
    packets: mpsc::Sender<Arrived>,
    /// A packet for the client, which overtakes the end of the handshake.
    first: Vec<u8>,
}

impl Gateway {
    async fn serve(mut self) {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await.unwrap();
            let (datagram, now) = (&mut buffer[..length], Instant::now());
            // What is refused is repeated, or the test fails.
            match self.greeter.greet(datagram, from, now) {
                Ok(Greeting::Ask(answer)) => {
                    self.socket.send_to(&answer, from).await.unwrap();
                }
                Ok(Greeting::Proven(hello)) => {
                    assert_eq!(hello.session, APP_ID);
                    let setup = || setup(random().unwrap());
                    self.succession.handle_hello(&hello, from, (), datagram, setup, now).ok();
                }
                Err(_no_hello) => {
                    self.succession.handle_datagram(datagram, from, (), now).ok();
                }
            }
            let handshake: Vec<_> = from_fn(|| self.succession.poll_transmit()).collect();
            while let Some(change) = self.succession.poll_change() {
                match change {
                    Change::Established(to) => self.say(FrameKind::Data, &self.first, to).await,
                    Change::Data(body) => self.handle_record(&body, from).await,
                    Change::Closed(_) => {}
                }
            }
            for (to, (), datagram) in handshake {
                self.socket.send_to(&datagram, to).await.unwrap();
            }
        }
    }

    async fn handle_record(&mut self, body: &[u8], from: SocketAddr) {
        match record::split(body).unwrap() {
            (FrameKind::DpdRequest, payload) => self.say(FrameKind::DpdResponse, payload, from).await,
            (FrameKind::Data, packet) => {
                self.packets.try_send((packet.to_vec(), from)).ok();
            }
            other => panic!("{other:?}"),
        }
    }

    async fn say(&self, kind: FrameKind, payload: &[u8], to: SocketAddr) {
        let sa = self.succession.outbound().unwrap();
        let sealed = sa.record(ContentType::ApplicationData, &record::encode(kind, payload)).unwrap();
        self.socket.send_to(&sealed, to).await.unwrap();
    }
}

/// A UDP packet from 10.64.3.9 to 10.64.3.2, from port 9 to this one.
fn packet(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(28 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 64, 3, 9, 10, 64, 3, 2, 0, 9, 0, 0, 0, 0, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    let checksum = Checksum::new().with(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&packet, payload].concat()
}

async fn turn(mut records: Records) {
    loop {
        records.turn().await;
    }
}

/// Waits until something is so.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn packets_go_in_records_of_the_gateway_and_of_nobody_else() {
    in_namespace_async(|| async {
        ip("link set lo up");
        let settings = PacketPathSettings { esp: Some(EspSettings::default()), ..PacketPathSettings::default() };
        let path = Arc::new(PacketPath::start(Tun::create("adit0", 1, true).unwrap(), settings).unwrap());
        ip("address add 10.64.3.2/24 dev adit0");
        up("adit0");
        let host = tokio::net::UdpSocket::bind("10.64.3.2:0").await.unwrap();

        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (packets, mut arriving) = mpsc::channel(64);
        let greeter = Greeter::new(random().unwrap(), Instant::now());
        let first = packet(host.local_addr().unwrap().port(), b"early");
        let gateway = Gateway { socket, greeter, succession: Succession::default(), packets, first };
        let _serving = task::spawn(gateway.serve());

        let data = Arc::new(DataPath::new(Arc::new(Keeper::new(1420)), Packets::Device(path)));
        data.set_addresses(vec!["10.64.3.2".parse().unwrap()]);
        data.begin();
        let port = NonZeroU16::new(address.port()).unwrap();
        let settings = DtlsSettings { port, app_id: APP_ID, dpd: None, keepalive: None };
        let terms = Terms { psk: Zeroizing::new(PSK), settings };
        // TCP has another port.
        let records = Records::new(terms, "127.0.0.1:1".parse().unwrap(), &data).unwrap();
        let session = Arc::clone(data.session());
        let turning = task::spawn(turn(records));
        eventually("packets go in records", || session.carriers().name() == "dtls").await;
        assert_eq!(session.carriers().mtu(), 1420, "as much as the connection takes");

        let mut early = [0; 16];
        let (length, _) = timeout(PATIENCE, host.recv_from(&mut early)).await.expect("it is not lost").unwrap();
        assert_eq!(&early[..length], b"early", "it came before a worker could open it");
        assert_eq!(session.carriers().counters().traffic().rx_packets, 1);

        host.send_to(b"hello", "10.64.3.9:9").await.unwrap();
        let arrived = timeout(PATIENCE, async {
            loop {
                let (packet, from) = arriving.recv().await.unwrap();
                if packet.ends_with(b"hello") {
                    return from;
                }
            }
        });
        let client = arrived.await.expect("a packet arrives");

        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(&[23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 3, 1, 2, 3], client).unwrap();
        let refused = (DropReason::NotConnected.label(), 1);
        eventually("a stranger is refused", || session.carriers().counters().traffic().drops.contains(&refused)).await;
        assert_eq!(session.carriers().name(), "dtls");

        drop(turning);
        eventually("the end of records", || session.carriers().name() == "quic").await;
    });
}

#[test]
fn gateway_is_where_its_connection_is_as_datagrams_name_it() {
    for (connection, expected) in [
        ("192.0.2.1:443", "192.0.2.1:4443"),
        ("[2001:db8::1]:443", "[2001:db8::1]:4443"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1:4443"),
        ("[fe80::1%3]:443", "[fe80::1%3]:4443"),
    ] {
        assert_eq!(beside(connection.parse().unwrap(), 4443), expected.parse().unwrap(), "{connection}");
    }
}
