//! N2: UDP is blocked while packets flow, and opened again.

use std::time::Instant;

use adit_lab::traffic::Course;
use anyhow::{Result, ensure};

use super::demand::Demand;
use super::flows::Flows;
use super::site::{BY_UDP, Site, flow_again, longest};
use super::trouble::{Trouble, Turn};
use crate::load::targets::Bound;
use crate::measure::meter::{count, milliseconds, reading};
use crate::report::model::Reading;

pub(super) const TROUBLE: Trouble = Trouble {
    name: "N2",
    task: "udp-changes",
    words: "UDP is blocked while packets flow, and opened again",
    events: None,
    demands: &[
        Demand { what: "gap when UDP is blocked, ms", metric: "gap", bound: Bound::Most(3_000.0) },
        Demand { what: "packets lost by the way back to UDP", metric: "lost", bound: Bound::Most(0.0) },
        Demand { what: "TCP connections lost", metric: "flows_lost", bound: Bound::Most(0.0) },
    ],
    measure,
};

fn measure(turn: &Turn<'_>) -> Result<Vec<Reading>> {
    let interrupt = turn.interrupt;
    let mut site = Site::start()?;
    site.connect()?;
    ensure!(site.comes_to(&["esp"], interrupt)?.is_some(), "packets do not travel by ESP at first");
    let flows = Flows::start(site.client.host(), &site.internet)?;
    // Down to TLS.
    let dialogue = site.dialogue(interrupt)?;
    let blocked = Instant::now();
    site.block_udp()?;
    let down = site.comes_to(&["tls"], interrupt)?;
    flow_again(&dialogue, Instant::now(), interrupt)?;
    let gap = longest(dialogue.longest_silence(blocked, Instant::now()));
    if down.is_none() {
        return Ok(vec![milliseconds("gap", gap)]);
    }
    let mut flows_lost = flows.lost(interrupt)?;
    // Up again, with packets of which the way down lost none.
    drop(dialogue);
    let dialogue = site.dialogue(interrupt)?;
    let opened = Instant::now();
    site.open_udp()?;
    ensure!(site.comes_to(&BY_UDP, interrupt)?.is_some(), "packets do not travel over UDP again");
    let back = opened.elapsed();
    flow_again(&dialogue, Instant::now(), interrupt)?;
    let courses = dialogue.finish();
    flows_lost = flows_lost.max(flows.lost(interrupt)?);
    Ok(vec![
        milliseconds("gap", gap),
        reading("lost", "packets", count(lost(&courses))),
        reading("flows_lost", "connections", flows_lost.into()),
        milliseconds("back", back),
    ])
}

/// Packets of both directions that never arrived.
fn lost(courses: &[Course; 2]) -> u64 {
    courses.iter().map(|course| u64::try_from(course.lost()).unwrap_or(u64::MAX)).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::demand::tests::met;
    use super::*;

    fn readings(gap: Duration, courses: &[Course; 2], flows_lost: f64) -> Vec<Reading> {
        let lost = reading("lost", "packets", count(lost(courses)));
        vec![milliseconds("gap", gap), lost, reading("flows_lost", "connections", flows_lost)]
    }

    /// What became of so many packets, of which this one never arrived.
    fn course(sent: u32, missing: Option<u32>) -> Course {
        let now = Instant::now();
        let arrivals = (0..sent).filter(|number| Some(*number) != missing).map(|number| (number, now)).collect();
        Course { sent, arrivals }
    }

    #[test]
    fn longer_gap_and_every_packet_of_both_directions_count() {
        let gap = longest([Duration::from_millis(200), Duration::from_millis(2_900)]);
        let whole = [course(500, None), course(500, None)];
        assert_eq!(met(&TROUBLE, readings(gap, &whole, 0.0)), [Some(true); 3]);
        let late = longest([Duration::from_millis(3_001), Duration::ZERO]);
        assert_eq!(met(&TROUBLE, readings(late, &whole, 0.0)), [Some(false), Some(true), Some(true)]);
        let torn = [course(500, None), course(500, Some(7))];
        assert_eq!(met(&TROUBLE, readings(gap, &torn, 1.0)), [Some(true), Some(false), Some(false)]);
    }
}
