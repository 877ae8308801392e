//! How each task is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::accounting::{Counters, CpuTime, MachineTime, cpu_time, resident};
use super::task::Task;
use crate::interrupt::Interrupt;
use crate::systems::Running;
use crate::traffic::{
    BarragePlan, BarrageTarget, Direction, Latencies, Search, StreamPlan, Streams, echoes, highest_rate,
};

/// Where all traffic goes to: the port for names (RFC 1035), the only one that Adit's gateway lets clients reach on itself.
const PORT: u16 = 53;
/// Loss that a rate may have and still count as held.
const PERMITTED_LOSS: f64 = 0.01;
/// A sender that reaches less than this share of a rate did not try it.
const REACHED: f64 = 0.97;
/// First rate of a search, packets per second; later rounds begin where the last one ended.
const FIRST_RATE: f64 = 40_000.0;
/// No search goes higher, packets per second.
const HIGHEST_RATE: f64 = 2e6;
/// Echo requests per second.
const ECHO_RATE: u32 = 1_000;
/// Shares of all round-trip times that are reported, and their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// How long measurements take, and with what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Effort {
    /// Time under load before counting begins.
    #[serde(rename = "warm_up_seconds", serialize_with = "seconds")]
    pub(super) warm_up: Duration,
    /// Time of counting, for TCP and round-trip times.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub(super) duration: Duration,
    /// Time of one rate of a search, and of a flood.
    #[serde(rename = "step_seconds", serialize_with = "seconds")]
    pub(super) step: Duration,
    /// Where a search ends: ratio of the lowest rate that failed to the highest that held.
    #[serde(rename = "search_precision")]
    pub(super) precision: f64,
    /// The congestion control of connections through the tunnel.
    pub(super) congestion: String,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// One value that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// What it is.
    pub(super) metric: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// Its value.
    pub(super) value: f64,
}

fn reading(metric: &'static str, unit: &'static str, value: f64) -> Reading {
    Reading { metric, unit, value }
}

impl Effort {
    /// About how long a task takes.
    pub(super) fn expected(&self, task: Task) -> Duration {
        const STEPS: u32 = 8;
        match task {
            Task::Tcp { .. } | Task::Rtt { loaded: true } => self.warm_up + self.duration,
            Task::Rtt { loaded: false } => self.duration,
            Task::UdpFlood { .. } => self.warm_up.min(self.step) + self.step,
            Task::UdpLoss { .. } => (self.step + Duration::from_millis(150)) * STEPS,
            Task::Memory => Duration::ZERO,
        }
    }

    /// Lets a running system do `task`; `hint` is what a search found in an earlier round.
    pub(super) fn measure(
        &self,
        task: Task,
        running: &Running,
        hint: Option<f64>,
        interrupt: &Interrupt,
    ) -> Result<Vec<Reading>> {
        interrupt.check()?;
        match task {
            Task::Tcp { connections, direction } => self.tcp(running, connections, direction, interrupt),
            Task::UdpLoss { size } => self.udp_loss(running, size, hint, interrupt),
            Task::UdpFlood { size } => self.udp_flood(running, size),
            Task::Rtt { loaded } => self.round_trips(running, loaded, interrupt),
            Task::Memory => memory(running),
        }
    }

    fn tcp(
        &self,
        running: &Running,
        connections: usize,
        direction: Direction,
        interrupt: &Interrupt,
    ) -> Result<Vec<Reading>> {
        let streams = self.streams(running, connections, direction)?;
        interrupt.pause(self.warm_up)?;
        let before = Moment::of(running, &streams)?;
        interrupt.pause(self.duration)?;
        let after = Moment::of(running, &streams)?;
        drop(streams);
        after.readings(&before)
    }

    fn streams(&self, running: &Running, connections: usize, direction: Direction) -> Result<Streams> {
        let server = target_of(running);
        let plan = StreamPlan { server, connections, direction, congestion: self.congestion.clone() };
        Streams::start(&running.client.host, &running.gateway.host, &plan)
    }

    fn udp_loss(
        &self,
        running: &Running,
        size: usize,
        hint: Option<f64>,
        interrupt: &Interrupt,
    ) -> Result<Vec<Reading>> {
        let target = BarrageTarget::start(&running.gateway.host, target_of(running))?;
        let (first, stride) = hint.filter(|rate| *rate > 1.0).map_or((FIRST_RATE, 1.7), |rate| (rate, 1.2));
        let search = Search { first, stride, precision: self.precision, ceiling: HIGHEST_RATE };
        let (mut at_limit, mut sender_limited) = (None, false);
        let rate = highest_rate(search, |rate| {
            interrupt.check()?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are below the ceiling")]
            let plan = BarragePlan { size, rate: Some(rate as u32), warm_up: Duration::ZERO, duration: self.step };
            let report = target.send_from(&running.client.host, plan)?;
            let reached = report.offered() >= rate * REACHED;
            let holds = report.loss() <= PERMITTED_LOSS && reached;
            sender_limited = if holds { false } else { !reached };
            if holds {
                at_limit = Some(report);
            }
            Ok(holds)
        })?;
        let mut readings = vec![reading("rate", "packets/s", rate), reading("goodput", "Mbit/s", megabits(rate, size))];
        readings.extend(at_limit.map(|report| reading("reordered", "packets", count(report.reordered))));
        readings.push(reading("sender_limited", "0 or 1", f64::from(u8::from(sender_limited))));
        Ok(readings)
    }

