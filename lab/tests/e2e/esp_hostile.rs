//! What a stranger on the path or elsewhere may send to a gateway's port: nothing of it gets in, gets an answer, or is
//! in the way.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::programs::ToldSession;
use adit_lab::traffic::{
    Capture, Captured, Dialogue, Direction, Flood, TcpServer, UdpEcho, Volley, echo, inject, inject_marked, transfer,
    udp_packet,
};
use adit_lab::{Feature, GATEWAY_V4, Host, INTERNET_V4};
use adit_testing::{PATIENCE, alone, eventually};

use crate::harness::{CLIENT_MARK, Carrier, INTERNET, Options, Tunnel, filter, nft, reach, unfilter};

/// The gateway's port.
const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(GATEWAY_V4), 443);
/// The outer address of the first client, and that of the attacker, who has the second client's place.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 34);
const ATTACKER_PORT: u16 = 4_500;
/// The outer link of client and attacker.
const LINK: &str = "eth0";
/// Datagrams leave one by one, as over a network card that cannot segment.
const ONE_BY_ONE: [Feature; 1] = [("tx-udp-segmentation", false)];

/// Datagrams replayed in each test, and how many are sent before it is waited for that the gateway has counted them, so
/// that no buffer overflows.
const REPLAYS: u64 = 100_000;
const AT_ONCE: u64 = 2_000;
/// What the gateway says of them.
const REFUSED: [&str; 2] = ["replayed", "too_old"];
/// Packets sent so that their datagrams can be captured.
const CAPTURED: u32 = 12_000;

/// Datagrams a second of a flood.
const FLOOD: u32 = 50_000;
/// So many datagrams must be dropped for each reason before it is looked at what passes beside them.
const OF_EACH_REASON: u64 = 1_000;
/// Bytes that pass beside a flood, each way and over each family.
const BESIDE: u64 = 4 << 20;
/// A theft goes on until so many packets of the client went astray.
const STOLEN: u64 = 200;

/// Bytes of the IP and UDP headers of an IPv4 datagram.
const HEADERS: u64 = 28;

/// A client on ESP, and a stranger's host with its own link to the gateway.
fn attacked() -> Option<(Tunnel, Host)> {
    let mut tunnel = Tunnel::start_over(Carrier::Esp, Options::default())?;
    let attacker = tunnel.lab.add_client().unwrap();
    for host in [tunnel.client().host(), &attacker] {
        host.set_features(LINK, &ONE_BY_ONE).unwrap();
    }
    INTERNET.into_iter().for_each(|target| reach(tunnel.client().host(), target));
    // What goes between gateway and attacker, from here on.
    let from = format!("ip saddr {GATEWAY_V4} counter");
    let to = format!("ip daddr {GATEWAY_V4} counter");
    filter(&attacker, BACK, &[("prerouting priority -300", &from)]);
    filter(&attacker, OUT, &[("postrouting priority 300", &to)]);
    Some((tunnel, attacker))
}

/// The counters of what came back from the gateway to the attacker, and of what went out to it.
const BACK: &str = "back";
const OUT: &str = "out";

/// Packets, and bytes with their IP headers, of one of the attacker's counters.
fn counted(attacker: &Host, name: &str) -> (u64, u64) {
    let said = nft(attacker, &format!("list table inet {name}"));
    let mut words = said.split_whitespace().skip_while(|word| *word != "packets");
    let mut number = || words.by_ref().nth(1).unwrap().parse().unwrap();
    (number(), number())
}

/// The client's session.
fn session(tunnel: &Tunnel) -> ToldSession {
    tunnel.session_of(tunnel.client().inner_addresses().unwrap()[0]).unwrap()
}

fn drops(session: &ToldSession, reasons: &[&str]) -> u64 {
    reasons.iter().filter_map(|reason| session.drops.get(*reason)).sum()
}

/// Whether a packet is an ESP datagram on its way from the client to the gateway.
fn is_esp(packet: &Captured) -> bool {
    packet.source == CLIENT
        && packet.udp().is_some_and(|(_, to, payload)| to == GATEWAY.port() && leads_with_spi(payload))
}

