//! What the gateway's firewall lets through beside the tunnel, and what clients reach of the gateway's own host.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use adit_lab::programs::TUN;
use adit_lab::traffic::Capture;
use adit_lab::{GATEWAY_V4, Host, INTERNET_V4, INTERNET_V6, LinkAddresses, OUTSIDE_V4, OUTSIDE_V6};
use adit_testing::{PATIENCE, eventually, skip};

use crate::harness::{Carrier, INTERNET, Options, Tunnel, answers, ip, nft, reach, sysctl};
use crate::services::{hear, say};

/// A host in a network behind the gateway, which the gateway itself reaches.
const BEHIND_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const BEHIND_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
const BEHIND: [IpAddr; 2] = [IpAddr::V4(BEHIND_V4), IpAddr::V6(BEHIND_V6)];
/// Where another program on the gateway's host publishes a port.
const PUBLISHED: u16 = 8080;

/// Adds a network behind the gateway, to which the host `internet` finds the way.
fn network_behind(tunnel: &mut Tunnel) -> Host {
    let behind = tunnel.lab.host("behind").unwrap();
    let near = LinkAddresses::new((Ipv4Addr::new(10, 9, 0, 1), 24), ("fd09::1".parse().unwrap(), 64));
    let far = LinkAddresses::new((BEHIND_V4, 24), (BEHIND_V6, 64));
    tunnel.lab.link(tunnel.gateway.host(), near, &behind, far).unwrap();
    for (host, via) in [
        (&behind, [IpAddr::V4(near.v4.addr()), IpAddr::V6(near.v6.addr())]),
        (&tunnel.internet, [IpAddr::V4(OUTSIDE_V4), IpAddr::V6(OUTSIDE_V6)]),
    ] {
        for gateway in via {
            host.add_default_route(gateway).unwrap();
        }
    }
    behind
}

/// Asserts that packets pass, or do not, between two links of the gateway's host of which neither is the tunnel.
fn assert_routes_between_others(tunnel: &Tunnel, expected: bool) {
    for target in BEHIND {
        reach(tunnel.gateway.host(), target);
        if expected {
            reach(&tunnel.internet, target);
        } else {
            assert!(!answers(&tunnel.internet, target), "{target}");
        }
    }
}

#[test]
fn gateway_makes_no_router_of_its_host_but_leaves_one_that_is() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let _behind = network_behind(&mut tunnel);
    assert_routes_between_others(&tunnel, false);
    tunnel.gateway.start().unwrap();
    assert_routes_between_others(&tunnel, false);
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    for target in INTERNET.into_iter().chain(BEHIND) {
        reach(tunnel.client().host(), target);
    }
    tunnel.gateway.kill();
    assert_routes_between_others(&tunnel, false);
    tunnel.gateway.start().unwrap();
    assert_routes_between_others(&tunnel, false);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    assert_routes_between_others(&tunnel, false);
    for switch in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        sysctl(tunnel.gateway.host(), switch, "1");
    }
    assert_routes_between_others(&tunnel, true);
    tunnel.gateway.start().unwrap();
    assert_routes_between_others(&tunnel, true);
    tunnel.gateway.kill();
    tunnel.gateway.start().unwrap();
    assert_routes_between_others(&tunnel, true);
}

#[test]
fn clients_reach_no_published_port_and_no_service_that_is_not_named() {
    let Some(mut tunnel) = Tunnel::prepare(Options { settings: &[("local_services", "[\"tcp/22\"]")], clients: 1 })
    else {
        return;
    };
    let gateway = tunnel.gateway.host().clone();
    say(&gateway, 22, "shell");
    say(&gateway, 80, "local");
    say(&tunnel.internet, 80, "container");
    let rule = format!("fib daddr type local tcp dport {PUBLISHED} dnat ip to {INTERNET_V4}:80");
    nft(&gateway, &format!("table inet docker {{ chain p {{ type nat hook prerouting priority dstnat; {rule}; }}; }}"));
    tunnel.run();
    let client = tunnel.client().host();
    let inner = tunnel.gateway.inner_addresses().unwrap();
    for address in inner.iter().copied().chain([IpAddr::V4(GATEWAY_V4), IpAddr::V4(OUTSIDE_V4)]) {
        reach(client, inner[0]);
        assert_eq!(hear(client, SocketAddr::new(address, 22)).as_deref(), Ok("shell"), "{address}");
        for port in [80, PUBLISHED] {
            let refused = hear(client, SocketAddr::new(address, port));
            assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "{address} port {port}");
        }
    }
    // The positive controls: the services are there, and so is what the port is published for.
    let outside = IpAddr::V4(OUTSIDE_V4);
    assert_eq!(hear(&tunnel.internet, SocketAddr::new(outside, 80)).as_deref(), Ok("local"));
    assert_eq!(hear(client, SocketAddr::new(INTERNET[0], 80)).as_deref(), Ok("container"));
    assert_eq!(hear(client, SocketAddr::new(INTERNET_V6.into(), 80)).as_deref(), Ok("container"));
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    tunnel.gateway.set("local_services", &format!("[\"tcp/{PUBLISHED}\"]"));
    tunnel.gateway.start().unwrap();
    let client = tunnel.client().host().clone();
    let published = SocketAddr::new(GATEWAY_V4.into(), PUBLISHED);
    eventually("the published port is reached once it is named", || {
        (hear(&client, published).as_deref() == Ok("container")).then_some(())
    });
}

