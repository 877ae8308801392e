//! What workers work between: a TUN device in the thread's network namespace, a router, and a peer behind a UDP socket.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::capsule::{FLAG_EXTENDED_SEQUENCE, SaInit};
use adit_proto::esp::keys::{EpochKeys, KeyChain};
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};
use adit_proto::esp::sa::{Acceptance, Inbound, IvRule, Outbound};
use adit_proto::esp::spi::Spi;
use adit_proto::offload::split::Checksums;
use adit_proto::packet::IpPacket;
use adit_proto::packet::checksum::Checksum;
use adit_proto::sealing::suite::Suite;
use adit_testing::namespace::ip;
use tokio::sync::mpsc;

use super::Keeper;
use crate::carrier::counters::Counters;
use crate::carrier::{Carried, Carrier, Carriers, DatagramRoute, Origin, OutboundSa};
use crate::cipher::Cipher;
use crate::tun::Tun;
use crate::udp::{DatagramSocket as _, EspSocket, Group, Message, bind_any, bind_dtls, bind_group};
use crate::worker::{DataPlane, Installation, Report, Routing, Settings, Workers};

/// Of the TUN device.
pub const MTU: u16 = 1420;
/// How long anything may take, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const LINK: &str = "adit0";

/// A session of the tests.
pub struct Session {
    pub carriers: Carriers,
}

impl Carried for Session {
    fn carriers(&self) -> &Carriers {
        &self.carriers
    }
}

/// Routes by destination, and admits packets from the same addresses.
pub struct Router {
    pub sessions: Vec<(IpAddr, Arc<Session>)>,
    pub counters: Counters,
}

impl Routing for Router {
    type Session = Session;

    fn session_of(&self, packet: &IpPacket) -> Option<Arc<Session>> {
        self.sessions.iter().find(|(address, _)| *address == packet.destination).map(|(_, session)| Arc::clone(session))
    }

    fn admit(&self, session: &Session, packet: &IpPacket) -> Result<(), DropReason> {
        let is_own = |(address, owner): &(IpAddr, Arc<Session>)| {
            *address == packet.source && std::ptr::eq::<Session>(&**owner, session)
        };
        if self.sessions.iter().any(is_own) { Ok(()) } else { Err(DropReason::SourceNotLeased) }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// Makes a device, up and with the addresses 10.9.0.`host` and fd09::`host`.
pub fn device(queues: usize, host: u8) -> Tun {
    let tun = Tun::create(LINK, queues, true).unwrap();
    ip(&format!("link set {LINK} mtu {MTU} up"));
    for address in [format!("10.9.0.{host}/24"), format!("fd09::{host}/64")] {
        ip(&format!("address add {address} dev {LINK}"));
    }
    ip("link set lo up");
    tun
}

/// The SAs of both ends.
pub struct Sas {
    pub near: (Outbound<Cipher>, Inbound<Cipher>),
    pub far: (Outbound<Cipher>, Inbound<Cipher>),
}

/// SAs between an end that receives on `near` and one that receives on `far`. Only the far one is sure to take vouched
/// packets.
pub fn sas(near: Spi, far: Spi, near_takes_vouched: bool) -> Sas {
    let keys = || keys(near, far);
    let accept = |vouched| Acceptance { iv: IvRule::IsSequence, vouched };
    let sealing = |spi, keys| Outbound::new(spi, keys).unwrap();
    Sas {
        near: (
            sealing(far, keys().client_to_server),
            Inbound::new(near, keys().server_to_client, accept(near_takes_vouched)).unwrap(),
        ),
        far: (
            sealing(near, keys().server_to_client),
            Inbound::new(far, keys().client_to_server, accept(true)).unwrap(),
        ),
    }
}

fn keys(near: Spi, far: Spi) -> EpochKeys {
    let init = |spi| SaInit {
        epoch: 0,
        suite: Suite::Aes256Gcm,
        flags: FLAG_EXTENDED_SEQUENCE,
        spi,
        group: None,
        share: Default::default(),
    };
    KeyChain::new(&mut [7; 32]).advance(&init(near), &init(far), None).unwrap()
}

/// One session more, and the carrier of its connection.
pub fn session() -> (Arc<Session>, Arc<Keeper>) {
    let keeper = Arc::new(Keeper::new(MTU));
    (Arc::new(Session { carriers: Carriers::new(Arc::clone(&keeper) as Arc<dyn Carrier>) }), keeper)
}

/// Running workers with two sessions, of which the first sends by ESP.
pub struct World {
    pub workers: Workers<Session>,
    pub tun: Tun,
    pub router: Arc<Router>,
    /// That of 10.9.0.2 and fd09::2.
    pub session: Arc<Session>,
    pub keeper: Arc<Keeper>,
    /// That of 10.9.0.3.
    pub other: Arc<Session>,
    pub peer: Peer,
    pub reports: mpsc::Receiver<Report>,
    pub near: Spi,
    /// Without them the kernel would number the workers' sockets anew.
    _others: (UdpSocket, EspSocket),
}

impl World {
    /// One worker for each of `queues` queues; `vouched` if both ends take vouched packets.
    pub fn new(queues: usize, vouched: bool) -> Self {
        let tun = device(queues, 1);
        let group = bind_group("127.0.0.1:0".parse().unwrap(), queues, true).unwrap();
        let dtls = bind_dtls(&group).unwrap();
        let Group { main, esp } = group;
        let to = main.local_addr().unwrap();
        let sockets = esp.into_iter().map(|socket| vec![Arc::new(socket)]).collect();
        let ((session, keeper), (other, _)) = (session(), session());
        let addresses = [("10.9.0.2", &session), ("fd09::2", &session), ("10.9.0.3", &other)];
        let sessions = addresses.map(|(address, session)| (address.parse().unwrap(), Arc::clone(session))).into();
        let router = Arc::new(Router { sessions, counters: Counters::default() });
        let workers = Workers::start(&router, tun.queues(), sockets, Settings::default()).unwrap();
        let near = workers.handle().claim_spi(None).unwrap();
        let sas = sas(near, Spi::new(0, 1).unwrap(), vouched);
        let (sender, reports) = mpsc::channel(16);
        let peer = Peer::new(to, sas.far);
        session.carriers.set_route(Some(route(sas.near.0, peer.address(), vouched)));
        let installation = Installation { sa: sas.near.1, epoch: 0, session: Arc::clone(&session), reports: sender };
        workers.handle().install(installation);
        Self { workers, tun, router, session, keeper, other, peer, reports, near, _others: (main, dtls) }
    }

    /// The session's counters.
    pub fn counters(&self) -> &Counters {
        self.session.carriers.counters()
    }
}

/// A socket outside of the tunnel, and its address on loopback.
pub fn outer() -> (EspSocket, SocketAddr) {
    let socket = bind_any(false, None, true).unwrap();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), socket.local_addr().unwrap().port());
    (socket, address)
}

