//! Round-trip times through the tunnel.

use std::time::Instant;

use anyhow::{Context, Result};

use super::{Direction, Meter, Outcome, gigabits, reading};
use crate::report::model::Reading;
use adit_lab::traffic::{Latencies, echoes};

/// Echo requests per second.
const ECHO_RATE: u32 = 1_000;
/// Shares of all round-trip times that are reported, and their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Meter<'_> {
    /// Sends echo requests at a steady rate, alone or beside one connection under full load.
    pub(super) fn round_trips(&self, loaded: bool) -> Result<Outcome> {
        let streams = if loaded { Some(self.streams(1, Direction::Upload)?) } else { None };
        let mut started = (Instant::now(), 0);
        if let Some(streams) = &streams {
            self.interrupt.pause(self.effort.warm_up)?;
            started = (Instant::now(), streams.received());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration is positive and short")]
        let requests = (self.effort.duration.as_secs_f64() * f64::from(ECHO_RATE)) as u32;
        let interrupt = self.interrupt.clone();
        let (client, target) = (&self.running.client.host, self.running.gateway.address);
        let latencies = echoes(client, target, ECHO_RATE, requests, move || interrupt.check())?;
        let load = streams.map(|streams| gigabits(streams.received() - started.1, started.0.elapsed()));
        let mut readings = quantiles(&latencies)?;
        readings.extend(load.map(|rate| reading("load", "Gbit/s", rate)));
        Ok(Outcome { readings, timeline: None, latencies: Some(latencies.distribution()) })
    }
}

fn quantiles(latencies: &Latencies) -> Result<Vec<Reading>> {
    let mut readings = Vec::with_capacity(QUANTILES.len() + 1);
    for (name, share) in QUANTILES {
        readings.push(reading(name, "µs", latencies.quantile(share).context("no echo request was answered")?));
    }
    let lost = u32::try_from(latencies.lost()).context("echo requests are few")?;
    readings.push(reading("lost", "packets", lost.into()));
    Ok(readings)
}
