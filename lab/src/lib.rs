//! Network namespaces joined by cables, for demos, tests and benchmarks on one machine.
//!
//! A [`Host`] is a thread that moved into namespaces of its own. Closures and processes run in it; nothing of it is
//! left when the [`Lab`] is dropped, nor when this program is killed. The standard topology is
//!
//! ```text
//! client ── 192.0.2.16/28 ──┐
//!                           gateway ── 198.51.100.0/24 ── internet
//! client2 ─ 192.0.2.32/28 ──┘
//! ```
//!
//! Clients have a default route to the gateway; `internet` knows only its own link, so it answers nobody whose address
//! was not translated, and the gateway does not forward until somebody tells it to.

mod binaries;
mod compile;
mod features;
mod filter;
mod host;
mod moved_clock;
mod namespace;
mod netlink;
mod network;
mod nftables;
mod process;
pub mod programs;
mod relay;
mod snapshot;
pub mod traffic;
mod traveller;
mod user_namespace;
mod worker;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use adit_netem::{Counts, Profile};
use anyhow::{Context, Result};
use relay::Relay;
use tempfile::TempDir;

pub use binaries::{BIN_DIR, Binaries, binaries};
pub use compile::compile;
pub use features::Feature;
pub use host::{Host, LinkAddresses, Route};
pub use moved_clock::MovedClock;
pub use network::network;
pub use process::{Output, Process};
pub use traveller::{Move, Traveller};

pub use user_namespace::{check_permission, enter_user_namespace};

/// The gateway's address on the link of the first client, under which all clients reach it.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 17);
/// The gateway's IPv6 address on the link of the first client.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
/// The gateway's address on the link to `internet`: whom `internet` sees behind its address translation.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The gateway's IPv6 address on the link to `internet`.
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// The address of `internet`.
pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The IPv6 address of `internet`.
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2);

/// Clients that fit into 192.0.2.0/24 with 16 addresses each; the first block is left free.
const MAX_CLIENTS: u8 = 15;

/// Hosts joined by cables; everything vanishes on drop.
#[derive(Debug)]
pub struct Lab {
    // Before the hosts whose links it joins.
    relay: Option<Relay>,
    // Before the folder: the hosts' processes write to it.
    hosts: Vec<Host>,
    clients: u8,
    folder: TempDir,
}

impl Lab {
    /// Makes a lab without hosts.
    ///
    /// # Errors
    /// Fails with a [`Failure`](adit_program::exit::Failure) of exit code 6 where the system does not permit one.
    pub fn new() -> Result<Self> {
        check_permission()?;
        let folder = tempfile::Builder::new().prefix("adit-lab-").tempdir().context("make a folder for the lab")?;
        Ok(Self { relay: None, hosts: Vec::new(), clients: 0, folder })
    }

    /// Makes a lab with the hosts `client`, `gateway` and `internet`.
    pub fn standard() -> Result<Self> {
        let mut lab = Self::new()?;
        lab.host("gateway")?;
        lab.add_client()?;
        lab.add_internet()?;
        Ok(lab)
    }

    /// Adds the host `internet` behind `gateway`, which must exist.
    pub fn add_internet(&mut self) -> Result<Host> {
        let (gateway, internet) = (self.host("gateway")?, self.host("internet")?);
        let near = LinkAddresses::new((OUTSIDE_V4, 24), (OUTSIDE_V6, 64));
        let far = LinkAddresses::new((INTERNET_V4, 24), (INTERNET_V6, 64));
        self.link(&gateway, near, &internet, far)?;
        Ok(internet)
    }

    /// Makes a lab with `client` and `gateway` only, joined by a cable of MTU 1,500.
    ///
    /// With `wire` every packet is alone on the cable: no link segments in the receiver's stead, and the receiver
    /// merges what arrived as a network card's driver would (GRO).
    pub fn pair(wire: bool) -> Result<Self> {
        let mut lab = Self::new()?;
        let gateway = lab.host("gateway")?;
        let client = lab.add_client()?;
        if wire {
            for host in [&client, &gateway] {
                make_wire(host, "eth0")?;
            }
        }
        Ok(lab)
    }

    /// Makes a lab as [`Self::pair`] does with `wire`, but with a relay in the cable that does to frames what `profile`
    /// says, by chance that `seed` decides. Names, links and addresses are those of the plain cable.
    ///
    /// Both ends also compute their checksums, as frames leave the kernel on their way.
    pub fn pair_through(profile: &Profile, seed: u64) -> Result<Self> {
        let mut lab = Self::new()?;
        lab.host("gateway")?;
        lab.join_client(Some((profile, seed)))?;
        Ok(lab)
    }

