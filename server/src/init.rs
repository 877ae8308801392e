//! Makes a new gateway: keys, store and configuration, without a question.

use std::fs::{DirBuilder, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adit_host::is_forbidden_destination;
use adit_program::exit::{Exit, Failure};
use adit_program::random::random;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::fcntl::{Flock, FlockArg};

use crate::config::{
    self, DEFAULT_PATH, HostAddress, PublicAddress, default_runtime_dir, default_state_dir, host_addresses, keys,
    overlap, write_new,
};
use crate::directories::{RuntimeDir, StateDir};
use crate::identity::{Authority, IdentityError, create_endpoint_keys};
use crate::store::Store;

/// The resolvers this host asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The resolvers systemd-resolved asks, where the host asks systemd-resolved.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

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
    let detected = wishes.public.is_empty();
    let public = if detected { detect_public()? } else { wishes.public.clone() };
    let listen = if wishes.listen.is_empty() { listen_on_all(&public) } else { wishes.listen.clone() };
    let (pool_v4, pool_v6) = choose_pools(&host_addresses())?;
    let dns_servers = resolvers(Path::new(RESOLV_CONF), Path::new(RESOLVED_CONF));
    let text = configuration(&places, &public, &listen, (pool_v4, pool_v6), &dns_servers);
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
        public: public.iter().map(public_text).collect(),
        listen,
        pool_v4,
        pool_v6,
        dns_servers,
        pin: data_encoding::HEXLOWER.encode(&pin),
        detected,
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
            std::path::absolute(path)
                .map_err(|error| Failure::new(Exit::Usage, path.display().to_string(), error.to_string(), ""))
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
    fn files(&self) -> [PathBuf; 5] {
        [
            self.state_dir.authority_key(),
            self.state_dir.authority_certificate(),
            self.state_dir.endpoint_keys(),
            self.state_dir.store(),
            self.config.clone(),
        ]
    }
}

/// What was made so far, to be removed when something fails.
#[derive(Default)]
struct Work {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Work {
    /// Makes everything; the configuration comes last, so that a gateway with one is complete.
    fn make(&mut self, places: &Places, text: &str, now: SystemTime) -> Result<[u8; 32], Failure> {
        let parent = places.config.parent().unwrap_or_else(|| Path::new("/"));
        self.directory(parent, 0o755)?;
        self.directory(places.state_dir.path(), 0o700)?;
        if places.own {
            self.directory(places.runtime_dir.path(), 0o700)?;
        }
        let _lock = lock(places.state_dir.path())?;
        for path in places.files() {
            refuse_existing(&path)?;
        }
        self.files.extend(places.files());
        self.files.extend(places.state_dir.beside_store());
        let authority = Authority::create(&places.state_dir, now).map_err(|error| error.into_failure())?;
        create_endpoint_keys(&places.state_dir.endpoint_keys()).map_err(|error| error.into_failure())?;
        let store = places.state_dir.store();
        Store::create(&store).map_err(|error| Store::failure(&store, error))?;
        write_new(&places.config, text.as_bytes(), 0o644).map_err(|error| cannot_write(&places.config, &error))?;
        Ok(authority.pin())
    }

