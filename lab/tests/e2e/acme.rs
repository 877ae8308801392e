//! A gateway that gets its certificate itself: from pebble, the authority that ACME clients are tested with. It looks
//! at names as the real ones do, and forgets everything when it ends.
//!
//! Where it is not installed these tests skip themselves with a loud word, but fail where `CI` is set.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use adit_lab::{Host, INTERNET_V4, OUTSIDE_V4, Output, Process};
use adit_program::durable_file;
use adit_testing::{PATIENCE, eventually, skip};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::harness::{INTERNET, Options, Tunnel, reach};
use crate::logins::PASSWORD;
use crate::people::add_user;

const NAME: &str = "vpn.example.org";
/// What the authority knows names by: pebble's own resolver for tests.
const DNS: &str = "127.0.0.1:8053";
const DNS_CONTROL: &str = "http://127.0.0.1:8055";
/// The protocol in which an authority asks.
const QUESTION: &str = "acme-tls/1";

/// A gateway, and a network with an authority. Strangers are there, too: a client in full tunnel is none.
struct World {
    // Processes before the lab they run in.
    pebble: Option<Process>,
    _resolver: Process,
    tunnel: Tunnel,
    /// The gateway's file as it was made.
    made: String,
}

impl World {
    /// Nothing runs yet but the resolver, which leads to the gateway.
    fn new() -> Option<Self> {
        for program in ["pebble", "pebble-challtestsrv", "curl", "openssl", "openconnect"] {
            if Command::new(program).arg("-h").output().is_err() {
                skip(format!("needs {program}, of the packages pebble, curl, openssl and openconnect"));
                return None;
            }
        }
        let tunnel = Tunnel::prepare(Options::default())?;
        write_own_certificate(&tunnel.internet);
        let mut resolver = Command::new("pebble-challtestsrv");
        resolver.args(["-defaultIPv4", &OUTSIDE_V4.to_string(), "-defaultIPv6", "", "-dns01", DNS]);
        resolver.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:8055"]);
        let resolver = tunnel.internet.spawn(resolver).unwrap();
        let made = fs::read_to_string(tunnel.gateway.folder().join("server.toml")).unwrap();
        Some(Self { pebble: None, _resolver: resolver, tunnel, made })
    }

    /// Starts the authority, whose certificates live for so long, with these wishes in its environment.
    fn start_authority(&mut self, life: Duration, wishes: &[(&str, &str)]) {
        self.pebble = None;
        let host = self.tunnel.internet.clone();
        let at = |name: &str| host.folder().join(name);
        let configuration = json!({ "pebble": {
            "listenAddress": format!("{INTERNET_V4}:14000"), "managementListenAddress": format!("{INTERNET_V4}:15000"),
            "certificate": at("server.pem"), "privateKey": at("server.key"), "httpPort": 80, "tlsPort": 443,
            "certificateValidityPeriod": life.as_secs(),
        }});
        fs::write(at("pebble.json"), configuration.to_string()).unwrap();
        let mut pebble = Command::new("pebble");
        pebble.args(["-dnsserver", DNS, "-config"]).arg(at("pebble.json"));
        // A name is looked at each time, and at once.
        pebble.env("PEBBLE_AUTHZREUSE", "0").env("PEBBLE_VA_NOSLEEP", "1").envs(wishes.iter().copied());
        self.pebble = Some(host.spawn(pebble).unwrap());
        let root = eventually("the authority is ready", || {
            let root = curl(&host, &["--insecure", &format!("https://{INTERNET_V4}:15000/roots/0")]);
            root.success().ok().filter(|root| root.contains("BEGIN CERTIFICATE"))
        });
        fs::write(self.root(), root).unwrap();
    }

    /// The certificate that whoever trusts the authority has.
    fn root(&self) -> PathBuf {
        self.tunnel.internet.folder().join("root.pem")
    }

    /// Has the gateway get a certificate, by its file; these lines are in the table as well.
    fn configure(&self, lines: &str) {
        let authority = self.tunnel.internet.folder().join("authority.pem");
        let table = format!(
            "\n[acme]\nnames = [{NAME:?}]\naccept_terms = true\nauthority = {authority:?}\n\
             directory = \"https://{INTERNET_V4}:14000/dir\"\n{lines}\n"
        );
        assert!(self.made.contains("\n[acme]\n"), "{}", self.made);
        let text = self.made.replace("\n[acme]\n", &table);
        fs::write(self.tunnel.gateway.folder().join("server.toml"), text).unwrap();
    }

    fn reload(&self) {
        self.tunnel.gateway.admin(&["reload"]).unwrap().success().unwrap();
    }

