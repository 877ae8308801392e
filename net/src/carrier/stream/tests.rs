use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_program::task::{self, Task};
use adit_proto::capsule::{Capsule, encode};
use adit_testing::namespace::{in_namespace_async, ip};
use rustls::{ClientConnection, ServerConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::*;
use crate::carrier::tls::Capsules;
use crate::testing::stream::{sealed_before_an_alert, shaken};

/// Both ends of a connection whose handshake is done.
async fn connected() -> ((TcpStream, ServerConnection), (TcpStream, ClientConnection)) {
    let (server, client) = shaken().await;
    (server, client.into_inner())
}

#[tokio::test]
async fn segments_fit_a_path_of_1280_bytes_in_both_directions() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).await.unwrap();
        let near = open(listener.local_addr().unwrap(), None).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        for socket in [&near, &far] {
            let segment = socket2::SockRef::from(socket).tcp_mss().unwrap();
            assert!((1_000..=1_220).contains(&segment), "{address}: {segment}");
        }
    }
}

/// One end of a stream, with what came to it.
struct End<F> {
    carrier: Arc<StreamCarrier<F>>,
    packets: mpsc::Receiver<Bytes>,
    others: mpsc::Receiver<Bytes>,
    pump: Task<std::io::Result<()>>,
}

fn end<F: Framing + Default>(connection: (TcpStream, impl Into<rustls::Connection>), early: &[u8]) -> End<F> {
    let carrier = StreamCarrier::<F>::new(connection.0.peer_addr().unwrap(), 1400);
    let (delivered, packets) = mpsc::channel(1 << 16);
    // A test may not care for all that comes.
    let deliver = move |batch: &mut Vec<Bytes>| batch.drain(..).for_each(|packet| drop(delivered.try_send(packet)));
    let (sender, others) = mpsc::channel(1);
    let pump = Pump::new(Arc::clone(&carrier), F::default(), connection, early, deliver, sender).unwrap();
    End { carrier, packets, others, pump: task::spawn(pump.run()) }
}

fn packet(number: usize, len: usize) -> Vec<u8> {
    vec![u8::try_from(number % 251).unwrap(); len]
}

fn send<F: Framing>(carrier: &StreamCarrier<F>, packets: impl Iterator<Item = Vec<u8>>) {
    carrier.send(&mut packets.map(|packet| PacketBuffer::copy_from(&packet)).collect());
}

/// Waits until something is so.
async fn soon(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(adit_testing::PATIENCE, waiting).await.expect("it comes soon");
}

#[tokio::test]
async fn packets_and_capsules_arrive_whole_and_in_order_both_ways() {
    let (server, client) = connected().await;
    let (mut server, mut client) = (end::<Capsules>(server, &[]), end::<Capsules>(client, &[]));
    let mut capsule = Vec::new();
    encode(&Capsule::AddressRequest(vec![adit_proto::capsule::RequestedAddress::any_v4(1)]), &mut capsule);
    let (near, far) = (Arc::clone(&client.carrier), Arc::clone(&server.carrier));
    for (from, to) in [(near, &mut server), (far, &mut client)] {
        from.queue(&capsule);
        let lengths = [20, 62, 63, 576, 1400];
        for round in 0..20 {
            send(&from, (0..50).map(|number| packet(number, lengths[(round + number) % lengths.len()])));
            for number in 0..50 {
                assert_eq!(to.packets.recv().await.unwrap(), packet(number, lengths[(round + number) % lengths.len()]));
            }
        }
        assert_eq!(to.others.recv().await.unwrap(), capsule);
        from.flush().await;
        assert_eq!(from.counters().traffic().tx_packets, 1000);
        assert!(from.rtt().is_some());
    }
}

/// Loses every packet on its way through the loopback, or no more.
fn cut(is_cut: bool) {
    let rules = "table inet cut { chain input { type filter hook input priority 0; policy drop; }; }";
    let status = Command::new("nft").arg(if is_cut { rules } else { "delete table inet cut" }).status();
    assert!(status.expect("nftables is installed").success());
}

