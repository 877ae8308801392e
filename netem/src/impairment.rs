//! What becomes of each frame of one direction.

use std::time::Duration;

use super::bursts::Bursts;
use super::jitter::Jitter;
use super::profile::{Link, Profile};
use super::random::Random;

/// Bytes at the beginning of a frame that are never damaged: the Ethernet header, without which it goes nowhere at all.
const ETHERNET_HEADER: usize = 14;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Which way frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkDirection {
    /// From the client to the gateway.
    Up,
    /// From the gateway to the client.
    Down,
}

impl LinkDirection {
    /// Its name in profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Why a frame goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameDrop {
    /// The queue before the bottleneck was full.
    QueueFull,
    /// The medium lost it.
    Lost,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes no further.
    Drop(FrameDrop),
    /// It is delivered.
    Deliver {
        /// When: time since the beginning.
        at: Duration,
        /// Whether a second one like it follows at once.
        doubled: bool,
        /// The number of a bit that is flipped on the way, counted from the frame's first.
        damaged_bit: Option<usize>,
        /// Whether frames that came later may overtake it.
        held_back: bool,
    },
}

/// Decides for the frames of one direction, one after the other; the same for the same seed and the same frames.
#[derive(Debug, Clone)]
pub struct Impairment {
    bottleneck: Option<Bottleneck>,
    delay: Duration,
    held_back_for: Duration,
    reorder_share: f64,
    duplicate_share: f64,
    corrupt_share: f64,
    loss: Bursts,
    jitter: Jitter,
    reorder: Random,
    duplicate: Random,
    corrupt: Random,
    /// Delivery of the latest frame that keeps its place.
    latest: Duration,
}

impl Impairment {
    /// The impairment of one direction of `profile`; both directions of a seed have nothing in common.
    pub fn new(profile: &Profile, direction: LinkDirection, seed: u64) -> Self {
        let link = match direction {
            LinkDirection::Up => &profile.up,
            LinkDirection::Down => &profile.down,
        };
        let random = |question: &str| Random::new(seed, &format!("{} {question}", direction.name()));
        let loss = Bursts::new(random("loss"), link.loss_percent / 100.0, link.loss_burst_packets);
        let correlation = link.jitter_correlation_percent / 100.0;
        Self {
            bottleneck: Bottleneck::of(link),
            delay: milliseconds(link.delay_ms),
            held_back_for: milliseconds(link.reorder_ms),
            reorder_share: link.reorder_percent / 100.0,
            duplicate_share: link.duplicate_percent / 100.0,
            corrupt_share: link.corrupt_percent / 100.0,
            loss,
            jitter: Jitter::new(random("jitter"), link.jitter_distribution, milliseconds(link.jitter_ms), correlation),
            reorder: random("reorder"),
            duplicate: random("duplicate"),
            corrupt: random("corrupt"),
            latest: Duration::ZERO,
        }
    }

    /// Decides about a frame of `bytes`, Ethernet header included, that arrives at `now`; `now` never goes back.
    pub fn handle(&mut self, now: Duration, bytes: usize) -> Fate {
        // Everything is drawn for every frame, so that one frame's fate does not shift the next one's.
        let lost = self.loss.next();
        let jitter = self.jitter.next();
        let held_back = self.reorder.chance(self.reorder_share);
        let doubled = self.duplicate.chance(self.duplicate_share);
        let (corrupted, place) = (self.corrupt.chance(self.corrupt_share), self.corrupt.unit());
        let sent = match &mut self.bottleneck {
            None => Some(now),
            Some(bottleneck) => bottleneck.handle(now, bytes),
        };
        let Some(sent) = sent else { return Fate::Drop(FrameDrop::QueueFull) };
        if lost {
            return Fate::Drop(FrameDrop::Lost);
        }
        let in_order = (sent + self.delay + jitter).max(self.latest);
        let at = if held_back { in_order + self.held_back_for } else { in_order };
        if !held_back {
            self.latest = at;
        }
        let damaged_bit = if corrupted { damaged_bit(place, bytes) } else { None };
        Fate::Deliver { at, doubled, damaged_bit, held_back }
    }
}

fn damaged_bit(place: f64, bytes: usize) -> Option<usize> {
    let bits = bytes.checked_sub(ETHERNET_HEADER)? * 8;
    #[expect(clippy::cast_precision_loss, reason = "a frame has fewer than 2^52 bits")]
    let chosen = place * bits as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a frame")]
    let chosen = chosen as usize;
    (chosen < bits).then_some(ETHERNET_HEADER * 8 + chosen)
}

