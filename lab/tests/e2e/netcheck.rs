//! `adit-client netcheck` on paths that let through some, all or nothing.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use adit_lab::GATEWAY_V4;
use adit_lab::programs::Client;
use adit_testing::PATIENCE;
use serde_json::Value;

use crate::daemons::NameServer;
use crate::harness::{Carrier, Options, Tunnel, filter, ip, unfilter};

/// The client's link to the gateway.
const LINK: &str = "eth0";
const BEFORE_ROUTING: &str = "prerouting priority -400";
const UNREACHABLE: i32 = 5;
/// How long it takes at most, on a machine that has much else to do.
const LONGEST: Duration = Duration::from_secs(20);

/// A running gateway, and a client that has joined.
fn joined() -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    Some(tunnel)
}

/// Checks, and returns the exit code and what was found.
fn check(client: &Client) -> (i32, Value) {
    check_by(client, &[])
}

/// As [`check`], by way of another program.
fn check_by(client: &Client, prefix: &[&str]) -> (i32, Value) {
    let netcheck = client.command(&["netcheck", "--json"]);
    let mut command = Command::new(prefix.first().copied().unwrap_or("env"));
    command.args(prefix.iter().skip(1)).arg(netcheck.get_program()).args(netcheck.get_args());
    let began = Instant::now();
    let output = client.host().output(command, PATIENCE * 2).unwrap();
    assert!(began.elapsed() < LONGEST, "{:?}", began.elapsed());
    let report = serde_json::from_str(&output.stdout);
    (output.code, report.unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr)))
}

/// What came of asking the gateway's IPv4 address by a protocol.
fn outcome<'a>(report: &'a Value, protocol: &str) -> &'a str {
    let addresses = report["addresses"].as_array().unwrap();
    let of_gateway = addresses.iter().find(|address| address["address"] == format!("{GATEWAY_V4}:443"));
    of_gateway.unwrap_or_else(|| panic!("{report}"))[protocol]["outcome"].as_str().unwrap()
}

fn path_mtu(report: &Value) -> Option<u64> {
    report["addresses"][0]["path_mtu"].as_u64()
}

#[test]
fn netcheck_tells_what_a_network_blocks() {
    let Some(tunnel) = joined() else { return };
    let (code, report) = check(tunnel.client());
    assert_eq!((code, outcome(&report, "quic"), outcome(&report, "tls")), (0, "answers", "answers"), "{report}");
    assert_eq!(
        (path_mtu(&report), &report["blocked"], &report["marked"]),
        (Some(1500), &Value::from([""; 0]), &true.into())
    );
    assert!(report["session"].is_null() && report["addresses"][0]["link"] == LINK, "{report}");
    assert!(report["addresses"][0]["quic"]["rtt_ms"].as_f64().is_some_and(|rtt| rtt > 0.0), "{report}");

    let gateway = tunnel.gateway.host().clone();
    for (dropped, quic, tls, blocked) in
        [("udp", "silent", "answers", "UDP port 443"), ("tcp", "answers", "silent", "TCP port 443")]
    {
        filter(&gateway, "blocking", &[(BEFORE_ROUTING, &format!("{dropped} dport 443 drop"))]);
        let (code, report) = check(tunnel.client());
        assert_eq!((code, outcome(&report, "quic"), outcome(&report, "tls")), (0, quic, tls), "{report}");
        assert!(report["blocked"][0]["what"].as_str().unwrap().starts_with(blocked), "{report}");
        let text = tunnel.client().run(&["netcheck"]).unwrap().success().unwrap();
        assert!(text.contains(&format!("blocked    {blocked}")), "{text}");
        unfilter(&gateway, "blocking");
    }
}

#[test]
fn netcheck_measures_how_narrow_a_path_is() {
    let Some(tunnel) = joined() else { return };
    let gateway = tunnel.gateway.host().clone();
    // Nobody is told of what is too large: the datagram's header counts, the packet's does not.
    filter(&gateway, "narrow", &[(BEFORE_ROUTING, "udp dport 443 udp length > 1327 drop")]);
    let (code, report) = check(tunnel.client());
    assert_eq!((code, path_mtu(&report)), (0, Some(1347)), "{report}");
    unfilter(&gateway, "narrow");
    tunnel.client().host().set_mtu(LINK, 1280).unwrap();
    let (code, report) = check(tunnel.client());
    assert_eq!((code, path_mtu(&report)), (0, Some(1280)), "{report}");
}

