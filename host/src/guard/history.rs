//! What each guard found so far, and how often it had to mend.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use adit_program::causes::with_causes;
use serde::{Deserialize, Serialize};

use crate::error::HostError;

/// A setting that had to be put back more often than this within [`FIGHT`] is fought over.
const MOST_MENDS: usize = 10;
/// How far back mends count for a fight.
const FIGHT: Duration = Duration::from_secs(60);
/// First pause after a mend of a setting that is fought over; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause, so that even then the setting is soon back.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(1250);
/// How long a mended setting is reported.
const REPORTED: Duration = Duration::from_secs(600);

/// How a guard stands that had something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    /// The setting was changed by another program, and is as it should be again.
    Mended,
    /// The setting is not as it should be, or does not stay so.
    Broken,
}

/// What a guard has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardReport {
    /// The setting, without addresses: `IPv4 rule 5300`.
    pub guard: String,
    /// Whether it holds.
    pub state: GuardState,
    /// What happened to it, in words.
    pub reason: String,
    /// How often it was put back.
    pub times: u32,
}

/// What a look at a setting found.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is as it was set.
    Right,
    /// It is not: what happened to it, such as "was removed".
    Wrong(String),
    /// The host does not say, for this reason.
    Unknown(String),
}

impl Found {
    /// A look that failed.
    pub(crate) fn unknown(error: &HostError) -> Self {
        Self::Unknown(with_causes(error))
    }
}

/// The guards that had something to do, by name.
#[derive(Debug, Default)]
pub(crate) struct History {
    records: BTreeMap<String, Record>,
}

#[derive(Debug)]
struct Record {
    what: String,
    /// Why it does not hold now; it counts only while the setting is looked at.
    failure: Option<String>,
    looked_at: bool,
    times: u32,
    /// The last mends, at most one more than [`MOST_MENDS`].
    mends: VecDeque<Instant>,
    pause: Duration,
    due: Instant,
    last: Instant,
}

impl History {
    /// Begins a round of looks.
    pub(crate) fn begin(&mut self) {
        for record in self.records.values_mut() {
            record.looked_at = false;
        }
    }

    /// Notes what a look found; returns whether it is to be mended now.
    pub(crate) fn must_mend(&mut self, guard: &str, found: Found, now: Instant) -> bool {
        match found {
            Found::Right => {
                if let Some(record) = self.records.get_mut(guard) {
                    record.looked_at = true;
                    record.failure = None;
                }
                false
            }
            Found::Wrong(what) => {
                let record = self.record(guard, now);
                record.what = what;
                now >= record.due
            }
            Found::Unknown(reason) => {
                self.fail(guard, "cannot be looked at", reason, now);
                false
            }
        }
    }

    /// Whether a guard could not do its work when it last tried.
    pub(crate) fn is_failing(&self, guard: &str) -> bool {
        self.records.get(guard).is_some_and(|record| record.failure.is_some())
    }

    /// The guards whose setting does not hold, or is fought over.
    pub(crate) fn failing(&self) -> impl Iterator<Item = &str> {
        let fails = |record: &Record| record.failure.is_some() || record.is_fought_over();
        self.records.iter().filter(move |(_, record)| fails(record)).map(|(guard, _)| guard.as_str())
    }

    /// Notes what is wrong with a setting, if anything, and mends it if it is time; returns whether it holds now.
    pub(crate) fn hold(
        &mut self,
        guard: &str,
        fault: Result<Option<&'static str>, HostError>,
        now: Instant,
        mend: impl FnOnce() -> Result<(), HostError>,
    ) -> bool {
        let found = match fault {
            Ok(None) => Found::Right,
            Ok(Some(what)) => Found::Wrong(what.to_owned()),
            Err(error) => Found::unknown(&error),
        };
        let holds = matches!(found, Found::Right);
        if !self.must_mend(guard, found, now) {
            return holds;
        }
        let done = mend();
        let mended = done.is_ok();
        self.mended(guard, done, now);
        mended
    }