fn leads_with_spi(payload: &[u8]) -> bool {
    payload.first().is_some_and(|first| first >> 6 == 0b10)
}

/// ESP datagrams of the live session, as they left the client.
fn captured(tunnel: &Tunnel) -> Vec<Captured> {
    let server = UdpEcho::start(&tunnel.internet, INTERNET_V4.into()).unwrap();
    let capture = Capture::start_for(tunnel.client().host(), is_esp).unwrap();
    echo(tunnel.client().host(), server.address(), CAPTURED, 5_000, 60).unwrap();
    let seen = capture.packets(|_| true);
    println!("captured {} datagrams of {} bytes", seen.len(), seen[0].bytes.len());
    assert!(seen.len() > 8_192, "more was captured than a replay window holds");
    seen
}

/// The same datagram from `source`. Its UDP checksum is made anew: it was not yet there when the packet was captured.
fn sent_by(source: SocketAddr, packet: &Captured) -> Vec<u8> {
    udp_packet(source, GATEWAY, 64, packet.udp().unwrap().2)
}

fn from_attacker(packet: &Captured) -> Vec<u8> {
    sent_by((ATTACKER, ATTACKER_PORT).into(), packet)
}

/// Sends `packets` round and round until it was [`REPLAYS`], not faster than the gateway reads.
fn replay(tunnel: &Tunnel, host: &Host, packets: &[Vec<u8>]) {
    let refused = || drops(&session(tunnel), &REFUSED);
    let before = refused();
    let mut rounds = packets.iter().cycle();
    let mut sent = 0;
    while sent < REPLAYS {
        inject_marked(host, LINK, CLIENT_MARK, rounds.by_ref().take(AT_ONCE.try_into().unwrap()).cloned().collect())
            .unwrap();
        sent += AT_ONCE;
        eventually("replays are counted", || (refused() - before >= sent).then_some(()));
    }
}

#[test]
fn replays_from_the_clients_own_address_are_not_accepted() {
    let Some((tunnel, attacker)) = attacked() else { return };
    let own = |packet: &Captured| sent_by((CLIENT, packet.udp().unwrap().0).into(), packet);
    let seen: Vec<_> = captured(&tunnel).iter().map(own).collect();
    assert_replays_fail(&tunnel, &attacker, tunnel.client().host(), &seen);
}

#[test]
fn replays_from_another_address_are_not_accepted_and_move_nothing() {
    let Some((tunnel, attacker)) = attacked() else { return };
    let seen: Vec<_> = captured(&tunnel).iter().map(from_attacker).collect();
    assert_replays_fail(&tunnel, &attacker, &attacker, &seen);
}

fn assert_replays_fail(tunnel: &Tunnel, attacker: &Host, host: &Host, packets: &[Vec<u8>]) {
    let before = session(tunnel);
    let start = Instant::now();
    let dialogue = Dialogue::start(tunnel.client().host(), &tunnel.internet, INTERNET_V4.into(), 200).unwrap();
    eventually("packets flow", || dialogue.arrived_since(start).iter().all(|count| *count > 5).then_some(()));
    replay(tunnel, host, packets);
    let courses = dialogue.finish();
    let after = session(tunnel);
    let refused = drops(&after, &REFUSED) - drops(&before, &REFUSED);
    println!("{REPLAYS} replays in {:?}: {refused} refused", start.elapsed());
    assert_eq!(refused, REPLAYS, "each replay is refused and counted once");
    assert_eq!(without(&before.drops, &REFUSED), without(&after.drops, &REFUSED), "nothing else is dropped");
    // What was accepted is what the client sent: nothing more than the numbered packets and a few of its kernel's own.
    let accepted = after.rx_packets - before.rx_packets;
    assert!(accepted <= u64::from(courses[0].sent) + 20, "{accepted} packets were accepted of {}", courses[0].sent);
    for course in &courses {
        assert_eq!((course.duplicated(), course.lost()), (0, 0), "the session's own packets arrive once");
    }
    assert_eq!((after.session, after.remote), (before.session, before.remote), "the session stays where it is");
    assert_eq!(counted(attacker, BACK), (0, 0), "nothing goes to the attacker");
    tunnel.travels_by(Carrier::Esp);
}

