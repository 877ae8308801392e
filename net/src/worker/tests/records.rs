//! Packets in records of DTLS, and what else comes in them.

use std::sync::atomic::Ordering;

use adit_proto::anyconnect::frame::FrameKind;
use adit_proto::anyconnect::record;
use adit_proto::dtls::record::ContentType;
use adit_proto::dtls::sa::{Inbound as Opening, Outbound as Sealing};
use adit_proto::dtls::secret::{BothKeys, MasterSecret, Randoms};
use adit_proto::dtls::suite::CipherSuite;

use super::*;
use crate::carrier::{DatagramRoute, Origin, OutboundSa};

/// Of the records of these tests.
const GCM: CipherSuite = CipherSuite::PskAes256Gcm;

/// A client of the session that sends and takes records.
struct Client {
    socket: EspSocket,
    address: SocketAddr,
    to: SocketAddr,
    sealing: Sealing<Cipher>,
    opening: Opening<Cipher>,
    records: Arc<AtomicU64>,
    reports: mpsc::Receiver<RecordReport>,
}

fn keys(suite: CipherSuite, seed: u8) -> BothKeys {
    MasterSecret::new([seed; 48]).keys(suite, &Randoms { client: [1; 32], server: [2; 32] }).unwrap()
}

impl Client {
    /// One with an association, from its own address.
    fn new(world: &World, suite: CipherSuite) -> Self {
        let (socket, address) = outer();
        let (far, near) = (keys(suite, 3), keys(suite, 3));
        let (sender, reports) = mpsc::channel(64);
        let records = Arc::<AtomicU64>::default();
        let sa = Opening::new(near.client_to_server).unwrap();
        let session = Arc::clone(&world.session);
        let installed = Arc::clone(&records);
        let association = Association { peer: address, sa, session, records: installed, reports: sender };
        world.workers.handle().associate(association);
        Self {
            socket,
            address,
            to: world.peer.to(),
            sealing: Sealing::new(far.client_to_server).unwrap(),
            opening: Opening::new(far.server_to_client).unwrap(),
            records,
            reports,
        }
    }

    /// Has the workers send to it.
    fn route(&self, world: &World) {
        let sa = OutboundSa::Dtls(Arc::new(Sealing::new(keys(self.sealing.suite(), 3).server_to_client).unwrap()));
        let origin = Origin::default();
        let route = DatagramRoute { sa, to: self.address, origin, mtu: MTU, vouched: false, marked: false };
        world.session.carriers.set_route(Some(route));
    }

    /// Sends what was sealed, in datagrams of `size` bytes.
    fn send(&self, sealed: &[u8], size: usize) {
        assert!(self.socket.send(self.to, None, sealed, size, 0).error.is_none());
    }

    /// Sends one record.
    fn say(&self, content: ContentType, body: &[u8]) -> Vec<u8> {
        let sealed = self.sealing.record(content, body).unwrap();
        self.send(&sealed, sealed.len());
        sealed
    }

    /// The next report, which has to come.
    fn report(&mut self) -> RecordReport {
        let mut report = None;
        eventually("a report", || {
            report = self.reports.try_recv().ok();
            report.is_some()
        });
        report.unwrap()
    }
}

fn in_record(packet: &[u8]) -> Vec<u8> {
    record::encode(FrameKind::Data, packet)
}

fn told(content: ContentType, body: &[u8]) -> RecordReport {
    RecordReport::Opened { content, body: body.to_vec() }
}

#[test]
fn packets_travel_in_records_both_ways_many_at_a_time() {
    for (suite, queues) in CipherSuite::PSK.into_iter().zip([1, 2, 1]) {
        in_namespace(move || {
            let world = World::new(queues, true);
            let mut client = Client::new(&world, suite);
            client.route(&world);
            // From the client: one message, which a socket gets in one piece.
            let (socket, port) = joined();
            let sent: Vec<_> = (0..30).map(|number| content(1000, number)).collect();
            let packets = flow(Udp::to(port, Checksums::Full), &sent);
            let seal =
                |packet: &Vec<u8>| client.sealing.record(ContentType::ApplicationData, &in_record(packet)).unwrap();
            client.send(&packets.iter().flat_map(seal).collect::<Vec<_>>(), suite.sealed_len(1 + 28 + 1000));
            let (received, messages) = datagrams(&socket, sent.len());
            assert!(received == sent && messages == 1, "{messages} messages");
            assert_eq!(client.records.load(Ordering::Relaxed), 30);

            // To the client: the same, with whole checksums.
            let socket = local_v4();
            segment(&socket, 1000);
            let payload = content(30_500, 7);
            socket.send_to(&payload, "10.9.0.2:53").unwrap();
            let (records, messages) = datagrams(&client.socket, 31);
            assert_eq!(messages, 1);
            let mut arrived = Vec::new();
            for mut record in records {
                assert_eq!(record[..3], [23, 0xfe, 0xfd]);
                let opened = client.opening.open(&mut record).unwrap();
                let (kind, packet) = record::split(&record[opened.range]).unwrap();
                assert_eq!((opened.content, kind), (ContentType::ApplicationData, FrameKind::Data));
                let start = check(packet, NextHeader::Ipv4);
                arrived.extend_from_slice(&packet[start + 8..]);
            }
            assert!(arrived == payload);
            let traffic = world.counters().traffic();
            assert_eq!((traffic.rx_packets, traffic.tx_packets, traffic.drops), (30, 31, vec![]));
            assert_eq!(world.session.carriers.name(), "dtls");
            assert!(client.reports.try_recv().is_err(), "nothing is worth a word while all goes this way");
        });
    }
}

