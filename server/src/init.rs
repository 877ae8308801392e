//! Makes a new gateway: keys, store and configuration, without a question.

mod pools;
mod resolvers;
mod work;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adit_program::exit::{Exit, Failure};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::config::{self, DEFAULT_PATH, PublicAddress, default_runtime_dir, default_state_dir, host_addresses, keys};
use crate::directories::{RuntimeDir, StateDir};

use pools::{NewPools, choose_pools};
use work::Work;

/// What the user asked for; nothing is needed.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The configuration file, when it shall not lie in its usual place; `directory` goes first.
    pub config: Option<PathBuf>,
    /// A directory for everything, instead of the usual places.
    pub directory: Option<PathBuf>,
    /// Public names and addresses; detected when empty.
    pub public: Vec<PublicAddress>,
    /// Local socket addresses; all addresses with the first public port when empty.
    pub listen: Vec<SocketAddr>,
}

/// What was made.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Made {
    /// The configuration file.
    pub config: PathBuf,
    /// The directory of keys and store.
    pub state_dir: StateDir,
    /// The public names and addresses.
    pub public: Vec<String>,
    /// The local socket addresses.
    pub listen: Vec<SocketAddr>,
    /// The IPv4 pool.
    pub pool_v4: Ipv4Net,
    /// The IPv6 pool.
    pub pool_v6: Ipv6Net,
    /// The resolvers for clients; empty when none was found.
    pub dns_servers: Vec<IpAddr>,
    /// SHA-256 of the authority's public key, hexadecimal.
    pub pin: String,
    /// Whether the public addresses were found on this host, not given.
    pub detected: bool,
}

/// Makes a new gateway. Nothing that exists is overwritten, and nothing half-made is left behind.
///
/// # Errors
/// A file exists already, a directory cannot be written, or no public address is known.
pub fn init(wishes: &Wishes, now: SystemTime) -> Result<Made, Failure> {
    let places = Places::of(wishes)?;
    let choices = Choices::of(wishes)?;
    let text = choices.file(&places);
    config::check_text(&text, &places.config).map_err(Failure::from)?;

    let mut work = Work::default();
    let pin = match work.make(&places, &text, now) {
        Ok(pin) => pin,
        Err(failure) => {
            work.undo();
            return Err(failure);
        }
    };
    Ok(Made {
        config: places.config,
        state_dir: places.state_dir,
        public: choices.public.iter().map(public_text).collect(),
        listen: choices.listen,
        pool_v4: choices.pools.v4,
        pool_v6: choices.pools.v6,
        dns_servers: choices.dns_servers,
        pin: data_encoding::HEXLOWER.encode(&pin),
        detected: wishes.public.is_empty(),
    })
}

/// Where everything goes.
struct Places {
    config: PathBuf,
    state_dir: StateDir,
    runtime_dir: RuntimeDir,
    /// Whether these are not the defaults, and so must be in the file.
    own: bool,
}

impl Places {
    fn of(wishes: &Wishes) -> Result<Self, Failure> {
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|error| {
                Failure::new(Exit::Usage, path.display().to_string(), error.to_string(), "name an absolute path")
            })
        };
        if let Some(directory) = &wishes.directory {
            let directory = absolute(directory)?;
            return Ok(Self {
                config: directory.join("server.toml"),
                state_dir: StateDir::new(directory.join("state")),
                runtime_dir: RuntimeDir::new(directory.join("run")),
                own: true,
            });
        }
        Ok(Self {
            config: absolute(wishes.config.as_deref().unwrap_or_else(|| Path::new(DEFAULT_PATH)))?,
            state_dir: default_state_dir(),
            runtime_dir: default_runtime_dir(),
            own: false,
        })
    }

    /// The files `init` makes, in the order it makes them.
    fn files(&self) -> [PathBuf; 6] {
        [
            self.state_dir.authority_key(),
            self.state_dir.authority_certificate(),
            self.state_dir.endpoint_keys(),
            self.state_dir.service_key(),
            self.state_dir.store(),
            self.config.clone(),
        ]
    }
}

/// What a new gateway is set to: what was asked for and, for the rest, what suits this host.
struct Choices {
    public: Vec<PublicAddress>,
    listen: Vec<SocketAddr>,
    pools: NewPools,
    dns_servers: Vec<IpAddr>,
}

