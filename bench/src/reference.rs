//! Systems beside a reference: what each should reach as a multiple of what that one does in the same round, in which
//! order all take their turns, and what their runs say of it.
//!
//! In a round the reference takes a turn before and after those that are compared with it; its two turns also show how
//! much equal systems differ here.

pub(crate) mod goal;
pub(crate) mod judge;
mod rows;

use std::collections::BTreeMap;
use std::time::Instant;

use adit_netem::random::Random;
use adit_program::exit::Failure;
use anyhow::Result;

use crate::interrupt::Interrupt;
use crate::measure::task::Task;
use crate::measure::turns::Turns;
use crate::measure::{missing, subject};
use crate::report::model::{Report, Run};
use crate::systems::{Programs, catalogue, own_variants};
use goal::{Goal, order};
use judge::{Row, Seen, row};

pub(crate) use rows::Rows;

/// What came of goals in some rounds.
#[derive(Debug)]
pub(crate) struct Compared {
    /// Each goal, once by each task.
    pub(crate) rows: Vec<Row>,
    /// All runs that count.
    pub(crate) report: Report,
    /// Runs that do not: their turns were disturbed or failed, and were taken again.
    pub(crate) repeated: Vec<Run>,
}

/// Measures the systems of goals, in as many rounds as `report` says, which is blank, and judges each goal by each
/// task.
///
/// # Errors
/// Fails when interrupted. A system that is not installed, or fails each time, is why its goals are not decided.
pub(crate) fn compare(
    goals: &[Goal],
    tasks: &[Task],
    mut report: Report,
    programs: &Programs,
    interrupt: &Interrupt,
) -> Result<Compared> {
    let (started, rounds, seed) = (Instant::now(), report.rounds, report.seed);
    let names = order(goals, 1).concat();
    let mut systems = catalogue(&own_variants(), programs);
    systems.retain(|system| names.contains(&system.name()));
    let mut absent = BTreeMap::new();
    for system in &systems {
        report.systems.push(subject(system.as_ref()).unwrap_or_else(|failure| {
            absent.insert(system.name().to_owned(), reason(&failure));
            missing(system.name(), &failure)
        }));
    }
    let mut turns = Turns::begin(&systems, tasks, report, interrupt);
    take_all(&mut turns, goals, rounds, &mut absent)?;
    let Turns { mut report, repeated, .. } = turns;
    report.complete = true;
    report.total_seconds = started.elapsed().as_secs_f64();
    report.summarise(goals.iter().map(|goal| goal.reference.system));
    let seen = Seen { runs: &report.runs, rounds, absent: &absent };
    let mut random = Random::seeded(seed);
    let all = goals.iter().flat_map(|goal| tasks.iter().map(move |task| (goal, task)));
    let rows = all.map(|(goal, task)| row(goal, task.name(), &seen, &mut random)).collect();
    Ok(Compared { rows, report, repeated })
}

/// Takes the turns of all rounds. A system whose turn failed each time takes no more, which `absent` gets.
fn take_all(turns: &mut Turns<'_>, goals: &[Goal], rounds: u32, absent: &mut BTreeMap<String, String>) -> Result<()> {
    let of_a_round = order(goals, 1).concat().len();
    turns.expect(rounds * u32::try_from(of_a_round).unwrap_or(u32::MAX));
    for round in 1..=rounds {
        for group in order(goals, round) {
            // Without its reference nobody's turn says anything.
            if group.first().is_some_and(|reference| absent.contains_key(*reference)) {
                continue;
            }
            for name in group {
                if absent.contains_key(name) {
                    continue;
                }
                if let Some(failure) = turns.take(name, round)? {
                    absent.insert(name.to_owned(), reason(&failure));
                }
            }
        }
    }
    turns.pause();
    Ok(())
}

/// What is said of a system that takes no part.
fn reason(failure: &Failure) -> String {
    format!("{}: {}", failure.what, failure.reason)
}
