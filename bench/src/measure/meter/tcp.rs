//! TCP connections through the tunnel: what arrives of them, what that costs, and what TCP had to mend.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Direction, Meter, Outcome, count, gigabits, reading};
use crate::measure::accounting::{Counters, CpuTime, MachineTime, cpu_time};
use crate::report::model::{Reading, Timeline};
use crate::systems::Running;
use adit_lab::traffic::{StreamPlan, Streams};

/// Time between two values of a timeline.
const INTERVAL: Duration = Duration::from_millis(100);

/// What TCP and UDP of both hosts count of disorder: the metric, its unit, and the kernel's counters that make it up.
const DISORDER: [(&str, &str, &[&str]); 5] = [
    ("retransmits", "segments", &["TcpRetransSegs"]),
    ("checksum_errors", "segments", &["TcpInCsumErrors"]),
    // What the receiver had to keep until something before it came, and what the sender then found to be out of order.
    ("out_of_order", "segments", &["TcpExtTCPOFOQueue"]),
    ("reordering", "events", &["TcpExtTCPSACKReorder", "TcpExtTCPTSReorder", "TcpExtTCPRenoReorder"]),
    ("udp_buffer_drops", "datagrams", &["UdpRcvbufErrors"]),
];

impl Meter<'_> {
    /// Connections one way, as fast as they go.
    pub(super) fn tcp(&self, connections: usize, direction: Direction) -> Result<Outcome> {
        let streams = self.streams(connections, direction)?;
        let (outcome, _) = self.count_arrivals(&[streams])?;
        Ok(outcome)
    }

    /// One connection each way, both at once.
    pub(super) fn tcp_both(&self) -> Result<Outcome> {
        let both = [self.streams(1, Direction::Upload)?, self.streams(1, Direction::Download)?];
        let (mut outcome, rates) = self.count_arrivals(&both)?;
        let each = ["rate_up", "rate_down"].into_iter().zip(rates);
        let each = each.map(|(metric, rate)| reading(metric, "Gbit/s", rate));
        outcome.readings.splice(1..1, each);
        Ok(outcome)
    }

    /// One connection at half the rate that it reached alone.
    pub(super) fn tcp_half(&self) -> Result<Outcome> {
        let highest = match self.hint {
            Some(rate) => rate,
            None => {
                let alone = self.tcp(1, Direction::Upload)?;
                alone.readings.first().context("a rate comes first")?.value
            }
        };
        let rate = highest / 2.0;
        let Running { client, gateway, .. } = &*self.running;
        let streams =
            Streams::start_paced(&client.host, &gateway.host, &self.plan(1, Direction::Upload), rate * 1e9 / 8.0)?;
        let (mut outcome, _) = self.count_arrivals(&[streams])?;
        outcome.readings.insert(1, reading("offered", "Gbit/s", rate));
        Ok(outcome)
    }

    /// Opens connections under full load.
    pub(super) fn streams(&self, connections: usize, direction: Direction) -> Result<Streams> {
        let Running { client, gateway, .. } = &*self.running;
        Streams::start(&client.host, &gateway.host, &self.plan(connections, direction))
    }

    fn plan(&self, connections: usize, direction: Direction) -> StreamPlan {
        let congestion = self.effort.congestion.clone();
        StreamPlan { server: self.target(), connections, direction, congestion }
    }

    /// Lets `streams` warm up and counts for the usual time; also returns the rate of each, in Gbit/s.
    fn count_arrivals(&self, streams: &[Streams]) -> Result<(Outcome, Vec<f64>)> {
        self.interrupt.pause(self.effort.warm_up)?;
        let before = Moment::of(self.running, streams)?;
        let timeline = self.watch(|| streams.iter().map(Streams::received).sum())?;
        let after = Moment::of(self.running, streams)?;
        let elapsed = after.at.duration_since(before.at);
        let each = after.received.iter().zip(&before.received).map(|(after, before)| after - before);
        let rates = each.map(|bytes| gigabits(bytes, elapsed)).collect();
        let readings = after.readings(&before)?;
        Ok((Outcome { readings, timeline: Some(timeline), latencies: None }, rates))
    }

    /// Waits for the usual time, and notes the rate of what `received` counts.
    fn watch(&self, received: impl Fn() -> u64) -> Result<Timeline> {
        let start = Instant::now();
        let (mut values, mut last) = (Vec::new(), (start, received()));
        while start.elapsed() < self.effort.duration {
            let end = (start + self.effort.duration).min(last.0 + INTERVAL);
            self.interrupt.pause(end.saturating_duration_since(Instant::now()))?;
            let now = (Instant::now(), received());
            let passed = now.0.duration_since(last.0);
            // The rest of an interval at the end says little.
            if passed >= INTERVAL / 2 {
                values.push(gigabits(now.1 - last.1, passed));
            }
            last = now;
        }
        let (metric, unit) = ("rate".to_owned(), "Gbit/s".to_owned());
        Ok(Timeline { interval_seconds: INTERVAL.as_secs_f64(), metric, unit, values })
    }
}

