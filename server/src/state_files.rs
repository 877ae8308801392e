//! What a gateway reads beside its configuration, loaded whole, so that every problem is told at once.

use std::path::Path;
use std::time::SystemTime;

use adit_net::quic::EndpointKeys;
use adit_program::exit::{Exit, Failure};

use crate::accounts::sqlite::{Store, StoreError};
use crate::acme;
use crate::config::{Config, ConfigError, Problem, Source, read};
use crate::identity::{Authority, IdentityError, ServiceKey, load_endpoint_keys};
use crate::policy::PolicyFile;
use crate::sources;

/// The files of a state directory, opened, and the policy.
pub struct StateFiles {
    /// Users, devices, invites and leases.
    pub store: Store,
    /// The certificate authority.
    pub authority: Authority,
    /// The keys of the QUIC endpoint.
    pub keys: EndpointKeys,
    /// Groups and rules, where the configuration names a file of them. It may fail tests of its own.
    pub policy: Option<PolicyFile>,
}

impl StateFiles {
    /// Checks the host's addresses and loads everything, to run.
    ///
    /// # Errors
    /// All problems found, with the exit code they amount to: 2 while the configuration or a file is wrong, 1 for what
    /// may go away by itself, such as a full disk.
    pub fn load(config: &Config) -> Result<Self, ConfigError> {
        let mut findings = Findings::default();
        match findings.look_at(config, Store::open) {
            Some(state) if findings.problems.is_empty() => Ok(state),
            Some(_) | None => Err(findings.into_error(&config.path)),
        }
    }
}

/// Reads the configuration and everything [`StateFiles::load`] would load with it, and changes nothing.
///
/// # Errors
/// All problems found, of the configuration as well as of the state and the host.
pub fn check(source: &Source) -> Result<Config, ConfigError> {
    let (config, problems) = read(source);
    let mut findings = Findings { exit: (!problems.is_empty()).then_some(Exit::Usage), problems };
    if let Some(config) = &config {
        let state = findings.look_at(config, Store::open_read_only);
        let policy = state.and_then(|state| state.policy);
        findings.add_all(policy.map(|policy| policy.failed_tests()).unwrap_or_default());
    }
    match config {
        Some(config) if findings.problems.is_empty() => Ok(config),
        Some(_) | None => Err(findings.into_error(&source.path)),
    }
}

#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    /// The gravest so far.
    exit: Option<Exit>,
}

impl Findings {
    fn look_at(&mut self, config: &Config, open: fn(&Path) -> Result<Store, StoreError>) -> Option<StateFiles> {
        if let Err(error) = config.check_host() {
            self.add_all(error.problems);
        }
        self.add_all(sources::problems(config));
        self.add_all(acme::problems(config));
        let policy = PolicyFile::of(config).map_err(|error| self.add_all(error.problems)).ok();
        if !config.state_dir.path().exists() {
            // One problem, not four.
            self.add(missing(config.state_dir.path()));
            return None;
        }
        let path = config.state_dir.store();
        let store = self.keep(open(&path).map_err(|error| Store::failure(&path, error)));
        let authority = self.keep(load_authority(config).map_err(IdentityError::into_failure));
        // The one of a former version is made later; it is no problem that it is not there.
        self.keep(ServiceKey::load(&config.state_dir).map_err(IdentityError::into_failure));
        let keys = load_endpoint_keys(&config.state_dir.endpoint_keys());
        let keys = self.keep(keys.map_err(IdentityError::into_failure));
        self.keep(config.tls.files().and_then(|files| files.map(|files| files.load()).transpose()));
        Some(StateFiles { store: store?, authority: authority?, keys: keys?, policy: policy? })
    }

    fn keep<T>(&mut self, loaded: Result<T, Failure>) -> Option<T> {
        loaded.map_err(|failure| self.add(failure)).ok()
    }

    /// Problems of files, which somebody has to mend.
    fn add_all(&mut self, problems: Vec<Problem>) {
        if !problems.is_empty() {
            self.exit = Some(Exit::Usage);
        }
        self.problems.extend(problems);
    }

