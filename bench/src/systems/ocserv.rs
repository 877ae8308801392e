//! ocserv and openconnect: DTLS, with TLS over TCP for control.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_proto::exit::Failure;
use anyhow::{Context, Result};
use ipnet::Ipv4Net;

use super::{End, PATIENCE, Programs, Running, System, wait_for};
use crate::lab::{GATEWAY_V4, Host, Lab, Process};

/// Tunnel devices of gateway (ocserv numbers them) and client.
const GATEWAY_LINK: &str = "vpns0";
const CLIENT_LINK: &str = "vpnc0";
const PORT: u16 = 443;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
/// Proposed to the client, which lowers it to what its cipher leaves.
const MTU: u32 = 1_420;
const PASSWORD: &str = "bench";

/// ocserv with its client.
#[derive(Debug)]
pub(super) struct Ocserv {
    programs: Result<[PathBuf; 3], Failure>,
}

impl Ocserv {
    /// Looks for the programs.
    pub(super) fn new(programs: &Programs) -> Self {
        let find = || Ok([programs.find("ocserv")?, programs.find("openconnect")?, programs.find("ocpasswd")?]);
        Self { programs: find() }
    }
}

impl System for Ocserv {
    fn name(&self) -> &'static str {
        "ocserv"
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        self.programs.clone().map(|[server, client, _]| vec![server, client])
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let [server_program, client_program, password_program] = self.programs.clone()?;
        let (client, gateway) = (lab.host("client")?, lab.host("gateway")?);
        let certificate = prepare(&gateway, &password_program)?;
        let mut command = Command::new(server_program);
        command.args(["--foreground", "--config"]).arg(gateway.folder().join("ocserv.conf"));
        command.arg("--pid-file").arg(gateway.folder().join("ocserv.pid"));
        let server = gateway.spawn(command)?;
        server.wait_for_line("listening (UDP)", PATIENCE)?;
        let joined = join(&client, &client_program, &certificate)?;
        joined.wait_for_line("DTLS connection", PATIENCE)?;
        let told = wait_for("the client's address", &joined, || fs::read_to_string(client.folder().join("told")).ok())?;
        let (address, mtu) = told.trim().split_once(' ').context("openconnect tells an address and an MTU")?;
        let address: Ipv4Addr = address.parse().with_context(|| format!("read the address {address:?}"))?;
        client.set_mtu(CLIENT_LINK, mtu.parse().with_context(|| format!("read the MTU {mtu:?}"))?)?;
        client.add_address(CLIENT_LINK, Ipv4Net::new(address, 24).expect("24 bits fit").into())?;
        let own = wait_for("the gateway's address", &server, || v4(&gateway))?;
        let near = End { host: client, link: CLIENT_LINK.to_owned(), address, process: Some(joined.id()) };
        let far = End { host: gateway, link: GATEWAY_LINK.to_owned(), address: own, process: Some(server.id()) };
        Ok(Running { client: near, gateway: far, owner: Box::new(vec![joined, server]), _lab: lab })
    }
}

/// Writes the gateway's files and returns the path of its certificate.
fn prepare(gateway: &Host, password_program: &Path) -> Result<PathBuf> {
    let path = |name: &str| gateway.folder().join(name);
    let write =
        |name: &str, text: &str| fs::write(path(name), text).with_context(|| format!("write {}", path(name).display()));
    let identity = rcgen::generate_simple_self_signed([GATEWAY_V4.to_string()]).context("make a certificate")?;
    write("certificate.pem", &identity.cert.pem())?;
    write("key.pem", &identity.signing_key.serialize_pem())?;
    write("password", &format!("{PASSWORD}\n{PASSWORD}\n"))?;
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" --passwd \"$1\" bench <\"$2\""]);
    command.arg(password_program).arg(path("users")).arg(path("password"));
    gateway.output(command, PATIENCE)?.success()?;
    write("ocserv.conf", &settings(gateway.folder()))?;
    Ok(path("certificate.pem"))
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "auth = \"plain[passwd={folder}/users]\"\ntcp-port = {PORT}\nudp-port = {PORT}\n\
         run-as-user = root\nrun-as-group = root\nsocket-file = {folder}/ocserv.sock\n\
         server-cert = {folder}/certificate.pem\nserver-key = {folder}/key.pem\n\
         isolate-workers = false\nmax-clients = 4\nkeepalive = 300\ndpd = 300\nmobile-dpd = 300\n\
         try-mtu-discovery = false\nauth-timeout = 60\ndevice = vpns\npredictable-ips = true\n\
         ipv4-network = 10.79.0.0\nipv4-netmask = 255.255.255.0\nping-leases = false\nmtu = {MTU}\n\
         cisco-client-compat = false\ndtls-legacy = false\nuse-occtl = false\n"
    )
}

/// Starts the client, whose script only notes what it is told: the lab configures the link.
fn join(client: &Host, program: &Path, certificate: &Path) -> Result<Process> {
    let path = |name: &str| client.folder().join(name);
    fs::write(path("password"), format!("{PASSWORD}\n")).context("write the password")?;
    let (told, new) = (path("told"), path("told.new"));
    let note = format!(
        "if [ \"$reason\" = connect ]; then printf '%s %s' \"$INTERNAL_IP4_ADDRESS\" \"$INTERNAL_IP4_MTU\" >{}; mv {} {}; fi",
        new.display(),
        new.display(),
        told.display(),
    );
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" <\"$0\""]).arg(path("password")).arg(program);
    command.args(["--user=bench", "--passwd-on-stdin", "--no-proxy", "--timestamp"]);
    command.arg(format!("--interface={CLIENT_LINK}")).arg(format!("--script={note}"));
    command.arg(format!("--cafile={}", certificate.display())).arg(format!("https://{GATEWAY_V4}:{PORT}"));
    client.spawn(command)
}

/// The gateway's own address in the tunnel.
fn v4(gateway: &Host) -> Option<Ipv4Addr> {
    let addresses = gateway.addresses(GATEWAY_LINK).ok()?;
    addresses.iter().map(ipnet::IpNet::addr).find(|address| *address == IpAddr::V4(GATEWAY)).map(|_| GATEWAY)
}
