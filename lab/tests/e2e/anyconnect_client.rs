//! Our client at gateways of the AnyConnect family: our own, and the stock ocserv, the machine's and the newest.
//!
//! Where ocserv is not installed its tests skip themselves with a loud word, but fail where `CI` is set.

mod browsers;
mod certificates;
mod first_contact;
mod groups;
mod ocserv;
mod passwords;
mod protocol;
mod records;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use adit_lab::programs::Client;
use adit_lab::traffic::{Direction, TcpServer, transfer};
use adit_lab::{GATEWAY_V4, Host, Lab, Process};
use adit_testing::{PATIENCE, alone, eventually};
use aws_lc_rs::digest;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

use crate::harness::{INTERNET, assert_as_before, reach, standard_lab};
use crate::logins::{App, PASSWORD, code_of_app, gateway, run, set_up_app};
use crate::people::{REFUSED, pin};
use crate::versions::{Version, with_each_version};

const TRANSFER: u64 = 20 << 20;
const OTHER_IDENTITY: i32 = 4;
const USAGE: i32 = 2;
/// Whoever does not answer, or ends the connection.
const CLOSED: i32 = 5;

/// Has the client add the gateway as `work`, known by these arguments.
fn add(client: &Client, known_by: &[&str]) -> adit_lab::Output {
    add_at(client, "", known_by)
}

/// As [`add`], by a link with this path.
fn add_at(client: &Client, path: &str, known_by: &[&str]) -> adit_lab::Output {
    let url = format!("https://{GATEWAY_V4}{path}");
    let how = ["add", &url, "--protocol", "anyconnect", "--user", "alice", "--name", "work", "--replace"];
    run(client, &[&how[..], known_by].concat(), "")
}

/// Has the client connect, and type this when it is asked.
fn up(client: &mut Client, input: &str) {
    client.up_with_input(&["work", "--timeout", "60s"], input).unwrap();
}

/// The same, over TLS alone.
fn up_over_tls(client: &mut Client, input: &str) {
    client.up_with_input(&["work", "--timeout", "60s", "--carrier", "tls"], input).unwrap();
}

/// Sends as much each way between the client's host and an address, and compares.
fn move_both_ways(client: &Host, server: &Host, address: IpAddr) {
    reach(client, address);
    let server = TcpServer::start(server, address).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        let done = transfer(client, server.address(), direction, TRANSFER).unwrap();
        println!("{direction:?} with {address}: {:.0} Mbit/s", done.megabits_per_second());
        assert!(done.bytes == TRANSFER && done.is_intact(), "{direction:?} with {address}");
    }
}

/// A file of the client is for its owner alone.
fn assert_private(client: &Client, file: &str) {
    let path = client.folder().join("clients").join(file);
    let mode = fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", path.display());
}

fn has_login(client: &Client) -> bool {
    client.folder().join("clients/.work.login").exists()
}

#[test]
fn user_logs_in_at_our_gateway_and_twenty_mebibytes_arrive_intact_each_way() {
    let _turn = alone();
    let Some(mut tunnel) = gateway() else { return };
    let fingerprint = pin(&tunnel.gateway);
    add(tunnel.client(), &["--pin", &fingerprint]).success().unwrap();
    assert_private(tunnel.client(), "work.toml");
    let host = tunnel.client().host().clone();
    let before = host.snapshot().unwrap();

    let wrong = run(tunnel.client(), &["up", "work"], "wrong horse battery\n");
    assert_eq!(wrong.code, REFUSED, "{wrong:?}");
    assert!(wrong.stderr.contains("is not accepted"), "the user reads why: {wrong:?}");
    assert!(tunnel.gateway.sessions().unwrap().is_empty() && !has_login(tunnel.client()));
    assert_as_before(&host, &before);

    up_over_tls(&mut tunnel.clients[0], &format!("{PASSWORD}\n"));
    assert_private(tunnel.client(), ".work.login");
    let session = tunnel.gateway.sessions().unwrap().pop().unwrap();
    assert_eq!((session.front_end.as_str(), session.carrier.as_str()), ("anyconnect", "tls"));
    assert!(session.client.as_ref().is_some_and(|client| client.contains("Adit")), "{session:?}");
    let status = tunnel.client().status().unwrap();
    assert_eq!((status.state.as_str(), status.carrier.as_deref()), ("connected", Some("tls")));
    for address in INTERNET {
        move_both_ways(&host, &tunnel.internet, address);
    }

    // The end is one for good: nothing is left at either end.
    run(tunnel.client(), &["down", "work"], "").success().unwrap();
    eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    eventually("the login is forgotten", || (!has_login(tunnel.client())).then_some(()));
    assert_as_before(&host, &before);
}

