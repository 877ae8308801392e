//! Everything arrives as it was sent, whatever each end has switched on or off.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Instant;

use adit_lab::Host;
use adit_lab::traffic::{Direction, NumberedPlan, NumberedReport, TcpServer, numbered, transfer};
use adit_testing::alone;

use super::observe::{counters, damage, full_queues, profile, stands, suspicious};
use crate::harness::{INTERNET, Options, Tunnel};

/// UDP payloads: around every limit from the smallest to the largest that IPv4 can carry.
const SIZES: [usize; 16] =
    [1, 2, 3, 64, 700, 1_200, 1_231, 1_232, 1_252, 1_253, 1_372, 1_393, 1_472, 9_000, 30_001, 65_507];
const ONE_FLOW: u64 = 3 << 20;
const MANY_FLOWS: u64 = 400_000;
const FLOWS: usize = 8;
/// How often datagrams may be lost to a machine that is busy with something else.
const TRIES: usize = 3;
const SUITES: [&str; 3] = ["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"];

/// What the ends are told. Order: TUN offload, UDP offload and vouching of the gateway, then of the client; the wider
/// MTU at the gateway.
#[derive(Debug, Clone, Copy)]
struct Case {
    switches: [bool; 7],
    suite: usize,
}

/// Every value of every setting meets every value of every other one in some row.
const CASES: [Case; 8] = {
    const fn case(bits: [u8; 7], suite: usize) -> Case {
        let [a, b, c, d, e, f, g] = bits;
        Case { switches: [a == 1, b == 1, c == 1, d == 1, e == 1, f == 1, g == 1], suite }
    }
    [
        case([0, 1, 1, 1, 0, 1, 0], 1),
        case([0, 1, 0, 0, 0, 0, 1], 0),
        case([1, 0, 0, 0, 1, 0, 1], 1),
        case([1, 0, 0, 0, 1, 0, 0], 0),
        case([1, 1, 1, 0, 1, 1, 0], 2),
        case([0, 0, 1, 1, 0, 1, 1], 0),
        case([1, 0, 1, 1, 0, 0, 1], 2),
        case([0, 0, 0, 1, 1, 1, 0], 2),
    ]
};

/// The same for QUIC, which knows neither UDP offload nor vouching nor suites of ours.
const QUIC_CASES: [[bool; 3]; 4] =
    [[false, false, false], [true, false, true], [false, true, true], [true, true, false]];

impl Case {
    fn apply(self, tunnel: &mut Tunnel, base: &str) {
        let [tun, udp, vouched, client_tun, client_udp, client_vouched, wide] = self.switches;
        for (key, value) in [("workers.tun_offload", tun), ("workers.udp_offload", udp), ("esp.vouched", vouched)] {
            tunnel.gateway.set(key, if value { "true" } else { "false" });
        }
        tunnel.gateway.set("tun.mtu", if wide { "1420" } else { "1280" });
        tunnel.gateway.set("esp.suites", &format!("[\"{}\"]", SUITES[self.suite]));
        let esp = format!("[esp]\nvouched = {client_vouched}\n");
        let workers = format!("[workers]\ntun_offload = {client_tun}\nudp_offload = {client_udp}\n");
        fs::write(profile(tunnel.client()), format!("{base}\n{esp}{workers}")).unwrap();
    }
}

#[test]
fn cases_have_every_pair_of_settings() {
    let values = |case: &Case| {
        let mut values: Vec<usize> = case.switches.iter().map(|on| usize::from(*on)).collect();
        values.push(case.suite);
        values
    };
    let mut pairs = BTreeSet::new();
    for case in CASES.iter().map(values) {
        for (first, a) in case.iter().enumerate() {
            pairs.extend(case.iter().enumerate().skip(first + 1).map(|(second, b)| (first, *a, second, *b)));
        }
    }
    assert_eq!(pairs.len(), 21 * 4 + 7 * 6);
}

/// A gateway and a client that has joined, the text of its profile, and nobody running.
fn prepared() -> Option<(Tunnel, String)> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    let base = fs::read_to_string(profile(tunnel.client())).unwrap();
    Some((tunnel, base))
}

