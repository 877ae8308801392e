//! The loaded rules against real packets: one TUN device is the tunnel, one leads to other hosts, one to a container.

mod exemption;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use adit_net::tun::Tun;
use adit_testing::eventually;
use adit_testing::namespace::{in_namespace, in_namespace_async};

use super::*;
use crate::changes::HostChanges;
use crate::netlink::{Family, LinkSettings, Netlink, Route, RouteTarget, Rule as PolicyRule};
use crate::sysctl;
use crate::test_packets::{ACK, SYN, give, read, tcp, udp};

const TUNNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 64, 3, 2);
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 20);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
const TABLE_NUMBER: u32 = 44_311;

fn rules() -> AnswerRules {
    AnswerRules {
        tun: "adit0".into(),
        addresses: vec![TUNNEL_ADDRESS.into(), "fd00::2".parse().unwrap()],
        inner_links: vec!["inner0".into()],
        mark: Mark::CLIENT,
    }
}

/// A host with a full tunnel, a link to other hosts, and one to a container.
struct Host {
    tunnel: Tun,
    outside: Tun,
    container: Tun,
}

impl Host {
    async fn new() -> Self {
        let device = |name| Tun::create(name, 1, false).unwrap();
        let host = Self { tunnel: device("adit0"), outside: device("out0"), container: device("inner0") };
        let netlink = Netlink::open().unwrap();
        for (link, address) in [
            ("lo", None),
            ("adit0", Some("10.64.3.2/32")),
            ("out0", Some("192.168.7.20/24")),
            ("inner0", Some("172.17.0.1/16")),
        ] {
            netlink.set_link(link, LinkSettings { up: Some(true), ..LinkSettings::default() }).await.unwrap();
            if let Some(address) = address {
                netlink.add_address(link, address.parse().unwrap()).await.unwrap();
            }
        }
        for (table, prefix, link) in [
            (254, "0.0.0.0/0", "out0"),
            (TABLE_NUMBER, "0.0.0.0/0", "adit0"),
            (TABLE_NUMBER, "172.17.0.0/16", "inner0"),
        ] {
            let target = RouteTarget::Link(link.into());
            netlink.add_route(&Route { table, prefix: prefix.parse().unwrap(), target, metric: None }).await.unwrap();
        }
        let rule = PolicyRule { family: Family::V4, unless: Mark::CLIENT, table: TABLE_NUMBER, priority: 5300 };
        netlink.add_rule(&rule).await.unwrap();
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        sysctl::write("net.ipv4.conf.all.rp_filter", "0").unwrap();
        host
    }

    /// By which link the next packet of IPv4 leaves.
    fn leaves_by(&self) -> &'static str {
        eventually("a packet leaves", || {
            [("tunnel", &self.tunnel), ("outside", &self.outside), ("container", &self.container)]
                .into_iter()
                .find_map(|(name, device)| read_ipv4(device).map(|_| name))
        })
    }
}

fn read_ipv4(tun: &Tun) -> Option<Vec<u8>> {
    std::iter::from_fn(|| read(tun)).find(|packet| packet[0] >> 4 == 4)
}

/// A service at this host's address on the link to other hosts.
fn service(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((OWN_ADDRESS, port)).unwrap();
    socket.set_read_timeout(Some(adit_testing::PATIENCE)).unwrap();
    socket
}

/// Has a service answer what comes next.
fn answer(service: &UdpSocket) {
    let mut heard = [0; 16];
    let (length, from) = service.recv_from(&mut heard).unwrap();
    service.send_to(&heard[..length], from).unwrap();
}

