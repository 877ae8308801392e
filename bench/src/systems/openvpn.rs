//! OpenVPN in user space: two equals that know each other's certificate, AES-256-GCM over UDP.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use adit_program::exit::Failure;
use anyhow::{Context, Result};

use super::identity::Identity;
use super::{End, MTU, PATIENCE, Programs, QUEUE_LENGTH, Running, System, told};
use adit_lab::{GATEWAY_V4, Host, Lab};

const LINK: &str = "ovpn0";
const PORT: u16 = 1_194;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);
/// Asked for each socket buffer, in bytes: about what Adit asks, five times the kernel's default.
const SOCKET_BUFFER: u32 = 1 << 20;

/// OpenVPN at both ends.
#[derive(Debug)]
pub(super) struct OpenVpn {
    program: Result<PathBuf, Failure>,
}

impl OpenVpn {
    /// Looks for the program.
    pub(super) fn new(programs: &Programs) -> Self {
        Self { program: programs.find("openvpn") }
    }
}

impl System for OpenVpn {
    fn name(&self) -> &'static str {
        "openvpn"
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        self.program.clone().map(|program| vec![program])
    }

    fn settings(&self) -> Vec<(String, String)> {
        told(&[
            ("cipher", "AES-256-GCM"),
            ("threads", "1 at each end"),
            ("mode", "point to point, TLS, without kernel offload (disable-dco)"),
            ("fast-io", "yes"),
            ("sndbuf, rcvbuf", "1 MiB"),
        ])
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let program = self.program.clone()?;
        let (client, gateway) = (lab.host("client")?, lab.host("gateway")?);
        let near = Identity::create(client.folder(), "client")?;
        let far = Identity::create(gateway.folder(), "gateway")?;
        let run = |host: &Host, own: &Identity, peer: &Identity, role: Role| {
            let path = host.folder().join("openvpn.conf");
            fs::write(&path, settings(role, own, peer)).with_context(|| format!("write {}", path.display()))?;
            let mut command = Command::new(&program);
            command.arg("--config").arg(path);
            host.spawn(command)
        };
        let server = run(&gateway, &far, &near, Role::Server)?;
        // The client would take a refusal by the port that is not bound yet as a reason to wait for seconds.
        server.wait_for_line("UDPv4 link remote", PATIENCE)?;
        let joined = run(&client, &near, &far, Role::Client)?;
        for process in [&joined, &server] {
            process.wait_for_line("Initialization Sequence Completed", PATIENCE)?;
        }
        let (client, gateway) = (End::of(&client, LINK, CLIENT, &joined), End::of(&gateway, LINK, GATEWAY, &server));
        Ok(Running { client, gateway, owner: Box::new(vec![joined, server]), lab })
    }
}

/// Which end begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// The configuration of one end (openvpn(8)).
fn settings(role: Role, own: &Identity, peer: &Identity) -> String {
    let role = match role {
        Role::Server => format!("tls-server\ndh none\nlport {PORT}\nifconfig {GATEWAY} {CLIENT}\n"),
        Role::Client => format!("tls-client\nnobind\nremote {GATEWAY_V4} {PORT}\nifconfig {CLIENT} {GATEWAY}\n"),
    };
    let fingerprint: Vec<String> = peer.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    format!(
        "{role}dev {LINK}\ndev-type tun\nproto udp4\ncert {}\nkey {}\npeer-fingerprint {}\n\
         data-ciphers AES-256-GCM\ndisable-dco\ntun-mtu {MTU}\nmssfix 0\ntxqueuelen {QUEUE_LENGTH}\n\
         sndbuf {SOCKET_BUFFER}\nrcvbuf {SOCKET_BUFFER}\nfast-io\nverb 3\n",
        own.certificate.display(),
        own.key.display(),
        fingerprint.join(":"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_knows_the_others_certificate() {
        let identity = |byte| Identity {
            certificate: PathBuf::from("/c.pem"),
            key: PathBuf::from("/k.pem"),
            fingerprint: [byte; 32],
        };
        let text = settings(Role::Client, &identity(0), &identity(0xAB));
        let line = format!("peer-fingerprint AB{}\n", ":AB".repeat(31));
        assert!(text.contains(&line) && text.contains("remote 192.0.2.17 1194\n"), "{text}");
        assert!(!settings(Role::Server, &identity(0), &identity(1)).contains("remote "));
    }
}
