//! What can be measured: the bare cable, Adit in its variants, and other VPNs that are installed here.
//!
//! Each is started in a lab of its own, with a `client` and a `gateway` joined by one cable, so nothing of the one is
//! there when the next is measured. A new one is an implementation of [`System`] and a line in [`catalogue`].

mod adit;
pub(crate) mod anyconnect;
mod identity;
mod keys;
mod nebula;
mod ocserv;
mod openconnect;
mod openvpn;
mod plain;
mod quincy;
mod wireguard;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use adit_program::exit::Failure;
use anyhow::{Result, bail};

use crate::interrupt::Interrupt;
use adit_lab::traffic::Beacon;
use adit_lab::{Host, Lab, Process};

pub use adit::{Variant, own_variants};

/// Environment variable that names the folder `install-peers.sh` installed to.
pub const PEERS_DIR: &str = "ADIT_PEERS";

/// Longest wait for a tunnel that carries packets.
const PATIENCE: Duration = Duration::from_secs(20);

/// MTU of every tunnel whose programs can be told one: what WireGuard takes of a cable of 1,500 bytes, with room for an
/// outer IPv6 header.
const MTU: u32 = 1_420;

/// Packets that wait for a program at its TUN device: the kernel's default for such a device, which most leave as it
/// is.
const QUEUE_LENGTH: u32 = 500;

/// Something that carries packets from `client` to `gateway`.
pub trait System: Debug {
    /// Its name, as `--systems` takes it.
    fn name(&self) -> &str;

    /// Whether it takes part only where somebody names it.
    fn is_by_name_only(&self) -> bool {
        false
    }

    /// The programs it runs, gateway first.
    ///
    /// # Errors
    /// Fails with a reason and a next step where one is not installed.
    fn programs(&self) -> Result<Vec<PathBuf>, Failure>;

    /// The cipher, the threads, and what differs from what its authors ship, for the report.
    fn settings(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Starts it in a lab of [`Lab::pair`]; packets may not pass yet.
    ///
    /// # Errors
    /// Fails with what its programs said last.
    fn start(&self, lab: Lab) -> Result<Running>;
}

/// A system that was started; everything of it ends on drop.
#[derive(Debug)]
pub struct Running {
    /// Where the traffic to the gateway starts.
    pub client: End,
    /// Where it ends.
    pub gateway: End,
    // Before the lab: its processes run there.
    owner: Box<dyn Owner>,
    lab: Lab,
}

/// What keeps a system running.
trait Owner: Debug {
    /// The carrier packets travel by now, where the system has a choice and tells.
    fn carrier(&self) -> Option<String> {
        None
    }

    /// Packets that each end says it dropped until now, by reason; empty where the system does not tell.
    fn drops(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// Ends the client in order and starts it again; `None` where the system cannot do that.
    fn restart_client(&mut self) -> Option<Result<Restart>> {
        None
    }

    /// Kills the gateway and starts it again, while the client is left alone; `None` where the system cannot do that.
    fn restart_gateway(&mut self) -> Option<Result<Restart>> {
        None
    }
}

impl Owner for () {}

impl Owner for Vec<Process> {}

/// One end that ended and runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restart {
    /// When it had ended.
    pub(crate) ended: Instant,
    /// When it was started again.
    pub(crate) started: Instant,
    pub(crate) process: u32,
}

/// One end of a tunnel.
#[derive(Debug, Clone)]
pub struct End {
    /// Its host.
    pub host: Host,
    /// The link packets enter the tunnel by.
    pub link: String,
    /// Its address in the tunnel.
    pub address: Ipv4Addr,
    /// The process that carries the packets, itself or by its children, where there is one.
    pub process: Option<u32>,
}

impl End {
    /// One end whose packets `process` carries.
    fn of(host: &Host, link: &str, address: Ipv4Addr, process: &Process) -> Self {
        Self { host: host.clone(), link: link.to_owned(), address, process: Some(process.id()) }
    }
}

impl Running {
    /// The processes of both ends.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        [&self.client, &self.gateway].into_iter().filter_map(|end| end.process)
    }

    /// The carrier packets travel by now, where the system has a choice and tells.
    #[must_use]
    pub fn carrier(&self) -> Option<String> {
        self.owner.carrier()
    }

    /// Another host with a link to the gateway, which belongs to nobody.
    pub(crate) fn stranger(&mut self) -> Result<Host> {
        self.lab.add_client()
    }

