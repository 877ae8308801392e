//! The tunnel follows what its path takes, and never has a datagram fragmented.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::Feature;
use adit_lab::programs::TUN;
use adit_lab::traffic::{
    Capture, Captured, Direction, NumberedPlan, TcpServer, inject, numbered, transfer, udp_packet,
};
use adit_testing::{PATIENCE, eventually};

use super::observe::{CABLE, Wire, stands};
use crate::harness::{INTERNET, Options, Tunnel, nft, reach};

/// Packets the narrower path takes, with IP headers.
const NARROW: u32 = 1_400;
/// The largest inner packet in such: less IP, UDP, and ESP without padding.
const WITHIN: u16 = 1_400 - 20 - 8 - 16 - 2 - 16;
/// The search leaves less than this open.
const RESOLUTION: u16 = 8;
/// A UDP payload that fits the wide path only.
const BIG: usize = 1_390;
/// The tunnel notices a cable that became narrower this soon: its own kernel says so. Twenty times as long is a
/// failure.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
/// The same of a router that drops without a word: the size is confirmed every second, given up 0.8 s later, and
/// searched again after 5 s, which needs up to four sizes that are not answered. Twice as long is a failure.
const FOUND_WITHIN: Duration = Duration::from_secs(20);
/// Each datagram is by itself on the cable, so that rules see its length.
const ALONE: [Feature; 2] = [("tx-udp-segmentation", false), ("rx-gro", false)];

/// A tunnel that is not up yet.
fn joined() -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    Some(tunnel)
}

fn narrow_cable(tunnel: &Tunnel) {
    for host in [tunnel.client().host(), tunnel.gateway.host()] {
        host.set_mtu(CABLE, NARROW).unwrap();
    }
}

/// Makes the path drop larger datagrams both ways without a word, as a router behind a firewall does.
fn black_hole(tunnel: &Tunnel) {
    for (host, port) in [(tunnel.gateway.host(), "dport"), (tunnel.client().host(), "sport")] {
        let rule = format!("iifname \"{CABLE}\" udp {port} 443 meta length > {NARROW} counter drop");
        let chain = "type filter hook prerouting priority -310;";
        nft(host, &format!("table inet narrow {{ chain path {{ {chain} {rule}; }}; }}"));
    }
}

fn separate_datagrams(tunnel: &Tunnel) {
    for host in [tunnel.client().host(), tunnel.gateway.host()] {
        host.set_features(CABLE, &ALONE).unwrap();
    }
}

/// MTUs as both ends know them, and as the client's kernel has it.
fn mtus(tunnel: &Tunnel) -> [u16; 3] {
    let status = tunnel.client().status().unwrap();
    let session = tunnel.session_of(status.addresses[0].addr()).unwrap();
    let tun = tunnel.client().host().mtu(TUN).unwrap();
    [status.mtu.unwrap_or_default(), session.mtu, tun.try_into().unwrap()]
}

