//! The `tls` carrier: everything by TCP, where no UDP passes.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::traffic::{Dialogue, Direction, TcpServer, UdpEcho, echo, transfer, transfer_within};
use adit_lab::{INTERNET_V4, OUTSIDE_V4, OUTSIDE_V6};
use adit_testing::{alone, eventually};

use crate::harness::{INTERNET, Options, Tunnel, filter, flows, reach};

const TRANSFER: u64 = 20 << 20;

/// A gateway and its client, connected by TLS across a network that passes no UDP.
fn without_udp() -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    filter(tunnel.gateway.host(), "no_udp", &[("input priority 0", "meta l4proto udp drop")]);
    tunnel.clients[0].up_with(&["--carrier", "tls"], &[]).unwrap();
    Some(tunnel)
}

#[test]
fn packets_pass_by_tls_where_no_udp_does() {
    let _turn = alone();
    let Some(mut tunnel) = without_udp() else { return };
    let status = tunnel.client().status().unwrap();
    assert_eq!(status.carrier.as_deref(), Some("tls"));
    let sessions = tunnel.gateway.sessions().unwrap();
    assert!(sessions.len() == 1 && sessions[0].carrier == "tls", "{sessions:?}");
    assert!(sessions[0].suite.as_ref().is_some_and(|suite| suite.starts_with("TLS13_")), "{sessions:?}");
    let client = tunnel.client().host().clone();
    for (address, outside) in [(INTERNET[0], IpAddr::V4(OUTSIDE_V4)), (INTERNET[1], IpAddr::V6(OUTSIDE_V6))] {
        reach(&client, address);
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let done = transfer(&client, server.address(), direction, TRANSFER).unwrap();
            println!("{direction:?} with {address}: {:.0} Mbit/s", done.megabits_per_second());
            assert!(done.bytes == TRANSFER && done.is_intact(), "{direction:?} with {address}");
        }
        assert!(server.peers().iter().all(|peer| peer.ip() == outside), "{:?}", server.peers());
        let server = UdpEcho::start(&tunnel.internet, address).unwrap();
        let report = echo(&client, server.address(), 1_000, 1_000, 200).unwrap();
        // What a busy machine keeps waiting for too long is dropped. The rest comes once, and in order.
        assert!(report.received > 0, "{address}: {report:?}");
        assert_eq!((report.reordered, report.duplicated), (0, 0), "{address}");
    }
    // Its farewell ends the session at once.
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    eventually("the session ends with its client", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
}

#[test]
fn session_by_tls_is_as_good_as_any_other() {
    let _turn = alone();
    let Some(mut tunnel) = without_udp() else { return };
    let addresses = tunnel.client().inner_addresses().unwrap();
    let client = tunnel.client().host().clone();
    // The gateway dies: the client comes back by itself, with its addresses.
    tunnel.gateway.kill();
    tunnel.gateway.start().unwrap();
    reach(&client, INTERNET[0]);
    assert_eq!(tunnel.client().inner_addresses().unwrap(), addresses);
    let told = tunnel.client().status().unwrap();
    assert_eq!(told.carrier.as_deref(), Some("tls"));
    // Whoever is revoked is out within moments, and not let in again.
    tunnel.gateway.admin(&["revoke", "user1"]).unwrap().success().unwrap();
    eventually("the session ends", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    eventually("the client says why", || {
        let status = tunnel.client().status().unwrap();
        (status.state == "blocked" && status.reason.is_some_and(|reason| reason.contains("revoked"))).then_some(())
    });
}

/// Long before TCP would give up its connection, or anything notices that nothing comes: a client that has not noticed
/// its move would still wait then.
const UNNOTICED: Duration = Duration::from_secs(15);

#[test]
fn session_by_tls_moves_with_its_host_and_flows_go_on() {
    let _turn = alone();
    let Some(tunnel) = without_udp() else { return };
    let client = tunnel.client().host().clone();
    let inner = tunnel.client().inner_addresses().unwrap();
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    reach(&client, INTERNET[0]);
    let (since, dialogue) =
        (Instant::now(), Dialogue::start(&client, &tunnel.internet, INTERNET_V4.into(), 200).unwrap());
    flows(&dialogue, since);
    let flow = {
        let (client, address) = (client.clone(), server.address());
        thread::spawn(move || transfer_within(&client, address, Direction::Download, TRANSFER / 4, UNNOTICED / 3))
    };
    for [old, new] in [[18, 28], [28, 27], [27, 18]] {
        let net = |host| format!("192.0.2.{host}/28").parse().unwrap();
        let moved = Instant::now();
        client.replace_address("eth0", net(old), net(new)).unwrap();
        eventually("the session comes from the new address", || {
            let told = tunnel.gateway.sessions().unwrap();
            (told.len() == 1 && told[0].remote.ip() == net(new).addr()).then_some(())
        });
        flows(&dialogue, Instant::now());
        println!("moved: silences of {:?}", dialogue.longest_silence(moved, Instant::now()));
        assert!(moved.elapsed() < UNNOTICED, "the move was not noticed by itself");
        // The state was never another: a session that is lost is connected anew since then.
        let told = tunnel.client().status().unwrap();
        assert!(told.since_seconds >= Some(since.elapsed().as_secs().saturating_sub(1)), "{told:?}");
    }
    let done = flow.join().unwrap().unwrap();
    assert!(done.bytes == TRANSFER / 4 && done.is_intact());
    assert_eq!(tunnel.client().inner_addresses().unwrap(), inner);
    assert_eq!(tunnel.client().status().unwrap().carrier.as_deref(), Some("tls"));
    for course in dialogue.finish() {
        println!("{} packets, {} lost", course.sent, course.lost());
        assert_eq!(course.duplicated(), 0);
    }
}

/// TCP cuts what it carries to what the path takes, so packets of 1280 bytes and more pass inside on every path of
/// IPv6's least size, also on one that becomes so while a flow goes on.
#[test]
fn session_by_tls_passes_narrow_paths() {
    let _turn = alone();
    let Some(tunnel) = without_udp() else { return };
    let client = tunnel.client().host().clone();
    let servers = INTERNET.map(|address| TcpServer::start(&tunnel.internet, address).unwrap());
    INTERNET.into_iter().for_each(|address| reach(&client, address));
    for mtu in [1400, 1340, 1280] {
        let flow = {
            let (client, address) = (client.clone(), servers[0].address());
            let lasting = Duration::from_secs(2);
            thread::spawn(move || transfer_within(&client, address, Direction::Upload, TRANSFER / 10, lasting))
        };
        thread::sleep(Duration::from_millis(500));
        for host in [&client, tunnel.gateway.host()] {
            host.set_mtu("eth0", mtu).unwrap();
        }
        let done = flow.join().unwrap().unwrap();
        assert!(done.bytes == TRANSFER / 10 && done.is_intact(), "{mtu}, begun before");
        for server in &servers {
            for direction in [Direction::Upload, Direction::Download] {
                let done = transfer(&client, server.address(), direction, TRANSFER / 10).unwrap();
                assert!(done.bytes == TRANSFER / 10 && done.is_intact(), "{mtu}, {direction:?}");
            }
        }
    }
}
