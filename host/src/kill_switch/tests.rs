//! The loaded rules against real packets: one TUN device is the tunnel, another leads to the internet.

mod portal;

use std::ffi::OsString;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;

use adit_net::quic;
use adit_net::tun::Tun;
use adit_testing::namespace::{in_namespace, in_namespace_async};
use adit_testing::{eventually, skip};
use nix::sys::socket::sockopt::{BindToDevice, Broadcast};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt, socket as raw_socket,
};
use nix::unistd::{Uid, setfsuid};

use super::*;
use crate::AnswerRules;
use crate::changes::{HostChanges, recover, release};
use crate::netlink::{Family, LinkSettings, Netlink, Route, RouteTarget, Rule as PolicyRule};
use crate::nft::ListedRule;
use crate::sysctl;
use crate::test_packets::{ACK, ICMPV6, SYN, UDP, give, has_no_tentative_address, packet, ping, read, tcp, udp};

const MARK: u32 = Mark::CLIENT.value;
const TUNNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 64, 3, 2);
const TUNNEL_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 20);
const OWN_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x20);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
const NEIGHBOUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 5);
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 9);
const CONTAINER_V6: Ipv6Addr = Ipv6Addr::new(0xfd17, 0, 0, 0, 0, 0, 0, 9);
const GRE: u8 = 47;
const ESP: u8 = 50;
/// Whoever is not root.
const STRANGER: u32 = 12_345;

fn switch() -> KillSwitch {
    KillSwitch {
        profile: "home".into(),
        user: 0,
        mark: Mark::CLIENT,
        tunnel: Some(ProtectedTunnel {
            link: "tunnel0".into(),
            addresses: vec![TUNNEL_ADDRESS.into(), TUNNEL_ADDRESS_V6.into()],
        }),
        lan: Vec::new(),
        inner_links: Vec::new(),
    }
}

fn connecting() -> KillSwitch {
    KillSwitch { tunnel: None, ..switch() }
}

fn lan() -> Vec<LanNetwork> {
    vec![LanNetwork { link: "out0".into(), prefix: "192.168.7.0/24".parse().unwrap() }]
}

/// A host with a tunnel, a way to the internet, and a link to a container.
struct Host {
    tunnel: Tun,
    internet: Tun,
    container: Tun,
}

impl Host {
    async fn new() -> Self {
        let device = |name| Tun::create(name, 1, false).unwrap();
        let host = Self { tunnel: device("tunnel0"), internet: device("out0"), container: device("inner0") };
        let netlink = Netlink::open().unwrap();
        for (link, addresses) in [
            ("lo", &[][..]),
            ("tunnel0", &["10.64.3.2/32", "fd00::2/128"]),
            ("out0", &["192.168.7.20/24", "2001:db8::20/64"]),
            ("inner0", &["172.17.0.1/16", "fd17::1/64"]),
        ] {
            netlink.set_link(link, LinkSettings { up: Some(true), ..LinkSettings::default() }).await.unwrap();
            for address in addresses {
                netlink.add_address(link, address.parse().unwrap()).await.unwrap();
            }
        }
        for prefix in ["0.0.0.0/0", "::/0"] {
            let target = RouteTarget::Link("out0".into());
            let default = Route { table: 254, prefix: prefix.parse().unwrap(), target, metric: None };
            netlink.add_route(&default).await.unwrap();
        }
        eventually("the IPv6 addresses take packets", || has_no_tentative_address().then_some(()));
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        sysctl::write("net.ipv6.conf.all.forwarding", "1").unwrap();
        sysctl::write("net.ipv4.conf.all.rp_filter", "0").unwrap();
        host
    }

