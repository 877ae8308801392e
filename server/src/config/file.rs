//! Reading the configuration from its sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_program::exit::Exit;
use adit_program::toml_error::TomlFault;
use adit_proto::packet::IPV6_MIN_MTU;
use toml::{Table, Value};

use crate::directories::{RuntimeDir, StateDir};

use super::keys::{self, KEYS, Key};
use super::value::{self, Parsed};
use super::{
    Config, ConfigError, DEFAULT_PATH, DnsConfig, EspConfig, Limits, Pools, Problem, TunConfig, WorkersConfig, check,
};

/// Largest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Largest MTU of the TUN device, in bytes: what its buffers hold.
const LARGEST_MTU: u16 = 9216;
const _: () = assert!(LARGEST_MTU as usize == adit_net::tun::LARGEST_PACKET);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Packets after which keys are replaced: fewer would make nothing but keys, more would weaken them (RFC 9001 appendix B.1.1).
const REKEY_PACKETS: (u64, u64) = (1 << 10, 1 << 28);
/// Most workers: what the index of an SA names.
const MOST_WORKERS: usize = adit_proto::esp::spi::WORKERS as usize;

/// Where the parts of a configuration come from: flags win over the environment, which wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// `ADIT_…` variables that name a key, as (key, text).
    pub environment: Vec<(&'static str, String)>,
    /// `--set KEY=VALUE` flags, as (key, text).
    pub flags: Vec<(String, String)>,
}

impl Source {
    /// A file alone.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    /// The present environment, with what the flags say on top. The file is `path`, or [`DEFAULT_PATH`].
    #[must_use]
    pub fn with_environment(path: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let environment = KEYS.iter().filter_map(|key| Some((key.name, std::env::var(key.variable()).ok()?))).collect();
        Self { path: path.unwrap_or_else(|| PathBuf::from(DEFAULT_PATH)), environment, flags }
    }
}

pub(super) fn load(source: &Source) -> Result<Config, ConfigError> {
    match read(source) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(ConfigError { path: source.path.clone(), problems, exit: Exit::Usage }),
    }
}

/// Reads every source and looks at the key files. The problems are complete; there is a configuration whenever every single
/// value is right.
pub(crate) fn read(source: &Source) -> (Option<Config>, Vec<Problem>) {
    let text = match read_text(&source.path) {
        Ok(text) => text,
        Err(problem) => return (None, vec![problem]),
    };
    let (config, mut problems) = interpret(&text, source);
    if let Some(config) = &config {
        problems.extend(check::key_files(&config.state_dir));
    }
    (config, problems)
}

/// The state directory as far as it can be made out of a configuration that may be broken in every other way; the default one
/// when it is not named.
pub(super) fn state_dir(source: &Source) -> StateDir {
    const KEY: &str = "state_dir";
    let flag = source.flags.iter().rev().find(|(name, _)| name == KEY).map(|(_, text)| text.clone());
    let variable = || source.environment.iter().find(|(name, _)| *name == KEY).map(|(_, text)| text.clone());
    let overridden = flag.or_else(variable).map(|text| text.trim_matches('"').to_owned());
    let named = overridden.or_else(|| state_dir_in(&read_text(&source.path).ok()?));
    let named = named.map(PathBuf::from).filter(|path| path.is_absolute());
    named.map_or_else(default_state_dir, StateDir::new)
}

/// The state directory of a configuration that names none.
pub(crate) fn default_state_dir() -> StateDir {
    StateDir::new(default_path("state_dir"))
}

/// The runtime directory of a configuration that names none.
pub(crate) fn default_runtime_dir() -> RuntimeDir {
    RuntimeDir::new(default_path("runtime_dir"))
}

fn default_path(key: &str) -> PathBuf {
    let value = default_value(key).expect("both directories have a default");
    value::directory(&value).expect("a default is a valid value")
}

/// In a file with a broken line, the other lines still count.
fn state_dir_in(text: &str) -> Option<String> {
    let named = |text: &str| Some(toml::from_str::<Table>(text).ok()?.get("state_dir")?.as_str()?.to_owned());
    named(text).or_else(|| text.lines().find_map(named))
}

