//! ocserv, the gateway that stock openconnect clients come from.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::anyconnect::{Carrier, PASSWORD, USER};
use super::identity::Identity;
use super::{End, MTU, PATIENCE, wait_for};
use adit_lab::{GATEWAY_V4, Host, Process};

/// Its programs: itself, and what writes its file of passwords.
pub(super) const PROGRAMS: [&str; 2] = ["ocserv", "ocpasswd"];

/// Its tunnel device, which it numbers.
const LINK: &str = "vpns0";
const PORT: u16 = 443;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);

/// ocserv while it runs.
#[derive(Debug)]
pub(super) struct Ocserv {
    process: Process,
    /// Its certificate, which is its own authority.
    pub(super) certificate: PathBuf,
}

impl Ocserv {
    /// Starts it.
    pub(super) fn start(gateway: &Host, [program, password_program]: &[PathBuf; 2], carrier: Carrier) -> Result<Self> {
        let identity = prepare(gateway, password_program, carrier)?;
        let mut command = Command::new(program);
        command.args(["--foreground", "--config"]).arg(gateway.folder().join("ocserv.conf"));
        command.arg("--pid-file").arg(gateway.folder().join("ocserv.pid"));
        let process = gateway.spawn(command)?;
        let listening = match carrier {
            Carrier::Dtls => "listening (UDP)",
            Carrier::Tls => "listening (TCP)",
        };
        process.wait_for_line(listening, PATIENCE)?;
        Ok(Self { process, certificate: identity.certificate })
    }

    /// Its end of the tunnel of a client, once it has one.
    pub(super) fn end(&self, gateway: &Host) -> Result<End> {
        let own = wait_for("the gateway's address", &self.process, || v4(gateway))?;
        Ok(End::of(gateway, LINK, own, &self.process))
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
    command.args(["-c", "exec \"$0\" --passwd \"$1\" \"$3\" <\"$2\""]);
    command.arg(password_program).arg(path("users")).arg(path("password")).arg(USER);
    gateway.output(command, PATIENCE)?.success()?;
    write("ocserv.conf", &settings(gateway.folder(), &identity, carrier))?;
    Ok(identity)
}

/// What its key `mtu` has to be so that the tunnel gets its own, in bytes: the key means the cable, and this adds what
/// ocserv 1.1 takes off it.
pub(super) fn mtu_of_cable(carrier: Carrier) -> u32 {
    const IP_AND_UDP: u32 = 28;
    /// Record header, explicit nonce and tag of AES-GCM in DTLS 1.2 (RFC 5288), and AnyConnect's type byte.
    const DTLS: u32 = 13 + 8 + 16 + 1;
    match carrier {
        Carrier::Dtls => MTU + IP_AND_UDP + DTLS,
        Carrier::Tls => MTU + IP_AND_UDP,
    }
}

fn settings(folder: &Path, identity: &Identity, carrier: Carrier) -> String {
    let (folder, certificate, key) = (folder.display(), identity.certificate.display(), identity.key.display());
    let mtu = mtu_of_cable(carrier);
    let udp = if carrier == Carrier::Dtls { format!("udp-port = {PORT}\n") } else { String::new() };
    format!(
        "auth = \"plain[passwd={folder}/users]\"\ntcp-port = {PORT}\n{udp}\
         run-as-user = root\nrun-as-group = root\nsocket-file = {folder}/ocserv.sock\n\
         server-cert = {certificate}\nserver-key = {key}\n\
         isolate-workers = false\nmax-clients = 4\nkeepalive = 300\ndpd = 300\nmobile-dpd = 300\n\
         try-mtu-discovery = false\nauth-timeout = 60\ndevice = vpns\npredictable-ips = true\n\
         ipv4-network = 10.79.0.0\nipv4-netmask = 255.255.255.0\nping-leases = false\nmtu = {mtu}\ndns = {ADDRESS}\n\
         cisco-client-compat = false\ndtls-legacy = false\nuse-occtl = false\n"
    )
}

/// The gateway's own address in the tunnel.
fn v4(gateway: &Host) -> Option<Ipv4Addr> {
    let addresses = gateway.addresses(LINK).ok()?;
    addresses.iter().map(ipnet::IpNet::addr).find(|address| *address == IpAddr::V4(ADDRESS)).map(|_| ADDRESS)
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
