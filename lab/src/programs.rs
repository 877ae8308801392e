//! The real gateway and client programs, run in lab hosts as their users would run them.

mod told;

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde_json::Value;

use crate::{Binaries, GATEWAY_V4, Host, Output, Process};

pub use told::{ToldSession, ToldStatus};

/// The TUN device of gateway and client.
pub const TUN: &str = "adit0";

/// Time for a program to become ready, to stop, or to answer: generous, for a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a program that is not ready yet is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A gateway's files, and its process while it runs.
#[derive(Debug)]
pub struct Gateway {
    host: Host,
    program: PathBuf,
    folder: PathBuf,
    settings: Vec<(String, String)>,
    process: Option<Process>,
}

impl Gateway {
    /// Prepares a gateway in `host` whose files will be in `host`'s folder.
    pub fn new(host: &Host, binaries: &Binaries) -> Self {
        Self::in_folder(host, binaries, "adit")
    }

    /// Prepares a gateway whose files will be in a folder of that name in `host`'s folder, beside those of others.
    pub fn in_folder(host: &Host, binaries: &Binaries, folder: &str) -> Self {
        let folder = host.folder().join(folder);
        Self { host: host.clone(), program: binaries.server.clone(), folder, settings: Vec::new(), process: None }
    }

    /// The host it runs in.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The folder with `server.toml`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Overrides a key of the configuration by the environment, for every later command.
    pub fn set(&mut self, key: &str, value: &str) {
        let variable = format!("ADIT_{}", key.replace('.', "_").to_uppercase());
        self.settings.push((variable, value.to_owned()));
    }

    /// `adit-server init`: makes the keys and the configuration.
    pub fn init(&self) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(["init", "--public", &GATEWAY_V4.to_string(), "--dir"]).arg(&self.folder);
        self.host.output(command, PATIENCE)
    }

    /// `adit-server` with this gateway's configuration and `arguments`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.folder.join("server.toml")).args(arguments);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs an administration command to its end.
    pub fn admin(&self, arguments: &[&str]) -> Result<Output> {
        self.host.output(self.command(arguments), PATIENCE)
    }

    /// Runs an administration command with `--json` and reads what it says.
    pub fn admin_json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.admin(&[arguments, &["--json"]].concat())?.success()?;
        serde_json::from_str(&text).with_context(|| format!("read the JSON of adit-server {arguments:?}: {text}"))
    }

    /// The live sessions, as `adit-server sessions --json` tells them.
    pub fn sessions(&self) -> Result<Vec<ToldSession>> {
        let answer = self.admin_json(&["sessions"])?;
        let sessions = answer.get("sessions").cloned().with_context(|| format!("find the sessions in {answer}"))?;
        serde_json::from_value(sessions).with_context(|| format!("read the sessions in {answer}"))
    }

    /// `adit-server run`; returns when the gateway says that it is ready.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// As [`Self::start`], with more environment variables.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        self.process = None;
        let mut command = self.command(&["run"]);
        command.envs(environment.iter().copied());
        self.process = Some(start(&self.host, command)?);
        Ok(())
    }

    /// `adit-server invite NAME` and more arguments; returns the link.
    pub fn invite(&self, name: &str, more: &[&str]) -> Result<String> {
        let text = self.admin(&[&["invite", name], more].concat())?.success()?;
        let link = text.split_whitespace().find(|word| word.starts_with("adit://"));
        link.map(str::to_owned).with_context(|| format!("find the link in what adit-server invite said:\n{text}"))
    }

    /// Ends the gateway with TERM and returns its exit code.
    pub fn stop(&mut self) -> Result<i32> {
        stop(self.process.take())
    }

    /// Kills the gateway.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The running process.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The gateway's inner addresses.
    pub fn inner_addresses(&self) -> Result<Vec<IpAddr>> {
        inner_addresses(&self.host)
    }
}

/// A client's files, and its process while it is up.
#[derive(Debug)]
pub struct Client {
    host: Host,
    program: PathBuf,
    folder: PathBuf,
    process: Option<Process>,
}