    /// Whether somebody who trusts the authority, and knows the gateway's name alone, gets its page.
    fn is_trusted(&self) -> bool {
        let (root, resolve) = (self.root().display().to_string(), format!("{NAME}:443:{OUTSIDE_V4}"));
        let page =
            curl(&self.tunnel.internet, &["--cacert", &root, "--resolve", &resolve, &format!("https://{NAME}/")]);
        page.code == 0 && page.stdout.contains("adit-client join")
    }

    fn becomes_trusted(&self) {
        eventually("the gateway has a certificate", || self.is_trusted().then_some(()));
    }

    /// What openssl is told of the gateway's certificate, if it offers these protocols.
    fn handshake(&self, protocols: &str) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("{OUTSIDE_V4}:443"), "-servername", NAME, "-alpn", protocols]);
        let output = self.tunnel.internet.output(command, PATIENCE).unwrap();
        format!("{}{}", output.stdout, output.stderr)
    }

    /// The certificate that strangers are shown.
    fn shown(&self) -> String {
        let told = self.handshake("http/1.1");
        let begin = told.find("-----BEGIN CERTIFICATE").unwrap_or_else(|| panic!("{told}"));
        told[begin..].split_inclusive("END CERTIFICATE-----").next().unwrap().to_owned()
    }

    fn status(&self) -> Value {
        self.tunnel.gateway.admin_json(&["status"]).unwrap()
    }

    /// Waits until administrators are warned with these words.
    fn warns(&self, words: &[&str]) {
        eventually(&format!("the gateway warns of {words:?}"), || {
            let warnings = self.status()["warnings"].to_string();
            words.iter().all(|word| warnings.contains(word)).then_some(())
        });
    }

    /// How many certificates the authority has issued since it runs.
    fn issued(&self) -> usize {
        let pebble = self.pebble.as_ref().unwrap();
        format!("{}{}", pebble.stdout(), pebble.stderr()).matches("Issued certificate serial").count()
    }
}

/// What the authority shows of itself to its customers, and by what they check that.
fn write_own_certificate(host: &Host) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = params.self_signed(&key).unwrap().pem();
    let (issuer, own) = (Issuer::new(params, key), KeyPair::generate().unwrap());
    let certificate = CertificateParams::new(vec![INTERNET_V4.to_string()]).unwrap().signed_by(&own, &issuer).unwrap();
    for (name, text) in
        [("authority.pem", authority), ("server.pem", certificate.pem()), ("server.key", own.serialize_pem())]
    {
        durable_file::create(&host.folder().join(name), text.as_bytes(), 0o644).unwrap();
    }
}

fn curl(host: &Host, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "10"]).args(arguments);
    host.output(command, PATIENCE).unwrap()
}

/// What openconnect says after a login as alice, by name, of somebody who trusts the authority.
fn log_in(world: &World) -> Output {
    let host = &world.tunnel.internet;
    let mut command = Command::new("openconnect");
    command.args(["--no-system-trust", "--non-inter", "--authenticate", "--user", "alice", "--passwd-on-stdin"]);
    command.arg("--cafile").arg(world.root()).arg(format!("--resolve={NAME}:{OUTSIDE_V4}"));
    command.arg(format!("https://{NAME}/"));
    host.output(host.with_input(&command, &format!("{PASSWORD}\n")).unwrap(), PATIENCE).unwrap()
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn certificate_is_got_shown_to_strangers_and_kept_over_a_restart() {
    let Some(mut world) = World::new() else { return };
    world.start_authority(90 * DAY, &[]);
    world.configure("contact = \"admin@example.org\"");
    add_user(&world.tunnel.gateway, "alice", PASSWORD);
    let checked = world.tunnel.gateway.admin(&["check"]).unwrap().success().unwrap();
    assert!(checked.contains(&format!("warning: {NAME} has no certificate yet")), "{checked}");
    world.tunnel.gateway.start().unwrap();
    world.becomes_trusted();
    let told = log_in(&world).success().unwrap();
    assert!(told.contains("COOKIE="), "{told}");
    // Who was invited knows the gateway by its own authority, as ever.
    world.tunnel.join(0);
    world.tunnel.clients[0].up().unwrap();

    let folder = world.tunnel.gateway.folder().join("state/acme");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.clone()), 0o700);
    for name in ["account.json", "vpn.example.org.pem"] {
        assert_eq!(mode(folder.join(name)), 0o600, "{name}");
    }
    let status = world.status();
    assert_eq!(status["certificates"][0]["name"], NAME, "{status}");
    assert!(status["certificates"][0]["renews"].is_string() && status["warnings"] == json!([]), "{status}");

    // Whoever asks as the authority does gets nothing while it asks nothing.
    let asked = world.handshake(QUESTION);
    assert!(asked.contains("no peer certificate available") && !asked.contains("BEGIN CERTIFICATE"), "{asked}");
    assert!(world.handshake("http/1.1").contains("BEGIN CERTIFICATE"), "the positive control");

    let first = world.shown();
    world.tunnel.gateway.kill();
    world.tunnel.gateway.start().unwrap();
    assert!(world.is_trusted(), "it is there from the first moment");
    assert_eq!(world.shown(), first);
    reach(world.tunnel.client().host(), INTERNET[0]);
    assert_eq!(world.issued(), 1, "nothing was ordered again");

    fs::remove_file(folder.join("vpn.example.org.pem")).unwrap();
    eventually("one that is removed is got anew", || (world.issued() == 2 && world.is_trusted()).then_some(()));
}

