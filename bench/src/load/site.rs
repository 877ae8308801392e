//! Where the load is made: a gateway with room for everybody, and a host full of clients.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use adit_program::exit::{Exit, Failure};
use adit_server::directories::StateDir;
use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv4Net};

use crate::policy;
use crate::report::machine::Program;
use adit_lab::programs::Gateway;
use adit_lab::{GATEWAY_V4, Host, Lab, Process};

use super::options::{Carrier, Login, Options};
use super::passes;
use super::plan::Pass;
use super::report::Policy;

/// Networks from which clients come, as a gateway lets only so many strangers of one /24 in at once.
const NETWORKS: u8 = 16;
/// Inner addresses for 65,533 clients.
const POOL: &str = "10.77.0.0/16";
/// The gateway's own limit, unless more clients come.
const SESSIONS: u32 = 10_000;

/// A running gateway and its clients' host.
pub(super) struct Site {
    gateway: Gateway,
    inner: Ipv4Addr,
    clients: Host,
    program: PathBuf,
    policy: Option<Policy>,
    // Dropped last: the others are in it.
    _lab: Lab,
}

impl Site {
    /// Starts a gateway for so many clients, and makes what these log in with.
    ///
    /// # Errors
    /// Where the system permits no lab, or the gateway does not start, or when `check` fails.
    pub(super) fn start(options: &Options, check: &dyn Fn() -> Result<()>) -> Result<(Self, Vec<Pass>)> {
        let clients = options.clients;
        let binaries = adit_lab::binaries()?;
        let mut lab = Lab::pair(false)?;
        let (host, near) = (lab.host("gateway")?, lab.host("client")?);
        for network in 0..NETWORKS {
            let address =
                |host| IpNet::from(Ipv4Net::new(source(network, host), 24).expect("a prefix has at most 32 bits"));
            host.add_address("eth0", address(1))?;
            near.add_address("eth0", address(2))?;
        }
        let mut gateway = Gateway::new(&host, &binaries);
        gateway.set("pool.v4", POOL);
        gateway.set("limits.sessions", &clients.max(SESSIONS).to_string());
        gateway.init()?.success()?;
        let policy = options.policy.as_deref().map(|file| give_policy(&mut gateway, file)).transpose()?;
        check()?;
        let state_dir = StateDir::new(gateway.folder().join("state"));
        let made = match (options.login, options.carrier) {
            (Login::Certificate, _) => Some(passes::certificates(&state_dir, clients, check)?),
            (Login::Token, Carrier::Tls) => Some(passes::logins(&state_dir, clients, check)?),
            (Login::Token, Carrier::Esp | Carrier::Quic) => None,
        };
        gateway.start()?;
        let inner = gateway.inner_addresses()?.into_iter().find_map(|address| match address {
            std::net::IpAddr::V4(v4) => Some(v4),
            std::net::IpAddr::V6(_) => None,
        });
        let inner = inner.context("the gateway has an inner IPv4 address")?;
        let passes = match made {
            Some(passes) => passes,
            None => passes::tokens(&gateway.folder().join("run").join("server.sock"), clients, check)?,
        };
        Ok((Self { gateway, inner, clients: near, program: binaries.server, policy, _lab: lab }, passes))
    }

    /// The running gateway.
    pub(super) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Kills the gateway, lets `outage` pass and starts it again.
    ///
    /// # Errors
    /// When `outage` fails, or the gateway does not start.
    pub(super) fn restart(&mut self, outage: impl FnOnce() -> Result<()>) -> Result<()> {
        self.gateway.kill();
        outage()?;
        self.gateway.start()
    }

    /// The gateway's process.
    ///
    /// # Errors
    /// If it does not run.
    pub(super) fn process(&self) -> Result<u32> {
        self.gateway.process().map(Process::id).context("the gateway does not run")
    }

    /// What identifies the gateway's program.
    pub(super) fn program(&self) -> Program {
        Program::of(&self.program)
    }

    /// The size of the gateway's policy; `None` without one.
    pub(super) fn policy(&self) -> Option<Policy> {
        self.policy
    }

    /// The gateway's inner address.
    pub(super) fn inner(&self) -> Ipv4Addr {
        self.inner
    }

    /// Where the gateway listens.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((GATEWAY_V4, 443))
    }

    /// The gateway's certificate authority.
    pub(super) fn authority(&self) -> PathBuf {
        self.gateway.folder().join("state").join("authority.pem")
    }

    /// The clients' host.
    pub(super) fn clients(&self) -> &Host {
        &self.clients
    }

    /// The addresses clients come from.
    pub(super) fn sources(&self) -> Vec<Ipv4Addr> {
        (0..NETWORKS).map(|network| source(network, 2)).collect()
    }
}

/// Gives a gateway a copy of a policy file, which is the gateway's alone.
fn give_policy(gateway: &mut Gateway, file: &Path) -> Result<Policy> {
    let unusable = |reason: String| {
        let next = "name a policy file; `adit-bench policy` prints one";
        Failure::new(Exit::Usage, file.display().to_string(), reason, next)
    };
    let text = fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    let (groups, rules) = policy::size(&text).map_err(|error| unusable(error.to_string()))?;
    let copy = gateway.folder().join("policy.toml");
    fs::write(&copy, text).with_context(|| format!("write {}", copy.display()))?;
    fs::set_permissions(&copy, Permissions::from_mode(0o644)).context("set the policy's mode")?;
    gateway.set("policy", &copy.display().to_string());
    Ok(Policy { groups, rules })
}

/// A host of one of the networks on the cable.
fn source(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, network, host)
}