fn without(drops: &BTreeMap<String, u64>, reasons: &[&str]) -> BTreeMap<String, u64> {
    drops.iter().filter(|(reason, _)| !reasons.contains(&reason.as_str())).map(|(r, n)| (r.clone(), *n)).collect()
}

/// Sends on under the attacker's address what the client sends; it stops on drop.
struct Thief {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Thief {
    fn start(victim: &Host, attacker: &Host) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (victim, attacker, told) = (victim.clone(), attacker.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let capture = Capture::start_for(&victim, is_esp).unwrap();
            let mut done = 0;
            while !told.load(Ordering::Relaxed) {
                let seen = capture.packets(|_| true);
                inject(&attacker, LINK, seen[done..].iter().map(from_attacker).collect()).unwrap();
                done = seen.len();
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

#[test]
fn thief_of_datagrams_gets_three_times_their_bytes_at_most_and_no_session() {
    let Some((tunnel, attacker)) = attacked() else { return };
    let before = session(&tunnel);
    let start = Instant::now();
    let dialogue = Dialogue::start(tunnel.client().host(), &tunnel.internet, INTERNET_V4.into(), 200).unwrap();
    eventually("packets flow", || dialogue.arrived_since(start).iter().all(|count| *count > 5).then_some(()));

    // What the client sends by ESP arrives from the attacker only.
    let theft = Instant::now();
    filter(
        tunnel.gateway.host(),
        "stolen",
        &[("prerouting priority -300", &format!("ip saddr {CLIENT} udp dport 443 @th,64,2 2 drop"))],
    );
    let thief = Thief::start(tunnel.client().host(), &attacker);
    eventually("packets are stolen, and answered", || {
        (counted(&attacker, OUT).0 >= STOLEN && counted(&attacker, BACK).0 > 0).then_some(())
    });
    eventually("traffic goes on by another way", || {
        dialogue.arrived_since(theft).iter().all(|count| *count > 50).then_some(())
    });
    drop(thief);
    unfilter(tunnel.gateway.host(), "stolen");

    let [back, out] = [BACK, OUT].map(|name| counted(&attacker, name));
    let bytes = |(packets, bytes): (u64, u64)| bytes - packets * HEADERS;
    println!("the attacker sent {out:?} and got {back:?} packets and bytes");
    assert!(bytes(back) <= 3 * bytes(out), "{} bytes went to the attacker for {}", bytes(back), bytes(out));
    tunnel.travels_by(Carrier::Esp);
    let now = Instant::now();
    eventually("packets flow again", || dialogue.arrived_since(now).iter().all(|count| *count > 50).then_some(()));
    let after = session(&tunnel);
    assert_eq!((after.session, after.remote), (before.session, before.remote), "the session stays where it is");
    let courses = dialogue.finish();
    assert!(courses.iter().all(|course| course.duplicated() == 0), "nothing arrives twice");
}

/// Bytes that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_be_bytes()[3];
        }
    }
}

/// Garbage, truncated and huge datagrams, those of SPIs that do not exist, and forged ones of `spi`, which does.
fn hail(spi: [u8; 4]) -> Vec<Volley> {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let mut number = 10_000_000_u32;
    let mut volley = |size: usize, head: &[u8], masked: bool| {
        Volley::new(size, |datagram| {
            noise.fill(datagram);
            // Any first byte of ESP, those of workers that do not exist among them.
            datagram[0] = datagram[0] & 0x3f | 0x80;
            if masked {
                datagram[0] = spi[0];
            }
            let known = head.len().min(datagram.len());
            datagram[..known].copy_from_slice(&head[..known]);
            if let Some(numbers) = datagram.get_mut(4..16).filter(|_| known > 0) {
                // As if it came next: a sequence number, and the whole of it as the IV.
                number += 1;
                numbers[..4].copy_from_slice(&number.to_be_bytes());
                numbers[4..].copy_from_slice(&u64::from(number).to_be_bytes());
            }
        })
    };
    let mut volleys: Vec<_> = (1..=40).map(|size| volley(size, &spi, false)).collect();
    for size in [41, 64, 100, 100, 200, 200, 576, 1_316, 1_472] {
        volleys.push(volley(size, &[], false)); // garbage
        volleys.push(volley(size, &[], true)); // of an SPI that this worker does not have
        volleys.push(volley(size, &spi, false)); // of the client's own
    }
    volleys.extend([9_000, Volley::MOST_BYTES].map(|size| volley(size, &spi, false)));
    volleys
}

/// The SPI on which the gateway receives the session's packets.
fn spi(tunnel: &Tunnel) -> [u8; 4] {
    let capture = Capture::start(tunnel.client().host()).unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    let seen = capture.wait_for(PATIENCE, is_esp).unwrap();
    *seen.udp().unwrap().2.first_chunk().unwrap()
}

#[test]
fn flood_of_bad_datagrams_is_dropped_unanswered_and_established_flows_arrive() {
    let _alone = alone();
    let Some((tunnel, attacker)) = attacked() else { return };
    let before = session(&tunnel);
    let volleys = hail(spi(&tunnel));
    let flood = Flood::start(&attacker, GATEWAY, volleys, FLOOD).unwrap();
    eventually("each kind of bad datagram is counted under its reason", || {
        let (client, homeless) = (session(&tunnel).drops, gateway_drops(&tunnel));
        let counted = |reason: &str| {
            [&client, &homeless].iter().filter_map(|drops| drops.get(reason)).sum::<u64>() >= OF_EACH_REASON
        };
        ["authentication_failed", "truncated", "unknown_spi"].into_iter().all(counted).then_some(())
    });

    // While the flood goes on, all that the client sends and gets arrives.
    let begun = flood.sent();
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let done = transfer(tunnel.client().host(), server.address(), direction, BESIDE).unwrap();
            assert!(done.is_intact() && done.bytes == BESIDE, "{direction:?}, {address}");
        }
    }
    eventually("the flood still goes on", || (flood.sent() > begun).then_some(()));
    let sent = flood.sent();
    drop(flood);
    let after = session(&tunnel);
    println!("{sent} bad datagrams: {:?} of the session, {:?} of nobody", after.drops, gateway_drops(&tunnel));
    assert_eq!((after.session, after.remote), (before.session, before.remote), "the session stays where it is");
    assert_eq!(counted(&attacker, BACK), (0, 0), "the attacker gets no packet");
    tunnel.travels_by(Carrier::Esp);
}

