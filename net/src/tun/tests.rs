use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use adit_proto::offload::MAX_SUPERPACKET_LEN;
use adit_proto::offload::superpacket::Superpacket;
use adit_proto::offload::virtio::{self, VirtioHeader};
use adit_proto::packet::checksum::Checksum;

use super::*;
use adit_host::{LinkSettings, Netlink};
use adit_testing::namespace::in_namespace;

const MTU: u16 = 1420;
/// Headers of TCP with timestamps.
const TCP_HEADERS: usize = 52;
const UDP_HEADERS: usize = 28;
const PATIENCE: Duration = Duration::from_secs(20);
const LINK: &str = "adit0";

/// Makes a device with an address, up, in the thread's namespace.
fn device(queues: usize, offload: bool, address: &str) -> Tun {
    let tun = Tun::create(LINK, queues, offload).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let netlink = Netlink::open().unwrap();
        let settings = LinkSettings { mtu: Some(MTU.into()), up: Some(true), gso_max_segs: Some(45) };
        netlink.set_link(LINK, settings).await.unwrap();
        netlink.add_address(LINK, address.parse().unwrap()).await.unwrap();
    });
    tun
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

fn creation(name: &str, queues: usize) -> Result<(), io::ErrorKind> {
    Tun::create(name, queues, true).map(drop).map_err(|error| error.kind())
}

/// One packet, its virtio-net header in front, read into several pieces.
fn read(queue: &Queue) -> io::Result<(VirtioHeader, Vec<u8>)> {
    let (mut header, mut head, mut rest) = ([0; virtio::LEN], vec![0; 100], vec![0; MAX_SUPERPACKET_LEN]);
    let mut pieces = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut head), IoSliceMut::new(&mut rest)];
    let length = queue.read_vectored(&mut pieces)?;
    head.append(&mut rest);
    head.truncate(length - virtio::LEN);
    Ok((VirtioHeader::decode(&header), head))
}

/// The next packet that is IPv4.
fn next(queue: &Queue) -> Option<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match read(queue) {
            Ok((_, packet)) if packet[0] >> 4 == 4 => return Some(packet),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    None
}

#[test]
fn name_in_use_is_reported_whoever_has_it() {
    in_namespace(|| {
        for (held, wanted) in [(1, 1), (1, 4), (4, 1), (4, 4)] {
            let device = Tun::create(LINK, held, true).unwrap();
            assert_eq!((device.name(), device.queues().len()), (LINK, held));
            assert_eq!(creation(LINK, wanted), Err(io::ErrorKind::ResourceBusy), "{held} {wanted}");
            drop(device);
            assert_eq!(creation(LINK, wanted), Ok(()), "it disappears with its last queue");
        }
        for kind in ["mode tun", "mode tun multi_queue", "mode tap"] {
            ip(&format!("tuntap add {LINK} {kind}"));
            for queues in [1, 2] {
                assert_eq!(creation(LINK, queues), Err(io::ErrorKind::ResourceBusy), "{kind} {queues}");
            }
            ip(&format!("link delete {LINK}"));
        }
        assert_eq!(creation("lo", 1), Err(io::ErrorKind::ResourceBusy));
    });
}

#[test]
fn what_cannot_be_a_device_is_refused() {
    for (name, queues) in [("", 1), ("a-name-far-too-long", 1), ("adit%d", 1), ("nul\0", 1), (LINK, 0)] {
        assert_eq!(creation(name, queues), Err(io::ErrorKind::InvalidInput), "{name}");
    }
}