    /// Packets that leave beside the tunnel because of what `probe` does. The client's own datagram comes last.
    fn leaving(&self, probe: impl FnOnce()) -> Vec<Vec<u8>> {
        probe();
        let last = b"the last of all";
        let client = quic::bind(SocketAddr::from(([0, 0, 0, 0], 0)), Some(MARK)).unwrap();
        client.send_to(last, (INTERNET, 4433)).unwrap();
        let mut left = Vec::new();
        loop {
            let packet = eventually("the client's own datagram leaves", || read(&self.internet));
            if packet.ends_with(last) {
                return left;
            }
            left.push(packet);
        }
    }

    fn leaves(&self, probe: impl FnOnce()) -> bool {
        !self.leaving(probe).iter().all(|packet| is_neighbourly(packet))
    }
}

/// What the kernel says by itself now and then: of neighbours (RFC 4861), and of groups (RFC 3810).
fn is_neighbourly(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6 && (packet[6] == 0 || packet[6] == ICMPV6 && matches!(packet[40], 130..=137 | 143))
}

fn socket(to: IpAddr, source_port: u16) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, source_port)).unwrap();
    setsockopt(&socket, Broadcast, &true).unwrap();
    socket
}

/// Sends a datagram as any program does; whether the kernel lets it is what the other end shows.
fn send(to: impl Into<IpAddr>, port: u16) {
    let to = to.into();
    drop(socket(to, 0).send_to(b"in clear", (to, port)));
}

/// As [`send`], by a link.
fn send_by(link: &str, to: impl Into<IpAddr>, port: u16) {
    let to = to.into();
    let socket = socket(to, 0);
    setsockopt(&socket, BindToDevice, &OsString::from(link)).unwrap();
    drop(socket.send_to(b"in clear", (to, port)));
}

/// As [`send`], with a mark, by somebody.
fn send_marked(mark: u32, user: u32) {
    setfsuid(Uid::from_raw(user));
    let socket = quic::bind(SocketAddr::from(([0, 0, 0, 0], 0)), Some(mark)).unwrap();
    setfsuid(Uid::from_raw(0));
    drop(socket.send_to(b"in clear", (INTERNET, 4433)));
}

#[test]
fn the_kernel_takes_every_rule_as_it_was_built() {
    in_namespace(|| {
        for variant in [switch(), connecting(), KillSwitch { lan: lan(), inner_links: vec!["br0".into()], ..switch() }]
        {
            load(&variant).unwrap();
            let names = |chain: &str| {
                let rules = variant.rules();
                let here = rules.iter().filter(|rule| rule.chain() == chain);
                here.map(|rule| rule.expression_names().iter().map(|name| (*name).to_owned()).collect()).collect()
            };
            for chain in [RAW_PREROUTING, PREROUTING, OUTPUT, FORWARD] {
                if variant.rules().iter().all(|rule| rule.chain() != chain) {
                    continue;
                }
                let listed = Socket::open().unwrap().rules(FAMILY_INET, "adit_client_home", chain).unwrap();
                let names_of = |rule: &ListedRule| rule.expressions.iter().map(|one| one.name.clone()).collect();
                let listed: Vec<Vec<String>> = listed.iter().map(names_of).collect();
                let expected: Vec<Vec<String>> = names(chain);
                assert_eq!(listed, expected, "{chain}");
            }
        }
        assert_eq!(closed_kill_switches().unwrap(), ["home"]);
        unload("home").unwrap();
        assert_eq!(closed_kill_switches().unwrap(), Vec::<String>::new());
        unload("home").unwrap();
    });
}

