//! Packets on their way from the workers to a connection.
//!
//! A connection seals and sends at its own pace, and workers never wait. So they leave whole batches here, under a lock
//! that is held for a moment only, and a task of the runtime hands them to the connection.
//!
//! A packet that waits keeps the whole chunk it was cut from (`packet_buffer::Arena`). A peer that does not let its
//! connection send makes this host hold at most 26 MiB for moments.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes that may wait: so many that a sender that is faster than its connection for a moment loses little, and so few
/// that other packets do not wait long behind them. `docs/benchmarks.md` has the figures.
const MOST: usize = 1024 * 1024;
/// What a datagram costs beside its bytes: its place here, and its allocation if it is small.
const OVERHEAD: usize = 128;
/// Places for datagrams whose memory is kept when nothing waits any more.
const PLACES: usize = 1024;

/// How long a slow path makes packets wait, and how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of packets that may wait although one has waited for [`Self::long`].
    pub(super) few: usize,
    /// How long a packet waits where the path is not slow.
    pub(super) long: Duration,
}

/// Packets, each as the connection sends it, that wait for their connection, oldest first.
pub(super) struct Outbox {
    bounds: Bounds,
    waiting: Mutex<Waiting>,
    filled: Notify,
    taken: Notify,
    /// The largest packet that fits a datagram as far as is known, in bytes.
    known_mtu: AtomicU16,
}

#[derive(Default)]
struct Waiting {
    datagrams: VecDeque<(Instant, Bytes)>,
    /// What they cost, in bytes.
    cost: usize,
    /// Nothing is taken for now, so it says nothing that they wait.
    is_held: bool,
}

impl Waiting {
    fn push(&mut self, now: Instant, datagram: Bytes) {
        self.cost += OVERHEAD + datagram.len();
        self.datagrams.push_back((now, datagram));
    }

    fn pop(&mut self) -> Option<Bytes> {
        let (_, datagram) = self.datagrams.pop_front()?;
        self.cost -= OVERHEAD + datagram.len();
        Some(datagram)
    }

    /// Drops the oldest of too many, and returns how many.
    fn make_room(&mut self, bounds: Bounds, now: Instant) -> usize {
        let mut dropped = 0;
        while self.is_over(bounds, now) && self.pop().is_some() {
            dropped += 1;
        }
        dropped
    }

    /// Whether the oldest must give way.
    fn is_over(&self, bounds: Bounds, now: Instant) -> bool {
        let waits_long = |(since, _): &(Instant, Bytes)| now.saturating_duration_since(*since) > bounds.long;
        let is_slow = self.cost > bounds.few && !self.is_held;
        self.cost > MOST || is_slow && self.datagrams.front().is_some_and(waits_long)
    }
}

