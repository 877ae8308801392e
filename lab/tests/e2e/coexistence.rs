//! What else a client's host does goes on beside a full tunnel: containers behind it, services that others reach, and
//! firewalls of its own.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use adit_lab::traffic::{Capture, Direction, TcpServer, transfer};
use adit_lab::{GATEWAY_V4, GATEWAY_V6, Host, INTERNET_V4, LinkAddresses};
use adit_testing::{PATIENCE, eventually};

use crate::harness::{INTERNET, Options, Tunnel, answers, assert_as_before, ip, nft, reach, sysctl};
use crate::services::{connect, echo};

/// The client's address on its link to the gateway.
const CLIENT: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 18)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2))];
const GATEWAY: [IpAddr; 2] = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)];
/// The client's link to the gateway.
const OUTER_LINK: &str = "eth0";
/// The host's end of the link to its container, and the container.
const BRIDGE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd17, 0, 0, 0, 0, 0, 0, 1))];
const CONTAINER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd17, 0, 0, 0, 0, 0, 0, 2))];
/// What the host does for its containers, as Docker does.
const MASQUERADE: &str = "table inet docker { chain post { type nat hook postrouting priority 100; \
    ip saddr 172.17.0.0/16 oifname != \"eth1\" masquerade; ip6 saddr fd17::/64 oifname != \"eth1\" masquerade; }; \
    chain pre { type nat hook prerouting priority -100; \
    iifname != \"eth1\" fib daddr type local meta nfproto ipv4 tcp dport 8080 dnat ip to 172.17.0.2:80; }; }";

/// A client's host with a container, which goes out through it.
fn with_container(tunnel: &mut Tunnel) -> Host {
    let (host, container) = (tunnel.client().host().clone(), tunnel.lab.host("container").unwrap());
    let ends = |address: [IpAddr; 2]| {
        let [IpAddr::V4(v4), IpAddr::V6(v6)] = address else { panic!("an address of each family") };
        LinkAddresses::new((v4, 16), (v6, 64))
    };
    tunnel.lab.link(&host, ends(BRIDGE), &container, ends(CONTAINER)).unwrap();
    BRIDGE.iter().for_each(|address| container.add_default_route(*address).unwrap());
    let switches = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
    switches.iter().for_each(|switch| sysctl(&host, switch, "1"));
    nft(&host, MASQUERADE);
    container
}

#[test]
fn container_goes_through_the_tunnel_and_its_host_and_it_reach_each_other() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let container = with_container(&mut tunnel);
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let host = tunnel.client().host().clone();
    // The positive control: without a tunnel the container gets out in clear, where the capture sees it.
    let outer = host.link_index(OUTER_LINK).unwrap();
    let control = Capture::start(&host).unwrap();
    GATEWAY.iter().for_each(|gateway| reach(&container, *gateway));
    let seen = control.wait_for(PATIENCE, |packet| packet.link == outer && GATEWAY.contains(&packet.destination));
    assert!(seen.is_some(), "the capture sees the container's packets");
    let before = host.settled().unwrap();

    tunnel.clients[0].up().unwrap();
    let capture = Capture::start(&host).unwrap();
    for (own, other) in BRIDGE.into_iter().zip(CONTAINER) {
        reach(&host, other);
        reach(&container, own);
    }
    INTERNET.iter().for_each(|target| reach(&container, *target));
    let in_clear = capture.packets(|packet| packet.link == outer && INTERNET.contains(&packet.destination));
    assert!(in_clear.is_empty(), "{in_clear:?}");
    assert_eq!(tunnel.client().status().unwrap().warnings, Vec::<String>::new());
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    assert_as_before(&host, &before);
}