#[test]
fn control_side_hears_what_is_no_packet_and_of_records_while_packets_go_elsewhere() {
    in_namespace(|| {
        let world = World::new(1, true);
        let mut client = Client::new(&world, GCM);
        client.say(ContentType::ApplicationData, b"\x07");
        assert_eq!(client.report(), told(ContentType::ApplicationData, b"\x07"));
        assert_eq!(client.report(), RecordReport::Heard, "packets go to the other peer");
        client.route(&world);
        for (content, body) in [
            (ContentType::ApplicationData, &b"\x03 whole question"[..]),
            (ContentType::ApplicationData, b""),
            (ContentType::Alert, &[1, 0]),
            (ContentType::Handshake, &[0; 12]),
        ] {
            client.say(content, body);
            assert_eq!(client.report(), told(content, body));
        }
        assert!(client.reports.try_recv().is_err());
        let traffic = world.counters().traffic();
        assert_eq!((traffic.rx_packets, traffic.drops), (0, vec![]));
    });
}

#[test]
fn strange_records_go_to_the_control_side_and_forged_ones_nowhere() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (sender, mut strays) = mpsc::channel(4);
        world.workers.handle().hand_strays_to(&sender);
        let mut client = Client::new(&world, GCM);
        client.route(&world);
        let mut stray = || {
            let mut stray = None;
            eventually("a stray", || {
                stray = strays.try_recv().ok();
                stray.is_some()
            });
            stray.unwrap()
        };
        // Of the handshake of the next association, and of somebody without one.
        let next = Sealing::<Cipher>::new(keys(GCM, 9).client_to_server).unwrap();
        let finished = next.record(ContentType::Handshake, &[0; 24]).unwrap();
        client.send(&finished, finished.len());
        let Stray { from, datagram, .. } = stray();
        assert_eq!((from, datagram), (client.address, finished.clone()), "as it came");
        let (stranger, address) = outer();
        assert!(stranger.send(client.to, None, &finished, finished.len(), 0).error.is_none());
        assert_eq!(stray().from, address);

        let mut forged = next.record(ContentType::ApplicationData, b"\x00forged").unwrap();
        client.send(&forged, forged.len());
        let said = client.say(ContentType::ApplicationData, b"\x03positive control");
        assert_eq!(client.report(), told(ContentType::ApplicationData, b"\x03positive control"));
        client.send(&said, said.len());
        forged.truncate(20);
        client.send(&forged, forged.len());
        client.say(ContentType::ApplicationData, b"\x03behind");
        assert_eq!(client.report(), told(ContentType::ApplicationData, b"\x03behind"));
        assert_eq!(drops(world.counters(), DropReason::AuthenticationFailed), 1);
        assert_eq!(drops(world.counters(), DropReason::Replayed), 1);
        assert_eq!(drops(world.counters(), DropReason::Truncated), 1);
        assert!(strays.try_recv().is_err() && client.reports.try_recv().is_err());
    });
}

#[test]
fn flood_of_strangers_records_is_dropped_where_the_control_side_is_busy() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (sender, mut strays) = mpsc::channel(4);
        world.workers.handle().hand_strays_to(&sender);
        let record = Sealing::<Cipher>::new(keys(GCM, 9).client_to_server).unwrap();
        let record = record.record(ContentType::ApplicationData, &[0; 100]).unwrap();
        let (stranger, _) = outer();
        for _ in 0..100 {
            assert!(stranger.send(world.peer.to(), None, &record, record.len(), 0).error.is_none());
        }
        eventually("drops", || drops(&world.router.counters, DropReason::QueueFull) == 96);
        assert_eq!(std::iter::from_fn(|| strays.try_recv().ok()).count(), 4);
    });
}

#[test]
fn older_association_goes_without_the_newer_one_of_its_peer() {
    in_namespace(|| {
        let world = World::new(1, true);
        let mut client = Client::new(&world, GCM);
        let handle = world.workers.handle();
        handle.dissociate(client.address, &Arc::default());
        client.say(ContentType::ApplicationData, b"\x07 still there");
        assert_eq!(client.report(), told(ContentType::ApplicationData, b"\x07 still there"));
        handle.dissociate(client.address, &client.records);
        eventually("its end", || {
            client.say(ContentType::ApplicationData, b"\x07");
            drops(&world.router.counters, DropReason::UnknownEpoch) > 0
        });
    });
}