#[test]
fn second_factor_is_asked_for_and_a_restart_of_the_gateway_asks_nobody() {
    let Some(mut tunnel) = gateway() else { return };
    let fingerprint = pin(&tunnel.gateway);
    add(tunnel.client(), &["--pin", &fingerprint]).success().unwrap();
    let App { secret, confirmed, .. } = set_up_app(&tunnel.gateway);
    let code = code_of_app(&secret, confirmed + 1);
    up(&mut tunnel.clients[0], &format!("{PASSWORD}\n{code}\n"));
    let host = tunnel.client().host().clone();
    reach(&host, INTERNET[0]);
    let addresses = tunnel.client().inner_addresses().unwrap();
    tunnel.gateway.kill();
    tunnel.gateway.start().unwrap();
    reach(&host, INTERNET[0]);
    assert_eq!(tunnel.client().inner_addresses().unwrap(), addresses, "the same addresses");

    tunnel.gateway.admin(&["user", "disable", "alice"]).unwrap().success().unwrap();
    eventually("the client says why it is out", || {
        let status = tunnel.client().status().unwrap();
        (status.state == "login needed" && status.reason.is_some_and(|reason| reason.contains("disabled")))
            .then_some(())
    });
}

#[test]
fn gateway_that_is_not_the_one_meant_is_told_before_anybody_types_a_password() {
    let Some(tunnel) = gateway() else { return };
    let client = tunnel.client();
    let other = add(client, &["--pin", &"ab".repeat(32)]);
    assert_eq!(other.code, OTHER_IDENTITY, "{other:?}");
    assert!(other.stderr.contains("matches the fingerprint"), "{other:?}");
    let authority = authority(tunnel.client().host(), "other.pem");
    assert_eq!(add(client, &["--authority", &authority]).code, OTHER_IDENTITY);
    assert!(!client.folder().join("clients/work.toml").exists(), "nothing is kept");
    let own = tunnel.gateway.folder().join("state/authority.pem");
    add(client, &["--authority", own.to_str().unwrap()]).success().unwrap();
    let quic = run(client, &["up", "work", "--carrier", "quic"], "");
    assert_eq!(quic.code, USAGE, "{quic:?}");
}

