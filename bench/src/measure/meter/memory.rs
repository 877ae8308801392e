//! Memory of the processes of both ends.

use anyhow::Result;

use super::{Direction, Meter, count, reading};
use crate::measure::accounting::resident;
use crate::report::model::Reading;
use crate::systems::Running;

/// Transfers after which memory must not have grown.
const TRANSFERS: u32 = 10;

/// Resident memory of both ends in bytes; `None` where an end has no process, or it cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    gateway: Option<u64>,
    client: Option<u64>,
}

impl Resident {
    /// Now.
    pub(crate) fn of(running: &Running) -> Self {
        let [gateway, client] = [&running.gateway, &running.client].map(|end| resident(end.process?).ok());
        Self { gateway, client }
    }

    fn readings(self, [gateway, client]: [&str; 2]) -> impl Iterator<Item = Reading> {
        let mebibytes = |metric: &str, bytes: u64| reading(metric, "MiB", count(bytes) / f64::from(1 << 20));
        let ends = [(gateway, self.gateway), (client, self.client)];
        ends.into_iter().filter_map(move |(metric, bytes)| Some(mebibytes(metric, bytes?)))
    }

    /// What was added since `before`, in KiB; negative where memory was given back.
    fn growth(self, before: Self) -> impl Iterator<Item = Reading> {
        let ends =
            [("gateway_growth", self.gateway.zip(before.gateway)), ("client_growth", self.client.zip(before.client))];
        ends.into_iter().filter_map(|(metric, bytes)| {
            let (after, before) = bytes?;
            Some(reading(metric, "KiB", (count(after) - count(before)) / 1024.0))
        })
    }
}

impl Meter<'_> {
    /// What the processes hold now, and what they held right after their start.
    pub(super) fn memory(&self) -> Result<Vec<Reading>> {
        let now = Resident::of(self.running).readings(["gateway", "client"]);
        Ok(now.chain(self.fresh.readings(["gateway_start", "client_start"])).collect())
    }

    /// What the processes gain between the first and the last of several transfers, which go up and down in turn.
    pub(super) fn memory_growth(&self) -> Result<Vec<Reading>> {
        if self.running.processes().next().is_none() {
            return Ok(Vec::new());
        }
        let transfer = |direction| {
            let streams = self.streams(1, direction)?;
            self.interrupt.pause(self.effort.duration / TRANSFERS)?;
            drop(streams);
            Ok::<_, anyhow::Error>(Resident::of(self.running))
        };
        let directions = [Direction::Upload, Direction::Download].into_iter().cycle();
        // One each way belongs to the first, as each needs memory of its own.
        let first = directions.clone().take(2).try_fold(Resident::default(), |_, direction| transfer(direction))?;
        let transfers = usize::try_from(TRANSFERS)?;
        let last = directions.skip(2).take(transfers).try_fold(first, |_, direction| transfer(direction))?;
        Ok(last.growth(first).chain(first.readings(["gateway_first", "client_first"])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_without_a_process_have_no_memory() {
        let memory = Resident { gateway: Some(3 << 20), client: None };
        let readings: Vec<_> = memory.readings(["gateway", "client"]).collect();
        assert_eq!(readings, [reading("gateway", "MiB", 3.0)]);
    }

    #[test]
    fn growth_may_be_negative() {
        let before = Resident { gateway: Some(3 << 20), client: Some(2 << 20) };
        let after = Resident { gateway: Some((3 << 20) + 4096), client: Some(1 << 20) };
        let readings: Vec<_> = after.growth(before).collect();
        assert_eq!(readings, [reading("gateway_growth", "KiB", 4.0), reading("client_growth", "KiB", -1024.0)]);
    }
}
