use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const NONE: u32 = 0;
const MOST: u32 = u32::MAX;

/// A moment by both clocks.
#[derive(Clone, Copy)]
struct Now {
    instant: Instant,
    clock: SystemTime,
}

impl Now {
    fn begin() -> Self {
        Self { instant: Instant::now(), clock: SystemTime::UNIX_EPOCH + 20_000 * DAY }
    }

    fn after(self, time: Duration) -> Self {
        Self { instant: self.instant + time, clock: self.clock + time }
    }
}

/// The life of a certificate that was issued at this moment for ninety days.
fn ninety_days(now: Now) -> Life {
    Life { begins: now.clock, ends: now.clock + 90 * DAY }
}

fn step(schedule: &Schedule, now: Now) -> Step {
    schedule.next_step(now.instant, now.clock)
}

fn window(now: Now, begins: Duration, ends: Duration) -> Window {
    Window { begins: now.clock + begins, ends: now.clock + ends }
}

/// The first moment from `now` on at which there is something to do, looked at each minute for a hundred days.
fn first_step(schedule: &Schedule, now: Now) -> (Duration, Step) {
    let minutes = (0..100 * 24 * 60).map(|minute| MINUTE * minute);
    let mut steps = minutes.map(|time| (time, step(schedule, now.after(time))));
    steps.find(|(_, step)| *step != Step::Wait).expect("something is to be done within a hundred days")
}

#[test]
fn name_without_a_certificate_gets_one_at_once_and_nothing_is_asked_before() {
    let now = Now::begin();
    let mut schedule = Schedule::new(None);
    assert_eq!((step(&schedule, now), schedule.renews_at()), (Step::Order, None));
    schedule.handle_certificate(ninety_days(now), NONE, now.instant, now.clock);
    assert_eq!(step(&schedule, now), Step::Ask);
}

#[test]
fn certificate_that_is_over_at_once_is_ordered_again_ever_more_seldom() {
    let mut now = Now::begin();
    let mut schedule = Schedule::new(None);
    let short = |now: Now| Life { begins: now.clock - 90 * DAY, ends: now.clock + DAY };
    for minutes in [1, 2, 4, 8] {
        schedule.handle_certificate(short(now), NONE, now.instant, now.clock);
        schedule.handle_wish(Wish::None, NONE, now.instant);
        assert_eq!(first_step(&schedule, now), (MINUTE * minutes, Step::Order));
        assert!(schedule.is_alarming(now.clock));
        now = now.after(MINUTE * minutes);
    }
    // An authority that wants it renewed at once waits for an hour.
    schedule.handle_certificate(ninety_days(now), NONE, now.instant, now.clock);
    let past = Window { begins: now.clock - DAY, ends: now.clock - HOUR };
    schedule.handle_wish(Wish::Window(past, None), NONE, now.instant);
    assert_eq!(first_step(&schedule, now), (HOUR, Step::Order));
    assert!(!schedule.is_alarming(now.clock));
}

#[test]
fn authority_that_names_no_window_leaves_two_thirds_of_the_life() {
    let now = Now::begin();
    let mut schedule = Schedule::new(Some(ninety_days(now)));
    schedule.handle_wish(Wish::None, MOST, now.instant);
    assert_eq!(schedule.renews_at(), Some(now.clock + 60 * DAY));
    assert_eq!(first_step(&schedule, now), (DAY, Step::Ask), "it may learn to");
    schedule.handle_wish(Wish::None, MOST, now.after(60 * DAY).instant);
    assert_eq!(step(&schedule, now.after(60 * DAY)), Step::Order);
}

#[test]
fn point_of_the_window_is_random_and_stays_while_the_window_does() {
    let now = Now::begin();
    let wished = window(now, 50 * DAY, 52 * DAY);
    for (random, point) in [(NONE, 50 * DAY), (1 << 31, 51 * DAY)] {
        let mut schedule = Schedule::new(Some(ninety_days(now)));
        schedule.handle_wish(Wish::Window(wished, None), random, now.instant);
        assert_eq!(schedule.renews_at(), Some(now.clock + point));
        schedule.handle_wish(Wish::Window(wished, None), MOST, now.instant);
        assert_eq!(schedule.renews_at(), Some(now.clock + point), "it is not drawn again");
        // Until it is heard again, what was said last counts.
        schedule.handle_wish(Wish::Unheard, MOST, now.instant);
        assert_eq!(schedule.renews_at(), Some(now.clock + point));
    }
}

#[test]
fn authority_that_must_revoke_is_heard_within_six_hours_and_obeyed_at_once() {
    let now = Now::begin();
    let mut schedule = Schedule::new(Some(ninety_days(now)));
    schedule.handle_wish(Wish::Window(window(now, 60 * DAY, 61 * DAY), None), NONE, now.instant);
    let (time, asked) = first_step(&schedule, now);
    assert_eq!((time, asked), (6 * HOUR, Step::Ask));
    let now = now.after(time);
    let past = Window { begins: now.clock - DAY, ends: now.clock - HOUR };
    schedule.handle_wish(Wish::Window(past, None), MOST, now.instant);
    assert_eq!(step(&schedule, now), Step::Order);
}

