//! Reading the configuration from its sources.

use std::path::{Path, PathBuf};

use adit_program::configuration::{Finding, Overrides, Values};
use adit_program::exit::Exit;
use adit_program::rights::to_reach_files_of;
use adit_program::toml_error::TomlFault;
use toml::Table;

use crate::directories::{RuntimeDir, StateDir};

use super::keys::KEYS;
use super::{Config, ConfigError, DEFAULT_PATH, Problem, check};

/// Largest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Where the parts of a configuration come from: flags win over the environment, which wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// What the environment and the flags say on top.
    pub overrides: Overrides,
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
        let overrides = Overrides { environment: KEYS.environment(), flags };
        Self { path: path.unwrap_or_else(|| PathBuf::from(DEFAULT_PATH)), overrides }
    }
}

pub(super) fn load(source: &Source) -> Result<Config, ConfigError> {
    match read(source) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(refused(source, problems)),
    }
}

fn refused(source: &Source, problems: Vec<Problem>) -> ConfigError {
    ConfigError { path: source.path.clone(), problems, exit: Exit::Usage }
}

/// The values that every source gives, which together are a good configuration.
pub(super) fn values(source: &Source) -> Result<Values, ConfigError> {
    load(source)?;
    let text = read_text(&source.path).map_err(|problem| refused(source, vec![problem]))?;
    match KEYS.gather(&text, &source.overrides) {
        Ok((values, _)) => Ok(values),
        Err(fault) => Err(refused(source, vec![not_toml(fault)])),
    }
}

/// The configuration that values are; those may come of more than one reading of the file.
pub(super) fn of_values(values: &Values, source: &Source) -> Result<Config, ConfigError> {
    let mut config = Config::unread(&source.path);
    let findings = KEYS.read_values(values, &mut config);
    match judge(config, findings) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(refused(source, problems)),
    }
}

/// Reads every source and looks at the key files. The problems are complete; there is a configuration whenever every
/// single value is right.
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

/// The state directory as far as it can be made out of a configuration that may be broken in every other way; the
/// default one when it is not named.
pub(super) fn state_dir(source: &Source) -> StateDir {
    let overridden = source.overrides.of("state_dir").map(|text| text.trim_matches('"').to_owned());
    let named = overridden.or_else(|| state_dir_in(&read_text(&source.path).ok()?));
    let named = named.map(PathBuf::from).filter(|path| path.is_absolute());
    named.map_or_else(default_state_dir, StateDir::new)
}

/// The state directory of a configuration that names none.
pub(crate) fn default_state_dir() -> StateDir {
    defaults_of(["state_dir"]).state_dir
}

/// The runtime directory of a configuration that names none.
pub(crate) fn default_runtime_dir() -> RuntimeDir {
    defaults_of(["runtime_dir"]).runtime_dir
}

/// A configuration of which only the defaults of these keys were read.
fn defaults_of<const N: usize>(keys: [&str; N]) -> Config {
    let mut config = Config::unread(Path::new(""));
    for key in keys {
        KEYS.read_default(key, &mut config).expect("a default is a valid value");
    }
    config
}

/// In a file with a broken line, the other lines still count.
fn state_dir_in(text: &str) -> Option<String> {
    let named = |text: &str| Some(toml::from_str::<Table>(text).ok()?.get("state_dir")?.as_str()?.to_owned());
    named(text).or_else(|| text.lines().find_map(named))
}

