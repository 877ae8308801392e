use proptest::prelude::*;

use super::trial::{GIVE_UP_ANYWAY, LEAST_PAUSE, TRIES};
use super::*;
use crate::esp::probe::NONCE_LEN;
use crate::sealing::test_cipher::start;

const BASE: u16 = 1316;
const CEILING: u16 = 1472;

/// The longest a search between base and ceiling may take: each size of the ceiling and the bisection unanswered.
const SEARCH_TIME: Duration = Duration::from_secs(6);
/// How long a size is tried that is not answered.
const TRIAL_TIME: Duration = LEAST_PAUSE.saturating_mul(TRIES);

/// One end, and a path that passes `limit` bytes after a round trip.
struct World {
    mtu: PathMtu,
    now: Instant,
    limit: u16,
    rtt: Duration,
    in_use: bool,
    small_ones_pass: bool,
    answers: VecDeque<(Instant, Probe)>,
    /// Sizes of the padded probes.
    sent: Vec<u16>,
}

const RTT: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(10);

impl World {
    fn new(base: u16, ceiling: u16, limit: u16) -> Self {
        let now = start();
        let mut mtu = PathMtu::new(base, ceiling, [5; SEED_LEN]);
        mtu.handle_up(now);
        let (answers, sent) = (VecDeque::new(), Vec::new());
        Self { mtu, now, limit, rtt: RTT, in_use: true, small_ones_pass: true, answers, sent }
    }

    /// A path whose size is found.
    fn settled(limit: u16) -> Self {
        let mut world = Self::new(BASE, CEILING, limit);
        world.run(SEARCH_TIME);
        world
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    /// Runs until `done`, and tells how long that took.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) -> Duration {
        let begin = self.now;
        while !done(self) {
            assert!(self.now < begin + Duration::from_secs(3600), "never");
            self.tick();
        }
        self.now - begin
    }

    fn tick(&mut self) {
        self.now += TICK;
        if self.in_use {
            self.mtu.handle_sent(self.now);
        }
        while let Some((_, answer)) = self.answers.pop_front_if(|(at, _)| *at <= self.now) {
            self.mtu.handle_probe(&answer, self.now);
        }
        self.mtu.handle_timeout(self.now);
        assert!(self.mtu.poll_timeout().is_none_or(|at| at > self.now), "a timeout that was handled is gone");
        while let Some(PathMtuTransmit { size, probe }) = self.mtu.poll_transmit() {
            let passes = if size == SMALL { self.small_ones_pass } else { size <= self.limit };
            self.sent.extend(Some(size).filter(|size| *size != SMALL));
            if passes {
                self.answers.push_back((self.now + self.rtt, probe.answer().unwrap()));
            }
        }
        assert!((self.mtu.base..=self.mtu.ceiling).contains(&self.mtu.current()));
    }

    /// Runs until the size was not looked at for so long that doubt is followed.
    fn run_until_doubt_counts(&mut self) {
        let is_due = |world: &Self| world.mtu.checked.is_some_and(|at| world.now - at >= DOUBT_PAUSE);
        self.run_until(is_due);
    }

    fn events(&mut self) -> Vec<PathMtuEvent> {
        std::iter::from_fn(|| self.mtu.poll_event()).collect()
    }

    fn found_limit(&self) -> bool {
        let current = self.mtu.current();
        current <= self.limit && self.limit < current + RESOLUTION
    }
}

#[test]
fn wide_path_is_found_in_one_round_trip() {
    let mut world = World::new(BASE, CEILING, 9000);
    assert_eq!(world.mtu.current(), BASE);
    let took = world.run_until(|world| world.mtu.current() == CEILING);
    assert!(took <= RTT + 2 * TICK);
    assert_eq!((world.events(), world.sent.len()), (vec![PathMtuEvent::Current(CEILING)], 1));
    world.run(CONFIRM_AFTER / 2);
    assert_eq!(world.sent.len(), 1, "nothing more to find");
}

#[test]
fn narrower_path_is_found_by_halving() {
    let mut world = World::settled(1452);
    assert!(world.found_limit(), "{}", world.mtu.current());
    assert_eq!(&world.sent[..5], [1472, 1472, 1472, 1472, 1396]);
    let events = world.events();
    assert_eq!(events.last(), Some(&PathMtuEvent::Current(world.mtu.current())));
    assert!(!events.contains(&PathMtuEvent::TooNarrow));
}

#[test]
fn probe_fills_the_datagram_it_is_for() {
    for size in (BASE..=CEILING).step_by(4) {
        let transmit = PathMtuTransmit { size, probe: Probe { kind: Kind::Request, nonce: [1; NONCE_LEN] } };
        assert_eq!(packet::sealed_len(transmit.content_len()), usize::from(size));
    }
    assert_eq!(packet::sealed_len(1280), usize::from(BASE));
}

