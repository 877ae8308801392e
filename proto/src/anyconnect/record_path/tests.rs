use super::*;
use crate::anyconnect::datagrams::{self, Datagrams};
use crate::sealing::test_cipher::start;

const INTERVAL: Duration = Duration::from_secs(20);
const LARGEST: u16 = 1420;
const SECOND: Duration = Duration::from_secs(1);

fn answer(size: usize) -> Vec<u8> {
    record::encode(FrameKind::DpdResponse, &vec![0; size])
}

/// The sizes of the questions that are asked now.
fn questions(path: &mut RecordPath) -> Vec<usize> {
    let records = std::iter::from_fn(|| path.poll_transmit());
    records.filter(|record| record[0] == FrameKind::DpdRequest.number()).map(|record| record.len() - 1).collect()
}

/// One whose first association is established.
fn unproven(now: Instant) -> RecordPath {
    let mut path = RecordPath::new(INTERVAL, now);
    path.handle_timeout(now);
    assert!(path.poll_association() && !path.poll_association());
    path.handle_established(LARGEST, now);
    path
}

fn passing(now: Instant) -> RecordPath {
    let mut path = unproven(now);
    questions(&mut path);
    path.handle_record(&answer(LARGEST.into()), now);
    assert_eq!((path.state(), path.mtu()), (State::Passing, Some(LARGEST)));
    path
}

/// Has the machine do what is due, `times` times; how long that took.
fn wait(path: &mut RecordPath, times: usize, now: Instant) -> Instant {
    (0..times).fold(now, |_, _| {
        let due = path.poll_timeout().unwrap();
        path.handle_timeout(due);
        assert!(path.poll_timeout().is_none_or(|next| next > due), "a timeout that was handled is gone");
        due
    })
}

#[test]
fn packets_are_as_large_as_the_largest_question_that_is_answered() {
    let now = start();
    for (answered, mtu) in [(vec![1420, 1400, 1280], 1420), (vec![1280, 1360], 1360), (vec![0], 1280)] {
        let mut path = unproven(now);
        assert_eq!(questions(&mut path), [1420, 1400, 1360, 1320, 1280]);
        assert_eq!((path.state(), path.mtu()), (State::Unproven, None));
        for size in answered {
            path.handle_record(&answer(size), now);
        }
        if mtu < LARGEST {
            assert_eq!(path.state(), State::Unproven, "a larger one may still be answered");
            wait(&mut path, 1, now);
        }
        assert_eq!((path.state(), path.mtu()), (State::Passing, Some(mtu)));
        path.handle_record(&answer(9000), now);
        assert_eq!(path.mtu(), Some(LARGEST), "late, and no larger than what fits");
    }
}

#[test]
fn path_that_answers_nothing_is_asked_thrice_and_then_left_for_a_new_association() {
    let begin = start();
    let mut path = unproven(begin);
    let end = wait(&mut path, 2, begin);
    assert_eq!((end - begin, path.state(), path.poll_association()), (SECOND * 2, State::Unproven, false));
    let end = wait(&mut path, 1, end);
    assert!(path.poll_association() && path.poll_timeout().is_none(), "it is in the making");
    path.handle_not_established(end + SECOND * 30);
    let again = wait(&mut path, 1, end);
    assert_eq!((again - end, path.poll_association()), (NEXT_TRY, false), "the old one is asked first");
    assert_eq!(questions(&mut path).len(), 5);
    path.handle_record(&answer(LARGEST.into()), again);
    assert_eq!((path.state(), path.poll_association()), (State::Passing, false), "it was only blocked");
}

#[test]
fn association_that_does_not_come_about_is_tried_every_minute() {
    let begin = start();
    let mut path = RecordPath::new(INTERVAL, begin);
    let mut now = begin;
    for round in 0..5 {
        now = wait(&mut path, 1, now);
        assert_eq!((now - begin, path.poll_association()), (NEXT_TRY * round, true));
        path.handle_not_established(now + SECOND * 30);
        path.handle_not_established(now + SECOND * 31);
    }
    now = wait(&mut path, 1, now);
    assert!(path.poll_association());
    path.handle_established(LARGEST, now);
    path.handle_closed(now + SECOND);
    assert_eq!((path.state(), path.poll_timeout()), (State::Absent, Some(now + NEXT_TRY)), "whoever ended it");
    let much_later = now + NEXT_TRY * 9;
    let mut path = passing(begin);
    path.handle_closed(much_later);
    path.handle_timeout(much_later);
    assert!(path.poll_association(), "an old one has a successor at once");
}

#[test]
fn gateway_that_says_much_but_answers_nothing_is_given_up() {
    let begin = start();
    let mut path = passing(begin);
    let mut now = begin;
    while path.state() == State::Passing {
        now += SECOND;
        path.handle_sent(now);
        path.handle_record(&record::encode(FrameKind::DpdRequest, b"are you there"), now);
        path.handle_timeout(now);
    }
    assert_eq!(now - begin, INTERVAL + SECOND * 3);
    assert_eq!(path.mtu(), None);
}

