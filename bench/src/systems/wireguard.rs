//! WireGuard in user space: `wireguard-go`, `boringtun-cli` and `gotatun`, configured over their UAPI socket.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adit_program::exit::Failure;
use anyhow::{Context, Result, bail};
use data_encoding::HEXLOWER;
use ipnet::Ipv4Net;

use super::keys::KeyPair;
use super::{End, MTU, Programs, Running, System, told, wait_for};
use adit_lab::{GATEWAY_V4, Host, Lab, Process};

/// Name of the TUN device at both ends.
const LINK: &str = "wg0";
/// Where the programs listen for their configuration, in each host.
const SOCKET: &str = "/var/run/wireguard/wg0.sock";
const PORT: u16 = 51_820;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Arguments of the implementations in Rust: without a drop of privileges, which needs a user to drop to.
const KEEP_PRIVILEGES: &[&str] = &["--foreground", "--disable-drop-privileges", LINK];

/// One of the implementations.
#[derive(Debug)]
pub(super) struct WireGuard {
    name: &'static str,
    program: Result<PathBuf, Failure>,
    arguments: &'static [&'static str],
    threads: &'static str,
}

impl WireGuard {
    /// The implementation in Go.
    pub(super) fn go(programs: &Programs) -> Self {
        let (arguments, threads) = (&["--foreground", LINK], "Go's default, a core each");
        Self { name: "wireguard-go", program: programs.find("wireguard-go"), arguments, threads }
    }

    /// Cloudflare's implementation in Rust.
    pub(super) fn boringtun(programs: &Programs) -> Self {
        let (arguments, threads) = (KEEP_PRIVILEGES, "4 at each end, its default");
        Self { name: "boringtun", program: programs.find("boringtun-cli"), arguments, threads }
    }

    /// Mullvad's descendant of it.
    pub(super) fn gotatun(programs: &Programs) -> Self {
        let (arguments, threads) = (KEEP_PRIVILEGES, "tokio's default, a core each");
        Self { name: "gotatun", program: programs.find("gotatun"), arguments, threads }
    }

    fn spawn(&self, program: &Path, host: &Host) -> Result<Process> {
        let mut command = Command::new(program);
        command.args(self.arguments).env("LOG_LEVEL", "error").env("WG_LOG_LEVEL", "error");
        host.spawn(command)
    }
}

impl System for WireGuard {
    fn name(&self) -> &'static str {
        self.name
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        self.program.clone().map(|program| vec![program])
    }

    fn settings(&self) -> Vec<(String, String)> {
        told(&[("cipher", "ChaCha20-Poly1305"), ("threads", self.threads)])
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let program = self.program.clone()?;
        let (near, far) = (KeyPair::generate()?, KeyPair::generate()?);
        let (client, gateway) = (lab.host("client")?, lab.host("gateway")?);
        let start = |host: &Host, own: &KeyPair, peer: &KeyPair, address, allowed| {
            let process = self.spawn(&program, host)?;
            let mut settings = format!(
                "set=1\nprivate_key={}\nlisten_port={PORT}\npublic_key={}\nallowed_ip={allowed}/32\n",
                HEXLOWER.encode(&own.private),
                HEXLOWER.encode(&peer.public),
            );
            if address == CLIENT {
                let _infallible = writeln!(settings, "endpoint={GATEWAY_V4}:{PORT}");
            }
            configure(host, &process, &settings).with_context(|| format!("configure {}", self.name))?;
            host.set_mtu(LINK, MTU)?;
            host.add_address(LINK, Ipv4Net::new(address, 24).expect("24 bits fit").into())?;
            anyhow::Ok((End::of(host, LINK, address, &process), process))
        };
        let (gateway, server) = start(&gateway, &far, &near, GATEWAY, CLIENT)?;
        let (client, joined) = start(&client, &near, &far, CLIENT, GATEWAY)?;
        Ok(Running { client, gateway, owner: Box::new(vec![joined, server]), lab })
    }
}

/// Sends one `set` operation (wireguard.com/xplatform) as soon as the program listens.
fn configure(host: &Host, process: &Process, settings: &str) -> Result<()> {
    let request = format!("{settings}\n");
    let mut socket = wait_for("its UAPI socket", process, || host.run(|| UnixStream::connect(SOCKET)).ok())?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).context("set a time-out")?;
    socket.write_all(request.as_bytes()).context("write to the UAPI socket")?;
    let (mut answer, mut buffer) = (String::new(), [0; 256]);
    while !answer.contains("\n\n") {
        let length = socket.read(&mut buffer).context("read from the UAPI socket")?;
        answer.push_str(&String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()));
        if length == 0 {
            break;
        }
    }
    drop(socket.shutdown(Shutdown::Both));
    if !answer.lines().any(|line| line == "errno=0") {
        bail!("it answered {answer:?}\n{}", process.tail());
    }
    Ok(())
}
