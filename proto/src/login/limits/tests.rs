use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "only differences from it matter")]
fn start() -> Instant {
    Instant::now()
}

fn limits() -> LoginLimits {
    LoginLimits::new([7; 32])
}

fn address(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from(0xc633_0000_u32.wrapping_add(number)).into()
}

fn stranger<'a>(account: &'a str, from: IpAddr, password: &'a str) -> Attempt<'a> {
    Attempt { account, address: from, known: None, secret: Secret::Password(password) }
}

fn known<'a>(account: &'a str, from: IpAddr, password: &'a str) -> Attempt<'a> {
    Attempt { known: Some("192.0.2.0/24"), ..stranger(account, from, password) }
}

/// Tries once and fails; `None` if that was let through, else how long to wait.
fn fail(limits: &mut LoginLimits, attempt: &Attempt<'_>, now: Instant) -> Option<Duration> {
    match limits.admit(attempt, now) {
        Admission::Go(ticket) => {
            limits.settle(ticket, Outcome::Wrong, now);
            None
        }
        Admission::FailedBefore => Some(Duration::ZERO),
        Admission::Wait(wait) => Some(wait),
    }
}

/// How many failures in a row are let through, each with a password of its own.
fn failures(limits: &mut LoginLimits, now: Instant, attempt: impl for<'a> Fn(u32, &'a str) -> Attempt<'a>) -> u32 {
    (0..1000).take_while(|number| fail(limits, &attempt(*number, &format!("wrong-{number}")), now).is_none()).count()
        as u32
}

#[test]
fn each_bucket_of_strangers_has_its_size() {
    let now = start();
    let (one, other) = (address(1), address(2));
    assert_eq!(failures(&mut limits(), now, |_, password| stranger("alice", one, password)), 5, "one account");
    let names: Vec<String> = (0..1000).map(|number| format!("user-{number}")).collect();
    let of = |number: u32| names[number as usize].as_str();
    let mut limits = limits();
    let mut count = 0;
    while fail(&mut limits, &stranger(of(count), one, "x"), now).is_none() {
        count += 1;
    }
    assert_eq!(count, 10, "one address");
    assert!(fail(&mut limits, &stranger("user-900", other, "x"), now).is_none(), "its neighbour may still");
    let mut count = 11;
    while fail(&mut limits, &stranger(of(count), address(count), "x"), now).is_none() {
        count += 1;
    }
    assert_eq!(count, 50, "one network");
    assert!(fail(&mut limits, &stranger("user-901", address(512), "x"), now).is_none(), "another network may still");
}

#[test]
fn buckets_fill_up_again_one_token_at_a_time() {
    let (mut limits, now) = (limits(), start());
    let attempt = |password| stranger("alice", address(1), password);
    assert_eq!(failures(&mut limits, now, |_, password| stranger("alice", address(1), password)), 5);
    assert_eq!(fail(&mut limits, &attempt("a"), now + 59 * SECOND), Some(SECOND));
    assert_eq!(fail(&mut limits, &attempt("a"), now + 60 * SECOND), None);
    assert_eq!(fail(&mut limits, &attempt("b"), now + 60 * SECOND), Some(60 * SECOND));
    assert_eq!(fail(&mut limits, &attempt("b"), now + 120 * SECOND), None);
}

