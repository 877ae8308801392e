//! Frames on their way: each held until its time has come.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::impairment::{Fate, FrameDrop, Impairment};

/// Frames of one direction on their way; `F` is whatever a frame is to its owner.
#[derive(Debug)]
pub struct Passage<F> {
    impairment: Impairment,
    held: BinaryHeap<Held<F>>,
    capacity: usize,
    accepted: u64,
    counts: Counts,
}

/// What became of the frames of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Frames that arrived.
    pub arrived: u64,
    /// Frames that went on, each once.
    pub delivered: u64,
    /// Frames the queue before the bottleneck had no room for.
    pub queue_full: u64,
    /// Frames the medium lost.
    pub lost: u64,
    /// Frames that went on twice.
    pub doubled: u64,
    /// Frames that were damaged.
    pub damaged: u64,
    /// Frames that were held back so that others may overtake them.
    pub held_back: u64,
    /// Frames that nobody decided to drop: there were too many to hold, or to read in time.
    pub overrun: u64,
}

/// A frame whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<F> {
    /// The frame.
    pub frame: F,
    /// Whether it is to be sent twice.
    pub doubled: bool,
    /// The number of a bit to flip, counted from the frame's first.
    pub damaged_bit: Option<usize>,
}

impl<F> Passage<F> {
    /// A passage that holds at most `capacity` frames and drops what comes beyond (drop newest).
    pub fn new(impairment: Impairment, capacity: usize) -> Self {
        Self { impairment, held: BinaryHeap::new(), capacity, accepted: 0, counts: Counts::default() }
    }

    /// Takes a frame of `bytes` that arrives at `now`; gives back one that goes no further.
    pub fn handle(&mut self, now: Duration, frame: F, bytes: usize) -> Option<F> {
        self.counts.arrived += 1;
        let (at, doubled, damaged_bit, held_back) = match self.impairment.handle(now, bytes) {
            Fate::Deliver { at, doubled, damaged_bit, held_back } => (at, doubled, damaged_bit, held_back),
            Fate::Drop(reason) => {
                match reason {
                    FrameDrop::QueueFull => self.counts.queue_full += 1,
                    FrameDrop::Lost => self.counts.lost += 1,
                }
                return Some(frame);
            }
        };
        if self.held.len() >= self.capacity {
            self.counts.overrun += 1;
            return Some(frame);
        }
        self.counts.doubled += u64::from(doubled);
        self.counts.damaged += u64::from(damaged_bit.is_some());
        self.counts.held_back += u64::from(held_back);
        self.accepted += 1;
        self.held.push(Held { at, number: self.accepted, delivery: Delivery { frame, doubled, damaged_bit } });
        None
    }

    /// The next frame whose time has come at `now`.
    pub fn poll(&mut self, now: Duration) -> Option<Delivery<F>> {
        if self.poll_timeout()? > now {
            return None;
        }
        self.counts.delivered += 1;
        self.held.pop().map(|held| held.delivery)
    }

    /// When the next frame's time will have come; `None` while there is none.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.held.peek().map(|held| held.at)
    }

    /// What became of the frames so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[derive(Debug)]
struct Held<F> {
    at: Duration,
    number: u64,
    delivery: Delivery<F>,
}

impl<F> Ord for Held<F> {
    /// The one to be delivered first is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<F> PartialOrd for Held<F> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<F> PartialEq for Held<F> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<F> Eq for Held<F> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{JitterDistribution, Link, LinkDirection, Profile};

    fn passage(link: Link, seed: u64, capacity: usize) -> Passage<u32> {
        let profile = Profile { name: "test".into(), description: String::new(), up: link.clone(), down: link };
        Passage::new(Impairment::new(&profile, LinkDirection::Up, seed), capacity)
    }

    /// What went on, and when, of frames that arrived so many microseconds after one another with so many bytes.
    fn carry(passage: &mut Passage<u32>, arrivals: &[(u64, usize)]) -> Vec<(Duration, u32)> {
        let (mut now, mut out) = (Duration::ZERO, Vec::new());
        for (number, (gap, bytes)) in (0..).zip(arrivals) {
            now += Duration::from_micros(*gap);
            drain(passage, now, &mut out);
            let _given_back = passage.handle(now, number, *bytes);
        }
        drain(passage, Duration::MAX, &mut out);
        out
    }