#[test]
fn silence_after_packets_were_sent_is_noticed_soon() {
    let begin = start();
    let mut path = passing(begin);
    path.handle_sent(begin + SECOND);
    path.handle_sent(begin + SECOND * 2);
    let asked = wait(&mut path, 1, begin);
    assert_eq!((asked - begin, questions(&mut path)), (SECOND * 4, vec![LARGEST.into()]));
    path.handle_heard();
    path.handle_record(&answer(LARGEST.into()), asked);
    assert_eq!((path.poll_timeout(), path.is_asking()), (Some(asked + INTERVAL), false), "all is well");
    path.handle_sent(asked);
    path.handle_heard();
    assert_eq!(path.poll_timeout(), Some(asked + INTERVAL), "records came");

    path.handle_doubt(asked);
    path.handle_doubt(asked);
    assert!(path.is_asking());
    assert_eq!((path.state(), questions(&mut path).len()), (State::Passing, 1), "one question clears it up");
    let given_up = wait(&mut path, 3, asked);
    assert_eq!((given_up - asked, path.state()), (SECOND * 3, State::Unproven));
    assert_eq!(questions(&mut path).len(), 5, "what passes now may be smaller");
    path.handle_record(&answer(1320), given_up);
    wait(&mut path, 1, given_up);
    assert_eq!(path.mtu(), Some(1320));
}

#[test]
fn packets_go_on_while_a_new_association_takes_over() {
    let now = start();
    let mut path = passing(now);
    path.handle_established(1400, now);
    assert_eq!((path.state(), path.mtu(), questions(&mut path)), (State::Passing, Some(1400), vec![1400]));
    wait(&mut path, 3, now);
    assert_eq!(path.state(), State::Unproven, "it is asked all the same");
}

#[test]
fn narrow_path_is_not_asked_for_more_than_it_takes() {
    let now = start();
    let mut path = passing(now);
    path.handle_narrow(1300);
    path.handle_narrow(1310);
    assert_eq!(path.mtu(), Some(1300));
    path.handle_record(&answer(LARGEST.into()), now);
    assert_eq!(path.mtu(), Some(1300));
    path.handle_doubt(now);
    wait(&mut path, 3, now);
    assert_eq!(questions(&mut path), [1300, 1280]);
}

#[test]
fn questions_of_the_gateway_are_answered_whole_and_not_without_end() {
    let now = start();
    let mut path = passing(now);
    for _ in 0..1000 {
        path.handle_record(&record::encode(FrameKind::DpdRequest, &[0x5a; 1434]), now);
    }
    let answers: Vec<_> = std::iter::from_fn(|| path.poll_transmit()).collect();
    assert_eq!(answers, vec![record::encode(FrameKind::DpdResponse, &[0x5a; 1434]); MAX_ANSWERS]);
    for quiet in [&b""[..], b"\x00", b"\x05\xb0bye", b"\x07", b"\x09", b"\x4d"] {
        path.handle_record(quiet, now);
    }
    assert_eq!((path.poll_transmit(), path.state()), (None, State::Passing));
    path.handle_closed(now);
    path.handle_record(&answer(LARGEST.into()), now);
    assert_eq!((path.state(), path.mtu()), (State::Absent, None), "what is late says nothing");
}

/// Both ends' machines with a network that passes what it likes, second by second.
struct Ends {
    client: RecordPath,
    gateway: Datagrams,
    now: Instant,
}

impl Ends {
    /// Lets seconds pass in which each end sends a packet; `up` and `down` say what passes. An association comes about
    /// where both do.
    fn run(&mut self, seconds: u32, up: bool, down: bool) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.client.handle_timeout(self.now);
            self.gateway.handle_timeout(self.now);
            if self.client.poll_association() {
                self.begin(up && down);
            }
            if self.client.state() == State::Passing {
                self.client.handle_sent(self.now);
                if up {
                    self.gateway.handle_heard(self.now);
                }
            } else {
                self.gateway.handle_doubt();
            }
            if self.gateway.state() == datagrams::State::Passing && down {
                self.client.handle_heard();
            }
            for question in std::iter::from_fn(|| self.client.poll_transmit()).filter(|_| up) {
                self.gateway.handle_record(&question, self.now);
            }
            for answer in std::iter::from_fn(|| self.gateway.poll_transmit()).filter(|_| down) {
                self.client.handle_record(&answer, self.now);
            }
        }
    }

    fn begin(&mut self, passes: bool) {
        if passes {
            self.gateway.handle_established();
            self.client.handle_established(LARGEST, self.now);
        } else {
            self.client.handle_not_established(self.now);
        }
    }

    fn states(&self) -> (State, datagrams::State) {
        (self.client.state(), self.gateway.state())
    }
}

#[test]
fn both_ends_leave_a_way_that_is_blocked_in_either_direction_and_come_back() {
    const BOTH: (State, datagrams::State) = (State::Passing, datagrams::State::Passing);
    for (up, down) in [(false, false), (false, true), (true, false)] {
        let now = start();
        let (client, gateway) = (RecordPath::new(INTERVAL, now), Datagrams::new(INTERVAL / 2, now));
        let mut ends = Ends { client, gateway, now };
        ends.run(90, up, down);
        assert_eq!(ends.states(), (State::Absent, datagrams::State::Absent), "blocked from the start: {up} {down}");
        ends.run(60, true, true);
        assert_eq!((ends.states(), ends.gateway.path_mtu()), (BOTH, Some(LARGEST)));
        ends.run(30, up, down);
        assert_eq!(ends.client.state(), State::Unproven, "{up} {down}");
        assert!(up || ends.gateway.state() == datagrams::State::Waiting, "{up} {down}");
        ends.run(70, true, true);
        assert_eq!(ends.states(), BOTH, "{up} {down}");
    }
}