#[test]
fn strangers_together_are_slowed_and_never_shut_out() {
    let (mut limits, now) = (limits(), start());
    // Each from a network of its own.
    let attempt = |number: u32| stranger("alice", address(number << 8), "x");
    let through = (0..100).take_while(|number| fail(&mut limits, &attempt(*number), now).is_none()).count();
    assert_eq!(through, 20);
    // Where nobody lets up, the time between two tries doubles up to a minute.
    let (mut now, mut waits, mut number) = (now, Vec::new(), 100);
    while waits.len() < 8 {
        number += 1;
        match fail(&mut limits, &attempt(number), now) {
            None => {}
            Some(wait) => {
                waits.push(wait.as_secs());
                now += wait;
            }
        }
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
}

#[test]
fn known_place_has_a_bucket_of_its_own_and_meets_no_other() {
    let (mut limits, now) = (limits(), start());
    // Whoever sits behind the same address has used up everything that strangers have.
    for number in 0..1000 {
        fail(&mut limits, &stranger("alice", address(1), &number.to_string()), now);
        fail(&mut limits, &stranger(&format!("user-{number}"), address(1), "x"), now);
        fail(&mut limits, &stranger("alice", address(number << 8), "x"), now);
    }
    assert!(matches!(limits.admit(&stranger("alice", address(1), "right"), now), Admission::Wait(_)), "the control");
    assert_eq!(failures(&mut limits, now, |_, password| known("alice", address(1), password)), 10);
    let elsewhere = Attempt { known: Some("dev-1"), ..known("alice", address(1), "right") };
    assert!(matches!(limits.admit(&elsewhere, now), Admission::Go(_)), "and so has each place");
    assert!(matches!(limits.admit(&known("bob", address(1), "right"), now), Admission::Go(_)), "of each account");
}

#[test]
fn the_same_wrong_password_counts_once_and_is_tried_again_after_five_minutes() {
    let (mut limits, now) = (limits(), start());
    let attempt = stranger("alice", address(1), "old");
    assert_eq!(fail(&mut limits, &attempt, now), None);
    for second in 0..300 {
        assert_eq!(limits.admit(&attempt, now + second * SECOND), Admission::FailedBefore);
    }
    assert_eq!(limits.admit(&stranger("ALICE", address(1), "old"), now), Admission::FailedBefore, "in capitals, too");
    assert_eq!(fail(&mut limits, &attempt, now + 300 * SECOND), None);
    assert_eq!(fail(&mut limits, &stranger("bob", address(1), "old"), now), None, "another account");
}

#[test]
fn password_that_may_be_right_counts_once_and_is_tried_again_soon() {
    let (mut limits, now) = (limits(), start());
    let attempt = stranger("alice", address(1), "right");
    let mut tried = 0;
    // As somebody does whose user is disabled, until an administrator lets them in again.
    for second in 0..280 {
        let now = now + second * SECOND;
        match limits.admit(&attempt, now) {
            Admission::Go(ticket) => {
                tried += 1;
                limits.settle(ticket, Outcome::Failed, now);
            }
            Admission::FailedBefore => {}
            Admission::Wait(_) => panic!("it counts once, or strangers could tell it from a wrong one"),
        }
    }
    assert_eq!(tried, 280_u32.div_ceil(15));
    let Admission::Go(ticket) = limits.admit(&attempt, now + 285 * SECOND) else { panic!("it is tried") };
    limits.settle(ticket, Outcome::LoggedIn, now + 285 * SECOND);
    let wrong = stranger("bob", address(2), "wrong");
    assert_eq!(fail(&mut limits, &wrong, now), None);
    assert_eq!(limits.admit(&wrong, now + 15 * SECOND), Admission::FailedBefore, "the control: that is not tried");
}

#[test]
fn of_many_tries_at_once_with_one_password_one_counts() {
    let (mut limits, now) = (limits(), start());
    let attempt = stranger("alice", address(1), "old");
    let tickets: Vec<_> = (0..5).map(|_| limits.admit(&attempt, now)).collect();
    assert!(matches!(limits.admit(&stranger("alice", address(1), "b"), now), Admission::Wait(_)), "all is taken");
    for ticket in tickets {
        let Admission::Go(ticket) = ticket else { panic!("five fit") };
        limits.settle(ticket, Outcome::Wrong, now);
    }
    assert_eq!(failures(&mut limits, now, |_, password| stranger("alice", address(1), password)), 4);
}

#[test]
fn login_resets_its_own_bucket_and_no_other() {
    let (mut limits, now) = (limits(), start());
    for number in 0..4 {
        fail(&mut limits, &stranger("alice", address(1), &number.to_string()), now);
        fail(&mut limits, &stranger("bob", address(1), &number.to_string()), now);
    }
    let Admission::Go(ticket) = limits.admit(&stranger("alice", address(1), "right"), now) else { panic!() };
    limits.settle(ticket, Outcome::LoggedIn, now);
    assert_eq!(failures(&mut limits, now, |_, password| stranger("alice", address(1), password)), 2, "of the address");
    assert!(fail(&mut limits, &stranger("bob", address(1), "x"), now).is_some());
}

#[test]
fn try_that_nobody_could_judge_costs_nothing() {
    let (mut limits, now) = (limits(), start());
    for _ in 0..1000 {
        let Admission::Go(ticket) = limits.admit(&stranger("alice", address(1), "right"), now) else { panic!() };
        limits.settle(ticket, Outcome::Open, now);
    }
}

#[test]
fn codes_have_buckets_for_strangers_and_for_known_places() {
    let (mut limits, now) = (limits(), start());
    let code = |attempt: Attempt<'static>| Attempt { secret: Secret::Code, ..attempt };
    let mut count = |known_place: bool| {
        let from = |number: u32| {
            if known_place { known("alice", address(1), "") } else { stranger("alice", address(number << 8), "") }
        };
        (0..100).take_while(|number| fail(&mut limits, &code(from(*number)), now).is_none()).count()
    };
    assert_eq!((count(false), count(true)), (10, 10));
}

fn link(from: IpAddr) -> Attempt<'static> {
    Attempt { secret: Secret::Link, ..stranger("", from, "") }
}