/// All counters at one moment.
struct Moment {
    at: Instant,
    received: Vec<u64>,
    ends: Vec<(&'static str, CpuTime)>,
    machine: MachineTime,
    hosts: [Counters; 2],
}

impl Moment {
    fn of(running: &Running, streams: &[Streams]) -> Result<Self> {
        let hosts = [Counters::of(&running.client.host)?, Counters::of(&running.gateway.host)?];
        let mut ends = Vec::new();
        for (name, end) in [("client", &running.client), ("gateway", &running.gateway)] {
            if let Some(process) = end.process {
                ends.push((name, cpu_time([process])?));
            }
        }
        let (machine, received) = (MachineTime::now()?, streams.iter().map(Streams::received).collect());
        Ok(Self { at: Instant::now(), received, ends, machine, hosts })
    }

    fn readings(&self, before: &Self) -> Result<Vec<Reading>> {
        let total = |moment: &Self| moment.received.iter().sum::<u64>();
        let bytes = total(self) - total(before);
        ensure!(bytes > 0, "no byte arrived");
        let mut readings = vec![reading("rate", "Gbit/s", gigabits(bytes, self.at.duration_since(before.at)))];
        readings.extend(self.cost(before, count(bytes) / 1e9));
        for (metric, unit, names) in DISORDER {
            let hosts = self.hosts.iter().zip(&before.hosts);
            let grown = hosts.map(|(after, before)| names.iter().map(|name| after.growth(before, name)).sum::<u64>());
            readings.push(reading(metric, unit, count(grown.sum())));
        }
        Ok(readings)
    }

    /// Processor time of the processes, together and each, and of the whole machine.
    fn cost(&self, before: &Self, gigabytes: f64) -> Vec<Reading> {
        let per_gigabyte = |metric: &str, time: Duration| reading(metric, "s/GB", time.as_secs_f64() / gigabytes);
        let ends = self.ends.iter().zip(&before.ends);
        let spent: Vec<_> = ends.map(|((name, after), (_, before))| (*name, after.since(*before))).collect();
        let mut readings = Vec::new();
        if !spent.is_empty() {
            readings.push(per_gigabyte("cpu", spent.iter().map(|(_, time)| time.total()).sum()));
            readings.push(per_gigabyte("cpu_user", spent.iter().map(|(_, time)| time.user).sum()));
            readings.push(per_gigabyte("cpu_system", spent.iter().map(|(_, time)| time.system).sum()));
        }
        for (name, time) in spent {
            readings.push(per_gigabyte(&format!("cpu_{name}_user"), time.user));
            readings.push(per_gigabyte(&format!("cpu_{name}_system"), time.system));
        }
        readings.push(per_gigabyte("machine_cpu", self.machine.since(before.machine).busy));
        readings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(received: &[u64], user: u64, at: Instant) -> Moment {
        let time = CpuTime { user: Duration::from_secs(user), system: Duration::from_secs(user * 2) };
        let ends = vec![("client", time), ("gateway", time)];
        let machine = MachineTime::default();
        Moment { at, received: received.to_vec(), ends, machine, hosts: [Counters::default(), Counters::default()] }
    }

    #[test]
    fn cost_is_that_of_each_process_by_gigabyte() {
        let start = Instant::now();
        let before = moment(&[0, 0], 1, start);
        let after = moment(&[3_000_000_000, 1_000_000_000], 3, start + Duration::from_secs(4));
        let readings = after.readings(&before).unwrap();
        let value = |metric: &str| readings.iter().find(|one| one.metric == metric).unwrap().value;
        assert!((value("rate") - 8.0).abs() < 1e-9);
        let expected = [("cpu", 3.0), ("cpu_user", 1.0), ("cpu_system", 2.0), ("cpu_gateway_system", 1.0)];
        for (metric, expected) in expected {
            assert!((value(metric) - expected).abs() < 1e-9, "{metric} {}", value(metric));
        }
        assert!(value("out_of_order").abs() < 1e-9);
        assert!(before.readings(&before).is_err(), "nothing arrived");
    }
}