#[test]
fn everything_arrives_by_esp_with_each_offload_on_and_off() {
    let _turn = alone();
    let Some((mut tunnel, base)) = prepared() else { return };
    for case in CASES {
        case.apply(&mut tunnel, &base);
        tunnel.gateway.start().unwrap();
        tunnel.clients[0].up().unwrap();
        let status = stands(&tunnel, 0, "esp");
        assert_eq!(status.suite.as_deref(), Some(SUITES[case.suite]), "{case:?}");
        assert_everything_arrives(&tunnel, &format!("{case:?}"));
        let status = tunnel.client().status().unwrap();
        assert_eq!(status.carrier.as_deref(), Some("esp"), "{case:?}");
        let session = tunnel.session_of(status.addresses[0].addr()).unwrap();
        for drops in [&status.drops, &session.drops] {
            assert_eq!(suspicious(drops), [], "{case:?}");
        }
        stop(&mut tunnel);
    }
}

#[test]
fn everything_arrives_by_quic_with_each_offload_on_and_off() {
    let _turn = alone();
    let Some((mut tunnel, base)) = prepared() else { return };
    for [tun, client_tun, wide] in QUIC_CASES {
        let switches = [tun, true, true, client_tun, true, true, wide];
        Case { switches, suite: 0 }.apply(&mut tunnel, &base);
        tunnel.gateway.start().unwrap();
        tunnel.clients[0].up_with(&["--carrier", "quic"], &[]).unwrap();
        stands(&tunnel, 0, "quic");
        assert_everything_arrives(&tunnel, &format!("quic, {:?}", [tun, client_tun, wide]));
        stop(&mut tunnel);
    }
}

fn stop(tunnel: &mut Tunnel) {
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
}

/// TCP with one flow and with many, and UDP of every size, each way and of each family; and no kernel saw a wrong byte.
fn assert_everything_arrives(tunnel: &Tunnel, case: &str) {
    let client = tunnel.client().host();
    let hosts = [client, tunnel.gateway.host(), &tunnel.internet];
    let (start, before, full) = (Instant::now(), retransmitted(tunnel), full_queues(&hosts));
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let what = format!("{case}: {direction:?} with {address}");
            assert_intact(client, server.address(), direction, ONE_FLOW, &what);
            thread::scope(|scope| {
                for _ in 0..FLOWS {
                    scope.spawn(|| assert_intact(client, server.address(), direction, MANY_FLOWS, &what));
                }
            });
            assert_datagrams_arrive(tunnel, address, direction, &what);
        }
    }
    let again = retransmitted(tunnel) - before;
    let full = full_queues(&hosts) - full;
    println!("{case}: {again} segments were sent again, {full} found a full queue, {:?}", start.elapsed());
    for host in [client, &tunnel.internet] {
        assert_eq!(damage(host), [], "{case}: {}", host.name());
    }
}

fn assert_intact(client: &Host, server: SocketAddr, direction: Direction, bytes: u64, what: &str) {
    let done = transfer(client, server, direction, bytes).unwrap();
    assert!(done.bytes == bytes && done.is_intact(), "{what}");
}

fn assert_datagrams_arrive(tunnel: &Tunnel, address: IpAddr, direction: Direction, what: &str) {
    let packets = u32::try_from(SIZES.len() * 2).unwrap();
    let plan = NumberedPlan { direction, flows: 1, sizes: SIZES.to_vec(), packets, rate: 300 };
    // Queues give up datagrams that a starved program left lying too long. What depends on a size is lost each time.
    let mut lost = Vec::new();
    for _ in 0..TRIES {
        let report = numbered(tunnel.client().host(), &tunnel.internet, address, &plan).unwrap();
        if report.is_flawless() {
            return;
        }
        let complete = NumberedReport { received: report.sent, ..report };
        assert!(complete.is_flawless(), "{what}: {report:?}");
        lost.push(report);
    }
    panic!("{what}: {lost:?}");
}

fn retransmitted(tunnel: &Tunnel) -> u64 {
    let of = |host: &Host| counters(host)["TcpRetransSegs"];
    of(tunnel.client().host()) + of(&tunnel.internet)
}