fn milliseconds(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

/// A transmitter of limited rate, and the queue before it, which drops what does not fit (drop newest).
#[derive(Debug, Clone)]
struct Bottleneck {
    bits_per_second: u64,
    /// Time the transmitter needs for a full queue.
    queue: Duration,
    /// When it will have sent all it accepted.
    free_at: Duration,
}

impl Bottleneck {
    fn of(link: &Link) -> Option<Self> {
        let rate = link.rate_mbit? * 1e6;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "profiles have sane rates")]
        let bits_per_second = (rate.round() as u64).max(1);
        let mut bottleneck = Self { bits_per_second, queue: Duration::ZERO, free_at: Duration::ZERO };
        bottleneck.queue = match link.queue_kib {
            Some(kibibytes) => Duration::from_secs_f64(kibibytes * 1_024.0 * 8.0 / rate),
            None => milliseconds(link.queue_ms.unwrap_or_default()),
        };
        Some(bottleneck)
    }

    /// The time at which a frame has been sent; `None` where the queue has no room for it. An idle transmitter takes
    /// any.
    fn handle(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        let transmission = self.transmission(bytes);
        let backlog = self.free_at.saturating_sub(now);
        if !backlog.is_zero() && backlog + transmission > self.queue {
            return None;
        }
        self.free_at = self.free_at.max(now) + transmission;
        Some(self.free_at)
    }

    fn transmission(&self, bytes: usize) -> Duration {
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8);
        // Rounded up: never faster than the rate.
        Duration::from_nanos(bits.saturating_mul(NANOSECONDS_PER_SECOND).div_ceil(self.bits_per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> Profile {
        Profile::parse("test.toml", text).unwrap()
    }

    fn up(text: &str) -> Impairment {
        Impairment::new(&profile(text), LinkDirection::Up, 1)
    }

    const MS: Duration = Duration::from_millis(1);

    fn at(fate: Fate) -> Option<Duration> {
        match fate {
            Fate::Deliver { at, .. } => Some(at),
            Fate::Drop(_) => None,
        }
    }

    #[test]
    fn clean_link_delivers_at_once() {
        let mut link = up("");
        let expected = Fate::Deliver { at: 3 * MS, doubled: false, damaged_bit: None, held_back: false };
        assert_eq!(link.handle(3 * MS, 1_514), expected);
    }

    #[test]
    fn bottleneck_sends_one_frame_after_the_other_and_drops_what_does_not_fit() {
        // 1,000 bytes take 1 ms; the queue holds 3 ms, the frame that is being sent included.
        let mut link = up("rate_mbit = 8\nqueue_ms = 3\ndelay_ms = 10");
        let due: Vec<_> = (0..4).map(|_| at(link.handle(MS, 1_000))).collect();
        assert_eq!(due, [Some(12 * MS), Some(13 * MS), Some(14 * MS), None]);
        assert_eq!(at(link.handle(2 * MS, 1_000)), Some(15 * MS));
        // An idle transmitter takes even what its queue could not hold.
        assert_eq!(at(link.handle(100 * MS, 9_000)), Some(119 * MS));
    }

    #[test]
    fn queue_in_bytes_is_that_many_bytes() {
        let mut link = up("rate_mbit = 8\nqueue_kib = 10");
        let accepted = (0..100).filter(|_| at(link.handle(MS, 1_024)).is_some()).count();
        assert_eq!(accepted, 10);
    }

    #[test]
    fn lost_frames_use_the_rate_all_the_same() {
        let mut link = up("rate_mbit = 8\nqueue_ms = 10000\nloss_percent = 50");
        let last = (0..1_000).filter_map(|_| at(link.handle(Duration::ZERO, 1_000))).last().unwrap();
        assert!(last > 900 * MS, "{last:?}");
    }

    #[test]
    fn held_back_frame_is_overtaken_and_nothing_else_is() {
        let mut link = up("delay_ms = 5\nreorder_percent = 20\nreorder_ms = 4");
        let mut held = 0;
        for number in 0..1_000 {
            let now = MS * number;
            let Fate::Deliver { at, held_back, .. } = link.handle(now, 100) else { panic!("nothing is lost") };
            held += u32::from(held_back);
            assert_eq!(at - now, if held_back { 9 * MS } else { 5 * MS });
        }
        assert!((150..250).contains(&held), "{held}");
    }

    #[test]
    fn directions_and_seeds_have_nothing_in_common_and_a_seed_always_the_same() {
        let profile = profile("loss_percent = 30\njitter_ms = 5\nreorder_percent = 10\nreorder_ms = 1");
        let fates = |direction, seed| {
            let mut link = Impairment::new(&profile, direction, seed);
            (0..500).map(|number| link.handle(MS * number, 1_000)).collect::<Vec<_>>()
        };
        assert_eq!(fates(LinkDirection::Up, 1), fates(LinkDirection::Up, 1));
        assert_ne!(fates(LinkDirection::Up, 1), fates(LinkDirection::Down, 1));
        assert_ne!(fates(LinkDirection::Up, 1), fates(LinkDirection::Up, 2));
    }

    #[test]
    fn what_is_lost_depends_on_nothing_but_the_seed() {
        let lost = |text: &str, step: Duration| {
            let mut link = up(text);
            let lost = |number: &u32| link.handle(step * *number, 1_000) == Fate::Drop(FrameDrop::Lost);
            (0..2_000).filter(lost).collect::<Vec<u32>>()
        };
        let alone = lost("loss_percent = 5\nloss_burst_packets = 3", MS);
        assert_eq!(alone, lost("loss_percent = 5\nloss_burst_packets = 3\njitter_ms = 9\ndelay_ms = 1", 2 * MS));
    }

    #[test]
    fn damage_hits_bits_behind_the_ethernet_header() {
        let mut link = up("corrupt_percent = 100");
        for _ in 0..1_000 {
            let Fate::Deliver { damaged_bit: Some(bit), .. } = link.handle(MS, 20) else { panic!("all are damaged") };
            assert!((14 * 8..20 * 8).contains(&bit), "{bit}");
        }
        assert!(matches!(link.handle(MS, 14), Fate::Deliver { damaged_bit: None, .. }));
    }

    #[test]
    fn doubled_frames_are_as_many_as_wanted() {
        let mut link = up("duplicate_percent = 10");
        let doubled = (0..10_000).filter(|_| matches!(link.handle(MS, 20), Fate::Deliver { doubled: true, .. }));
        assert!((900..1_100).contains(&doubled.count()));
    }
}