    /// A wrong file weighs more than what may go away by itself. What is known already is not said again.
    fn add(&mut self, failure: Failure) {
        if self.exit != Some(Exit::Usage) {
            self.exit = Some(failure.exit);
        }
        let problem = Problem::new(failure.what, failure.reason, failure.next);
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn into_error(self, path: &Path) -> ConfigError {
        let exit = self.exit.expect("whoever finds a problem notes its exit code");
        ConfigError { path: path.to_owned(), problems: self.problems, exit }
    }
}

/// Loads the authority and tries whether it certifies the public names.
fn load_authority(config: &Config) -> Result<Authority, IdentityError> {
    let authority = Authority::load(&config.state_dir)?;
    authority.issue_server(&config.certificate_names(), SystemTime::now())?;
    Ok(authority)
}

fn missing(state_dir: &Path) -> Failure {
    let what = state_dir.display().to_string();
    let next = "run `adit-server init`, or mend state_dir";
    Failure::new(Exit::Usage, what, "the state directory does not exist", next)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use adit_program::durable_file;

    use super::*;
    use crate::config::PublicAddress;
    use crate::directories::StateDir;
    use crate::init::{Wishes, init};

    struct Gateway {
        _directory: tempfile::TempDir,
        source: Source,
        state_dir: StateDir,
    }

    impl Gateway {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let public = vec![PublicAddress { host: "vpn.example.org".into(), port: 443 }];
            let wishes = Wishes { directory: Some(directory.path().to_owned()), public, ..Wishes::default() };
            let made = init(&wishes, SystemTime::now()).unwrap();
            Self { _directory: directory, source: Source::file(&made.config), state_dir: made.state_dir }
        }

        /// What `check` and `run` complain of, which must be the same.
        fn problems(&self) -> (Exit, Vec<String>) {
            let checked = check(&self.source).unwrap_err();
            let ran = Config::load(&self.source).and_then(|config| StateFiles::load(&config)).err().unwrap();
            assert_eq!(checked, ran);
            (
                checked.exit,
                checked.problems.iter().map(|problem| format!("{}: {}", problem.what, problem.reason)).collect(),
            )
        }

        fn replace(&self, path: &Path, content: &[u8]) {
            fs::remove_file(path).unwrap();
            durable_file::create(path, content, 0o600).unwrap();
            assert!(path.starts_with(self.state_dir.path()));
        }
    }

