//! One host of the lab, and the links between hosts.

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::net::if_::if_nametoindex;

use super::namespace::Namespace;
use super::process::{Output, Process};
use super::programs::PATIENCE;
use super::{Feature, features, netlink, snapshot};

/// What a host's resolver file says at first; nobody answers at that address.
const RESOLV_CONF: &str = "nameserver 192.0.2.53\n";

/// Longest wait for what the kernel does by itself; it needs milliseconds.
const SETTLING: Duration = Duration::from_secs(10);

/// A host that looks the same for this long has settled.
const BETWEEN_SNAPSHOTS: Duration = Duration::from_millis(100);

/// A host with its own network, mounts, host name and processes; a cheap handle.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    folder: PathBuf,
    namespace: Namespace,
    links: AtomicU32,
    processes: AtomicU32,
}

/// The IPv4 and IPv6 address of one end of a link, with their prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkAddresses {
    /// IPv4 address and prefix.
    pub v4: Ipv4Net,
    /// IPv6 address and prefix.
    pub v6: Ipv6Net,
}

impl LinkAddresses {
    /// Joins an IPv4 and an IPv6 address with their prefix lengths.
    ///
    /// # Panics
    /// Panics where a prefix is longer than an address.
    pub fn new(v4: (Ipv4Addr, u8), v6: (Ipv6Addr, u8)) -> Self {
        let v4 = Ipv4Net::new(v4.0, v4.1).expect("an IPv4 prefix has at most 32 bits");
        let v6 = Ipv6Net::new(v6.0, v6.1).expect("an IPv6 prefix has at most 128 bits");
        Self { v4, v6 }
    }
}

/// A route as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its destination.
    pub destination: IpNet,
    /// Number of its table.
    pub table: u32,
    /// Name of its link, unless it has none.
    pub link: Option<String>,
}

impl Host {
    /// Makes the host; its files go to `folder`.
    pub(super) fn new(name: &str, folder: PathBuf) -> Result<Self> {
        // Whatever the umask is: the programs refuse files below a folder that others may write.
        DirBuilder::new().mode(0o755).create(&folder).with_context(|| format!("make {}", folder.display()))?;
        let namespace = Namespace::new(name, RESOLV_CONF).with_context(|| format!("make the lab host {name}"))?;
        let (links, processes) = (AtomicU32::new(0), AtomicU32::new(0));
        Ok(Self(Arc::new(Inner { name: name.to_owned(), folder, namespace, links, processes })))
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A folder for the host's own files, removed with the lab.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Id of a process that lives as long as the host, for entering its namespaces.
    pub fn pid(&self) -> u32 {
        self.0.namespace.init_pid()
    }

    /// Runs `job` on a thread in the host and waits for its value.
    ///
    /// # Panics
    /// Panics where the job does.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(job).join().unwrap_or_else(|reason| panic::resume_unwind(reason))
    }

