//! A gateway with several names: the client finds it by any of them, in a full tunnel that is closed, too.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use adit_lab::GATEWAY_V4;
use adit_lab::traffic::{Capture, Captured};
use adit_testing::{PATIENCE, eventually};

use crate::daemons::NameServer;
use crate::harness::{INTERNET, Options, Tunnel, answers, filter, ip, reach};

const FIRST: &str = "gw.example";
const SECOND: &str = "gw2.example";
/// Where the gateway goes.
const NEXT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 19);

/// A client whose gateway has two names, the first of which leads nowhere from a moment on that the client is not told.
#[test]
fn gateway_that_moved_is_found_by_its_second_name_and_no_other_name_leaves() {
    let public = format!(r#"["{FIRST}:443", "{SECOND}:443"]"#);
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 1, settings: &[("public", &public)] }) else { return };
    let gateway = tunnel.gateway.host().clone();
    let Some(names) = NameServer::start(&gateway, GATEWAY_V4, &GATEWAY_V4.to_string()) else { return };
    tunnel.gateway.start().unwrap();
    let host = tunnel.client().host().clone();
    host.run(|| fs::write("/etc/resolv.conf", format!("nameserver {GATEWAY_V4}\n")).unwrap());
    tunnel.join(0);
    let profiles = fs::read_dir(tunnel.client().folder().join("clients")).unwrap().map(|entry| entry.unwrap().path());
    let texts: Vec<String> = profiles.filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert!(texts.iter().any(|text| text.contains(&format!("{SECOND}:443"))), "the profile has both names");
    let ask = |name: &str| {
        let mut command = Command::new("getent");
        command.args(["-s", "dns", "ahostsv4", name]);
        // Without a resolver it takes its time, and says so by its exit code.
        drop(host.output(command, PATIENCE));
    };
    let capture = Capture::start(&host).unwrap();
    let outer = host.link_index("eth0").unwrap();
    // A name in a question: each label behind its length.
    let leaves = |label: &'static [u8]| {
        let names_it = move |seen: &Captured| {
            let question = seen.udp().filter(|(_, port, _)| *port == 53);
            question.is_some_and(|(_, _, payload)| payload.windows(label.len()).any(|part| part == label))
        };
        !capture.packets(move |seen| seen.link == outer && names_it(seen)).is_empty()
    };
    ask("early.example");
    assert!(leaves(b"\x05early\x07example"), "the control: names are asked for in clear");
    tunnel.clients[0].up().unwrap();
    reach(&host, INTERNET[0]);
    let inner = tunnel.client().inner_addresses().unwrap();

    drop(names);
    ip(&gateway, &format!("address add {NEXT}/28 dev eth0"));
    let (first, second) = (GATEWAY_V4.to_string(), NEXT.to_string());
    let names = NameServer::start_for(&gateway, GATEWAY_V4, &[(FIRST, &first), (SECOND, &second)]).unwrap();
    let old_is_dead = format!("ip daddr {GATEWAY_V4} meta l4proto {{ tcp, udp }} th dport 443 drop");
    filter(&gateway, "old", &[("prerouting priority -400", &old_is_dead)]);
    eventually("the connection is lost", || (!answers(&host, INTERNET[0])).then_some(()));
    ask("late.example");
    reach(&host, INTERNET[0]);
    assert!(names.was_asked(FIRST) && names.was_asked(SECOND));
    assert!(leaves(b"\x03gw2\x07example"), "the control: the client asked past the closed host");
    assert!(!leaves(b"\x04late\x07example"), "a name of others left the closed host");
    assert_eq!(tunnel.client().inner_addresses().unwrap(), inner);
}