#[test]
fn sizes_are_those_that_esp_datagrams_have() {
    let mtu = PathMtu::new(1317, 65_535, [5; SEED_LEN]);
    assert_eq!((mtu.current(), mtu.ceiling), (1316, 65_504));
    assert_eq!(PathMtu::new(1316, 1000, [5; SEED_LEN]).ceiling, 1316);
}

#[test]
fn nothing_happens_before_the_path_is_up_or_after_it_went_down() {
    let now = start();
    let mut mtu = PathMtu::new(BASE, CEILING, [5; SEED_LEN]);
    mtu.handle_timeout(now);
    mtu.handle_doubt(now);
    mtu.handle_too_big(100, now);
    assert_eq!((mtu.poll_timeout(), mtu.poll_transmit(), mtu.poll_event()), (None, None, None));
    mtu.handle_up(now);
    mtu.handle_down();
    assert_eq!((mtu.poll_timeout(), mtu.poll_transmit()), (None, None));
}

#[test]
fn only_our_own_answers_count() {
    let now = start();
    let mut mtu = PathMtu::new(BASE, CEILING, [5; SEED_LEN]);
    mtu.handle_up(now);
    let probe = mtu.poll_transmit().unwrap().probe;
    assert!(!mtu.handle_probe(&probe, now), "a request is no answer");
    assert!(!mtu.handle_probe(&Probe { kind: Kind::Answer, nonce: [9; NONCE_LEN] }, now));
    assert_eq!(mtu.current(), BASE);
    assert!(mtu.handle_probe(&probe.answer().unwrap(), now));
    assert!(!mtu.handle_probe(&probe.answer().unwrap(), now), "once");
    assert_eq!(mtu.current(), CEILING);
}

#[test]
fn path_with_the_same_seed_has_other_nonces() {
    use crate::esp::path::{KEEP_ALIVE, Path, Received};
    let now = start();
    let gateway = ([192, 0, 2, 1], 443).into();
    let mut path = Path::client(gateway, KEEP_ALIVE, [5; SEED_LEN], now);
    let mut mtu = PathMtu::new(BASE, CEILING, [5; SEED_LEN]);
    mtu.handle_up(now);
    let small = path.poll_transmit().unwrap().probe.answer().unwrap();
    let padded = mtu.poll_transmit().unwrap().probe.answer().unwrap();
    assert!(!mtu.handle_probe(&small, now));
    path.handle_received(&Received { from: gateway, len: 60, newest: true, probe: Some(padded) }, now);
    assert_eq!((path.poll_event(), mtu.current()), (None, BASE));
}

#[test]
fn shrunk_path_is_noticed_and_measured_anew() {
    let mut world = World::settled(CEILING);
    drop(world.events());
    world.limit = 1400;
    let fell = world.run_until(|world| world.mtu.current() == BASE);
    assert!(fell <= CONFIRM_AFTER + TRIAL_TIME + RTT, "{fell:?}");
    assert!(fell < Duration::from_secs(2), "{fell:?}");
    let found = world.run_until(World::found_limit);
    assert!(found <= SEARCH_AFTER_FALL + SEARCH_TIME, "{found:?}");
}

#[test]
fn doubt_shortens_that() {
    let mut world = World::settled(CEILING);
    world.run_until_doubt_counts();
    world.limit = 1400;
    world.mtu.handle_doubt(world.now);
    world.mtu.handle_doubt(world.now);
    let fell = world.run_until(|world| world.mtu.current() == BASE);
    assert!(fell <= TRIAL_TIME + TICK, "{fell:?}");
}

#[test]
fn path_that_shrinks_below_the_base_is_left_within_three_seconds() {
    let mut world = World::settled(CEILING);
    world.limit = 1280;
    let left = world.run_until(|world| world.mtu.is_too_narrow());
    assert!(left < Duration::from_secs(3), "{left:?}");
}

#[test]
fn long_round_trip_is_no_narrow_path_and_costs_one_probe_a_second() {
    let mut world = World::new(BASE, CEILING, CEILING);
    world.rtt = Duration::from_millis(1_200);
    world.run(Duration::from_secs(60));
    assert_eq!(world.mtu.current(), CEILING);
    assert!(world.events().iter().all(|event| *event == PathMtuEvent::Current(CEILING)));
    world.rtt = Duration::from_millis(250);
    world.run(Duration::from_secs(3));
    world.sent.clear();
    world.run(Duration::from_secs(10));
    assert!((7..=9).contains(&world.sent.len()), "{:?}", world.sent);
    world.limit = 1400;
    let fell = world.run_until(|world| world.mtu.current() == BASE);
    assert!(fell < Duration::from_secs(4), "{fell:?}");
}