#[test]
fn programs_that_go_where_they_may_not_hear_so_at_once() {
    for carrier in [Carrier::Esp, Carrier::Quic] {
        let routes = format!("[\"{INTERNET_V4}/32\", \"{INTERNET_V6}/128\"]");
        let Some(tunnel) = Tunnel::start_over(carrier, Options { clients: 2, settings: &[("routes", &routes)] }) else {
            return;
        };
        let client = tunnel.client().host();
        reach(client, INTERNET[0]);
        let others = tunnel.clients[1].inner_addresses().unwrap();
        // Whatever its routes say, the client sends packets for these through the tunnel.
        let beyond: IpAddr = Ipv4Addr::new(203, 0, 113, 7).into();
        for target in others.into_iter().chain([beyond]) {
            ip(client, &format!("route replace {target} dev {TUN}"));
            let refused = hear(client, SocketAddr::new(target, 80));
            let prohibited = [ErrorKind::HostUnreachable, ErrorKind::PermissionDenied];
            assert!(refused.as_ref().is_err_and(|kind| prohibited.contains(kind)), "{target}: {refused:?}");
        }
    }
}

/// A resolver's answer to a question for the address of a name; `None` where there is none within a second.
fn resolve(from: &Host, server: IpAddr, name: &'static str) -> Option<Ipv4Addr> {
    from.run(move || {
        let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((local, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let labels =
            name.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
        // One question: A, IN (RFC 1035 section 4.1).
        let question = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0].into_iter().chain(labels).chain([0, 0, 1, 0, 1]);
        socket.send_to(&question.collect::<Vec<u8>>(), (server, 53)).ok()?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).ok()?;
        // The address ends the answer's only record.
        let address = answer[..length].last_chunk::<4>()?;
        (answer[7] == 1).then(|| Ipv4Addr::from(*address))
    })
}

#[test]
fn resolver_on_the_gateways_host_serves_clients() {
    let servers = format!("[\"{OUTSIDE_V4}\", \"{OUTSIDE_V6}\"]");
    let Some(mut tunnel) = Tunnel::prepare(Options { settings: &[("dns.servers", &servers)], clients: 1 }) else {
        return;
    };
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--no-resolv"]);
    dnsmasq.args(["--no-hosts", "--bind-interfaces", "--address=/www.example/203.0.113.9"]);
    dnsmasq.args([format!("--listen-address={OUTSIDE_V4}"), format!("--listen-address={OUTSIDE_V6}")]);
    let Ok(_dnsmasq) = tunnel.gateway.host().spawn(dnsmasq) else { return skip("needs the program dnsmasq") };
    tunnel.run();
    let expected = Some(Ipv4Addr::new(203, 0, 113, 9));
    for server in [OUTSIDE_V4.into(), OUTSIDE_V6.into()] {
        let client = tunnel.client().host();
        eventually(&format!("a name is found at {server}"), || {
            (resolve(client, server, "www.example") == expected).then_some(())
        });
        let other = hear(client, SocketAddr::new(server, 54));
        assert_eq!(other, Err(ErrorKind::ConnectionRefused), "the rest of the host is no resolver");
    }
}

/// `REFUSED` of RFC 1035 section 4.1.1.
const REFUSED: u8 = 5;

/// A resolver on the gateway's host that has nothing but a code for who asks.
fn answer_all(host: &Host, code: u8) {
    let socket = host.run(|| UdpSocket::bind((OUTSIDE_V4, 53)).unwrap());
    drop(host.start(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            question[2] |= 0x80;
            question[3] = code;
            let _gone = socket.send_to(&question[..length], from);
        }
    }));
}

#[test]
fn resolver_that_does_not_serve_clients_is_told_in_the_log() {
    let servers = format!("[\"{OUTSIDE_V4}\"]");
    let Some(mut tunnel) = Tunnel::prepare(Options { settings: &[("dns.servers", &servers)], clients: 0 }) else {
        return;
    };
    // It answers everybody that it will not.
    answer_all(tunnel.gateway.host(), REFUSED);
    tunnel.gateway.start().unwrap();
    let said = tunnel.gateway.admin(&["check", "--live"]).unwrap().success().unwrap();
    let expected =
        format!("warning: clients are told of the resolver {OUTSIDE_V4} on this host: it refuses clients' addresses");
    assert!(said.contains(&expected) && said.contains("answer the pool"), "{said}");
    let process = tunnel.gateway.process().unwrap();
    process.wait_for_line("it refuses clients' addresses", Duration::from_secs(90)).unwrap();
}

