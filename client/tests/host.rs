//! What a session's settings do to a real kernel, in a network namespace of the test's own. Needs root.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use adit_client::host_plan::managed::{FIRST_TABLE, HostSetupError, ManagedHost, Slot, open_tun};
use adit_client::host_plan::{GuardState, HostHooks};
use adit_client::protocols::NetworkSettings;
use adit_host::{Family, HostChanges, HostOptions, Netlink, Route, RouteTarget, Rule, SystemBus};
use adit_net::tun::Tun;
use adit_proto::mark::Mark;
use adit_proto::range::RouteRange;
use adit_testing::namespace::{in_namespace_async, make_settings_read_only};
use adit_testing::{PATIENCE, eventually};
use ipnet::IpNet;
use nix::sys::socket::{setsockopt, sockopt};

fn settings(addresses: &[&str], routes: &[&str]) -> NetworkSettings {
    NetworkSettings {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        routes: routes.iter().map(|text| RouteRange::from(text.parse::<IpNet>().unwrap())).collect(),
        ..NetworkSettings::default()
    }
}

async fn managed(run: &Path, journal: &str) -> (Tun, ManagedHost) {
    let changes = HostChanges::open(&run.join(journal)).await.unwrap();
    let (tun, slot): (Tun, Slot) = open_tun(run, None, true).unwrap();
    let host = ManagedHost::new(changes, tun.name(), slot, run);
    (tun, host)
}

async fn rules() -> Vec<Rule> {
    let netlink = Netlink::open().unwrap();
    let mut rules = netlink.rules(Family::V4).await.unwrap();
    rules.extend(netlink.rules(Family::V6).await.unwrap());
    rules
}

/// The destinations in a table, those into the tunnel and those that lead nowhere.
async fn table(number: u32) -> (Vec<String>, Vec<String>) {
    let routes = Netlink::open().unwrap().routes(number).await.unwrap();
    let text = |route: &Route| route.prefix.to_string();
    let (mut tunnel, mut nowhere): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for route in &routes {
        match route.target {
            RouteTarget::Link(_) => tunnel.push(text(route)),
            RouteTarget::Unreachable => nowhere.push(text(route)),
        }
    }
    tunnel.sort();
    nowhere.sort();
    (tunnel, nowhere)
}

/// The destinations that lead nowhere in a full tunnel.
fn everything() -> Vec<String> {
    vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()]
}

/// The tables of nftables.
fn firewall() -> String {
    let listed = Command::new("nft").args(["list", "tables"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

/// What becomes of a packet to the outer world, with and without the mark of the client's own sockets.
fn look_up(to: &str, mark: Option<u32>) -> io::Result<()> {
    let to: SocketAddr = to.parse().unwrap();
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    if let Some(mark) = mark {
        setsockopt(&socket, sockopt::Mark, &mark).unwrap();
    }
    socket.connect(to)
}

#[test]
fn full_tunnel_stays_closed_when_its_device_is_deleted() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        let _outside = Tun::create("outside0", 1, true).unwrap();
        ip("link set outside0 up");
        ip("address add 198.51.100.7/24 dev outside0");
        ip("address add 2001:db8:7::7/64 dev outside0 nodad");
        ip("route add default dev outside0");
        ip("-6 route add default dev outside0");
        let world = ["192.0.2.1:9", "[2001:db8::1]:9"];
        world.iter().for_each(|to| look_up(to, None).unwrap());

        let (tun, mut host) = managed(run.path(), "journal").await;
        host.apply(&settings(&["10.64.3.2/32", "fd00::2/128"], &["0.0.0.0/0", "::/0"])).await.unwrap();
        world.iter().for_each(|to| look_up(to, None).unwrap());
        let name = tun.name().to_owned();
        drop(tun);
        // A program that another test just starts may have the device for a moment longer.
        let shown = || Command::new("ip").args(["link", "show", "dev", &name]).output().unwrap();
        eventually("the device is gone", || (!shown().status.success()).then_some(()));
        assert_eq!(table(FIRST_TABLE).await, (vec![], everything()));
        for to in world {
            let kind = look_up(to, None).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::HostUnreachable, "{to} leaves the host beside the tunnel");
            look_up(to, Some(Mark::CLIENT.value)).unwrap();
        }
        host.undo().await.unwrap();
        world.iter().for_each(|to| look_up(to, None).unwrap());
    });
}