    fn directory(&mut self, path: &Path, mode: u32) -> Result<(), Failure> {
        let missing: Vec<PathBuf> =
            path.ancestors().take_while(|ancestor| !ancestor.exists()).map(Path::to_owned).collect();
        for (index, directory) in missing.iter().enumerate().rev() {
            let mode = if index == 0 { mode } else { 0o755 };
            match DirBuilder::new().mode(mode).create(directory) {
                Ok(()) => self.directories.push(directory.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(cannot_write(directory, &error)),
            }
        }
        Ok(())
    }

    /// Removes what was made, newest first. What cannot be removed stays; the failure that led here is what matters.
    fn undo(&self) {
        for file in self.files.iter().rev() {
            drop(std::fs::remove_file(file));
        }
        for directory in self.directories.iter().rev() {
            drop(std::fs::remove_dir(directory));
        }
    }
}

/// Keeps a second `init` out of the state directory.
fn lock(directory: &Path) -> Result<Flock<File>, Failure> {
    let file = File::open(directory).map_err(|error| cannot_write(directory, &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        let next = "wait for it, then look at what it made";
        Failure::new(Exit::Usage, directory.display().to_string(), "another init is at work here", next)
    })
}

fn refuse_existing(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let next = "to use that gateway run `adit-server check`; to make another choose --dir DIR; \
                to start afresh move the old files away";
    Err(Failure::new(Exit::Usage, path.display().to_string(), "exists already and is not overwritten", next))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let (exit, next) = if error.kind() == io::ErrorKind::PermissionDenied {
        (Exit::Permission, "run as root, or choose a directory of yours with --dir DIR")
    } else {
        (Exit::Other, "choose another place with --dir DIR")
    };
    Failure::new(exit, path.display().to_string(), format!("cannot be written: {error}"), next)
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

/// The host's resolvers that clients can ask through the gateway: those in `resolv_conf`, or, where these are a stub on the host
/// itself, those behind it.
fn resolvers(resolv_conf: &Path, behind_stub: &Path) -> Vec<IpAddr> {
    let own = resolvers_in(resolv_conf);
    if own.is_empty() { resolvers_in(behind_stub) } else { own }
}

fn resolvers_in(path: &Path) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten();
        let Some(address) = address else { continue };
        let unfit = address.is_unspecified() || address.is_multicast() || is_forbidden_destination(address);
        if !unfit && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// A random private /24 and a random unique local /64 (RFC 4193 section 3.2.2), neither of them in use on this host.
fn choose_pools(in_use: &[HostAddress]) -> Result<(Ipv4Net, Ipv6Net), Failure> {
    /// A range of which little is in use is hit far more often than not.
    const TRIES: usize = 64;
    let free = |net: &IpNet| !in_use.iter().any(|address| overlap(address.net, *net));
    let mut v4 = Vec::new();
    for range in PRIVATE_RANGES {
        for _ in 0..TRIES {
            v4.push(random_v4(range)?);
        }
    }
    let v4 = v4.into_iter().find(|net| free(&IpNet::V4(*net)));
    let v6 = random_v6().map(|net| Some(net).filter(|net| free(&IpNet::V6(*net))))?;
    v4.zip(v6).ok_or_else(|| {
        let next = "make room in 10.64.0.0/10, 172.16.0.0/12 or 192.168.0.0/16 on this host";
        Failure::new(Exit::Other, "address pools", "every private network is in use on this host", next)
    })
}

/// Where IPv4 pools are taken from, first choice first: the upper parts of private networks (RFC 1918), which are used least.
const PRIVATE_RANGES: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(10, 64, 0, 0), 10), (Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(192, 168, 0, 0), 16)];

fn random_v4((start, length): (Ipv4Addr, u8)) -> Result<Ipv4Net, Failure> {
    let random = u32::from_be_bytes(random().map_err(|error| IdentityError::from(error).into_failure())?);
    let host_bits = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    let address = Ipv4Addr::from_bits(start.to_bits() | (random & host_bits));
    let net = Ipv4Net::new(address, 24).map(|net| net.trunc());
    net.map_err(|error| Failure::new(Exit::Other, "IPv4 pool", error.to_string(), ""))
}

fn random_v6() -> Result<Ipv6Net, Failure> {
    let global: [u8; 7] = random().map_err(|error| IdentityError::from(error).into_failure())?;
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&global);
    Ipv6Net::new(octets.into(), 64).map_err(|error| Failure::new(Exit::Other, "IPv6 pool", error.to_string(), ""))
}