#[test]
fn the_loaded_table_reads_as_intended() {
    in_namespace(|| {
        load(&KillSwitch { lan: lan(), ..switch() }).unwrap();
        let Ok(output) = Command::new("nft").args(["list", "ruleset"]).output() else {
            return skip("needs the program nft");
        };
        let listing = String::from_utf8(output.stdout).unwrap();
        for line in [
            "table inet adit_client_home {",
            "ip daddr 10.64.3.2 iifname != \"lo\" counter packets 0 bytes 0 drop",
            "meta mark & 0x000010fe == 0x00000016 meta skuid 0 accept",
            "oifname \"adit*\" accept",
            "ip6 saddr fd00::2 counter packets 0 bytes 0 drop",
            "udp sport 68 udp dport 67 accept",
            "ip6 daddr ff02::/16 udp sport 546 udp dport 547 accept",
            "icmpv6 type nd-neighbor-solicit accept",
            "meta l4proto tcp ct state established,related ct direction reply accept",
            "ct state established,related ct direction reply udp sport <= 32767 accept",
            "tcp dport 853 counter packets 0 bytes 0 reject with icmpx admin-prohibited",
            "oifname \"out0\" ip daddr 192.168.7.0/24 accept",
            "reject with icmpx admin-prohibited comment \"beside the tunnel\"",
        ] {
            assert!(listing.contains(line), "{line}\nis not in\n{listing}");
        }
    });
}

#[test]
fn nothing_but_the_clients_own_datagrams_leaves_a_closed_host() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let probes: [(&str, fn()); 9] = [
            ("a datagram", || send(INTERNET, 9)),
            ("one of IPv6", || send(INTERNET_V6, 9)),
            ("a question for a name", || send(NEIGHBOUR, 53)),
            ("one of the local network", || send(NEIGHBOUR, 9)),
            ("one by a link", || send_by("out0", INTERNET, 9)),
            ("one of IPv6 by a link", || send_by("out0", INTERNET_V6, 9)),
            ("multicast", || send_by("out0", Ipv4Addr::new(224, 0, 0, 251), 5353)),
            ("broadcast", || send_by("out0", Ipv4Addr::BROADCAST, 9)),
            ("multicast of IPv6", || send_by("out0", Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 5353)),
        ];
        for (what, probe) in probes {
            assert!(host.leaves(probe), "{what} is not seen on an open host");
        }
        for closed in [connecting(), switch()] {
            load(&closed).unwrap();
            for (what, probe) in probes {
                assert!(!host.leaves(probe), "{what} leaves in spite of {closed:?}");
            }
        }
        unload("home").unwrap();
        assert!(host.leaves(|| send(INTERNET, 9)), "an opened host is not open");
    });
}

#[test]
fn the_mark_alone_opens_nothing() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        load(&switch()).unwrap();
        assert!(host.leaves(|| send_marked(MARK, 0)));
        assert!(!host.leaves(|| send_marked(MARK, STRANGER)), "another user's socket");
        assert!(!host.leaves(|| send_marked(MARK + 2, 0)), "another mark");
        load(&KillSwitch { user: STRANGER, ..switch() }).unwrap();
        send_marked(MARK, 0);
        send_marked(MARK, STRANGER);
        let of_us = |packet: &Vec<u8>| packet.ends_with(b"in clear");
        eventually("the client's own user", || read(&host.internet).filter(of_us));
        assert_eq!(read(&host.internet).filter(of_us), None, "root is another user then");
    });
}

#[test]
fn addresses_are_still_asked_for_and_kept() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        load(&connecting()).unwrap();
        let ask = |from: u16, port: u16| {
            drop(socket(NEIGHBOUR.into(), from).send_to(b"DHCP", (NEIGHBOUR, port)));
        };
        assert!(host.leaves(|| ask(68, 67)));
        assert!(!host.leaves(|| ask(0, 67)), "from another port");
    });
}

