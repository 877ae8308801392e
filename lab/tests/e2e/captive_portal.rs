//! Networks that let nobody out who has not been at their portal: the client recognises them, says where the portal
//! is, keeps the host closed meanwhile, and connects by itself once somebody has passed it.

mod program;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use adit_lab::programs::Client;
use adit_lab::traffic::{Capture, Captured};
use adit_lab::{GATEWAY_V4, GATEWAY_V6, Host, LinkAddresses, Process};
use adit_testing::{PATIENCE, eventually};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::daemons::NameServer;
use crate::harness::{INTERNET, Options, Tunnel, answers, nft, reach, sysctl};
use crate::leaks::is_neighbourly;

/// The router of the network, which is its resolver and has its pages, and the client beside it.
const ROUTER: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 168, 9, 1), Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1));
const GUEST: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 168, 9, 2), Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2));
/// The router's way out, and the gateway's end of it.
const OUTER: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 242), Ipv6Addr::new(0x2001, 0xdb8, 0, 15, 0, 0, 0, 2));
const UPLINK: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 241), Ipv6Addr::new(0x2001, 0xdb8, 0, 15, 0, 0, 0, 1));
/// The client's link to its gateway, and that to the network with the portal.
const OFFICE_LINK: &str = "eth0";
const CAFE_LINK: &str = "eth1";
/// Addresses that nobody has, of which the client asks for a page.
const NOBODY: [&str; 2] = ["203.0.113.80", "2001:db8:cafe::80"];
const PORTAL: &str = "http://portal.cafe.test/login?from=";
const MARK: &[u8] = b"adit-leak-probe";
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// A network with a portal, between a client and its gateway.
struct Cafe {
    pages: Process,
    _names: NameServer,
    router: Host,
}

fn ends((v4, v6): (Ipv4Addr, Ipv6Addr), prefix: u8) -> LinkAddresses {
    LinkAddresses::new((v4, prefix), (v6, 64))
}

impl Cafe {
    /// Opens it beside the client's own link; `None`, loudly, without the programs that it needs.
    fn open(tunnel: &mut Tunnel) -> Option<Self> {
        let router = tunnel.lab.host("cafe").unwrap();
        let (client, gateway) = (tunnel.client().host(), tunnel.gateway.host());
        tunnel.lab.link(client, ends(GUEST, 24), &router, ends(ROUTER, 24)).unwrap();
        tunnel.lab.link(&router, ends(OUTER, 28), gateway, ends(UPLINK, 28)).unwrap();
        for via in [IpAddr::V4(UPLINK.0), UPLINK.1.into()] {
            router.add_default_route(via).unwrap();
        }
        sysctl(&router, "net/ipv4/ip_forward", "1");
        sysctl(&router, "net/ipv6/conf/all/forwarding", "1");
        nft(
            &router,
            "table inet nat { chain out { type nat hook postrouting priority 100; oifname eth1 masquerade; }; }",
        );
        let names = NameServer::start(&router, ROUTER.0, &ROUTER.0.to_string())?;
        let pages = pages(&router);
        let cafe = Self { pages, _names: names, router };
        cafe.keep_in();
        Some(cafe)
    }

    /// Keeps everybody in: pages in clear are the portal's, TLS is answered by a stranger, all else is dropped.
    fn keep_in(&self) {
        let there = "fib daddr type != local iifname eth0";
        nft(
            &self.router,
            &format!(
                "table inet captive {{ \
                 chain pages {{ type nat hook prerouting priority -100; \
                 {there} tcp dport 80 redirect; {there} tcp dport 443 redirect to :8443; }}; \
                 chain forward {{ type filter hook forward priority 0; iifname eth0 drop; }}; }}"
            ),
        );
    }

    /// Answers no page in clear any more, and keeps everybody in as before.
    fn show_nothing(&self) {
        nft(&self.router, "flush chain inet captive pages");
    }

    /// Answers in the place of others over TLS alone.
    fn show_stranger(&self) {
        self.show_nothing();
        nft(&self.router, "add rule inet captive pages fib daddr type != local tcp dport 443 redirect to :8443");
    }