#[test]
fn networks_that_overlap_are_named_and_those_of_later_containers_go_on() {
    let routes = ("routes", r#"["192.0.2.16/28", "172.16.0.0/12", "198.51.100.0/24"]"#);
    let Some(mut tunnel) = Tunnel::prepare(Options { settings: &[routes], ..Options::default() }) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), IpAddr::V4(INTERNET_V4));
    let says = |tunnel: &Tunnel, words: &str| {
        eventually(&format!("the status says: {words}"), || {
            tunnel.client().status().unwrap().warnings.iter().any(|warning| warning.contains(words)).then_some(())
        });
    };
    says(&tunnel, "192.0.2.16/28 of eth0 goes through the tunnel");
    says(&tunnel, "the gateway's own address 192.0.2.17 lies in its route");
    let container = with_container(&mut tunnel);
    says(&tunnel, "172.17.0.0/16 of eth1 stays on this host");
    reach(tunnel.client().host(), CONTAINER[0]);
    reach(&container, IpAddr::V4(INTERNET_V4));
}

/// Whether a connection carries a word there and back.
fn says(stream: &mut TcpStream, word: &[u8]) -> bool {
    let mut heard = vec![0; word.len()];
    stream.write_all(word).is_ok() && stream.read_exact(&mut heard).is_ok() && heard == word
}

#[test]
fn services_of_a_host_with_a_full_tunnel_are_reached_from_outside() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let container = with_container(&mut tunnel);
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let (host, outside) = (tunnel.client().host().clone(), tunnel.gateway.host().clone());
    echo(&host, 22);
    echo(&container, 80);
    let ports: Vec<SocketAddr> = CLIENT.map(|address| (address, 22).into()).into();
    // As an ssh session that is open when somebody types `up` in it.
    let mut sessions: Vec<TcpStream> = ports.iter().map(|to| connect(&outside, *to, PATIENCE).unwrap()).collect();
    assert!(sessions.iter_mut().all(|session| says(session, b"before")));

    tunnel.clients[0].up().unwrap();
    INTERNET.iter().for_each(|target| reach(&host, *target));
    assert!(sessions.iter_mut().all(|session| says(session, b"with the tunnel up")));
    for to in &ports {
        let mut fresh =
            connect(&outside, *to, PATIENCE).unwrap_or_else(|error| panic!("{to} does not answer: {error}"));
        assert!(says(&mut fresh, b"new"), "{to}");
    }
    let mut published = connect(&outside, (CLIENT[0], 8080).into(), PATIENCE).expect("a published port answers");
    assert!(says(&mut published, b"container"));
    CLIENT.iter().for_each(|address| reach(&outside, *address));
    answers_by_udp(&host, &outside);
}

/// A UDP service answers who asks it beside the tunnel.
fn answers_by_udp(host: &Host, outside: &Host) {
    let service = host.run(|| UdpSocket::bind((CLIENT[0], 5_353)).unwrap());
    let asking = outside.run(|| UdpSocket::bind((GATEWAY_V4, 0)).unwrap());
    asking.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    service.set_read_timeout(Some(PATIENCE)).unwrap();
    eventually("the UDP service answers", || {
        asking.send_to(b"question", (CLIENT[0], 5_353)).unwrap();
        let mut heard = [0; 16];
        let (length, from) = service.recv_from(&mut heard).unwrap();
        service.send_to(&heard[..length], from).unwrap();
        asking.recv_from(&mut heard).ok().filter(|(length, _)| &heard[..*length] == b"question").map(drop)
    });
}

#[test]
fn nobody_gets_to_a_container_through_the_tunnel() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let container = with_container(&mut tunnel);
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let (host, gateway) = (tunnel.client().host().clone(), tunnel.gateway.host().clone());
    echo(&host, 22);
    echo(&container, 80);
    tunnel.clients[0].up().unwrap();
    let inner = tunnel.client().inner_addresses().unwrap();
    let given: Vec<IpAddr> = inner.into_iter().filter(IpAddr::is_ipv4).collect();
    // The positive control: what the host itself serves is reached at the address that the gateway gave.
    assert!(connect(&gateway, (given[0], 22).into(), PATIENCE).is_ok());
    assert!(connect(&gateway, (given[0], 8080).into(), Duration::from_secs(2)).is_err(), "a published port");
    assert!(connect(&gateway, (CLIENT[0], 8080).into(), PATIENCE).is_ok(), "but beside the tunnel it is");
}

