//! What all end-to-end tests begin with: a lab, the real programs in it, and bounded waits.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::programs::{Client, Gateway, ToldSession};
use adit_lab::traffic::{Dialogue, ping};
use adit_lab::{Host, INTERNET_V4, INTERNET_V6, Lab, Process};
use adit_netem::Profile;
use adit_testing::{PATIENCE, eventually};

/// Both addresses of the host behind the gateway.
pub(crate) const INTERNET: [IpAddr; 2] = [IpAddr::V4(INTERNET_V4), IpAddr::V6(INTERNET_V6)];

/// The mark of clients' own datagrams, which alone leave a host with a full tunnel beside it.
pub(crate) const CLIENT_MARK: u32 = 0x16;

/// What a test wants to begin with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options<'a> {
    /// Number of clients.
    pub(crate) clients: usize,
    /// Configuration keys that differ from what `adit-server init` wrote.
    pub(crate) settings: &'a [(&'a str, &'a str)],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { clients: 1, settings: &[] }
    }
}

/// How packets travel in a test that runs over each carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// The default.
    Esp,
    /// The only one where the gateway does not offer the other.
    Quic,
}

impl Carrier {
    /// As the programs name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Esp => "esp",
            Self::Quic => "quic",
        }
    }
}

/// A gateway and its clients in a lab.
#[derive(Debug)]
pub(crate) struct Tunnel {
    // Processes before the lab they run in.
    pub(crate) clients: Vec<Client>,
    pub(crate) gateway: Gateway,
    pub(crate) internet: Host,
    pub(crate) lab: Lab,
}

impl Tunnel {
    /// A lab with an initialised gateway and its clients, none of them running; `None` where labs are not permitted.
    pub(crate) fn prepare(options: Options<'_>) -> Option<Self> {
        Self::prepare_in(standard_lab()?, options)
    }

    /// As [`Self::prepare`], with a relay between client and gateway that does to frames what `profile` says, by chance
    /// that `seed` decides.
    pub(crate) fn prepare_through(profile: &Profile, seed: u64, options: Options<'_>) -> Option<Self> {
        let lab = permitted(|| {
            let mut lab = Lab::pair_through(profile, seed)?;
            lab.add_internet()?;
            Ok(lab)
        })?;
        Self::prepare_in(lab, options)
    }

    fn prepare_in(mut lab: Lab, options: Options<'_>) -> Option<Self> {
        let binaries = adit_lab::binaries().unwrap();
        let mut gateway = Gateway::new(&lab.host("gateway").unwrap(), &binaries);
        for (key, value) in options.settings {
            gateway.set(key, value);
        }
        let mut hosts = vec![lab.host("client").unwrap()];
        while hosts.len() < options.clients {
            hosts.push(lab.add_client().unwrap());
        }
        let clients = hosts.iter().map(|host| Client::new(host, &binaries)).collect();
        let internet = lab.host("internet").unwrap();
        gateway.init().unwrap().success().unwrap();
        Some(Self { clients, gateway, internet, lab })
    }

    /// As [`Self::prepare`], for sessions that travel by `carrier`.
    pub(crate) fn prepare_over(carrier: Carrier, options: Options<'_>) -> Option<Self> {
        let mut settings = options.settings.to_vec();
        if carrier == Carrier::Quic {
            settings.push(("esp.enabled", "false"));
        }
        Self::prepare(Options { settings: &settings, ..options })
    }

    /// As [`Self::start`], with every session on `carrier`.
    pub(crate) fn start_over(carrier: Carrier, options: Options<'_>) -> Option<Self> {
        let mut tunnel = Self::prepare_over(carrier, options)?;
        tunnel.run();
        tunnel.travels_by(carrier);
        Some(tunnel)
    }

    /// Everything running, each client joined as `user1`, `user2` …; `None` where labs are not permitted.
    pub(crate) fn start(options: Options<'_>) -> Option<Self> {
        let mut tunnel = Self::prepare(options)?;
        tunnel.run();
        Some(tunnel)
    }

    /// Starts everything, each client joined as `user1`, `user2` ….
    pub(crate) fn run(&mut self) {
        self.gateway.start().unwrap();
        for number in 0..self.clients.len() {
            self.join(number);
            self.clients[number].up().unwrap();
        }
    }

    /// Waits until both ends of every session say that packets travel by `carrier`.
    pub(crate) fn travels_by(&self, carrier: Carrier) {
        eventually(&format!("packets travel by {}", carrier.name()), || {
            let running = self.clients.iter().filter(|client| client.process().is_some());
            let near = running.map(|client| client.status().unwrap().carrier);
            let far = self.gateway.sessions().unwrap().into_iter().map(|session| Some(session.carrier));
            near.chain(far).all(|name| name.as_deref() == Some(carrier.name())).then_some(())
        });
    }