/// How many links each of these addresses gets in its turn.
fn links(limits: &mut LoginLimits, now: Instant, from: &[IpAddr]) -> Vec<usize> {
    from.iter().map(|from| (0..500).take_while(|_| fail(limits, &link(*from), now).is_none()).count()).collect()
}

#[test]
fn links_are_limited_by_address_and_by_each_network_around_it() {
    let (mut limits, now) = (limits(), start());
    let v4 = [address(1), address(2), address(3), address(256)];
    assert_eq!(links(&mut limits, now, &v4), [60, 60, 0, 60], "the last is in another /24");
    assert_eq!(fail(&mut limits, &stranger("alice", address(1), "x"), now), None, "passwords are not");
    let v6 = ["1::1", "2::1", "3::1", "101::1", "102::1", "201::1"];
    let v6 = v6.map(|rest| format!("2001:db8:0:{rest}").parse().unwrap());
    assert_eq!(links(&mut limits, now, &v6), [60, 60, 0, 60, 60, 0], "two of a /56, four of a /48");
    let elsewhere: IpAddr = "2001:db8:1::1".parse().unwrap();
    assert_eq!(links(&mut limits, now, &[elsewhere]), [60]);
}

#[test]
fn links_of_a_device_are_its_own() {
    let (mut limits, now) = (limits(), start());
    assert_eq!(links(&mut limits, now, &[address(1), address(2), address(3)]), [60, 60, 0], "its network has no more");
    let of = |device| Attempt { known: Some(device), ..link(address(1)) };
    assert_eq!((0..100).take_while(|_| fail(&mut limits, &of("dev-a"), now).is_none()).count(), 20);
    assert_eq!(fail(&mut limits, &of("dev-b"), now), None, "another device");
}

#[test]
fn failures_of_a_site_count_together() {
    let (mut limits, now) = (limits(), start());
    let from = |number: u16| IpAddr::from([0x2001, 0xdb8, 0, number, 0, 0, 0, 1]);
    let mut tries = (0..u16::MAX).map(|number| (format!("user-{number}"), from(number.wrapping_mul(257))));
    let through =
        tries.by_ref().take_while(|(name, from)| fail(&mut limits, &stranger(name, *from, "x"), now).is_none());
    assert_eq!(through.count(), 200);
    assert_eq!(limits.bans(now)[0].network.to_string(), "2001:db8::/48");
    let elsewhere = "2001:db8:1::1".parse().unwrap();
    assert_eq!(fail(&mut limits, &stranger("user", elsewhere, "x"), now), None, "another site may still");
}