    fn let_out(&self) {
        nft(&self.router, "delete table inet captive");
    }

    /// Takes a client from its own link into this network.
    fn enter(&self, client: &Host) {
        client.set_link(OFFICE_LINK, false).unwrap();
        for via in [IpAddr::V4(ROUTER.0), ROUTER.1.into()] {
            client.add_default_route(via).unwrap();
        }
        // As programs that manage a host's networks write them: the first is the tunnel's while there is one.
        client.run(|| {
            fs::create_dir_all("/run/systemd/resolve").unwrap();
            for file in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
                fs::write(file, format!("nameserver {}\n", ROUTER.0)).unwrap();
            }
        });
    }

    /// A certificate: `authority.pem` of the one that vouches for the API, `stranger.pem` of another.
    fn file(&self, name: &str) -> String {
        self.router.folder().join(name).display().to_string()
    }
}

/// Starts the pages of the network, with a certificate for its API.
fn pages(router: &Host) -> Process {
    let file = |name: &str, text: &str| {
        let path = router.folder().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (key, stranger) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    file("authority.pem", &params.self_signed(&key).unwrap().pem());
    file("stranger.pem", &params.self_signed(&stranger).unwrap().pem());
    let (issuer, leaf_key) = (Issuer::new(params, key), KeyPair::generate().unwrap());
    let leaf = CertificateParams::new(vec!["api.cafe.test".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let mut server = Command::new("python3");
    server.args(["-c", include_str!("captive_portal/cafe.py")]);
    server.arg(file("leaf.pem", &leaf.pem())).arg(file("leaf.key", &leaf_key.serialize_pem()));
    let server = router.spawn(server).unwrap();
    server.wait_for_line("the pages are there", PATIENCE).unwrap();
    server
}

/// A client that has been connected once with a full tunnel and is not, and a network with a portal.
fn known_to_be_full() -> Option<(Tunnel, Cafe)> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    let cafe = Cafe::open(&mut tunnel)?;
    tunnel.run();
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    Some((tunnel, cafe))
}

fn begin(client: &Client, more: &[&str], environment: &[(&str, &str)]) -> Process {
    let mut command = client.command(&[&["up", "--timeout", "0s"], more].concat());
    command.envs(environment.iter().copied());
    client.host().spawn(command).unwrap()
}

/// Waits until the client says that the network has a portal; returns where it is.
fn told_portal(client: &Client) -> String {
    eventually("the client says where the portal is", || {
        let status = client.status().unwrap();
        status.portal.filter(|page| status.state == "captive portal" && status.reason.unwrap().contains(page))
    })
}

/// Waits until a client that was carried away notices, which takes something to send: it is quiet otherwise.
fn misses_gateway(client: &Client) {
    eventually("the client misses its gateway", || {
        assert!(!answers(client.host(), INTERNET[0]), "the network lets it out");
        (client.status().unwrap().state != "connected").then_some(())
    });
}

fn stands(client: &Client, state: &str) {
    eventually(&format!("the client is {state}"), || (client.status().unwrap().state == state).then_some(()));
}

/// What leaves a client's host into the network with the portal.
struct Watched {
    host: Host,
    router: Host,
    capture: Capture,
    link: usize,
}

impl Watched {
    fn new(tunnel: &Tunnel, cafe: &Cafe) -> Self {
        let host = tunnel.client().host().clone();
        let (capture, link) = (Capture::start(&host).unwrap(), host.link_index(CAFE_LINK).unwrap());
        Self { host, router: cafe.router.clone(), capture, link }
    }

    /// Sends what programs would, and waits until what left of it has been seen.
    fn probe(&self, number: u32) {
        self.host.run(|| {
            let outside = INTERNET.into_iter().flat_map(|to| [(to, 9_999), (to, 53)]);
            for target in outside.chain([(ROUTER.0.into(), 53), (ROUTER.1.into(), 53)]) {
                let any =
                    if target.0.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
                drop(UdpSocket::bind((any, 0)).unwrap().send_to(MARK, target));
            }
            for (to, port) in INTERNET.into_iter().chain([ROUTER.0.into()]).flat_map(|to| [(to, 80), (to, 443)]) {
                drop(TcpStream::connect_timeout(&SocketAddr::new(to, port), Duration::from_millis(50)));
            }
        });
        let text = format!("adit-after-probe {number:06}");
        let sent = text.clone();
        self.router.run(move || {
            let socket = UdpSocket::bind((ROUTER.0, 0)).unwrap();
            socket.send_to(sent.as_bytes(), (GUEST.0, 9)).unwrap();
        });
        assert!(self.capture.wait_for(PATIENCE, |packet| packet.contains(text.as_bytes())).is_some());
    }

    /// What left but the client's own: datagrams and connections to its gateway, and its look for a portal.
    fn beside_the_client(&self) -> Vec<Captured> {
        let gateway = [IpAddr::V4(GATEWAY_V4), GATEWAY_V6.into()];
        let nobody = NOBODY.map(|text| text.parse::<IpAddr>().unwrap());
        let of_guest = |packet: &Captured| [IpAddr::V4(GUEST.0), GUEST.1.into()].contains(&packet.destination);
        let is_own = |packet: &Captured| match destination_port(packet) {
            Some((_, 443)) => gateway.contains(&packet.destination),
            Some((TCP, 80)) => gateway.iter().chain(&nobody).any(|to| *to == packet.destination),
            _ => false,
        };
        // "Nobody listens here" to the router, for what it sends after the probes.
        let is_answer = |packet: &Captured| packet.bytes[9] == ICMP && packet.contains(b"adit-after-probe");
        self.capture.packets(|packet| {
            let left = packet.link == self.link && !of_guest(packet);
            left && !is_own(packet) && !is_answer(packet) && !is_neighbourly(packet)
        })
    }

    fn assert_tight(&self, number: u32, when: &str) {
        self.probe(number);
        let seen = self.beside_the_client();
        let lines = seen.iter().map(|packet| format!("to {}: {:02x?}\n", packet.destination, packet.bytes));
        assert!(seen.is_empty(), "{when}, these left:\n{}", lines.collect::<String>());
    }

    /// The control: what is probed with is seen where it may leave.
    fn assert_open(&self) {
        self.probe(0);
        let seen = self.beside_the_client();
        for to in INTERNET {
            for expected in [(UDP, 9_999), (UDP, 53), (TCP, 80), (TCP, 443)] {
                let is_seen =
                    |packet: &Captured| packet.destination == to && destination_port(packet) == Some(expected);
                assert!(seen.iter().any(is_seen), "{expected:?} to {to} is not seen");
            }
        }
    }
}

/// Protocol and destination port of TCP and UDP without IP options.
fn destination_port(packet: &Captured) -> Option<(u8, u16)> {
    let (protocol, at) = if packet.source.is_ipv4() { (packet.bytes[9], 22) } else { (packet.bytes[6], 42) };
    let port = packet.bytes.get(at..at + 2)?.first_chunk().copied()?;
    [TCP, UDP].contains(&protocol).then(|| (protocol, u16::from_be_bytes(port)))
}

#[test]
fn portal_is_told_once_while_the_host_stays_closed_and_passing_it_connects() {
    let Some((tunnel, cafe)) = known_to_be_full() else { return };
    let client = tunnel.client();
    cafe.enter(client.host());
    Watched::new(&tunnel, &cafe).assert_open();
    let watched = Watched::new(&tunnel, &cafe);
    let running = begin(client, &[], &[]);
    let page = told_portal(client);
    assert!(page.starts_with(PORTAL), "{page}");
    watched.assert_tight(1, "at the portal");
    let text = client.run(&["status"]).unwrap().success().unwrap();
    assert!(text.contains("captive portal") && text.contains(&format!("portal     {page}")), "{text}");
    cafe.let_out();
    stands(client, "connected");
    reach(client.host(), INTERNET[0]);
    watched.assert_tight(2, "connected");
    let said = running.stderr();
    assert_eq!(said.matches("captive portal").count(), 1, "{said}");
    running.terminate().unwrap();
    assert_eq!(running.wait(PATIENCE).unwrap(), 0);
}

#[test]
fn client_that_is_carried_into_such_a_network_says_so_and_comes_back_by_itself() {
    let Some((mut tunnel, cafe)) = known_to_be_full() else { return };
    tunnel.clients[0].up().unwrap();
    let client = tunnel.client();
    let addresses = client.status().unwrap().addresses;
    cafe.enter(client.host());
    misses_gateway(client);
    assert!(told_portal(client).starts_with(PORTAL));
    cafe.let_out();
    stands(client, "connected");
    assert_eq!(client.status().unwrap().addresses, addresses);
    reach(client.host(), INTERNET[0]);
}

#[test]
fn device_that_joins_behind_a_portal_is_told_of_it_and_joins_once_it_is_passed() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let Some(cafe) = Cafe::open(&mut tunnel) else { return };
    tunnel.gateway.start().unwrap();
    let invite = tunnel.gateway.invite("user1", &[]).unwrap();
    let client = tunnel.client();
    cafe.enter(client.host());
    let held_up = client.join(&invite).unwrap();
    let (code, said) = (held_up.code, held_up.stderr);
    assert!(code == 5 && said.contains("this network has a captive portal: http://portal.cafe.test/"), "{code} {said}");
    assert!(said.contains("open that page in a browser"), "{said}");
    cafe.let_out();
    client.join(&invite).unwrap().success().unwrap();
}

#[test]
fn stranger_who_answers_over_tls_is_known_for_a_portal() {
    let Some((tunnel, cafe)) = known_to_be_full() else { return };
    let client = tunnel.client();
    cafe.enter(client.host());
    let impatient = client.run(&["up", "--carrier", "tls", "--timeout", "6s"]).unwrap();
    let (code, said) = (impatient.code, impatient.stderr);
    assert!(code == 5 && said.contains("this network has a captive portal: http://portal.cafe.test/"), "{code} {said}");
    assert!(said.contains("open that page in a browser"), "{said}");

    let netcheck = || client.run(&["netcheck", "--json"]).unwrap();
    let at_portal = netcheck();
    let report: Value = serde_json::from_str(&at_portal.stdout).unwrap();
    assert_eq!((at_portal.code, &report["addresses"][0]["tls"]["outcome"]), (5, &"stranger".into()), "{report}");
    assert!(report["portal"].as_str().unwrap().starts_with(PORTAL), "{report}");
    assert!(at_portal.stderr.contains("this network has a captive portal"), "{}", at_portal.stderr);
    cafe.show_stranger();
    let beside_stranger = netcheck();
    let report: Value = serde_json::from_str(&beside_stranger.stdout).unwrap();
    assert_eq!((beside_stranger.code, &report["portal"]), (4, &Value::Null), "{report}");
}

/// RFC 8910 and RFC 8908: what systemd-networkd was told, and what the network's own API says.
#[test]
fn network_that_tells_of_its_portal_itself_is_believed_if_it_proves_who_it_is() {
    let Some((tunnel, cafe)) = known_to_be_full() else { return };
    let client = tunnel.client();
    cafe.enter(client.host());
    cafe.show_nothing();
    client.host().run(|| {
        fs::create_dir_all("/run/systemd/netif/links").unwrap();
        fs::write("/run/systemd/netif/links/2", "CAPTIVE_PORTAL=https://api.cafe.test:8443/api\n").unwrap();
    });
    // One that nobody vouches for is not heard; the second look begins when the first is over.
    let doubting = begin(client, &[], &[("SSL_CERT_FILE", &cafe.file("stranger.pem"))]);
    eventually("the API is asked twice", || (cafe.pages.stdout().matches("no handshake").count() > 1).then_some(()));
    assert_eq!(client.status().unwrap().state, "connecting");
    client.run(&["down"]).unwrap().success().unwrap();
    assert_eq!(doubting.wait(PATIENCE).unwrap(), 0);

    let running = begin(client, &[], &[("SSL_CERT_FILE", &cafe.file("authority.pem"))]);
    assert_eq!(told_portal(client), "https://portal.cafe.test/told-by-api");
    cafe.let_out();
    stands(client, "connected");
    drop(running);
}