fn read_text(path: &Path) -> Result<String, Problem> {
    let problem =
        |reason: String, next: &str| Problem { what: path.display().to_string(), reason, next: next.to_owned() };
    let found = std::fs::metadata(path).map_err(|error| {
        let next = if error.kind() == std::io::ErrorKind::NotFound {
            "run `adit-server init`, or name the file with --config or ADIT_CONFIG"
        } else {
            "run as root or as the owner of the file"
        };
        problem(format!("cannot be read: {error}"), next)
    })?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(problem(
            "is not a configuration file".to_owned(),
            "name the TOML file with --config or ADIT_CONFIG",
        ));
    }
    std::fs::read_to_string(path)
        .map_err(|error| problem(format!("cannot be read: {error}"), "run as root or as the owner of the file"))
}

/// Turns the text of a file and the overrides into a configuration. The problems are complete; there is a configuration
/// whenever every single value is right, so that checks of the host can add theirs.
pub(super) fn interpret(text: &str, source: &Source) -> (Option<Config>, Vec<Problem>) {
    let mut reader = Reader::default();
    match toml::from_str::<Table>(text) {
        Ok(table) => reader.flatten(&table),
        Err(error) => {
            reader.problems.push(syntax_problem(text, &error));
            return (None, reader.problems);
        }
    }
    for (name, text) in &source.environment {
        let origin = keys::find(name).map_or_else(String::new, Key::variable);
        reader.set(name, text, &origin);
    }
    for (name, text) in &source.flags {
        reader.set(name, text, "--set");
    }
    let config = reader.config(&source.path);
    if let Some(config) = &config {
        reader.problems.extend(check::coherence(config));
    }
    (config, reader.problems)
}

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let TomlFault { line, reason } = TomlFault::of(error, text);
    Problem { what: format!("line {line}"), reason, next: "mend the TOML syntax of that line".to_owned() }
}

/// The given values by key, and the problems found so far.
#[derive(Default)]
struct Reader {
    given: BTreeMap<&'static str, (Value, String)>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Takes the known keys out of a file and complains of the others.
    fn flatten(&mut self, table: &Table) {
        for (name, value) in table {
            if !keys::is_table(name) {
                self.take(name, value.clone(), "");
            } else if let Value::Table(inner) = value {
                for (leaf, value) in inner {
                    self.take(&format!("{name}.{leaf}"), value.clone(), "");
                }
            } else {
                let next = format!("write [{name}] and its keys below it");
                self.problem(name, format!("{value} is not a table"), next);
            }
        }
    }

    fn take(&mut self, name: &str, value: Value, origin: &str) {
        if let Some(key) = keys::find(name) {
            self.given.insert(key.name, (value, origin.to_owned()));
            return;
        }
        let next = keys::closest(name).map_or_else(
            || "remove it; the commented file that `adit-server init` writes lists every key".to_owned(),
            |close| format!("did you mean `{close}`?"),
        );
        let what = if origin.is_empty() { name.to_owned() } else { format!("{name} ({origin})") };
        self.problem(&what, "unknown key".to_owned(), next);
    }

    /// Takes an override: a TOML literal, or else plain text, which for a list is split at its commas.
    fn set(&mut self, name: &str, text: &str, origin: &str) {
        let literal =
            toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
        let value = match (literal, keys::find(name).is_some_and(Key::is_list)) {
            (Some(value @ Value::Array(_)), true) => value,
            (_, true) => Value::Array(text.split(',').map(|item| Value::String(item.trim().to_owned())).collect()),
            (Some(value), false) => value,
            (None, false) => Value::String(text.to_owned()),
        };
        self.take(name, value, origin);
    }

    fn problem(&mut self, what: &str, reason: String, next: String) {
        self.problems.push(Problem { what: what.to_owned(), reason, next });
    }

