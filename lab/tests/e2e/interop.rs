//! An independent HTTP/3 stack, aioquic, as CONNECT-IP client of our gateway and as server of our client.
//!
//! Its programs are in `interop/` and were written from the RFCs alone. Python is `ADIT_PYTHON`, else `python3`; where
//! it has no aioquic these tests skip themselves with a loud word, but fail where `CI` is set.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use adit_lab::programs::{Client, TUN};
use adit_lab::traffic::Capture;
use adit_lab::{GATEWAY_V4, Host, Lab, Process, binaries};
use adit_testing::skip;
use adit_testing::{PATIENCE, eventually};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::harness::{INTERNET, Options, Tunnel, reach, standard_lab};

/// How to get what these tests need.
const INSTALL_HINT: &str = "python3 -m venv VENV && VENV/bin/pip install -r lab/interop/requirements.txt, \
                            then set ADIT_PYTHON=VENV/bin/python";

/// Time for the whole course of the Python client.
const COURSE: Duration = Duration::from_secs(120);
/// Seconds for which the Python client keeps its tunnel for us to look at, unless told to go on.
const HOLD: &str = "60";
/// Data of the Python client's packets with foreign sources.
const SPOOFED: &[u8] = b"adit-interop-spoofed";

const PORT: &str = "443";
const TOKEN: &str = "a-token-of-the-python-server";

/// The addresses the Python server gives its client, and those of the hosts inside its tunnel.
const ASSIGNED: [&str; 2] = ["10.99.0.2/32", "fd99::2/128"];
const INNER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1))];
const ROUTES: [&str; 2] = ["10.99.0.0/24", "fd99::/64"];
const LATER_ROUTES: [&str; 2] = ["10.98.0.0/16", "fd98::/48"];

/// Breaches of HTTP/3 the Python server commits, a tunnel each.
const BREACHES: [&str; 4] =
    ["second_control_stream", "control_stream_ended", "http2_frame", "datagram_of_impossible_stream"];

#[test]
fn foreign_client_is_served_by_our_gateway() {
    let Some(python) = python() else { return };
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let gateway = &mut tunnel.gateway;
    gateway.start().unwrap();
    let token = gateway.admin_json(&["token", "stranger"]).unwrap();
    let token_file = write_secret(tunnel.lab.folder(), "token", token["token"].as_str().unwrap());
    let own = gateway.inner_addresses().unwrap();
    let targets = [own.as_slice(), &INTERNET].concat();

    let captures = [gateway.host(), &tunnel.internet].map(|host| Capture::start(host).unwrap());
    let mut command = interop(&python, "connect_ip_client.py");
    command.args([&GATEWAY_V4.to_string(), PORT]).arg(authority_file(gateway.folder()));
    command.arg("--token-file").arg(token_file).args(["--hold", HOLD]);
    command.args(targets.iter().map(|target| format!("--ping={target}")));
    command.args(INTERNET.map(|target| format!("--beyond={target}")));
    let process = tunnel.clients[0].host().spawn(command).unwrap();
    process.wait_for_line("tunnel is up", COURSE).unwrap();
    let sessions = gateway.admin_json(&["sessions"]).unwrap();
    process.signal(Signal::SIGUSR1).unwrap();
    let report: Value = serde_json::from_str(&process.output(COURSE).unwrap().success().unwrap()).unwrap();

    assert_course(&report, &own, &targets);
    assert_session(&sessions, &report, &token, targets.len());
    assert!(
        captures[1].wait_for(PATIENCE, |packet| packet.destination == INTERNET[0]).is_some(),
        "nothing was captured"
    );
    for capture in captures {
        assert_eq!(
            capture.packets(|packet| packet.contains(SPOOFED)),
            [],
            "a packet with a foreign source got through"
        );
    }
    assert_eq!(gateway.stop().unwrap(), 0);
}