    #[test]
    fn good_state_is_loaded_and_a_check_changes_nothing() {
        let gateway = Gateway::new();
        let listing = || {
            let mut names: Vec<_> =
                fs::read_dir(gateway.state_dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = listing();
        let config = check(&gateway.source).unwrap();
        assert_eq!(listing(), before);
        let state = StateFiles::load(&config).unwrap();
        assert_eq!(state.store.devices().unwrap(), []);
    }

    #[test]
    fn missing_authority_certificate_is_named() {
        let gateway = Gateway::new();
        let path = gateway.state_dir.authority_certificate();
        fs::remove_file(&path).unwrap();
        let (exit, problems) = gateway.problems();
        assert_eq!((exit, problems.len()), (Exit::Usage, 1), "{problems:?}");
        assert!(problems[0].starts_with(&path.display().to_string()), "{problems:?}");
    }

    #[test]
    fn garbage_in_every_file_is_told_at_once() {
        let gateway = Gateway::new();
        let [key, keys, store] =
            [gateway.state_dir.authority_key(), gateway.state_dir.endpoint_keys(), gateway.state_dir.store()];
        gateway.replace(&key, b"garbage");
        gateway.replace(&keys, b"garbage");
        gateway.replace(&store, &[0x5a; 8192]);
        let (exit, problems) = gateway.problems();
        assert_eq!((exit, problems.len()), (Exit::Usage, 3), "{problems:?}");
        for path in [key, keys, store] {
            let path = path.display().to_string();
            assert!(problems.iter().any(|problem| problem.starts_with(&path)), "{path}: {problems:?}");
        }
    }

    #[test]
    fn bad_key_of_the_configuration_does_not_hide_a_bad_file() {
        let gateway = Gateway::new();
        fs::remove_file(gateway.state_dir.authority_certificate()).unwrap();
        let text = fs::read_to_string(&gateway.source.path).unwrap();
        fs::write(&gateway.source.path, format!("nonsense = 1\n{text}")).unwrap();
        assert_eq!(check(&gateway.source).unwrap_err().problems.len(), 2);
    }

    #[test]
    fn source_that_cannot_be_used_is_named() {
        let gateway = Gateway::new();
        let text = fs::read_to_string(&gateway.source.path).unwrap();
        fs::write(&gateway.source.path, text.replace("[login]\n", "[login]\nsources = [\"radius\", \"ldap\"]\n"))
            .unwrap();
        let (exit, problems) = gateway.problems();
        assert_eq!((exit, problems.len()), (Exit::Usage, 2), "{problems:?}");
        assert!(problems[0].starts_with("radius") && problems[1].starts_with("ldap"), "{problems:?}");
    }

    #[test]
    fn policy_with_a_mistake_is_refused_and_one_that_fails_a_test_only_by_the_check() {
        let gateway = Gateway::new();
        let path = gateway.source.path.with_file_name("policy.toml");
        let text = fs::read_to_string(&gateway.source.path).unwrap();
        fs::write(&gateway.source.path, format!("policy = {path:?}\n{text}")).unwrap();
        durable_file::create(&path, b"[groups.g]\nmember = []\n", 0o644).unwrap();
        let (exit, problems) = gateway.problems();
        assert_eq!((exit, problems.len()), (Exit::Usage, 1), "{problems:?}");
        assert!(problems[0].contains("policy.toml:2: groups.g.member"), "{problems:?}");
        let load = || StateFiles::load(&Config::load(&gateway.source).unwrap());
        fs::write(&path, "[groups.g]\nmembers = []\n[[tests]]\ngroups = [\"g\"]\ndeny = [\"icmp ::1\"]\n").unwrap();
        assert_eq!(check(&gateway.source).unwrap_err().problems.len(), 1);
        assert_eq!(load().unwrap().policy.unwrap().failed_tests().len(), 1);
        fs::write(&path, "[groups.g]\nmembers = []\n").unwrap();
        assert!(check(&gateway.source).is_ok());
        assert_eq!(load().unwrap().policy.unwrap().failed_tests(), []);
    }

    #[test]
    fn public_certificate_needs_both_its_files() {
        let gateway = Gateway::new();
        let text = fs::read_to_string(&gateway.source.path).unwrap();
        let with = |table: &str| {
            fs::write(&gateway.source.path, text.replace("[tls]\n", &format!("[tls]\n{table}\n"))).unwrap();
            gateway.problems().1
        };
        assert_eq!(with("key = \"/none/key.pem\""), ["tls.certificate: not set, and tls.key is"]);
        assert_eq!(with("certificate = \"/none/cert.pem\""), ["tls.key: not set, and tls.certificate is"]);
        let missing = with("certificate = \"/none/cert.pem\"\nkey = \"/none/key.pem\"");
        assert!(missing.len() == 1 && missing[0].contains("does not exist"), "{missing:?}");
    }

    #[test]
    #[cfg(feature = "acme")]
    fn certificates_by_acme_need_terms_tcp_and_a_readable_authority_and_no_files_beside_them() {
        let gateway = Gateway::new();
        let text = fs::read_to_string(&gateway.source.path).unwrap();
        let write = |top: &str, tables: &str| {
            let text = text.replace("[tls]\n", "").replace("[acme]\n", "");
            fs::write(&gateway.source.path, format!("{top}\n{text}\n{tables}\n")).unwrap();
        };
        let with = |top: &str, tables: &str| {
            write(top, tables);
            gateway.problems().1
        };
        // Not those of the system, which need not have any.
        let authority = gateway.source.path.with_file_name("ca.pem");
        let made = rcgen::generate_simple_self_signed(["acme.example".to_owned()]).unwrap();
        durable_file::create(&authority, made.cert.pem().as_bytes(), 0o644).unwrap();
        let named = format!("[acme]\nnames = [\"vpn.example.org\"]\nauthority = {authority:?}");
        let good = &format!("{named}\naccept_terms = true");
        write("", good);
        assert!(check(&gateway.source).is_ok(), "nobody is asked");
        let terms = with("", &named);
        assert!(terms.len() == 1 && terms[0].starts_with("acme.accept_terms: "), "{terms:?}");
        let tcp = with("listen_tcp = false", good);
        assert!(tcp.len() == 1 && tcp[0].starts_with("acme.names: ") && tcp[0].contains("listen_tcp"), "{tcp:?}");
        let authority = with("", &good.replace("ca.pem", "none.pem"));
        assert!(authority.len() == 1 && authority[0].starts_with("acme.authority: "), "{authority:?}");
        let plain = with("", &format!("{good}\ndirectory = \"http://acme.example/dir\""));
        assert!(plain.len() == 1 && plain[0].starts_with("acme.directory: "), "{plain:?}");
        let both = with("", &format!("{good}\n[tls]\nkey = \"/none/key.pem\""));
        let is_named = |key: &str| both.iter().any(|problem| problem.starts_with(key));
        assert!(both.len() == 2 && is_named("acme.names: ") && is_named("tls.certificate: "), "{both:?}");
    }

    #[test]
    fn missing_state_directory_is_one_problem() {
        let gateway = Gateway::new();
        fs::rename(gateway.state_dir.path(), gateway.state_dir.path().with_extension("away")).unwrap();
        assert_eq!(check(&gateway.source).unwrap_err().problems.len(), 1);
    }
}