#[test]
fn certificate_is_renewed_in_time_and_the_gateway_serves_on() {
    let Some(mut world) = World::new() else { return };
    // Two thirds of it are 30 s.
    world.start_authority(Duration::from_secs(45), &[]);
    world.configure("");
    world.tunnel.gateway.start().unwrap();
    world.becomes_trusted();
    let first = world.shown();
    world.tunnel.join(0);
    world.tunnel.clients[0].up().unwrap();
    reach(world.tunnel.client().host(), INTERNET[0]);
    let session = world.tunnel.gateway.sessions().unwrap()[0].session;
    thread::sleep(Duration::from_secs(20));
    eventually("the certificate is renewed", || (world.shown() != first).then_some(()));
    assert!(world.is_trusted());
    reach(world.tunnel.client().host(), INTERNET[0]);
    let sessions = world.tunnel.gateway.sessions().unwrap();
    assert!(sessions.len() == 1 && sessions[0].session == session, "{sessions:?}");
    assert_eq!(world.status()["warnings"], json!([]));
}

#[test]
fn authority_that_is_away_confused_or_refuses_is_told_of_and_stops_nobody() {
    let Some(mut world) = World::new() else { return };
    world.configure("");
    world.tunnel.gateway.start().unwrap();
    world.warns(&[NAME, "none yet", "cannot be reached"]);
    let pause = world.tunnel.gateway.folder().join(format!("state/acme/{NAME}.pause.json"));
    assert_eq!(fs::metadata(pause).unwrap().permissions().mode() & 0o777, 0o600);
    // A gateway that starts again knows of it, and does not ask again at once.
    world.tunnel.gateway.kill();
    world.tunnel.gateway.start().unwrap();
    world.warns(&[NAME, "none yet", "cannot be reached"]);
    let told = world.tunnel.gateway.process().unwrap().stderr();
    assert!(!told.contains("no certificate could be had"), "{told}");
    let checked = world.tunnel.gateway.admin(&["check"]).unwrap().success().unwrap();
    assert!(checked.contains(&format!("warning: the certificate of {NAME}")), "{checked}");
    // Meanwhile strangers see what they would see without ACME, and who was invited notices nothing.
    world.tunnel.join(0);
    world.tunnel.clients[0].up().unwrap();
    let page = curl(&world.tunnel.internet, &["--insecure", &format!("https://{OUTSIDE_V4}/")]);
    assert!(page.success().unwrap().contains("adit-client join"));

    // Each reload with something new tries at once.
    world.start_authority(90 * DAY, &[("PEBBLE_WFE_NONCEREJECT", "100")]);
    world.configure("contact = \"nonces@example.org\"");
    world.reload();
    world.warns(&["the authority refuses", "badNonce"]);

    world.start_authority(90 * DAY, &[]);
    let lead_to = |address: &str| {
        let wish = json!({ "ip": address }).to_string();
        let url = format!("{DNS_CONTROL}/set-default-ipv4");
        curl(&world.tunnel.internet, &["--data", &wish, &url]).success().unwrap();
    };
    lead_to("127.0.0.1");
    world.configure("contact = \"names@example.org\"");
    world.reload();
    world.warns(&["the authority refuses", "TCP port 443"]);
    assert_eq!(world.issued(), 0);

    lead_to(&OUTSIDE_V4.to_string());
    world.configure("contact = \"good@example.org\"");
    world.reload();
    world.becomes_trusted();
    eventually("all is well", || (world.status()["warnings"] == json!([])).then_some(()));

    // Without it in the configuration, nobody is shown it.
    fs::write(world.tunnel.gateway.folder().join("server.toml"), &world.made).unwrap();
    world.reload();
    assert!(!world.is_trusted());
    reach(world.tunnel.client().host(), INTERNET[0]);
    assert_eq!(world.tunnel.gateway.sessions().unwrap().len(), 1);
}