    fn udp_flood(&self, running: &Running, size: usize) -> Result<Vec<Reading>> {
        let target = BarrageTarget::start(&running.gateway.host, target_of(running))?;
        let plan = BarragePlan { size, rate: None, warm_up: self.warm_up.min(self.step), duration: self.step };
        let report = target.send_from(&running.client.host, plan)?;
        Ok(vec![
            reading("delivered", "packets/s", report.delivered()),
            reading("goodput", "Mbit/s", megabits(report.delivered(), size)),
            reading("offered", "packets/s", report.offered()),
            reading("reordered", "packets", count(report.reordered)),
        ])
    }

    fn round_trips(&self, running: &Running, loaded: bool, interrupt: &Interrupt) -> Result<Vec<Reading>> {
        let streams = if loaded { Some(self.streams(running, 1, Direction::Upload)?) } else { None };
        let mut started = (Instant::now(), 0);
        if let Some(streams) = &streams {
            interrupt.pause(self.warm_up)?;
            started = (Instant::now(), streams.received());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration is positive and short")]
        let requests = (self.duration.as_secs_f64() * f64::from(ECHO_RATE)) as u32;
        let latencies = echoes(&running.client.host, running.gateway.address, ECHO_RATE, requests)?;
        let load = streams.map(|streams| gigabits(streams.received() - started.1, started.0.elapsed()));
        let mut readings = quantiles(&latencies)?;
        readings.extend(load.map(|rate| reading("load", "Gbit/s", rate)));
        Ok(readings)
    }
}

fn target_of(running: &Running) -> SocketAddr {
    (running.gateway.address, PORT).into()
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

fn memory(running: &Running) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for (metric, end) in [("gateway", &running.gateway), ("client", &running.client)] {
        if let Some(process) = end.process {
            readings.push(reading(metric, "MiB", count(resident(process)?) / f64::from(1 << 20)));
        }
    }
    Ok(readings)
}

/// All counters at one moment of a TCP measurement.
struct Moment {
    at: Instant,
    received: u64,
    processes: CpuTime,
    machine: MachineTime,
    client: Counters,
    gateway: Counters,
}

impl Moment {
    fn of(running: &Running, streams: &Streams) -> Result<Self> {
        let (client, gateway) = (Counters::of(&running.client.host)?, Counters::of(&running.gateway.host)?);
        let (processes, machine) = (cpu_time(running.processes())?, MachineTime::now()?);
        Ok(Self { at: Instant::now(), received: streams.received(), processes, machine, client, gateway })
    }

    fn readings(&self, before: &Self) -> Result<Vec<Reading>> {
        let bytes = self.received - before.received;
        ensure!(bytes > 0, "no byte arrived");
        let gigabytes = count(bytes) / 1e9;
        let processes = self.processes.since(before.processes);
        let machine = self.machine.since(before.machine);
        let grown =
            |name: &str| count(self.client.growth(&before.client, name) + self.gateway.growth(&before.gateway, name));
        let mut readings = vec![reading("rate", "Gbit/s", gigabits(bytes, self.at.duration_since(before.at)))];
        if processes.total() > Duration::ZERO {
            readings.push(reading("cpu", "s/GB", processes.total().as_secs_f64() / gigabytes));
            readings.push(reading("cpu_user", "s/GB", processes.user.as_secs_f64() / gigabytes));
        }
        readings.push(reading("machine_cpu", "s/GB", machine.busy.as_secs_f64() / gigabytes));
        readings.push(reading("retransmits", "segments", grown("TcpRetransSegs")));
        readings.push(reading("checksum_errors", "segments", grown("TcpInCsumErrors")));
        readings.push(reading("udp_buffer_drops", "datagrams", grown("UdpRcvbufErrors")));
        Ok(readings)
    }
}

fn gigabits(bytes: u64, elapsed: Duration) -> f64 {
    count(bytes) * 8.0 / elapsed.as_secs_f64() / 1e9
}

/// Rate of UDP payload.
fn megabits(packets_per_second: f64, size: usize) -> f64 {
    packets_per_second * f64::from(u32::try_from(size).unwrap_or(u32::MAX)) * 8.0 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "no figure needs more than 52 bits")]
fn count(value: u64) -> f64 {
    value as f64
}