#[test]
fn the_loaded_tables_read_as_intended_and_stand_until_somebody_changes_them() {
    in_namespace(|| {
        let loaded = load(&rules()).unwrap();
        let listed = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        let listing = String::from_utf8(listed.stdout).unwrap();
        for line in [
            "iifname != \"lo\" iifname != \"adit0\" iifname != \"inner0\" ip daddr 10.64.3.2 counter",
            "tcp flags syn / fin,syn,rst,ack fib daddr type local ct mark set ct mark & 0xffffef17 | 0x00000016",
            "udp dport <= 32767 fib daddr type local ct mark set",
            "iifname \"inner0\" ct direction reply ct mark & 0x000010fe == 0x00000016 meta mark set",
            "iifname \"adit0\" oifname != \"adit0\" ct direction original counter",
            "type route hook output priority mangle",
            "iifname \"adit0\" ip daddr 10.64.3.2 notrack accept",
            "meta l4proto udp socket mark & 0x000010fe == 0x00000016 notrack accept",
            "oifname \"adit0\" ip6 saddr fd00::2 notrack accept",
            "table arp adit_answers_adit0",
        ] {
            assert!(listing.contains(line), "{line}\nis not in\n{listing}");
        }
        assert!(loaded.are_intact().unwrap());
        for family in ["inet", "arp"] {
            let loaded = load(&rules()).unwrap();
            let flush = Command::new("nft").args(["flush", "chain", family, "adit_answers_adit0", "output"]).status();
            assert!(flush.unwrap().success());
            assert!(!loaded.are_intact().unwrap(), "{family}");
        }
        unload("adit0").unwrap();
        assert!(!loaded.are_intact().unwrap());
        unload("adit0").unwrap();
    });
}

#[test]
fn who_asks_beside_the_tunnel_is_answered_beside_it() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let (dns, other) = (service(53), service(40_000));
        let ask = |service: &UdpSocket, from: u16| {
            give(&host.outside, &udp((OUTSIDE, from), (OWN_ADDRESS, service.local_addr().unwrap().port())));
            answer(service);
            host.leaves_by()
        };
        assert_eq!(ask(&dns, 5_000), "tunnel", "without the rules it is answered into the tunnel");
        load(&rules()).unwrap();
        assert_eq!(ask(&dns, 5_001), "outside");
        assert_eq!(ask(&other, 5_002), "tunnel", "a port of programs may be asked by this host itself");

        // What this host asks for goes where it should.
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"question", (OUTSIDE, 53)).unwrap();
        assert_eq!(host.leaves_by(), "tunnel");
        let _listener = TcpListener::bind((OWN_ADDRESS, 22)).unwrap();
        give(&host.outside, &tcp((OUTSIDE, 5_003), (OWN_ADDRESS, 22), SYN));
        assert_eq!(host.leaves_by(), "outside");
    });
}

#[test]
fn what_is_opened_through_a_second_tunnel_is_answered_through_it() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        // The second tunnel's device is the one that leads to a container otherwise.
        let second = AnswerRules {
            tun: "inner0".into(),
            addresses: vec!["172.17.0.1".parse().unwrap()],
            inner_links: Vec::new(),
            mark: Mark::CLIENT,
        };
        let netlink = Netlink::open().unwrap();
        let target = RouteTarget::Link("inner0".into());
        let prefix = "203.0.113.0/24".parse().unwrap();
        netlink.add_route(&Route { table: TABLE_NUMBER + 1, prefix, target, metric: None }).await.unwrap();
        let rule = PolicyRule { family: Family::V4, unless: Mark::CLIENT, table: TABLE_NUMBER + 1, priority: 5200 };
        netlink.add_rule(&rule).await.unwrap();
        let service = UdpSocket::bind("172.17.0.1:53").unwrap();
        service.set_read_timeout(Some(adit_testing::PATIENCE)).unwrap();
        for later in [&second, &AnswerRules { inner_links: Vec::new(), ..rules() }] {
            // Whichever tunnel came first.
            let mut first = load(&AnswerRules { inner_links: Vec::new(), ..rules() }).unwrap();
            load(&second).unwrap();
            first.put_back().unwrap();
            unload(&later.tun).unwrap();
            load(later).unwrap();
            give(&host.container, &udp((OUTSIDE, 5_000), (Ipv4Addr::new(172, 17, 0, 1), 53)));
            answer(&service);
            assert_eq!(host.leaves_by(), "container", "{} came last", later.tun);
        }
    });
}

#[test]
fn connection_of_this_host_from_before_the_tunnel_is_not_answered_beside_it() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        load(&rules()).unwrap();
        // As if a server beside the tunnel went on with a connection that this host had opened to it.
        give(&host.outside, &tcp((OUTSIDE, 443), (OWN_ADDRESS, 50_000), ACK));
        assert_eq!(host.leaves_by(), "tunnel", "the kernel's answer, a reset");
        // The same to a service's port may be of a session that was open when the tunnel came up.
        let _listener = TcpListener::bind((OWN_ADDRESS, 22)).unwrap();
        give(&host.outside, &tcp((OUTSIDE, 443), (OWN_ADDRESS, 22), ACK));
        assert_eq!(host.leaves_by(), "outside");
    });
}