    /// What became of the frames in the relay so far, from the client and to it; `None` where there is no relay.
    pub fn relayed(&self) -> Option<[Counts; 2]> {
        self.relay.as_ref().map(Relay::counts)
    }

    /// From now on has the relay drop packets of more than `mtu` bytes either way, and tell nobody: the path has become
    /// narrower somewhere in the middle.
    ///
    /// # Errors
    /// Fails where there is no relay.
    pub fn narrow(&self, mtu: usize) -> Result<()> {
        self.relay.as_ref().context("this lab has no relay")?.narrow(mtu);
        Ok(())
    }

    /// Adds a client (`client`, `client2`, …) with a link to `gateway`, which must exist, and default routes through
    /// it.
    pub fn add_client(&mut self) -> Result<Host> {
        self.join_client(None)
    }

    /// Adds a client whose link may be impaired.
    fn join_client(&mut self, impaired: Option<(&Profile, u64)>) -> Result<Host> {
        let number = self.clients + 1;
        anyhow::ensure!(number <= MAX_CLIENTS, "a lab has room for {MAX_CLIENTS} clients");
        self.clients = number;
        let gateway = self.host("gateway")?;
        let client = self.host(&if number == 1 { "client".to_owned() } else { format!("client{number}") })?;
        let v4 = |host| (Ipv4Addr::new(192, 0, 2, number * 16 + host), 28);
        let v6 = |host| (Ipv6Addr::new(0x2001, 0xdb8, 0, u16::from(number), 0, 0, 0, host), 64);
        let (near, far) = (LinkAddresses::new(v4(2), v6(2)), LinkAddresses::new(v4(1), v6(1)));
        if let Some((profile, seed)) = impaired {
            self.link_through([(&client, near), (&gateway, far)], profile, seed)?;
        } else {
            self.link(&client, near, &gateway, far)?;
        }
        client.add_default_route(IpAddr::V4(v4(1).0))?;
        client.add_default_route(IpAddr::V6(v6(1).0))?;
        Ok(client)
    }

    /// The host of that name, made at the first call.
    pub fn host(&mut self, name: &str) -> Result<Host> {
        if let Some(host) = self.hosts.iter().find(|host| host.name() == name) {
            return Ok(host.clone());
        }
        let host = Host::new(name, self.folder.path().join(name))?;
        self.hosts.push(host.clone());
        Ok(host)
    }

    /// Joins two hosts by a cable; returns the name of the link at each end.
    pub fn link(&self, a: &Host, of_a: LinkAddresses, b: &Host, of_b: LinkAddresses) -> Result<(String, String)> {
        a.link(of_a, b, of_b).with_context(|| format!("join {} and {}", a.name(), b.name()))
    }

    /// Joins two hosts by two cables that meet in a relay.
    fn link_through(&mut self, [a, b]: [(&Host, LinkAddresses); 2], profile: &Profile, seed: u64) -> Result<()> {
        let relay = self.host("relay")?;
        relay.stay_silent()?;
        let (of_a, near) = cable_to(&relay, a.0)?;
        let (of_b, far) = cable_to(&relay, b.0)?;
        self.relay = Some(Relay::start(&relay, &near, &far, profile, seed).context("start the relay")?);
        a.0.configure(&of_a, a.1)?;
        b.0.configure(&of_b, b.1)?;
        a.0.settle(&of_a)?;
        b.0.settle(&of_b)
    }

    /// A folder for files, removed with the lab.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Lets each packet be alone on a link, and be merged where it was alone on its way.
fn make_wire(host: &Host, link: &str) -> Result<()> {
    host.set_features(link, &features::ALONE)?;
    host.set_features(link, &features::MERGED)
}

/// Joins a host to a relay by a cable on which frames are as on a real one; returns the name of the link at each end.
fn cable_to(relay: &Host, host: &Host) -> Result<(String, String)> {
    let (outer, inner) = host.cable(relay).with_context(|| format!("join {} and a relay", host.name()))?;
    make_wire(host, &outer)?;
    host.set_features(&outer, &features::CHECKSUMMED)?;
    // Otherwise the other end takes what comes from there for merged already.
    relay.set_features(&inner, &features::ALONE)?;
    Ok((outer, inner))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// A lab, or `None` with a loud word where this user may not make one.
    fn lab() -> Option<Lab> {
        match check_permission() {
            Ok(()) => Some(Lab::standard().unwrap()),
            Err(failure) => {
                adit_testing::skip(failure);
                None
            }
        }
    }

    #[test]
    fn neighbours_reach_each_other_over_their_cable() {
        let Some(mut lab) = lab() else { return };
        let (client, gateway) = (lab.host("client").unwrap(), lab.host("gateway").unwrap());
        for address in [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)] {
            let listener = gateway.run(move || TcpListener::bind((address, 0)).unwrap());
            let port = listener.local_addr().unwrap().port();
            client.run(move || TcpStream::connect((address, port)).unwrap());
        }
    }