#[test]
fn resolver_that_is_not_there_is_named_before_the_gateway_starts() {
    let servers = format!("[\"{OUTSIDE_V4}\"]");
    let Some(tunnel) = Tunnel::prepare(Options { settings: &[("dns.servers", &servers)], clients: 0 }) else { return };
    let said = tunnel.gateway.admin(&["check"]).unwrap().success().unwrap();
    let expected =
        format!("warning: clients are told of the resolver {OUTSIDE_V4} on this host: nothing listens there");
    assert!(said.contains(&expected), "{said}");
    answer_all(tunnel.gateway.host(), 0);
    let said = tunnel.gateway.admin(&["check"]).unwrap().success().unwrap();
    assert!(!said.contains("resolver"), "it answers now: {said}");
}

/// Firewalls as people write them: what is not accepted by a rule is dropped.
const STATEFUL: &str = "iif lo accept; ct state established,related accept; ct state new udp dport 443 accept; \
                        meta l4proto { icmp, ipv6-icmp } accept;";

/// Loads such a firewall for what comes in and, with `rules` of its own, for what leaves.
fn strict_host(host: &Host, input: &str, output: &str) {
    let chain =
        |name, hook, rules| format!("chain {name} {{ type filter hook {hook} priority 10; policy drop; {rules} }};");
    let chains = [chain("i", "input", input), chain("o", "output", output)].concat();
    nft(host, &format!("table inet h; delete table inet h; table inet h {{ {chains} }};"));
}

#[test]
fn devices_get_in_through_a_firewall_that_knows_tracked_datagrams_only() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let everything = "accept;";
    let answers_only = "oif lo accept; ct state established,related accept; meta l4proto { icmp, ipv6-icmp } accept;";
    strict_host(tunnel.gateway.host(), STATEFUL, answers_only);
    tunnel.run();
    reach(tunnel.client().host(), INTERNET[0]);
    // Also through one that comes while the gateway runs.
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    nft(tunnel.gateway.host(), "delete table inet h");
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    strict_host(tunnel.gateway.host(), STATEFUL, answers_only);
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    // The positive control: without a rule for the port nobody gets in.
    strict_host(tunnel.gateway.host(), &STATEFUL.replace("443", "444"), everything);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    nft(tunnel.gateway.host(), "delete table inet h");
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    strict_host(tunnel.gateway.host(), &STATEFUL.replace("443", "444"), everything);
    tunnel.gateway.start().unwrap();
    let refused = tunnel.client().run(&["up", "--timeout", "3s"]).unwrap();
    assert_ne!(refused.code, 0, "{refused:?}");
}

#[test]
fn next_holder_of_an_address_gets_nothing_of_the_former_ones_flows() {
    const SECRET: &[u8] = b"adit-secret-of-the-first";
    let settings = [("pool.v4", "10.77.0.0/29"), ("lease_cooldown", "0s")];
    let Some(mut tunnel) = Tunnel::prepare(Options { settings: &settings, clients: 1 }) else { return };
    tunnel.gateway.start().unwrap();
    let v4_of = |tunnel: &Tunnel| tunnel.client().inner_addresses().unwrap().into_iter().find(IpAddr::is_ipv4).unwrap();
    let up = |tunnel: &mut Tunnel, device: &str| {
        let link = tunnel.gateway.invite("alice", &[]).unwrap();
        tunnel.client().run(&["join", "--name", device, &link]).unwrap().success().unwrap();
        tunnel.clients[0].up_with(&[device], &[]).unwrap();
        v4_of(tunnel)
    };
    let first = up(&mut tunnel, "first");
    // A service that goes on talking to whoever spoke to it once.
    let socket = tunnel.internet.run(|| UdpSocket::bind((INTERNET_V4, 7000)).unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    drop(tunnel.internet.start(move || {
        let (_, peer) = socket.recv_from(&mut [0; 64]).unwrap();
        while socket.send_to(SECRET, peer).is_ok() || counted.load(Ordering::Relaxed) > 0 {
            counted.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(20));
        }
    }));
    let client = tunnel.client().host().clone();
    client.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().send_to(b"hello", (INTERNET_V4, 7000)).unwrap());
    let capture = Capture::start(&client).unwrap();
    assert!(capture.wait_for(PATIENCE, |packet| packet.contains(SECRET)).is_some(), "the first gets its packets");
    // Five addresses: the sixth device gets that of the first.
    let mut last = first;
    for device in ["second", "third", "fourth", "fifth", "sixth"] {
        assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
        last = up(&mut tunnel, device);
    }
    assert_eq!(last, first, "the pool has no other address left");
    let capture = Capture::start(&client).unwrap();
    let before = sent.load(Ordering::Relaxed);
    eventually("the service goes on", || (sent.load(Ordering::Relaxed) > before + 50).then_some(()));
    reach(&client, INTERNET[0]);
    assert_eq!(capture.packets(|packet| packet.contains(SECRET)).len(), 0);
}