#[test]
fn short_disturbance_costs_the_size_for_seconds_only() {
    let mut world = World::settled(CEILING);
    world.limit = 1400;
    world.run_until(|world| world.mtu.current() == BASE);
    world.limit = CEILING;
    assert!(world.run_until(World::found_limit) <= SEARCH_AFTER_FALL + 2 * RTT);
}

#[test]
fn broken_path_is_not_taken_for_a_narrow_one() {
    let mut world = World::settled(CEILING);
    world.run_until_doubt_counts();
    (world.limit, world.small_ones_pass) = (0, false);
    world.mtu.handle_doubt(world.now);
    // By then the path itself is known to be down.
    world.run(crate::esp::path::ANSWER_WITHIN + Duration::from_secs(1));
    assert_eq!(world.mtu.current(), CEILING);
    world.mtu.handle_down();
    (world.limit, world.small_ones_pass) = (CEILING, true);
    world.run(Duration::from_secs(60));
    world.sent.clear();
    world.mtu.handle_up(world.now);
    world.run(Duration::from_secs(1));
    assert_eq!((world.mtu.current(), &world.sent[..]), (CEILING, &[CEILING][..]));
}

#[test]
fn without_any_answer_it_falls_back_all_the_same() {
    let mut world = World::settled(CEILING);
    world.run_until_doubt_counts();
    (world.limit, world.small_ones_pass) = (1400, false);
    world.mtu.handle_doubt(world.now);
    let fell = world.run_until(|world| world.mtu.current() == BASE);
    assert!(fell <= GIVE_UP_ANYWAY + TICK, "{fell:?}");
}

#[test]
fn move_to_a_narrower_path_is_found_and_one_to_an_equal_path_shows_nothing() {
    let mut world = World::settled(CEILING);
    drop(world.events());
    world.mtu.handle_up(world.now);
    world.run(SEARCH_TIME);
    assert_eq!(world.events(), []);
    world.limit = 1350;
    world.mtu.handle_up(world.now);
    let found = world.run_until(World::found_limit);
    assert!(found <= TRIAL_TIME + SEARCH_AFTER_FALL + SEARCH_TIME, "{found:?}");
}

#[test]
fn refused_size_shrinks_at_once() {
    let mut world = World::settled(CEILING);
    drop(world.events());
    world.limit = 1400;
    world.mtu.handle_too_big(1401, world.now);
    assert_eq!((world.mtu.current(), world.events()), (BASE, vec![PathMtuEvent::Current(BASE)]));
    world.sent.clear();
    assert!(world.run_until(World::found_limit) <= SEARCH_TIME);
    assert!(world.sent.iter().all(|size| *size <= 1400), "{:?}", world.sent);
}

#[test]
fn refused_probe_is_not_repeated() {
    let now = start();
    let mut mtu = PathMtu::new(BASE, CEILING, [5; SEED_LEN]);
    mtu.handle_up(now);
    let first = mtu.poll_transmit().unwrap();
    mtu.handle_too_big(first.size, now);
    let second = mtu.poll_transmit().unwrap();
    assert!(second.size < first.size && second.size > BASE);
    mtu.handle_too_big(first.size, now);
    assert_eq!(mtu.poll_transmit(), None, "nothing new");
    assert!(mtu.handle_probe(&second.probe.answer().unwrap(), now));
    assert_eq!(mtu.current(), second.size);
}

#[test]
fn path_below_the_base_is_too_narrow_until_it_passes() {
    let mut world = World::new(BASE, CEILING, 1280);
    world.run_until(|world| world.mtu.is_too_narrow());
    assert_eq!(world.events(), [PathMtuEvent::TooNarrow]);
    world.in_use = false;
    world.limit = CEILING;
    let again = world.run_until(|world| !world.mtu.is_too_narrow());
    assert!(again <= RETRY_NARROW_AFTER + RTT + 2 * TICK, "{again:?}");
    world.run(SEARCH_TIME);
    assert_eq!(world.events(), [PathMtuEvent::Current(BASE), PathMtuEvent::Current(CEILING)]);
    world.mtu.handle_too_big(BASE, world.now);
    world.mtu.handle_too_big(BASE, world.now);
    assert_eq!(world.events(), [PathMtuEvent::TooNarrow]);
    world.mtu.handle_up(world.now);
    assert_eq!(world.events(), [PathMtuEvent::Current(BASE)]);
}

