use std::time::Duration;

use super::*;
use crate::accounts::FirstPassword;
use crate::directories::StateDir;
use recovery::Code;

const PASSWORD: &str = "correct horse";

/// The source over a store in a directory that lives as long as it.
struct World {
    directory: tempfile::TempDir,
    local: Local,
}

/// What a source said, without what differs each time.
#[derive(Debug, PartialEq)]
enum Said {
    Accepted(Vec<Method>),
    Asks(Kind),
    Refused(Cause),
    Unknown,
    Unavailable,
}

impl World {
    fn new(second_factor: SecondFactor) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(directory.path());
        let store = Arc::new(Store::create(&state_dir.store()).unwrap());
        let key = ServiceKey::load_or_create(&state_dir).unwrap();
        let local = Local { cost: Cost::OF_TESTS, ..Local::new(store, &key, second_factor).unwrap() };
        Self { directory, local }
    }

    /// A world with Alice, who has a password.
    fn with_alice(second_factor: SecondFactor) -> Self {
        let world = Self::new(second_factor);
        let first = FirstPassword::Hash(hashed(PASSWORD, Cost::OF_TESTS));
        world.store().add_user(&user("alice"), &first, now()).unwrap();
        world
    }

    fn store(&self) -> &Store {
        &self.local.store
    }

    /// Gives a user an app whose codes of ten steps ago are used up, and recovery codes.
    fn give_factor(&self, name: &str, codes: &[Code]) -> Secret {
        let secret = Secret::random().unwrap();
        let sealed = self.local.factors.seal(secret.as_bytes(), name.as_bytes()).unwrap();
        let hashes: Vec<_> = codes.iter().map(Code::hash).collect();
        let before = secret.step_of(&totp::shown(&secret, now()), now()).unwrap() - 10;
        self.store().set_factor(&user(name), &sealed, before, &hashes, now()).unwrap();
        secret
    }

    async fn check(&self, name: &str, password: &str) -> (Said, Vec<u8>) {
        self.check_from(name, password, None).await
    }

    async fn check_from(&self, name: &str, password: &str, device: Option<&str>) -> (Said, Vec<u8>) {
        said(self.local.check(name, &Zeroizing::new(password.to_owned()), &origin(device)).await)
    }

    async fn answer(&self, state: &[u8], answer: &str) -> (Said, Vec<u8>) {
        said(self.local.answer(state, &Zeroizing::new(answer.to_owned()), &origin(None)).await)
    }
}

fn said(verdict: Verdict) -> (Said, Vec<u8>) {
    match verdict {
        Verdict::Accepted(person) => {
            assert_eq!((person.source.as_str(), person.subject.as_str()), ("local", person.name.as_str()));
            (Said::Accepted(person.methods), Vec::new())
        }
        Verdict::Ask { question, state } => (Said::Asks(question.kind), state),
        Verdict::Refused(cause) => (Said::Refused(cause), Vec::new()),
        Verdict::Unknown => (Said::Unknown, Vec::new()),
        Verdict::Unavailable(_) | Verdict::Busy(_) => (Said::Unavailable, Vec::new()),
    }
}