/// Waits until both ends know what the narrow path takes.
fn narrowed(tunnel: &Tunnel, limit: Duration) -> Duration {
    let start = Instant::now();
    loop {
        let mtus = mtus(tunnel);
        if mtus.iter().all(|mtu| (WITHIN - RESOLUTION..=WITHIN).contains(mtu)) {
            return start.elapsed();
        }
        assert!(start.elapsed() < limit, "after {limit:?} the MTUs are {mtus:?}, not up to {WITHIN}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Transfers and datagrams of every size arrive, and none of the tunnel's datagrams was fragmented.
fn assert_usable(tunnel: &Tunnel, wire: &Wire) {
    let client = tunnel.client().host();
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let what = format!("{direction:?} with {address}");
            assert!(transfer(client, server.address(), direction, 2 << 20).unwrap().is_intact(), "{what}");
            let sizes = vec![100, usize::from(WITHIN), BIG, 4_000, 65_000];
            let plan = NumberedPlan { direction, flows: 1, sizes, packets: 20, rate: 200 };
            let report = numbered(client, &tunnel.internet, address, &plan).unwrap();
            assert!(report.is_flawless(), "{what}: {report:?}");
        }
    }
    assert_eq!(wire.fragments(), [], "no datagram of the tunnel is fragmented");
    stands(tunnel, 0, "esp");
}

#[test]
fn tunnel_fits_a_cable_that_is_narrow_from_the_start() {
    let Some(mut tunnel) = joined() else { return };
    narrow_cable(&tunnel);
    let wire = Wire::start(tunnel.client().host());
    tunnel.clients[0].up().unwrap();
    stands(&tunnel, 0, "esp");
    println!("found after {:?}: {:?}", narrowed(&tunnel, NOTICED_WITHIN), mtus(&tunnel));
    assert_usable(&tunnel, &wire);
}

#[test]
fn tunnel_fits_a_path_that_drops_large_datagrams_from_the_start() {
    let Some(mut tunnel) = joined() else { return };
    separate_datagrams(&tunnel);
    black_hole(&tunnel);
    let wire = Wire::start(tunnel.client().host());
    tunnel.clients[0].up().unwrap();
    stands(&tunnel, 0, "esp");
    println!("found after {:?}: {:?}", narrowed(&tunnel, FOUND_WITHIN), mtus(&tunnel));
    assert_usable(&tunnel, &wire);
}

#[test]
fn tunnel_follows_a_cable_that_becomes_narrower() {
    let Some(mut tunnel) = joined() else { return };
    tunnel.clients[0].up().unwrap();
    stands(&tunnel, 0, "esp");
    eventually("the wide path is found", || mtus(&tunnel).iter().all(|mtu| *mtu > WITHIN).then_some(()));
    let wire = Wire::start(tunnel.client().host());
    under_load(&tunnel, || {
        narrow_cable(&tunnel);
        println!("found after {:?}: {:?}", narrowed(&tunnel, NOTICED_WITHIN), mtus(&tunnel));
    });
    assert_usable(&tunnel, &wire);
}

#[test]
fn tunnel_follows_a_path_that_begins_to_drop_large_datagrams() {
    let Some(mut tunnel) = joined() else { return };
    separate_datagrams(&tunnel);
    tunnel.clients[0].up().unwrap();
    stands(&tunnel, 0, "esp");
    eventually("the wide path is found", || mtus(&tunnel).iter().all(|mtu| *mtu > WITHIN).then_some(()));
    let wire = Wire::start(tunnel.client().host());
    under_load(&tunnel, || {
        black_hole(&tunnel);
        println!("found after {:?}: {:?}", narrowed(&tunnel, FOUND_WITHIN), mtus(&tunnel));
    });
    assert_usable(&tunnel, &wire);
}

/// Does something while large packets go both ways, and expects that some got through before.
fn under_load(tunnel: &Tunnel, change: impl FnOnce()) {
    let (client, internet) = (tunnel.client().host(), &tunnel.internet);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also where the change panics.
        let _end = End(&stop);
        let flows = [Direction::Upload, Direction::Download].map(|direction| {
            let stop = &stop;
            scope.spawn(move || {
                let plan = NumberedPlan { direction, flows: 1, sizes: vec![BIG], packets: 100, rate: 200 };
                let first = numbered(client, internet, INTERNET[0], &plan);
                while !stop.load(Ordering::Relaxed) {
                    // What becomes of these is looked at afterwards, on the changed path.
                    drop(numbered(client, internet, INTERNET[0], &plan));
                }
                first.unwrap()
            })
        });
        thread::sleep(Duration::from_millis(700));
        change();
        stop.store(true, Ordering::Relaxed);
        for report in flows.map(|flow| flow.join().unwrap()) {
            assert!(report.received > 0, "{report:?}");
        }
    });
}

/// Ends the load when it goes out of scope.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn senders_of_packets_that_do_not_fit_are_told_what_does() {
    let Some(mut tunnel) = joined() else { return };
    narrow_cable(&tunnel);
    tunnel.clients[0].up().unwrap();
    stands(&tunnel, 0, "esp");
    narrowed(&tunnel, NOTICED_WITHIN);
    let [_, mtu, _] = mtus(&tunnel);
    let capture = Capture::start(&tunnel.internet).unwrap();
    for address in INTERNET {
        reach(tunnel.client().host(), address);
        // Of the default MTU of the gateway's device, with DF.
        let plan =
            NumberedPlan { direction: Direction::Download, flows: 1, sizes: vec![BIG - 30], packets: 5, rate: 50 };
        numbered(tunnel.client().host(), &tunnel.internet, address, &plan).unwrap();
        let told = capture.wait_for(PATIENCE, |packet| packet.destination == address && told_mtu(packet).is_some());
        assert_eq!(told.as_ref().and_then(told_mtu), Some(mtu.into()), "{address}: {told:?}");
    }
    let [mtu, ..] = mtus(&tunnel);
    for address in INTERNET {
        let takes = [mtu, mtu + 1].map(|size| takes(&tunnel, address, size));
        assert_eq!(takes, [true, false], "the client's own kernel knows: {address}");
    }
}

/// The MTU in an ICMP message that a packet is too big (RFC 1191, RFC 4443 section 3.2).
fn told_mtu(packet: &Captured) -> Option<u32> {
    let bytes = &packet.bytes;
    match packet.source {
        IpAddr::V4(_) if bytes.get(9) == Some(&1) && bytes.get(20..22) == Some(&[3, 4]) => {
            bytes.get(26..)?.first_chunk().map(|field| u16::from_be_bytes(*field).into())
        }
        IpAddr::V6(_) if bytes.get(6) == Some(&58) && bytes.get(40) == Some(&2) => {
            bytes.get(44..)?.first_chunk().map(|field| u32::from_be_bytes(*field))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Whether the client's kernel takes a UDP packet of that many bytes in one piece.
pub(crate) fn takes(tunnel: &Tunnel, target: IpAddr, size: u16) -> bool {
    let client = tunnel.client();
    let own = client.inner_addresses().unwrap().into_iter().find(|own| own.is_ipv4() == target.is_ipv4()).unwrap();
    let headers = if target.is_ipv4() { 28 } else { 48 };
    let packet = udp_packet((own, 9).into(), (target, 9).into(), 64, &vec![0; usize::from(size) - headers]);
    inject(client.host(), TUN, vec![packet]).is_ok()
}
