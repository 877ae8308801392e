//! What gateway and client should reach beside others of the AnyConnect family.

use std::str::FromStr;

use crate::load::targets::Bound;
use crate::reference::goal::{Figure, Goal, Side};
use crate::systems::anyconnect::{
    ADIT_ANYCONNECT, ADIT_TO_OCSERV, ADIT_TO_OCSERV_TLS, OCSERV, OCSERV_TLS, OPENCONNECT_TO_ADIT,
};

/// All goals, those of one reference side by side.
const GOALS: [Goal; 6] = [
    Goal {
        name: "A1",
        what: "rate of openconnect at Adit to that at ocserv, DTLS",
        side: Side::of(OPENCONNECT_TO_ADIT, "dtls"),
        reference: Side::of(OCSERV, "dtls"),
        figure: Figure::Rate,
        bound: Some(Bound::Least(1.15)),
    },
    Goal {
        name: "A2",
        what: "processor time of Adit's gateway to that of ocserv, DTLS",
        side: Side::of(OPENCONNECT_TO_ADIT, "dtls"),
        reference: Side::of(OCSERV, "dtls"),
        figure: Figure::GatewayCpu,
        bound: Some(Bound::Most(0.35)),
    },
    Goal {
        name: "A3",
        what: "processor time of adit-client at ocserv to openconnect's, DTLS",
        side: Side::of(ADIT_TO_OCSERV, "dtls"),
        reference: Side::of(OCSERV, "dtls"),
        figure: Figure::ClientCpu,
        bound: Some(Bound::Most(0.5)),
    },
    Goal {
        name: "A4",
        what: "rate of adit-client at Adit by DTLS to that by ESP",
        side: Side::of(ADIT_ANYCONNECT, "dtls"),
        reference: Side::of("adit", "esp"),
        figure: Figure::Rate,
        bound: Some(Bound::Least(0.8)),
    },
    Goal {
        name: "A5",
        what: "processor time of adit-client at ocserv to openconnect's, TLS",
        side: Side::of(ADIT_TO_OCSERV_TLS, "tls"),
        reference: Side::of(OCSERV_TLS, "tls"),
        figure: Figure::ClientCpu,
        bound: Some(Bound::Most(0.5)),
    },
    Goal {
        name: "A6",
        what: "rate of adit-client --carrier tls to openconnect's at ocserv, TLS",
        side: Side::of("adit-tls", "tls"),
        reference: Side::of(OCSERV_TLS, "tls"),
        figure: Figure::Rate,
        bound: Some(Bound::Least(1.3)),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::reference::goal::order;
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
