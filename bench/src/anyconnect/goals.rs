//! Who is compared with whom, and in which order all take their turns.

use std::str::FromStr;

use crate::systems::anyconnect::{
    ADIT_ANYCONNECT, ADIT_TO_OCSERV, ADIT_TO_OCSERV_TLS, OCSERV, OCSERV_TLS, OPENCONNECT_TO_ADIT,
};

/// Two systems of which one should reach a multiple of what the other does in the same run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    pub(super) name: &'static str,
    pub(super) system: &'static str,
    pub(super) reference: &'static str,
}

impl Goal {
    const fn of(name: &'static str, system: &'static str, reference: &'static str) -> Self {
        Self { name, system, reference }
    }
}

/// All goals, those of one reference side by side.
const GOALS: [Goal; 6] = [
    Goal::of("A1", OPENCONNECT_TO_ADIT, OCSERV),
    Goal::of("A2", OPENCONNECT_TO_ADIT, OCSERV),
    Goal::of("A3", ADIT_TO_OCSERV, OCSERV),
    Goal::of("A4", ADIT_ANYCONNECT, "adit"),
    Goal::of("A5", ADIT_TO_OCSERV_TLS, OCSERV_TLS),
    Goal::of("A6", "adit-tls", OCSERV_TLS),
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
    for &Goal { system, reference, .. } in goals {
        match groups.iter_mut().find(|group| group.first() == Some(&reference)) {
            Some(group) if group.contains(&system) => {}
            Some(group) => group.push(system),
            None => groups.push(vec![reference, system]),
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
            assert!(known.contains(goal.system) && known.contains(goal.reference), "{goal:?}");
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
