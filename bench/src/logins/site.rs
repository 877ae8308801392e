//! Where a gateway is flooded: a lab with a client that is connected, users, and a host of whoever floods.
//!
//! Everybody but the connected client lives in one host, which has all of the addresses that are set aside for
//! benchmarks (RFC 2544). The gateway takes more connections of one network than it does by default, and more than the
//! flood has, so that the flood comes as far as the logins and leaves room for users.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use adit_lab::programs::{Client, Gateway, PATIENCE};
use adit_lab::traffic::UdpEcho;
use adit_lab::{GATEWAY_V4, Host, INTERNET_V4, Lab, Process};
use adit_net::{quic, tls};
use adit_server::accounts::sqlite::Store;
use adit_server::accounts::{FirstPassword, UserName};
use adit_server::directories::StateDir;
use adit_server::identity::Authority;
use adit_server::sources::local::hashers::HashCounts;
use adit_server::sources::local::passwords::{self, Cost, Memory, Password};
use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::runtime::Runtime;

use super::options::Options;
use super::plan;
use super::wire::Door;
use crate::load::passes;
use crate::report::machine::Program;
use crate::runtime;

/// The password of every user.
pub(super) const PASSWORD: &str = "correct horse battery";
/// Who comes with the certificate of a device.
pub(super) const WITH_DEVICE: &str = "alice";
/// Who comes from a network they logged in from before.
pub(super) const FROM_HOME: &str = "bob";
/// Whose client is connected all the time.
const CONNECTED: &str = "dave";
/// The part of all places for connections that one network may take (docs/operations.md).
const PART_OF_ONE_NETWORK: usize = 16;
/// How often it is looked whether the client sends by ESP.
const LOOK: Duration = Duration::from_millis(50);

/// A gateway that runs, and everybody around it.
pub(super) struct Site {
    // Runtimes and processes before the hosts they are in.
    /// Where the flood's connections live.
    pub(super) flood: Runtime,
    /// Where users live.
    pub(super) users: Runtime,
    pub(super) gateway: Gateway,
    /// The client whose session is up.
    pub(super) client: Client,
    /// A client that has joined as a user with a password, and is not connected.
    pub(super) other: Client,
    /// Answers the packets of the session.
    pub(super) echo: UdpEcho,
    /// For who has no device.
    pub(super) anonymous: Door,
    /// For the user with a device.
    pub(super) with_device: Door,
    /// The kept hash of [`PASSWORD`].
    pub(super) kept: String,
    pub(super) program: Program,
    _lab: Lab,
}

impl Site {
    /// Starts everything.
    ///
    /// # Errors
    /// Where the system permits no lab, or a program does not start.
    pub(super) fn start(options: &Options) -> Result<Self> {
        let binaries = adit_lab::binaries()?;
        let mut lab = Lab::standard()?;
        let (near, internet, crowd) = (lab.host("client")?, lab.host("internet")?, lab.add_client()?);
        let mut gateway = Gateway::new(&lab.host("gateway")?, &binaries);
        // A quarter of what one network may have is left to users.
        let places = plan::connections(options.rate()) * PART_OF_ONE_NETWORK * 4 / 3;
        gateway.set("limits.pending_sessions", &places.to_string());
        gateway.init()?.success()?;
        let state_dir = StateDir::new(gateway.folder().join("state"));
        let kept = passwords::hash(&password(), Cost::USUAL, &mut Memory::default())?;
        let device = add_users(&state_dir, options, &kept)?;
        gateway.start()?;
        spread(&crowd, gateway.host())?;

        let mut client = Client::new(&near, &binaries);
        client.join(&gateway.invite(CONNECTED, &[])?)?.success()?;
        client.up()?;
        let other = Client::new(&crowd, &binaries);
        other.join(&gateway.invite(WITH_DEVICE, &[])?)?.success()?;
        let site = Self {
            flood: runtime::in_host(&crowd, 1)?,
            users: runtime::in_host(&crowd, 1)?,
            gateway,
            client,
            other,
            echo: UdpEcho::start(&internet, INTERNET_V4.into())?,
            anonymous: door(&state_dir, None)?,
            with_device: door(&state_dir, Some(device))?,
            kept,
            program: Program::of(&binaries.server),
            _lab: lab,
        };
        site.settle()?;
        Ok(site)
    }

