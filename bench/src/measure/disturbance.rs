//! What others did to a run: load of other programs, time the hypervisor took, and processors that were slowed down.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::accounting::{CpuTime, MachineTime, cpu_time_alone, ended_children, family};
use crate::report::model::Run;

/// Where other programs use more than this many cores, a run counts as disturbed.
const FOREIGN_LIMIT: f64 = 0.10;
/// Where the hypervisor takes more than this many cores, a run counts as disturbed.
const STEAL_LIMIT: f64 = 0.05;
/// Where a quota kept this program from the processors for more than this share of the time, a run counts as disturbed.
const THROTTLED_LIMIT: f64 = 0.01;

/// What others did between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Disturbance {
    /// Cores that programs outside the measurement used, in user space.
    pub(crate) foreign_cores: f64,
    /// Cores the hypervisor took.
    pub(crate) stolen_cores: f64,
    /// How long a quota kept this program's control group from the processors, in seconds.
    pub(crate) throttled_seconds: f64,
    /// How often a processor slowed down because it was hot.
    pub(crate) overheated: u64,
    /// Whether any of these was too much.
    pub(crate) is_too_much: bool,
}

/// The machine at one moment.
#[derive(Debug)]
pub(crate) struct Moment {
    machine: MachineTime,
    processes: BTreeMap<u32, CpuTime>,
    /// What children of this program spent in user space that have ended.
    ended: Duration,
    throttled: Duration,
    overheated: u64,
}

impl Moment {
    /// Now; `processes` are those of the system that is measured, to which this program is added.
    pub(crate) fn now(processes: impl IntoIterator<Item = u32>) -> Result<Self> {
        let all = family(processes.into_iter().chain([std::process::id()])).into_iter();
        let processes = all.filter_map(|process| Some((process, cpu_time_alone(process).ok()?))).collect();
        let (ended, throttled, overheated) = (ended_children()?.user, throttled(), overheated());
        Ok(Self { machine: MachineTime::now()?, processes, ended, throttled, overheated })
    }

    /// Notes in `run`, which must know how long it took, what happened since `before`.
    pub(crate) fn judge(&self, before: &Self, run: &mut Run) {
        let found = self.since(before, run.seconds);
        run.foreign_cores = found.foreign_cores;
        run.stolen_cores = found.stolen_cores;
        run.throttled_seconds = found.throttled_seconds;
        run.overheated = found.overheated;
        run.disturbed = found.is_too_much;
    }

    /// What happened since `before`, which was so many seconds ago.
    pub(crate) fn since(&self, before: &Self, seconds: f64) -> Disturbance {
        let seconds = seconds.max(1e-9);
        let machine = self.machine.since(before.machine);
        let foreign_cores = machine.user.saturating_sub(self.own(before)).as_secs_f64() / seconds;
        let stolen_cores = machine.steal.as_secs_f64() / seconds;
        let throttled_seconds = self.throttled.saturating_sub(before.throttled).as_secs_f64();
        let overheated = self.overheated.saturating_sub(before.overheated);
        let is_too_much = foreign_cores > FOREIGN_LIMIT
            || stolen_cores > STEAL_LIMIT
            || throttled_seconds > THROTTLED_LIMIT * seconds
            || overheated > 0;
        Disturbance { foreign_cores, stolen_cores, throttled_seconds, overheated, is_too_much }
    }

    /// What the measured processes spent in user space since `before`; one that was started since counts from its
    /// start, and one that has ended since to its end.
    fn own(&self, before: &Self) -> Duration {
        let spent = |(process, time): (&u32, &CpuTime)| {
            time.since(before.processes.get(process).copied().unwrap_or_default()).user
        };
        let gone = before.processes.iter().filter(|(process, _)| !self.processes.contains_key(process));
        let earlier: Duration = gone.map(|(_, time)| time.user).sum();
        let of_ended = self.ended.saturating_sub(before.ended).saturating_sub(earlier);
        self.processes.iter().map(spent).sum::<Duration>() + of_ended
    }
}

/// How long the quota of this program's control group has kept it from the processors; zero where there is none.
fn throttled() -> Duration {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |folder: String| fs::read_to_string(Path::new(&folder).join("cpu.stat")).ok();
    let stats = groups.lines().filter_map(statistics_of).filter_map(read);
    stats.filter_map(|text| parse_throttled(&text)).max().unwrap_or_default()
}

/// The folder with the processor statistics of a line of `/proc/PID/cgroup` (cgroups(7)).
fn statistics_of(line: &str) -> Option<String> {
    let mut parts = line.splitn(3, ':');
    let (_hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    match controllers {
        "" => Some(format!("/sys/fs/cgroup{path}")),
        list if list.split(',').any(|controller| controller == "cpu") => Some(format!("/sys/fs/cgroup/cpu{path}")),
        _ => None,
    }
}

/// `throttled_usec` of version 2, `throttled_time` in nanoseconds of version 1.
fn parse_throttled(text: &str) -> Option<Duration> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        let value = value.trim().parse().ok()?;
        match name {
            "throttled_usec" => Some(Duration::from_micros(value)),
            "throttled_time" => Some(Duration::from_nanos(value)),
            _ => None,
        }
    })
}