    /// Starts `job` on its own thread in the host.
    ///
    /// # Panics
    /// Panics where the system refuses a thread.
    pub fn start<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.0.namespace.start(job).expect("the system has room for a thread")
    }

    /// Starts a process in the host; its output goes to files in the host's folder.
    pub fn spawn(&self, mut command: Command) -> Result<Process> {
        let number = self.0.processes.fetch_add(1, Ordering::Relaxed);
        let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{}: {program}", self.0.name);
        let log = self.0.folder.join(format!("{number}-{program}"));
        Process::capture(&mut command, name, &log, |command| self.0.namespace.spawn(command))
    }

    /// A command whose standard input is this text, which goes to a file in the host's folder.
    pub fn with_input(&self, command: &Command, input: &str) -> Result<Command> {
        let file = self.folder().join("input");
        fs::write(&file, input).with_context(|| format!("write {}", file.display()))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" <\"$INPUT\""]).arg(command.get_program()).args(command.get_args());
        shell.env("INPUT", file);
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ok(shell)
    }

    /// Runs a process in the host to its end; fails where it takes longer than `limit`.
    pub fn output(&self, command: Command, limit: Duration) -> Result<Output> {
        self.spawn(command)?.output(limit)
    }

    /// Runs ip(8) on the host, with arguments separated by single spaces, and returns what it printed.
    ///
    /// # Errors
    /// Fails where it is not installed, or says why it does not do this.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let mut ip = Command::new("ip");
        ip.args(arguments.split(' '));
        self.output(ip, PATIENCE)?.success().with_context(|| format!("ip {arguments}"))
    }

    /// Adds a default route for the family of `via`.
    pub fn add_default_route(&self, via: IpAddr) -> Result<()> {
        self.run(move || netlink::run(async |handle| netlink::add_default_route(&handle, via).await))
    }

    /// Adds a route to a network through a neighbour.
    pub fn add_route(&self, to: IpNet, via: IpAddr) -> Result<()> {
        self.run(move || netlink::run(async |handle| netlink::add_route(&handle, to, via).await))
    }

    /// Pulls (`false`) or plugs (`true`) the cable of one of the host's links.
    pub fn set_link(&self, link: &str, up: bool) -> Result<()> {
        let link = link.to_owned();
        self.run(move || netlink::run(async |handle| netlink::set_link(&handle, &link, up).await))
    }

    /// Limits the packets that one of the host's links takes, as the cable's other end should be too.
    pub fn set_mtu(&self, link: &str, mtu: u32) -> Result<()> {
        let link = link.to_owned();
        self.run(move || netlink::run(async |handle| netlink::set_mtu(&handle, &link, mtu).await))
    }

    /// Gives one of the host's links an address and sets it up, as a person would who configures a tunnel by hand.
    pub fn add_address(&self, link: &str, address: IpNet) -> Result<()> {
        let link = link.to_owned();
        self.run(move || {
            netlink::run(async |handle| {
                netlink::add_address(&handle, &link, address).await?;
                netlink::set_link(&handle, &link, true).await
            })
        })
    }

    /// Replaces an IPv4 address of a link by another one of its network; routes stay.
    pub fn replace_address(&self, link: &str, old: IpNet, new: IpNet) -> Result<()> {
        // Otherwise the new one, which is its network's second, goes with the first.
        const PROMOTE: &str = "/proc/sys/net/ipv4/conf/all/promote_secondaries";
        let link = link.to_owned();
        self.run(move || {
            fs::write(PROMOTE, "1").with_context(|| format!("write {PROMOTE}"))?;
            netlink::run(async |handle| {
                netlink::add_address(&handle, &link, new).await?;
                netlink::remove_address(&handle, &link, old).await
            })
        })
    }

    /// The largest packet one of the host's links takes.
    pub fn mtu(&self, link: &str) -> Result<u32> {
        let link = link.to_owned();
        self.run(move || netlink::run(async |handle| netlink::mtu(&handle, &link).await))
    }

    /// Switches offloads of one of the host's links on or off, by the names `ethtool -k` has for them.
    pub fn set_features(&self, link: &str, wanted: &'static [Feature]) -> Result<()> {
        let link = link.to_owned();
        self.run(move || features::set(&link, wanted))
    }

    /// The offloads of one of the host's links that are on.
    pub fn features(&self, link: &str) -> Result<Vec<String>> {
        let link = link.to_owned();
        self.run(move || features::active(&link))
    }

    /// The index of one of the host's links.
    pub fn link_index(&self, link: &str) -> Result<usize> {
        let name = link.to_owned();
        let index = self.run(move || if_nametoindex(name.as_str())).with_context(|| format!("look for link {link}"))?;
        usize::try_from(index).context("an index fits")
    }

    /// The addresses of a link; empty where there is no such link.
    pub fn addresses(&self, link: &str) -> Result<Vec<IpNet>> {
        let link = link.to_owned();
        self.run(move || {
            netlink::run(async |handle| {
                let links = netlink::links(&handle).await?;
                let Some(found) = links.iter().find(|message| netlink::link_name(message) == Some(&link)) else {
                    return Ok(Vec::new());
                };
                let all = netlink::addresses(&handle).await?;
                Ok(all.iter().filter(|a| a.header.index == found.header.index).filter_map(netlink::address).collect())
            })
        })
    }

    /// All routes but those of the kernel's own `local` table.
    pub fn routes(&self) -> Result<Vec<Route>> {
        const LOCAL: u32 = 255;
        self.run(|| {
            netlink::run(async |handle| {
                let links = netlink::links(&handle).await?;
                let name = |index| {
                    let found = links.iter().find(|message| message.header.index == index);
                    found.and_then(netlink::link_name).map(str::to_owned)
                };
                let routes = netlink::routes(&handle).await?;
                let routes = routes.iter().filter_map(netlink::destination).filter(|(_, table, _)| *table != LOCAL);
                Ok(routes
                    .map(|(to, table, link)| Route { destination: to, table, link: link.and_then(name) })
                    .collect())
            })
        })
    }

    /// Everything Adit may change on a host, as text: equal texts mean equal hosts.
    pub fn snapshot(&self) -> Result<String> {
        self.run(snapshot::take)
    }

    /// A snapshot taken when the kernel has finished with what it does by itself (link-local addresses and their
    /// routes).
    pub fn settled(&self) -> Result<String> {
        let deadline = Instant::now() + SETTLING;
        let mut last = self.snapshot()?;
        loop {
            thread::sleep(BETWEEN_SNAPSHOTS);
            let now = self.snapshot()?;
            if now == last {
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "{} does not settle", self.name());
            last = now;
        }
    }

    /// Joins two hosts by a cable whose ends have addresses; returns the name of the link at each end.
    pub(super) fn link(&self, mine: LinkAddresses, other: &Self, theirs: LinkAddresses) -> Result<(String, String)> {
        let (near, far) = self.cable(other)?;
        self.configure(&near, mine)?;
        other.configure(&far, theirs)?;
        self.settle(&near)?;
        other.settle(&far)?;
        Ok((near, far))
    }

    /// Joins two hosts by a cable whose ends are down; returns the name of the link at each end.
    pub(super) fn cable(&self, other: &Self) -> Result<(String, String)> {
        if Arc::ptr_eq(&self.0, &other.0) {
            bail!("a link joins two hosts");
        }
        let near = format!("eth{}", self.0.links.fetch_add(1, Ordering::Relaxed));
        let far = format!("eth{}", other.0.links.fetch_add(1, Ordering::Relaxed));
        let namespace = other.0.namespace.descriptor().try_clone().context("copy a namespace descriptor")?;
        let names = (near.clone(), far.clone());
        self.run(move || {
            netlink::run(async |handle| netlink::add_veth(&handle, &names.0, &names.1, &namespace).await)
        })?;
        Ok((near, far))
    }

    /// Keeps the kernel from saying anything of its own on links that the host gets from now on.
    pub(super) fn stay_silent(&self) -> Result<()> {
        const DISABLE_V6: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
        self.run(|| fs::write(DISABLE_V6, "1").with_context(|| format!("write {DISABLE_V6}")))
    }

    /// Waits until the kernel has given a link its IPv6 link-local address, so that later changes are somebody's doing.
    pub(super) fn settle(&self, link: &str) -> Result<()> {
        let deadline = Instant::now() + SETTLING;
        let link_local = |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
        while !self.addresses(link)?.iter().any(link_local) {
            ensure!(Instant::now() < deadline, "{link} of {} has no IPv6 link-local address", self.name());
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Sets a link up and gives it its addresses.
    pub(super) fn configure(&self, link: &str, addresses: LinkAddresses) -> Result<()> {
        let link = link.to_owned();
        self.run(move || {
            netlink::run(async |handle| {
                netlink::set_link(&handle, &link, true).await?;
                netlink::add_address(&handle, &link, addresses.v4.into()).await?;
                netlink::add_address(&handle, &link, addresses.v6.into()).await
            })
        })
    }
}
