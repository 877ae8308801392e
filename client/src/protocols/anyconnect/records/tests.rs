//! The workers of a client with a device, and a gateway made of the pure parts behind a socket.

use std::net::UdpSocket;
use std::num::NonZeroU16;

use adit_net::carrier::esp::EspSettings;
use adit_net::testing::Keeper;
use adit_net::tun::Tun;
use adit_program::task;
use adit_proto::anyconnect::frame::FrameKind;
use adit_proto::anyconnect::record;
use adit_proto::dtls::greeting::{Greeter, Greeting};
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
            while let Some((to, (), datagram)) = self.succession.poll_transmit() {
                self.socket.send_to(&datagram, to).await.unwrap();
            }
            while let Some(change) = self.succession.poll_change() {
                if let Change::Data(body) = change {
                    self.handle_record(&body, from).await;
                }
            }
        }
    }

    async fn handle_record(&mut self, body: &[u8], from: SocketAddr) {
        match record::split(body).unwrap() {
            (FrameKind::DpdRequest, payload) => {
                let answer = record::encode(FrameKind::DpdResponse, payload);
                let sa = self.succession.outbound().unwrap();
                let answer = sa.record(ContentType::ApplicationData, &answer).unwrap();
                self.socket.send_to(&answer, from).await.unwrap();
            }
            (FrameKind::Data, packet) => {
                self.packets.try_send((packet.to_vec(), from)).ok();
            }
            other => panic!("{other:?}"),
        }
    }
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
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (packets, mut arriving) = mpsc::channel(64);
        let greeter = Greeter::new(random().unwrap(), Instant::now());
        let gateway = Gateway { socket, greeter, succession: Succession::default(), packets };
        let _serving = task::spawn(gateway.serve());

        let settings = PacketPathSettings { esp: Some(EspSettings::default()), ..PacketPathSettings::default() };
        let path = Arc::new(PacketPath::start(Tun::create("adit0", 1, true).unwrap(), settings).unwrap());
        ip("address add 10.64.3.2/24 dev adit0");
        up("adit0");
        let data = DataPath::new(Arc::new(Keeper::new(1420)), Packets::Device(path));
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

        let host = UdpSocket::bind("10.64.3.2:0").unwrap();
        host.send_to(b"hello", "10.64.3.9:9").unwrap();
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
