//! UDP packets through the tunnel: the highest rate with little loss, and what arrives of too many.
//!
//! A network that loses more than 1 % by itself, such as the profile `lossy-wifi` with its 3 %, has no such rate: there
//! the search ends at 0 whatever the tunnel does.

use std::time::Duration;

use anyhow::Result;

use super::{Meter, count, reading};
use crate::report::model::Reading;
use adit_lab::traffic::{BarragePlan, BarrageReport, BarrageTarget, Search, highest_rate};

/// Longest wait for the last packets of a rate, beside what the network takes for each.
const DRAIN: Duration = Duration::from_millis(20);
/// Loss that a rate may have and still count as held.
const PERMITTED_LOSS: f64 = 0.01;
/// Loss that a rate may have and still count as clean.
const CLEAN_LOSS: f64 = 0.001;
/// A sender that reaches less than this share of a rate did not try it.
const REACHED: f64 = 0.97;
/// First rate of a search, packets per second; later rounds begin where the last one ended.
const FIRST_RATE: f64 = 40_000.0;
/// No search goes higher, packets per second.
const HIGHEST_RATE: f64 = 2e6;
/// Factor between rates from the one that held downwards to one that is clean, unless precision is lower.
const CLEAN_STRIDE: f64 = 1.06;

impl Meter<'_> {
    /// Searches the highest rate with at most 1 % loss, and from there downwards the highest with at most 0.1 %.
    pub(super) fn udp_loss(&self, size: usize) -> Result<Vec<Reading>> {
        let target = BarrageTarget::start(&self.running.gateway.host, self.target())?;
        let mut trial = Trial { permitted: PERMITTED_LOSS, held: None, sender_limited: false };
        let (first, stride) = self.hint.filter(|rate| *rate > 1.0).map_or((FIRST_RATE, 1.7), |rate| (rate, 1.2));
        let precision = self.effort.precision;
        let search = Search { first, stride, precision, ceiling: HIGHEST_RATE };
        let rate = highest_rate(search, |rate| Ok(trial.judge(rate, self.barrage(&target, size, rate)?)))?;
        let mut strict = Trial { permitted: CLEAN_LOSS, held: None, sender_limited: false };
        if rate > 0.0 {
            let mut known = trial.held;
            let stride = (precision * 0.999).max(CLEAN_STRIDE);
            highest_rate(Search { first: rate, stride, precision, ceiling: rate }, |rate| {
                let report = known.take().map_or_else(|| self.barrage(&target, size, rate), Ok)?;
                Ok(strict.judge(rate, report))
            })?;
        }
        let mut readings = found(trial.held, strict.held, size);
        readings.push(reading("sender_limited", "0 or 1", f64::from(u8::from(trial.sender_limited))));
        Ok(readings)
    }

    fn barrage(&self, target: &BarrageTarget, size: usize, rate: f64) -> Result<BarrageReport> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are below the ceiling")]
        let (rate, duration) = (Some(rate as u32), self.effort.step);
        let plan = BarragePlan { size, rate, warm_up: Duration::ZERO, duration, drain: DRAIN + self.delay };
        self.send(target, plan)
    }

    /// Sends from the client, as long as it shall go on.
    fn send(&self, target: &BarrageTarget, plan: BarragePlan) -> Result<BarrageReport> {
        let interrupt = self.interrupt.clone();
        target.send_from(&self.running.client.host, plan, move || interrupt.check())
    }

    /// Counts what arrives while the client sends as many as it can.
    pub(super) fn udp_flood(&self, size: usize) -> Result<Vec<Reading>> {
        let target = BarrageTarget::start(&self.running.gateway.host, self.target())?;
        let (warm_up, duration) = (self.effort.warm_up.min(self.effort.step), self.effort.step);
        let plan = BarragePlan { size, rate: None, warm_up, duration, drain: Duration::ZERO };
        let report = self.send(&target, plan)?;
        Ok(vec![
            reading("delivered", "packets/s", report.delivered()),
            reading("goodput", "Mbit/s", megabits(report.delivered(), size)),
            reading("offered", "packets/s", report.offered()),
            reading("reordered", "packets", count(report.reordered)),
            reading("duplicated", "packets", count(report.duplicated)),
        ])
    }
}

/// A search for the highest rate that holds.
#[derive(Debug)]
struct Trial {
    /// Loss that a rate may have.
    permitted: f64,
    /// What came of the last rate that held.
    held: Option<BarrageReport>,
    /// Whether the sender, not the tunnel, was too slow for the last rate that did not hold.
    sender_limited: bool,
}

impl Trial {
    /// Whether a rate held.
    fn judge(&mut self, rate: f64, report: BarrageReport) -> bool {
        let reached = report.offered() >= rate * REACHED;
        let holds = report.loss() <= self.permitted && reached;
        self.sender_limited = !holds && !reached;
        if holds {
            self.held = Some(report);
        }
        holds
    }
}

/// What was sent and what arrived at the highest rate that held, and at the highest that was clean; not what was asked
/// for.
fn found(held: Option<BarrageReport>, clean: Option<BarrageReport>, size: usize) -> Vec<Reading> {
    let of = |report: Option<BarrageReport>, rate: fn(&BarrageReport) -> f64| report.as_ref().map_or(0.0, rate);
    let mut readings = vec![
        reading("rate", "packets/s", of(held, BarrageReport::offered)),
        reading("clean_rate", "packets/s", of(clean, BarrageReport::offered)),
        reading("goodput", "Mbit/s", megabits(of(held, BarrageReport::delivered), size)),
    ];
    if let Some(BarrageReport { reordered, duplicated, .. }) = held {
        readings.push(reading("reordered", "packets", count(reordered)));
        readings.push(reading("duplicated", "packets", count(duplicated)));
    }
    readings
}

/// Rate of UDP payload.
fn megabits(packets_per_second: f64, size: usize) -> f64 {
    packets_per_second * f64::from(u32::try_from(size).unwrap_or(u32::MAX)) * 8.0 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sent: u64, received: u64) -> BarrageReport {
        BarrageReport { sent, received, reordered: 0, duplicated: 0, elapsed: Duration::from_secs(1) }
    }

    #[test]
    fn rate_holds_where_it_was_tried_and_little_was_lost() {
        let mut trial = Trial { permitted: CLEAN_LOSS, held: None, sender_limited: false };
        assert!(trial.judge(10_000.0, report(10_000, 9_995)));
        assert_eq!(trial.held.map(|report| report.received), Some(9_995));
        assert!(!trial.judge(20_000.0, report(20_000, 19_900)));
        assert!(!trial.sender_limited && trial.held.is_some_and(|report| report.sent == 10_000));
        assert!(!trial.judge(20_000.0, report(15_000, 15_000)));
        assert!(trial.sender_limited);
    }

    #[test]
    fn figures_are_what_was_sent_and_what_arrived() {
        let values = |held, clean| found(held, clean, 125).into_iter().map(|one| one.value).collect::<Vec<_>>();
        let expected = [9_800.0, 9_000.0, 9.75, 0.0, 0.0];
        let seen = values(Some(report(9_800, 9_750)), Some(report(9_000, 9_000)));
        assert!(seen.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6) && seen.len() == 5, "{seen:?}");
        assert_eq!(values(None, None), [0.0; 3]);
    }
}