/// Writes a certificate of nobody's into a host's folder.
fn authority(host: &Host, name: &str) -> String {
    let certificate = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    let path = host.folder().join(name);
    fs::write(&path, certificate.pem()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// ocserv in the gateway's host, where alice has a password.
struct Ocserv {
    // Processes before the lab they run in.
    client: Client,
    process: Process,
    gateway: Host,
    _lab: Lab,
    program: PathBuf,
    /// The file of its certificate, which is its own authority.
    certificate: String,
    /// The fingerprint of its key.
    fingerprint: String,
}

impl Ocserv {
    /// Whoever has a password gets in.
    const PASSWORDS: &str = "auth = \"plain[passwd=FOLDER/users]\"\n";
    const ADDRESSES: [&str; 2] = ["10.79.0.1", "fd79::1"];

    /// Starts this machine's own, if it has it.
    fn start() -> Option<Self> {
        Self::start_with(Version::Own)
    }

    /// Starts that of this version, if it is there.
    fn start_with(version: Version) -> Option<Self> {
        Self::start_prepared(version, Self::PASSWORDS, |_folder| ())
    }

    /// As [`Self::start_with`], with these lines of configuration, which say who gets in. `FOLDER` is that of its
    /// files, and what they name there is made before. Alice is of two groups.
    fn start_prepared(version: Version, lines: &str, prepare: impl FnOnce(&Path)) -> Option<Self> {
        let program = version.program("ocserv")?;
        let mut lab = standard_lab()?;
        let gateway = lab.host("gateway").unwrap();
        let folder = gateway.folder().to_owned();
        let fingerprint = Self::certify(&folder);
        prepare(&folder);
        fs::write(folder.join("ocserv.conf"), Self::settings(&folder, lines)).unwrap();
        let mut users = Command::new("ocpasswd");
        users.arg("--passwd").arg(folder.join("users")).arg("alice");
        let users = gateway.with_input(&users, &format!("{PASSWORD}\n{PASSWORD}\n")).unwrap();
        gateway.output(users, PATIENCE).unwrap().success().unwrap();
        let users = fs::read_to_string(folder.join("users")).unwrap();
        fs::write(folder.join("users"), users.replacen("alice:*:", "alice:staff,guests:", 1)).unwrap();
        let process = Self::run(&program, &gateway);
        let client = Client::new(&lab.host("client").unwrap(), &adit_lab::binaries().unwrap());
        let certificate = folder.join("certificate.pem").to_str().unwrap().to_owned();
        Some(Self { client, process, gateway, _lab: lab, program, certificate, fingerprint })
    }

    /// Writes a new key and its certificate, and returns the fingerprint.
    fn certify(folder: &Path) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![GATEWAY_V4.to_string()]).unwrap().self_signed(&key).unwrap();
        fs::write(folder.join("certificate.pem"), certificate.pem()).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        let spki = digest::digest(&digest::SHA256, &key.subject_public_key_info());
        spki.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn run(program: &Path, gateway: &Host) -> Process {
        let folder = gateway.folder();
        let mut command = Command::new(program);
        // It tells of each session on standard error.
        command.args(["--foreground", "--debug", "3", "--config"]).arg(folder.join("ocserv.conf"));
        command.arg("--pid-file").arg(folder.join("ocserv.pid"));
        let process = gateway.spawn(command).unwrap();
        process.wait_for_line("listening (TCP)", PATIENCE).unwrap();
        process
    }

    /// Has another gateway take its place.
    fn restart_with_another_key(&mut self) {
        self.process.terminate().unwrap();
        self.process.wait(PATIENCE).unwrap();
        self.fingerprint = Self::certify(self.gateway.folder());
        self.process = Self::run(&self.program, &self.gateway);
    }

    fn settings(folder: &Path, lines: &str) -> String {
        let folder = folder.display();
        let lines = lines.replace("FOLDER", &folder.to_string());
        format!(
            "{lines}tcp-port = 443\nsocket-file = {folder}/ocserv.sock\n\
             udp-port = 443\nrun-as-user = root\nrun-as-group = root\nisolate-workers = false\nuse-occtl = true\n\
             occtl-socket-file = {folder}/occtl.sock\n\
             server-cert = {folder}/certificate.pem\nserver-key = {folder}/key.pem\nmax-clients = 4\n\
             keepalive = 20\ndpd = 30\ntry-mtu-discovery = false\nauth-timeout = 60\ndevice = vpns\n\
             predictable-ips = true\nping-leases = false\nipv4-network = 10.79.0.0\nipv4-netmask = 255.255.255.0\n\
             ipv6-network = fd79::/64\ndns = 10.79.0.1\n"
        )
    }
}

impl Drop for Ocserv {
    fn drop(&mut self) {
        if thread::panicking() {
            let client = self.client.process().map(Process::tail).unwrap_or_default();
            eprintln!("what the programs said last:\n{}{client}", self.process.tail());
        }
    }
}

with_each_version!(user_logs_in_at_ocserv_and_twenty_mebibytes_arrive_intact_each_way);

fn user_logs_in_at_ocserv_and_twenty_mebibytes_arrive_intact_each_way(version: Version) {
    let _turn = alone();
    let Some(mut ocserv) = Ocserv::start_with(version) else { return };
    add(&ocserv.client, &["--authority", &ocserv.certificate]).success().unwrap();
    let host = ocserv.client.host().clone();
    let before = host.snapshot().unwrap();

    let wrong = run(&ocserv.client, &["up", "work"], "wrong horse battery\n");
    assert_eq!(wrong.code, REFUSED, "{wrong:?}");
    assert!(wrong.stderr.contains("Login failed"), "the user reads why: {wrong:?}");
    assert_as_before(&host, &before);

    up_over_tls(&mut ocserv.client, &format!("{PASSWORD}\n"));
    let status = ocserv.client.status().unwrap();
    assert_eq!((status.state.as_str(), status.carrier.as_deref()), ("connected", Some("tls")));
    assert_eq!(ocserv.client.inner_addresses().unwrap().len(), 2, "one of each family");
    for address in Ocserv::ADDRESSES {
        move_both_ways(&host, &ocserv.gateway, address.parse().unwrap());
    }
    run(&ocserv.client, &["down", "work"], "").success().unwrap();
    assert_as_before(&host, &before);
    eventually("the login is forgotten", || (!has_login(&ocserv.client)).then_some(()));
}

with_each_version!(ocserv_is_known_by_the_fingerprint_of_its_own_key_and_by_no_other);

fn ocserv_is_known_by_the_fingerprint_of_its_own_key_and_by_no_other(version: Version) {
    let Some(mut ocserv) = Ocserv::start_with(version) else { return };
    let other = add(&ocserv.client, &["--pin", &"ab".repeat(32)]);
    assert_eq!(other.code, OTHER_IDENTITY, "{other:?}");
    add(&ocserv.client, &["--pin", &ocserv.fingerprint]).success().unwrap();
    up(&mut ocserv.client, &format!("{PASSWORD}\n"));
    let host = ocserv.client.host().clone();
    reach(&host, Ocserv::ADDRESSES[0].parse().unwrap());

    // A client that was killed comes back with its cookie, and asks nobody.
    ocserv.client.kill();
    ocserv.client.up_with(&["work", "--timeout", "60s"], &[]).unwrap();
    reach(&host, Ocserv::ADDRESSES[1].parse().unwrap());
}