/// What the gateway dropped that belongs to no session, as it tells it.
fn gateway_drops(tunnel: &Tunnel) -> BTreeMap<String, u64> {
    serde_json::from_value(tunnel.gateway.admin_json(&["status"]).unwrap()["drops"].take()).unwrap()
}

#[test]
fn default_client_gets_on_with_gateways_that_lack_something() {
    let variants: [&[(&str, &str)]; 4] = [
        &[("esp.vouched", "false")],
        &[("esp.suites", r#"["chacha20-poly1305"]"#)],
        &[("workers.tun_offload", "false"), ("workers.udp_offload", "false")],
        &[("esp.vouched", "false"), ("esp.suites", r#"["aes-128-gcm"]"#), ("workers.count", "1")],
    ];
    for settings in variants {
        let Some(tunnel) = Tunnel::start_over(Carrier::Esp, Options { settings, ..Options::default() }) else { return };
        for address in INTERNET {
            let server = TcpServer::start(&tunnel.internet, address).unwrap();
            for direction in [Direction::Upload, Direction::Download] {
                let done = transfer(tunnel.client().host(), server.address(), direction, 3_000_001).unwrap();
                assert!(done.is_intact(), "{settings:?}, {direction:?}, {address}");
            }
        }
        let session = session(&tunnel);
        let suite =
            settings.iter().find(|(key, _)| *key == "esp.suites").map(|(_, list)| list.trim_matches(['[', ']', '"']));
        let named = session.suite.unwrap_or_default().to_lowercase();
        assert!(suite.is_none_or(|suite| named == suite), "{settings:?}: the suite is {named}");
        tunnel.travels_by(Carrier::Esp);
    }
}
