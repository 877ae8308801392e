//! The configuration of a gateway: one TOML file, overridden by the environment and by flags.
//!
//! A [`Config`] is always valid: [`Config::load`] reads every source, looks for every problem, and gives either a
//! configuration without any or the list of all of them.

mod acme;
mod check;
mod file;
mod host;
pub mod keys;
mod login;
mod oidc;
mod packet_path;
mod problem;
mod secret;
mod secret_place;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_host::{LocalService, why_no_ipv6};
use adit_net::carrier::esp::EspSettings;
use adit_net::worker;
use adit_program::exit::{Exit, Failure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::directories::{RuntimeDir, StateDir};
use crate::identity::PublicCertificateFiles;
use crate::sources::ldap::settings::LdapSettings;
use crate::sources::radius::settings::RadiusSettings;

pub use acme::AcmeConfig;
pub use adit_program::configuration::{Problem, Values};
pub use adit_proto::policy::SecondFactor;
pub use file::Source;
pub(crate) use file::{default_runtime_dir, default_state_dir, read};
pub(crate) use host::{HostAddress, host_addresses, overlap};
pub use login::{LoginConfig, SourceName};
pub use oidc::{OidcConfig, is_issuer};
pub use packet_path::{EspConfig, WorkersConfig};
pub use problem::ConfigError;
pub(crate) use secret::{GATEWAY_USER, gateway_user, open_secret, read_public};
pub use secret::{guard, read_secret};
pub use secret_place::SecretPlace;
pub use value::parse_public_address;

/// Where the configuration lies when neither `--config` nor `ADIT_CONFIG` names another place.
pub const DEFAULT_PATH: &str = "/etc/adit/server.toml";
/// Port of the gateway, unless the configuration names another.
pub const DEFAULT_PORT: u16 = 443;

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from, for messages.
    pub path: PathBuf,
    /// Names and addresses under which clients reach the gateway, most wanted first; never empty.
    pub public: Vec<PublicAddress>,
    /// Local socket addresses; never empty. `[::]:PORT` also takes IPv4.
    pub listen: Vec<SocketAddr>,
    /// Whether it listens on TCP there, too.
    pub listen_tcp: bool,
    /// The TUN device.
    pub tun: TunConfig,
    /// Inner addresses of devices; at least one family is present.
    pub pool: Pools,
    /// Prefixes which clients send through the tunnel.
    pub routes: Vec<IpNet>,
    /// Resolvers and domains announced to clients.
    pub dns: DnsConfig,
    /// Whether devices may reach each other through the gateway.
    pub client_to_client: bool,
    /// Services on the gateway's host that devices reach.
    pub local_services: Vec<LocalService>,
    /// Whether packets leave with the gateway's own address.
    pub masquerade: bool,
    /// Bounds on what clients may use up.
    pub limits: Limits,
    /// The certificate that others trust.
    pub tls: TlsConfig,
    /// Such certificates, if the gateway gets them itself.
    pub acme: AcmeConfig,
    /// Clients of the AnyConnect family.
    pub anyconnect: AnyConnectConfig,
    /// How users log in.
    pub login: LoginConfig,
    /// An OpenID Connect provider.
    pub oidc: OidcConfig,
    /// RADIUS servers as a source of users.
    pub radius: RadiusSettings,
    /// A directory as a source of users.
    pub ldap: LdapSettings,
    /// The `esp` carrier.
    pub esp: EspConfig,
    /// The threads that move packets.
    pub workers: WorkersConfig,
    /// How long a released address is kept from other devices.
    pub lease_cooldown: Duration,
    /// How long an invite may be used.
    pub invite_lifetime: Duration,
    /// How long a device certificate is valid.
    pub certificate_lifetime: Duration,
    /// Whether devices may renew their certificates.
    pub certificate_renewal: bool,
    /// What is logged: a filter.
    pub log: String,
    /// File of groups and rules; absolute.
    pub policy: Option<PathBuf>,
    /// Directory of keys and the store; absolute.
    pub state_dir: StateDir,
    /// Directory of the admin socket; absolute.
    pub runtime_dir: RuntimeDir,
}