fn origin(device: Option<&str>) -> Origin {
    Origin { address: [192, 0, 2, 1].into(), device: device.map(str::to_owned) }
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn hashed(password: &str, cost: Cost) -> String {
    passwords::hash(&Password::typed(password).unwrap(), cost, &mut passwords::Memory::default()).unwrap()
}

fn now() -> SystemTime {
    SystemTime::now()
}

fn password_alone() -> Said {
    Said::Accepted(vec![Method::Password])
}

#[tokio::test]
async fn right_password_lets_in_and_every_other_outcome_costs_the_same_one_hash() {
    let world = World::with_alice(SecondFactor::Device);
    world.store().add_user(&user("dora"), &FirstPassword::Hash(hashed(PASSWORD, Cost::OF_TESTS)), now()).unwrap();
    world.store().set_disabled(&user("dora"), true, now()).unwrap();
    world.store().invite(&user("ivan"), Duration::from_secs(60), now()).unwrap();
    let long = "a".repeat(100_000);
    for (name, password, expected) in [
        ("alice", PASSWORD, password_alone()),
        ("ALICE", PASSWORD, password_alone()),
        ("alice", "correct hors", Said::Refused(Cause::WrongPassword)),
        ("alice", "correct\0horse", Said::Refused(Cause::WrongPassword)),
        ("alice", &long, Said::Refused(Cause::WrongPassword)),
        ("alice", "AAAA-AAAA-AAAA-AAAA", Said::Refused(Cause::WrongPassword)),
        ("dora", PASSWORD, Said::Refused(Cause::Disabled)),
        ("dora", "wrong", Said::Refused(Cause::WrongPassword)),
        ("ivan", PASSWORD, Said::Unknown),
        ("nobody", PASSWORD, Said::Unknown),
        ("a b", PASSWORD, Said::Unknown),
        ("", PASSWORD, Said::Unknown),
        ("*", PASSWORD, Said::Unknown),
        ("alice' OR '1'='1", PASSWORD, Said::Unknown),
    ] {
        let before = world.local.hashers.counts().begun;
        assert_eq!(world.check(name, password).await.0, expected, "{name} {password:.20}");
        assert_eq!(world.local.hashers.counts().begun, before + 1, "{name} {password:.20}");
    }
}

#[tokio::test]
async fn empty_password_lets_nobody_in() {
    let world = World::with_alice(SecondFactor::Device);
    world.store().add_user(&user("bob"), &FirstPassword::Link { hash: [1; 32], seconds: 60 }, now()).unwrap();
    assert_eq!(world.check("alice", "").await.0, Said::Refused(Cause::WrongPassword));
    assert_eq!(world.check("bob", "").await.0, Said::Unknown);
}

#[tokio::test]
async fn password_kept_at_another_cost_is_kept_anew_after_a_good_login_alone() {
    let world = World::new(SecondFactor::Device);
    let old = Cost::of_tests(16);
    world.store().add_user(&user("alice"), &FirstPassword::Hash(hashed(PASSWORD, old)), now()).unwrap();
    let kept = || world.store().local_user("alice").unwrap().unwrap().password.unwrap();
    let before = kept();
    assert_eq!(world.check("alice", "wrong one").await.0, Said::Refused(Cause::WrongPassword));
    assert_eq!(kept(), before);
    assert_eq!(world.check("alice", PASSWORD).await.0, password_alone());
    assert!(kept().contains("$m=8,t=1,p=1$"), "{}", kept());
    assert_eq!(world.check("alice", PASSWORD).await.0, password_alone());
}

#[tokio::test]
async fn code_is_asked_for_and_each_is_good_once() {
    let world = World::with_alice(SecondFactor::Device);
    let secret = world.give_factor("alice", &[]);
    let (asks, state) = world.check("alice", PASSWORD).await;
    assert_eq!(asks, Said::Asks(Kind::Code));
    for wrong in ["", "000", "12345x", "1234567"] {
        assert_eq!(world.answer(&state, wrong).await.0, Said::Refused(Cause::WrongCode), "{wrong:?}");
    }
    let code = totp::shown(&secret, now());
    let wrong = format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000);
    assert_eq!(world.answer(&state, &wrong).await.0, Said::Refused(Cause::WrongCode));
    let spaced = format!(" {} {} ", &code[..3], &code[3..]);
    assert_eq!(world.answer(&state, &spaced).await.0, Said::Accepted(vec![Method::Password, Method::Code]));
    assert_eq!(world.answer(&state, &code).await.0, Said::Refused(Cause::ReusedCode));
    let (_, state) = world.check("alice", PASSWORD).await;
    assert_eq!(world.answer(&state, &code).await.0, Said::Refused(Cause::ReusedCode), "in another login, too");
    assert_eq!(world.check("alice", "wrong one").await.0, Said::Refused(Cause::WrongPassword), "no code without it");
}

#[tokio::test]
async fn answer_needs_a_question_that_this_source_asked_this_user() {
    let world = World::with_alice(SecondFactor::Device);
    let secret = world.give_factor("alice", &[]);
    let code = totp::shown(&secret, now());
    assert_eq!(world.answer(b"", &code).await.0, Said::Refused(Cause::WrongCode));
    assert_eq!(world.answer(b"{\"user\":\"alice\"}", &code).await.0, Said::Refused(Cause::WrongCode));
    world.store().add_user(&user("bob"), &FirstPassword::Hash(hashed(PASSWORD, Cost::OF_TESTS)), now()).unwrap();
    world.give_factor("bob", &[]);
    let (_, of_bob) = world.check("bob", PASSWORD).await;
    assert_eq!(world.answer(&of_bob, &code).await.0, Said::Refused(Cause::WrongCode), "Alice's code");

    let (_, state) = world.check("alice", PASSWORD).await;
    let first = FirstPassword::Hash(hashed("another horse", Cost::OF_TESTS));
    world.store().reset_user(&user("alice"), &first, now()).unwrap();
    world.give_factor("alice", &[]);
    assert!(matches!(world.answer(&state, &code).await.0, Said::Refused(Cause::NotPermitted(_))), "reset meanwhile");
}

