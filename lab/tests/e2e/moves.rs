//! A host that moves at random moments while flows go on: it gets another address, its link is gone for a while, or it
//! comes into a network of the other address family.
//!
//! `ADIT_MOVES` says how often, `ADIT_SEED` when; a failure tells the seed.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::traffic::{Dialogue, Direction, TcpServer, transfer_within};
use adit_lab::{GATEWAY_V4, GATEWAY_V6, Host, INTERNET_V4};
use adit_testing::eventually;

use crate::harness::{INTERNET, Options, Tunnel, flows, ip, reach};

const LINK: &str = "eth0";
/// Moves of one run, unless `ADIT_MOVES` says otherwise.
const MOVES: u32 = 5;
/// Bytes of each flow, spread over a run and more.
const FLOW: u64 = 4 << 20;
/// Longest pause before a move, and longest time without a link, in milliseconds.
const PAUSE: u64 = 2_500;
const OUTAGE: u64 = 1_500;

/// Numbers that look random and are the same for each seed (splitmix64).
struct Random(u64);

impl Random {
    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn up_to(&mut self, milliseconds: u64) -> Duration {
        Duration::from_millis(self.below(milliseconds))
    }
}

/// A host's only outer address: the last number of it, in one of the families.
#[derive(Debug, Clone, Copy)]
struct Home {
    is_v6: bool,
    number: u8,
}

impl Home {
    /// The command by which the address comes or goes.
    fn address(self, verb: &str) -> String {
        match self.is_v6 {
            false => format!("address {verb} 192.0.2.{}/28 dev {LINK}", self.number),
            true => format!("-6 address {verb} 2001:db8:0:1::{}/64 dev {LINK}", self.number),
        }
    }

    fn route(self, verb: &str) -> String {
        match self.is_v6 {
            false => format!("route {verb} default via {GATEWAY_V4} dev {LINK}"),
            true => format!("-6 route {verb} default via {GATEWAY_V6} dev {LINK}"),
        }
    }

    fn come(self, host: &Host) {
        let usable_at_once = if self.is_v6 { " nodad" } else { "" };
        ip(host, &format!("{}{usable_at_once}", self.address("add")));
        ip(host, &self.route("add"));
    }

    fn go(self, host: &Host) {
        ip(host, &self.route("del"));
        ip(host, &self.address("del"));
    }
}

/// What becomes of a host's place in the network, in turns.
#[derive(Debug, Clone, Copy)]
enum Move {
    Address,
    Outage,
    Family,
}

/// Moves a host; returns where it is now, and when its link was there again.
fn move_host(host: &Host, home: Home, how: Move, random: &mut Random) -> (Home, Instant) {
    // From 18 to 30, as many as the network of IPv4 has beside the gateway, and never the same again.
    let number = 18 + (home.number - 18 + 1 + u8::try_from(random.below(12)).unwrap()) % 13;
    let next = Home { is_v6: home.is_v6 != matches!(how, Move::Family), number };
    home.go(host);
    if matches!(how, Move::Outage) {
        host.set_link(LINK, false).unwrap();
        thread::sleep(random.up_to(OUTAGE));
        host.set_link(LINK, true).unwrap();
    }
    next.come(host);
    (next, Instant::now())
}

/// A client, connected by a carrier, whose gateway has an address of each family.
fn connected(carrier: &[&str]) -> Option<(Tunnel, Home)> {
    let public = format!(r#"["{GATEWAY_V4}:443", "[{GATEWAY_V6}]:443"]"#);
    let mut tunnel = Tunnel::prepare(Options { clients: 1, settings: &[("public", &public)] })?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let host = tunnel.client().host();
    ip(host, &format!("-6 route del default via {GATEWAY_V6}"));
    ip(host, &format!("-6 address del 2001:db8:0:1::2/64 dev {LINK}"));
    tunnel.clients[0].up_with(carrier, &[]).unwrap();
    INTERNET.into_iter().for_each(|target| reach(tunnel.client().host(), target));
    Some((tunnel, Home { is_v6: false, number: 18 }))
}

fn number_from(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

fn flows_survive_moves(carrier: &[&str]) {
    let Some((tunnel, mut home)) = connected(carrier) else { return };
    let moves = number_from("ADIT_MOVES").map_or(MOVES, |moves| u32::try_from(moves).unwrap());
    let seed = number_from("ADIT_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{moves} moves, ADIT_SEED={seed}");
    let mut random = Random(seed);
    let (host, inner) = (tunnel.client().host().clone(), tunnel.client().inner_addresses().unwrap());
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    let dialogue = Dialogue::start(&host, &tunnel.internet, INTERNET_V4.into(), 200).unwrap();
    flows(&dialogue, Instant::now());
    let lasting = Duration::from_millis(PAUSE) * moves;
    let transfers = [Direction::Upload, Direction::Download].map(|direction| {
        let (host, address) = (host.clone(), server.address());
        thread::spawn(move || transfer_within(&host, address, direction, FLOW, lasting))
    });
    let mut gaps = Vec::new();
    let kinds = [Move::Address, Move::Family, Move::Outage].into_iter().cycle();
    for (turn, how) in (0..moves).zip(kinds) {
        thread::sleep(random.up_to(PAUSE));
        let (next, there) = move_host(&host, home, how, &mut random);
        home = next;
        flows(&dialogue, there);
        let [up, down] = dialogue.longest_silence(there, Instant::now());
        println!("{turn}: {how:?} to {home:?}: silence of {up:?} up and {down:?} down since then");
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
