use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetStruct;
use nix::unistd::Uid;

use super::*;
use adit_host::{LinkSettings, Netlink};
use adit_testing::namespace::{in_namespace, in_namespace_async};
use adit_testing::{eventually, skip};

const LOOPBACK: &str = "127.0.0.1:0";
/// Loopback delivers within the call that sends; this is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const STRIDE: usize = 1452;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A socket bound to one address of loopback.
fn bound(text: &str, offload: bool) -> EspSocket {
    bind_group(address(text), 1, offload).unwrap().esp.remove(0)
}

/// The next message, if one comes in time.
fn next(socket: &EspSocket, patience: Duration) -> Option<(Message, Vec<u8>)> {
    let mut buffer = vec![0; 65_536];
    let deadline = Instant::now() + patience;
    loop {
        match socket.receive(&mut buffer) {
            Ok(message) => return Some((message, buffer[..message.len].to_vec())),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Datagrams of `STRIDE` bytes for worker 0, each filled with its number, the last one shorter.
fn datagrams(count: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count).flat_map(|number| [&[0x80][..], &[number; STRIDE - 1]].concat()).collect();
    bytes.truncate(bytes.len() - 100);
    bytes
}

/// Receives until there are `len` bytes; returns them and what was said of each message.
fn gather(socket: &EspSocket, len: usize) -> (Vec<Message>, Vec<u8>) {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    while bytes.len() < len {
        let (message, content) = next(socket, PATIENCE).expect("datagrams are missing");
        messages.push(message);
        bytes.extend(content);
    }
    (messages, bytes)
}

#[test]
fn many_datagrams_go_and_come_in_one_call_each() {
    for loopback in [LOOPBACK, "[::1]:0"] {
        let (sender, receiver) = (bound(loopback, true), bound(loopback, true));
        let sent = datagrams(45);
        let report = sender.send(receiver.local_addr().unwrap(), None, &sent, STRIDE, 0);
        assert!((report.datagrams, report.error.is_none()) == (45, true));
        let (message, content) = next(&receiver, PATIENCE).unwrap();
        let from = sender.local_addr().unwrap();
        let waited = message.waited;
        let whole = Message { len: sent.len(), segment: STRIDE, from, local: None, ecn: 0, waited, truncated: false };
        assert_eq!(message, whole);
        assert_eq!(content, sent);
    }
}

#[test]
fn message_tells_how_long_it_waited() {
    for loopback in [LOOPBACK, "[::1]:0"] {
        let (sender, receiver) = (bound(loopback, true), bound(loopback, true));
        let (pause, deadline) = (Duration::from_millis(20), Instant::now() + PATIENCE);
        // The kernel begins to take times a little after it is asked to, for the first socket of the host.
        loop {
            sender.send(receiver.local_addr().unwrap(), None, &datagrams(3), STRIDE, 0);
            thread::sleep(pause);
            let waited = next(&receiver, PATIENCE).unwrap().0.waited;
            assert!(waited < PATIENCE, "{waited:?}");
            if waited >= pause {
                break;
            }
            assert!(Instant::now() < deadline, "{waited:?}");
        }
    }
}

#[test]
fn without_offloads_the_same_datagrams_go_one_by_one() {
    let (sender, receiver) = (bound(LOOPBACK, false), bound(LOOPBACK, false));
    let sent = datagrams(45);
    let report = sender.send(receiver.local_addr().unwrap(), None, &sent, STRIDE, 0);
    assert_eq!(report.datagrams, 45);
    let (messages, content) = gather(&receiver, sent.len());
    assert_eq!((messages.len(), content), (45, sent));
    assert!(messages.iter().all(|message| message.segment == message.len));
}

/// A refusal that lies so far back that the kernel may be asked again.
fn after_a_pause() -> OffloadPause {
    let past = Instant::now() - 2 * FIRST_PAUSE;
    let segmentation = OffloadPause::new(true, past);
    assert_eq!(segmentation.handle_refusal(past), FIRST_PAUSE);
    segmentation
}

/// Whether the kernel has refused nothing, so that no clock is needed to know whether it may be asked.
fn works(socket: &EspSocket) -> bool {
    socket.segmentation.is_due(|| unreachable!("there was a refusal"))
}

#[derive(Clone, Copy)]
struct NoCheck;
nix::setsockopt_impl!(NoCheck, libc::SOL_SOCKET, libc::SO_NO_CHECK, libc::c_int, SetStruct<libc::c_int>);

#[test]
fn kernel_that_refuses_to_segment_gets_datagrams_one_by_one_and_is_asked_again_later() {
    let (mut sender, receiver) = (bound(LOOPBACK, true), bound(LOOPBACK, true));
    // The kernel segments nothing whose checksum it may not compute.
    let set_checksums = |sender: &EspSocket, off: libc::c_int| setsockopt(sender, NoCheck, &off).unwrap();
    let sent = datagrams(5);
    let pass = |sender: &EspSocket| {
        let report = sender.send(receiver.local_addr().unwrap(), None, &sent, STRIDE, 0);
        assert!((report.datagrams, report.error.is_none()) == (5, true));
        let (messages, content) = gather(&receiver, sent.len());
        assert_eq!(content, sent);
        messages.len()
    };
    set_checksums(&sender, 1);
    assert_eq!([pass(&sender), pass(&sender)], [5; 2]);
    set_checksums(&sender, 0);
    assert_eq!(pass(&sender), 5, "not asked again so soon");
    sender.segmentation = after_a_pause();
    set_checksums(&sender, 1);
    assert_eq!([pass(&sender), pass(&sender)], [5; 2], "refused again");
    set_checksums(&sender, 0);
    sender.segmentation = after_a_pause();
    assert_eq!([pass(&sender), pass(&sender)], [1; 2]);
    assert!(works(&sender));
}

#[test]
fn too_large_datagrams_are_reported_and_cost_no_offload() {
    in_namespace_async(|| async {
        let settings = LinkSettings { mtu: Some(1500), up: Some(true), gso_max_segs: None };
        Netlink::open().unwrap().set_link("lo", settings).await.unwrap();
        let (sender, receiver) = (bound(LOOPBACK, true), bound(LOOPBACK, true));
        let to = receiver.local_addr().unwrap();
        for datagrams in [&[0x80; 1473][..], &[0x80; 3 * 1473]] {
            let report = sender.send(to, None, datagrams, 1473, 0);
            assert_eq!(report.datagrams, 0);
            assert_eq!(report.error.unwrap().raw_os_error(), Some(libc::EMSGSIZE));
        }
        assert!(works(&sender));
        assert_eq!(sender.send(to, None, &[0x80; 3 * 1472], 1472, 0).datagrams, 3);
    });
}

#[test]
fn unreachable_destination_is_reported() {
    in_namespace(|| {
        let sender = bind_any(false, None, true).unwrap();
        let report = sender.send(address("192.0.2.1:4500"), None, &[0x80; 3000], 1400, 0);
        assert_eq!((report.datagrams, report.error.unwrap().raw_os_error()), (0, Some(libc::ENETUNREACH)));
        assert!(works(&sender));
    });
}

#[test]
fn short_buffer_is_reported() {
    let (sender, receiver) = (bound(LOOPBACK, true), bound(LOOPBACK, true));
    sender.send(receiver.local_addr().unwrap(), None, &[0x80; 100], 100, 0);
    let message = eventually("datagram", || receiver.receive(&mut [0; 40]).ok());
    assert!((message.len, message.segment, message.truncated) == (40, 40, true));
}

#[test]
fn ecn_bits_arrive() {
    for loopback in [LOOPBACK, "[::1]:0"] {
        let (sender, receiver) = (bound(loopback, true), bound(loopback, true));
        for ecn in 0..4 {
            sender.send(receiver.local_addr().unwrap(), None, &datagrams(3), STRIDE, ecn);
            assert_eq!(next(&receiver, PATIENCE).unwrap().0.ecn, ecn, "{loopback}");
        }
    }
}

#[test]
fn ipv4_passes_an_ipv6_wildcard_as_ipv4() {
    let (client, gateway) = (bind_any(true, None, true).unwrap(), bound(LOOPBACK, true));
    let sent = datagrams(3);
    client.send(gateway.local_addr().unwrap(), None, &sent, STRIDE, 2);
    let (request, content) = next(&gateway, PATIENCE).unwrap();
    assert_eq!((request.from.ip(), request.ecn, content), (ip("127.0.0.1"), 2, sent.clone()));
    gateway.send(request.from, None, &sent, STRIDE, 1);
    let (answer, content) = next(&client, PATIENCE).unwrap();
    assert_eq!((answer.from, answer.segment, content), (gateway.local_addr().unwrap(), STRIDE, sent));
    assert_eq!((answer.local, answer.ecn), (None, 1), "the source address of a client follows its routes");
}

#[test]
fn wildcard_answers_from_the_address_that_was_asked() {
    let cases = [
        ("0.0.0.0:0", "127.0.0.1:0", "127.0.0.2"),
        ("[::]:0", "127.0.0.1:0", "127.0.0.2"),
        ("[::]:0", "[::1]:0", "::1"),
    ];
    for (wildcard, from, asked) in cases {
        let (gateway, client) = (bound(wildcard, true), bound(from, true));
        let asked = SocketAddr::new(ip(asked), gateway.local_addr().unwrap().port());
        client.send(asked, None, &datagrams(2), STRIDE, 0);
        let (request, _) = next(&gateway, PATIENCE).unwrap();
        assert_eq!(request.local, Some(asked.ip()), "{wildcard}");
        for ecn in [0, 2] {
            let report = gateway.send(request.from, request.local, &datagrams(2), STRIDE, ecn);
            assert!((report.datagrams, report.error.is_none()) == (2, true));
            let (answer, _) = next(&client, PATIENCE).unwrap();
            assert_eq!((answer.from, answer.ecn), (asked, ecn), "{wildcard}");
        }
    }
}

/// First bytes of what a socket of a group got.
fn first_bytes(count: usize, mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>) -> BTreeMap<u8, usize> {
    let (mut buffer, mut found) = ([0; 2048], BTreeMap::new());
    eventually("datagrams", || {
        while let Ok(len) = receive(&mut buffer) {
            *found.entry(if len == 0 { 0xee } else { buffer[0] }).or_default() += 1;
        }
        (found.values().sum::<usize>() >= count).then_some(())
    });
    found
}

#[test]
fn first_byte_chooses_the_socket() {
    const PORTS: usize = 40;
    const WORKERS: u8 = 3;
    for wildcard in [LOOPBACK, "[::]:0"] {
        let group = bind_group(address(wildcard), WORKERS.into(), false).unwrap();
        let port = group.main.local_addr().unwrap().port();
        let other_bytes = [0x00, 0x40, 0x7f, 0xc0, 0xff, 0x80 | WORKERS, 0x80 | 63];
        for number in 0..PORTS {
            let targets: &[&str] = if wildcard == LOOPBACK { &["127.0.0.1"] } else { &["127.0.0.1", "::1"] };
            let target = SocketAddr::new(ip(targets[number % targets.len()]), port);
            let sender = bind_any(target.is_ipv6(), None, true).unwrap();
            for byte in other_bytes.into_iter().chain((0..WORKERS).map(|worker| 0x80 | worker)) {
                assert_eq!(sender.send(target, None, &[byte; 20], 20, 0).datagrams, 1);
            }
            let empty = sender.socket.send_to(&[], &sender.address(target).into()).unwrap();
            assert_eq!(empty, 0);
        }
        for (worker, socket) in (0..WORKERS).zip(&group.esp) {
            let found = first_bytes(PORTS, |buffer| Ok(socket.receive(buffer)?.len));
            assert_eq!(found, BTreeMap::from([(0x80 | worker, PORTS)]), "{wildcard}");
        }
        let expected: BTreeMap<_, _> = other_bytes.into_iter().chain([0xee]).map(|byte| (byte, PORTS)).collect();
        let found = first_bytes(expected.len() * PORTS, |buffer| group.main.recv(buffer));
        assert_eq!(found, expected, "{wildcard}");
    }
}

#[test]
fn records_of_dtls_go_by_their_epoch_and_their_senders_port() {
    const WORKERS: usize = 3;
    for wildcard in [LOOPBACK, "[::]:0"] {
        let group = bind_group(address(wildcard), WORKERS, false).unwrap();
        let dtls = bind_dtls(&group).unwrap();
        let port = group.main.local_addr().unwrap().port();
        let mut expected = [0; WORKERS];
        for number in 0..20 {
            let targets: &[&str] = if wildcard == LOOPBACK { &["127.0.0.1"] } else { &["127.0.0.1", "::1"] };
            let target = SocketAddr::new(ip(targets[number % targets.len()]), port);
            let sender = bind_any(target.is_ipv6(), None, true).unwrap();
            for content in 20..24 {
                for epoch in [0, 1] {
                    let record = [content, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 0, 0, 0];
                    assert_eq!(sender.send(target, None, &record, record.len(), 0).datagrams, 1);
                }
            }
            expected[dtls_worker(sender.local_addr().unwrap(), WORKERS)] += 1;
            // None of these is a record; what is too short for one is nobody's either.
            for other in [&[19, 0xfe, 0xfd, 0, 1, 0][..], &[24, 0xfe, 0xfd, 0, 0, 0], &[22, 0xfe, 0xfd, 0]] {
                assert_eq!(sender.send(target, None, other, other.len(), 0).datagrams, 1);
            }
            assert_eq!(sender.send(target, None, &[0x80; 13], 13, 0).datagrams, 1);
        }
        let each = |count: usize| (20..24).map(|content| (content, count)).collect::<BTreeMap<_, _>>();
        assert_eq!(first_bytes(80, |buffer| Ok(dtls.receive(buffer)?.len)), each(20), "{wildcard}");
        for (worker, (socket, &senders)) in group.esp.iter().zip(&expected).enumerate() {
            let of_esp = if worker == 0 { 20 } else { 0 };
            let mut found = first_bytes(4 * senders + of_esp, |buffer| Ok(socket.receive(buffer)?.len));
            assert_eq!(found.remove(&0x80).unwrap_or(0), of_esp);
            found.retain(|_, count| *count > 0);
            assert_eq!(found, if senders > 0 { each(senders) } else { BTreeMap::new() }, "{wildcard} {worker}");
        }
        let found = first_bytes(60, |buffer| group.main.recv(buffer));
        assert_eq!(found, BTreeMap::from([(19, 20), (22, 20), (24, 20)]), "{wildcard}");
    }
}

#[test]
fn port_for_dtls_alone_steers_records_as_any_other_and_gives_its_door_the_rest() {
    const WORKERS: usize = 3;
    for wildcard in [LOOPBACK, "[::]:0"] {
        let group = bind_dtls_group(address(wildcard), WORKERS, false).unwrap();
        let bound = group.door.local_addr().unwrap();
        assert!(bind_group(bound, 1, false).is_err(), "nobody joins it");
        let mut expected = [0; WORKERS];
        for number in 0..20 {
            let targets: &[&str] = if wildcard == LOOPBACK { &["127.0.0.1"] } else { &["127.0.0.1", "::1"] };
            let target = SocketAddr::new(ip(targets[number % targets.len()]), bound.port());
            let sender = bind_any(target.is_ipv6(), None, true).unwrap();
            for epoch in [0, 1] {
                let record = [23, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 0, 0, 0];
                assert_eq!(sender.send(target, None, &record, record.len(), 0).datagrams, 1);
            }
            assert_eq!(sender.send(target, None, &[0x80; 13], 13, 0).datagrams, 1, "ESP has no worker here");
            expected[dtls_worker(sender.local_addr().unwrap(), WORKERS)] += 1;
        }
        let found = first_bytes(40, |buffer| Ok(group.door.receive(buffer)?.len));
        assert_eq!(found, BTreeMap::from([(23, 20), (0x80, 20)]), "{wildcard}");
        for (socket, senders) in group.workers.iter().zip(expected) {
            let mut found = first_bytes(senders, |buffer| Ok(socket.receive(buffer)?.len));
            assert_eq!(found.remove(&23).unwrap_or(0), senders, "{wildcard}");
            assert!(found.is_empty());
        }
    }
    assert!(bind_dtls_group(address(LOOPBACK), 0, false).is_err());
}

#[test]
fn messages_of_many_datagrams_are_steered_as_one() {
    let group = bind_group(address(LOOPBACK), 2, true).unwrap();
    let sender = bind_any(false, None, true).unwrap();
    let sent = [0x81; 40 * STRIDE];
    assert_eq!(sender.send(group.main.local_addr().unwrap(), None, &sent, STRIDE, 0).datagrams, 40);
    let (message, _) = next(&group.esp[1], PATIENCE).unwrap();
    assert_eq!((message.len, message.segment), (sent.len(), STRIDE));
}

#[test]
fn address_in_use_is_reported_to_a_second_gateway() {
    for (first, second) in
        [(LOOPBACK, "127.0.0.1"), ("[::]:0", "::"), ("[::]:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1")]
    {
        let group = bind_group(address(first), 2, true).unwrap();
        let same_port = SocketAddr::new(ip(second), group.main.local_addr().unwrap().port());
        for workers in [0, 2] {
            let refused = bind_group(same_port, workers, true).err().map(|error| error.kind());
            assert_eq!(refused, Some(io::ErrorKind::AddrInUse), "{first} {second}");
        }
        drop(group);
        assert_eq!(bind_group(same_port, 2, true).unwrap().esp.len(), 2);
    }
}

#[test]
fn address_in_use_is_reported_beside_a_plain_socket() {
    let plain = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let refused = bind_group(plain.local_addr().unwrap(), 2, true).err().map(|error| error.kind());
    assert_eq!(refused, Some(io::ErrorKind::AddrInUse));
}

#[test]
fn more_workers_than_an_index_can_name_are_refused() {
    let refused = bind_group(address(LOOPBACK), 65, true).err().map(|error| error.kind());
    assert_eq!(refused, Some(io::ErrorKind::InvalidInput));
    assert_eq!(bind_group(address(LOOPBACK), 64, true).unwrap().esp.len(), 64);
}

#[test]
fn mark_is_set() {
    if !Uid::effective().is_root() {
        return skip("needs root to mark packets");
    }
    let socket = bind_any(false, Some(7), true).unwrap();
    assert_eq!(socket.socket.mark().unwrap(), 7);
}