#[test]
fn neighbours_do_not_learn_the_tunnels_address() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let (host, neighbour) = (tunnel.client().host().clone(), tunnel.gateway.host().clone());
    // An address of another link of this host, which neighbours may ask for.
    let lent: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
    host.add_address("lo", IpAddr::from(lent).into()).unwrap();
    tunnel.clients[0].up().unwrap();
    let given = tunnel.client().inner_addresses().unwrap().into_iter().find(IpAddr::is_ipv4).unwrap();
    assert!(is_heard(&neighbour, CLIENT[0]), "the host answers for its address on this link");
    assert!(is_heard(&neighbour, lent.into()), "and for that of another link");
    assert!(!is_heard(&neighbour, given), "but not for the tunnel's");
}

/// Whether a host on the client's network finds out by ARP who has an address.
fn is_heard(neighbour: &Host, address: IpAddr) -> bool {
    ip(neighbour, &format!("route replace {address}/32 dev {OUTER_LINK}"));
    eventually("the neighbour has asked", || {
        answers(neighbour, address);
        let entry = ip(neighbour, &format!("neighbour show to {address} dev {OUTER_LINK}"));
        if entry.contains("lladdr") { Some(true) } else { entry.contains("FAILED").then_some(false) }
    })
}

#[test]
fn mark_of_others_and_the_firewall_of_this_host_are_told_apart_from_the_gateways_silence() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let host = tunnel.client().host().clone();
    // What a Kubernetes node does with packets that it has marked to be dropped.
    nft(
        &host,
        "table ip kube { chain output { type filter hook output priority 0; meta mark and 0x8000 == 0x8000 drop; }; }",
    );
    tunnel.clients[0].up().unwrap();
    reach(&host, IpAddr::V4(INTERNET_V4));
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);

    nft(&host, "add rule ip kube output udp dport 443 drop");
    nft(&host, "table ip6 kube { chain output { type filter hook output priority 0; udp dport 443 drop; }; }");
    let refused = tunnel.client().run(&["up", "--timeout", "5s"]).unwrap();
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("this host's firewall drops datagrams to 192.0.2.17:443"), "{refused:?}");
    assert!(refused.stderr.contains("nft list ruleset"), "{refused:?}");
    nft(&host, "delete table ip kube; delete table ip6 kube");
    tunnel.clients[0].up().unwrap();
    assert!(answers(&host, IpAddr::V4(INTERNET_V4)));
}

#[test]
fn firewall_that_lets_in_answers_alone_gets_along_with_the_tunnel_whenever_it_comes() {
    /// Usual on a laptop; what its own programs ask for is all that comes in.
    const ANSWERS_ALONE: &str = "table inet own { chain in { type filter hook input priority 0; policy drop; \
        iifname lo accept; ct state established,related accept; meta l4proto ipv6-icmp accept; }; }";
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let host = tunnel.client().host().clone();
    for comes_first in [true, false] {
        if comes_first {
            nft(&host, ANSWERS_ALONE);
        }
        tunnel.clients[0].up().unwrap();
        INTERNET.iter().for_each(|target| reach(&host, *target));
        let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
        if !comes_first {
            nft(&host, ANSWERS_ALONE);
        }
        INTERNET.iter().for_each(|target| reach(&host, *target));
        for direction in [Direction::Upload, Direction::Download] {
            assert!(transfer(&host, server.address(), direction, 2 << 20).unwrap().is_intact());
        }
        nft(&host, "delete table inet own");
        INTERNET.iter().for_each(|target| reach(&host, *target));
        assert_eq!(tunnel.client().status().unwrap().warnings, Vec::<String>::new());
        assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    }
}
