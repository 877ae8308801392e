//! ocserv and openconnect: DTLS with TLS over TCP for control, or that TLS for everything.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_program::exit::Failure;
use anyhow::{Context, Result};
use ipnet::Ipv4Net;

use super::identity::Identity;
use super::{End, MTU, PATIENCE, Programs, Running, System, told, wait_for};
use adit_lab::{GATEWAY_V4, Host, Lab, Process};

/// Tunnel devices of gateway (ocserv numbers them) and client.
const GATEWAY_LINK: &str = "vpns0";
const CLIENT_LINK: &str = "vpnc0";
const PORT: u16 = 443;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
const PASSWORD: &str = "bench";

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Dtls,
    Tls,
}

impl Carrier {
    /// What ocserv 1.1 takes off its key `mtu`, which means the cable, to arrive at the tunnel's, in bytes.
    fn overhead(self) -> u32 {
        const IP_AND_UDP: u32 = 28;
        /// Record header, explicit nonce and tag of AES-GCM in DTLS 1.2 (RFC 5288), and AnyConnect's type byte.
        const DTLS: u32 = 13 + 8 + 16 + 1;
        match self {
            Self::Dtls => IP_AND_UDP + DTLS,
            Self::Tls => IP_AND_UDP,
        }
    }
}

/// ocserv with its client.
#[derive(Debug)]
pub(super) struct Ocserv {
    carrier: Carrier,
    programs: Result<[PathBuf; 3], Failure>,
}

impl Ocserv {
    /// Packets go by DTLS over UDP.
    pub(super) fn dtls(programs: &Programs) -> Self {
        Self::new(programs, Carrier::Dtls)
    }

    /// Packets go by TLS over TCP, as where a network lets no UDP pass.
    pub(super) fn tls(programs: &Programs) -> Self {
        Self::new(programs, Carrier::Tls)
    }

    fn new(programs: &Programs, carrier: Carrier) -> Self {
        let find = || Ok([programs.find("ocserv")?, programs.find("openconnect")?, programs.find("ocpasswd")?]);
        Self { carrier, programs: find() }
    }
}

impl System for Ocserv {
    fn name(&self) -> &'static str {
        match self.carrier {
            Carrier::Dtls => "ocserv",
            Carrier::Tls => "ocserv-tls",
        }
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        self.programs.clone().map(|[server, client, _]| vec![server, client])
    }

    fn settings(&self) -> Vec<(String, String)> {
        let (cipher, carrier) = match self.carrier {
            Carrier::Dtls => ("AES-256-GCM (DTLS 1.2)", "DTLS over UDP"),
            Carrier::Tls => ("AES-256-GCM (TLS 1.3)", "TLS over TCP"),
        };
        told(&[
            ("cipher", cipher),
            ("threads", "1 at each end"),
            ("carrier", carrier),
            ("mtu", &(MTU + self.carrier.overhead()).to_string()),
        ])
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let [server_program, client_program, password_program] = self.programs.clone()?;
        let (client, gateway) = (lab.host("client")?, lab.host("gateway")?);
        let identity = prepare(&gateway, &password_program, self.carrier)?;
        let mut command = Command::new(server_program);
        command.args(["--foreground", "--config"]).arg(gateway.folder().join("ocserv.conf"));
        command.arg("--pid-file").arg(gateway.folder().join("ocserv.pid"));
        let server = gateway.spawn(command)?;
        let (listening, joins) = match self.carrier {
            Carrier::Dtls => ("listening (UDP)", "DTLS connection"),
            Carrier::Tls => ("listening (TCP)", "SSL connected"),
        };
        server.wait_for_line(listening, PATIENCE)?;
        let joined = join(&client, &client_program, &identity.certificate, self.carrier)?;
        joined.wait_for_line(joins, PATIENCE)?;
        let told = wait_for("the client's address", &joined, || fs::read_to_string(client.folder().join("told")).ok())?;
        let (address, mtu) = told.trim().split_once(' ').context("openconnect tells an address and an MTU")?;
        let address: Ipv4Addr = address.parse().with_context(|| format!("read the address {address:?}"))?;
        client.set_mtu(CLIENT_LINK, mtu.parse().with_context(|| format!("read the MTU {mtu:?}"))?)?;
        client.add_address(CLIENT_LINK, Ipv4Net::new(address, 24).expect("24 bits fit").into())?;
        let own = wait_for("the gateway's address", &server, || v4(&gateway))?;
        let client = End::of(&client, CLIENT_LINK, address, &joined);
        let gateway = End::of(&gateway, GATEWAY_LINK, own, &server);
        Ok(Running { client, gateway, owner: Box::new(vec![joined, server]), lab })
    }
}

