//! The namespaces of one lab host: network, mounts and host name in one thread, process ids in a second one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use super::netlink;
use super::worker::Worker;

/// Where every host has its own resolver configuration.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where a host sees the real `/etc`.
const REAL_ETC: &str = "/run/etc";

/// Sysctls of every lab host: addresses are usable at once and nobody configures them from outside.
const SYSCTLS: [(&str, &str); 6] = [
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
];

/// A set of namespaces, held by two threads; it vanishes, with every process in it, on drop.
#[derive(Debug)]
pub(super) struct Namespace {
    // Dropped in this order: processes first, then the thread that starts them, then the network.
    children: Children,
    spawner: Worker,
    network: Worker,
    descriptor: File,
}

impl Namespace {
    /// Makes the namespaces of the host `name`; its `/etc/resolv.conf` holds `resolv_conf`.
    pub(super) fn new(name: &str, resolv_conf: &'static str) -> Result<Self> {
        let host = name.to_owned();
        let network = Worker::start(name, move || enter(&host, resolv_conf))?;
        let (descriptor, spawner) = network.run(|| (open_network(), start_spawner()));
        let (spawner, init) = spawner?;
        Ok(Self { children: Children::new(init), spawner, network, descriptor: descriptor? })
    }

    /// Starts a thread in the namespaces.
    pub(super) fn start<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        self.network.run(|| thread::Builder::new().name("lab-job".to_owned()).spawn(job))
    }

    /// Starts a process in the namespaces; it is killed and reaped when they end.
    pub(super) fn spawn(&self, mut command: Command) -> io::Result<Arc<Mutex<Child>>> {
        use std::os::unix::process::CommandExt as _;
        // Ctrl-C at the terminal is for the owner of the lab, who then ends the processes in order.
        command.process_group(0);
        let child = self.spawner.run(move || command.spawn())?;
        Ok(self.children.adopt(child))
    }

    /// The network namespace, for moving a link into it.
    pub(super) fn descriptor(&self) -> &File {
        &self.descriptor
    }

    /// Process id of the first process of the process namespace; its namespaces can be entered by it.
    pub(super) fn init_pid(&self) -> u32 {
        self.children.init.id()
    }
}

/// Moves the calling thread into new namespaces and makes them habitable.
fn enter(name: &str, resolv_conf: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("make network, mount and host-name namespaces")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make all mounts private")?;
    sethostname(name).context("set the host name")?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
        .context("mount a private /run")?;
    // Nothing of ours reads /sys, and a container may not allow it: a foreign one is good enough then.
    let _unneeded = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none);
    make_private_etc(resolv_conf)?;
    for (key, value) in SYSCTLS {
        let path = Path::new("/proc/sys").join(key);
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))?;
    }
    netlink::run(async |handle| netlink::set_link(&handle, "lo", true).await)
}

/// Gives the host an `/etc` of its own, which leads to the real files but for its own resolver configuration.
///
/// A link stays the link it is; anything else becomes a link to the real thing. So a program can make and replace files
/// there, and nobody outside sees them.
fn make_private_etc(resolv_conf: &str) -> Result<()> {
    let none = None::<&str>;
    fs::create_dir(REAL_ETC).with_context(|| format!("make {REAL_ETC}"))?;
    mount(Some("/etc"), REAL_ETC, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).context("bind the real /etc")?;
    // Where the system does not permit that, the real files are as safe as their owner made them.
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let _unprotected = mount(none, REAL_ETC, none, read_only, none);
    mount(Some("etc"), "/etc", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
        .context("mount a private /etc")?;
    for entry in fs::read_dir(REAL_ETC).with_context(|| format!("list {REAL_ETC}"))? {
        let real = entry.with_context(|| format!("list {REAL_ETC}"))?;
        let link = Path::new("/etc").join(real.file_name());
        if link != Path::new(RESOLV_CONF) {
            let target = fs::read_link(real.path()).unwrap_or_else(|_| real.path());
            symlink(target, &link).with_context(|| format!("make {}", link.display()))?;
        }
    }
    fs::write(RESOLV_CONF, resolv_conf).with_context(|| format!("write {RESOLV_CONF}"))
}

fn open_network() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context("open the network namespace")
}

/// Starts the thread whose children live in their own process namespace.
///
/// The first of them is a `cat` that reads a pipe of ours: when this program ends, however it ends, `cat` reads the
/// pipe's end and leaves, and the kernel then kills whatever else runs in the namespace.
fn start_spawner() -> Result<(Worker, Child)> {
    use std::os::unix::process::CommandExt as _;
    let spawner =
        Worker::start("lab-spawner", || unshare(CloneFlags::CLONE_NEWPID).context("make a process namespace"))?;
    let init = spawner.run(|| {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn()
    });
    Ok((spawner, init.context("start cat as the first process of the namespace")?))
}

/// The processes of one namespace.
#[derive(Debug)]
struct Children {
    init: Child,
    others: Mutex<Vec<Arc<Mutex<Child>>>>,
}

impl Children {
    fn new(init: Child) -> Self {
        Self { init, others: Mutex::default() }
    }

    fn adopt(&self, child: Child) -> Arc<Mutex<Child>> {
        let child = Arc::new(Mutex::new(child));
        self.others.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&child));
        child
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        // Our own children first: the kernel keeps the namespace's first process until all others are reaped.
        for child in self.others.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            reap(&mut child.lock().unwrap_or_else(PoisonError::into_inner));
        }
        reap(&mut self.init);
    }
}

/// Kills a process and waits for its end; does nothing where it has ended already.
pub(super) fn reap(child: &mut Child) {
    // An error means that it ended and was waited for before.
    let _ended = child.kill();
    let _status = child.wait();
}