#[test]
fn resolver_that_cannot_be_set_keeps_nobody_from_connecting_and_is_set_later() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        let resolv_conf = run.path().join("resolv.conf");
        // Nothing can be put where a directory is.
        std::fs::create_dir(&resolv_conf).unwrap();
        let options =
            HostOptions { resolv_conf: resolv_conf.clone(), bus: SystemBus::Absent, ..HostOptions::default() };
        let changes = HostChanges::open_with(&run.path().join("journal"), options).await.unwrap();
        let (tun, slot) = open_tun(run.path(), None, true).unwrap();
        let mut host = ManagedHost::new(changes, tun.name(), slot, run.path());
        let settings = NetworkSettings {
            dns_servers: vec!["10.64.3.1".parse().unwrap()],
            ..settings(&["10.64.3.2/32"], &["10.0.0.0/8"])
        };
        host.apply(&settings).await.unwrap();
        assert_eq!(table(FIRST_TABLE).await.0, ["10.0.0.0/8"]);
        let broken = host.hold().await;
        assert!(broken.iter().any(|guard| guard.state == GuardState::Broken), "{broken:?}");

        std::fs::remove_dir(&resolv_conf).unwrap();
        std::fs::write(&resolv_conf, "nameserver 192.0.2.53\n").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&resolv_conf).unwrap().contains("10.64.3.1") {
            assert!(Instant::now() < deadline, "the resolver is never set: {:?}", host.hold().await);
            host.changed().await;
            host.hold().await;
        }
        host.undo().await.unwrap();
        assert_eq!(std::fs::read_to_string(&resolv_conf).unwrap(), "nameserver 192.0.2.53\n");
    });
}

#[test]
fn full_tunnel_without_ipv6_blocks_ipv6_and_undo_leaves_nothing() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        let (tun, mut host) = managed(run.path(), "journal").await;
        assert_eq!(tun.name(), "adit0");
        host.apply(&settings(&["10.64.3.2/32"], &["0.0.0.0/0"])).await.unwrap();

        assert_eq!(table(FIRST_TABLE).await, (vec!["0.0.0.0/0".to_owned()], everything()));
        assert_eq!(firewall(), "table inet adit_answers_adit0\ntable arp adit_answers_adit0\n");
        let rules_now = rules().await;
        assert_eq!(rules_now.len(), 2);
        assert!(rules_now.iter().all(|rule| rule.unless == Mark::CLIENT && rule.table == FIRST_TABLE));
        let own = Netlink::open().unwrap().addresses("adit0").await.unwrap();
        assert!(own.contains(&"10.64.3.2/32".parse().unwrap()), "{own:?}");

        host.set_mtu(100).await.unwrap();
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/adit0/mtu").unwrap().trim(), "1280");
        host.set_mtu(1390).await.unwrap();
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/adit0/mtu").unwrap().trim(), "1390");

        host.undo().await.unwrap();
        assert_eq!((table(FIRST_TABLE).await, rules().await), ((vec![], vec![]), vec![]));
        assert_eq!(firewall(), "");
        assert!(
            !run.path().join("journal").exists() || std::fs::metadata(run.path().join("journal")).unwrap().len() == 0
        );
    });
}

#[test]
fn address_that_another_link_has_is_refused() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        let _outside = Tun::create("outside0", 1, true).unwrap();
        ip("address add 192.0.2.20/24 dev outside0");
        let (_tun, mut host) = managed(run.path(), "journal").await;
        let refused = host.apply(&settings(&["10.64.3.2/32", "192.0.2.20/32"], &["10.0.0.0/8"])).await.unwrap_err();
        assert!(refused.to_string().contains("192.0.2.20, which outside0"), "{refused}");
        assert!(rules().await.is_empty(), "nothing was changed yet");
        for _again in 0..2 {
            host.apply(&settings(&["10.64.3.2/32", "192.0.2.21/32"], &["10.0.0.0/8"])).await.unwrap();
        }
        host.undo().await.unwrap();
    });
}

