use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_program::durable_file;
use adit_program::exit::Exit;
use adit_program::task::{self, Task};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio::net::TcpListener;

use super::*;
use crate::acme::schedule::Wish;
use crate::config::config_for_tests;

const NAME: &str = "vpn.example.org";

/// A gateway that gets its certificate from there.
fn config(directory: &Path, authority: &str) -> Config {
    let mut config = config_for_tests(directory);
    fs::create_dir(config.state_dir.path()).unwrap();
    config.acme.directory = authority.to_owned();
    config.acme.names = vec![NAME.to_owned()];
    config
}

/// A certificate of this authority, as it lies in its file.
fn issued(authority: &str) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(4000, 1, 1));
    let chain = params.self_signed(&key).unwrap().pem();
    format!("# directory: {authority}\n{}{chain}", key.serialize_pem()).into_bytes()
}

#[test]
fn certificate_that_cannot_be_read_any_more_is_ordered_anew_and_one_that_is_removed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let directory = "https://acme.example/dir";
    let config = config(folder.path(), directory);
    fs::create_dir(config.state_dir.acme()).unwrap();
    durable_file::replace(&config.state_dir.acme_certificate(NAME), &issued(directory), 0o600).unwrap();
    let kept = Kept::read(&config.state_dir, NAME).unwrap();
    let (now, clock) = (Instant::now(), SystemTime::now());
    let begin = || {
        let mut name = Name::of(NAME, &config);
        name.schedule.handle_wish(Wish::None, 0, now);
        assert_eq!((name.kept.is_some(), name.schedule.next_step(now, clock)), (true, Step::Wait));
        name
    };
    let unreadable = || Err(Failure::new(Exit::Other, "the file", "input/output error", ""));
    let second = Duration::from_secs(1);

    let mut name = begin();
    name.handle_found(unreadable(), directory, now);
    name.handle_found(unreadable(), directory, now + UNREADABLE - second);
    name.handle_found(Ok(kept.clone()), directory, now + UNREADABLE - second);
    name.handle_found(unreadable(), directory, now + UNREADABLE);
    assert_eq!(name.schedule.next_step(now + UNREADABLE, clock), Step::Wait, "it may pass");
    name.handle_found(unreadable(), directory, now + 2 * UNREADABLE);
    assert!(name.kept.is_none());
    assert_eq!(name.schedule.next_step(now + 2 * UNREADABLE, clock), Step::Order);

    let mut name = begin();
    name.handle_found(Ok(None), directory, now);
    assert_eq!(name.schedule.next_step(now, clock), Step::Order);
    let pause = name.schedule.handle_failure(None, 0, now);
    name.handle_found(Ok(kept), directory, now);
    name.handle_found(Ok(None), directory, now);
    let steps = [now, now + pause].map(|now| name.schedule.next_step(now, clock));
    assert_eq!(steps, [Step::Wait, Step::Order], "who removes it while the authority fails waits as well");
}

/// A gateway, and an authority that hangs up on everybody and counts them.
struct World {
    _directory: tempfile::TempDir,
    config: Config,
    authority: Authority,
    asked: Arc<AtomicUsize>,
    _hanging_up: Task,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/dir", listener.local_addr().unwrap());
        let mut config = config(directory.path(), &url);
        // Not those of the system, which need not have any.
        let made = rcgen::generate_simple_self_signed(["acme.example".to_owned()]).unwrap();
        let vouching = directory.path().join("ca.pem");
        fs::write(&vouching, made.cert.pem()).unwrap();
        config.acme.authority = Some(vouching);
        let asked = Arc::<AtomicUsize>::default();
        let counting = Arc::clone(&asked);
        let hanging_up = task::spawn(async move {
            loop {
                drop(listener.accept().await.unwrap());
                counting.fetch_add(1, Ordering::Relaxed);
            }
        });
        let authority = Authority::new(&config).unwrap();
        Self { _directory: directory, config, authority, asked, _hanging_up: hanging_up }
    }

    /// A gateway starts, and does once what is due.
    async fn start(&self) -> Name {
        let mut name = Name::of(NAME, &self.config);
        self.go_on(&mut name).await;
        name
    }

    async fn go_on(&self, name: &mut Name) {
        let is_new = name.go_on(&self.authority, &self.config, &Arc::default()).await;
        assert!(!is_new, "there is nobody to issue one");
    }

    /// How often the authority was asked since this was last looked at.
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

#[tokio::test]
async fn gateway_that_starts_again_and_again_leaves_a_failing_authority_alone() {
    let world = World::new().await;
    let first = world.start().await;
    assert!(world.asked() > 0, "it was asked");
    for _ in 0..5 {
        let later = world.start().await;
        assert_eq!(
            (later.trouble.as_ref(), later.schedule.is_alarming(SystemTime::now())),
            (first.trouble.as_ref(), true)
        );
    }
    assert_eq!(world.asked(), 0);
    fs::remove_file(world.config.state_dir.acme_backoff(NAME)).unwrap();
    world.start().await;
    assert!(world.asked() > 0, "the control: without what was kept it is asked");
}

#[tokio::test]
async fn order_that_was_cut_short_counts_as_one_that_failed() {
    let world = World::new().await;
    let name = Name::of(NAME, &world.config);
    let mut begun = name.schedule.clone();
    begun.handle_failure(None, 0, Instant::now());
    name.keep_pause(&begun, CUT_SHORT, &world.config).await.unwrap();
    assert_eq!(world.start().await.trouble.as_deref(), Some(CUT_SHORT));
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn changed_settings_are_tried_at_once() {
    let mut world = World::new().await;
    world.start().await;
    assert!(world.asked() > 0);
    world.config.acme.contact = Some("admin@example.org".to_owned());
    world.start().await;
    assert!(world.asked() > 0);
}