#[test]
fn what_is_forwarded_is_as_closed_as_what_the_host_sends() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let out = || give(&host.container, &udp((CONTAINER, 5000), (INTERNET, 5000)));
        let out_v6 = || give(&host.container, &udp((CONTAINER_V6, 5000), (INTERNET_V6, 5000)));
        assert!(host.leaves(out) && host.leaves(out_v6), "an open host forwards");
        for closed in [connecting(), switch()] {
            load(&closed).unwrap();
            assert!(!host.leaves(out), "{closed:?}");
            assert!(!host.leaves(out_v6), "{closed:?}");
        }
        // The host and its containers reach each other if the link is known to be theirs.
        while read(&host.container).is_some() {}
        send(CONTAINER, 9);
        send(CONTAINER_V6, 9);
        load(&KillSwitch { inner_links: vec!["inner0".into()], ..switch() }).unwrap();
        for (container, version, protocol_at, udp_at) in
            [(IpAddr::from(CONTAINER), 4, 9, 20), (CONTAINER_V6.into(), 6, 6, 40)]
        {
            send(container, 10);
            let first = eventually("a datagram reaches the container", || {
                read(&host.container).filter(|packet| packet[0] >> 4 == version && packet[protocol_at] == UDP)
            });
            assert_eq!(&first[udp_at + 2..udp_at + 4], 10u16.to_be_bytes(), "the first one was let through");
        }
        assert!(!host.leaves(out) && !host.leaves(out_v6), "with the link known");
    });
}

/// CVE-2019-14899: a neighbour finds out the tunnel's address, and meddles with connections in it.
#[test]
fn the_tunnels_address_is_for_the_tunnel() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let knock = || give(&host.internet, &ping(NEIGHBOUR, TUNNEL_ADDRESS));
        let knock_v6 = || give(&host.internet, &ping(NEIGHBOUR_V6, TUNNEL_ADDRESS_V6));
        let amid_v6 = || give(&host.internet, &tcp((NEIGHBOUR_V6, 443), (TUNNEL_ADDRESS_V6, 22), SYN | ACK));
        let from = |address: IpAddr, to: IpAddr| {
            let socket = UdpSocket::bind((address, 0)).unwrap();
            setsockopt(&socket, BindToDevice, &OsString::from("out0")).unwrap();
            drop(socket.send_to(b"in clear", (to, 9)));
        };
        let from_it = || from(TUNNEL_ADDRESS.into(), INTERNET.into());
        let from_it_v6 = || from(TUNNEL_ADDRESS_V6.into(), INTERNET_V6.into());
        let probes: [(&str, &dyn Fn()); 5] = [
            ("an answer to a neighbour", &knock),
            ("one of IPv6", &knock_v6),
            ("a reset of IPv6", &amid_v6),
            ("a datagram from the address", &from_it),
            ("one of IPv6", &from_it_v6),
        ];
        for (what, probe) in probes {
            assert!(host.leaves(probe), "{what} is not seen on an open host, which answers for every address it has");
        }
        // Even to a network that may be used.
        load(&KillSwitch { lan: lan(), ..switch() }).unwrap();
        for (what, probe) in probes {
            assert!(!host.leaves(probe), "{what} leaves");
        }
        assert!(host.leaves(|| give(&host.internet, &ping(NEIGHBOUR, OWN_ADDRESS))), "its own address");
        assert!(host.leaves(|| give(&host.internet, &ping(NEIGHBOUR_V6, OWN_ADDRESS_V6))), "its own address of IPv6");
        send_by("tunnel0", INTERNET, 9);
        eventually("the tunnel is open", || read(&host.tunnel).filter(|packet| packet.ends_with(b"in clear")));
    });
}

#[test]
fn services_answer_but_old_connections_do_not_go_on() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        load(&switch()).unwrap();
        let _service = TcpListener::bind((OWN_ADDRESS, 22)).unwrap();
        let opened = host.leaving(|| give(&host.internet, &tcp((INTERNET, 4000), (OWN_ADDRESS, 22), SYN)));
        let answer = opened.iter().find(|packet| !is_neighbourly(packet));
        assert_eq!(answer.map(|answer| answer[33]), Some(SYN | ACK), "a service answers");
        // A packet amid a connection that this host had opened, as far as ports tell: its answer would be a reset.
        let amid = |port| give(&host.internet, &tcp((INTERNET, 443), (OWN_ADDRESS, port), ACK));
        assert!(!host.leaves(|| amid(40_000)));
        assert!(host.leaves(|| amid(8080)), "one of a service");
        let heard = |port| {
            let program = UdpSocket::bind((OWN_ADDRESS, port)).unwrap();
            give(&host.internet, &udp((INTERNET, 443), (OWN_ADDRESS, port)));
            drop(program.send_to(b"in clear", (INTERNET, 443)));
        };
        assert!(!host.leaves(|| heard(40_001)), "a program's datagram goes on");
        assert!(host.leaves(|| heard(8081)), "a service's datagram");
    });
}