/// A name or address, and the port, under which clients reach the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublicAddress {
    /// DNS name (lower case) or IP address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// The TUN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunConfig {
    /// Name of the device.
    pub name: String,
    /// Largest inner packet, in bytes.
    pub mtu: u16,
}

/// The networks from which devices get their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pools {
    /// IPv4 pool.
    pub v4: Option<Ipv4Net>,
    /// IPv6 pool.
    pub v6: Option<Ipv6Net>,
}

/// What clients are told about DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// Resolvers; empty leaves the clients' own in place.
    pub servers: Vec<IpAddr>,
    /// Domains the resolvers answer for; empty means every name. A-labels, lower case.
    pub domains: Vec<String>,
}

/// Where the certificate is that others trust: both files, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// The certificate and its chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
}

/// What clients of the AnyConnect family are granted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnyConnectConfig {
    /// Whether there is a front-end for them.
    pub enabled: bool,
    /// Whether TLS 1.2 will do.
    pub tls12: bool,
    /// When they make a new connection.
    pub rekey_after: Duration,
    /// The UDP port of DTLS, if that is not the one of TCP.
    pub dtls_port: Option<u16>,
    /// Whether Cisco's own clients get what they ask for on top.
    pub cisco: bool,
}

impl TlsConfig {
    /// The files of the certificate, if there is one.
    ///
    /// # Errors
    /// Only one of them is named.
    pub fn files(&self) -> Result<Option<PublicCertificateFiles>, Failure> {
        let half = |missing: &str, given: &str| {
            Err(Failure::new(Exit::Usage, missing, format!("not set, and {given} is"), "set both, or none"))
        };
        match (self.certificate.clone(), self.key.clone()) {
            (Some(certificate), Some(key)) => Ok(Some(PublicCertificateFiles { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => half("tls.key", "tls.certificate"),
            (None, Some(_)) => half("tls.certificate", "tls.key"),
        }
    }
}

/// Bounds on what clients may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Live sessions.
    pub sessions: usize,
    /// Connections without a tunnel.
    pub pending_sessions: usize,
    /// Tracked connections through the gateway for each device.
    pub connections_per_client: u32,
    /// Devices of one user.
    pub devices_per_user: u32,
}

impl Config {
    /// A configuration of which no key has been read: no valid one yet, and seen only while it becomes one.
    fn unread(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            public: Vec::new(),
            listen: Vec::new(),
            listen_tcp: false,
            tun: TunConfig { name: String::new(), mtu: 0 },
            pool: Pools { v4: None, v6: None },
            routes: Vec::new(),
            dns: DnsConfig { servers: Vec::new(), domains: Vec::new() },
            client_to_client: false,
            local_services: Vec::new(),
            masquerade: false,
            limits: Limits { sessions: 0, pending_sessions: 0, connections_per_client: 0, devices_per_user: 0 },
            radius: RadiusSettings::default(),
            ldap: LdapSettings::default(),
            tls: TlsConfig::default(),
            acme: AcmeConfig::default(),
            anyconnect: AnyConnectConfig::default(),
            login: LoginConfig {
                sources: Vec::new(),
                session_lifetime: Duration::ZERO,
                recheck: Duration::ZERO,
                second_factor: SecondFactor::Device,
                banner: None,
            },
            oidc: OidcConfig::default(),
            esp: EspConfig { enabled: false, permitted: EspSettings::default() },
            workers: WorkersConfig {
                count: 0,
                settings: worker::Settings::default(),
                tun_offload: false,
                udp_offload: false,
                quic_threads: 0,
            },
            lease_cooldown: Duration::ZERO,
            invite_lifetime: Duration::ZERO,
            certificate_lifetime: Duration::ZERO,
            certificate_renewal: false,
            log: String::new(),
            policy: None,
            state_dir: StateDir::new(""),
            runtime_dir: RuntimeDir::new(""),
        }
    }

    /// Reads and checks everything: the file, the environment, the flags, and the key files in the state directory.
    ///
    /// # Errors
    /// All problems found, each with the key, the reason and a next step.
    pub fn load(source: &Source) -> Result<Self, ConfigError> {
        file::load(source)
    }

    /// The values of every source, one of which a reload takes over at a time.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn values(source: &Source) -> Result<Values, ConfigError> {
        file::values(source)
    }