    /// Enrols a client as `user1`, `user2` ….
    pub(crate) fn join(&self, number: usize) {
        let link = self.gateway.invite(&format!("user{}", number + 1), &[]).unwrap();
        self.clients[number].join(&link).unwrap().success().unwrap();
    }

    /// The only client.
    pub(crate) fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// The session that holds an inner address.
    pub(crate) fn session_of(&self, address: IpAddr) -> Option<ToldSession> {
        let sessions = self.gateway.sessions().unwrap();
        sessions.into_iter().find(|session| session.addresses.contains(&address))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if thread::panicking() {
            let processes = self.clients.iter().filter_map(Client::process).chain(self.gateway.process());
            eprintln!("what the programs said last:\n{}", processes.map(Process::tail).collect::<String>());
        }
    }
}

/// Compiles C source to a library for `LD_PRELOAD`; `None`, loudly, where that cannot be done.
pub(crate) fn preloaded(folder: &Path, name: &str, source: &str) -> Option<PathBuf> {
    compiled(folder, &format!("{name}.so"), source, &["-shared", "-fPIC"])
}

/// Compiles C source to a program; `None`, loudly, where that cannot be done.
pub(crate) fn compiled(folder: &Path, name: &str, source: &str, options: &[&str]) -> Option<PathBuf> {
    tool(adit_lab::compile(folder, name, source, options))
}

/// What was compiled; `None`, loudly, where that could not be done.
pub(crate) fn tool<T>(compiled: anyhow::Result<T>) -> Option<T> {
    compiled.inspect_err(|error| adit_testing::skip(format!("needs cc: {error:#}"))).ok()
}

/// [`Host::filter`], which the lab's hosts can do where nft is installed.
pub(crate) fn filter(host: &Host, name: &str, rules: &[(&str, &str)]) {
    host.filter(name, rules).unwrap();
}

/// Takes back [`filter`].
pub(crate) fn unfilter(host: &Host, name: &str) {
    host.unfilter(name).unwrap();
}

/// Runs a command in a host to its end and returns what it printed.
pub(crate) fn run(host: &Host, command: &[&str]) -> String {
    let mut process = Command::new(command[0]);
    process.args(&command[1..]);
    host.output(process, PATIENCE).unwrap().success().unwrap()
}

/// Runs nft(8) on a host.
pub(crate) fn nft(host: &Host, commands: &str) -> String {
    host.nft(commands).unwrap()
}

/// Runs ip(8) on a host, with arguments separated by single spaces.
pub(crate) fn ip(host: &Host, arguments: &str) -> String {
    host.ip(arguments).unwrap()
}

/// Sets a sysctl of the host, such as `net/ipv4/ip_forward`.
pub(crate) fn sysctl(host: &Host, key: &str, value: &str) {
    let (path, value) = (format!("/proc/sys/{key}"), value.to_owned());
    host.run(move || std::fs::write(path, value).unwrap());
}

/// The standard lab; `None`, loudly, where this user may not make one. In CI that is a failure.
pub(crate) fn standard_lab() -> Option<Lab> {
    permitted(Lab::standard)
}

fn permitted(make: impl FnOnce() -> anyhow::Result<Lab>) -> Option<Lab> {
    match adit_lab::check_permission() {
        Ok(()) => Some(make().unwrap()),
        Err(failure) => {
            adit_testing::skip(failure);
            None
        }
    }
}

/// Whether an echo request is answered within a second.
pub(crate) fn answers(host: &Host, target: IpAddr) -> bool {
    ping(host, target, Duration::from_secs(1)).unwrap().rtt().is_some()
}

/// Waits until an address answers; panics after [`PATIENCE`].
pub(crate) fn reach(host: &Host, target: IpAddr) {
    eventually(&format!("{} reaches {target}", host.name()), || answers(host, target).then_some(()));
}

/// Waits until packets arrive in both directions that did not before `since`.
pub(crate) fn flows(dialogue: &Dialogue, since: Instant) {
    eventually("packets flow both ways", || {
        dialogue.arrived_since(since).iter().all(|count| *count > 50).then_some(())
    });
}

/// Waits until a host looks exactly as before; panics with what differs after [`PATIENCE`].
pub(crate) fn assert_as_before(host: &Host, before: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = host.snapshot().unwrap();
        if now == before {
            return;
        }
        if Instant::now() > deadline {
            let gone = before.lines().filter(|line| !now.lines().any(|other| other == *line));
            let new = now.lines().filter(|line| !before.lines().any(|other| other == *line));
            let differences = gone.map(|line| format!("- {line}\n")).chain(new.map(|line| format!("+ {line}\n")));
            panic!("{} is not as before:\n{}", host.name(), differences.collect::<String>());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
