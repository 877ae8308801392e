//! When a certificate is ordered, and when its authority is asked about that: a machine under the time it is told.
//!
//! An authority may say when it wants a certificate renewed (RFC 9773): in a window, of which a random point is taken,
//! so that not all of its customers come at once. It is asked again and again, since it may change its mind, as when it
//! has to revoke. Where it says nothing, two thirds of a certificate's life are used.
//!
//! Dates are by the host's clock, as certificates have them, which may be set at any time; pauses are not.

use std::time::{Duration, Instant, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How often the authority is asked about its wish, unless it says how often.
const ASK_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Bounds of what it may say (RFC 9773 section 4.3.2).
const SOONEST_ASK: Duration = Duration::from_secs(60);
const LATEST_ASK: Duration = DAY;
/// When it is asked again after it could not be asked.
const ASK_AGAIN: Duration = Duration::from_secs(3600);
/// The pause after an order that failed, and the longest after many in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = DAY;
/// How long a certificate is used at least, unless that is more than a tenth of its life.
const LEAST_USE: Duration = Duration::from_secs(3600);
/// How far the clock may lie before the beginning of a certificate that was issued to this host.
const BEFORE_BEGIN: Duration = DAY;

/// From when and until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its first moment.
    pub begins: SystemTime,
    /// Its last one.
    pub ends: SystemTime,
}

impl Life {
    /// The moment at which such a part of its life is over.
    fn after(&self, parts: u32, of: u32) -> SystemTime {
        let whole = self.ends.duration_since(self.begins).unwrap_or_default();
        self.begins + whole / of * parts
    }

    /// Whether less than a third of it is left.
    #[must_use]
    pub fn is_nearly_over(&self, clock: SystemTime) -> bool {
        clock >= self.after(2, 3)
    }
}

/// When an authority wants a certificate renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Not before.
    pub begins: SystemTime,
    /// Not after.
    pub ends: SystemTime,
}

/// What an authority says about its wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// This window; it is to be asked again after this time, if it says so.
    Window(Window, Option<Duration>),
    /// It does not say such things.
    None,
    /// It could not be asked.
    Unheard,
}

/// How long an authority is left alone after orders that failed, by the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Orders that failed in a row.
    pub failures: u32,
    /// When the last one did.
    pub begins: SystemTime,
    /// Before when none is tried again.
    pub ends: SystemTime,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Ask the authority when it wants the certificate renewed.
    Ask,
    /// Order a certificate.
    Order,
}

/// When the certificate of one name is ordered.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Of the certificate there is.
    life: Option<Life>,
    /// The window that the authority named last, and the point of it that was taken.
    wish: Option<(Window, SystemTime)>,
    /// When it is asked next.
    ask_at: Option<Instant>,
    /// Orders that failed in a row.
    failures: u32,
    /// Before when none is tried again.
    retry_at: Option<Instant>,
}

impl Schedule {
    /// For a name with a certificate that lives so long, or without one.
    #[must_use]
    pub fn new(life: Option<Life>) -> Self {
        Self { life, wish: None, ask_at: None, failures: 0, retry_at: None }
    }

    /// There is a new certificate. If it is nearly over already, the clock is wrong, or the authority: no other is
    /// ordered sooner than after a failure. One that is to be renewed at once waits for a while, too.
    pub fn handle_certificate(&mut self, life: Life, random: u32, now: Instant, clock: SystemTime) {
        let failures = if life.is_nearly_over(clock) { self.failures } else { 0 };
        *self = Self { failures, ..Self::new(Some(life)) };
        if life.is_nearly_over(clock) {
            self.handle_failure(None, random, now);
        } else {
            let length = life.ends.duration_since(life.begins).unwrap_or_default();
            self.retry_at = Some(now + LEAST_USE.min(length / 10));
        }
    }

    /// There is another certificate now than this was made for, or none: somebody has replaced or removed it. After
    /// failures the authority is left alone as long as before.
    pub fn handle_found(&mut self, life: Option<Life>) {
        let retry_at = self.retry_at.filter(|_| self.failures > 0);
        *self = Self { failures: self.failures, retry_at, ..Self::new(life) };
    }