#[tokio::test]
async fn user_disabled_between_password_and_code_is_refused() {
    let world = World::with_alice(SecondFactor::Device);
    let secret = world.give_factor("alice", &[]);
    let (_, state) = world.check("alice", PASSWORD).await;
    world.store().shut_out("alice", now()).unwrap();
    assert_eq!(world.answer(&state, &totp::shown(&secret, now())).await.0, Said::Refused(Cause::Disabled));
}

#[tokio::test]
async fn recovery_code_stands_for_the_app_once() {
    let world = World::with_alice(SecondFactor::Always);
    let codes = [Code::random().unwrap(), Code::random().unwrap()];
    world.give_factor("alice", &codes);
    let verdict = world.local.check("alice", &Zeroizing::new(PASSWORD.to_owned()), &origin(None)).await;
    let Verdict::Ask { question, state } = verdict else { panic!("{verdict:?}") };
    assert!(question.text.contains("one of your 2 recovery codes"), "{}", question.text);
    let typed = codes[0].text().to_lowercase();
    let by_recovery = Said::Accepted(vec![Method::Password, Method::RecoveryCode]);
    assert_eq!(world.answer(&state, &typed).await.0, by_recovery);
    assert_eq!(world.answer(&state, &typed).await.0, Said::Refused(Cause::WrongCode), "twice");
    let verdict = world.local.check("alice", &Zeroizing::new(PASSWORD.to_owned()), &origin(None)).await;
    let Verdict::Ask { question, .. } = verdict else { panic!("{verdict:?}") };
    assert!(question.text.contains("your last recovery code"), "{}", question.text);
}

#[tokio::test]
async fn device_of_ones_own_counts_as_a_factor_and_another_does_not() {
    let world = World::with_alice(SecondFactor::Device);
    world.give_factor("alice", &[]);
    let (own, _) = world.store().token(&user("alice"), now()).unwrap();
    let (other, _) = world.store().token(&user("mallory"), now()).unwrap();
    let with_device = Said::Accepted(vec![Method::Password, Method::Certificate]);
    assert_eq!(world.check_from("alice", PASSWORD, Some(&own.id)).await.0, with_device);
    for no_factor in [None, Some(other.id.as_str()), Some("dev-none"), Some("")] {
        assert_eq!(world.check_from("alice", PASSWORD, no_factor).await.0, Said::Asks(Kind::Code), "{no_factor:?}");
    }
    world.store().revoke(&own.id, now()).unwrap();
    assert_eq!(world.check_from("alice", PASSWORD, Some(&own.id)).await.0, Said::Asks(Kind::Code), "revoked");
}

#[tokio::test]
async fn second_factor_is_asked_for_as_the_configuration_says() {
    for (when, expected) in [(SecondFactor::Always, Said::Asks(Kind::Code)), (SecondFactor::Never, password_alone())] {
        let world = World::with_alice(when);
        assert_eq!(world.check("alice", PASSWORD).await.0, password_alone(), "there is none yet");
        world.give_factor("alice", &[]);
        let (own, _) = world.store().token(&user("alice"), now()).unwrap();
        assert_eq!(world.check_from("alice", PASSWORD, Some(&own.id)).await.0, expected, "{when:?}");
    }
}

#[tokio::test]
async fn second_factor_is_asked_of_each_user_as_that_user_s_groups_say() {
    let World { directory, local } = World::with_alice(SecondFactor::Always);
    let never_alice = |user: &str| if user == "alice" { SecondFactor::Never } else { SecondFactor::Always };
    let world = World { directory, local: local.asking_each(never_alice) };
    let first = FirstPassword::Hash(hashed(PASSWORD, Cost::OF_TESTS));
    world.store().add_user(&user("bob"), &first, now()).unwrap();
    for name in ["alice", "bob"] {
        world.give_factor(name, &[]);
    }
    assert_eq!(world.check("alice", PASSWORD).await.0, password_alone());
    assert_eq!(world.check("bob", PASSWORD).await.0, Said::Asks(Kind::Code));
}