#[test]
fn addresses_of_one_ipv6_host_are_one_and_mapped_ones_are_ipv4() {
    let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
    let networks = |text: &str| networks_of(v6(text)).map(|network| network.to_string()).collect::<Vec<_>>();
    assert_eq!(networks("2001:db8:1:2:3:4:5:6"), ["2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48"]);
    assert_eq!(networks("192.0.2.1"), ["192.0.2.1/32", "192.0.2.0/24"]);
    assert_eq!(networks("::ffff:192.0.2.1"), networks("192.0.2.1"));
    assert_eq!(known_network(v6("192.0.2.77")).to_string(), "192.0.2.0/24");
    assert_eq!(known_network(v6("2001:db8:1:2::1")).to_string(), "2001:db8:1::/48");
}

#[test]
fn bans_are_listed_and_lifted_and_accounts_are_unlocked() {
    let (mut limits, now) = (limits(), start());
    assert_eq!(limits.bans(now), []);
    for number in 0..10 {
        fail(&mut limits, &stranger(&format!("user-{number}"), address(1), "x"), now);
    }
    let bans = limits.bans(now);
    assert_eq!((bans.len(), bans[0].network.to_string()), (1, "198.51.0.1/32".to_owned()));
    assert_eq!(bans[0].remaining, 60 * SECOND);
    assert!(!limits.unban("203.0.113.0/24".parse().unwrap()), "there is none");
    assert!(limits.unban("198.51.0.1/32".parse().unwrap()));
    assert_eq!(fail(&mut limits, &stranger("user-99", address(1), "x"), now), None);

    // A ban is lifted by the network around it, and that of a network by an address in it.
    for number in 100..110 {
        fail(&mut limits, &stranger(&format!("user-{number}"), address(1), "x"), now);
    }
    assert_eq!(limits.bans(now).len(), 1);
    assert!(limits.unban("198.51.0.0/16".parse().unwrap()));
    assert_eq!(limits.bans(now), []);
    for number in 0..50 {
        fail(&mut limits, &stranger(&format!("user-{number}"), address(number), "y"), now);
    }
    assert_eq!(limits.bans(now).iter().map(|ban| ban.network.to_string()).collect::<Vec<_>>(), ["198.51.0.0/24"]);
    assert!(limits.unban("198.51.0.77/32".parse().unwrap()));
    assert_eq!(limits.bans(now), []);

    assert_eq!(failures(&mut limits, now, |_, password| stranger("alice", address(2), password)), 5);
    assert!(!limits.unlock("bob"));
    assert!(fail(&mut limits, &stranger("alice", address(2), "y"), now).is_some(), "another account");
    assert!(limits.unlock("Alice"));
    assert_eq!(fail(&mut limits, &stranger("alice", address(2), "wrong-0"), now), None, "not known to be wrong");
}

#[test]
fn memory_is_bounded_and_who_failed_most_is_forgotten_last() {
    let (mut limits, now) = (LoginLimits::with_room([1; 32], 1000), start());
    for number in 0..25 {
        fail(&mut limits, &stranger("victim", address(number << 8), "x"), now);
    }
    let wait = fail(&mut limits, &stranger("victim", address(999 << 8), "x"), now);
    assert!(wait.is_some());
    for number in 0..20_000_u32 {
        // Each from a site of its own.
        let from = std::net::Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(number) << 80));
        fail(&mut limits, &stranger(&format!("nobody-{number}"), from.into(), "x"), now);
        assert!(limits.buckets.len() <= 1004, "five buckets of one try at most beside the room");
    }
    assert_eq!(fail(&mut limits, &stranger("victim", address(999 << 8), "x"), now), wait, "that is not forgotten");
}