    /// What has to outlive the process, if anything.
    #[must_use]
    pub fn backoff(&self, now: Instant, clock: SystemTime) -> Option<Backoff> {
        let pause = self.retry_at.filter(|_| self.failures > 0)?.saturating_duration_since(now);
        Some(Backoff { failures: self.failures, begins: clock, ends: clock + pause })
    }

    /// Goes on with what outlived a process. A clock that was set back since then, or was far ahead, lengthens no pause
    /// beyond what it was, and none beyond the longest.
    pub fn resume(&mut self, kept: Backoff, now: Instant, clock: SystemTime) {
        let left = kept.ends.duration_since(clock.max(kept.begins)).unwrap_or_default();
        self.failures = kept.failures;
        self.retry_at = Some(now + left.min(LONGEST_PAUSE));
    }

    /// The authority has said its wish. A window that is named again keeps its point. `random` chooses that.
    pub fn handle_wish(&mut self, wish: Wish, random: u32, now: Instant) {
        let pause = match wish {
            Wish::Window(window, again) if window.begins < window.ends => {
                if self.wish.is_none_or(|(known, _)| known != window) {
                    let length = window.ends.duration_since(window.begins).unwrap_or_default();
                    self.wish = Some((window, window.begins + part(length, random)));
                }
                again.unwrap_or(ASK_EVERY).clamp(SOONEST_ASK, LATEST_ASK)
            }
            Wish::Window(..) | Wish::Unheard => ASK_AGAIN,
            Wish::None => {
                self.wish = None;
                DAY
            }
        };
        self.ask_at = Some(now + pause);
    }

    /// An order has failed; the next one waits, at least for as long as the authority wants. Each failure doubles the
    /// pause, and `random` takes up to a quarter of it away.
    pub fn handle_failure(&mut self, least: Option<Duration>, random: u32, now: Instant) -> Duration {
        let doubled = 2_u32.checked_pow(self.failures).map_or(LONGEST_PAUSE, |times| FIRST_PAUSE * times);
        let longest = doubled.min(LONGEST_PAUSE);
        let pause = (longest - part(longest / 4, random)).max(FIRST_PAUSE).max(least.unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + pause);
        pause
    }

    /// What is to be done now.
    #[must_use]
    pub fn next_step(&self, now: Instant, clock: SystemTime) -> Step {
        let may_order = self.retry_at.is_none_or(|at| now >= at);
        let Some(due) = self.renews_at() else { return if may_order { Step::Order } else { Step::Wait } };
        if self.is_clock_behind(clock) {
            return Step::Wait;
        }
        // First, or a gateway that starts late would not know that it is to be earlier.
        if self.ask_at.is_none_or(|at| now >= at) {
            return Step::Ask;
        }
        if clock >= due && may_order { Step::Order } else { Step::Wait }
    }

    /// When the certificate is renewed, if there is one: at the point that was taken, but early enough to try again and
    /// again before its end, and within its life, whatever date an authority writes.
    #[must_use]
    pub fn renews_at(&self) -> Option<SystemTime> {
        let life = self.life?;
        let wished = self.wish.map(|(_, point)| point.clamp(life.begins, life.after(5, 6)));
        Some(wished.unwrap_or_else(|| life.after(2, 3)))
    }

    /// Whether an administrator should know: there is no certificate and none could be had, or less than a third of its
    /// life is left and it could not be renewed.
    #[must_use]
    pub fn is_alarming(&self, clock: SystemTime) -> bool {
        self.failures > 0 && self.life.is_none_or(|life| life.is_nearly_over(clock))
    }

    /// Whether the host's clock must be wrong: it was later already when the certificate was issued.
    #[must_use]
    pub fn is_clock_behind(&self, clock: SystemTime) -> bool {
        self.life.is_some_and(|life| life.begins.duration_since(clock).is_ok_and(|early| early > BEFORE_BEGIN))
    }
}

/// A part of a length of time: nothing for 0, nearly all for the largest number.
fn part(length: Duration, random: u32) -> Duration {
    length.mul_f64(f64::from(random) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests;