#[test]
fn old_connections_do_not_go_on_after_a_crash_either() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let directory = tempfile::tempdir().unwrap();
        let mut changes = HostChanges::open(&directory.path().join("client-home.journal")).await.unwrap();
        let amid = || give(&host.internet, &tcp((INTERNET, 443), (OWN_ADDRESS, 40_000), ACK));
        assert!(host.leaves(amid), "an open host answers by a reset");
        changes.close_kill_switch(&switch()).await.unwrap();
        let tunnel = switch().tunnel.unwrap();
        let (tun, addresses) = (tunnel.link, tunnel.addresses);
        let answers = AnswerRules { tun, addresses, inner_links: Vec::new(), mark: Mark::CLIENT };
        changes.load_answers(&answers).await.unwrap();
        assert!(!host.leaves(amid));
        // What whoever cleans up after it does.
        changes.undo_but_kill_switch().await.unwrap();
        assert!(!host.leaves(amid));
        changes.undo().await.unwrap();
        assert!(host.leaves(amid));
    });
}

#[test]
fn tunnels_of_the_host_itself_are_no_answers() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        for protocol in [GRE, ESP] {
            let told = || give(&host.internet, &packet(INTERNET.into(), OWN_ADDRESS.into(), protocol, &[0; 8]));
            let goes_on = || {
                let raw = raw_socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
                let packet = packet(OWN_ADDRESS.into(), INTERNET.into(), protocol, &[0; 8]);
                let to = SockaddrIn::from(SocketAddrV4::new(INTERNET, 0));
                sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).ok();
            };
            assert!(host.leaves(goes_on), "protocol {protocol} is not seen on an open host");
            load(&switch()).unwrap();
            assert!(!host.leaves(goes_on), "protocol {protocol}");
            // Now it is the other end that has opened what the host goes on with, as far as tracking can tell.
            host.leaving(told);
            assert!(!host.leaves(goes_on), "protocol {protocol} after a packet of the other end");
            unload("home").unwrap();
        }
    });
}

#[test]
fn nobody_else_answers_for_a_resolver() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let program = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5300)).unwrap();
        program.set_nonblocking(true).unwrap();
        let spoof = |from| give(&host.internet, &udp((INTERNET, from), (OWN_ADDRESS, 5300)));
        let heard = || {
            let mut text = [0; 16];
            program.recv(&mut text).ok()
        };
        spoof(53);
        eventually("an open host hears anybody", heard);
        load(&switch()).unwrap();
        spoof(53);
        spoof(54);
        eventually("other datagrams arrive", heard);
        assert_eq!(heard(), None, "and the forged answer, before it, did not");
    });
}

#[test]
fn allowed_networks_are_used_but_not_asked_for_names() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        load(&KillSwitch { lan: lan(), ..switch() }).unwrap();
        assert!(host.leaves(|| send(NEIGHBOUR, 9)));
        assert!(host.leaves(|| send_by("out0", Ipv4Addr::new(224, 0, 0, 251), 5353)));
        for (to, port) in [(NEIGHBOUR, 53), (NEIGHBOUR, 853), (INTERNET, 9)] {
            assert!(!host.leaves(|| send_by("out0", to, port)), "{to} port {port}");
        }
    });
}

