//! Makes a new gateway: keys, store and configuration, without a question.

use std::fs::{DirBuilder, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adit_proto::exit::{Exit, Failure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::fcntl::{Flock, FlockArg};

use crate::config::{
    self, DEFAULT_PATH, PublicAddress, endpoint_keys_path, host_addresses, keys, store_path, write_new,
};
use crate::identity::{Authority, authority_certificate_path, authority_key_path, create_endpoint_keys, random};
use crate::store::Store;

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
    pub state_dir: PathBuf,
    /// The public names and addresses.
    pub public: Vec<String>,
    /// The local socket addresses.
    pub listen: Vec<SocketAddr>,
    /// The IPv4 pool.
    pub pool_v4: Ipv4Net,
    /// The IPv6 pool.
    pub pool_v6: Ipv6Net,
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
    let (pool_v4, pool_v6) = choose_pools()?;
    let text = configuration(&places, &public, &listen, pool_v4, pool_v6);
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
        pin: data_encoding::HEXLOWER.encode(&pin),
        detected,
    })
}

/// Where everything goes.
struct Places {
    config: PathBuf,
    state_dir: PathBuf,
    runtime_dir: PathBuf,
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
                state_dir: directory.join("state"),
                runtime_dir: directory.join("run"),
                own: true,
            });
        }
        Ok(Self {
            config: absolute(wishes.config.as_deref().unwrap_or_else(|| Path::new(DEFAULT_PATH)))?,
            state_dir: "/var/lib/adit".into(),
            runtime_dir: "/run/adit".into(),
            own: false,
        })
    }

    /// The files `init` makes, in the order it makes them.
    fn files(&self) -> [PathBuf; 5] {
        [
            authority_key_path(&self.state_dir),
            authority_certificate_path(&self.state_dir),
            endpoint_keys_path(&self.state_dir),
            store_path(&self.state_dir),
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
        self.directory(&places.state_dir, 0o700)?;
        if places.own {
            self.directory(&places.runtime_dir, 0o700)?;
        }
        let _lock = lock(&places.state_dir)?;
        for path in places.files() {
            refuse_existing(&path)?;
        }
        self.files.extend(places.files());
        let store = store_path(&places.state_dir);
        for suffix in ["-wal", "-shm"] {
            self.files.push(store.with_file_name(format!("store.db{suffix}")));
        }
        let authority = Authority::create(&places.state_dir, now).map_err(|error| error.into_failure())?;
        create_endpoint_keys(&endpoint_keys_path(&places.state_dir)).map_err(|error| error.into_failure())?;
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
    let (v4, v6) = adit_net::host::default_source_addresses();
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

/// A random /24 of 10.64.0.0 to 10.127.255.0 and a random unique local /64 (RFC 4193 section 3.2.2), neither of them in
/// use on this host.
fn choose_pools() -> Result<(Ipv4Net, Ipv6Net), Failure> {
    /// Every try hits a busy network with a chance far below one half.
    const TRIES: usize = 64;
    let in_use: Vec<IpNet> = host_addresses().into_iter().map(|address| address.net.trunc()).collect();
    let free = |net: IpNet| !in_use.iter().any(|used| used.contains(&net) || net.contains(used));
    let mut chosen = (None, None);
    for _ in 0..TRIES {
        let v4 = random_v4()?;
        let v6 = random_v6()?;
        // A host inside 10.0.0.0/8 overlaps with all; then the last try has to do.
        if chosen.0.is_none_or(|net| !free(IpNet::V4(net))) {
            chosen.0 = Some(v4);
        }
        if chosen.1.is_none_or(|net| !free(IpNet::V6(net))) {
            chosen.1 = Some(v6);
        }
    }
    match chosen {
        (Some(v4), Some(v6)) => Ok((v4, v6)),
        _ => Err(Failure::new(Exit::Other, "address pools", "none could be chosen", "")),
    }
}

fn random_v4() -> Result<Ipv4Net, Failure> {
    let [second, third] = random().map_err(|error| error.into_failure())?;
    let address = Ipv4Addr::new(10, 64 | (second & 0x3f), third, 0);
    Ipv4Net::new(address, 24).map_err(|error| Failure::new(Exit::Other, "IPv4 pool", error.to_string(), ""))
}

fn random_v6() -> Result<Ipv6Net, Failure> {
    let global: [u8; 7] = random().map_err(|error| error.into_failure())?;
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&global);
    Ipv6Net::new(octets.into(), 64).map_err(|error| Failure::new(Exit::Other, "IPv6 pool", error.to_string(), ""))
}

fn configuration(
    places: &Places,
    public: &[PublicAddress],
    listen: &[SocketAddr],
    pool_v4: Ipv4Net,
    pool_v6: Ipv6Net,
) -> String {
    let mut values = vec![
        ("public", list(public.iter().map(public_text))),
        ("listen", list(listen.iter().map(ToString::to_string))),
        ("pool.v4", literal(&pool_v4.to_string())),
        ("pool.v6", literal(&pool_v6.to_string())),
    ];
    if places.own {
        values.push(("state_dir", literal(&places.state_dir.display().to_string())));
        values.push(("runtime_dir", literal(&places.runtime_dir.display().to_string())));
    }
    keys::template(&values)
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
        assert_eq!(config.state_dir, directory.join("state"));
        assert!(Authority::load(&config.state_dir).is_ok());
        assert!(crate::identity::load_endpoint_keys(&config.endpoint_keys_path()).is_ok());
        assert!(Store::open(&config.store_path()).is_ok());
    }

    #[test]
    fn second_init_refuses_and_changes_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let made = init(&wishes(scratch.path()), SystemTime::now()).unwrap();
        let key = std::fs::read(authority_key_path(&made.state_dir)).unwrap();
        let failure = init(&wishes(scratch.path()), SystemTime::now()).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(std::fs::read(authority_key_path(&made.state_dir)).unwrap(), key);
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
            state_dir: directory.join("state"),
            runtime_dir: directory.join("run"),
            own: true,
        };
        let mut work = Work::default();
        assert!(work.make(&places, "", SystemTime::now()).is_err());
        assert!(authority_key_path(&places.state_dir).exists(), "the last step failed");
        work.undo();
        assert!(!directory.exists());
    }

    #[test]
    fn random_pools_lie_where_nobody_else_is_likely_to_be() {
        for _ in 0..200 {
            let v4 = random_v4().unwrap();
            assert!("10.64.0.0/10".parse::<Ipv4Net>().unwrap().contains(&v4));
            assert_eq!(random_v6().unwrap().network().octets()[0], 0xfd);
        }
    }

    /// With `ADIT_WRITE_SAMPLE` set the sample is written instead.
    #[test]
    fn sample_in_deploy_is_what_init_writes() {
        let places = Places::of(&Wishes::default()).unwrap();
        let public = [PublicAddress { host: "vpn.example.org".into(), port: config::DEFAULT_PORT }];
        let pools = ("10.77.0.0/24".parse().unwrap(), "fd00:77::/64".parse().unwrap());
        let text = configuration(&places, &public, &listen_on_all(&public), pools.0, pools.1);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/server.toml");
        if std::env::var_os("ADIT_WRITE_SAMPLE").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let sample = std::fs::read_to_string(path).unwrap();
        assert!(sample == text, "run `ADIT_WRITE_SAMPLE=1 cargo test -p adit-server sample_in_deploy`");
    }
}
