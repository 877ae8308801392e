//! What other programs do to a gateway's host while it runs: it opens nothing, is put back, or is named.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use adit_lab::programs::{Gateway, TUN};
use adit_lab::traffic::{Capture, ping};
use adit_lab::{GATEWAY_V4, Host, Output};
use adit_testing::{PATIENCE, eventually};
use ipnet::IpNet;
use serde_json::Value;

use crate::harness::{INTERNET, Options, Tunnel, answers, ip, nft, reach, sysctl};
use crate::services::{connect, listen};

/// A service of the gateway's host, which clients should not reach.
const SERVICE: u16 = 8080;

/// The guards that the gateway reports, by name, each with its state.
fn guards(gateway: &Gateway) -> Vec<(String, String)> {
    let status = gateway.admin_json(&["status"]).unwrap();
    let text = |guard: &Value, key: &str| guard[key].as_str().unwrap().to_owned();
    status["guards"].as_array().unwrap().iter().map(|guard| (text(guard, "guard"), text(guard, "state"))).collect()
}

/// Waits until a guard is reported in a state.
fn told(gateway: &Gateway, guard: &str, state: &str) {
    eventually(&format!("{guard} is {state}"), || {
        guards(gateway).iter().any(|(name, is)| name == guard && is == state).then_some(())
    });
}

fn opens(host: &Host, address: IpAddr) -> bool {
    connect(host, SocketAddr::new(address, SERVICE), Duration::from_millis(300)).is_ok()
}

/// A thread that does something again and again until it is dropped, and counts how often it succeeded.
struct Restless {
    stop: Arc<AtomicBool>,
    successes: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Restless {
    fn start(mut work: impl FnMut() -> bool + Send + 'static) -> Self {
        let (stop, successes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (stop, successes) = (Arc::clone(&stop), Arc::clone(&successes));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    successes.fetch_add(usize::from(work()), Ordering::Relaxed);
                }
            }
        });
        Self { stop, successes, thread: Some(thread) }
    }

    fn successes(&self) -> usize {
        self.successes.load(Ordering::Relaxed)
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

/// The inner IPv4 addresses of gateway and client.
fn inner(tunnel: &Tunnel) -> [IpAddr; 2] {
    let v4 = |addresses: Vec<IpAddr>| addresses.into_iter().find(IpAddr::is_ipv4).unwrap();
    [v4(tunnel.gateway.inner_addresses().unwrap()), v4(tunnel.client().inner_addresses().unwrap())]
}

#[test]
fn flushing_the_ruleset_under_traffic_opens_nothing() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    let host = tunnel.gateway.host();
    let [gateway, client] = inner(&tunnel);
    let capture = Capture::start(&tunnel.internet).unwrap();
    let _service = listen(host, SERVICE);
    assert!(opens(&tunnel.internet, GATEWAY_V4.into()) || opens(host, gateway), "the service is there");
    let from = tunnel.client().host().clone();
    // Not so often that it would be too many connections of one client.
    let traffic = Restless::start(move || {
        thread::sleep(Duration::from_millis(100));
        ping(&from, INTERNET[0], Duration::from_millis(200)).unwrap().rtt().is_some()
    });
    let from = tunnel.client().host().clone();
    let intruder = Restless::start(move || opens(&from, gateway));
    for _ in 0..20 {
        nft(host, "flush ruleset");
        thread::sleep(Duration::from_millis(50));
    }
    let before = traffic.successes();
    eventually("traffic goes on", || (traffic.successes() > before).then_some(()));
    assert_eq!(intruder.successes(), 0, "the service is out of the client's reach");
    drop((traffic, intruder));
    assert_eq!(capture.packets(|packet| packet.source == client), [], "no inner address left");
    let masqueraded = capture.packets(|packet| packet.destination == INTERNET[0]);
    assert!(!masqueraded.is_empty(), "the capture sees what does leave");
    tunnel.gateway.admin(&["check", "--live"]).unwrap().success().unwrap();
}

#[test]
fn inner_addresses_are_seen_where_they_leave() {
    // The control of the test above: its capture would see them.
    let Some(tunnel) = Tunnel::start(Options { settings: &[("masquerade", "false")], ..Options::default() }) else {
        return;
    };
    let [_, client] = inner(&tunnel);
    let capture = Capture::start(&tunnel.internet).unwrap();
    eventually("an inner address leaves", || {
        ping(tunnel.client().host(), INTERNET[0], Duration::from_millis(200)).unwrap();
        (!capture.packets(|packet| packet.source == client).is_empty()).then_some(())
    });
}

