//! What else a client's host does goes on beside a full tunnel: containers behind it, services that others reach, and
//! firewalls of its own.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use adit_lab::traffic::{Capture, Direction, TcpServer, transfer};
use adit_lab::{GATEWAY_V4, GATEWAY_V6, Host, INTERNET_V4, LinkAddresses, Process};
use adit_testing::{PATIENCE, eventually};

use crate::harness::{Carrier, INTERNET, Options, Tunnel, answers, assert_as_before, compiled, ip, nft, reach, sysctl};
use crate::leaks::{Watched, watched};
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

/// What a host does for its virtual machines, as libvirt does.
const MASQUERADE_MACHINES: &str = "table inet libvirt { chain post { type nat hook postrouting priority 100; \
    ip saddr 192.168.122.0/24 oifname != \"virbr0\" masquerade; ip6 saddr fd22::/64 oifname != \"virbr0\" masquerade; }; }";
/// The host's end of the bridge to its virtual machine, and the machine.
const MACHINES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 122, 1)), IpAddr::V6(Ipv6Addr::new(0xfd22, 0, 0, 0, 0, 0, 0, 1))];
const MACHINE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 122, 2)), IpAddr::V6(Ipv6Addr::new(0xfd22, 0, 0, 0, 0, 0, 0, 2))];
/// What the machine says to the internet.
const OF_MACHINE: &[u8] = b"adit-from-a-machine";
/// One end of a cable between two TAP devices in two hosts, as a machine monitor makes it between the host's device and
/// the card that the machine sees: `NAME SOCKET` waits for the other end, `NAME SOCKET far` goes to it.
const CABLE: &str = r#"
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int count, char **words) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  struct sockaddr_un place = {.sun_family = AF_UNIX};
  strncpy(request.ifr_name, words[1], IFNAMSIZ - 1);
  strncpy(place.sun_path, words[2], sizeof place.sun_path - 1);
  int tap = open("/dev/net/tun", O_RDWR);
  if (tap < 0 || ioctl(tap, TUNSETIFF, &request)) return perror("make the device"), 1;
  int other = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  if (count > 3) {
    if (connect(other, (void *)&place, sizeof place)) return perror("go to the other end"), 1;
  } else {
    if (bind(other, (void *)&place, sizeof place) || listen(other, 1)) return perror("wait"), 1;
    fprintf(stderr, "waiting\n");
    other = accept(other, 0, 0);
  }
  struct pollfd ends[2] = {{.fd = tap, .events = POLLIN}, {.fd = other, .events = POLLIN}};
  for (char frame[65536];;) {
    poll(ends, 2, -1);
    for (int from = 0; from < 2; from++) {
      if (!ends[from].revents) continue;
      long length = read(ends[from].fd, frame, sizeof frame);
      if (length <= 0) return 0;
      if (write(ends[1 - from].fd, frame, length) < 0) perror("pass a frame on");
    }
  }
}
"#;

/// A client's host with a virtual machine on a bridge, which goes out through it. The cable lasts as long as its ends.
fn with_virtual_machine(tunnel: &mut Tunnel) -> Option<(Host, [Process; 2])> {
    let (host, machine) = (tunnel.client().host().clone(), tunnel.lab.host("machine").unwrap());
    let program = compiled(tunnel.lab.folder(), "cable", CABLE, &[])?;
    let socket = tunnel.lab.folder().join("cable.sock");
    let end = |host: &Host, device: &str, more: &[&str]| {
        let mut command = Command::new(&program);
        command.arg(device).arg(&socket).args(more);
        host.spawn(command).unwrap()
    };
    let near = end(&host, "vnet0", &[]);
    near.wait_for_line("waiting", PATIENCE).unwrap();
    let far = end(&machine, "net0", &["far"]);
    ip(&host, "link add virbr0 type bridge");
    ip(&host, "link set vnet0 master virbr0 up");
    eventually("the machine has its device", || machine.link_index("net0").ok());
    for (host, link, addresses) in [(&host, "virbr0", MACHINES), (&machine, "net0", MACHINE)] {
        ip(host, &format!("link set {link} up"));
        ip(host, &format!("address add {}/24 dev {link}", addresses[0]));
        ip(host, &format!("address add {}/64 dev {link} nodad", addresses[1]));
    }
    MACHINES.iter().for_each(|address| machine.add_default_route(*address).unwrap());
    let switches = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
    switches.iter().for_each(|switch| sysctl(&host, switch, "1"));
    nft(&host, MASQUERADE_MACHINES);
    Some((machine, [near, far]))
}

/// Has a machine send to the internet, by both families.
fn speak(machine: &Host) {
    machine.run(|| {
        for (target, any) in
            INTERNET.into_iter().zip([IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()])
        {
            UdpSocket::bind((any, 0)).unwrap().send_to(OF_MACHINE, (target, 9)).unwrap();
        }
    });
}

/// Waits until what a machine says is seen to leave its host in clear, by both families.
fn assert_heard(watched: &Watched, machine: &Host, when: &str) {
    eventually(&format!("{when}, what the machine says leaves in clear"), || {
        speak(machine);
        watched.assert_open(when);
        let seen = watched.beside_the_tunnel();
        let is_heard =
            |target: &IpAddr| seen.iter().any(|packet| packet.destination == *target && packet.contains(OF_MACHINE));
        INTERNET.iter().all(is_heard).then_some(())
    });
}

#[test]
fn virtual_machine_goes_through_the_tunnel_and_never_beside_it() {
    let Some((mut tunnel, _)) = watched(Carrier::Esp) else { return };
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    let Some((machine, _cable)) = with_virtual_machine(&mut tunnel) else { return };
    let host = tunnel.client().host().clone();
    assert_heard(&Watched::new(&tunnel), &machine, "without a tunnel");

    tunnel.clients[0].up().unwrap();
    let watched = Watched::new(&tunnel);
    let assert_together = || {
        for (own, other) in MACHINES.into_iter().zip(MACHINE) {
            reach(&host, other);
            reach(&machine, own);
        }
    };
    assert_together();
    INTERNET.iter().for_each(|target| reach(&machine, *target));
    speak(&machine);
    watched.assert_tight("connected");
    assert_eq!(tunnel.client().status().unwrap().warnings, Vec::<String>::new());

    tunnel.clients[0].kill();
    assert_together();
    speak(&machine);
    watched.assert_tight("killed");
    tunnel.client().run(&["down"]).unwrap().success().unwrap();
    assert_heard(&Watched::new(&tunnel), &machine, "opened");
}

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

/// Another program has a table of this name, which is its own: nobody else may replace it.
#[test]
fn status_says_what_is_open_while_the_table_for_answers_is_missing() {
    const TABLE: &str = "echo 'add table inet adit_answers_adit0 { flags owner; }'";
    const CLOSED: &str = "others reach no service of this host beside the tunnel";
    const OPEN: &str = "what is published of its containers is open to whoever runs the gateway";
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let _container = with_container(&mut tunnel);
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let host = tunnel.client().host().clone();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{{ {TABLE}; sleep 1000; }} | nft -i")]);
    let _stranger = host.spawn(command).unwrap();
    eventually("the stranger has its table", || nft(&host, "list tables").contains("adit_answers_adit0").then_some(()));
    tunnel.clients[0].up().unwrap();
    let warnings = || tunnel.client().status().unwrap().warnings;
    let told = eventually("the status tells", || warnings().into_iter().find(|warning| warning.contains(CLOSED)));
    assert!(told.contains(OPEN), "{told}");
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
    let refused = tunnel.client().run(&["up", "--carrier", "esp", "--timeout", "5s"]).unwrap();
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
