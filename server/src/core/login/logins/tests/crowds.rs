//! Many at a time, and sources that cannot follow.

use std::sync::atomic::Ordering;

use adit_proto::login::Verdict;
use tokio::time::Instant as Clock;

use super::super::*;
use super::world::{Double, HOME, SECOND, World, message, origin, person, token, users, world, world_of};
use crate::sources::MOST_STRANGERS;

/// A thousand wrong passwords at once, from everywhere: half of them for alice, and every fourth from her own address.
fn flood(world: &Arc<World>) -> tokio::task::JoinSet<&'static str> {
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..1000_u32 {
        let world = Arc::clone(world);
        let elsewhere = format!("203.{}.{}.9", number % 200, number / 200);
        let from = if number % 4 == 1 { HOME.to_owned() } else { elsewhere };
        let name = if number % 4 < 2 { "alice".to_owned() } else { format!("user-{number}") };
        let password = number.to_string();
        flood.spawn(async move { message(&world.log_in(&name, &password, origin(&from, None)).await) });
    }
    flood
}

/// How long some logins took.
async fn times(world: &World, name: &str, from: Origin) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Clock::now();
        token(world.log_in(name, "right", from.clone()).await);
        times.push(begun.elapsed());
    }
    times
}

#[tokio::test(start_paused = true)]
async fn user_with_a_known_place_logs_in_during_a_flood() {
    let mut double = Double::new("local", users);
    double.takes = Duration::from_millis(25);
    let world = Arc::new(world(double));
    let device = world.device_of("alice");
    let office = || origin("198.51.100.200", None);
    token(world.log_in("bob", "right", office()).await);
    let flood = flood(&world);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stranger = world.log_in("alice", "right", origin(HOME, None)).await;
    assert_ne!(message(&stranger), "", "the positive control: without her device she is a stranger");
    let alice = times(&world, "alice", origin(HOME, Some(&device))).await;
    assert!(alice.iter().all(|time| *time < 2 * SECOND), "{alice:?}");
    let bob = times(&world, "bob", office()).await;
    assert!(bob.iter().all(|time| *time < 2 * SECOND), "in a network from where he logged in before: {bob:?}");
    assert!(world.source.most_waiting.load(Ordering::Relaxed) <= 9, "eight strangers and the user");
    flood.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn source_without_room_is_not_away_and_its_users_passwords_stay_with_it() {
    let full = Double::new("ldap", |name, _| match name {
        "alice" => Verdict::Busy("ldap: full".to_owned()),
        _ => Verdict::Unknown,
    });
    let world = world_of(vec![Arc::new(full), Arc::new(Double::new("local", users))]);
    let step = world.log_in("alice", "right", origin(HOME, None)).await;
    assert!(matches!(step, LoginStep::Refused { retry_after: Some(_), .. }), "{}", message(&step));
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 0, "the next source is not asked");
    assert_eq!(world.logins.chain().away(), None);
    assert_eq!(world.logins.turned_away(), [("ldap".to_owned(), 1)].into());
    token(world.log_in("bob", "right", origin(HOME, None)).await);
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 1, "the positive control");
}

#[tokio::test(start_paused = true)]
async fn no_refusal_tells_strangers_which_names_the_first_of_several_sources_knows() {
    let away = Double::new("ldap", |_, _| Verdict::Unavailable("ldap: no answer".to_owned()));
    let world = world_of(vec![Arc::new(Double::new("local", users)), Arc::new(away)]);
    let device = world.device_of("alice");
    // Nobody has noticed yet that the directory is away, nor does alice's login ask it.
    for (number, name) in ["alice", "nobody", "alice", "disabled", "alice"].into_iter().enumerate() {
        let step = world.log_in(name, &number.to_string(), origin(&format!("203.0.{number}.9"), None)).await;
        assert_eq!(message(&step), message(&UNSURE), "{name}");
    }
    let same_again = world.log_in("alice", "0", origin("203.0.0.9", None)).await;
    assert_eq!(message(&same_again), message(&UNSURE));
    let known = world.log_in("alice", "x", origin(HOME, Some(&device))).await;
    assert_eq!(message(&known), message(&SOURCE_AWAY), "the control: who is known hears what is the matter");
    let alone = self::world(Double::new("local", users));
    assert_eq!(message(&alone.log_in("alice", "x", origin(HOME, None)).await), message(&NOT_ACCEPTED));
}

#[tokio::test(start_paused = true)]
async fn password_of_a_user_goes_nowhere_else_while_their_source_is_away() {
    let away = Double::new("ldap", |_, _| Verdict::Unavailable("ldap: no answer".to_owned()));
    let world = world_of(vec![Arc::new(away), Arc::new(Double::new("local", users))]);
    world.store.record_person(&person("ldap", "alice"), SystemTime::now()).unwrap();
    let of_alice = message(&world.log_in("alice", "right", origin(HOME, None)).await);
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 0, "she belongs to the directory");
    let of_nobody = message(&world.log_in("nobody", "right", origin("203.0.113.9", None)).await);
    assert_eq!(of_alice, of_nobody, "which strangers do not learn");
    token(world.log_in("bob", "right", origin("203.0.114.9", None)).await);
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 2, "the positive control: of others it is not known");
}

#[tokio::test(start_paused = true)]
async fn two_logins_of_an_account_at_a_time_are_asked_about() {
    let mut double = Double::new("radius", users);
    double.takes = 30 * SECOND;
    let world = Arc::new(world(double));
    let device = world.device_of("alice");
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..10_u32 {
        let world = Arc::clone(&world);
        let from = origin(&format!("203.{number}.0.9"), None);
        flood.spawn(async move { message(&world.log_in("alice", &number.to_string(), from).await) });
    }
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(world.source.waiting.load(Ordering::Relaxed), 2);
    let (_, waiting) = tokio::join!(world.log_in("alice", "right", origin(HOME, Some(&device))), async {
        tokio::time::sleep(SECOND / 4).await;
        world.source.waiting.load(Ordering::Relaxed)
    });
    assert_eq!(waiting, 3, "with her device she does not wait for them");
    let answers = flood.join_all().await;
    assert_eq!(answers.iter().filter(|answer| **answer == message(&BUSY)).count(), 8, "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn strangers_leave_room_at_a_directory_for_who_is_known() {
    let mut double = Double::new("ldap", users);
    double.takes = SECOND;
    let world = Arc::new(world(double));
    let device = world.device_of("alice");
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let world = Arc::clone(&world);
        let from = origin(&format!("203.{number}.0.9"), None);
        flood.spawn(async move { message(&world.log_in(&format!("user-{number}"), "x", from).await) });
    }
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(world.source.most_waiting.load(Ordering::Relaxed), MOST_STRANGERS);
    let alice = world.log_in("alice", "right", origin(HOME, Some(&device)));
    let (step, waiting) = tokio::join!(alice, async {
        tokio::time::sleep(SECOND / 4).await;
        world.source.waiting.load(Ordering::Relaxed)
    });
    assert!(waiting > MOST_STRANGERS, "she is asked about beside them");
    token(step);
    let answers = flood.join_all().await;
    assert!(answers.contains(&message(&BUSY)), "the positive control: strangers find none");
}