#[test]
fn second_gateway_and_its_cleanup_leave_the_first_alone() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    let host = tunnel.gateway.host();
    let binaries = adit_lab::binaries().unwrap();
    let mut second = Gateway::in_folder(host, &binaries, "second");
    second.set("tun.name", "vpn1");
    second.set("listen", &format!(r#"["{GATEWAY_V4}:8443"]"#));
    second.init().unwrap().success().unwrap();
    second.start().unwrap();
    for table in ["adit", "adit_vpn1"] {
        nft(host, &format!("list table inet {table}"));
    }
    second.kill();
    second.admin(&["cleanup"]).unwrap().success().unwrap();
    nft(host, "list table inet adit");
    let mut gone = Command::new("nft");
    gone.args(["list", "table", "inet", "adit_vpn1"]);
    assert_ne!(host.output(gone, PATIENCE).unwrap().code, 0, "its own table is removed");
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(guards(&tunnel.gateway).iter().filter(|(_, state)| state == "broken").count(), 0);

    // One that wants the same device is refused, and takes nothing with it.
    second.set("tun.name", TUN);
    let Output { code, stderr, .. } = second.admin(&["run"]).unwrap();
    assert_ne!(code, 0);
    assert!(stderr.contains(TUN), "{stderr}");
    second.admin(&["cleanup"]).unwrap().success().unwrap();
    nft(host, "list table inet adit");
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn forwarding_that_is_switched_off_is_back() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    let (gateway, host) = (&tunnel.gateway, tunnel.gateway.host());
    sysctl(host, "net/ipv4/ip_forward", "0");
    told(gateway, "sysctl net/ipv4/ip_forward", "mended");
    sysctl(host, "net/ipv6/conf/all/forwarding", "0");
    told(gateway, "sysctl net/ipv6/conf/all/forwarding", "mended");
    for target in INTERNET {
        reach(tunnel.client().host(), target);
    }
    for link in [TUN, "eth0", "eth1"] {
        let key = format!("/proc/sys/net/ipv4/conf/{link}/forwarding");
        host.run(move || fs::write(key, "0").unwrap());
    }
    told(gateway, "forwarding from eth1", "mended");
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn link_that_the_host_keeps_from_forwarding_is_named_and_left_alone() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    sysctl(tunnel.gateway.host(), "net/ipv4/ip_forward", "1");
    tunnel.gateway.start().unwrap();
    tunnel.gateway.admin(&["check", "--live"]).unwrap().success().unwrap();
    sysctl(tunnel.gateway.host(), "net/ipv4/conf/eth1/forwarding", "0");
    told(&tunnel.gateway, "forwarding from eth1", "broken");
    let Output { code, stdout, stderr } = tunnel.gateway.admin(&["check", "--live"]).unwrap();
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stderr.contains("forwarding from eth1"), "{stderr}");
    sysctl(tunnel.gateway.host(), "net/ipv4/conf/eth1/forwarding", "1");
    eventually("all is well again", || (tunnel.gateway.admin(&["check", "--live"]).unwrap().code == 0).then_some(()));
}

#[test]
fn device_is_put_back_as_it_was() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    let (gateway, host) = (&tunnel.gateway, tunnel.gateway.host());
    let addresses = |host: &Host| {
        let mut addresses: Vec<IpNet> = host.addresses(TUN).unwrap();
        addresses.sort();
        addresses
    };
    let before = addresses(host);
    for (done, guard) in [
        ("link set adit0 down", "link adit0".to_owned()),
        ("address flush dev adit0 scope global", "addresses of adit0".to_owned()),
        ("route flush dev adit0", "IPv4 prefix route of adit0".to_owned()),
        ("link set adit0 mtu 1280", "link adit0".to_owned()),
        ("link set adit0 name stolen0", "link adit0".to_owned()),
    ] {
        ip(host, done);
        told(gateway, &guard, "mended");
        eventually(&format!("addresses are back after ip {done}"), || (addresses(host) == before).then_some(()));
        for target in INTERNET {
            reach(tunnel.client().host(), target);
        }
    }
}

#[test]
fn gateway_whose_device_is_deleted_ends_and_says_so() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    ip(tunnel.gateway.host(), &format!("link del {TUN}"));
    let process = tunnel.gateway.process().unwrap();
    assert_eq!(process.wait(PATIENCE).unwrap(), 1, "{}", process.tail());
    assert!(process.stderr().contains("TUN device"), "{}", process.tail());
    assert!(!answers(tunnel.client().host(), INTERNET[0]));
}

#[test]
fn foreign_policy_that_comes_later_is_named_until_it_lets_clients_pass() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    let (gateway, host) = (&tunnel.gateway, tunnel.gateway.host());
    let guard = "forwarding past chain ip filter FORWARD";
    let policy =
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    nft(host, policy);
    told(gateway, guard, "broken");
    assert!(!answers(tunnel.client().host(), INTERNET[0]));
    let Output { code, stderr, .. } = gateway.admin(&["check", "--live"]).unwrap();
    assert!(code == 1 && stderr.contains("ip filter FORWARD"), "{stderr}");
    nft(host, "add rule ip filter FORWARD iifname adit0 accept; add rule ip filter FORWARD oifname adit0 accept");
    reach(tunnel.client().host(), INTERNET[0]);
    eventually("nothing is broken", || guards(gateway).iter().all(|(_, state)| state != "broken").then_some(()));
}