    /// Packets that the programs say they dropped until now, by reason; empty where they do not tell.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        self.owner.drops()
    }

    /// Frames that the impaired network between the ends lost until now because it was too slow itself; `None` where
    /// there is no such network.
    pub(crate) fn relay_overrun(&self) -> Option<u64> {
        Some(self.lab.relayed()?.iter().map(|counts| counts.overrun).sum())
    }

    /// Ends the client in order and starts it again; `None` where the system cannot do that.
    pub(crate) fn restart_client(&mut self) -> Option<Result<Restart>> {
        let restart = self.owner.restart_client()?;
        Some(restart.inspect(|restart| self.client.process = Some(restart.process)))
    }

    /// Kills the gateway and starts it again, while the client is left alone; `None` where the system cannot do that.
    pub(crate) fn restart_gateway(&mut self) -> Option<Result<Restart>> {
        let restart = self.owner.restart_gateway()?;
        Some(restart.inspect(|restart| self.gateway.process = Some(restart.process)))
    }

    /// Echo requests from the client to the gateway, through the tunnel.
    pub(crate) fn beacon(&self) -> Beacon {
        Beacon::start(&self.client.host, &self.client.link, self.gateway.address)
    }

    /// Waits until an echo request from the client is answered.
    pub(crate) fn wait_until_it_carries(&self, interrupt: &Interrupt) -> Result<()> {
        let (start, beacon) = (Instant::now(), self.beacon());
        while start.elapsed() < PATIENCE {
            if beacon.first_answer(start).is_some() {
                return Ok(());
            }
            interrupt.pause(Duration::from_millis(2))?;
        }
        bail!("no packet passed in {PATIENCE:?}")
    }
}

/// All systems known here, in the order in which they are shown.
#[must_use]
pub fn catalogue(variants: &[Variant], peers: &Programs) -> Vec<Box<dyn System>> {
    let mut systems: Vec<Box<dyn System>> = vec![Box::new(plain::Plain)];
    systems.extend(variants.iter().map(|variant| Box::new(adit::Adit::new(variant.clone())) as Box<dyn System>));
    systems.push(Box::new(wireguard::WireGuard::go(peers)));
    systems.push(Box::new(wireguard::WireGuard::boringtun(peers)));
    systems.push(Box::new(wireguard::WireGuard::gotatun(peers)));
    systems.push(Box::new(nebula::Nebula::new(peers)));
    systems.push(Box::new(openvpn::OpenVpn::new(peers)));
    systems.push(Box::new(quincy::Quincy::tls(peers)));
    systems.push(Box::new(quincy::Quincy::noise(peers)));
    systems.extend(anyconnect::all(peers).map(|system| Box::new(system) as Box<dyn System>));
    systems
}

/// Settings by name.
fn told(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Where the programs of other VPNs are.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// Looks in `folder` first, then where `ADIT_PEERS` and `install-peers.sh` have them, then in `PATH`.
    #[must_use]
    pub fn new(folder: Option<&Path>) -> Self {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        let installed = [
            folder.map(Path::to_owned),
            env::var_os(PEERS_DIR).map(PathBuf::from),
            cache.map(|cache| cache.join("adit-peers")),
        ];
        let mut folders: Vec<PathBuf> = installed.into_iter().flatten().map(|folder| folder.join("bin")).collect();
        folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        Self { folders }
    }

    /// The path of a program.
    fn find(&self, program: &str) -> Result<PathBuf, Failure> {
        let found = self.folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file());
        found.ok_or_else(|| {
            let next = "run bench/install-peers.sh, or name its folder with --peers-dir";
            Failure::new(adit_program::exit::Exit::Unsupported, program, "is not installed", next)
        })
    }
}

/// The value `probe` gives, asked until it does; fails with what `process` said last.
fn wait_for<T>(what: &str, process: &Process, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if process.try_wait()?.is_some() || Instant::now() > deadline {
            bail!("{what} never came\n{}", process.tail());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_systems_are_distinct() {
        let systems = catalogue(&own_variants(), &Programs::default());
        let mut names: Vec<_> = systems.iter().map(|system| system.name().to_owned()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), systems.len());
    }

    #[test]
    fn missing_program_has_a_next_step() {
        let failure = Programs::default().find("no-such-program").unwrap_err();
        assert!(failure.to_string().contains("install-peers.sh"), "{failure}");
    }
}
