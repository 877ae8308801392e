//! Processor time of gateway, generator and machine during one phase.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::histogram::Percentiles;
use crate::measure::accounting::{CpuTime, MachineTime, cpu_time, cpu_time_alone};
use crate::measure::disturbance::{Disturbance, Moment};

/// Whose processor time counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    gateway: u32,
}

/// A phase that has begun.
#[derive(Debug)]
pub(crate) struct Running {
    meter: Meter,
    name: &'static str,
    began: Instant,
    before: Times,
}

#[derive(Debug)]
struct Times {
    gateway: CpuTime,
    generator: CpuTime,
    machine: MachineTime,
    moment: Moment,
}

/// What a phase took. Cores are processor time divided by the phase's length.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Phase {
    /// `connect`, `idle`, `loaded`, `active` or `churn`.
    pub(crate) name: &'static str,
    /// Its length.
    pub(crate) seconds: f64,
    /// What the gateway's process used.
    pub(crate) gateway_cores: f64,
    /// Of that, in user space.
    pub(crate) gateway_user_cores: f64,
    /// Of that, in the kernel.
    pub(crate) gateway_system_cores: f64,
    /// What this program used.
    pub(crate) generator_cores: f64,
    /// What the whole machine used, these two included.
    pub(crate) machine_cores: f64,
    /// What the hypervisor took.
    pub(crate) stolen_cores: f64,
    /// What programs outside the measurement used, in user space.
    pub(crate) foreign_cores: f64,
    /// How long a quota kept this program's control group from the processors.
    pub(crate) throttled_seconds: f64,
    /// How often a processor slowed down because it was hot.
    pub(crate) overheated: u64,
    /// Whether any of the last four is too much.
    pub(crate) disturbed: bool,
    /// How late the generator did what was due, in milliseconds; `None` where nothing was.
    pub(crate) lateness_ms: Option<Percentiles>,
}

impl Meter {
    /// For a gateway and this process.
    pub(crate) fn new(gateway: u32) -> Self {
        Self { gateway }
    }

    /// Begins a phase.
    ///
    /// # Errors
    /// If a process has ended.
    pub(crate) fn start(self, name: &'static str) -> Result<Running> {
        Ok(Running { meter: self, name, began: Instant::now(), before: self.times()? })
    }

    fn times(self) -> Result<Times> {
        Ok(Times {
            gateway: cpu_time([self.gateway])?,
            // The gateway is a child of this process.
            generator: cpu_time_alone(std::process::id())?,
            machine: MachineTime::now()?,
            moment: Moment::now([self.gateway])?,
        })
    }
}

impl Running {
    /// Ends the phase, with what is known of the generator's punctuality.
    ///
    /// # Errors
    /// If a process has ended.
    pub(crate) fn end(self, lateness_ms: Option<Percentiles>) -> Result<Phase> {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-9);
        let (now, before) = (self.meter.times()?, self.before);
        let cores = |time: Duration| time.as_secs_f64() / seconds;
        let gateway = now.gateway.since(before.gateway);
        let generator = now.generator.since(before.generator);
        let machine = now.machine.since(before.machine);
        let Disturbance { foreign_cores, stolen_cores, throttled_seconds, overheated, is_too_much } =
            now.moment.since(&before.moment, seconds);
        Ok(Phase {
            name: self.name,
            seconds,
            gateway_cores: cores(gateway.total()),
            gateway_user_cores: cores(gateway.user),
            gateway_system_cores: cores(gateway.system),
            generator_cores: cores(generator.total()),
            machine_cores: cores(machine.busy),
            stolen_cores,
            foreign_cores,
            throttled_seconds,
            overheated,
            disturbed: is_too_much,
            lateness_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_is_the_generators() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let phase = Meter::new(child.id()).start("idle").unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(200) {}
        let phase = phase.end(None).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(phase.generator_cores > 0.2 && phase.gateway_cores < 0.2, "{phase:?}");
        assert!(phase.seconds >= 0.2 && phase.machine_cores >= 0.2, "{phase:?}");
    }
}