    /// Reads one key: the given value, else its default, else nothing.
    fn optional<T>(&mut self, name: &'static str, parse: impl FnOnce(&Value) -> Parsed<T>) -> Option<T> {
        let (value, origin) = match self.given.remove(name) {
            Some(given) => given,
            None => (default_value(name)?, String::new()),
        };
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(complaint) => {
                let what = if origin.is_empty() { name.to_owned() } else { format!("{name} ({origin})") };
                self.problem(&what, complaint.reason, complaint.next);
                None
            }
        }
    }

    /// Reads one key that must be present.
    fn required<T>(&mut self, name: &'static str, parse: impl FnOnce(&Value) -> Parsed<T>) -> Option<T> {
        if !self.given.contains_key(name) && default_value(name).is_none() {
            let sample = keys::find(name).map_or("", |key| key.sample);
            self.problem(name, "missing".to_owned(), format!("add {name} = {sample}"));
            return None;
        }
        self.optional(name, parse)
    }

    /// Reads all keys, in the order of the table, complaining of each bad one before giving up.
    fn config(&mut self, path: &Path) -> Option<Config> {
        let public = self.required("public", |value| non_empty(value::list(value, value::public_address)?));
        let listen = self.required("listen", |value| non_empty(value::list(value, value::socket_address)?));
        let routes = self.required("routes", |value| value::list(value, value::prefix));
        let client_to_client = self.required("client_to_client", value::boolean);
        let masquerade = self.required("masquerade", value::boolean);
        let lease_cooldown = self.required("lease_cooldown", |value| value::duration(value, Duration::ZERO, DAY));
        let invite_lifetime =
            self.required("invite_lifetime", |value| value::duration(value, Duration::from_secs(1), 30 * DAY));
        let certificate_lifetime =
            self.required("certificate_lifetime", |value| value::duration(value, Duration::from_secs(60), 825 * DAY));
        let state_dir = self.required("state_dir", value::directory);
        let runtime_dir = self.required("runtime_dir", value::directory);
        let tun = self.tun();
        let before = self.problems.len();
        let pool = Pools { v4: self.optional("pool.v4", value::pool_v4), v6: self.optional("pool.v6", value::pool_v6) };
        let pool = (self.problems.len() == before).then_some(pool);
        let dns = self.dns();
        let limits = self.limits();
        let esp = self.esp();
        let workers = self.workers();
        Some(Config {
            path: path.to_owned(),
            public: public?,
            listen: listen?,
            tun: tun?,
            pool: pool?,
            routes: routes?,
            dns: dns?,
            client_to_client: client_to_client?,
            masquerade: masquerade?,
            limits: limits?,
            esp: esp?,
            workers: workers?,
            lease_cooldown: lease_cooldown?,
            invite_lifetime: invite_lifetime?,
            certificate_lifetime: certificate_lifetime?,
            state_dir: StateDir::new(state_dir?),
            runtime_dir: RuntimeDir::new(runtime_dir?),
        })
    }

    fn tun(&mut self) -> Option<TunConfig> {
        let name = self.required("tun.name", value::device_name);
        let mtu = self.required("tun.mtu", |value| value::integer(value, IPV6_MIN_MTU, LARGEST_MTU));
        Some(TunConfig { name: name?, mtu: mtu? })
    }

    fn dns(&mut self) -> Option<DnsConfig> {
        let servers = self.required("dns.servers", |value| value::list(value, value::ip));
        let domains = self.required("dns.domains", |value| value::list(value, value::domain));
        Some(DnsConfig { servers: servers?, domains: domains? })
    }

    fn limits(&mut self) -> Option<Limits> {
        let sessions = self.required("limits.sessions", |value| value::integer(value, 1, 1_000_000_usize));
        let pending_sessions = self.required("limits.pending_sessions", |value| value::integer(value, 1, 65_535_usize));
        let connections_per_client =
            self.required("limits.connections_per_client", |value| value::integer(value, 16, 1_000_000_u32));
        Some(Limits {
            sessions: sessions?,
            pending_sessions: pending_sessions?,
            connections_per_client: connections_per_client?,
        })
    }

    fn esp(&mut self) -> Option<EspConfig> {
        let enabled = self.required("esp.enabled", value::boolean);
        let suites = self.required("esp.suites", |value| non_empty(value::list(value, value::suite)?));
        let vouched = self.required("esp.vouched", value::boolean);
        let rekey_after = self.required("esp.rekey_after", |value| value::duration(value, Duration::from_secs(1), DAY));
        let (least, most) = REKEY_PACKETS;
        let rekey_packets = self.required("esp.rekey_packets", |value| value::integer(value, least, most));
        Some(EspConfig {
            enabled: enabled?,
            suites: suites?,
            vouched: vouched?,
            rekey_after: rekey_after?,
            rekey_packets: rekey_packets?,
        })
    }

    fn workers(&mut self) -> Option<WorkersConfig> {
        let count = self.required("workers.count", |value| value::integer(value, 0, MOST_WORKERS));
        let yields = self.required("workers.yields", |value| value::integer(value, 0, 1000));
        let tun_offload = self.required("workers.tun_offload", value::boolean);
        let udp_offload = self.required("workers.udp_offload", value::boolean);
        let quic_threads = self.required("workers.quic_threads", |value| value::integer(value, 0, MOST_WORKERS));
        Some(WorkersConfig {
            count: count?,
            yields: yields?,
            tun_offload: tun_offload?,
            udp_offload: udp_offload?,
            quic_threads: quic_threads?,
        })
    }
}

