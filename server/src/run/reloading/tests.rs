//! Reloads against the kernel's own tables, in a network namespace.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use adit_host::{HostOptions, MemberChange, PolicyClass};
use adit_testing::namespace::in_namespace_async;
use adit_testing::skip;

use super::super::network::Network;
use super::*;
use crate::config::{Source, parse_public_address};
use crate::core::Core as _;
use crate::core::enforcement::Enforcement;
use crate::core::leases::restore_pool;
use crate::core::sessions::Session;
use crate::core::tests::{FakeAccounts, FakeFlows, Nowhere, device};
use crate::init::{Wishes, init};
use crate::policy::PolicyFile;

/// Whom rules are about. Further lines go before the tables.
const POLICY: &str = "[[rules]]\nusers = [\"alice\"]\naction = \"allow\"\nto = [\"10.1.0.0/16\"]\n";
const TABLES: &str = "[pool]\nv4 = \"10.77.0.0/24\"\n";

/// Networks as nft(8) lists them in rules of the policy, which depends on its version.
const FIRST: [&str; 2] = ["ip daddr 10.1.0.0/16", "0xa010000"];
const SECOND: [&str; 2] = ["ip daddr 10.2.0.0/16", "0xa020000"];

/// The kernel's table of the policy, for which a test can have every new policy refused.
struct Refusing {
    table: Arc<PolicyTable>,
    refuses: AtomicBool,
}

impl RuleTable for Refusing {
    fn change(&self, changes: &[MemberChange]) -> Result<(), HostError> {
        self.table.change(changes)
    }

    fn replace(&self, members: HashMap<IpAddr, Arc<PolicyClass>>) -> Result<(), HostError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(HostError::NoSuchLink { name: "adit0".to_owned() });
        }
        self.table.replace(members)
    }
}

/// A gateway as far as a reload reaches it, with one session.
struct Gateway {
    _directory: tempfile::TempDir,
    file: PathBuf,
    policy: PathBuf,
    changes: HostChanges,
    reachable: Reachable,
    session: Arc<Session>,
    refusing: Option<Arc<Refusing>>,
    _tun: adit_net::tun::Tun,
}

impl Gateway {
    /// Starts it with these lines in its file, and with a policy if one of them names it.
    async fn start(lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (file, policy_path) = (directory.path().join("server.toml"), directory.path().join("policy.toml"));
        let public = vec![parse_public_address("vpn.example.org").unwrap()];
        let wishes = Wishes { directory: Some(directory.path().to_owned()), public, ..Wishes::default() };
        let made = init(&wishes, SystemTime::now()).unwrap();
        write_policy(&policy_path, POLICY);
        let mut source = Source::file(&file);
        source.overrides.flags = vec![("state_dir".to_owned(), made.state_dir.path().display().to_string())];
        fs::write(&file, text(lines, &policy_path)).unwrap();
        let values = Config::values(&source).unwrap();
        let config = Config::of_values(&values, &source).unwrap();

        let policy = PolicyFile::of(&config).unwrap().map(Arc::new);
        let pool = restore_pool(&config, Vec::new(), Instant::now());
        let own = pool.gateway();
        let options = HostOptions { resolver: false, ..HostOptions::default() };
        let mut changes = HostChanges::open_with(&directory.path().join("journal"), options).await.unwrap();
        let Network { tun, policy: table } =
            network::set_up(&config, own, policy.as_deref(), &mut changes).await.unwrap();

        let refusing = table
            .as_ref()
            .map(|table| Arc::new(Refusing { table: Arc::clone(table), refuses: AtomicBool::new(false) }));
        let enforcement = refusing.as_ref().map(|table| Enforcement::start(Arc::<Refusing>::clone(table)).unwrap());
        let terms = PersonalTerms::new(&config, own, policy.clone());
        let (accounts, flows) = (Arc::<FakeAccounts>::default(), Arc::<FakeFlows>::default());
        let core = LocalCore::new(accounts, flows, pool, terms, 10, Arc::default());
        let core = Arc::new(core.enforcing(enforcement.unwrap_or_default()));
        let opening = Arc::clone(&core);
        let opened = off_runtime(move || opening.open_session(device("dev-a"), Arc::<Nowhere>::default())).await;
        let reachable = Reachable {
            reloading: Reloading::new(source, values, policy),
            core,
            config: Arc::new(ArcSwap::from_pointee(config)),
            policy_table: Arc::new(ArcSwapOption::new(table)),
            own,
            followers: Vec::new(),
        };
        let (session, policy) = (opened.unwrap(), policy_path);
        Self { _directory: directory, file, policy, changes, reachable, session, refusing, _tun: tun }
    }

    fn write(&self, lines: &str) {
        fs::write(&self.file, text(lines, &self.policy)).unwrap();
    }

    async fn reload(&mut self) -> Result<ReloadAnswer, ReloadRefusal> {
        self.reachable.reload(ReloadRequest::default(), &mut self.changes).await
    }

    /// Everything that a reload may change, in words: the kernel's tables, and what the gateway holds in memory.
    fn state(&self) -> String {
        let session = self.session.grant().terms;
        let (common, rules) = (self.reachable.core.personal_terms(), session.rules.as_ref().map(|rules| rules.number));
        let config = self.reachable.config.load();
        format!(
            "{}\nterms {:p}, session on {:p} with rules {rules:?}, table {}, configuration {config:?}",
            tables(),
            Arc::as_ptr(&common),
            Arc::as_ptr(&session),
            self.reachable.policy_table.load().is_some(),
        )
    }

