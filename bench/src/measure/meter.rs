//! How each task is measured.

mod flood;
mod life;
mod memory;
mod round_trips;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::task::Task;
use crate::interrupt::Interrupt;
use crate::report::model::{Effort, Reading, Timeline};
use crate::systems::Running;
use adit_lab::traffic::Direction;

pub(super) use memory::Resident;

/// Where all traffic goes to: the port for names (RFC 1035), the only one that Adit's gateway lets clients reach on
/// itself.
const PORT: u16 = 53;

/// What came of one task.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Outcome {
    /// Values, the most important first; none where a system has nothing of the kind, such as processes.
    pub(super) readings: Vec<Reading>,
    /// How one of them went on.
    pub(super) timeline: Option<Timeline>,
    /// The distribution of round-trip times.
    pub(super) latencies: Option<Vec<(f64, f64)>>,
}

impl From<Vec<Reading>> for Outcome {
    fn from(readings: Vec<Reading>) -> Self {
        Self { readings, ..Self::default() }
    }
}

/// One value that was read.
pub(crate) fn reading(metric: &str, unit: &str, value: f64) -> Reading {
    Reading { metric: metric.to_owned(), unit: unit.to_owned(), value }
}

/// A time that was read, in milliseconds.
pub(crate) fn milliseconds(metric: &str, time: Duration) -> Reading {
    reading(metric, "ms", time.as_secs_f64() * 1e3)
}

/// About how long a task takes.
pub(super) fn expected(effort: &Effort, task: Task) -> Duration {
    const STEPS: u32 = 10;
    match task {
        Task::Tcp { .. } | Task::TcpBoth | Task::TcpHalf | Task::Rtt { loaded: true } => {
            effort.warm_up + effort.duration
        }
        Task::Rtt { loaded: false } | Task::MemoryGrowth => effort.duration,
        Task::Flooded => (effort.warm_up + effort.duration) * 2,
        Task::UdpFlood { .. } => effort.warm_up.min(effort.step) + effort.step,
        Task::UdpLoss { .. } => (effort.step + Duration::from_millis(150)) * STEPS,
        Task::Memory => Duration::ZERO,
        Task::Connect => Duration::from_secs(1),
        Task::Reconnect => Duration::from_secs(3),
    }
}

/// Lets a running system do tasks.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    /// How long, and with what.
    pub(super) effort: &'a Effort,
    pub(super) running: &'a mut Running,
    /// The longest that the network keeps a packet from the client, but for a queue.
    pub(super) delay: Duration,
    /// Memory right after the start.
    pub(super) fresh: Resident,
    /// The rate that [`Task::hint`] refers to, from an earlier run of this system.
    pub(super) hint: Option<f64>,
    /// Whether to go on.
    pub(super) interrupt: &'a Interrupt,
}

impl Meter<'_> {
    pub(super) fn measure(&mut self, task: Task) -> Result<Outcome> {
        self.interrupt.check()?;
        match task {
            Task::Tcp { connections, direction } => self.tcp(connections, direction),
            Task::TcpBoth => self.tcp_both(),
            Task::TcpHalf => self.tcp_half(),
            Task::UdpLoss { size } => self.udp_loss(size).map(Outcome::from),
            Task::UdpFlood { size } => self.udp_flood(size).map(Outcome::from),
            Task::Rtt { loaded } => self.round_trips(loaded),
            Task::Flooded => self.flooded(),
            Task::MemoryGrowth => self.memory_growth().map(Outcome::from),
            Task::Memory => self.memory().map(Outcome::from),
            Task::Connect => self.connect().map(Outcome::from),
            Task::Reconnect => self.reconnect().map(Outcome::from),
        }
    }

    /// Where traffic through the tunnel goes to.
    fn target(&self) -> SocketAddr {
        (self.running.gateway.address, PORT).into()
    }
}

fn gigabits(bytes: u64, elapsed: Duration) -> f64 {
    count(bytes) * 8.0 / elapsed.as_secs_f64().max(1e-9) / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "no figure needs more than 52 bits")]
pub(crate) fn count(value: u64) -> f64 {
    value as f64
}
