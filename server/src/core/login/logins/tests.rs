use std::sync::atomic::Ordering;

use adit_proto::login::token::Clocks;
use adit_proto::login::{Method, Verdict};
use tokio::time::Instant as Clock;

use self::world::*;
use super::*;
use crate::accounts::UserName;
use crate::sources::LinkAnswer;

mod crowds;
mod world;

#[tokio::test(start_paused = true)]
async fn right_password_ends_in_a_token_of_the_device_or_in_a_ticket() {
    let world = world(Double::new("local", users));
    let device = world.device_of("alice");
    let clocks = clocks::now();
    let now = clocks.unix;
    let step = world.log_in("alice", "right", origin(HOME, Some(&device))).await;
    let LoginStep::Done { user, token, ends_at } = step else { panic!("{}", message(&step)) };
    assert_eq!(user, "alice");
    assert!((now + LIFETIME.as_secs()..now + LIFETIME.as_secs() + 60).contains(&ends_at));
    let opened = world.logins.tokens().open(&token, Some(&device), &clocks).unwrap();
    assert_eq!((opened.user.as_str(), opened.methods), ("alice", vec![Method::Password]));
    assert!(world.logins.tokens().open(&token, None, &clocks).is_err(), "it is no ticket");
    assert!(world.logins.tokens().open(&token, Some("dev-other"), &clocks).is_err());
    let over = Clocks { since_boot: clocks.since_boot + LIFETIME.as_secs() + 60, ..clocks };
    assert!(world.logins.tokens().open(&token, Some(&device), &over).is_err(), "it ends");

    let ticket = self::token(world.log_in("bob", "right", origin(HOME, None)).await);
    assert!(world.logins.tokens().open(&ticket, None, &clocks).is_ok());
    assert!(world.logins.tokens().open(&ticket, Some(&device), &clocks).is_err());
}