impl Choices {
    fn of(wishes: &Wishes) -> Result<Self, Failure> {
        let public = if wishes.public.is_empty() { detect_public()? } else { wishes.public.clone() };
        let listen = if wishes.listen.is_empty() { listen_on_all(&public) } else { wishes.listen.clone() };
        let pools = choose_pools(&host_addresses())?;
        Ok(Self { public, listen, pools, dns_servers: resolvers::of_this_host() })
    }

    /// The text of the configuration file.
    fn file(&self, places: &Places) -> String {
        let mut values = vec![
            ("public", list(self.public.iter().map(public_text))),
            ("listen", list(self.listen.iter().map(ToString::to_string))),
            ("pool.v4", literal(&self.pools.v4.to_string())),
            ("pool.v6", literal(&self.pools.v6.to_string())),
            ("dns.servers", list(self.dns_servers.iter().map(ToString::to_string))),
        ];
        if places.own {
            values.push(("state_dir", literal(&places.state_dir.path().display().to_string())));
            values.push(("runtime_dir", literal(&places.runtime_dir.path().display().to_string())));
        }
        keys::sample(&values)
    }
}

/// The source addresses of the default routes.
fn detect_public() -> Result<Vec<PublicAddress>, Failure> {
    let (v4, v6) = adit_host::default_source_addresses();
    let addresses = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
    let public: Vec<PublicAddress> =
        addresses.map(|address| PublicAddress { host: address.to_string(), port: config::DEFAULT_PORT }).collect();
    if public.is_empty() {
        let next = "name it: adit-server init --public HOST[:PORT]";
        return Err(Failure::new(
            Exit::Usage,
            "public address",
            "this host has no default route to learn it from",
            next,
        ));
    }
    Ok(public)
}

fn listen_on_all(public: &[PublicAddress]) -> Vec<SocketAddr> {
    let port = public.first().map_or(config::DEFAULT_PORT, |public| public.port);
    vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]
}

fn public_text(public: &PublicAddress) -> String {
    let PublicAddress { host, port } = public;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn list(items: impl Iterator<Item = String>) -> String {
    toml::Value::Array(items.map(toml::Value::String).collect()).to_string()
}

fn literal(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::sqlite::Store;
    use crate::config::{Config, Source};
    use crate::identity::Authority;

    fn wishes(directory: &Path) -> Wishes {
        Wishes {
            directory: Some(directory.to_owned()),
            public: vec![PublicAddress { host: "2001:db8::1".into(), port: 8443 }],
            ..Wishes::default()
        }
    }

    #[test]
    fn made_gateway_has_a_valid_configuration() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("deep/er");
        let made = init(&wishes(&directory), SystemTime::now()).unwrap();
        let config = Config::load(&Source::file(&made.config)).unwrap();
        assert_eq!(config.public, wishes(&directory).public);
        assert_eq!(config.listen, ["[::]:8443".parse().unwrap()]);
        assert_eq!((config.pool.v4, config.pool.v6), (Some(made.pool_v4), Some(made.pool_v6)));
        assert_eq!(config.state_dir, StateDir::new(directory.join("state")));
        assert!(Authority::load(&config.state_dir).is_ok());
        assert!(crate::identity::load_endpoint_keys(&config.state_dir.endpoint_keys()).is_ok());
        assert!(Store::open(&config.state_dir.store()).is_ok());
    }

    #[test]
    fn second_init_refuses_and_changes_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let made = init(&wishes(scratch.path()), SystemTime::now()).unwrap();
        let key = std::fs::read(made.state_dir.authority_key()).unwrap();
        let failure = init(&wishes(scratch.path()), SystemTime::now()).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(std::fs::read(made.state_dir.authority_key()).unwrap(), key);
        assert!(made.config.exists());
    }

    /// With `ADIT_WRITE_SAMPLE` set the sample is written instead.
    #[test]
    fn sample_in_deploy_is_what_init_writes() {
        let places = Places::of(&Wishes::default()).unwrap();
        let public = vec![PublicAddress { host: "vpn.example.org".into(), port: config::DEFAULT_PORT }];
        let pools = NewPools { v4: "10.77.0.0/24".parse().unwrap(), v6: "fd00:77::/64".parse().unwrap() };
        let listen = listen_on_all(&public);
        let text = Choices { public, listen, pools, dns_servers: Vec::new() }.file(&places);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/server.toml");
        if std::env::var_os("ADIT_WRITE_SAMPLE").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let sample = std::fs::read_to_string(path).unwrap();
        assert!(sample == text, "run `ADIT_WRITE_SAMPLE=1 cargo test -p adit-server sample_in_deploy`");
    }
}
