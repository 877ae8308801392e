//! What a system should reach beside a reference, and in which order all take their turns.

use crate::load::targets::Bound;
use crate::report::model::Run;

/// A system, and the carrier by which it has to travel for its figures to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) system: &'static str,
    pub(crate) carrier: &'static str,
}

impl Side {
    /// A system that has to travel by this.
    pub(crate) const fn of(system: &'static str, carrier: &'static str) -> Self {
        Self { system, carrier }
    }
}

/// What is compared of two systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Payload that arrives.
    Rate,
    /// Processor time of the gateway for each gigabyte of it.
    GatewayCpu,
    /// Processor time of the client for each gigabyte of it.
    ClientCpu,
}

impl Figure {
    /// Its name in the JSON object.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::GatewayCpu => "gateway_cpu",
            Self::ClientCpu => "client_cpu",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Rate => "Gbit/s",
            Self::GatewayCpu | Self::ClientCpu => "s/GB",
        }
    }

    /// Its value in a run, if it has one above 0.
    pub(crate) fn value(self, run: &Run) -> Option<f64> {
        let both = |user, system| Some(run.value(user)? + run.value(system)?);
        let value = match self {
            Self::Rate => run.value("rate"),
            Self::GatewayCpu => both("cpu_gateway_user", "cpu_gateway_system"),
            Self::ClientCpu => both("cpu_client_user", "cpu_client_system"),
        };
        value.filter(|value| *value > 0.0)
    }
}

/// What one system should reach, as a multiple of what another one does in the same round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) side: Side,
    pub(crate) reference: Side,
    pub(crate) figure: Figure,
    /// Where the multiple should be; `None` where it is stated only.
    pub(crate) bound: Option<Bound>,
}

/// Who takes a turn in a round, in order: each reference before and after those that are compared with it, so that what
/// changes steadily meets both alike. In every second round these go backwards.
pub(crate) fn order(goals: &[Goal], round: u32) -> Vec<Vec<&'static str>> {
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
