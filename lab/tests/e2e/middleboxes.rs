//! Boxes on the path that treat a tunnel's datagrams badly: they drop or change what they should not care for, carry
//! less than they did, or lose much.

mod bad_path;
mod first_flight;
mod marks;
mod narrowing;
mod throttle;

use std::thread;
use std::time::{Duration, Instant};

use adit_lab::traffic::{Direction, TcpServer, transfer, transfer_within};
use adit_lab::{Feature, Host};

use crate::harness::{INTERNET, Options, Tunnel, filter, nft};

/// The cable between client and gateway, as each of them calls it.
const CABLE: &str = "eth0";
/// Before anything else looks at what comes.
const BEFORE_ROUTING: &str = "prerouting priority -400";
const BOTH: [Direction; 2] = [Direction::Upload, Direction::Download];
/// Each packet is by itself on the cable, so that rules see, count and measure every one.
const ALONE: [Feature; 7] = [
    ("tx-udp-segmentation", false),
    ("tx-tcp-segmentation", false),
    ("tx-tcp6-segmentation", false),
    ("tx-tcp-ecn-segmentation", false),
    ("tx-tcp-mangleid-segmentation", false),
    ("tx-generic-segmentation", false),
    ("rx-gro", false),
];

/// A gateway that runs, a client that has joined and does not, and a cable on which each packet is by itself.
fn joined() -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    for host in [tunnel.client().host(), tunnel.gateway.host()] {
        host.set_features(CABLE, &ALONE).unwrap();
    }
    Some(tunnel)
}

/// The hosts at which datagrams arrive, and on which of their ends the gateway's port is then.
fn ends(tunnel: &Tunnel) -> [(&Host, &'static str); 2] {
    [(tunnel.gateway.host(), "dport"), (tunnel.client().host(), "sport")]
}

/// Has a box on the path treat the tunnel's datagrams of both directions so, in the syntax of nft(8).
fn put_box(tunnel: &Tunnel, treatment: &str) {
    for (host, end) in ends(tunnel) {
        filter(host, "box", &[(BEFORE_ROUTING, &format!("udp {end} 443 {treatment}"))]);
    }
}

/// Packets that the rules with a counter of a host's box have met.
fn met(host: &Host) -> u64 {
    let text = nft(host, "list table inet box");
    text.split("counter packets ").skip(1).map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// So many bytes arrive unchanged each way, with both addresses.
fn assert_carries(tunnel: &Tunnel, bytes: u64, what: &str) {
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in BOTH {
            let done = transfer(tunnel.client().host(), server.address(), direction, bytes).unwrap();
            assert!(done.bytes == bytes && done.is_intact(), "{what}: {direction:?} with {address}");
        }
    }
}

/// Does something while so many bytes are under way each way, which takes `time` at least, and expects that all arrive.
fn amid_transfers<T>(tunnel: &Tunnel, bytes: u64, time: Duration, what: &str, change: impl FnOnce() -> T) -> T {
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    thread::scope(|scope| {
        let transfers = BOTH.map(|direction| {
            let (host, address) = (tunnel.client().host(), server.address());
            scope.spawn(move || transfer_within(host, address, direction, bytes, time).unwrap())
        });
        thread::sleep(time / 4);
        let began = Instant::now();
        let changed = change();
        for done in transfers.map(|transfer| transfer.join().unwrap()) {
            assert!(done.bytes == bytes && done.is_intact(), "{what}: {done:?}");
            println!("{what}: nothing arrived for {:?}", done.silence);
        }
        println!("{what}: all had arrived {:?} after the change", began.elapsed());
        changed
    })
}
