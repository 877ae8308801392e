use std::fs;
use std::path::Path;

use adit_program::durable_file;
use adit_program::exit::Exit;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

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