#[test]
fn device_that_somebody_else_opened_is_taken_over() {
    in_namespace(|| {
        let opened = device(1, true, "10.9.0.1/24");
        let given = opened.queues()[0].as_fd().try_clone_to_owned().unwrap();
        nix::fcntl::fcntl(&given, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        let taken = Tun::from_fd(given).unwrap();
        drop(opened);
        assert_eq!((taken.name(), taken.queues().len()), (LINK, 1));
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"packet", "10.9.0.2:53").unwrap();
        assert!(next(&taken.queues()[0]).is_some_and(|packet| packet.ends_with(b"packet")));
        while read(&taken.queues()[0]).is_ok() {}
        assert_eq!(
            read(&taken.queues()[0]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock,
            "it does not block any more"
        );
    });
}

#[test]
fn what_is_no_device_with_virtio_headers_is_not_taken_over() {
    in_namespace(|| {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert_eq!(Tun::from_fd(file.into()).err().and_then(|error| error.raw_os_error()), Some(libc::ENOTTY));
        let unattached = std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        assert_eq!(Tun::from_fd(unattached.into()).err().and_then(|error| error.raw_os_error()), Some(libc::EBADFD));
    });
}

#[test]
fn queue_of_a_deleted_device_fails() {
    in_namespace(|| {
        let tun = device(2, true, "10.9.0.1/24");
        ip(&format!("link delete {LINK}"));
        for queue in tun.queues() {
            let error = read(queue).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
        }
    });
}

/// What passed between two devices.
#[derive(Default)]
struct Passed {
    largest: usize,
    superpackets: usize,
    unfinished: usize,
}

/// Moves packets both ways, as they are, until nobody holds `running` any more.
fn relay(tuns: &[Arc<Queue>; 2], running: &mpsc::Receiver<()>) -> Passed {
    let mut passed = Passed::default();
    while running.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
        let mut idle = true;
        for (from, to) in [(0, 1), (1, 0)] {
            while let Ok((header, packet)) = read(&tuns[from]) {
                idle = false;
                let parsed = Superpacket::parse(header, &packet, packet.len()).unwrap();
                passed.largest = passed.largest.max(packet.len());
                passed.superpackets += usize::from(parsed.segments > 1);
                passed.unfinished += usize::from(header.flags & virtio::NEEDS_CSUM != 0);
                let (head, rest) = packet.split_at(packet.len().min(30));
                let header = header.encode();
                let pieces = [&header[..], head, rest].map(IoSlice::new);
                assert_eq!(tuns[to].write_vectored(&pieces).unwrap(), virtio::LEN + packet.len());
            }
        }
        if idle {
            thread::sleep(Duration::from_micros(100));
        }
    }
    passed
}

/// Sends `sent` over TCP from one namespace to another through two devices; returns what arrived.
fn send_by_tcp(sent: Vec<u8>, offload: bool) -> (Vec<u8>, Passed) {
    let near = device(1, offload, "10.9.0.1/24");
    let (ready, far) = mpsc::sync_channel(1);
    let receiver = thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let tun = device(1, offload, "10.9.0.2/24");
        let listener = TcpListener::bind("10.9.0.2:80").unwrap();
        ready.send(tun).unwrap();
        let mut received = Vec::new();
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    let far = far.recv().unwrap();
    let (running, stopped) = mpsc::sync_channel::<()>(1);
    let queues = [Arc::clone(&near.queues()[0]), Arc::clone(&far.queues()[0])];
    let relaying = thread::spawn(move || relay(&queues, &stopped));
    let mut stream = TcpStream::connect_timeout(&"10.9.0.2:80".parse().unwrap(), PATIENCE).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&sent).unwrap();
    drop(stream);
    let received = receiver.join().unwrap();
    drop(running);
    (received, relaying.join().unwrap())
}