/// Writes the gateway's files and returns its certificate.
fn prepare(gateway: &Host, password_program: &Path, carrier: Carrier) -> Result<Identity> {
    let path = |name: &str| gateway.folder().join(name);
    let write =
        |name: &str, text: &str| fs::write(path(name), text).with_context(|| format!("write {}", path(name).display()));
    let identity = Identity::create(gateway.folder(), &GATEWAY_V4.to_string())?;
    write("password", &format!("{PASSWORD}\n{PASSWORD}\n"))?;
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" --passwd \"$1\" bench <\"$2\""]);
    command.arg(password_program).arg(path("users")).arg(path("password"));
    gateway.output(command, PATIENCE)?.success()?;
    write("ocserv.conf", &settings(gateway.folder(), &identity, carrier))?;
    Ok(identity)
}

fn settings(folder: &Path, identity: &Identity, carrier: Carrier) -> String {
    let (folder, certificate, key) = (folder.display(), identity.certificate.display(), identity.key.display());
    let mtu = MTU + carrier.overhead();
    let udp = if carrier == Carrier::Dtls { format!("udp-port = {PORT}\n") } else { String::new() };
    format!(
        "auth = \"plain[passwd={folder}/users]\"\ntcp-port = {PORT}\n{udp}\
         run-as-user = root\nrun-as-group = root\nsocket-file = {folder}/ocserv.sock\n\
         server-cert = {certificate}\nserver-key = {key}\n\
         isolate-workers = false\nmax-clients = 4\nkeepalive = 300\ndpd = 300\nmobile-dpd = 300\n\
         try-mtu-discovery = false\nauth-timeout = 60\ndevice = vpns\npredictable-ips = true\n\
         ipv4-network = 10.79.0.0\nipv4-netmask = 255.255.255.0\nping-leases = false\nmtu = {mtu}\n\
         cisco-client-compat = false\ndtls-legacy = false\nuse-occtl = false\n"
    )
}

/// Starts the client, whose script only notes what it is told: the lab configures the link.
fn join(client: &Host, program: &Path, certificate: &Path, carrier: Carrier) -> Result<Process> {
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
    if carrier == Carrier::Tls {
        command.arg("--no-dtls");
    }
    command.arg(format!("--interface={CLIENT_LINK}")).arg(format!("--script={note}"));
    command.arg(format!("--cafile={}", certificate.display())).arg(format!("https://{GATEWAY_V4}:{PORT}"));
    client.spawn(command)
}

/// The gateway's own address in the tunnel.
fn v4(gateway: &Host) -> Option<Ipv4Addr> {
    let addresses = gateway.addresses(GATEWAY_LINK).ok()?;
    addresses.iter().map(ipnet::IpNet::addr).find(|address| *address == IpAddr::V4(GATEWAY)).map(|_| GATEWAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dtls_has_a_udp_port() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::create(folder.path(), "192.0.2.17").unwrap();
        let of = |carrier| settings(folder.path(), &identity, carrier);
        assert!(of(Carrier::Dtls).contains("udp-port = 443\n") && of(Carrier::Dtls).contains("\nmtu = 1486\n"));
        assert!(!of(Carrier::Tls).contains("udp-port") && of(Carrier::Tls).contains("\nmtu = 1448\n"));
    }
}