    /// Asserts that a reload is refused with these words, and that nothing at all is changed.
    async fn assert_refused(&mut self, words: &str) {
        let before = self.state();
        let refusal = self.reload().await.unwrap_err();
        assert!(refusal.0.contains(words), "{refusal}");
        assert_eq!(self.state(), before);
    }
}

/// The text of a gateway's file. `POLICY` in its lines stands for the policy's file.
fn text(lines: &str, policy: &std::path::Path) -> String {
    let named = lines.replace("POLICY", &format!("policy = {policy:?}"));
    format!("public = [\"vpn.example.org\"]\n{named}\n{TABLES}")
}

fn write_policy(path: &std::path::Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

/// The kernel's tables as nft(8) lists them, but in the order of their names: one that was loaded again stands last.
fn tables() -> String {
    let listing = format!("\n{}", nft("list ruleset").unwrap());
    let mut tables: Vec<&str> = listing.split("\ntable ").map(str::trim).collect();
    tables.sort_unstable();
    tables.join("\ntable ")
}

/// Whether one of two texts is in the kernel's tables.
fn lists(either: [&str; 2]) -> bool {
    let tables = tables();
    either.iter().any(|text| tables.contains(text))
}

fn nft(commands: &str) -> Option<String> {
    let output = Command::new("nft").arg(commands).output().ok()?;
    assert!(output.status.success(), "{commands}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Runs a test in a namespace of its own, where nft(8) is.
fn with_nft(test: impl AsyncFnOnce() + Send + 'static) {
    in_namespace_async(async || {
        if nft("list ruleset").is_none() {
            return skip("needs the program nft");
        }
        test().await;
    });
}

/// What changes the firewall, the terms and the rules at once.
const OTHERS: &str =
    "masquerade = false\nclient_to_client = true\nroutes = [\"10.1.0.0/16\"]\nlocal_services = [\"tcp/22\"]";

#[test]
fn policy_that_the_kernel_refuses_takes_the_new_firewall_back_along() {
    with_nft(async || {
        let mut gateway = Gateway::start("POLICY").await;
        let refusing = gateway.refusing.clone().unwrap();
        gateway.write(&format!("POLICY\n{OTHERS}"));
        write_policy(&gateway.policy, &POLICY.replace("10.1.0.0/16", "10.2.0.0/16"));
        refusing.refuses.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            gateway.assert_refused("the policy cannot be enforced").await;
        }
        assert!(lists(FIRST) && !lists(SECOND) && lists(["masquerade"; 2]));
        // The same reload where the kernel takes it.
        refusing.refuses.store(false, Ordering::Relaxed);
        let answer = gateway.reload().await.unwrap();
        assert_eq!((answer.generation, answer.applied.len()), (1, 5), "{answer:?}");
        assert!(!lists(FIRST) && lists(SECOND) && !lists(["masquerade"; 2]) && lists(["dport 22"; 2]), "{}", tables());
        assert_eq!(gateway.session.grant().terms.routes[0], "10.1.0.0/16".parse().unwrap());
    });
}

#[test]
fn policy_whose_table_is_a_strangers_takes_the_new_firewall_back_along() {
    with_nft(async || {
        let mut gateway = Gateway::start("").await;
        gateway.write(&format!("POLICY\n{OTHERS}"));
        nft("add table inet adit_policy_adit0").unwrap();
        gateway.assert_refused("was not made by Adit").await;
        nft("delete table inet adit_policy_adit0").unwrap();
        let answer = gateway.reload().await.unwrap();
        assert!(answer.applied.contains(&"policy".to_owned()), "{answer:?}");
        assert!(lists(FIRST) && !lists(["masquerade"; 2]), "{}", tables());
    });
}

#[test]
fn policy_comes_and_goes_by_a_reload() {
    with_nft(async || {
        let mut gateway = Gateway::start("").await;
        let address = gateway.session.addresses().next().unwrap().to_string();
        let is_member = || tables().contains(&format!("elements = {{ {address} }}"));
        assert!(!tables().contains("adit_policy"));
        for round in 0..2 {
            gateway.write("POLICY");
            gateway.reload().await.unwrap();
            assert!(tables().contains("table inet adit_policy_adit0") && is_member(), "{round}: {}", tables());
            assert!(gateway.reachable.policy_table.load().is_some());
            let opening = Arc::clone(&gateway.reachable.core);
            let connection = Arc::<Nowhere>::default();
            let later = off_runtime(move || opening.open_session(device("dev-b"), connection)).await.unwrap();
            let of_later = later.addresses().next().unwrap().to_string();
            assert!(tables().contains(&of_later), "a session that begins under it");
            gateway.reachable.core.close(&later);

            gateway.write("");
            let answer = gateway.reload().await.unwrap();
            assert_eq!(answer.applied, ["policy"]);
            assert!(!tables().contains("adit_policy") && gateway.reachable.policy_table.load().is_none());
            assert_eq!(gateway.session.grant().terms.rules, None);
        }
        assert_eq!(gateway.session.ending(), None);
    });
}

#[test]
fn refusal_that_could_not_be_taken_back_names_both_causes() {
    let of = |name: &str| HostError::NoSuchLink { name: name.to_owned() };
    let done = and_also(not_enforced(of("adit0")), "it stays", Ok(()));
    assert_eq!(done.0, "the policy cannot be enforced: no network link is called adit0");
    let both = and_also(not_enforced(of("adit0")), "it stays", Err::<(), _>(of("adit1")));
    assert_eq!(
        both.0,
        "the policy cannot be enforced: no network link is called adit0; and it stays: no network link is called adit1; \
         restart the gateway"
    );
}
