//! How much users have moved of their quotas.
//!
//! The traffic of a session is counted anyway; once a second it is looked at for users with a quota. So nothing is
//! counted twice, and a quota is overrun by what passes in a second at most. A restart of the gateway begins with
//! nothing moved.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_proto::policy::{Period, Quota, QuotaAction, Rate};
use jiff::civil::Date;

use super::grant::SessionLimits;
use super::sessions::Session;

/// What users have moved in the present period.
#[derive(Default)]
pub struct Quotas(Mutex<Book>);

#[derive(Default)]
struct Book {
    today: Date,
    users: HashMap<String, Usage>,
    /// By session, how many of its bytes are in there.
    counted: HashMap<u64, u64>,
}

/// What one user has moved.
#[derive(Default)]
struct Usage {
    /// The first day of the period.
    since: Date,
    bytes: u64,
    /// The log says that it is used up.
    is_told: bool,
}

impl Quotas {
    /// Counts what these, which are all sessions, have moved by now, and does to each what its quota says. `today` is
    /// the date here.
    pub fn count(&self, sessions: &[Arc<Session>], today: Date) {
        let mut book = self.book();
        let book = &mut *book;
        book.today = today;
        let mut counted = HashMap::new();
        for session in sessions {
            let terms = session.grant().terms;
            let Some(quota) = terms.limits.quota else { continue };
            counted.insert(session.id, book.add(session, quota));
        }
        book.counted = counted;
        for session in sessions {
            let terms = session.grant().terms;
            if let Some((quota, usage)) = terms.limits.quota.zip(book.users.get_mut(&session.device.user)) {
                usage.apply(session, &terms.limits, quota);
            }
        }
        // Nobody's period is longer than a month.
        book.users.retain(|_, usage| {
            usage.since >= first_day(Period::Month, today) || usage.since >= first_day(Period::Week, today)
        });
    }

    /// Counts what a session has moved that is over.
    pub fn close(&self, session: &Session) {
        if let Some(quota) = session.grant().terms.limits.quota {
            let mut book = self.book();
            book.add(session, quota);
            book.counted.remove(&session.id);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Adds what a session has moved since the last time, and returns how much it has moved in all.
    fn add(&mut self, session: &Session, quota: Quota) -> u64 {
        let moved = session.carriers.counters().bytes();
        let before = self.counted.get(&session.id).copied().unwrap_or_default();
        let usage = self.users.entry(session.device.user.clone()).or_default();
        let since = first_day(quota.period, self.today);
        if usage.since != since {
            *usage = Usage { since, ..Usage::default() };
        }
        usage.bytes = usage.bytes.saturating_add(moved.saturating_sub(before));
        moved
    }
}

impl Usage {
    fn apply(&mut self, session: &Session, limits: &SessionLimits, quota: Quota) {
        let used_up = self.bytes >= quota.bytes;
        if used_up && !self.is_told {
            tracing::info!(session = session.id, action = ?limits.quota_action, "a user has used up the quota");
        }
        self.is_told = used_up;
        let Some(meter) = &session.meter else { return };
        match limits.quota_action {
            QuotaAction::Block => meter.set_blocked(used_up),
            QuotaAction::Slow(rate) if used_up => {
                meter.set_rates(Some(slower(rate, limits.rate_up)), Some(slower(rate, limits.rate_down)));
            }
            QuotaAction::Slow(_) => meter.set_rates(limits.rate_up, limits.rate_down),
            QuotaAction::Notify => {}
        }
    }
}

fn slower(rate: Rate, other: Option<Rate>) -> Rate {
    other.filter(|other| other.bits_per_second() < rate.bits_per_second()).unwrap_or(rate)
}

/// The first day of the period that a day is in.
fn first_day(period: Period, day: Date) -> Date {
    match period {
        Period::Day => day,
        Period::Week => {
            let back = i64::from(day.weekday().to_monday_zero_offset());
            // The calendar's first days have none before.
            day.checked_sub(jiff::Span::new().days(back)).unwrap_or(day)
        }
        Period::Month => day.first_of_month(),
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::drop_reason::DropReason;
    use jiff::civil::date;

    use super::super::grant::Terms;
    use super::super::tests::{session_on, terms};
    use super::*;

    /// A session of the user whose name its device bears.
    fn session(of: &str, action: QuotaAction) -> Arc<Session> {
        let terms = terms("0.0.0.0/0");
        let quota = "1 MB/week".parse().ok();
        let limits = SessionLimits { quota, quota_action: action, ..terms.limits.clone() };
        session_on(of, Terms { limits, ..terms })
    }

    fn moves(session: &Session, bytes: u64) {
        session.carriers.counters().count_rx(1, bytes / 2);
        session.carriers.counters().count_tx(1, bytes - bytes / 2);
    }

    fn state(session: &Session) -> Result<(), DropReason> {
        session.meter.as_ref().map_or(Ok(()), |meter| meter.admit_up(1))
    }

    #[test]
    fn periods_begin_at_midnight_on_monday_and_on_the_first() {
        let day = date(2026, 12, 2);
        assert_eq!(first_day(Period::Day, day), day);
        assert_eq!(first_day(Period::Week, day), date(2026, 11, 30));
        assert_eq!(first_day(Period::Month, day), date(2026, 12, 1));
    }

    #[test]
    fn user_who_has_used_up_the_quota_is_blocked_until_the_period_is_over() {
        let (quotas, monday) = (Quotas::default(), date(2026, 11, 30));
        let session = session("alice", QuotaAction::Block);
        let count = |day| quotas.count(&[Arc::clone(&session)], day);
        moves(&session, 999_999);
        count(monday);
        count(monday);
        assert_eq!(state(&session), Ok(()), "nothing counts twice");
        moves(&session, 1);
        count(date(2026, 12, 6));
        assert_eq!(state(&session), Err(DropReason::QuotaUsedUp));
        count(date(2026, 12, 7));
        assert_eq!(state(&session), Ok(()));
    }

    #[test]
    fn sessions_of_a_user_count_together_also_those_that_are_over() {
        let (quotas, today) = (Quotas::default(), date(2026, 11, 30));
        let (first, second) = (session("alice", QuotaAction::Block), session("alice", QuotaAction::Block));
        let other = session("bob", QuotaAction::Block);
        quotas.count(&[Arc::clone(&first), Arc::clone(&other)], today);
        moves(&first, 600_000);
        quotas.close(&first);
        moves(&second, 400_000);
        moves(&other, 400_000);
        quotas.count(&[Arc::clone(&second), Arc::clone(&other)], today);
        assert_eq!((state(&second), state(&other)), (Err(DropReason::QuotaUsedUp), Ok(())));
    }

    #[test]
    fn who_has_used_up_a_quota_may_go_on_slowly_or_as_before() {
        let (quotas, today) = (Quotas::default(), date(2026, 11, 30));
        let slow = session("alice", QuotaAction::Slow("8 kbit/s".parse().unwrap()));
        let told = session("bob", QuotaAction::Notify);
        for session in [&slow, &told] {
            moves(session, 1_000_000);
        }
        quotas.count(&[Arc::clone(&slow), Arc::clone(&told)], today);
        for session in [&slow, &told] {
            let meter = session.meter.as_ref().unwrap();
            assert_eq!(meter.admit_up(64_000), Ok(()));
        }
        assert_eq!((state(&slow), state(&told)), (Err(DropReason::RateExceeded), Ok(())));
    }

    #[test]
    fn session_without_limits_has_no_meter() {
        assert!(session_on("alice", terms("0.0.0.0/0")).meter.is_none());
    }
}