#[tokio::test]
async fn one_time_code_lets_its_user_choose_a_password_once() {
    let world = World::new(SecondFactor::Device);
    let code = Code::random().unwrap();
    let first = FirstPassword::Link { hash: code.hash(), seconds: 60 };
    world.store().add_user(&user("alice"), &first, now()).unwrap();
    world.store().invite(&user("bob"), Duration::from_secs(60), now()).unwrap();
    assert_eq!(world.check("bob", &code.text()).await.0, Said::Unknown, "another user");
    let (asks, state) = world.check("alice", &code.text()).await;
    assert_eq!(asks, Said::Asks(Kind::NewPassword));
    for bad in ["", "short", "password", "alice", "correct\0horse", &"a".repeat(200)] {
        let (again, _) = world.answer(&state, bad).await;
        assert_eq!(again, Said::Asks(Kind::NewPassword), "{bad:.20?}");
    }
    assert_eq!(world.answer(&state, PASSWORD).await.0, password_alone());
    assert_eq!(world.check("alice", PASSWORD).await.0, password_alone());
    assert!(matches!(world.answer(&state, "another horse").await.0, Said::Refused(Cause::NotPermitted(_))), "twice");
    assert!(matches!(world.check("alice", &code.text()).await.0, Said::Refused(Cause::NotPermitted(_))), "twice");
    assert_eq!(world.check("alice", PASSWORD).await.0, password_alone(), "nothing changed by that");
}

#[tokio::test]
async fn one_time_code_that_is_over_is_refused() {
    let world = World::new(SecondFactor::Device);
    let codes = [Code::random().unwrap(), Code::random().unwrap()];
    for (name, code, seconds) in [("alice", &codes[0], 0), ("bob", &codes[1], 60)] {
        world.store().add_user(&user(name), &FirstPassword::Link { hash: code.hash(), seconds }, now()).unwrap();
    }
    assert!(matches!(world.check("alice", &codes[0].text()).await.0, Said::Refused(Cause::NotPermitted(_))));
    assert_eq!(world.check("bob", &codes[1].text()).await.0, Said::Asks(Kind::NewPassword), "the positive control");
    world.store().set_disabled(&user("bob"), true, now()).unwrap();
    assert_eq!(world.check("bob", &codes[1].text()).await.0, Said::Refused(Cause::Disabled));
}

#[tokio::test]
async fn factor_sealed_under_another_key_lets_nobody_in_but_by_recovery_code() {
    let world = World::with_alice(SecondFactor::Device);
    let code = Code::random().unwrap();
    let secret = world.give_factor("alice", std::slice::from_ref(&code));
    let elsewhere = tempfile::tempdir().unwrap();
    let key = ServiceKey::load_or_create(&StateDir::new(elsewhere.path())).unwrap();
    let local = Local::new(Arc::clone(&world.local.store), &key, SecondFactor::Device).unwrap();
    let world = World { local: Local { cost: Cost::OF_TESTS, ..local }, ..world };
    let (_, state) = world.check("alice", PASSWORD).await;
    assert_eq!(world.answer(&state, &totp::shown(&secret, now())).await.0, Said::Unavailable);
    let by_recovery = Said::Accepted(vec![Method::Password, Method::RecoveryCode]);
    assert_eq!(world.answer(&state, &code.text()).await.0, by_recovery);
}

#[tokio::test]
async fn who_logged_in_may_stay_until_disabled_revoked_or_gone_to_another_source() {
    let world = World::with_alice(SecondFactor::Device);
    let verdict = world.local.check("alice", &Zeroizing::new(PASSWORD.to_owned()), &origin(None)).await;
    let Verdict::Accepted(person) = verdict else { panic!("{verdict:?}") };
    assert_eq!(world.local.recheck(&person).await, Recheck::Allowed(Vec::new()));
    world.store().set_disabled(&user("alice"), true, now()).unwrap();
    assert_eq!(world.local.recheck(&person).await, Recheck::Ended(Cause::Disabled));
    world.store().set_disabled(&user("alice"), false, now()).unwrap();
    assert_eq!(world.local.recheck(&person).await, Recheck::Allowed(Vec::new()));
    world.store().link_person(&user("alice"), "ldap", "u-1").unwrap();
    assert_eq!(world.local.recheck(&person).await, Recheck::Ended(Cause::Disabled));
    assert_eq!(world.check("alice", PASSWORD).await.0, Said::Unknown);
    drop(world.directory);
}

#[tokio::test]
async fn user_from_a_known_network_or_with_a_device_goes_before_strangers() {
    let world = World::with_alice(SecondFactor::Device);
    let turn =
        async |name: &str, device: Option<&str>| world.local.turn(Some(&user(name)), &origin(device)).await.unwrap();
    assert_eq!(turn("alice", None).await, Turn::Stranger);
    let (device, _) = world.store().token(&user("alice"), now()).unwrap();
    assert_eq!(turn("alice", Some(&device.id)).await, Turn::Known);
    assert_eq!(turn("bob", Some(&device.id)).await, Turn::Stranger, "with another's device");
    let network = known_network(origin(None).address).to_string();
    world.store().remember_network("alice", &network, Duration::from_secs(60), now()).unwrap();
    assert_eq!(turn("alice", None).await, Turn::Known);
    assert_eq!(turn("bob", None).await, Turn::Stranger, "of another user");
}