#[test]
fn gateway_that_was_off_asks_first_and_then_orders() {
    let now = Now::begin();
    let mut schedule = Schedule::new(Some(ninety_days(now)));
    let late = now.after(80 * DAY);
    assert_eq!(step(&schedule, late), Step::Ask);
    schedule.handle_wish(Wish::Unheard, NONE, late.instant);
    assert_eq!(step(&schedule, late), Step::Order);
}

#[test]
fn how_often_it_is_asked_is_its_own_wish_within_bounds() {
    let now = Now::begin();
    let mut schedule = Schedule::new(Some(ninety_days(now)));
    let wished = window(now, 60 * DAY, 61 * DAY);
    for (said, asked) in [(Duration::ZERO, MINUTE), (3 * HOUR, 3 * HOUR), (30 * DAY, DAY)] {
        schedule.handle_wish(Wish::Window(wished, Some(said)), NONE, now.instant);
        assert_eq!(first_step(&schedule, now), (asked, Step::Ask), "{said:?}");
    }
    schedule.handle_wish(Wish::Unheard, NONE, now.instant);
    assert_eq!(first_step(&schedule, now), (HOUR, Step::Ask));
}

#[test]
fn nonsense_of_an_authority_is_as_if_it_had_not_been_heard() {
    let now = Now::begin();
    let mut schedule = Schedule::new(Some(ninety_days(now)));
    for (begins, ends) in [(60 * DAY, 60 * DAY), (61 * DAY, 60 * DAY)] {
        schedule.handle_wish(Wish::Window(window(now, begins, ends), None), NONE, now.instant);
        assert_eq!(schedule.renews_at(), Some(now.clock + 60 * DAY), "as without one");
    }
    // A window at the very end, or behind it, would leave no time to try again.
    schedule.handle_wish(Wish::Window(window(now, 200 * DAY, 300 * DAY), None), NONE, now.instant);
    assert_eq!(schedule.renews_at(), Some(now.clock + 75 * DAY));
}

#[test]
fn window_before_the_certificate_or_before_all_dates_wants_it_renewed_from_its_beginning_on() {
    let now = Now::begin();
    let mut schedule = Schedule::new(Some(ninety_days(now)));
    let before_all = SystemTime::UNIX_EPOCH - 300 * DAY;
    for begins in [now.clock - 2 * DAY, before_all] {
        let past = Window { begins, ends: begins + DAY };
        schedule.handle_wish(Wish::Window(past, None), MOST, now.instant);
        let point = schedule.renews_at().unwrap();
        assert_eq!(point, now.clock, "{past:?}");
        assert!(!humantime::format_rfc3339_seconds(point).to_string().is_empty(), "it can be told");
        assert_eq!(step(&schedule, now), Step::Order);
    }
    // One that began before and goes on keeps its point.
    let around = Window { begins: now.clock - DAY, ends: now.clock + 3 * DAY };
    schedule.handle_wish(Wish::Window(around, None), MOST / 2 + 1, now.instant);
    assert_eq!(schedule.renews_at(), Some(now.clock + DAY));
}

#[test]
fn pauses_between_failures_double_from_a_minute_to_a_day() {
    let mut now = Now::begin();
    let mut schedule = Schedule::new(None);
    let mut expected = MINUTE;
    for _ in 0..40 {
        let pause = schedule.handle_failure(None, NONE, now.instant);
        assert_eq!(pause, expected.min(DAY));
        assert_eq!(step(&schedule, now.after(pause - Duration::from_millis(1))), Step::Wait);
        now = now.after(pause);
        assert_eq!(step(&schedule, now), Step::Order);
        expected *= 2;
    }
    schedule.handle_certificate(ninety_days(now), NONE, now.instant, now.clock);
    assert_eq!(schedule.handle_failure(None, NONE, now.instant), MINUTE, "a success ends it");
    let wished = schedule.handle_failure(Some(HOUR), NONE, now.instant);
    assert_eq!(wished, HOUR, "an authority that wants more time gets it");
}

#[test]
fn alarm_is_given_when_none_could_be_had_or_a_third_is_left() {
    let now = Now::begin();
    let mut without = Schedule::new(None);
    assert!(!without.is_alarming(now.clock), "not tried yet");
    without.handle_failure(None, NONE, now.instant);
    assert!(without.is_alarming(now.clock));

    let mut with = Schedule::new(Some(ninety_days(now)));
    assert!(!with.is_alarming(now.clock + 70 * DAY), "its renewal goes on");
    with.handle_failure(None, NONE, now.instant);
    assert!(!with.is_alarming(now.clock + 59 * DAY), "there is time");
    assert!(with.is_alarming(now.clock + 60 * DAY) && with.is_alarming(now.clock + 100 * DAY));
    let later = now.after(60 * DAY);
    with.handle_certificate(ninety_days(later), NONE, later.instant, later.clock);
    assert!(!with.is_alarming(now.clock + 60 * DAY));
}