fn configuration(
    places: &Places,
    public: &[PublicAddress],
    listen: &[SocketAddr],
    (pool_v4, pool_v6): (Ipv4Net, Ipv6Net),
    dns_servers: &[IpAddr],
) -> String {
    let mut values = vec![
        ("public", list(public.iter().map(public_text))),
        ("listen", list(listen.iter().map(ToString::to_string))),
        ("pool.v4", literal(&pool_v4.to_string())),
        ("pool.v6", literal(&pool_v6.to_string())),
        ("dns.servers", list(dns_servers.iter().map(ToString::to_string))),
    ];
    if places.own {
        values.push(("state_dir", literal(&places.state_dir.path().display().to_string())));
        values.push(("runtime_dir", literal(&places.runtime_dir.path().display().to_string())));
    }
    keys::sample(&values)
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
    use crate::config::{Config, Source};

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

    #[test]
    fn failure_leaves_nothing_behind() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("gateway");
        let blocked = scratch.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let places = Places {
            config: blocked.join("server.toml"),
            state_dir: StateDir::new(directory.join("state")),
            runtime_dir: RuntimeDir::new(directory.join("run")),
            own: true,
        };
        let mut work = Work::default();
        assert!(work.make(&places, "", SystemTime::now()).is_err());
        assert!(places.state_dir.authority_key().exists(), "the last step failed");
        work.undo();
        assert!(!directory.exists());
    }

    #[test]
    fn random_pools_lie_where_nobody_else_is_likely_to_be() {
        for _ in 0..200 {
            let (v4, _) = choose_pools(&[]).unwrap();
            assert!("10.64.0.0/10".parse::<Ipv4Net>().unwrap().contains(&v4), "{v4}");
            assert_eq!((v4.prefix_len(), v4.addr()), (24, v4.network()));
            assert_eq!(random_v6().unwrap().network().octets()[0], 0xfd);
        }
    }

    #[test]
    fn pool_keeps_clear_of_the_hosts_networks() {
        let attached = |nets: &[&str]| -> Vec<HostAddress> {
            let address = |net: &&str| HostAddress { device: "eth0".into(), net: net.parse().unwrap() };
            nets.iter().map(address).collect()
        };
        let (v4, _) = choose_pools(&attached(&["10.1.2.3/8"])).unwrap();
        assert!("172.16.0.0/12".parse::<Ipv4Net>().unwrap().contains(&v4), "{v4}");
        let (v4, _) = choose_pools(&attached(&["10.1.2.3/8", "172.17.0.1/11"])).unwrap();
        assert!("192.168.0.0/16".parse::<Ipv4Net>().unwrap().contains(&v4), "{v4}");
        assert!(choose_pools(&attached(&["10.1.2.3/8", "172.17.0.1/11", "192.168.1.1/16"])).is_err());
    }

    #[test]
    fn resolvers_are_the_hosts_own_that_clients_can_reach() {
        let directory = tempfile::tempdir().unwrap();
        let (own, behind) = (directory.path().join("resolv.conf"), directory.path().join("behind"));
        let found = |text: &str| {
            std::fs::write(&own, text).unwrap();
            resolvers(&own, &behind).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("nameserver 127.0.0.53\noptions edns0\n"), Vec::<String>::new(), "a stub, nothing behind it");
        std::fs::write(&behind, "nameserver 10.1.0.53\n").unwrap();
        assert_eq!(found("nameserver 127.0.0.53\n"), ["10.1.0.53"]);
        assert_eq!(found(""), ["10.1.0.53"]);
        assert_eq!(
            found(
                "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.53 # office\nnameserver\t2001:db8::53\n\
                 nameserver fe80::1%eth0\nnameserver fe80::1\nnameserver 169.254.169.253\nnameserver 168.63.129.16\n\
                 nameserver 0.0.0.0\nnameserver ::1\nnameserver nonsense\nnameserver\nnameserver 192.0.2.53\n"
            ),
            ["192.0.2.53", "2001:db8::53"]
        );
        std::fs::remove_file(&own).unwrap();
        std::fs::remove_file(&behind).unwrap();
        assert_eq!(resolvers(&own, &behind), Vec::<IpAddr>::new());
    }

    /// With `ADIT_WRITE_SAMPLE` set the sample is written instead.
    #[test]
    fn sample_in_deploy_is_what_init_writes() {
        let places = Places::of(&Wishes::default()).unwrap();
        let public = [PublicAddress { host: "vpn.example.org".into(), port: config::DEFAULT_PORT }];
        let pools = ("10.77.0.0/24".parse().unwrap(), "fd00:77::/64".parse().unwrap());
        let text = configuration(&places, &public, &listen_on_all(&public), pools, &[]);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/server.toml");
        if std::env::var_os("ADIT_WRITE_SAMPLE").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let sample = std::fs::read_to_string(path).unwrap();
        assert!(sample == text, "run `ADIT_WRITE_SAMPLE=1 cargo test -p adit-server sample_in_deploy`");
    }
}