#[test]
fn nobody_beside_the_tunnel_reaches_its_address() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let service = UdpSocket::bind((TUNNEL_ADDRESS, 53)).unwrap();
        service.set_read_timeout(Some(adit_testing::PATIENCE)).unwrap();
        let mut heard = [0; 16];
        let packet = |from| udp((OUTSIDE, from), (TUNNEL_ADDRESS, 53));
        give(&host.outside, &packet(5_000));
        service.recv_from(&mut heard).unwrap();
        load(&rules()).unwrap();
        give(&host.outside, &packet(5_001));
        give(&host.tunnel, &packet(5_002));
        let (_, from) = service.recv_from(&mut heard).unwrap();
        assert_eq!(from, SocketAddr::from((OUTSIDE, 5_002)), "what came beside the tunnel was let in");
    });
}

#[test]
fn through_the_tunnel_only_answers_reach_a_container() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let opened = |from| udp((OUTSIDE, from), (CONTAINER, 80));
        give(&host.tunnel, &opened(5_000));
        assert_eq!(host.leaves_by(), "container", "without the rules it is forwarded");
        load(&rules()).unwrap();
        give(&host.tunnel, &opened(5_001));
        give(&host.container, &udp((CONTAINER, 7_000), (OUTSIDE, 53)));
        assert_eq!(host.leaves_by(), "tunnel", "and not the packet before it");
        give(&host.tunnel, &udp((OUTSIDE, 53), (CONTAINER, 7_000)));
        assert_eq!(host.leaves_by(), "container");
    });
}

#[test]
fn journal_undoes_the_tables_and_the_guard_puts_them_back() {
    in_namespace_async(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut changes = HostChanges::open(&directory.path().join("journal")).await.unwrap();
        let stands = || states("adit0").unwrap().iter().all(Option::is_some);
        for inner_links in [vec![], vec!["inner0".to_owned()]] {
            let rules = AnswerRules { inner_links, ..rules() };
            changes.load_answers(&rules).await.unwrap();
            assert!(stands());
        }
        unload("adit0").unwrap();
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.expect("an event is seen");
        let reports = changes.hold().await;
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(stands());
        changes.undo().await.unwrap();
        assert!(!stands());
    });
}

#[test]
fn only_a_tunnel_beside_another_has_a_chain_for_that() {
    in_namespace(|| {
        let has_chain = || {
            let chains = Socket::open().unwrap().chains_of_table(FAMILY_INET, "adit_answers_adit0").unwrap();
            chains.iter().any(|chain| chain.name == TUNNELLED)
        };
        let mut alone = load(&rules()).unwrap();
        assert!(!has_chain());
        load(&AnswerRules { tun: "adit1".into(), ..rules() }).unwrap();
        assert!(alone.are_outdated());
        alone.put_back().unwrap();
        assert!(has_chain());
        unload("adit1").unwrap();
        assert!(alone.are_outdated());
        alone.put_back().unwrap();
        assert!(!has_chain() && !alone.are_outdated());
    });
}

/// What others do to the tables with nft(8), of which only some changes the number of rules.
#[test]
fn tables_that_others_change_are_put_back() {
    in_namespace_async(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut changes = HostChanges::open(&directory.path().join("journal")).await.unwrap();
        changes.load_answers(&rules()).await.unwrap();
        let stand = |changes: &HostChanges| changes.answers.as_ref().unwrap().are_intact().unwrap();
        let interferences = [
            "flush ruleset",
            "flush chain inet adit_answers_adit0 output",
            "insert rule inet adit_answers_adit0 forward accept",
            "flush chain inet adit_answers_adit0 forward; add rule inet adit_answers_adit0 forward accept",
            "add table inet adit_answers_adit0 { flags dormant; }",
            "chain inet adit_answers_adit0 prerouting { policy drop; }",
            "add rule arp adit_answers_adit0 input accept",
            "flush chain arp adit_answers_adit0 output",
            "delete table arp adit_answers_adit0",
        ];
        for (times, interference) in (1..).zip(interferences) {
            assert!(Command::new("nft").arg(interference).status().unwrap().success(), "{interference}");
            assert!(!stand(&changes), "{interference} is seen");
            let reports = changes.hold().await;
            assert!(stand(&changes), "{interference} is mended");
            assert!(matches!(reports.as_slice(), [only] if only.times == times), "{interference}: {reports:?}");
        }
    });
}
