//! ESP lives as long as its session, and no longer.

use std::thread;
use std::time::{Duration, Instant};

use adit_lab::GATEWAY_V4;
use adit_lab::traffic::{Dialogue, Direction, StreamPlan, Streams, TcpServer, inject_marked, transfer, udp_packet};
use adit_testing::{alone, eventually};

use super::observe::{CABLE, PORT, Wire, stands};
use crate::harness::{CLIENT_MARK, INTERNET, Options, Tunnel, answers, reach};

/// The gateway gives up a silent connection after 60 s.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(80);
/// Pause between two looks at what arrived of a stream that ends.
const LOOK: Duration = Duration::from_millis(300);

#[test]
fn packets_travel_by_esp_again_after_the_gateway_was_killed() {
    let Some(mut tunnel) = Tunnel::start(Options::default()) else { return };
    stands(&tunnel, 0, "esp");
    tunnel.gateway.kill();
    assert!(!answers(tunnel.client().host(), INTERNET[0]), "nobody carries packets");
    tunnel.gateway.start().unwrap();
    let client = tunnel.client().host();
    let start = Instant::now();
    INTERNET.iter().for_each(|target| reach(client, *target));
    println!("reached after {:?}", start.elapsed());
    stands(&tunnel, 0, "esp");
    println!("by esp after {:?}", start.elapsed());
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        assert!(transfer(client, server.address(), direction, 4 << 20).unwrap().is_intact());
    }
}

#[test]
fn gateway_forgets_the_keys_of_a_killed_client() {
    let Some(mut tunnel) = Tunnel::start(Options::default()) else { return };
    stands(&tunnel, 0, "esp");
    let wire = Wire::start(tunnel.client().host());
    reach(tunnel.client().host(), INTERNET[0]);
    let sent = wire.sent_by_client();
    // Made anew, as the kernel leaves checksums of what it captures at the sender to the device.
    let again = udp_packet(sent.source, (GATEWAY_V4, PORT).into(), 64, &sent.payload);
    tunnel.clients[0].kill();
    let drops = |reason: &str| {
        let status = tunnel.gateway.admin_json(&["status"]).unwrap();
        status["drops"][reason].as_u64().unwrap_or_default()
    };
    assert_eq!(drops("unknown_spi"), 0);
    let deadline = Instant::now() + FORGOTTEN_WITHIN;
    while !tunnel.gateway.sessions().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the session is still there");
        thread::sleep(Duration::from_millis(200));
    }
    inject_marked(tunnel.client().host(), CABLE, CLIENT_MARK, vec![again]).unwrap();
    eventually("a datagram of the old session names no SA", || (drops("unknown_spi") > 0).then_some(()));
}

#[test]
fn keys_of_a_session_that_another_of_the_same_device_replaces_are_dead_at_once() {
    let Some(mut tunnel) = Tunnel::start(Options::default()) else { return };
    stands(&tunnel, 0, "esp");
    let address = tunnel.client().inner_addresses().unwrap()[0];
    let old = tunnel.session_of(address).unwrap();
    let wire = Wire::start(tunnel.client().host());
    reach(tunnel.client().host(), INTERNET[0]);
    let sent = wire.sent_by_client();
    let again = udp_packet(sent.source, (GATEWAY_V4, PORT).into(), 64, &sent.payload);
    // Without a farewell, so that the gateway still has the session.
    tunnel.clients[0].kill();
    inject_marked(tunnel.client().host(), CABLE, CLIENT_MARK, vec![again.clone()]).unwrap();
    eventually("its keys are still known", || {
        (tunnel.session_of(address)?.drops.get("replayed").copied()? > 0).then_some(())
    });

    tunnel.clients[0].up().unwrap();
    let status = stands(&tunnel, 0, "esp");
    let new = tunnel.session_of(status.addresses[0].addr()).unwrap();
    assert_ne!(new.session, old.session);
    assert_eq!(tunnel.gateway.sessions().unwrap().len(), 1, "there is one session of the device");
    inject_marked(tunnel.client().host(), CABLE, CLIENT_MARK, vec![again]).unwrap();
    eventually("a datagram of the old session names no SA", || {
        let status = tunnel.gateway.admin_json(&["status"]).unwrap();
        (status["drops"]["unknown_spi"].as_u64()? > 0).then_some(())
    });
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        assert!(transfer(tunnel.client().host(), server.address(), direction, 4 << 20).unwrap().is_intact());
    }
    let after = tunnel.session_of(address).unwrap();
    assert_eq!((after.session, after.carrier.as_str()), (new.session, "esp"));
}

#[test]
fn revoked_device_is_cut_off_under_load() {
    let _turn = alone();
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    stands(&tunnel, 0, "esp");
    let (client, internet) = (tunnel.client().host(), &tunnel.internet);
    let plan = StreamPlan {
        server: (INTERNET[1], 5_001).into(),
        connections: 2,
        direction: Direction::Upload,
        congestion: "cubic".to_owned(),
    };
    let streams = Streams::start(client, internet, &plan).unwrap();
    let start = Instant::now();
    let dialogue = Dialogue::start(client, internet, INTERNET[0], 500).unwrap();
    eventually("there is load", || {
        let packets = dialogue.arrived_since(start);
        (streams.received() > 1 << 20 && packets.iter().all(|count| *count > 100)).then_some(())
    });
    tunnel.gateway.admin(&["revoke", "user1"]).unwrap().success().unwrap();
    assert!(tunnel.gateway.sessions().unwrap().is_empty(), "when the command has ended, so has the session");
    // Streams that were not cut off would go on to grow.
    let mut then = streams.received();
    eventually("TCP is cut off as well", || {
        thread::sleep(LOOK);
        let now = streams.received();
        (std::mem::replace(&mut then, now) == now).then_some(())
    });
    let after = Instant::now();
    thread::sleep(LOOK);
    assert_eq!(dialogue.arrived_since(after), [0, 0], "no packet passes any more");
    assert!(dialogue.finish().iter().all(|course| course.lost() > 0), "both ends sent on");
    assert!(!answers(client, INTERNET[0]));
}