#[test]
fn larger_sizes_are_tried_again_after_ten_minutes_in_use() {
    let mut world = World::settled(1400);
    world.limit = CEILING;
    let raised = world.run_until(|world| world.mtu.current() == CEILING);
    assert!(raised > RAISE_AFTER - SEARCH_TIME && raised <= RAISE_AFTER + Duration::from_secs(1), "{raised:?}");
}

#[test]
fn idle_path_is_left_alone() {
    let mut world = World::settled(1400);
    world.in_use = false;
    world.run(CONFIRM_AFTER + Duration::from_secs(1));
    world.sent.clear();
    world.run(RAISE_AFTER * 2);
    assert_eq!((&world.sent[..], world.mtu.poll_timeout()), (&[][..], None));
    world.mtu.handle_sent(world.now);
    assert!(world.mtu.poll_timeout().unwrap() <= world.now);
}

#[test]
fn path_in_use_is_confirmed_every_second() {
    let mut world = World::settled(CEILING);
    world.sent.clear();
    world.run(CONFIRM_AFTER * 10);
    assert!((9..=10).contains(&world.sent.len()), "{:?}", world.sent);
}

#[derive(Debug, Clone)]
enum Op {
    Up,
    Down,
    Sent,
    Doubt,
    TooBig(u16),
    Answer,
    ForeignAnswer,
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::Up),
        Just(Op::Down),
        Just(Op::Sent),
        Just(Op::Doubt),
        (1200..1600_u16).prop_map(Op::TooBig),
        Just(Op::Answer),
        Just(Op::ForeignAnswer),
        prop_oneof![0..1000_u64, 0..700_000_u64].prop_map(Op::Wait),
    ]
}

proptest! {
    #[test]
    fn search_finds_any_limit_with_few_probes(base in 68..2000_u16, above in 0..63_000_u16, place: u16) {
        let ceiling = base + above;
        let limit = base + place % (above + 1);
        let mut world = World::new(base, ceiling, limit);
        world.run_until(|world| world.mtu.trial.is_none());
        prop_assert!(world.found_limit(), "{} for {limit}", world.mtu.current());
        // The ceiling, the base, and one size for each time that the range can be halved.
        let sizes = 2 + (u16::BITS - above.leading_zeros());
        prop_assert!(world.sent.len() <= (sizes * TRIES) as usize, "{:?}", world.sent);
    }

    #[test]
    fn change_of_the_limit_is_followed(first in BASE..=CEILING, second in BASE..=CEILING) {
        let mut world = World::settled(first);
        world.limit = second;
        let bound = if second < world.mtu.current() { CONFIRM_AFTER + SEARCH_AFTER_FALL } else { RAISE_AFTER };
        let took = world.run_until(World::found_limit);
        prop_assert!(took <= bound + SEARCH_TIME * 2, "{took:?}");
    }

    #[test]
    fn invariants_hold_after_any_steps(ops in proptest::collection::vec(op(), 0..80)) {
        let mut now = start();
        let mut mtu = PathMtu::new(BASE, CEILING, [5; SEED_LEN]);
        let mut last: Option<PathMtuTransmit> = None;
        let (mut answered, mut reported) = (vec![BASE], BASE);
        for op in ops {
            match op {
                Op::Up => mtu.handle_up(now),
                Op::Down => mtu.handle_down(),
                Op::Sent => mtu.handle_sent(now),
                Op::Doubt => mtu.handle_doubt(now),
                Op::TooBig(size) => {
                    mtu.handle_too_big(size, now);
                    prop_assert!(!mtu.up || mtu.current() < size || mtu.is_too_narrow());
                }
                Op::Answer => {
                    if let Some(PathMtuTransmit { size, probe }) = last {
                        answered.push(size);
                        mtu.handle_probe(&probe.answer().unwrap(), now);
                    }
                }
                Op::ForeignAnswer => {
                    mtu.handle_probe(&Probe { kind: Kind::Answer, nonce: [9; NONCE_LEN] }, now);
                }
                Op::Wait(ms) => now += Duration::from_millis(ms),
            }
            mtu.handle_timeout(now);
            prop_assert!(mtu.poll_timeout().is_none_or(|at| at > now));
            last = std::iter::from_fn(|| mtu.poll_transmit()).filter(|sent| sent.size != SMALL).last().or(last);
            prop_assert!(last.is_none_or(|last| (BASE..=CEILING).contains(&last.size)));
            prop_assert!(answered.contains(&mtu.current()), "only what was answered is used");
            while let Some(event) = mtu.poll_event() {
                if let PathMtuEvent::Current(size) = event {
                    reported = size;
                }
            }
            prop_assert!(reported == mtu.current() || mtu.is_too_narrow());
        }
    }
}
