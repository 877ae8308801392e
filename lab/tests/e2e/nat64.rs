//! A host that comes from a network of IPv4 into one of IPv6 alone, as those of phones are, and back. A stranger
//! translates there (NAT64), and nobody has told the client under which prefix.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Instant;

use adit_lab::traffic::Dialogue;
use adit_lab::{GATEWAY_V4, Host, INTERNET_V4, LinkAddresses, Process};
use adit_testing::{eventually, skip};

use crate::daemons::{NameServer, is_installed};
use crate::harness::{INTERNET, Options, Tunnel, flows, ip, nft, reach, run, sysctl};

/// The client's links: to the gateway as at home, and into the phone's network.
const HOME_LINK: &str = "eth0";
const PHONE_LINK: &str = "eth1";
/// The router of the phone's network, and the prefix under which it shows hosts of IPv4.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 1);
const PREFIX: &str = "2001:db8:64:ffff::";
/// Whom the gateway sees behind the translator.
const TRANSLATED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The name that tells the prefix (RFC 7050).
const NAME: &str = "ipv4only.arpa";

/// A network of IPv6 alone that the client may join, with a translator and a resolver.
struct PhoneNetwork {
    client: Host,
    names: NameServer,
    _translator: Process,
}

impl PhoneNetwork {
    /// Makes it between the client, which has no route there yet, and the gateway; `None`, loudly, without a program.
    fn between(tunnel: &mut Tunnel) -> Option<Self> {
        if !is_installed("tayga") {
            skip("needs the program tayga");
            return None;
        }
        let router = tunnel.lab.host("phone").unwrap();
        let (client, gateway) = (tunnel.client().host().clone(), tunnel.gateway.host().clone());
        let ends = |v4: [u8; 3], v6: u16, host: u8| {
            let [a, b, c] = v4;
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, v6, 0, 0, 0, 0, host.into());
            LinkAddresses::new((Ipv4Addr::new(a, b, c, host), 24), (v6, 64))
        };
        let (inner, outer) = ([10, 99, 0], [203, 0, 113]);
        let (link, _) = tunnel.lab.link(&client, ends(inner, 0x64, 2), &router, ends(inner, 0x64, 1)).unwrap();
        assert_eq!(link, PHONE_LINK);
        ip(&client, &format!("-4 address flush dev {PHONE_LINK}"));
        let (uplink, _) = tunnel.lab.link(&router, ends(outer, 0x77, 2), &gateway, ends(outer, 0x77, 1)).unwrap();
        ip(&router, &format!("route add {GATEWAY_V4} via 203.0.113.1"));
        let names = NameServer::start(&router, ROUTER, &format!("{PREFIX}192.0.0.170"))?;
        Some(Self { client, names, _translator: translate(&router, &uplink) })
    }

    /// The client leaves the network at home, all at once, and joins this one.
    fn join(&self) {
        // Where a client finds them while its tunnel's stand in the resolver's own file, which it guards.
        self.client.run(|| {
            fs::create_dir_all("/run/NetworkManager").unwrap();
            fs::write("/run/NetworkManager/no-stub-resolv.conf", format!("nameserver {ROUTER}\n")).unwrap();
        });
        self.client.set_link(HOME_LINK, false).unwrap();
        self.client.add_default_route(IpAddr::V6(ROUTER)).unwrap();
    }

    /// The client comes home again.
    fn leave(&self) {
        ip(&self.client, "-6 route del default");
        self.client.set_link(HOME_LINK, true).unwrap();
        self.client.add_default_route(IpAddr::V4(GATEWAY_V4)).unwrap();
    }
}

/// Has a router translate, and hide who is behind it as phones' networks do.
fn translate(router: &Host, uplink: &str) -> Process {
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        sysctl(router, &format!("net/{family}"), "1");
    }
    let (folder, file) = (router.folder().display().to_string(), router.folder().join("tayga.conf"));
    let settings = format!(
        "tun-device nat64\nipv4-addr 192.168.255.1\nprefix {PREFIX}/96\ndynamic-pool 192.168.255.0/24\ndata-dir {folder}\n"
    );
    fs::write(&file, settings).unwrap();
    let file = file.display().to_string();
    run(router, &["tayga", "--config", &file, "--mktun"]);
    ip(router, "link set nat64 up");
    ip(router, "route add 192.168.255.0/24 dev nat64");
    ip(router, &format!("-6 route add {PREFIX}/96 dev nat64"));
    let hides = format!("type nat hook postrouting priority 100; oifname \"{uplink}\" masquerade;");
    nft(router, &format!("table ip phone {{ chain hides {{ {hides} }}; }};"));
    let mut translator = Command::new("tayga");
    translator.args(["--config", &file, "--nodetach"]);
    router.spawn(translator).unwrap()
}

/// The only session comes from this address.
fn comes_from(tunnel: &Tunnel, address: Ipv4Addr) {
    eventually(&format!("the session comes from {address}"), || {
        let told = tunnel.gateway.sessions().unwrap();
        (told.len() == 1 && told[0].remote.ip() == IpAddr::V4(address)).then_some(())
    });
}

fn goes_to_a_phones_network_and_back(carrier: &[&str]) {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let Some(phone) = PhoneNetwork::between(&mut tunnel) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up_with(carrier, &[]).unwrap();
    let client = tunnel.client();
    INTERNET.into_iter().for_each(|target| reach(client.host(), target));
    let (inner, home) = (client.inner_addresses().unwrap(), tunnel.gateway.sessions().unwrap()[0].remote.ip());
    let IpAddr::V4(home) = home else { panic!("at home there is IPv4: {home}") };
    let dialogue = Dialogue::start(client.host(), &tunnel.internet, INTERNET_V4.into(), 200).unwrap();
    flows(&dialogue, Instant::now());
    assert!(!phone.names.was_asked(NAME), "there is no need to ask at home");

    for turn in 0..2 {
        let left = Instant::now();
        phone.join();
        comes_from(&tunnel, TRANSLATED);
        flows(&dialogue, Instant::now());
        println!("{carrier:?}, into the phone's network {turn}: {:?}", dialogue.longest_silence(left, Instant::now()));
        assert!(phone.names.was_asked(NAME));
        assert_eq!(client.inner_addresses().unwrap(), inner);

        let left = Instant::now();
        phone.leave();
        comes_from(&tunnel, home);
        flows(&dialogue, Instant::now());
        println!("{carrier:?}, home again {turn}: {:?}", dialogue.longest_silence(left, Instant::now()));
        assert_eq!(client.inner_addresses().unwrap(), inner);
    }
    let profiles = fs::read_dir(client.folder().join("clients")).unwrap().map(|entry| entry.unwrap().path());
    let texts: Vec<String> = profiles.filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert!(texts.iter().any(|text| text.contains(&format!("{GATEWAY_V4}:443"))), "the profile is found");
    assert!(texts.iter().all(|text| !text.contains("2001:db8:64")), "what one network shows is remembered for all");
}

#[test]
fn session_goes_to_a_network_of_ipv6_alone_and_back() {
    goes_to_a_phones_network_and_back(&[]);
}

#[test]
fn session_by_tls_goes_to_a_network_of_ipv6_alone_and_back() {
    goes_to_a_phones_network_and_back(&["--carrier", "tls"]);
}