#[tokio::test(start_paused = true)]
async fn login_lasts_as_long_as_is_said_of_its_user() {
    let world = world(Double::new("local", users));
    let logins = Arc::into_inner(world.logins).unwrap().lasting_each(|known| {
        assert_eq!(known.groups, ["staff"], "as the source says now");
        if known.user == "alice" { 60 * SECOND } else { LIFETIME }
    });
    let world = World { logins: Arc::new(logins), ..world };
    let now = clocks::now().unix;
    for (name, lifetime) in [("alice", 60), ("bob", LIFETIME.as_secs())] {
        let step = world.log_in(name, "right", origin(HOME, None)).await;
        let LoginStep::Done { ends_at, .. } = step else { panic!("{name}: {}", message(&step)) };
        assert!((now + lifetime..now + lifetime + 60).contains(&ends_at), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_get_one_answer_in_one_time() {
    let mut double = Double::new("local", users);
    double.takes = Duration::from_millis(300);
    let world = world(double);
    let mut seen = Vec::new();
    let tries =
        [("alice", "wrong"), ("nobody", "right"), ("locked", "x"), ("disabled", "x"), ("alice", ""), ("Al ice!", "x")];
    for (number, (name, password)) in tries.into_iter().enumerate() {
        let begun = Clock::now();
        let step = world.log_in(name, password, origin(&format!("203.0.{number}.1"), None)).await;
        seen.push((message(&step), begun.elapsed()));
    }
    assert!(seen.iter().all(|(text, time)| *text == message(&NOT_ACCEPTED) && *time == SECOND), "{seen:?}");
    let begun = Clock::now();
    token(world.log_in("alice", "right", origin(HOME, None)).await);
    assert!(begun.elapsed() < SECOND, "who is let in does not wait");
}

#[tokio::test(start_paused = true)]
async fn slow_source_is_told_at_the_next_whole_second() {
    let mut double = Double::new("local", users);
    double.takes = Duration::from_millis(1200);
    let world = world(double);
    let begun = Clock::now();
    world.log_in("alice", "wrong", origin(HOME, None)).await;
    assert_eq!(begun.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn while_a_source_is_away_all_refusals_say_so() {
    let world = world(Double::new("ldap", users));
    assert_eq!(message(&world.log_in("alice", "a", origin(HOME, None)).await), message(&NOT_ACCEPTED));
    assert_eq!(message(&world.log_in("away", "x", origin(HOME, None)).await), message(&SOURCE_AWAY));
    assert_eq!(world.logins.chain().away().unwrap(), "ldap: no answer");
    assert_eq!(message(&world.log_in("alice", "b", origin(HOME, None)).await), message(&SOURCE_AWAY));
    assert_eq!(message(&world.log_in("nobody", "b", origin(HOME, None)).await), message(&NOT_ACCEPTED), "it answers");
}

#[tokio::test(start_paused = true)]
async fn login_goes_on_over_sources_of_the_same_names_and_no_others() {
    let world = world(Double::new("local", users));
    let asked = || async { handle(world.log_in("coded", "right", origin(HOME, None)).await) };
    let over = |names: &[&'static str]| {
        let double = |name: &&'static str| -> Arc<dyn Source> { Arc::new(Double::new(name, users)) };
        world.logins.over(names.iter().map(double).collect())
    };
    let answer = async |logins: Logins, handle: String| {
        logins.advance(wish(Some(handle), &[("code", "123456")], origin(HOME, None))).await
    };
    token(answer(over(&["local"]), asked().await).await);
    for others in [&["ldap"][..], &["ldap", "local"], &["local", "ldap"]] {
        let step = answer(over(others), asked().await).await;
        assert_eq!(message(&step), message(&EXPIRED), "{others:?}");
    }
    // A token of before opens, and what was counted is counted on.
    let newer = over(&["ldap"]);
    let given = token(world.log_in("alice", "right", origin(HOME, None)).await);
    assert!(newer.tokens().open(&given, None, &clocks::now()).is_ok());
    assert_eq!(newer.bans(), []);
    for number in 0..10 {
        world.log_in(&format!("user-{number}"), "x", origin("203.0.113.9", None)).await;
    }
    assert_eq!(newer.bans()[0].network.to_string(), "203.0.113.9/32");
}

#[tokio::test(start_paused = true)]
async fn question_is_escaped_and_its_handle_is_good_for_one_device() {
    let world = world(Double::new("local", users));
    let device = world.device_of("coded");
    let asked = world.log_in("coded", "right", origin(HOME, Some(&device))).await;
    let LoginStep::Ask { handle, form } = asked else { panic!("{}", message(&asked)) };
    assert_eq!((form.text.as_str(), form.fields[0].name), ("Code\\u{1b}", "code"));
    let answer = |from: Origin, code: &str| {
        let wish = wish(Some(handle.clone()), &[("code", code)], from);
        world.logins.advance(wish)
    };
    assert_eq!(message(&answer(origin(HOME, None), "123456").await), message(&EXPIRED), "another connection");
    assert_eq!(message(&answer(origin(HOME, Some(&device)), "000000").await), message(&NOT_ACCEPTED));
    token(answer(origin(HOME, Some(&device)), "123456").await);
    for forged in ["", "AAAA", "no base64!", &handle[..handle.len() - 2]] {
        let step = world.logins.advance(wish(Some(forged.to_owned()), &[], origin(HOME, Some(&device)))).await;
        assert_eq!(message(&step), message(&EXPIRED), "{forged}");
    }
}

#[tokio::test(start_paused = true)]
async fn codes_are_limited_though_a_handle_can_be_used_again() {
    let world = world(Double::new("local", users));
    let first = handle(world.log_in("coded", "right", origin(HOME, None)).await);
    for number in 0..30 {
        let wish = wish(Some(first.clone()), &[("code", &number.to_string())], origin(HOME, None));
        world.logins.advance(wish).await;
    }
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 1 + 10, "the password, and as many codes as there may be");
}

#[tokio::test(start_paused = true)]
async fn who_the_store_does_not_take_is_refused_though_the_source_accepts() {
    let world = world(Double::new("local", |name, _| Verdict::Accepted(person("ldap", name))));
    token(world.log_in("alice", "x", origin(HOME, None)).await);
    world.store.set_disabled(&UserName::parse("alice").unwrap(), true, SystemTime::now()).unwrap();
    assert_eq!(message(&world.log_in("alice", "x", origin(HOME, None)).await), message(&NOT_ACCEPTED), "disabled");
    let local = person("local", "carol");
    world.store.invite(&UserName::parse("carol").unwrap(), SECOND, SystemTime::now()).unwrap();
    world.store.record_person(&local, SystemTime::now()).unwrap();
    let taken = world.log_in("carol", "x", origin(HOME, None)).await;
    assert_eq!(message(&taken), message(&NOT_ACCEPTED), "another person's name");
    let odd = world.log_in("no name", "x", origin(HOME, None)).await;
    assert_eq!(message(&odd), message(&NOT_ACCEPTED), "no name for a user here");
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_though_the_source_accepts_is_named_in_the_trail_alone() {
    let world = world(Double::new("ldap", |name, _| Verdict::Accepted(person("ldap", name))));
    world.store.invite(&UserName::parse("carol").unwrap(), SECOND, SystemTime::now()).unwrap();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
    let logging = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    assert_eq!(message(&world.log_in("carol", "x", origin(HOME, None)).await), message(&NOT_ACCEPTED));
    drop(logging);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let (trail, other): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.contains(&format!(" {TRAIL}: ")));
    assert!(other.iter().any(|line| line.contains("WARN") && line.contains("refused")), "{log}");
    assert!(!other.iter().any(|line| line.contains("carol")), "{log}");
    let what_to_run = "adit-server user link carol --source ldap --subject 'carol'";
    assert!(trail.iter().any(|line| line.contains("DEBUG") && line.contains(what_to_run)), "{log}");
}

#[tokio::test(start_paused = true)]
async fn device_of_another_user_gets_no_token() {
    let world = world(Double::new("local", users));
    let (own, others) = (world.device_of("alice"), world.device_of("bob"));
    let refused = world.log_in("alice", "right", origin(HOME, Some(&others))).await;
    assert_eq!(message(&refused), message(&OTHERS_DEVICE));
    token(world.log_in("alice", "right", origin(HOME, Some(&own))).await);
}

#[tokio::test(start_paused = true)]
async fn failures_are_limited_listed_and_forgiven() {
    let world = world(Double::new("local", users));
    let from = || origin("203.0.113.5", None);
    for number in 0..5 {
        world.log_in("alice", &number.to_string(), from()).await;
    }
    let LoginStep::Refused { retry_after: Some(time), .. } = world.log_in("alice", "right", from()).await else {
        panic!("five are enough");
    };
    assert!(time <= 60 * SECOND);
    world.logins.unlock("alice");
    token(world.log_in("alice", "right", from()).await);
    assert_eq!(world.logins.bans(), []);
    for number in 0..10 {
        world.log_in(&format!("user-{number}"), "x", from()).await;
    }
    assert_eq!(world.logins.bans()[0].network.to_string(), "203.0.113.5/32");
    assert!(world.logins.unban("203.0.113.5/32".parse().unwrap()));
    assert_eq!(world.logins.bans(), []);
}

/// A directory that takes two names for alice.
fn two_names(name: &str, password: &str) -> Verdict {
    users(if name == "a.liddell@corp" { "alice" } else { name }, password)
}

#[tokio::test(start_paused = true)]
async fn failures_by_each_name_of_a_user_are_forgiven_together() {
    let world = world(Double::new("ldap", two_names));
    let (name, other) = ("alice", "a.liddell@corp");
    let lock = async |name: &str, from: &Origin| {
        for number in 0..5 {
            world.log_in(name, &number.to_string(), from.clone()).await;
        }
        let step = world.log_in(name, "right", from.clone()).await;
        assert!(matches!(step, LoginStep::Refused { retry_after: Some(_), .. }), "{}", message(&step));
    };
    lock(other, &origin("203.0.1.9", None)).await;
    assert!(!world.logins.unlock(name), "nobody knows yet that it is she");
    assert!(world.logins.unlock(other));
    token(world.log_in(other, "right", origin(HOME, None)).await);
    for (locked, unlocked, from) in [(name, other, "203.0.2.9"), (other, name, "203.0.3.9")] {
        lock(locked, &origin(from, None)).await;
        assert!(world.logins.unlock(unlocked));
        token(world.log_in(locked, "right", origin(from, None)).await);
    }
}

#[tokio::test]
async fn name_typed_before_a_login_in_a_browser_is_not_taken_for_its_users() {
    let mut browser = Double::new("oidc", users);
    browser.link = Some(|_| LinkAnswer::Settled(Verdict::Accepted(person("oidc", "mallory"))));
    let world = world_of(vec![Arc::new(Double::new("ldap", two_names)), Arc::new(browser)]);
    let from = || origin(HOME, None);
    let typed = handle(world.logins.advance(wish(None, &[("user", "bob")], from())).await);
    let begun = handle(world.logins.advance(wish(Some(typed), &[("method", "browser")], from())).await);
    tokio::time::sleep(SECOND).await;
    token(world.logins.advance(wish(Some(begun), &[], from())).await);
    let standing = world.logins.places.standing("bob", &from()).await.unwrap();
    assert_eq!((standing.account.as_str(), standing.known), ("bob", None));
    token(world.log_in("a.liddell@corp", "right", from()).await);
    let standing = world.logins.places.standing("a.liddell@corp", &from()).await.unwrap();
    assert_eq!(standing.account, "alice", "the positive control: by a password");
}

#[tokio::test(start_paused = true)]
async fn password_that_was_right_lets_in_once_an_administrator_says_so() {
    let world = world(Double::new("local", |name, _| Verdict::Accepted(person("ldap", name))));
    let alice = UserName::parse("alice").unwrap();
    token(world.log_in("alice", "right", origin(HOME, None)).await);
    world.store.set_disabled(&alice, true, SystemTime::now()).unwrap();
    for _ in 0..3 {
        assert_eq!(message(&world.log_in("alice", "right", origin(HOME, None)).await), message(&NOT_ACCEPTED));
    }
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 2, "it is not tried again and again");
    world.store.set_disabled(&alice, false, SystemTime::now()).unwrap();
    // As `user enable` does.
    assert!(world.logins.unlock("alice"));
    token(world.log_in("alice", "right", origin(HOME, None)).await);
}

#[tokio::test(start_paused = true)]
async fn source_that_does_not_answer_is_given_up() {
    let mut double = Double::new("radius", users);
    double.takes = 3600 * SECOND;
    let world = world(double);
    let begun = Clock::now();
    assert_eq!(message(&world.log_in("alice", "right", origin(HOME, None)).await), message(&SOURCE_AWAY));
    assert!(begun.elapsed() <= 62 * SECOND);
}

#[tokio::test]
async fn link_is_polled_until_it_is_settled() {
    let mut double = Double::new("oidc", users);
    double.link = Some(|asked| match asked {
        0 => LinkAnswer::Pending { interval: SECOND },
        _ => LinkAnswer::Settled(Verdict::Accepted(person("oidc", "alice"))),
    });
    let world = world(double);
    let begun = world.logins.advance(wish(None, &[], origin(HOME, None))).await;
    let LoginStep::Open { handle, user_code, .. } = begun else { panic!("{}", message(&begun)) };
    assert_eq!(user_code.as_deref(), Some("ABCD-EFGH"), "this client has no browser");
    let next = |handle: String| world.logins.advance(wish(Some(handle), &[], origin(HOME, None)));
    let handle = self::handle(next(handle).await);
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 0, "it is too early");
    tokio::time::sleep(SECOND).await;
    let handle = self::handle(next(handle).await);
    tokio::time::sleep(SECOND).await;
    token(next(handle).await);
}