fn read_text(path: &Path) -> Result<String, Problem> {
    let problem = |reason: String, next: &str| Problem::new(path.display().to_string(), reason, next);
    let unreadable = |error: std::io::Error| {
        let next = if error.kind() == std::io::ErrorKind::NotFound {
            "run `adit-server init`, or name the file with --config or ADIT_CONFIG".to_owned()
        } else if error.kind() == std::io::ErrorKind::PermissionDenied {
            to_reach_files_of("root or as the owner of the file")
        } else {
            "mend the file or its file system".to_owned()
        };
        problem(format!("cannot be read: {error}"), &next)
    };
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(problem(
            "is not a configuration file".to_owned(),
            "name the TOML file with --config or ADIT_CONFIG",
        ));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Turns the text of a file and the overrides into a configuration. The problems are complete; there is a configuration
/// whenever every single value is right, so that checks of the host can add theirs.
pub(super) fn interpret(text: &str, source: &Source) -> (Option<Config>, Vec<Problem>) {
    let mut config = Config::unread(&source.path);
    let findings = match KEYS.read(text, &source.overrides, &mut config) {
        Ok(findings) => findings,
        Err(fault) => return (None, vec![not_toml(fault)]),
    };
    judge(config, findings)
}

fn not_toml(fault: TomlFault) -> Problem {
    Problem::new(format!("line {}", fault.line), fault.reason, "mend the TOML syntax of that line")
}

/// A configuration that was read, if no value is missing, and what is wrong with it.
fn judge(config: Config, findings: Vec<Finding>) -> (Option<Config>, Vec<Problem>) {
    let complete = !findings.iter().any(Finding::leaves_a_gap);
    let mut problems: Vec<Problem> = findings.into_iter().map(Problem::from).collect();
    if complete {
        problems.extend(check::coherence(&config));
    }
    (complete.then_some(config), problems)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use adit_program::configuration::Overrides;

    use super::super::{Limits, TunConfig, WorkersConfig};
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    const GOOD: &str = "public = [\"vpn.example.org\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n";

    fn problems(text: &str) -> Vec<String> {
        interpret(text, &Source::file(Path::new("server.toml"))).1.iter().map(ToString::to_string).collect()
    }

    fn with(environment: Vec<(&'static str, String)>, flags: Vec<(String, String)>) -> (Option<Config>, Vec<Problem>) {
        interpret(GOOD, &Source { path: "server.toml".into(), overrides: Overrides { environment, flags } })
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
        let limits =
            Limits { sessions: 10_000, pending_sessions: 1024, connections_per_client: 2000, devices_per_user: 32 };
        assert_eq!(config.limits, limits);
        let settings = config.esp.settings().unwrap();
        assert_eq!(settings, adit_net::carrier::esp::EspSettings::default());
        assert_eq!(
            config.workers,
            WorkersConfig {
                count: 0,
                settings: adit_net::worker::Settings::default(),
                tun_offload: true,
                udp_offload: true,
                quic_threads: 0
            }
        );
        assert_eq!(config.lease_cooldown, Duration::from_secs(120));
        assert_eq!(config.invite_lifetime, DAY);
        assert_eq!(config.certificate_lifetime, 30 * DAY);
        assert!(config.certificate_renewal);
        assert_eq!(config.runtime_dir.socket(), Path::new("/run/adit/server.sock"));
    }

    #[test]
    fn every_row_is_read_into_a_place_of_its_own() {
        let base = [("public", "a.example"), ("pool.v4", "10.78.0.0/24"), ("dns.servers", "10.1.0.54")];
        let base = || base.map(|(key, text)| (key, text.to_owned())).to_vec();
        let (plain, problems) = with(base(), vec![]);
        assert_eq!(problems, []);
        let mut configurations = vec![plain.unwrap()];
        for key in KEYS.rows() {
            let (config, problems) = with(base(), vec![(key.name.to_owned(), key.example.to_owned())]);
            assert_eq!(problems, [], "example of {}", key.name);
            let config = config.unwrap();
            assert!(!configurations.contains(&config), "{} changes nothing, or what another key changes", key.name);
            configurations.push(config);
        }
    }

    #[test]
    fn port_of_dtls_is_for_gateways_that_have_clients_and_sockets_for_it() {
        let with = |top: &str, value: &str| {
            problems(&format!("{top}public = [\"a.example\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n[anyconnect]\n{value}\n"))
        };
        assert_eq!(with("", "dtls_port = 4433"), [""; 0], "the positive control");
        for off in [with("listen_tcp = false\n", "dtls_port = 4433"), with("", "enabled = false\ndtls_port = 4433")] {
            assert!(off.len() == 1 && off[0].contains("nobody is told of it"), "{off:?}");
        }
        for port in ["0", "65536", "\"4433\""] {
            assert!(with("", &format!("dtls_port = {port}"))[0].starts_with("anyconnect.dtls_port: "), "{port}");
        }
        let listen = |count: u8| {
            let addresses: Vec<String> = (1..=count).map(|number| format!("\"192.0.2.{number}:443\"")).collect();
            format!("listen = [{}]\n", addresses.join(", "))
        };
        assert_eq!(with(&listen(15), "dtls_port = 4433"), [""; 0]);
        assert!(with(&listen(16), "dtls_port = 4433")[0].contains("takes 15"));
        assert_eq!(with(&listen(16), "tls12 = false"), [""; 0]);
    }

    #[test]
    fn port_of_dtls_takes_no_address_from_a_wildcard_that_has_that_port() {
        let with = |listen: &str, port: u16| {
            let rest = format!("[pool]\nv4 = \"10.77.0.0/24\"\n[anyconnect]\ndtls_port = {port}\n");
            problems(&format!("public = [\"a.example\"]\nlisten = [{listen}]\n{rest}"))
        };
        for (listen, one, all) in [
            (r#""[::]:443", "192.0.2.1:8443""#, "192.0.2.1:443", "[::]:443"),
            (r#""192.0.2.1:8443", "0.0.0.0:443""#, "192.0.2.1:443", "0.0.0.0:443"),
            (r#""[::]:443", "0.0.0.0:8443""#, "0.0.0.0:443", "[::]:443"),
        ] {
            let found = with(listen, 443);
            let told = format!("anyconnect.dtls_port: {one} would be for DTLS alone, but {all} in listen");
            assert!(found.len() == 1 && found[0].starts_with(&told), "{found:?}");
            assert_eq!(with(listen, 4433), [""; 0], "the positive control");
        }
        for good in [
            r#""[::]:443", "[::]:8443""#,
            r#""192.0.2.1:443", "192.0.2.2:8443""#,
            r#""0.0.0.0:443", "[2001:db8::1]:8443""#,
            r#""[::]:443""#,
        ] {
            assert_eq!(with(good, 443), [""; 0], "{good}");
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
    fn values_of_the_packet_path_have_bounds() {
        for (key, good, bad) in [
            ("anyconnect.rekey_after", "\"30d\"", &["\"500ms\"", "\"31d\"", "3600"][..]),
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
            state_dir(&Source { path: path.clone(), overrides: Overrides { environment: vec![], flags } })
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