impl Client {
    /// Prepares a client in `host` whose files will be in `host`'s folder.
    pub fn new(host: &Host, binaries: &Binaries) -> Self {
        let folder = host.folder().join("adit");
        Self { host: host.clone(), program: binaries.client.clone(), folder, process: None }
    }

    /// The host it runs in.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The folder with its profiles.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `adit-client` with this client's folder and `arguments`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--dir").arg(&self.folder).args(arguments);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.host.output(self.command(arguments), PATIENCE)
    }

    /// `adit-client join URL`.
    pub fn join(&self, link: &str) -> Result<Output> {
        self.run(&["join", link])
    }

    /// `adit-client up`; returns when the client says that it is connected.
    pub fn up(&mut self) -> Result<()> {
        self.up_with(&[], &[])
    }

    /// `adit-client up` with more arguments and environment variables; returns when the client says that it is
    /// connected.
    pub fn up_with(&mut self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        self.process = None;
        let mut command = self.command(&[&["up"], arguments].concat());
        command.envs(environment.iter().copied());
        self.process = Some(start(&self.host, command)?);
        Ok(())
    }

    /// As [`Self::up_with`], with this on standard input.
    pub fn up_with_input(&mut self, arguments: &[&str], input: &str) -> Result<()> {
        self.process = None;
        let command = self.host.with_input(&self.command(&[&["up"], arguments].concat()), input)?;
        self.process = Some(start(&self.host, command)?);
        Ok(())
    }

    /// How the client stands, as `adit-client status --json` tells it.
    pub fn status(&self) -> Result<ToldStatus> {
        let text = self.run(&["status", "--json"])?.success()?;
        serde_json::from_str(&text).with_context(|| format!("read the JSON of adit-client status: {text}"))
    }

    /// Ends the client with TERM and returns its exit code.
    pub fn stop(&mut self) -> Result<i32> {
        stop(self.process.take())
    }

    /// Kills the client.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The running process.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The client's inner addresses; empty while it has none.
    pub fn inner_addresses(&self) -> Result<Vec<IpAddr>> {
        inner_addresses(&self.host)
    }
}

/// The addresses of the TUN device but the kernel's own link-local one.
fn inner_addresses(host: &Host) -> Result<Vec<IpAddr>> {
    let addresses = host.addresses(TUN)?.iter().map(IpNet::addr).collect::<Vec<_>>();
    Ok(addresses.into_iter().filter(|a| !matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local())).collect())
}

/// Starts a program and waits until it tells its service manager, which is us, that it is ready (`sd_notify(3)`).
fn start(host: &Host, mut command: Command) -> Result<Process> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let path = host.folder().join(format!("notify-{}.sock", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let socket = UnixDatagram::bind(&path).with_context(|| format!("make {}", path.display()))?;
    socket.set_read_timeout(Some(LOOK)).context("set a time-out")?;
    command.env("NOTIFY_SOCKET", &path);
    let process = host.spawn(command)?;
    let deadline = Instant::now() + PATIENCE;
    let mut message = [0; 4096];
    loop {
        match socket.recv(&mut message) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&message[..length]);
                if text.lines().any(|line| line == "READY=1") {
                    return Ok(process);
                }
            }
            Err(error) if is_no_message_yet(error.kind()) => {}
            Err(error) => return Err(error).context("wait for a program to be ready"),
        }
        if let Some(code) = process.try_wait()? {
            bail!("the program ended with exit code {code} before it was ready\n{}", process.tail());
        }
        if Instant::now() >= deadline {
            bail!("the program was not ready in {PATIENCE:?}\n{}", process.tail());
        }
    }
}

/// Whether a wait for a message ended without one. A signal with a handler interrupts a wait that has a time-out, as
/// does the end of a child in tests that follow theirs.
fn is_no_message_yet(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn stop(process: Option<Process>) -> Result<i32> {
    let process = process.context("the program does not run")?;
    process.terminate()?;
    process.wait(PATIENCE)
}
