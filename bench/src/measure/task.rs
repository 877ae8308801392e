//! What can be measured of a system.

use std::fmt;
use std::str::FromStr;

use adit_lab::traffic::Direction;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Connections under full load for a while.
    Tcp {
        /// How many at once.
        connections: usize,
        /// Which way, seen from the client.
        direction: Direction,
    },
    /// One connection each way, both under full load at once.
    TcpBoth,
    /// One connection from the client at half the rate that it reached alone: a tunnel that is not at its limit has
    /// nothing to mend.
    TcpHalf,
    /// The highest rate of UDP packets to the gateway with at most 1 % loss, and that with at most 0.1 %, by search.
    UdpLoss {
        /// UDP payload of each.
        size: usize,
    },
    /// What arrives while the client sends as many UDP packets as it can.
    UdpFlood {
        /// UDP payload of each.
        size: usize,
    },
    /// Round-trip times at 1,000 echo requests a second.
    Rtt {
        /// Whether one TCP connection to the gateway is under full load meanwhile.
        loaded: bool,
    },
    /// One connection from the client while a stranger floods the gateway's port.
    Flooded,
    /// What the processes gain in resident memory by ten short transfers.
    MemoryGrowth,
    /// Resident memory of the processes, at their start and after all that came before.
    Memory,
    /// From the start of a client that had connected before to the first packet that passes.
    Connect,
    /// From a pulled cable's return, and from a gateway's death, to the next packet that passes.
    Reconnect,
}

use Direction::{Download, Upload};

/// All measurements, in the order in which they are made.
const ALL: [Task; 17] = [
    Task::Rtt { loaded: false },
    Task::Tcp { connections: 1, direction: Upload },
    Task::Tcp { connections: 1, direction: Download },
    Task::Tcp { connections: 4, direction: Upload },
    Task::Tcp { connections: 4, direction: Download },
    Task::TcpBoth,
    Task::TcpHalf,
    Task::Rtt { loaded: true },
    Task::UdpLoss { size: 1_200 },
    Task::UdpLoss { size: 64 },
    Task::UdpFlood { size: 1_200 },
    Task::UdpFlood { size: 64 },
    Task::Flooded,
    Task::MemoryGrowth,
    Task::Memory,
    // These two start programs anew, so nothing comes after them.
    Task::Connect,
    Task::Reconnect,
];

impl Task {
    /// Its name in the report and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp { connections: 1, direction: Upload } => "tcp-up",
            Self::Tcp { connections: 1, direction: Download } => "tcp-down",
            Self::Tcp { direction: Upload, .. } => "tcp4-up",
            Self::Tcp { direction: Download, .. } => "tcp4-down",
            Self::TcpBoth => "tcp-both",
            Self::TcpHalf => "tcp-half",
            Self::UdpLoss { size: 64 } => "udp64-loss",
            Self::UdpLoss { .. } => "udp1200-loss",
            Self::UdpFlood { size: 64 } => "udp64-flood",
            Self::UdpFlood { .. } => "udp1200-flood",
            Self::Rtt { loaded: false } => "rtt-idle",
            Self::Rtt { loaded: true } => "rtt-load",
            Self::Flooded => "flooded",
            Self::MemoryGrowth => "memory-growth",
            Self::Memory => "memory",
            Self::Connect => "connect",
            Self::Reconnect => "reconnect",
        }
    }

    /// The task whose last `rate` helps this one to begin; a search begins where it ended before.
    pub(crate) fn hint(self) -> Self {
        if self == Self::TcpHalf { Self::Tcp { connections: 1, direction: Upload } } else { self }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A task or a group of them, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Selection(&'static str);

/// Groups whose members do not begin with their name, with those members.
const GROUPS: [(&str, &[&str]); 2] =
    [("cpu", &["tcp-up", "tcp-down"]), ("udp", &["udp64-loss", "udp64-flood", "udp1200-loss", "udp1200-flood"])];
/// Groups whose members begin with their name and a hyphen.
const PREFIXES: [&str; 5] = ["tcp", "tcp4", "udp64", "udp1200", "rtt"];

impl Selection {
    fn holds(self, task: Task) -> bool {
        let name = task.name();
        let grouped = GROUPS.iter().any(|(group, members)| *group == self.0 && members.contains(&name));
        grouped || name == self.0 || name.strip_prefix(self.0).is_some_and(|rest| rest.starts_with('-'))
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let tasks = ALL.iter().map(|task| task.name());
        let names: Vec<&'static str> = tasks.chain(GROUPS.iter().map(|(name, _)| *name)).chain(PREFIXES).collect();
        let found = names.iter().find(|name| **name == text);
        found.map(|name| Self(name)).ok_or_else(|| format!("known are {}", names.join(", ")))
    }
}

/// The tasks that were asked for, in their order; all where nothing was.
pub(crate) fn selected(selections: &[Selection]) -> Vec<Task> {
    let wanted = |task: Task| selections.is_empty() || selections.iter().any(|selection| selection.holds(task));
    ALL.into_iter().filter(|task| wanted(*task)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(selections: &[&str]) -> Vec<&'static str> {
        let selections: Vec<Selection> = selections.iter().map(|name| name.parse().unwrap()).collect();
        selected(&selections).into_iter().map(Task::name).collect()
    }

    #[test]
    fn groups_stand_for_their_members() {
        assert_eq!(names(&["tcp"]), ["tcp-up", "tcp-down", "tcp-both", "tcp-half"]);
        assert_eq!(names(&["memory"]), ["memory-growth", "memory"]);
        assert_eq!(names(&["tcp4"]), ["tcp4-up", "tcp4-down"]);
        assert_eq!(names(&["rtt", "udp64-flood"]), ["rtt-idle", "rtt-load", "udp64-flood"]);
        assert_eq!(names(&["cpu"]), ["tcp-up", "tcp-down"]);
        assert_eq!(names(&["udp"]).len(), 4);
        assert_eq!(names(&[]).len(), ALL.len());
    }

    #[test]
    fn names_are_distinct_and_unknown_ones_are_refused() {
        let mut all = names(&[]);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), ALL.len());
        assert!("tpc".parse::<Selection>().unwrap_err().contains("tcp-up"));
    }
}