/// How to send to a peer.
pub fn route(sa: Outbound<Cipher>, to: SocketAddr, vouched: bool) -> DatagramRoute {
    DatagramRoute { sa: OutboundSa::Esp(Arc::new(sa)), to, origin: Origin::default(), mtu: MTU, vouched, marked: true }
}

/// The other end of a session.
pub struct Peer {
    pub socket: EspSocket,
    address: SocketAddr,
    to: SocketAddr,
    pub sealing: Outbound<Cipher>,
    opening: Inbound<Cipher>,
    buffer: Box<[u8]>,
    arrived: VecDeque<Arrived>,
    messages: usize,
}

/// A packet that reached the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    pub packet: Vec<u8>,
    pub next_header: NextHeader,
    /// Of the outer header.
    pub ecn: u8,
    /// The number of the message it came in.
    pub message: usize,
}

impl Peer {
    pub fn new(to: SocketAddr, (sealing, opening): (Outbound<Cipher>, Inbound<Cipher>)) -> Self {
        let (socket, address) = outer();
        let buffer = vec![0; 65_536].into();
        Self { socket, address, to, sealing, opening, buffer, arrived: VecDeque::new(), messages: 0 }
    }

    /// Where the workers are.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens the packets of one message, if there is one.
    pub fn receive(&mut self, mut each: impl FnMut(&[u8], NextHeader, &Message)) -> bool {
        let Ok(message) = self.socket.receive(&mut self.buffer) else { return false };
        assert!(!message.truncated);
        for datagram in self.buffer[..message.len].chunks_mut(message.segment) {
            let opened = self.opening.open(datagram).expect("the peer opens what it gets");
            each(&datagram[opened.range()], opened.next_header, &message);
        }
        true
    }