    /// Notes how mending went.
    pub(crate) fn mended(&mut self, guard: &str, done: Result<(), HostError>, now: Instant) {
        let record = self.record(guard, now);
        record.last = now;
        match done {
            Ok(()) => {
                record.failure = None;
                let (fought_before, what) = (record.is_fought_over(), record.what.clone());
                record.note_mend(now);
                match (fought_before, record.is_fought_over()) {
                    (_, false) => tracing::warn!(guard, what, "another program changed this host: put back"),
                    (false, true) => tracing::warn!(guard, what, "another program fights over a setting of this host"),
                    (true, true) => {}
                }
            }
            Err(error) => {
                let what = format!("{}, and cannot be put back", record.what);
                self.fail(guard, &what, with_causes(&error), now);
            }
        }
    }

    /// Notes that a setting is lost for good, such as one of a link that was deleted.
    pub(crate) fn lost(&mut self, guard: &str, what: &str, now: Instant) {
        self.fail(guard, what, String::new(), now);
    }

    /// Whether something does not hold, so that the next look should come soon.
    pub(crate) fn is_restless(&self) -> bool {
        self.records.values().any(|record| record.failure.is_some() || record.is_fought_over())
    }

    /// What there is to report.
    pub(crate) fn reports(&mut self, now: Instant) -> Vec<GuardReport> {
        for record in self.records.values_mut() {
            // What nobody looks at any more was undone.
            if !record.looked_at {
                record.failure = None;
            }
            record.forget_old_mends(now);
        }
        self.records.retain(|_, record| record.failure.is_some() || now < record.last + REPORTED);
        self.records.iter().filter_map(|(guard, record)| record.report(guard)).collect()
    }

    fn fail(&mut self, guard: &str, what: &str, cause: String, now: Instant) {
        let record = self.record(guard, now);
        record.last = now;
        let failure = if cause.is_empty() { what.to_owned() } else { format!("{what}: {cause}") };
        if record.failure.as_ref() != Some(&failure) {
            tracing::warn!(guard, what, "a setting of this host does not hold");
            tracing::debug!(guard, cause, "a setting of this host does not hold");
        }
        record.failure = Some(failure);
    }

    /// The record of a guard that is looked at.
    fn record(&mut self, guard: &str, now: Instant) -> &mut Record {
        let record = self.records.entry(guard.to_owned()).or_insert_with(|| Record {
            what: String::new(),
            failure: None,
            looked_at: true,
            times: 0,
            mends: VecDeque::new(),
            pause: FIRST_PAUSE,
            due: now,
            last: now,
        });
        record.looked_at = true;
        record
    }
}