impl Outbox {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (filled, taken) = (Notify::new(), Notify::new());
        Self { bounds, waiting: Mutex::default(), filled, taken, known_mtu: AtomicU16::new(0) }
    }

    /// Adds datagrams, and returns how many older ones gave way to them. Never waits for the connection.
    pub(super) fn put(&self, datagrams: impl Iterator<Item = Bytes>, now: Instant) -> usize {
        let mut waiting = self.lock();
        let was_empty = waiting.datagrams.is_empty();
        datagrams.for_each(|datagram| waiting.push(now, datagram));
        let dropped = waiting.make_room(self.bounds, now);
        drop(waiting);
        if was_empty {
            self.wake();
        }
        dropped
    }

    /// Drops what has waited too long, and returns how many.
    pub(super) fn expire(&self, now: Instant) -> usize {
        self.lock().make_room(self.bounds, now)
    }

    /// What is there waits for another connection, however long that takes.
    pub(super) fn hold(&self) {
        self.lock().is_held = true;
    }

    /// Another connection takes it from now on; what was held begins to wait now.
    pub(super) fn release(&self, now: Instant) {
        let mut waiting = self.lock();
        if std::mem::take(&mut waiting.is_held) {
            waiting.datagrams.iter_mut().for_each(|(since, _)| *since = now);
        }
    }

    /// Waits until there is something that was not there when nothing was. Cancel-safe.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Waits until some of it was taken since this last returned. Cancel-safe.
    pub(super) async fn taken(&self) {
        self.taken.notified().await;
    }

    /// Wakes whoever waits for it to be filled.
    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    /// The size of packets up to which the connection need not be asked, in bytes.
    pub(super) fn known_mtu(&self) -> u16 {
        self.known_mtu.load(Ordering::Relaxed)
    }

    /// Notes the size of packets that fit a datagram now.
    pub(super) fn set_known_mtu(&self, mtu: u16) {
        self.known_mtu.store(mtu, Ordering::Relaxed);
    }

    /// Moves the oldest, at most so many, to `portion`, which is empty.
    pub(super) fn take(&self, portion: &mut Vec<Bytes>, most: usize) {
        let mut waiting = self.lock();
        portion.extend(std::iter::from_fn(|| waiting.pop()).take(most));
        if waiting.datagrams.is_empty() && waiting.datagrams.capacity() > PLACES {
            waiting.datagrams.shrink_to(PLACES);
        }
        drop(waiting);
        if !portion.is_empty() {
            self.taken.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a datagram that costs a KiB.
    const LEN: usize = 1024 - OVERHEAD;
    const KIB: usize = 1024;
    const FEW: usize = 64 * KIB;
    const LONG: Duration = Duration::from_millis(20);
    const PORTION: usize = 32;

    fn outbox() -> Outbox {
        Outbox::new(Bounds { few: FEW, long: LONG })
    }

    #[test]
    fn what_is_held_for_another_connection_is_not_late() {
        let (outbox, start) = (Outbox::new(Bounds { few: 0, long: LONG }), Instant::now());
        let put = |at: Instant| outbox.put(std::iter::once(Bytes::from(vec![0; LEN])), at);
        assert_eq!((put(start), put(start + LONG * 2)), (0, 1), "the control");
        outbox.hold();
        let held = start + LONG * 9;
        assert_eq!((put(held), outbox.expire(held + LONG * 9)), (0, 0));
        let released = held + LONG * 10;
        outbox.release(released);
        assert_eq!((outbox.expire(released + LONG), outbox.expire(released + LONG * 2)), (0, 2));
    }

    fn put(outbox: &Outbox, datagrams: usize, now: Instant) -> usize {
        outbox.put((0..datagrams).map(|_| Bytes::from_static(&[0; LEN])), now)
    }

    /// How many wait, and what they cost.
    fn waiting(outbox: &Outbox) -> (usize, usize) {
        let waiting = outbox.lock();
        (waiting.datagrams.len(), waiting.cost)
    }

    #[test]
    fn fast_path_may_have_much_waiting_and_the_oldest_give_way_to_more() {
        let (outbox, now) = (outbox(), Instant::now());
        assert_eq!(put(&outbox, MOST / KIB, now), 0);
        let newest = Bytes::from_static(&[1; LEN]);
        assert_eq!(outbox.put(std::iter::once(newest.clone()), now), 1);
        assert_eq!(waiting(&outbox), (MOST / KIB, MOST));
        assert_eq!(outbox.lock().datagrams.back().map(|(_, last)| last), Some(&newest));
    }

    #[test]
    fn slow_path_has_little_waiting() {
        let (outbox, start) = (outbox(), Instant::now());
        let several = 4 * FEW / KIB;
        assert_eq!(put(&outbox, several, start), 0);
        assert_eq!(put(&outbox, 1, start + LONG), 0);
        let late = start + LONG + Duration::from_millis(1);
        assert_eq!(put(&outbox, 0, late), several + 1 - FEW / KIB);
        assert_eq!(waiting(&outbox), (FEW / KIB, FEW));
    }

    #[test]
    fn what_waits_for_a_connection_that_stands_still_is_dropped() {
        let (outbox, start) = (outbox(), Instant::now());
        put(&outbox, 4 * FEW / KIB, start);
        assert_eq!(outbox.expire(start + LONG), 0);
        assert_eq!(outbox.expire(start + 2 * LONG), 3 * FEW / KIB);
        assert_eq!(waiting(&outbox), (FEW / KIB, FEW));
    }

    #[test]
    fn portions_are_taken_in_order() {
        let (outbox, now, mut portion) = (outbox(), Instant::now(), Vec::new());
        let numbered = (0..=PORTION).map(|number| Bytes::from(vec![u8::try_from(number).unwrap()]));
        outbox.put(numbered, now);
        outbox.take(&mut portion, PORTION);
        assert!(portion.iter().map(|datagram| usize::from(datagram[0])).eq(0..PORTION));
        portion.clear();
        outbox.take(&mut portion, PORTION);
        assert_eq!(portion.len(), 1);
        assert_eq!(waiting(&outbox), (0, 0));
    }

    #[test]
    fn places_of_many_small_datagrams_are_given_back() {
        let (outbox, mut portion) = (outbox(), Vec::new());
        outbox.put((0..4 * PLACES).map(|_| Bytes::from_static(b"small")), Instant::now());
        while waiting(&outbox).0 > 0 {
            portion.clear();
            outbox.take(&mut portion, PORTION);
        }
        assert!(outbox.lock().datagrams.capacity() < 2 * PLACES);
    }
}