/// How often processors have slowed down because they were hot; zero where they do not tell.
fn overheated() -> u64 {
    let processors = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let counts = processors.filter_map(|entry| {
        let count = fs::read_to_string(entry.path().join("thermal_throttle/core_throttle_count")).ok()?;
        count.trim().parse::<u64>().ok()
    });
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::example;

    fn moment(processes: &[(u32, u64)], foreign: u64, steal: u64) -> Moment {
        let time = |user| CpuTime { user: Duration::from_millis(user), system: Duration::ZERO };
        let own: u64 = processes.iter().map(|(_, user)| user).sum();
        let user = Duration::from_millis(own + foreign);
        Moment {
            machine: MachineTime { user, busy: user, steal: Duration::from_millis(steal) },
            processes: processes.iter().map(|(process, user)| (*process, time(*user))).collect(),
            ended: Duration::ZERO,
            throttled: Duration::ZERO,
            overheated: 0,
        }
    }

    fn judged(before: &Moment, after: &Moment) -> Run {
        let mut run = example().runs.swap_remove(0);
        run.seconds = 1.0;
        after.judge(before, &mut run);
        run
    }

    #[test]
    fn foreign_load_and_steal_disturb_a_run() {
        let before = moment(&[(1, 100)], 0, 0);
        let run = judged(&before, &moment(&[(1, 900)], 90, 40));
        assert!(!run.disturbed && (run.foreign_cores - 0.09).abs() < 1e-9, "{run:?}");
        assert!(judged(&before, &moment(&[(1, 100)], 200, 0)).disturbed);
        assert!(judged(&before, &moment(&[(1, 100)], 0, 60)).disturbed);
    }

    #[test]
    fn process_that_was_started_meanwhile_is_not_foreign() {
        let run = judged(&moment(&[(1, 100)], 0, 0), &moment(&[(1, 100), (2, 300)], 0, 0));
        assert!(!run.disturbed, "{run:?}");
    }

    #[test]
    fn process_that_ended_meanwhile_is_not_foreign() {
        let before = moment(&[(1, 100), (2, 500)], 0, 0);
        // It spent 800 ms in all, 300 ms of it since then.
        let mut after = Moment { ended: Duration::from_millis(800), ..moment(&[(1, 100)], 500 + 300, 0) };
        let run = judged(&before, &after);
        assert!(!run.disturbed && run.foreign_cores < 1e-9, "{run:?}");
        after.machine.user += Duration::from_millis(200);
        assert!(judged(&before, &after).disturbed);
    }

    #[test]
    fn time_of_a_child_that_ended_is_told() {
        let before = Moment::now([]).unwrap().ended;
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", script]).status().unwrap().success());
        assert!(Moment::now([]).unwrap().ended > before);
    }

    #[test]
    fn child_of_this_program_counts_once() {
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let moment = Moment::now([child.id()]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let own = cpu_time_alone(std::process::id()).unwrap().total();
        assert!(moment.processes.contains_key(&child.id()), "{moment:?}");
        assert!(moment.processes[&std::process::id()].total() <= own, "{moment:?}");
    }

    #[test]
    fn slow_processors_disturb_a_run() {
        let before = moment(&[(1, 100)], 0, 0);
        let after = Moment { throttled: Duration::from_millis(20), ..moment(&[(1, 100)], 0, 0) };
        let run = judged(&before, &after);
        assert!(run.disturbed && (run.throttled_seconds - 0.02).abs() < 1e-9, "{run:?}");
        assert!(judged(&before, &Moment { overheated: 1, ..moment(&[(1, 100)], 0, 0) }).disturbed);
    }

    #[test]
    fn both_versions_of_control_groups_tell_of_their_quota() {
        assert_eq!(statistics_of("0::/user.slice/a:b").as_deref(), Some("/sys/fs/cgroup/user.slice/a:b"));
        assert_eq!(statistics_of("4:cpu,cpuacct:/x").as_deref(), Some("/sys/fs/cgroup/cpu/x"));
        assert_eq!(statistics_of("3:cpuset:/x"), None);
        let v2 = "usage_usec 5\nnr_throttled 2\nthrottled_usec 1500\n";
        assert_eq!(parse_throttled(v2), Some(Duration::from_micros(1_500)));
        assert_eq!(parse_throttled("nr_periods 0\nthrottled_time 2000\n"), Some(Duration::from_micros(2)));
        assert_eq!(parse_throttled(""), None);
    }
}
