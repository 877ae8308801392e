use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use adit_program::durable_file;

use super::*;
use crate::config::{SecretPlace, config_for_tests};
use crate::core::login::logins::Logins;
use crate::core::tests::{FakeAccounts, FakeFlows, pool, terms};
use crate::directories::StateDir;

/// A core whose users log in at sources that follow reloads.
struct World {
    directory: tempfile::TempDir,
    core: Arc<LocalCore>,
    sources: Arc<Sources>,
    follow: Follower,
    config: Config,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
        let key = || ServiceKey::load_or_create(&StateDir::new(directory.path())).unwrap();
        let terms = TermsInForce::from(terms("0.0.0.0/0"));
        let logins = Logins::new(Vec::new(), Arc::clone(&store), &key(), [7; 32], Duration::from_secs(60));
        let (accounts, flows) = (Arc::<FakeAccounts>::default(), Arc::<FakeFlows>::default());
        let core = LocalCore::new(accounts, flows, pool(), terms.clone(), 5, Arc::default());
        let core = Arc::new(core.with_logins(Arc::new(logins)));
        let sources = Arc::new(Sources::new(store, key(), terms));
        let follow = sources.follower(Arc::clone(&core));
        let config = config_for_tests(directory.path());
        core.replace_sources(sources.keep(sources.make(&config).unwrap()));
        sources.kept().listens = true;
        Self { directory, core, sources, follow, config }
    }

    /// Which sources are asked, in their order.
    fn asked(&self) -> String {
        self.core.logins().unwrap().chain().names()
    }

    /// Writes a secret, which others may read if the test says so.
    fn secret(&self, text: &str, mode: u32) -> Option<SecretPlace> {
        let path = self.directory.path().join("secret");
        let _there_is_none_yet = fs::remove_file(&path);
        durable_file::create(&path, text.as_bytes(), mode).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Some(SecretPlace::File(path))
    }

    fn reload(&self) {
        (self.follow)(&self.config).unwrap_or_else(|failure| panic!("{failure}"))();
    }

    fn refusal(&self) -> String {
        (self.follow)(&self.config).err().expect("a refusal").to_string()
    }
}

#[cfg(feature = "radius")]
#[tokio::test]
async fn sources_are_those_of_the_last_reload_and_a_secret_that_is_of_no_use_refuses_it() {
    let mut world = World::new();
    assert_eq!(world.asked(), "local");
    world.config.login.sources = vec![SourceName::Radius, SourceName::Local];
    assert!(world.refusal().contains("radius.servers"));
    world.config.radius.servers = vec!["127.0.0.1:1812".parse().unwrap()];
    world.config.radius.nas_identifier = "adit".to_owned();
    let good = "a-secret-of-16-and-more";
    for (text, mode) in [("short", 0o600), (good, 0o644)] {
        world.config.radius.secret = world.secret(text, mode);
        assert!(world.refusal().contains("secret"));
    }
    world.config.radius.secret = world.secret(good, 0o600);
    drop((world.follow)(&world.config).expect("it is good"));
    assert_eq!(world.asked(), "local", "nobody has put it in force");
    let local = world.sources.kept().local.clone().unwrap();
    world.reload();
    assert_eq!(world.asked(), "radius,local");
    assert!(Arc::ptr_eq(&local, world.sources.kept().local.as_ref().unwrap()), "it keeps its threads");
    // The same key, with another file behind it.
    world.secret("short", 0o600);
    assert!(world.refusal().contains("secret"));
    assert_eq!(world.asked(), "radius,local");
    world.config.login.sources = vec![SourceName::Local];
    world.reload();
    assert_eq!(world.asked(), "local");
}

#[cfg(feature = "oidc")]
#[tokio::test]
async fn provider_that_comes_by_a_reload_has_no_way_back_for_browsers() {
    let mut world = World::new();
    world.config.login.sources = vec![SourceName::Oidc];
    assert!(world.refusal().contains("oidc.issuer"));
    world.config.oidc.issuer = Some("https://id.example.org".to_owned());
    world.config.oidc.client_id = Some("adit".to_owned());
    world.config.oidc.listen = vec!["127.0.0.1:0".parse().unwrap()];
    assert!(world.refusal().contains("restart the gateway"));
    world.config.oidc.listen.clear();
    world.reload();
    assert_eq!(world.asked(), "oidc");
    let oidc = world.sources.kept().oidc.clone().unwrap();
    world.config.oidc.client_id = Some("other".to_owned());
    world.reload();
    assert!(Arc::ptr_eq(&oidc, world.sources.kept().oidc.as_ref().unwrap()), "its users' tokens are kept");
    assert_eq!(world.sources.kept().tasks.len(), 1);
}