    /// The next packet; `None` if none comes in time.
    pub fn next(&mut self, patience: Duration) -> Option<Arrived> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(arrived) = self.arrived.pop_front() {
                return Some(arrived);
            }
            let (mut new, number) = (Vec::new(), self.messages);
            let came = self.receive(|packet, next_header, message| {
                new.push(Arrived { packet: packet.to_vec(), next_header, ecn: message.ecn, message: number });
            });
            self.messages += usize::from(came);
            self.arrived.extend(new);
            if !came && Instant::now() > deadline {
                return None;
            }
            if !came {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Seals packets one behind the other.
    pub fn seal(&self, packets: &[Vec<u8>], vouched: bool) -> Vec<u8> {
        let next_header = |packet: &Vec<u8>| NextHeader::of_packet(packet, vouched).unwrap();
        packets.iter().flat_map(|packet| self.seal_one(packet, next_header(packet))).collect()
    }

    pub fn seal_one(&self, packet: &[u8], next_header: NextHeader) -> Vec<u8> {
        seal(&self.sealing, packet, next_header)
    }

    /// Sends datagrams of `segment` bytes each.
    pub fn send(&self, datagrams: &[u8], segment: usize, ecn: u8) {
        let sent = self.socket.send(self.to, None, datagrams, segment, ecn);
        assert!(sent.error.is_none(), "{:?}", sent.error);
    }

    /// Seals packets as long as the first, but for the last, and sends them at once.
    pub fn send_packets(&self, packets: &[Vec<u8>], vouched: bool) {
        self.send(&self.seal(packets, vouched), sealed_len(packets[0].len()), 0);
    }
}

pub fn seal(sa: &Outbound<Cipher>, packet: &[u8], next_header: NextHeader) -> Vec<u8> {
    let mut slot = vec![0; sealed_len(packet.len())];
    slot[PREFIX_LEN..PREFIX_LEN + packet.len()].copy_from_slice(packet);
    let sealed = sa.reserve(1, packet.len()).unwrap().seal(&mut slot, packet.len(), next_header).unwrap();
    assert_eq!(sealed, slot.len());
    slot
}

/// A UDP packet from 10.9.0.`host` to port `to` of 10.9.0.1.
#[derive(Clone, Copy)]
pub struct Udp {
    pub host: u8,
    pub from: u16,
    pub to: u16,
    pub id: u16,
    pub ecn: u8,
    pub checksum: Checksums,
}

impl Udp {
    pub fn to(to: u16, checksum: Checksums) -> Self {
        Self { host: 2, from: 4000, to, id: 1, ecn: 0, checksum }
    }

    pub fn build(self, payload: &[u8]) -> Vec<u8> {
        let addresses = [10, 9, 0, self.host, 10, 9, 0, 1];
        let udp_len = u16::try_from(8 + payload.len()).unwrap();
        let [len, id] = [20 + udp_len, self.id].map(u16::to_be_bytes);
        let mut packet = [&[0x45, self.ecn][..], &len, &id, &[0x40, 0, 64, 17, 0, 0], &addresses].concat();
        let sum = Checksum::new().with(&packet).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        let pseudo = Checksum::pseudo_header(&addresses, udp_len.into(), 17);
        let upper = [self.from, self.to, udp_len].map(u16::to_be_bytes).concat();
        let whole = pseudo.with(&upper).with(&[0, 0]).with(payload).finish();
        let field = match self.checksum {
            Checksums::Partial => pseudo.fold(),
            Checksums::Full if whole == 0 => 0xffff,
            Checksums::Full => whole,
        };
        packet.extend(upper);
        packet.extend(field.to_be_bytes());
        packet.extend(payload);
        packet
    }
}

/// Packets of one flow with these payloads and identifications that grow by one.
pub fn flow(first: Udp, payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
    (first.id..).zip(payloads).map(|(id, payload)| Udp { id, ..first }.build(payload)).collect()
}

/// Fails unless a UDP or TCP packet without IP options has the checksums its next header promises; returns where its
/// UDP or TCP header begins.
pub fn check(packet: &[u8], next_header: NextHeader) -> usize {
    let ip = IpPacket::parse(packet).unwrap();
    let (start, addresses) = if ip.source.is_ipv6() { (40, 8..40) } else { (20, 12..20) };
    assert!(start == 40 || Checksum::new().with(&packet[..start]).finish() == 0, "IPv4 header checksum");
    let upper = &packet[start..];
    let pseudo = Checksum::pseudo_header(&packet[addresses], u32::try_from(upper.len()).unwrap(), ip.protocol);
    if next_header.is_vouched() {
        let field = if ip.protocol == 6 { 16 } else { 6 };
        assert_eq!(upper[field..field + 2], pseudo.fold().to_be_bytes(), "partial checksum");
    } else {
        assert_eq!(pseudo.with(upper).finish(), 0, "complete checksum");
    }
    start
}