fn non_empty<T>(list: Vec<T>) -> Parsed<Vec<T>> {
    if list.is_empty() { value::complaint("the list is empty", "name at least one") } else { Ok(list) }
}

fn default_value(name: &str) -> Option<Value> {
    let literal = keys::find(name)?.default?;
    toml::from_str::<Table>(&format!("value = {literal}")).ok()?.remove("value")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "public = [\"vpn.example.org\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n";

    fn problems(text: &str) -> Vec<String> {
        interpret(text, &Source::file(Path::new("server.toml"))).1.iter().map(ToString::to_string).collect()
    }

    fn with(environment: Vec<(&'static str, String)>, flags: Vec<(String, String)>) -> (Option<Config>, Vec<Problem>) {
        interpret(GOOD, &Source { path: "server.toml".into(), environment, flags })
    }

    #[test]
    fn smallest_file_gets_every_default() {
        let (config, problems) = interpret(GOOD, &Source::file(Path::new("server.toml")));
        assert_eq!(problems, []);
        let config = config.unwrap();
        assert_eq!(config.listen, ["[::]:443".parse().unwrap()]);
        assert_eq!(config.tun, TunConfig { name: "adit0".into(), mtu: 1420 });
        assert_eq!(config.routes.len(), 2);
        assert_eq!((config.client_to_client, config.masquerade), (false, true));
        assert_eq!(config.limits, Limits { sessions: 10_000, pending_sessions: 1024, connections_per_client: 2000 });
        let settings = config.esp.settings().unwrap();
        assert_eq!(settings, adit_net::carrier::esp::EspSettings::default());
        assert_eq!(
            config.workers,
            WorkersConfig { count: 0, yields: 0, tun_offload: true, udp_offload: true, quic_threads: 0 }
        );
        assert_eq!(config.workers.settings(), adit_net::worker::Settings::default());
        assert_eq!(config.lease_cooldown, Duration::from_secs(120));
        assert_eq!(config.invite_lifetime, DAY);
        assert_eq!(config.certificate_lifetime, 30 * DAY);
        assert_eq!(config.runtime_dir.socket(), Path::new("/run/adit/server.sock"));
    }

    #[test]
    fn every_default_and_sample_is_a_valid_value() {
        for key in KEYS {
            if key.default.is_some() {
                assert!(default_value(key.name).is_some(), "{}", key.name);
            }
            let resolver = ("dns.servers", "10.1.0.53".to_owned());
            let (_, problems) = with(vec![resolver], vec![(key.name.to_owned(), key.sample.to_owned())]);
            assert_eq!(problems, [], "sample of {}", key.name);
        }
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let found = problems(
            "publik = [\"a.example\"]\nlisten = [\"nonsense\"]\n[tun]\nmtu = 9\nnmae = \"x\"\n[pool]\nv4 = \"10.0.0.1/24\"\n",
        );
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(found.iter().any(|line| line == "publik: unknown key; did you mean `public`?"));
        assert!(found.iter().any(|line| line == "tun.nmae: unknown key; did you mean `tun.name`?"));
        assert!(found.iter().any(|line| line.starts_with("public: missing")));
        assert!(found.iter().all(|line| !line.contains('\n')));
    }

    #[test]
    fn syntax_error_names_its_line() {
        let found = problems("public = [\"a.example\"]\nlisten = \n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("line 2: "), "{found:?}");
    }

    #[test]
    fn flags_win_over_environment_which_wins_over_file() {
        let (config, _) = with(vec![("tun.mtu", "1300".into())], vec![]);
        assert_eq!(config.unwrap().tun.mtu, 1300);
        let (config, _) = with(vec![("tun.mtu", "1300".into())], vec![("tun.mtu".into(), "1500".into())]);
        assert_eq!(config.unwrap().tun.mtu, 1500);
    }

    #[test]
    fn override_of_a_list_is_split_at_commas() {
        let (config, problems) = with(vec![("listen", "0.0.0.0:443, [::1]:444".into())], vec![]);
        assert_eq!(problems, []);
        assert_eq!(config.unwrap().listen.len(), 2);
    }

    #[test]
    fn bad_override_names_its_origin() {
        let (_, problems) = with(vec![("tun.mtu", "9".into())], vec![("tun.mut".into(), "9".into())]);
        assert_eq!(problems[0].what, "tun.mut (--set)");
        assert_eq!(problems[1].what, "tun.mtu (ADIT_TUN_MTU)");
    }

    #[test]
    fn values_of_esp_and_workers_have_bounds() {
        for (key, good, bad) in [
            ("esp.suites", "[\"aes-128-gcm\"]", &["[\"AES\"]", "[]", "[\"aes-128-gcm\", \"aes-128-gcm\"]"][..]),
            ("esp.rekey_after", "\"1s\"", &["\"500ms\"", "\"25h\"", "3600"]),
            ("esp.rekey_packets", "1024", &["1023", "268435457"]),
            ("workers.count", "64", &["65", "-1"]),
            ("workers.yields", "0", &["1001"]),
            ("workers.udp_offload", "false", &["1"]),
            ("workers.quic_threads", "64", &["65", "-1"]),
        ] {
            assert_eq!(with(vec![], vec![(key.into(), good.into())]).1, [], "{key} = {good}");
            for value in bad {
                let (_, problems) = with(vec![], vec![(key.into(), (*value).into())]);
                assert_eq!(problems.len(), 1, "{key} = {value}: {problems:?}");
            }
        }
        let (_, problems) = with(vec![], vec![("esp.suites".into(), "aes-256-gcm,aes".into())]);
        assert_eq!(problems[0].reason, "\"aes\" is not a cipher suite");
        assert_eq!(problems[0].next, "write aes-256-gcm, aes-128-gcm, chacha20-poly1305");
    }

    #[test]
    fn state_directory_is_found_in_a_broken_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.toml");
        let found = |text: &str, flags: &[(&str, &str)]| {
            std::fs::write(&path, text).unwrap();
            let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            state_dir(&Source { path: path.clone(), environment: vec![], flags })
        };
        let default = StateDir::new("/var/lib/adit");
        let srv = StateDir::new("/srv/adit");
        assert_eq!(found("state_dir = \"/srv/adit\"\nnonsense = 1\n", &[]), srv);
        assert_eq!(found("public = [\nstate_dir = \"/srv/adit\"\n[[[\n", &[]), srv);
        assert_eq!(found("# state_dir = \"/srv/adit\"\n", &[]), default);
        assert_eq!(found("state_dir = \"relative\"\n", &[]), default);
        assert_eq!(found("state_dir = 7\n[[[", &[]), default);
        assert_eq!(found("state_dir = \"/a\"\n", &[("state_dir", "/b")]), StateDir::new("/b"));
        assert_eq!(state_dir(&Source::file(Path::new("/nonexistent/server.toml"))), default);
    }

    #[test]
    fn table_given_as_a_value_is_named() {
        assert!(problems("public = [\"a.example\"]\npool = 3\n")[0].starts_with("pool: 3 is not a table"));
    }
}