/// A table that is loaded anew wakes its guard, which would load it anew for ever.
#[test]
fn a_switch_that_is_closed_in_the_same_way_is_left_alone() {
    in_namespace_async(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut changes = HostChanges::open(&directory.path().join("client-home.journal")).await.unwrap();
        let handles = || {
            let chains = Socket::open().unwrap().chains_of_table(FAMILY_INET, "adit_client_home").unwrap();
            chains.iter().map(|chain| chain.handle).collect::<Vec<u64>>()
        };
        let generation = || Socket::open().unwrap().generation().unwrap();
        changes.close_kill_switch(&switch()).await.unwrap();
        let loaded = (handles(), generation());
        changes.close_kill_switch(&switch()).await.unwrap();
        assert_eq!((handles(), generation()), loaded);
        changes.close_kill_switch(&connecting()).await.unwrap();
        assert_ne!(generation(), loaded.1);
        changes.undo().await.unwrap();
    });
}

#[test]
fn a_table_that_others_change_is_put_back() {
    in_namespace_async(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut changes = HostChanges::open(&directory.path().join("client-home.journal")).await.unwrap();
        changes.close_kill_switch(&switch()).await.unwrap();
        assert_eq!(changes.hold().await, []);
        let mut additional = Batch::new("adit_client_home");
        additional.append_rule(&Rule::new(OUTPUT).output("out0").accept());
        let mut removed = Batch::new("adit_client_home");
        removed.delete_table();
        let apply = |batch: Batch| Socket::open().unwrap().apply(batch).unwrap();
        // Without a rule more or less, a table does nothing while it is dormant.
        let sleep = || {
            let arguments = ["add", "table", "inet", "adit_client_home", "{", "flags", "dormant", ";", "}"];
            assert!(Command::new("nft").args(arguments).status().unwrap().success());
        };
        let interferences: [&dyn Fn(); 3] = [&|| apply(additional.clone()), &|| apply(removed.clone()), &sleep];
        for (times, interfere) in (1..).zip(interferences) {
            interfere();
            let is_intact = |changes: &HostChanges| changes.kill_switch.as_ref().unwrap().is_intact().unwrap();
            assert!(!is_intact(&changes));
            let reports = changes.hold().await;
            assert!(is_intact(&changes));
            assert!(matches!(reports.as_slice(), [only] if only.guard == "kill switch" && only.times == times));
        }
        changes.open_kill_switch().await.unwrap();
        changes.hold().await;
        assert_eq!(closed_kill_switches().unwrap(), Vec::<String>::new(), "what is opened stays open");
    });
}

#[test]
fn a_kill_switch_outlives_its_client_until_it_is_released() {
    in_namespace_async(|| async {
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join("client-home.journal");
        let mut changes = HostChanges::open(&journal).await.unwrap();
        changes.close_kill_switch(&connecting()).await.unwrap();
        changes.close_kill_switch(&switch()).await.unwrap();
        changes.add_rule(&rule()).await.unwrap();
        drop(changes);
        // What a crash leaves is undone but for the kill switch, again and again.
        assert_eq!(recover(&journal).await.unwrap().undone, 1);
        assert_eq!(closed_kill_switches().unwrap(), ["home"]);
        let mut changes = HostChanges::open(&journal).await.unwrap();
        assert_eq!((changes.recovered().undone, changes.is_closed()), (0, true));
        changes.close_kill_switch(&connecting()).await.unwrap();
        changes.add_rule(&rule()).await.unwrap();
        changes.undo_but_kill_switch().await.unwrap();
        assert!(changes.is_closed());
        drop(changes);
        assert_eq!(release(&journal).await.unwrap().undone, 1);
        assert_eq!(closed_kill_switches().unwrap(), Vec::<String>::new());
        assert!(!journal.exists());
    });
}

fn rule() -> PolicyRule {
    PolicyRule { family: Family::V4, unless: Mark::CLIENT, table: 51_820, priority: 5_000 }
}