    #[test]
    fn gateway_does_not_forward_by_itself() {
        let Some(mut lab) = lab() else { return };
        let (client, internet) = (lab.host("client").unwrap(), lab.host("internet").unwrap());
        let listener = internet.run(|| TcpListener::bind((INTERNET_V4, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        // The positive control: somebody listens there.
        lab.host("gateway").unwrap().run(move || TcpStream::connect(address).unwrap());
        assert!(client.run(move || TcpStream::connect_timeout(&address, Duration::from_millis(200))).is_err());
    }

    #[test]
    fn second_client_reaches_the_gateway_under_the_same_address() {
        let Some(mut lab) = lab() else { return };
        let (second, gateway) = (lab.add_client().unwrap(), lab.host("gateway").unwrap());
        let listener = gateway.run(|| TcpListener::bind((GATEWAY_V4, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        second.run(move || TcpStream::connect(address).unwrap());
    }

    #[test]
    fn narrowed_path_drops_what_is_larger_and_tells_nobody() {
        if lab().is_none() {
            return;
        }
        let mut lab = Lab::pair_through(&Profile::shipped("clean").unwrap(), 1).unwrap();
        let (client, gateway) = (lab.host("client").unwrap(), lab.host("gateway").unwrap());
        let server = traffic::UdpEcho::start(&gateway, GATEWAY_V4.into()).unwrap();
        let arrived = |size| traffic::echo(&client, server.address(), 20, 1_000, size).unwrap().received;
        // A header of IPv4 and one of UDP come on top.
        assert_eq!(arrived(1_372 + 1), 20);
        lab.narrow(1_400).unwrap();
        assert_eq!((arrived(1_372 + 1), arrived(1_372)), (0, 20));
    }

    #[test]
    fn processes_end_with_the_lab() {
        let Some(mut lab) = lab() else { return };
        let client = lab.host("client").unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo started; sleep 1000 & wait"]);
        let process = client.spawn(shell).unwrap();
        process.wait_for_line("started", Duration::from_secs(10)).unwrap();
        let mine = format!("/proc/{}", process.id());
        assert!(Path::new(&mine).exists());
        let folder = lab.folder().to_owned();
        drop((client, lab));
        assert!(!Path::new(&mine).exists());
        assert!(!folder.exists());
        drop(process);
    }

    #[test]
    fn process_reports_its_exit_code_and_output() {
        let Some(mut lab) = lab() else { return };
        let client = lab.host("client").unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo out; echo err >&2; exit 3"]);
        let output = client.output(shell, Duration::from_secs(10)).unwrap();
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (3, "out\n", "err\n"));
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        let process = client.spawn(sleep).unwrap();
        assert!(process.wait(Duration::from_millis(20)).is_err());
        process.terminate().unwrap();
        assert_eq!(process.wait(Duration::from_secs(10)).unwrap(), 128 + 15);
    }

    #[test]
    fn snapshot_tells_changed_hosts_apart() {
        let Some(mut lab) = lab() else { return };
        let client = lab.host("client").unwrap();
        let before = client.settled().unwrap();
        client.run(|| std::fs::write("/etc/resolv.conf", "nameserver 10.0.0.1\n").unwrap());
        assert_ne!(client.snapshot().unwrap(), before);
        client.run(|| std::fs::write("/etc/resolv.conf", "nameserver 192.0.2.53\n").unwrap());
        assert_eq!(client.snapshot().unwrap(), before);
        client.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        assert_ne!(client.snapshot().unwrap(), before);
    }

    #[test]
    fn hosts_have_an_etc_of_their_own() {
        let Some(mut lab) = lab() else { return };
        let (client, gateway) = (lab.host("client").unwrap(), lab.host("gateway").unwrap());
        client.run(|| {
            std::fs::write("/etc/adit-test.new", "nameserver 10.0.0.1\n").unwrap();
            std::fs::rename("/etc/adit-test.new", "/etc/resolv.conf").unwrap();
            std::fs::write("/etc/adit-test", "").unwrap();
        });
        assert_eq!(client.run(|| std::fs::read_to_string("/etc/resolv.conf").unwrap()), "nameserver 10.0.0.1\n");
        assert_eq!(gateway.run(|| std::fs::read_to_string("/etc/resolv.conf").unwrap()), "nameserver 192.0.2.53\n");
        assert!(!Path::new("/etc/adit-test").exists());
        let real = std::fs::read("/etc/passwd").unwrap();
        assert_eq!(client.run(|| std::fs::read("/etc/passwd").unwrap()), real);
    }
}
