//! Sessions that change their carrier while packets flow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::INTERNET_V4;
use adit_lab::traffic::{Dialogue, Direction, TcpServer, transfer};
use adit_testing::eventually;

use super::{BEFORE_ROUTING, block_udp, comes_to, comes_to_udp, joined, open_udp, session};
use crate::harness::{Carrier, INTERNET, Options, Tunnel, filter, reach};
use crate::leaks::watched;

const TRANSFER: u64 = 8 << 20;
/// Packets a second in each direction.
const RATE: u32 = 200;
/// A session that goes down in time has a silence of 3 s at most. One that waited until its gateway counts as gone
/// would have one of 8 s, or of 20 s over TCP.
const LONGEST_SILENCE: Duration = Duration::from_secs(6);
/// When transfers end where a test has failed.
const LONGEST: Duration = Duration::from_secs(120);
/// How often packets may be lost to a machine that is busy with something else.
const TRIES: usize = 3;

/// Numbered packets through the tunnel, both ways, that arrive.
fn under_load(tunnel: &Tunnel) -> Dialogue {
    let start = Instant::now();
    let dialogue = Dialogue::start(tunnel.client().host(), &tunnel.internet, INTERNET_V4.into(), RATE).unwrap();
    flows(&dialogue, start);
    dialogue
}

/// Waits until packets arrive in both directions that did not before `since`.
fn flows(dialogue: &Dialogue, since: Instant) {
    eventually("packets flow both ways", || {
        dialogue.arrived_since(since).iter().all(|count| *count > 20).then_some(())
    });
}

/// The port from which the client's only connection comes.
fn outer_port(tunnel: &Tunnel) -> u16 {
    session(tunnel).remote.port()
}

/// Blocks UDP, waits until the session has moved to TLS and back once UDP is open again.
fn goes_down_and_up(tunnel: &Tunnel, dialogue: &Dialogue) {
    let blocked = Instant::now();
    block_udp(tunnel.gateway.host());
    comes_to(tunnel, "tls");
    flows(dialogue, Instant::now());
    let silences = dialogue.longest_silence(blocked, Instant::now());
    println!("UDP blocked: silences of {silences:?}");
    assert!(silences.iter().all(|silence| *silence < LONGEST_SILENCE), "{silences:?}");
    let opened = Instant::now();
    open_udp(tunnel.gateway.host());
    comes_to_udp(tunnel);
    println!("UDP open again: back on it after {:?}", opened.elapsed());
    flows(dialogue, Instant::now());
    let since = tunnel.client().status().unwrap().since_seconds.unwrap();
    assert!(since >= blocked.elapsed().as_secs(), "the session was never lost: connected for {since} s");
}

#[test]
fn transfers_and_addresses_outlast_udp_that_is_blocked_and_opened_again() {
    let Some(tunnel) = Tunnel::start_over(Carrier::Esp, Options::default()) else { return };
    let addresses = tunnel.client().inner_addresses().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    let (is_over, began) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        // One is always under way.
        let transfers = [Direction::Upload, Direction::Download].map(|direction| {
            let (host, address, is_over) = (tunnel.client().host(), server.address(), &is_over);
            scope.spawn(move || {
                let mut intact = 0;
                while !is_over.load(Ordering::Relaxed) && began.elapsed() < LONGEST {
                    assert!(transfer(host, address, direction, TRANSFER).unwrap().is_intact(), "{direction:?}");
                    intact += 1;
                }
                intact
            })
        });
        let dialogue = under_load(&tunnel);
        goes_down_and_up(&tunnel, &dialogue);
        is_over.store(true, Ordering::Relaxed);
        let intact = transfers.map(|transfers| transfers.join().unwrap());
        println!("transfers that arrived intact: {intact:?}");
        assert!(intact.iter().all(|count| *count > 0));
    });
    assert_eq!(tunnel.client().inner_addresses().unwrap(), addresses);
    session(&tunnel);
}

#[test]
fn session_leaves_a_tcp_connection_that_is_dead_without_a_word_for_another() {
    let Some(mut tunnel) = joined() else { return };
    block_udp(tunnel.gateway.host());
    tunnel.clients[0].up().unwrap();
    comes_to(&tunnel, "tls");
    let dialogue = under_load(&tunnel);
    let (dead, cut) = (outer_port(&tunnel), Instant::now());
    // What belongs to this connection is lost, and no other's.
    let lost = format!("tcp sport {dead} drop; tcp dport {dead} drop");
    filter(tunnel.gateway.host(), "dead", &[(BEFORE_ROUTING, lost.as_str()), ("output priority 0", lost.as_str())]);
    eventually("another connection has the session", || (outer_port(&tunnel) != dead).then_some(()));
    flows(&dialogue, Instant::now());
    let silences = dialogue.longest_silence(cut, Instant::now());
    println!("a dead connection: silences of {silences:?}");
    assert!(silences.iter().all(|silence| *silence < LONGEST_SILENCE), "{silences:?}");
    let since = tunnel.client().status().unwrap().since_seconds.unwrap();
    assert!(since >= cut.elapsed().as_secs(), "the session was never lost: connected for {since} s");
}

#[test]
fn nothing_leaves_beside_the_tunnel_while_it_changes_its_carrier() {
    let Some((tunnel, watched)) = watched(Carrier::Esp) else { return };
    let dialogue = under_load(&tunnel);
    goes_down_and_up(&tunnel, &dialogue);
    drop(dialogue);
    watched.assert_tight("after both changes");
    block_udp(tunnel.gateway.host());
    watched.assert_tight("while nothing is answered over UDP");
    comes_to(&tunnel, "tls");
    watched.assert_tight("by tls");
}

#[test]
fn no_packet_is_lost_by_the_way_up_to_udp() {
    let Some(mut tunnel) = joined() else { return };
    for turn in 1..=TRIES {
        block_udp(tunnel.gateway.host());
        tunnel.clients[0].up().unwrap();
        comes_to(&tunnel, "tls");
        let dialogue = under_load(&tunnel);
        open_udp(tunnel.gateway.host());
        comes_to_udp(&tunnel);
        flows(&dialogue, Instant::now());
        let courses = dialogue.finish();
        let lost = courses.each_ref().map(|course| (course.sent, course.lost(), course.duplicated()));
        println!("turn {turn}: sent, lost and duplicated: {lost:?}");
        assert!(lost.iter().all(|(.., duplicated)| *duplicated == 0), "nothing arrives twice");
        assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
        if lost.iter().all(|(_, lost, _)| *lost == 0) {
            return;
        }
    }
    panic!("packets were lost each time");
}