    /// Looks whenever the passage asks for it, until `limit`.
    fn drain(passage: &mut Passage<u32>, limit: Duration, out: &mut Vec<(Duration, u32)>) {
        while let Some(due) = passage.poll_timeout().filter(|due| *due <= limit) {
            assert_eq!(passage.poll(due.saturating_sub(Duration::from_nanos(1))), None, "nothing comes early");
            out.push((due, passage.poll(due).unwrap().frame));
        }
    }

    prop_compose! {
        fn links()(
            delay_ms in 0.0..20.0_f64,
            jitter_ms in 0.0..20.0_f64,
            normal in any::<bool>(),
            jitter_correlation_percent in 0.0..99.0_f64,
            loss_percent in 0.0..60.0_f64,
            loss_burst_packets in prop::option::of(2.0..10.0_f64),
            duplicate_percent in 0.0..50.0_f64,
            rate_mbit in prop::option::of(0.1..1_000.0_f64),
        ) -> Link {
            let jitter_distribution = if normal { JitterDistribution::Normal } else { JitterDistribution::Uniform };
            Link {
                delay_ms, jitter_ms, jitter_distribution, jitter_correlation_percent, loss_percent, loss_burst_packets,
                duplicate_percent, rate_mbit, queue_ms: rate_mbit.map(|_| 50.0), ..Link::default()
            }
        }
    }

    proptest! {
        #[test]
        fn every_frame_is_delivered_or_dropped_by_decision_in_order_and_never_early(
            link in links(),
            seed in any::<u64>(),
            arrivals in prop::collection::vec((0..5_000_u64, 60..1_514_usize), 1..300),
        ) {
            let mut passage = passage(link.clone(), seed, usize::MAX);
            let delivered = carry(&mut passage, &arrivals);
            let counts = passage.counts();
            prop_assert_eq!(counts.arrived, u64::try_from(arrivals.len()).unwrap());
            prop_assert_eq!(counts.delivered, u64::try_from(delivered.len()).unwrap());
            prop_assert_eq!(counts.arrived, counts.delivered + counts.lost + counts.queue_full);
            prop_assert!(delivered.windows(2).all(|pair| pair[0].1 < pair[1].1), "order is kept");
            prop_assert!(delivered.is_sorted_by_key(|(at, _)| *at));
            let arrived: Vec<u64> = arrivals.iter().scan(0, |now, (gap, _)| { *now += gap; Some(*now) }).collect();
            for (at, number) in delivered {
                let delay = at - Duration::from_micros(arrived[usize::try_from(number).unwrap()]);
                prop_assert!(delay >= Duration::from_secs_f64(link.delay_ms / 1e3), "{delay:?} of {}", link.delay_ms);
            }
        }

        #[test]
        fn same_seed_and_frames_meet_the_same_fate(
            link in links(),
            seed in any::<u64>(),
            arrivals in prop::collection::vec((0..5_000_u64, 60..1_514_usize), 1..100),
        ) {
            let link = Link { reorder_percent: 20.0, reorder_ms: 3.0, corrupt_percent: 5.0, ..link };
            let run = || {
                let mut passage = passage(link.clone(), seed, usize::MAX);
                (carry(&mut passage, &arrivals), passage.counts())
            };
            prop_assert_eq!(run(), run());
        }

        #[test]
        fn nothing_is_lost_by_reordering(
            share in 1.0..100.0_f64,
            seed in any::<u64>(),
            arrivals in prop::collection::vec((0..5_000_u64, 60..1_514_usize), 1..300),
        ) {
            let link = Link { reorder_percent: share, reorder_ms: 7.0, delay_ms: 3.0, ..Link::default() };
            let delivered = carry(&mut passage(link, seed, usize::MAX), &arrivals);
            let mut seen: Vec<u32> = delivered.into_iter().map(|(_, number)| number).collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..u32::try_from(arrivals.len()).unwrap()));
        }
    }

    #[test]
    fn what_cannot_be_held_is_given_back_and_counted() {
        let mut passage = passage(Link { delay_ms: 1.0, ..Link::default() }, 1, 2);
        let given_back: Vec<_> = (0..3).map(|number| passage.handle(Duration::ZERO, number, 100)).collect();
        assert_eq!(given_back, [None, None, Some(2)]);
        assert_eq!(passage.counts(), Counts { arrived: 3, overrun: 1, ..Counts::default() });
    }
}