    /// The configuration that values are.
    ///
    /// # Errors
    /// All problems found: values of two readings may not fit each other.
    pub fn of_values(values: &Values, source: &Source) -> Result<Self, ConfigError> {
        file::of_values(values, source)
    }

    /// Checks the configuration against the host's present addresses: no pool may overlap a network of the host, except
    /// on the gateway's own TUN device.
    ///
    /// # Errors
    /// All conflicts found.
    pub fn check_host(&self) -> Result<(), ConfigError> {
        host::check(self)
    }

    /// What this host does not permit, in words: the gateway starts without it.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        host::without_ipv6(self, why_no_ipv6()).into_iter().collect()
    }

    /// Takes IPv6 out where this host has none, and says so: a gateway with pools of both families then serves IPv4.
    pub fn leave_out_ipv6(&mut self) -> Option<String> {
        let warning = host::without_ipv6(self, why_no_ipv6())?;
        self.pool.v6 = None;
        self.dns.servers.retain(IpAddr::is_ipv4);
        Some(warning)
    }

    /// Whether an address is in a pool and not the gateway's own there.
    pub(crate) fn is_of_a_client(&self, address: IpAddr) -> bool {
        check::is_of_a_client(self, address)
    }

    /// Services on the gateway's host that devices reach: what was named, and the pages that a login in a browser comes
    /// back to, which a device in full tunnel reaches no other way.
    #[must_use]
    pub fn services_for_clients(&self) -> Vec<LocalService> {
        let mut services = self.local_services.clone();
        let pages = self.oidc.listen.iter().filter(|address| !address.ip().is_loopback());
        for page in pages.map(|address| LocalService::Tcp(address.port())) {
            if self.login.sources.contains(&SourceName::Oidc) && !services.contains(&page) {
                services.push(page);
            }
        }
        services
    }

    /// Whether the gateway listens at an address on TCP anyway, whatever else is wanted there.
    #[must_use]
    pub fn listens_on_tcp(&self, address: SocketAddr) -> bool {
        self.listen_tcp && self.listen.iter().any(|own| check::covers(own, &address))
    }

    /// Whether clients may send packets in records of DTLS. They come by TCP first.
    #[must_use]
    pub const fn serves_dtls(&self) -> bool {
        self.anyconnect.enabled && self.listen_tcp
    }

    /// The UDP ports on which the gateway listens.
    #[must_use]
    pub fn udp_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.listen.iter().map(SocketAddr::port).collect();
        ports.extend(self.anyconnect.dtls_port.filter(|port| self.serves_dtls() && !ports.contains(port)));
        ports
    }

    /// Names for the server certificate: the public hosts without ports or duplicates.
    #[must_use]
    pub fn certificate_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for public in &self.public {
            if !names.contains(&public.host) {
                names.push(public.host.clone());
            }
        }
        names
    }
}

/// Checks the text of a configuration by itself, without its key files.
pub(crate) fn check_text(text: &str, path: &Path) -> Result<(), ConfigError> {
    let (_, problems) = file::interpret(text, &Source::file(path));
    if problems.is_empty() {
        return Ok(());
    }
    Err(ConfigError { path: path.to_owned(), problems, exit: Exit::Usage })
}

/// The state directory, also of a configuration that is broken or gone: nothing else is read of it, and without one the
/// default is taken.
#[must_use]
pub fn state_dir_of(source: &Source) -> StateDir {
    file::state_dir(source)
}

/// A small valid configuration whose directories lie in `directory`.
#[cfg(test)]
pub(crate) fn config_for_tests(directory: &Path) -> Config {
    let text = format!(
        "public = [\"vpn.example.org\"]\nstate_dir = {:?}\nruntime_dir = {:?}\n[pool]\nv4 = \"10.77.0.0/24\"\n",
        directory.join("state"),
        directory.join("run")
    );
    let (config, problems) = file::interpret(&text, &Source::file(&directory.join("server.toml")));
    assert_eq!(problems, []);
    config.expect("a configuration without problems")
}