fn content() -> Vec<u8> {
    (0..2_000_000_u32).map(|position| position.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

#[test]
fn tcp_flow_passes_as_superpackets_no_larger_than_asked_for() {
    in_namespace(|| {
        let (received, passed) = send_by_tcp(content(), true);
        assert!(received == content());
        assert!(passed.superpackets > 10 && passed.unfinished >= passed.superpackets);
        let segment = usize::from(MTU) - TCP_HEADERS;
        assert!((10 * segment..=TCP_HEADERS + 45 * segment).contains(&passed.largest), "{}", passed.largest);
    });
}

#[test]
fn without_offloads_a_tcp_flow_passes_as_finished_packets() {
    in_namespace(|| {
        let (received, passed) = send_by_tcp(content(), false);
        assert!(received == content());
        assert_eq!((passed.superpackets, passed.unfinished, passed.largest), (0, 0, usize::from(MTU)));
    });
}

/// A UDP packet from 10.9.0.2 to 10.9.0.1 whose checksum covers the pseudo-header alone.
fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let addresses = [10, 9, 0, 2, 10, 9, 0, 1];
    let length = u16::try_from(UDP_HEADERS + payload.len()).unwrap();
    let mut header = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0x40, 0, 64, 17, 0, 0], &addresses].concat();
    let sum = Checksum::new().with(&header).finish().to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    let udp_length = length - 20;
    let partial = Checksum::pseudo_header(&addresses, udp_length.into(), 17).fold();
    [&header[..], &[from, to, udp_length, partial].map(u16::to_be_bytes).concat(), payload].concat()
}

fn udp_header(gso_size: u16) -> VirtioHeader {
    let hdr_len = u16::try_from(UDP_HEADERS).unwrap();
    let gso_type = if gso_size > 0 { virtio::GSO_UDP_L4 } else { virtio::GSO_NONE };
    VirtioHeader { flags: virtio::NEEDS_CSUM, gso_type, hdr_len, gso_size, csum_start: 20, csum_offset: 6 }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn written_superpacket_reaches_a_socket_as_datagrams() {
    in_namespace(|| {
        let tun = device(1, true, "10.9.0.1/24");
        let socket = socket();
        let payload: Vec<u8> = [[1; 1000], [2; 1000], [3; 1000]].concat();
        let packet = udp(4000, socket.local_addr().unwrap().port(), &payload);
        let header = udp_header(1000).encode();
        let (headers, payload) = packet.split_at(UDP_HEADERS);
        let pieces = [&header[..], headers, &payload[..1500], &payload[1500..]].map(IoSlice::new);
        assert_eq!(tun.queues()[0].write_vectored(&pieces).unwrap(), virtio::LEN + packet.len());
        for number in 1..=3 {
            let mut datagram = [0; 2000];
            assert_eq!(socket.recv(&mut datagram).unwrap(), 1000);
            assert_eq!(datagram[..1000], [number; 1000]);
        }
    });
}

#[test]
fn answers_come_out_of_the_queue_that_wrote() {
    in_namespace(|| {
        let tun = device(4, true, "10.9.0.1/24");
        let socket = socket();
        let port = socket.local_addr().unwrap().port();
        for (number, queue) in (0_u16..).zip(tun.queues()) {
            for from in [4000 + number, 5000 + number] {
                let (header, packet) = (udp_header(0).encode(), udp(from, port, b"question"));
                queue.write_vectored(&[IoSlice::new(&header), IoSlice::new(&packet)]).unwrap();
                let (_, asked_from) = socket.recv_from(&mut [0; 100]).unwrap();
                assert_eq!(asked_from.port(), from);
                socket.send_to(b"answer", asked_from).unwrap();
                let answer = next(queue).expect("the answer came out of another queue");
                assert_eq!((&answer[22..24], &answer[28..]), (&from.to_be_bytes()[..], &b"answer"[..]));
            }
        }
    });
}

#[test]
fn any_thread_may_send_packets_one_by_one() {
    in_namespace(|| {
        let tun = device(2, true, "10.9.0.1/24");
        let socket = socket();
        let port = socket.local_addr().unwrap().port();
        // A checksum of zero is none (RFC 768).
        let mut packet = udp(4000, port, &[7; 500]);
        packet[26..28].fill(0);
        thread::scope(|scope| {
            for queue in tun.queues() {
                scope.spawn(|| assert_eq!(queue.send(&[&packet, &packet, &packet]), 3));
            }
        });
        for _ in 0..6 {
            assert_eq!(socket.recv(&mut [0; 1000]).unwrap(), 500);
        }
    });
}
