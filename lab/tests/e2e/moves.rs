//! A host that moves at random moments while flows go on: it gets another address, its link is gone for a while, or it
//! comes into a network of the other address family.
//!
//! `ADIT_MOVES` says how often, `ADIT_SEED` when; a failure tells the seed.

use std::env;
use std::thread;
use std::time::Instant;

use adit_lab::traffic::{Dialogue, Direction, TcpServer, transfer_within};
use adit_lab::{GATEWAY_V4, GATEWAY_V6, INTERNET_V4, Move, Traveller};
use adit_testing::eventually;

use crate::harness::{INTERNET, Options, Tunnel, flows, reach};

/// Moves of one run, unless `ADIT_MOVES` says otherwise.
const MOVES: u32 = 5;
/// Bytes of each flow, spread over a run and more.
const FLOW: u64 = 4 << 20;

/// A client that moves, connected by a carrier to a gateway with an address of each family.
fn connected(carrier: &[&str], seed: u64) -> Option<(Tunnel, Traveller)> {
    let public = format!(r#"["{GATEWAY_V4}:443", "[{GATEWAY_V6}]:443"]"#);
    let mut tunnel = Tunnel::prepare(Options { clients: 1, settings: &[("public", &public)] })?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let traveller = Traveller::settle(tunnel.client().host(), seed).unwrap();
    tunnel.clients[0].up_with(carrier, &[]).unwrap();
    INTERNET.into_iter().for_each(|target| reach(tunnel.client().host(), target));
    Some((tunnel, traveller))
}

fn number_from(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

fn flows_survive_moves(carrier: &[&str]) {
    let moves = number_from("ADIT_MOVES").map_or(MOVES, |moves| u32::try_from(moves).unwrap());
    let seed = number_from("ADIT_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let Some((tunnel, mut traveller)) = connected(carrier, seed) else { return };
    println!("{moves} moves, ADIT_SEED={seed}");
    let (host, inner) = (tunnel.client().host().clone(), tunnel.client().inner_addresses().unwrap());
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    let dialogue = Dialogue::start(&host, &tunnel.internet, INTERNET_V4.into(), 200).unwrap();
    flows(&dialogue, Instant::now());
    let lasting = Traveller::longest_stay() * moves;
    let transfers = [Direction::Upload, Direction::Download].map(|direction| {
        let (host, address) = (host.clone(), server.address());
        thread::spawn(move || transfer_within(&host, address, direction, FLOW, lasting))
    });
    let mut gaps = Vec::new();
    for (turn, how) in (0..moves).zip(Move::ALL.into_iter().cycle()) {
        thread::sleep(traveller.stay());
        let there = traveller.travel(how).unwrap();
        flows(&dialogue, there);
        let [up, down] = dialogue.longest_silence(there, Instant::now());
        println!("{turn}: {how:?}: silence of {up:?} up and {down:?} down since then");
        gaps.extend([up, down]);
    }
    for transfer in transfers {
        let done = transfer.join().unwrap().unwrap();
        assert!(done.bytes == FLOW && done.is_intact(), "ADIT_SEED={seed}");
    }
    gaps.sort_unstable();
    println!("{carrier:?}: median gap {:?}, longest {:?}", gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    eventually("one session is left", || (tunnel.gateway.sessions().unwrap().len() == 1).then_some(()));
    assert_eq!(tunnel.client().inner_addresses().unwrap(), inner);
    for course in dialogue.finish() {
        println!("{} packets, {} lost", course.sent, course.lost());
        assert_eq!(course.duplicated(), 0, "ADIT_SEED={seed}");
    }
}

#[test]
fn flows_survive_random_moves() {
    flows_survive_moves(&[]);
}

#[test]
fn flows_by_tls_survive_random_moves() {
    flows_survive_moves(&["--carrier", "tls"]);
}