impl Record {
    fn note_mend(&mut self, now: Instant) {
        self.times = self.times.saturating_add(1);
        self.mends.push_back(now);
        self.forget_old_mends(now);
        if self.is_fought_over() {
            self.due = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else {
            self.pause = FIRST_PAUSE;
        }
    }

    fn is_fought_over(&self) -> bool {
        self.mends.len() > MOST_MENDS
    }

    fn forget_old_mends(&mut self, now: Instant) {
        while self.mends.len() > MOST_MENDS + 1 || self.mends.front().is_some_and(|mend| now >= *mend + FIGHT) {
            self.mends.pop_front();
        }
    }

    fn report(&self, guard: &str) -> Option<GuardReport> {
        let (state, reason) = match &self.failure {
            Some(failure) => (GuardState::Broken, failure.clone()),
            None if self.is_fought_over() => {
                let reason = format!("{} again and again: another program fights over it", self.what);
                (GuardState::Broken, reason)
            }
            None if self.times > 0 => (GuardState::Mended, format!("{} by another program, and put back", self.what)),
            None => return None,
        };
        Some(GuardReport { guard: guard.to_owned(), state, reason, times: self.times })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::watch::BETWEEN_LOOKS;
    use crate::guard::{LONGEST_ABSENCE, RESTLESS_POLL};

    const GUARD: &str = "IPv4 rule 5300";

    fn removed() -> Found {
        Found::Wrong("was removed".into())
    }

    fn refused() -> HostError {
        HostError::system("add it", std::io::Error::from_raw_os_error(libc::EPERM))
    }

    /// One round in which the setting is found wrong, and mended if that is due.
    fn mend(history: &mut History, now: Instant) -> (bool, Vec<GuardReport>) {
        history.begin();
        let due = history.must_mend(GUARD, removed(), now);
        if due {
            history.mended(GUARD, Ok(()), now);
        }
        (due, history.reports(now))
    }

    fn look(history: &mut History, found: Found, now: Instant) -> Vec<GuardReport> {
        history.begin();
        history.must_mend(GUARD, found, now);
        history.reports(now)
    }

    #[test]
    fn what_holds_is_not_reported() {
        let mut history = History::default();
        assert_eq!(look(&mut history, Found::Right, Instant::now()), []);
        assert!(!history.is_restless());
    }

    #[test]
    fn a_mend_is_reported_for_ten_minutes() {
        let (mut history, start) = (History::default(), Instant::now());
        let (due, reports) = mend(&mut history, start);
        let expected = GuardReport {
            guard: GUARD.into(),
            state: GuardState::Mended,
            reason: "was removed by another program, and put back".into(),
            times: 1,
        };
        assert!(due);
        assert_eq!(reports, std::slice::from_ref(&expected));
        let minutes = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert_eq!(look(&mut history, Found::Right, minutes(9)), [expected]);
        assert_eq!(look(&mut history, Found::Right, minutes(10)), []);
    }

    #[test]
    fn what_cannot_be_mended_is_broken_until_it_holds() {
        let (mut history, now) = (History::default(), Instant::now());
        history.begin();
        assert!(history.must_mend(GUARD, removed(), now));
        history.mended(GUARD, Err(refused()), now);
        let [report] = history.reports(now).try_into().unwrap();
        assert_eq!((report.state, report.times), (GuardState::Broken, 0));
        assert_eq!(report.reason, "was removed, and cannot be put back: add it: Operation not permitted (os error 1)");
        assert!(history.is_restless() && history.failing().eq([GUARD]));
        assert_eq!(look(&mut history, Found::Right, now), []);
        assert_eq!(history.failing().next(), None);
    }

    #[test]
    fn what_is_not_guarded_any_more_is_not_broken() {
        let (mut history, now) = (History::default(), Instant::now());
        assert_eq!(look(&mut history, Found::unknown(&refused()), now)[0].state, GuardState::Broken);
        history.begin();
        assert_eq!(history.reports(now), []);
    }

    #[test]
    fn a_fight_is_reported_and_slowed_down_until_it_ends() {
        let (mut history, mut now) = (History::default(), Instant::now());
        for _ in 0..MOST_MENDS {
            let (due, reports) = mend(&mut history, now);
            assert!(due && reports[0].state == GuardState::Mended);
            now += Duration::from_millis(250);
        }
        assert_eq!(mend(&mut history, now).1[0].state, GuardState::Broken);
        assert!(!mend(&mut history, now).0, "not at once again");
        assert_eq!(look(&mut history, Found::Right, now + FIGHT)[0].state, GuardState::Mended);
        assert!(!history.is_restless());
    }

    /// The stranger takes the setting away at once each time; looks come as they do while there is a fight.
    #[test]
    fn what_is_fought_over_is_never_away_for_two_seconds() {
        let (mut history, mut now) = (History::default(), Instant::now());
        let mut mended = now;
        for _ in 0..200 {
            let (due, reports) = mend(&mut history, now);
            if due {
                assert!(now - mended < LONGEST_ABSENCE, "away for {:?}", now - mended);
                mended = now;
            }
            let fought_over = reports[0].reason.contains("again and again");
            assert_eq!(history.is_restless(), fought_over);
            now += if fought_over { RESTLESS_POLL } else { BETWEEN_LOOKS };
        }
        assert!(now - mended < LONGEST_ABSENCE && mend(&mut history, now).1[0].state == GuardState::Broken);
    }
}