#[test]
fn netcheck_tells_a_dead_gateway_from_a_host_without_a_network() {
    let Some(mut tunnel) = joined() else { return };
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    let (code, report) = check(tunnel.client());
    assert_eq!(
        (code, outcome(&report, "quic"), outcome(&report, "tls")),
        (UNREACHABLE, "refused", "refused"),
        "{report}"
    );
    assert!(report["blocked"][0]["what"].as_str().unwrap().starts_with("everything"), "{report}");
    let failed = tunnel.client().run(&["netcheck"]).unwrap();
    assert!(failed.stdout.contains("refused") && failed.stderr.contains("next:"), "{}{}", failed.stdout, failed.stderr);
    tunnel.client().host().set_link(LINK, false).unwrap();
    let (code, report) = check(tunnel.client());
    assert_eq!(
        (code, outcome(&report, "quic"), outcome(&report, "tls")),
        (UNREACHABLE, "no_route", "no_route"),
        "{report}"
    );
}

#[test]
fn netcheck_measures_the_outer_path_beside_a_tunnel_and_on_a_closed_host() {
    const WITHOUT_MARK: [&str; 3] = ["setpriv", "--bounding-set", "-net_admin,-net_raw"];
    let Some(mut tunnel) = joined() else { return };
    tunnel.clients[0].up().unwrap();
    tunnel.travels_by(Carrier::Esp);
    let (code, report) = check(tunnel.client());
    assert_eq!((code, outcome(&report, "quic"), path_mtu(&report)), (0, "answers", Some(1500)), "{report}");
    let session = &report["session"];
    assert!(session["state"] == "connected" && session["esp"] == true, "{report}");
    let (_, unmarked) = check_by(tunnel.client(), &WITHOUT_MARK);
    assert!(outcome(&unmarked, "quic") == "not_asked" && unmarked["marked"] == false, "{unmarked}");

    // A client that was killed leaves its host closed.
    tunnel.clients[0].kill();
    assert_eq!(tunnel.client().status().unwrap().state, "blocked");
    let (code, report) = check(tunnel.client());
    assert_eq!((code, outcome(&report, "quic"), outcome(&report, "tls")), (0, "answers", "answers"), "{report}");
    let (code, unmarked) = check_by(tunnel.client(), &WITHOUT_MARK);
    assert_eq!(code, UNREACHABLE, "{unmarked}");
    assert_ne!(outcome(&unmarked, "quic"), "answers", "{unmarked}");
    assert_eq!(tunnel.client().run(&["down"]).unwrap().code, 0);
}

#[test]
fn netcheck_asks_for_every_name_of_a_gateway_and_at_every_address() {
    const FURTHER: &str = "192.0.2.19";
    let here = GATEWAY_V4.to_string();
    let names = [("gw.example", here.as_str()), ("gw2.example", FURTHER)];
    let settings = &[("public", r#"["gw.example:443", "gw2.example:443"]"#)];
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 1, settings }) else { return };
    let gateway = tunnel.gateway.host().clone();
    ip(&gateway, &format!("address add {FURTHER}/28 dev eth0"));
    let Some(_server) = NameServer::start_for(&gateway, GATEWAY_V4, &names) else { return };
    tunnel.gateway.start().unwrap();
    let host = tunnel.client().host();
    host.run(|| fs::write("/etc/resolv.conf", format!("nameserver {GATEWAY_V4}\n")).unwrap());
    tunnel.join(0);
    let (code, report) = check(tunnel.client());
    assert_eq!(code, 0, "{report}");
    for (name, address) in names {
        let is_told = |told: &Value| told["name"] == name && told["addresses"][0] == address;
        assert!(report["names"].as_array().unwrap().iter().any(is_told), "{name} is not asked for: {report}");
        let answers =
            |told: &Value| told["address"] == format!("{address}:443") && told["quic"]["outcome"] == "answers";
        assert!(report["addresses"].as_array().unwrap().iter().any(answers), "{address} is not asked: {report}");
    }
}