/// Judges what the Python client saw.
fn assert_course(report: &Value, own: &[IpAddr], targets: &[IpAddr]) {
    assert_eq!(report["settings"], json!({"connect_protocol": 1, "datagrams": 1}), "{report:#}");
    assert_eq!(report["refusals"]["no_token"], 401, "{report:#}");
    assert_eq!(report["refusals"]["wrong_token"], 401, "{report:#}");
    for malformed in ["host_bits", "protocol", "no_protocol"] {
        let outcome = &report["refusals"][malformed];
        let refused = outcome.as_u64().is_some_and(|status| (400..500).contains(&status));
        assert!(refused || outcome == "reset 0x10e", "{malformed}: {outcome}");
    }
    assert_eq!(report["status"], 200, "{report:#}");
    assert_eq!(report["headers"]["capsule-protocol"], "?1", "{report:#}");
    assert_eq!(report["private_headers"], json!([]), "a client that named no extension saw private headers");
    assert_eq!(report["unknown_capsules"], json!([]), "a client that named no extension saw private capsules");
    let everything = json!([["0.0.0.0", "255.255.255.255", 0], ["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0]]);
    assert_eq!(report["routes"], everything);
    assert_addresses(report, own);
    for target in targets {
        let seen = &report["packets"][target.to_string()];
        let expected = json!({"echo": true, "full_size": true, "in_capsule": true, "spoofed": false});
        assert_eq!(*seen, expected, "{target}: {report:#}");
        assert_eq!(report["after_hold"][target.to_string()], true, "{target}: {report:#}");
    }
    assert!(report["time_exceeded"].as_object().unwrap().values().all(|seen| seen == true), "{report:#}");
    assert_eq!(report["malformed_capsule"], "reset 0x10e", "{report:#}");
    assert_eq!(report["closed"], Value::Null, "the gateway closed the connection: {report:#}");
    for (violation, codes) in report["violations"].as_object().unwrap() {
        assert_eq!(codes[0], codes[1], "wrong code for {violation}: {:#}", report["violations"]);
    }
}

/// The assignment is one address a family in the gateway's networks, first unasked, then under the ids of the requests.
fn assert_addresses(report: &Value, own: &[IpAddr]) {
    let unasked = entries(&report["addresses"]);
    assert_eq!(unasked.len(), 2, "{report:#}");
    assert!(unasked.iter().all(|(id, prefix)| *id == 0 && prefix.prefix_len() == prefix.max_prefix_len()));
    assert!(unasked.iter().all(|(_, prefix)| !own.contains(&prefix.addr())));
    let requested = entries(&report["requested"]["entries"]);
    for (id, v4) in [(1, true), (2, false)] {
        let answer = requested.iter().find(|(request, _)| *request == id);
        let answer = answer.unwrap_or_else(|| panic!("request {id} was not answered: {report:#}"));
        assert_eq!(answer.1.addr().is_ipv4(), v4);
        assert!(unasked.iter().any(|(_, prefix)| *prefix == answer.1), "another address was assigned: {report:#}");
    }
    let foreign = entries(&report["requested_foreign"]["entries"]);
    assert!(foreign.iter().any(|(id, _)| *id == 3), "request 3 was not answered: {report:#}");
    assert!(foreign.iter().all(|(_, prefix)| prefix.addr() != IpAddr::from([198, 51, 100, 77])), "{report:#}");
}

/// Entries of an ADDRESS_ASSIGN: request id and prefix.
fn entries(list: &Value) -> Vec<(u64, IpNet)> {
    let entry = |entry: &Value| (entry[0].as_u64().unwrap(), entry[1].as_str().unwrap().parse().unwrap());
    list.as_array().unwrap().iter().map(entry).collect()
}

/// The gateway lists the session and has counted every deviation of its client.
fn assert_session(sessions: &Value, report: &Value, token: &Value, targets: usize) {
    let session = &sessions["sessions"][0];
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions:#}");
    assert_eq!((&session["user"], &session["device"]), (&token["user"], &token["device"]));
    assert_eq!(session["carrier"], "quic");
    let addresses: Vec<IpAddr> = serde_json::from_value(session["addresses"].clone()).unwrap();
    let assigned = entries(&report["addresses"]);
    assert!(assigned.iter().all(|(_, prefix)| addresses.contains(&prefix.addr())), "{sessions:#}");
    assert_eq!(session["drops"]["source_not_leased"], targets, "{sessions:#}");
    assert_eq!(session["drops"]["unknown_context"], targets, "{sessions:#}");
    assert_eq!(session["drops"]["unknown_stream"], targets, "{sessions:#}");
}

#[test]
fn our_client_takes_addresses_a_foreign_server_gives_unasked() {
    let Some((python, mut lab)) = python().zip(standard_lab()) else { return };
    let server = PythonServer::start(&mut lab, &python, &[]);
    let client = server.connect(&mut lab);
    server.assert_tunnel(client);
    assert!(server.events("address_request").is_empty(), "the client asked for what it had");
}

#[test]
fn our_client_asks_a_foreign_server_that_waits_for_it() {
    let Some((python, mut lab)) = python().zip(standard_lab()) else { return };
    let server = PythonServer::start(&mut lab, &python, &["--assign=asked".to_owned()]);
    let client = server.connect(&mut lab);
    server.assert_tunnel(client);
    let requests = server.events("address_request");
    assert_eq!(requests.len(), 1, "{requests:#?}");
    let wanted = entries(&requests[0]["entries"]);
    assert!(wanted.iter().all(|(id, prefix)| *id != 0 && prefix.addr().is_unspecified()), "{wanted:?}");
    assert_eq!(wanted.iter().filter(|(_, prefix)| prefix.addr().is_ipv4()).count(), 1, "{wanted:?}");
    assert_eq!(wanted.len(), 2, "{wanted:?}");
}

#[test]
fn our_client_reports_the_refusal_of_a_foreign_server() {
    let Some((python, mut lab)) = python().zip(standard_lab()) else { return };
    let server = PythonServer::start(&mut lab, &python, &[]);
    let client = server.client(&mut lab, "another-token");
    let output = client.run(&["up"]).unwrap();
    assert_eq!(output.code, 3, "{}{}", output.stdout, output.stderr);
    assert_eq!(server.events("refused"), [json!({"event": "refused", "status": 401})]);
}

#[test]
fn our_client_closes_over_each_breach_of_a_foreign_server_and_comes_back() {
    let Some((python, mut lab)) = python().zip(standard_lab()) else { return };
    let breaches = BREACHES.map(|breach| format!("--breach={breach}"));
    let server = PythonServer::start(&mut lab, &python, &breaches);
    let client = server.connect(&mut lab);
    let committed = eventually("every breach is answered", || {
        let committed = server.events("breach");
        (committed.len() == BREACHES.len()).then_some(committed)
    });
    // A connection may end later than the one after it.
    for name in BREACHES {
        let breach = committed.iter().find(|breach| breach["name"] == name).expect("each is committed once");
        assert_eq!(breach["code"], breach["expected"], "{name}");
    }
    reach(client.host(), INNER[0]);
}

/// The Python server in the lab host `gateway`.
struct PythonServer {
    process: Process,
    authority_pem: String,
}

impl PythonServer {
    fn start(lab: &mut Lab, python: &OsString, more: &[String]) -> Self {
        let host = lab.host("gateway").unwrap();
        let certificate = Certificate::issue(host.folder(), &GATEWAY_V4.to_string());
        let token = write_secret(host.folder(), "token", TOKEN);
        let mut command = interop(python, "connect_ip_server.py");
        command.args([&GATEWAY_V4.to_string(), PORT]).args([certificate.chain, certificate.key]);
        command.arg("--token-file").arg(token).args(more);
        command.args(ASSIGNED.map(|prefix| format!("--prefix={prefix}")));
        command.args(INNER.map(|address| format!("--inner={address}")));
        command.args(ROUTES.map(|route| format!("--route={route}")));
        command.args(LATER_ROUTES.map(|route| format!("--later-route={route}")));
        let process = host.spawn(command).unwrap();
        process.wait_for_line("listening", PATIENCE).unwrap();
        Self { process, authority_pem: certificate.authority_pem }
    }

    /// Our client with a profile for this server, written by hand.
    fn client(&self, lab: &mut Lab, token: &str) -> Client {
        let client = Client::new(&lab.host("client").unwrap(), &binaries().unwrap());
        let profiles = client.folder().join("clients");
        fs::create_dir_all(&profiles).unwrap();
        let host = GATEWAY_V4.to_string();
        let keys = [("host", host.as_str()), ("authority", &self.authority_pem), ("token", token)];
        let profile: toml::Table = keys.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect();
        write_secret(&profiles, "stranger.toml", &profile.to_string());
        client
    }

    /// Our client, connected.
    fn connect(&self, lab: &mut Lab) -> Client {
        let mut client = self.client(lab, TOKEN);
        client.up().unwrap_or_else(|error| panic!("{error:#}\n{}", self.process.tail()));
        client
    }

    /// What the server said of one kind.
    fn events(&self, kind: &str) -> Vec<Value> {
        let said = self.process.stdout();
        let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["event"] == kind).collect()
    }

    /// Goes through the life of a tunnel of our client, from its request to its end.
    fn assert_tunnel(&self, mut client: Client) {
        let requests = self.events("request");
        assert_eq!(requests.len(), 1, "{requests:#?}");
        assert_eq!(requests[0]["problems"], json!([]));
        assert_eq!(requests[0]["headers"][":authority"], format!("{GATEWAY_V4}:{PORT}"));
        assert_eq!(self.events("settings")[0]["datagrams"], 1);

        let expected = ASSIGNED.map(|prefix| prefix.parse::<IpNet>().unwrap().addr());
        let mut addresses = client.inner_addresses().unwrap();
        addresses.sort();
        assert_eq!(addresses, expected);
        eventually("routes lead into the tunnel", || has_routes(client.host(), &ROUTES).then_some(()));
        INNER.iter().for_each(|target| reach(client.host(), *target));
        assert!(self.events("echo").iter().all(|echo| echo["assigned"] == true));

        self.process.signal(Signal::SIGUSR1).unwrap();
        eventually("new routes are followed", || has_routes(client.host(), &LATER_ROUTES).then_some(()));
        assert!(has_routes(client.host(), &ROUTES));

        assert_eq!(client.stop().unwrap(), 0);
        eventually("the connection is closed", || self.events("closed").pop());
        assert!(!has_routes(client.host(), &ROUTES));
        let unknown = self.events("unknown_capsule");
        assert_eq!(unknown, [] as [Value; 0], "the server named no extension and saw private capsules");
    }
}

/// A server's certificate and the authority that signed it.
struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    authority_pem: String,
}

impl Certificate {
    fn issue(folder: &Path, name: &str) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Self {
            chain: write_secret(folder, "server.pem", &certificate.pem()),
            key: write_secret(folder, "server.key", &key.serialize_pem()),
            authority_pem,
        }
    }
}

/// A Python with aioquic, or a loud word about how to get one.
fn python() -> Option<OsString> {
    let python = env::var_os("ADIT_PYTHON").unwrap_or_else(|| "python3".into());
    let probe = Command::new(&python).args(["-c", "import aioquic"]).stderr(Stdio::null()).status();
    if probe.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let reason = format!("{} has no aioquic\n  next: {INSTALL_HINT}", python.display());
    skip(reason);
    None
}

/// One of the programs in `interop/`.
fn interop(python: &OsString, program: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(program));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The certificate of a gateway's authority, below its folder.
fn authority_file(folder: &Path) -> PathBuf {
    folder.join("state").join("authority.pem")
}

fn write_secret(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Whether the routes to all prefixes lead into the tunnel.
fn has_routes(host: &Host, prefixes: &[&str]) -> bool {
    let routes = host.routes().unwrap();
    prefixes
        .iter()
        .map(|prefix| prefix.parse::<IpNet>().unwrap())
        .all(|prefix| routes.iter().any(|route| route.destination == prefix && route.link.as_deref() == Some(TUN)))
}