#[test]
fn what_the_other_end_does_not_acknowledge_is_told_from_what_it_does() {
    in_namespace_async(|| async {
        ip("link set lo up");
        let (server, client) = connected().await;
        let (mut server, client) = (end::<Capsules>(server, &[]), end::<Capsules>(client, &[]));
        let acknowledged = || client.carrier.acknowledged().unwrap();
        send(&client.carrier, [packet(1, 100)].into_iter());
        timeout(adit_testing::PATIENCE, client.carrier.sent()).await.unwrap();
        server.packets.recv().await.unwrap();
        soon(|| acknowledged().is_all).await;
        let before = acknowledged().bytes;
        assert!(timeout(Duration::from_millis(100), client.carrier.sent()).await.is_err(), "nothing more is sent");

        cut(true);
        send(&client.carrier, [packet(2, 100)].into_iter());
        timeout(adit_testing::PATIENCE, client.carrier.sent()).await.unwrap();
        soon(|| !acknowledged().is_all).await;
        assert_eq!(acknowledged().bytes, before);
        cut(false);
        server.packets.recv().await.unwrap();
        soon(|| acknowledged().is_all).await;
        assert!(acknowledged().bytes > before);
    });
}

#[tokio::test]
async fn what_was_read_before_is_not_lost() {
    let (server, client) = connected().await;
    let frame = Capsules::frame(PacketBuffer::copy_from(&[7; 100]));
    let (early, late) = frame.split_at(50);
    let mut server = end::<Capsules>(server, early);
    let client = end::<Capsules>(client, &[]);
    client.carrier.queue(late);
    assert_eq!(server.packets.recv().await.unwrap(), [7; 100].as_slice());
}

#[tokio::test]
async fn packets_are_dropped_rather_than_late_when_the_other_end_reads_nothing() {
    let (server, client) = connected().await;
    let client = end::<Capsules>(client, &[]);
    // Much more than the sockets hold, a little at a time.
    soon(|| {
        send(&client.carrier, (0..64).map(|number| packet(number, 1400)));
        client.carrier.counters().traffic().drops.iter().any(|(reason, _)| *reason == "queue_full")
    })
    .await;
    let stuck = client.carrier.counters().traffic().tx_bytes;
    assert!(!client.pump.is_finished(), "the connection goes on");
    // The positive control: once somebody reads, packets pass again.
    let _server = end::<Capsules>(server, &[]);
    soon(|| {
        send(&client.carrier, (0..64).map(|number| packet(number, 1400)));
        client.carrier.counters().traffic().tx_bytes > stuck
    })
    .await;
}

#[tokio::test]
async fn connection_that_is_closed_ends_though_the_other_end_reads_little_or_nothing() {
    let ((mut server, _tls), client) = connected().await;
    let client = end::<Capsules>(client, &[]);
    soon(|| {
        send(&client.carrier, (0..64).map(|number| packet(number, 1400)));
        client.carrier.counters().traffic().drops.iter().any(|(reason, _)| *reason == "queue_full")
    })
    .await;
    // As long as somebody reads a little, the system does not give the connection up.
    let _reading = task::spawn(async move {
        let mut little = [0; 512];
        while server.read(&mut little).await.is_ok_and(|length| length > 0) {
            sleep(Duration::from_millis(200)).await;
        }
    });
    assert!(!client.pump.is_finished());
    client.carrier.close();
    timeout(Duration::from_secs(10), client.pump).await.expect("it does not wait for the reader").unwrap().unwrap();
}