#[test]
fn nothing_is_forgotten_while_there_is_room_for_it() {
    let (mut limits, now) = (LoginLimits::with_room([1; 32], 1000), start());
    for number in 0..1000_u32 {
        // Each from a network of its own, so that every try has four buckets that are new.
        let from = std::net::Ipv4Addr::from(0x0a00_0000 | number << 8);
        fail(&mut limits, &stranger(&format!("nobody-{number}"), from.into(), "x"), now);
        let tries = usize::try_from(number).unwrap() + 1;
        assert!(limits.buckets.len() == 4 * tries || tries > 250);
        assert!(limits.buckets.len() <= 1000);
    }
}

#[test]
fn buckets_that_are_full_again_make_room_for_others_and_no_more_is_forgotten() {
    let (mut limits, now) = (LoginLimits::with_room([1; 32], 1000), start());
    let mut fail_from = |number: u32, now| {
        let from = std::net::Ipv4Addr::from(0x0a00_0000 | number << 8);
        fail(&mut limits, &stranger(&format!("nobody-{number}"), from.into(), "x"), now);
        limits.buckets.len()
    };
    assert_eq!((0..240).map(|number| fail_from(number, now)).last(), Some(960));
    let later = now + 3 * 3600 * SECOND;
    assert_eq!((240..250).map(|number| fail_from(number, later)).last(), Some(1000));
    assert_eq!(fail_from(250, later), 44);
}

/// What a stranger does, seconds later.
#[derive(Debug, Clone)]
struct Deed {
    account: u8,
    from: u8,
    behind_the_user: bool,
    password: u8,
    code: bool,
    settles: bool,
    later: u16,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = (0..3_u8, 0..40_u8, any::<bool>(), 0..30_u8, any::<bool>(), any::<bool>(), 0..3000_u16);
    let deed = deed.prop_map(|(account, from, behind_the_user, password, code, settles, later)| Deed {
        account,
        from,
        behind_the_user,
        password,
        code,
        settles,
        later,
    });
    proptest::collection::vec(deed, 0..400)
}

proptest! {
    /// Whatever strangers do, from wherever, a user in a known place is let through at once.
    #[test]
    fn no_failures_of_strangers_keep_a_user_out_of_a_known_place(deeds in deeds(), room in 10..5000_usize) {
        let (mut limits, mut now) = (LoginLimits::with_room([3; 32], room), start());
        let home = address(77);
        for deed in deeds {
            now += Duration::from_millis(deed.later.into());
            let account = ["alice", "ALICE", "bob"][usize::from(deed.account)];
            let password = deed.password.to_string();
            let secret = if deed.code { Secret::Code } else { Secret::Password(&password) };
            let from = if deed.behind_the_user { home } else { address(u32::from(deed.from) << 6) };
            if let Admission::Go(ticket) = limits.admit(&Attempt { account, address: from, known: None, secret }, now)
                && deed.settles
            {
                limits.settle(ticket, Outcome::Wrong, now);
            }
            let user = Attempt { secret: Secret::Password("right"), ..known("alice", home, "right") };
            let Admission::Go(ticket) = limits.admit(&user, now) else { panic!("the password") };
            limits.settle(ticket, Outcome::Open, now);
            let Admission::Go(ticket) = limits.admit(&Attempt { secret: Secret::Code, ..user }, now) else { panic!("the code") };
            limits.settle(ticket, Outcome::LoggedIn, now);
        }
    }

    /// No account is tried more often by strangers than the buckets say, however many there are of them.
    #[test]
    fn strangers_get_as_many_tries_at_an_account_as_there_are_tokens(hours in 1..5_u64, pause in 1..20_u64) {
        let (mut limits, start) = (limits(), start());
        let (mut through, mut number) = (0_u64, 0_u32);
        for second in (0..hours * 3600).step_by(usize::try_from(pause).unwrap()) {
            number += 1;
            let attempt = stranger("alice", address(number << 8), "x");
            through += u64::from(fail(&mut limits, &attempt, start + Duration::from_secs(second)).is_none());
        }
        prop_assert!(through <= 26 + hours * 61, "{through} in {hours} h");
    }
}