#[test]
fn networks_of_containers_stay_out_of_the_tunnel_and_undo_leaves_nothing() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        for setup in [
            "link add docker0 type bridge",
            "link add veth7 type veth peer name inside7",
            "link set veth7 master docker0",
            "address add 172.17.0.1/16 dev docker0",
            "link set docker0 up",
            "link add eth0 type veth peer name router0",
            "address add 192.168.7.9/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.168.7.1",
        ] {
            ip(setup);
        }
        let (_tun, mut host) = managed(run.path(), "journal").await;
        let own = async || table(FIRST_TABLE).await.0;
        host.apply(&settings(&["10.64.3.2/32"], &["0.0.0.0/0"])).await.unwrap();
        assert_eq!(own().await, ["0.0.0.0/0", "172.17.0.0/16"], "and not the network of the router");
        // Containers come and go while the tunnel is up.
        ip("link delete docker0");
        let broken = host.hold().await;
        assert_eq!((own().await, broken), (vec!["0.0.0.0/0".to_owned()], vec![]));
        for setup in ["link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up"] {
            ip(setup);
        }
        assert_eq!(host.hold().await, []);
        assert_eq!(own().await, ["0.0.0.0/0", "172.17.0.0/16"]);
        for (setup, left) in [("link set docker0 down", 1), ("link set docker0 up", 2)] {
            ip(setup);
            assert_eq!((host.hold().await, own().await.len()), (vec![], left), "{setup}");
        }
        host.apply(&settings(&["10.64.3.2/32"], &["10.0.0.0/8"])).await.unwrap();
        assert_eq!(own().await, ["10.0.0.0/8"], "a tunnel that does not claim it needs no exception");
        host.apply(&settings(&["10.64.3.2/32"], &["172.16.0.0/12", "192.168.0.0/16"])).await.unwrap();
        assert_eq!(own().await, ["172.16.0.0/12", "172.17.0.0/16", "192.168.0.0/16"]);
        assert_eq!(host.warnings().len(), 2, "{:?}", host.warnings());
        host.undo().await.unwrap();
        assert_eq!(table(FIRST_TABLE).await, (vec![], vec![]));
    });
}

#[test]
fn ipv6_that_is_out_of_reach_is_blocked_and_told() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let (_tun, mut host) = managed(run.path(), "journal").await;
        make_settings_read_only();
        host.apply(&settings(&["10.64.3.2/32", "fd00::2/128"], &["0.0.0.0/0", "::/0"])).await.unwrap();
        assert_eq!(table(FIRST_TABLE).await, (vec!["0.0.0.0/0".to_owned()], everything()));
        let warnings = host.warnings();
        assert!(warnings[0].contains("IPv4 only") && warnings[0].contains("adit0"), "{warnings:?}");
        host.undo().await.unwrap();
    });
}

#[test]
fn strict_reverse_paths_that_cannot_be_loosened_are_an_error_with_a_cure() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
        let (_tun, mut host) = managed(run.path(), "journal").await;
        make_settings_read_only();
        let refused = HostHooks::apply(&mut host, &settings(&["10.64.3.2/32"], &["0.0.0.0/0"])).await.unwrap_err();
        let failure = refused.failure;
        assert!(failure.next.contains("--sysctl net.ipv4.conf.all.rp_filter=2"), "{failure}");
        assert!(failure.reason.contains("Read-only file system"), "{failure}");
    });
}

#[test]
fn superpackets_are_limited_only_where_asked() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        let limit = async || Netlink::open().unwrap().link_settings("adit0").await.unwrap().gso_max_segs;
        let (_tun, host) = managed(run.path(), "journal").await;
        let untouched = limit().await;
        let mut host = host.with_gso_max_segs(45);
        host.apply(&settings(&["10.64.3.2/32"], &["10.0.0.0/8"])).await.unwrap();
        assert_eq!(limit().await, Some(45));
        host.undo().await.unwrap();
        assert_eq!(limit().await, untouched);
    });
}