#[tokio::test]
async fn end_that_was_meant_is_told_from_one_amid_a_packet() {
    let (server, client) = connected().await;
    let (mut server, client) = (end::<Capsules>(server, &[]), end::<Capsules>(client, &[]));
    client.carrier.close();
    client.pump.await.unwrap().unwrap();
    server.pump.await.unwrap().unwrap();
    assert!(server.others.recv().await.is_none() && server.packets.recv().await.is_none());

    let (server, client) = connected().await;
    let (server, client) = (end::<Capsules>(server, &[]), end::<Capsules>(client, &[]));
    client.carrier.queue(&[0, 100, 0]);
    client.carrier.close();
    client.pump.await.unwrap().unwrap();
    let error = server.pump.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn last_words_that_come_together_with_the_end_are_heard() {
    let (server, client) = connected().await;
    let mut capsule = Vec::new();
    encode(&Capsule::AddressRequest(vec![adit_proto::capsule::RequestedAddress::any_v4(1)]), &mut capsule);
    let client = end::<Capsules>(client, &[]);
    client.carrier.queue(&capsule);
    client.carrier.close();
    client.pump.await.unwrap().unwrap();
    // All of it is there before anything is read.
    let mut server = end::<Capsules>(server, &[]);
    assert_eq!(server.others.recv().await.unwrap(), capsule);
    assert_eq!(server.others.recv().await, None);
}

#[tokio::test]
async fn last_words_that_come_together_with_an_alert_are_heard() {
    let ((mut socket, mut tls), client) = connected().await;
    let mut capsule = Vec::new();
    encode(&Capsule::AddressRequest(vec![adit_proto::capsule::RequestedAddress::any_v4(1)]), &mut capsule);
    let words = [&Capsules::frame(PacketBuffer::copy_from(&[7; 100]))[..], &capsule].concat();
    socket.write_all(&sealed_before_an_alert(&mut tls, &words)).await.unwrap();
    // All of it is there before anything is read.
    let mut client = end::<Capsules>(client, &[]);
    assert_eq!(client.others.recv().await.unwrap(), capsule);
    assert_eq!(client.packets.recv().await.unwrap(), [7; 100].as_slice());
    let fault = client.pump.await.unwrap().unwrap_err();
    let tls = fault.get_ref().and_then(|fault| fault.downcast_ref::<rustls::Error>());
    assert!(matches!(tls, Some(rustls::Error::AlertReceived(_))), "{fault}");
}

#[tokio::test]
async fn stream_that_breaks_the_rules_ends_and_nobody_waits_for_it() {
    let (server, client) = connected().await;
    let (server, client) = (end::<Capsules>(server, &[]), end::<Capsules>(client, &[]));
    client.carrier.queue(&[0, 0]);
    assert_eq!(server.pump.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    server.carrier.queue(&[1, 2, 3]);
    server.carrier.flush().await;
}

#[tokio::test]
async fn unread_capsules_hold_up_the_stream_and_are_not_lost() {
    let (server, client) = connected().await;
    let (mut server, client) = (end::<Capsules>(server, &[]), end::<Capsules>(client, &[]));
    let sent = Arc::new(AtomicUsize::new(0));
    let capsule = [[0x2f, 0x7f, 0xff].as_slice(), &[1; 0x3fff]].concat();
    let counted = Arc::clone(&sent);
    let _sending = task::spawn(async move {
        loop {
            client.carrier.queue(&capsule);
            client.carrier.flush().await;
            counted.fetch_add(capsule.len(), Ordering::Relaxed);
        }
    });
    // Much more than a socket holds is never sent while nobody reads.
    let mut before = usize::MAX;
    loop {
        sleep(Duration::from_millis(500)).await;
        let now = sent.load(Ordering::Relaxed);
        if std::mem::replace(&mut before, now) == now {
            break;
        }
        assert!(now < 64 << 20, "nothing holds it up");
    }
    let mut read = 0;
    while read <= before {
        read += server.others.recv().await.unwrap().len();
    }
}

#[tokio::test]
async fn another_connection_takes_over_and_no_packet_is_lost_or_out_of_order() {
    let ((server, client), (next_server, next_client)) = (connected().await, connected().await);
    let (mut old, mut client) = (end::<Capsules>(server, &[]), end::<Capsules>(client, &[]));
    let carrier = Arc::clone(&client.carrier);
    send(&carrier, (0..50).map(|number| packet(number, 100)));
    assert_eq!(old.packets.recv().await.unwrap(), packet(0, 100));
    carrier.pause();
    carrier.delivered(adit_testing::PATIENCE).await;
    send(&carrier, (50..100).map(|number| packet(number, 100)));
    // Longer than a packet waits for a connection that is slow.
    sleep(BOUNDS.long * 3).await;
    assert_eq!(old.packets.len(), 49, "all that was sent, and nothing of what waits");

    let mut new = end::<Capsules>(next_server, &[]);
    let (sender, _others) = mpsc::channel(1);
    let (delivered, mut packets) = mpsc::channel(64);
    let deliver = move |batch: &mut Vec<Bytes>| batch.drain(..).for_each(|packet| drop(delivered.try_send(packet)));
    let pump = Pump::new(Arc::clone(&carrier), Capsules::default(), next_client, &[], deliver, sender).unwrap();
    let pump = task::spawn(pump.run());
    for number in 50..100 {
        assert_eq!(new.packets.recv().await.unwrap(), packet(number, 100));
    }
    assert_eq!(carrier.counters().traffic().drops, []);
    // What is on its way by the old one is read, and its end is not the end of the carrier.
    send(&old.carrier, std::iter::once(packet(7, 60)));
    assert_eq!(client.packets.recv().await.unwrap(), packet(7, 60));
    old.carrier.close();
    client.pump.await.unwrap().unwrap();
    send(&new.carrier, std::iter::once(packet(8, 60)));
    assert_eq!(packets.recv().await.unwrap(), packet(8, 60));
    carrier.queue(&[0x40]);
    assert!(!carrier.is_flushed());
    carrier.close();
    pump.await.unwrap().unwrap();
}

/// Packets with a byte in front, each in a record of its own.
#[derive(Default)]
struct Alone;

impl Framing for Alone {
    const NAME: &'static str = "alone";
    const IS_ALONE: bool = true;

    fn frame(packet: PacketBuffer) -> Bytes {
        packet.with_prefix(&[9])
    }

    fn packet_len(frame: usize) -> usize {
        frame - 1
    }

    fn read(&mut self, stream: &mut BytesMut, _: &mut Vec<Bytes>, _: &mut Vec<u8>) -> Result<(), Fault> {
        stream.clear();
        Ok(())
    }

    fn may_end(&self, _rest: &[u8]) -> bool {
        true
    }
}

/// Lengths of the TLS records that a client sends for ten packets of 100 bytes.
async fn records_of_ten<F: Framing + Default>() -> Vec<usize> {
    let ((mut socket, _), client) = connected().await;
    let client = end::<F>(client, &[]);
    send(&client.carrier, (0..10).map(|number| packet(number, 100)));
    soon(|| client.carrier.counters().traffic().tx_packets == 10).await;
    client.carrier.close();
    client.pump.await.unwrap().unwrap();
    let mut wire = Vec::new();
    socket.shutdown().await.unwrap();
    socket.read_to_end(&mut wire).await.unwrap();
    let mut records = Vec::new();
    while wire.len() >= 5 {
        let length = usize::from(u16::from_be_bytes([wire[3], wire[4]]));
        records.push(length);
        wire.drain(..5 + length);
    }
    records
}

#[tokio::test]
async fn packets_share_records_unless_their_protocol_wants_one_each() {
    // Content, its type, the tag; and an alert at the end.
    let record = |content: usize| content + 1 + 16;
    let alert = record(2);
    assert_eq!(records_of_ten::<Capsules>().await, [record(10 * 104), alert]);
    let each = [vec![record(101); 10], vec![alert]].concat();
    assert_eq!(records_of_ten::<Alone>().await, each);
}