#[test]
fn clock_that_was_set_far_back_stops_orders_and_one_that_went_on_resumes_them() {
    let now = Now::begin();
    let mut schedule = Schedule::new(Some(ninety_days(now)));
    let wrong = SystemTime::UNIX_EPOCH + DAY;
    assert!(schedule.is_clock_behind(wrong) && !schedule.is_clock_behind(now.clock));
    assert!(!schedule.is_clock_behind(now.clock - 23 * HOUR), "authorities date a certificate some time back, or not");
    assert_eq!(schedule.next_step(now.instant, wrong), Step::Wait);
    schedule.handle_wish(Wish::Unheard, NONE, now.instant);
    assert_eq!(schedule.next_step(now.instant, now.clock + 60 * DAY), Step::Order);
    assert_eq!(Schedule::new(None).next_step(now.instant, wrong), Step::Order, "nothing says that it is wrong");
}

proptest! {
    #[test]
    fn point_is_in_the_window_and_early_enough(begins in 0_u32..100, length in 1_u32..100, random: u32) {
        let now = Now::begin();
        let mut schedule = Schedule::new(Some(ninety_days(now)));
        let wished = window(now, DAY * begins, DAY * (begins + length));
        schedule.handle_wish(Wish::Window(wished, None), random, now.instant);
        let point = schedule.renews_at().unwrap();
        prop_assert!(point <= wished.ends && point <= now.clock + 75 * DAY);
        prop_assert!(point >= wished.begins || point == now.clock + 75 * DAY);
    }

    #[test]
    fn pause_is_never_shorter_than_a_minute_nor_longer_than_a_day(failures in 1_usize..60, random: u32) {
        let now = Now::begin();
        let mut schedule = Schedule::new(None);
        for _ in 0..failures {
            let pause = schedule.handle_failure(None, random, now.instant);
            prop_assert!((MINUTE..=DAY).contains(&pause));
        }
    }
}

#[test]
fn pause_outlives_a_restart_and_goes_on_to_double() {
    let mut now = Now::begin();
    let mut schedule = Schedule::new(None);
    assert_eq!(schedule.backoff(now.instant, now.clock), None, "nothing has failed");
    for minutes in [1, 2, 4, 8] {
        assert_eq!(schedule.handle_failure(None, NONE, now.instant), MINUTE * minutes);
        let kept = schedule.backoff(now.instant, now.clock).unwrap();
        // The next process knows nothing else; it starts a while later.
        now = now.after(MINUTE / 2);
        schedule = Schedule::new(None);
        assert_eq!(step(&schedule, now), Step::Order, "the control: it would ask at once");
        schedule.resume(kept, now.instant, now.clock);
        assert_eq!(step(&schedule, now), Step::Wait);
        assert_eq!(step(&schedule, now.after(MINUTE * minutes - MINUTE / 2)), Step::Order);
        assert!(schedule.is_alarming(now.clock));
    }
    schedule.handle_certificate(ninety_days(now), NONE, now.instant, now.clock);
    assert_eq!(schedule.backoff(now.instant, now.clock), None);
}

#[test]
fn pause_is_never_longer_than_it_was_whatever_the_clock_shows() {
    let now = Now::begin();
    let left = |kept: Backoff, clock: SystemTime| {
        let mut schedule = Schedule::new(None);
        schedule.resume(kept, now.instant, clock);
        schedule.backoff(now.instant, clock).map(|left| left.ends.duration_since(clock).unwrap())
    };
    let kept = Backoff { failures: 4, begins: now.clock, ends: now.clock + HOUR };
    assert_eq!(left(kept, now.clock + MINUTE), Some(HOUR - MINUTE));
    assert_eq!(left(kept, now.clock - 1000 * DAY), Some(HOUR), "the clock was set back");
    assert_eq!(left(kept, now.clock + 1000 * DAY), Some(Duration::ZERO));
    let endless = Backoff { ends: now.clock + 1000 * DAY, ..kept };
    assert_eq!(left(endless, now.clock), Some(DAY));
}

#[test]
fn certificate_that_is_removed_is_ordered_at_once_but_not_from_an_authority_that_fails() {
    let now = Now::begin();
    let mut schedule = Schedule::new(None);
    schedule.handle_certificate(ninety_days(now), NONE, now.instant, now.clock);
    schedule.handle_found(None);
    assert_eq!(step(&schedule, now), Step::Order);
    let pause = schedule.handle_failure(None, NONE, now.instant);
    for found in [Some(ninety_days(now)), None] {
        schedule.handle_found(found);
    }
    assert_eq!((step(&schedule, now), step(&schedule, now.after(pause))), (Step::Wait, Step::Order));
}
