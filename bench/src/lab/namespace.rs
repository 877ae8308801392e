//! The namespaces of one lab host: network, mounts and host name in one thread, process ids in a second one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
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
    /// Makes the namespaces of the host `name`; `resolv_conf` becomes its `/etc/resolv.conf`.
    pub(super) fn new(name: &str, resolv_conf: PathBuf) -> Result<Self> {
        let host = name.to_owned();
        let network = Worker::start(name, move || enter(&host, &resolv_conf))?;
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
fn enter(name: &str, resolv_conf: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("make network, mount and host-name namespaces")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make all mounts private")?;
    sethostname(name).context("set the host name")?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
        .context("mount a private /run")?;
    // Nothing of ours reads /sys, and a container may not allow it: a foreign one is good enough then.
    let _unneeded = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none);
    bind_resolv_conf(resolv_conf)?;
    for (key, value) in SYSCTLS {
        let path = Path::new("/proc/sys").join(key);
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))?;
    }
    netlink::run(async |handle| netlink::set_link(&handle, "lo", true).await)
}

/// Puts the private file over `/etc/resolv.conf`, or over the file in `/run` it links to.
fn bind_resolv_conf(private: &Path) -> Result<()> {
    let target =
        fs::read_link(RESOLV_CONF).map_or_else(|_| PathBuf::from(RESOLV_CONF), |link| Path::new("/etc").join(link));
    if !target.exists() && target != Path::new(RESOLV_CONF) {
        // A link into /run, which is private and empty now.
        let folder = target.parent().context("resolv.conf links to a file")?;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        fs::write(&target, "").with_context(|| format!("make {}", target.display()))?;
    }
    mount(Some(private), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("bind a private file over {}", target.display()))
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
