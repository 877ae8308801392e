//! N6: one TCP stream over lines as people have them, through the tunnel and on the bare path.

use adit_netem::Profile;
use anyhow::Result;
use serde::Serialize;

use super::options::Options;
use crate::interrupt::Interrupt;
use crate::load::targets::Bound;
use crate::measure::blank;
use crate::measure::task::{Selection, Task, selected};
use crate::reference::goal::{Figure, Goal, Side};
use crate::reference::judge::Row;
use crate::reference::{self, Compared};
use crate::report::model::{Report, Run};
use crate::systems::Programs;

pub(super) const NAME: &str = "N6";
/// The lines that the target is about.
pub(super) const PROFILES: [&str; 4] = ["dsl", "lte", "transatlantic", "lossy-wifi"];

/// One stream each way.
const TASKS: [&str; 2] = ["tcp-up", "tcp-down"];
/// Share of the bare path's rate: a tunnel has headers of its own, and little else may be lost.
const SHARE: Bound = Bound::Least(0.95);
/// The path without a tunnel, whose packets have no carrier.
const BARE: Side = Side::of("plain", "");

/// The streams over one line.
#[derive(Debug, Serialize)]
pub(super) struct Streams {
    /// The line's name.
    pub(super) profile: String,
    /// Each carrier each way, beside the bare path.
    pub(super) rows: Vec<Row>,
    /// Runs that do not count: their turns were disturbed or failed, and were taken again.
    pub(super) repeated: Vec<Run>,
    /// All runs that count, as `adit-bench run` writes them.
    pub(super) measurement: Report,
}

/// Compares the streams of each carrier with those of the bare path.
///
/// # Errors
/// Fails when interrupted.
pub(super) fn measure(profile: Profile, options: &Options, interrupt: &Interrupt) -> Result<Streams> {
    let tasks = tasks();
    let mut report = blank("networks", options.effort(), &tasks, options.rounds());
    report.seed = options.seed;
    report.wire = true;
    report.profile = Some(profile.name.clone());
    report.network = Some(profile);
    let Compared { rows, report, repeated } =
        reference::compare(&goals(options.stricter), &tasks, report, &Programs::default(), interrupt)?;
    Ok(Streams { profile: report.profile.clone().unwrap_or_default(), rows, repeated, measurement: report })
}

/// What each carrier should reach. TCP in TCP has no target: what the outer connection repeats keeps the inner waiting.
fn goals(stricter: f64) -> [Goal; 3] {
    let goal = |what, side, bound: Option<Bound>| {
        let bound = bound.map(|bound| bound.stricter(stricter));
        Goal { name: NAME, what, side, reference: BARE, figure: Figure::Rate, bound }
    };
    [
        goal("rate by ESP to that of the bare path", Side::of("adit", "esp"), Some(SHARE)),
        goal("rate by QUIC to that of the bare path", Side::of("adit-quic", "quic"), Some(SHARE)),
        goal("rate by TLS to that of the bare path", Side::of("adit-tls", "tls"), None),
    ]
}

fn tasks() -> Vec<Task> {
    selected(&TASKS.map(|name| name.parse::<Selection>().expect("the tasks have these names")))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use adit_netem::random::Random;

    use super::*;
    use crate::reference::goal::order;
    use crate::reference::judge::{Seen, row};
    use crate::report::model::Reading;
    use crate::report::model::tests::example;

    /// Rounds over a line in which each carrier reaches this share of the bare path's rate.
    pub(in super::super) fn streams(rounds: u32, share: f64, stricter: f64) -> Streams {
        let template = example().runs.remove(0);
        let run = |round, system: &str, carrier: Option<&str>, value| {
            let readings = vec![Reading { metric: "rate".to_owned(), unit: "Gbit/s".to_owned(), value }];
            Run { round, system: system.to_owned(), readings, carrier: carrier.map(str::to_owned), ..template.clone() }
        };
        let goals = goals(stricter);
        let of_round = |round| {
            let sides = goals.iter().map(|goal| run(round, goal.side.system, Some(goal.side.carrier), share));
            let bare = run(round, "plain", None, 1.0);
            sides.chain([bare.clone(), bare]).collect::<Vec<_>>()
        };
        let runs: Vec<Run> = (1..=rounds).flat_map(of_round).collect();
        let seen = Seen { runs: &runs, rounds, absent: &BTreeMap::new() };
        let rows = goals.iter().map(|goal| row(goal, "tcp-up", &seen, &mut Random::seeded(1))).collect();
        let measurement = Report { runs, ..example() };
        Streams { profile: "dsl".to_owned(), rows, repeated: Vec::new(), measurement }
    }

    fn met(share: f64, stricter: f64) -> Vec<Option<bool>> {
        streams(5, share, stricter).rows.iter().map(|row| row.met).collect()
    }

    #[test]
    fn esp_and_quic_have_a_target_and_tls_is_stated() {
        assert_eq!(met(0.97, 1.0), [Some(true), Some(true), None]);
        assert_eq!(met(0.90, 1.0), [Some(false), Some(false), None]);
        assert_eq!(met(0.97, 1.1), [Some(false), Some(false), None]);
        let streams = streams(5, 0.97, 1.0);
        assert!(streams.rows.iter().all(|row| row.measured.is_some()));
        assert_eq!(streams.rows.iter().filter_map(Row::verdict).count(), 2);
    }

    #[test]
    fn bare_path_is_before_and_after_all_carriers() {
        assert_eq!(order(&goals(1.0), 1), [["plain", "adit", "adit-quic", "adit-tls", "plain"]]);
        assert_eq!(tasks().into_iter().map(Task::name).collect::<Vec<_>>(), TASKS);
    }

    #[test]
    fn lines_are_those_of_shipped_profiles() {
        assert!(PROFILES.iter().all(|name| Profile::shipped(name).is_some()));
    }
}
