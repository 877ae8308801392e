//! What gateway and client should reach beside others, and in which order all take their turns.

use std::str::FromStr;

use crate::load::targets::Bound;
use crate::report::model::Run;
use crate::systems::anyconnect::{
    ADIT_ANYCONNECT, ADIT_TO_OCSERV, ADIT_TO_OCSERV_TLS, OCSERV, OCSERV_TLS, OPENCONNECT_TO_ADIT,
};

/// A system, and the carrier by which it has to travel for its figures to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) system: &'static str,
    pub(super) carrier: &'static str,
}

impl Side {
    const fn of(system: &'static str, carrier: &'static str) -> Self {
        Self { system, carrier }
    }
}

/// What is compared of two systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// Payload that arrives.
    Rate,
    /// Processor time of the gateway for each gigabyte of it.
    GatewayCpu,
    /// Processor time of the client for each gigabyte of it.
    ClientCpu,
}

impl Figure {
    /// Its name in the JSON object.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::GatewayCpu => "gateway_cpu",
            Self::ClientCpu => "client_cpu",
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Rate => "Gbit/s",
            Self::GatewayCpu | Self::ClientCpu => "s/GB",
        }
    }

    /// Its value in a run, if it has one above 0.
    pub(super) fn value(self, run: &Run) -> Option<f64> {
        let both = |user, system| Some(run.value(user)? + run.value(system)?);
        let value = match self {
            Self::Rate => run.value("rate"),
            Self::GatewayCpu => both("cpu_gateway_user", "cpu_gateway_system"),
            Self::ClientCpu => both("cpu_client_user", "cpu_client_system"),
        };
        value.filter(|value| *value > 0.0)
    }
}

/// What one system should reach, as a multiple of what another one does in the same run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) side: Side,
    pub(super) reference: Side,
    pub(super) figure: Figure,
    pub(super) bound: Bound,
}

/// All goals, those of one reference side by side.
const GOALS: [Goal; 6] = [
    Goal {
        name: "A1",
        what: "rate of openconnect at Adit to that at ocserv, DTLS",
        side: Side::of(OPENCONNECT_TO_ADIT, "dtls"),
        reference: Side::of(OCSERV, "dtls"),
        figure: Figure::Rate,
        bound: Bound::Least(1.15),
    },
    Goal {
        name: "A2",
        what: "processor time of Adit's gateway to that of ocserv, DTLS",
        side: Side::of(OPENCONNECT_TO_ADIT, "dtls"),
        reference: Side::of(OCSERV, "dtls"),
        figure: Figure::GatewayCpu,
        bound: Bound::Most(0.35),
    },
    Goal {
        name: "A3",
        what: "processor time of adit-client at ocserv to openconnect's, DTLS",
        side: Side::of(ADIT_TO_OCSERV, "dtls"),
        reference: Side::of(OCSERV, "dtls"),
        figure: Figure::ClientCpu,
        bound: Bound::Most(0.5),
    },
    Goal {
        name: "A4",
        what: "rate of adit-client at Adit by DTLS to that by ESP",
        side: Side::of(ADIT_ANYCONNECT, "dtls"),
        reference: Side::of("adit", "esp"),
        figure: Figure::Rate,
        bound: Bound::Least(0.8),
    },
    Goal {
        name: "A5",
        what: "processor time of adit-client at ocserv to openconnect's, TLS",
        side: Side::of(ADIT_TO_OCSERV_TLS, "tls"),
        reference: Side::of(OCSERV_TLS, "tls"),
        figure: Figure::ClientCpu,
        bound: Bound::Most(0.5),
    },
    Goal {
        name: "A6",
        what: "rate of adit-client --carrier tls to openconnect's at ocserv, TLS",
        side: Side::of("adit-tls", "tls"),
        reference: Side::of(OCSERV_TLS, "tls"),
        figure: Figure::Rate,
        bound: Bound::Least(1.3),
    },
];

/// A goal as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name(&'static str);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = GOALS.iter().find(|goal| goal.name.eq_ignore_ascii_case(text));
        found.map(|goal| Self(goal.name)).ok_or_else(|| format!("known are {}", GOALS.map(|goal| goal.name).join(", ")))
    }
}

/// The goals that were asked for, in their order; all where none was.
pub(super) fn selected(names: &[Name]) -> Vec<Goal> {
    GOALS.into_iter().filter(|goal| names.is_empty() || names.contains(&Name(goal.name))).collect()
}

/// Who takes a turn in a round, in order: each reference before and after those that are compared with it, so that what
/// changes steadily meets both alike. In every second round these go backwards.
pub(super) fn order(goals: &[Goal], round: u32) -> Vec<Vec<&'static str>> {
    let mut groups: Vec<Vec<&'static str>> = Vec::new();
    for Goal { side, reference, .. } in goals {
        match groups.iter_mut().find(|group| group.first() == Some(&reference.system)) {
            Some(group) if group.contains(&side.system) => {}
            Some(group) => group.push(side.system),
            None => groups.push(vec![reference.system, side.system]),
        }
    }
    for group in &mut groups {
        group.extend(group.first().copied());
        if round.is_multiple_of(2) {
            group.reverse();
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::systems::{Programs, catalogue, own_variants};

    #[test]
    fn goals_are_of_systems_that_are_known() {
        let known = catalogue(&own_variants(), &Programs::default());
        let known: BTreeSet<&str> = known.iter().map(|system| system.name()).collect();
        for goal in GOALS {
            assert!(known.contains(goal.side.system) && known.contains(goal.reference.system), "{goal:?}");
        }
    }

    #[test]
    fn each_reference_is_before_and_after_what_is_compared_with_it() {
        let first = order(&selected(&[]), 1);
        let expected = [
            &["ocserv", "openconnect-to-adit", "adit-to-ocserv", "ocserv"][..],
            &["adit", "adit-anyconnect", "adit"],
            &["ocserv-tls", "adit-to-ocserv-tls", "adit-tls", "ocserv-tls"],
        ];
        assert_eq!(first, expected);
        let second = order(&selected(&[]), 2);
        assert_eq!(second[0], ["ocserv", "adit-to-ocserv", "openconnect-to-adit", "ocserv"]);
    }

    #[test]
    fn goals_are_chosen_by_name() {
        let names: Vec<Name> = ["a6", "A1"].iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(selected(&names).iter().map(|goal| goal.name).collect::<Vec<_>>(), ["A1", "A6"]);
        assert_eq!(order(&selected(&names), 1).concat().len(), 6);
        assert!("A7".parse::<Name>().unwrap_err().contains("A1, A2"));
    }
}