#[test]
fn changed_settings_are_applied_by_their_difference() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        let (_tun, mut host) = managed(run.path(), "journal").await;
        host.apply(&settings(&["10.64.3.2/32", "fd00::2/128"], &["10.0.0.0/8", "fd00::/8"])).await.unwrap();
        assert_eq!(table(FIRST_TABLE).await.0, ["10.0.0.0/8", "fd00::/8"]);
        let split = rules().await;

        host.apply(&settings(&["10.64.3.9/32", "fd00::2/128"], &["0.0.0.0/0", "::/0"])).await.unwrap();
        assert_eq!(table(FIRST_TABLE).await.0, ["0.0.0.0/0", "::/0"]);
        let own = Netlink::open().unwrap().addresses("adit0").await.unwrap();
        assert!(own.contains(&"10.64.3.9/32".parse().unwrap()) && !own.contains(&"10.64.3.2/32".parse().unwrap()));
        let full = rules().await;
        assert_eq!(full.len(), 2);
        assert!(full.iter().all(|rule| !split.contains(rule)), "a full tunnel's rules come after a split one's");

        // The gateway takes IPv6 away: its default must turn from the tunnel to nowhere, never to the open.
        host.apply(&settings(&["10.64.3.9/32"], &["0.0.0.0/0", "::/0"])).await.unwrap();
        assert_eq!(table(FIRST_TABLE).await, (vec!["0.0.0.0/0".to_owned()], everything()));
        host.undo().await.unwrap();
        assert!(rules().await.is_empty());
    });
}

#[test]
fn second_client_gets_its_own_table_but_no_second_full_tunnel() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        let (_first_tun, mut first) = managed(run.path(), "first").await;
        let (second_tun, mut second) = managed(run.path(), "second").await;
        assert_eq!(second_tun.name(), "adit1");
        first.apply(&settings(&["10.64.3.2/32"], &["0.0.0.0/0"])).await.unwrap();
        let refused = second.apply(&settings(&["10.65.3.2/32"], &["0.0.0.0/0"])).await.unwrap_err();
        assert!(matches!(refused, HostSetupError::SecondFullTunnel));
        second.apply(&settings(&["10.65.3.2/32"], &["10.0.0.0/8"])).await.unwrap();
        assert_eq!(table(FIRST_TABLE + 1).await.0, ["10.0.0.0/8"]);

        first.undo().await.unwrap();
        assert_eq!(table(FIRST_TABLE + 1).await.0, ["10.0.0.0/8"], "one client's end undid the other's changes");
        second.apply(&settings(&["10.65.3.2/32"], &["0.0.0.0/0"])).await.unwrap();
        second.undo().await.unwrap();
        assert!(rules().await.is_empty());
    });
}

#[test]
fn crash_is_undone_by_the_next_start() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        let (tun, mut host) = managed(run.path(), "journal").await;
        host.apply(&settings(&["10.64.3.2/32"], &["0.0.0.0/0"])).await.unwrap();
        drop((tun, host));
        assert_eq!(table(FIRST_TABLE).await.1, everything(), "dropping must not undo: it stands for a crash");
        let changes = HostChanges::open(&run.path().join("journal")).await.unwrap();
        assert!(changes.recovered().undone > 0);
        assert_eq!((table(FIRST_TABLE).await, rules().await), ((vec![], vec![]), vec![]));
    });
}

#[test]
fn device_name_in_use_is_refused() {
    in_namespace_async(|| async {
        let run = tempfile::tempdir().unwrap();
        let (_tun, _slot) = open_tun(run.path(), Some("work0"), true).unwrap();
        let failure = open_tun(run.path(), Some("work0"), true).map(drop).unwrap_err();
        assert!(failure.reason.contains("is there already"), "{failure}");
    });
}
