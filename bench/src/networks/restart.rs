//! N4: a gateway is killed under many clients that send, and started again.

use anyhow::Result;

use super::demand::Demand;
use super::trouble::{Events, Trouble, Turn};
use crate::load::targets::Bound;
use crate::load::{self, Restarted};
use crate::measure::meter::reading;
use crate::report::model::Reading;

pub(super) const TROUBLE: Trouble = Trouble {
    name: "N4",
    task: "restart",
    words: "the gateway is killed under its clients, and started again",
    events: Some(Events { metric: "sessions", least: 1_000.0, flag: "--sessions 1000" }),
    demands: &[
        Demand { what: "back after a restart, p99, ms", metric: "back_p99", bound: Bound::Most(1_000.0) },
        Demand { what: "clients that did not come back", metric: "not_back", bound: Bound::Most(0.0) },
        Demand { what: "clients with another address", metric: "other_address", bound: Bound::Most(0.0) },
    ],
    measure,
};

fn measure(turn: &Turn<'_>) -> Result<Vec<Reading>> {
    Ok(readings(&load::restart(turn.options.sessions(), turn.interrupt)?))
}

fn readings(restarted: &Restarted) -> Vec<Reading> {
    let Restarted { clients, not_back, other_address, return_ms, .. } = *restarted;
    vec![
        reading("back_p99", "ms", return_ms.p99),
        reading("back_p50", "ms", return_ms.p50),
        reading("back_max", "ms", return_ms.max),
        reading("not_back", "clients", not_back.into()),
        reading("other_address", "clients", other_address.into()),
        reading("sessions", "clients", clients.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::demand::tests::met;
    use super::*;
    use crate::load::histogram::Percentiles;

    fn restarted(p99: f64, not_back: u32, other_address: u32) -> Restarted {
        let return_ms = Percentiles { count: 1_000, p50: 200.0, p90: 400.0, p99, max: 5_000.0 };
        Restarted { clients: 1_000, down_seconds: 1.0, not_back, other_address, return_ms }
    }

    #[test]
    fn late_missing_and_moved_clients_are_told_apart() {
        let of = |restarted| met(&TROUBLE, readings(&restarted));
        assert_eq!(of(restarted(1_000.0, 0, 0)), [Some(true); 3], "a few may be later");
        assert_eq!(of(restarted(1_001.0, 0, 0)), [Some(false), Some(true), Some(true)]);
        assert_eq!(of(restarted(900.0, 1, 0)), [Some(true), Some(false), Some(true)]);
        assert_eq!(of(restarted(900.0, 0, 1)), [Some(true), Some(true), Some(false)]);
    }

    #[test]
    fn fewer_sessions_than_the_target_is_about_decide_nothing() {
        let few = Restarted { clients: 999, ..restarted(2_000.0, 3, 0) };
        assert_eq!(met(&TROUBLE, readings(&few)), [None; 3]);
    }
}