    /// Waits until the session travels by ESP, and lets a user log in at home, who is known there from then on.
    fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.client.status()?.carrier.as_deref() != Some("esp") {
            ensure!(Instant::now() < deadline, "the client does not come to send by esp");
            thread::sleep(LOOK);
        }
        let door = self.anonymous.clone();
        let login = runtime::on(&self.users, async move { door.log_in(plan::HOME, FROM_HOME, PASSWORD).await });
        self.users.block_on(login)?.context("a user logs in at home")?;
        Ok(())
    }

    /// The gateway's process.
    ///
    /// # Errors
    /// If it does not run.
    pub(super) fn process(&self) -> Result<u32> {
        self.gateway.process().map(Process::id).context("the gateway does not run")
    }

    /// The number of the session that is up; `None` once it has ended.
    ///
    /// # Errors
    /// If the gateway does not say.
    pub(super) fn session(&self) -> Result<Option<u64>> {
        Ok(self.gateway.sessions()?.first().map(|session| session.session))
    }

    /// What the gateway says of the passwords it hashed.
    ///
    /// # Errors
    /// If it does not say so.
    pub(super) fn hashes(&self) -> Result<HashCounts> {
        let status = self.gateway.admin_json(&["status"])?;
        serde_json::from_value(status["passwords"].clone()).context("read what the gateway says of passwords")
    }

    /// Logs in with the real client, whose user types the password; returns how long that took.
    ///
    /// # Errors
    /// What the client says.
    pub(super) fn log_in_by_program(&self) -> Result<Duration> {
        let host = self.other.host();
        let command = self.other.command(&["login", "--user", WITH_DEVICE]);
        let command = host.with_input(&command, &format!("{PASSWORD}\n"))?;
        let began = Instant::now();
        host.output(command, PATIENCE)?.success()?;
        Ok(began.elapsed())
    }
}

/// Gives a host all addresses of the crowd, to which the gateway's host has a route then.
fn spread(crowd: &Host, gateway: &Host) -> Result<()> {
    let addresses = crowd.addresses("eth0")?;
    let near = addresses.iter().map(IpNet::addr).find(IpAddr::is_ipv4).context("the host has an IPv4 address")?;
    // All addresses of a network are a host's own that is on its loopback link.
    crowd.add_address("lo", plan::ALL.into())?;
    gateway.add_route(plan::ALL.trunc().into(), near)
}

/// What connections are made with, by whoever has this device or none.
fn door(state_dir: &StateDir, device: Option<passes::Identity>) -> Result<Door> {
    let pem = fs::read(state_dir.authority_certificate()).context("read the gateway's authority")?;
    let authority = CertificateDer::from_pem_slice(&pem).context("understand the gateway's authority")?;
    let quic = quic::client_config(tls::client_config(&authority, device)?)?;
    Ok(Door { address: SocketAddr::from((GATEWAY_V4, 443)), host: GATEWAY_V4.to_string(), quic })
}

/// The password as it is hashed.
pub(super) fn password() -> Password {
    Password::typed(PASSWORD).expect("it is short and has no NUL")
}

/// Makes the users in the files of a gateway that does not run, and enrols the device of one.
fn add_users(state_dir: &StateDir, options: &Options, kept: &str) -> Result<passes::Identity> {
    let (authority, store) = (Authority::load(state_dir)?, Store::open(&state_dir.store())?);
    let named = [WITH_DEVICE, FROM_HOME].map(str::to_owned).into_iter();
    for name in named.chain(plan::strangers(options)) {
        let user = UserName::parse(&name)?;
        store.add_user(&user, &FirstPassword::Hash(kept.to_owned()), SystemTime::now())?;
    }
    passes::certificate(&authority, &store, WITH_DEVICE)
}
