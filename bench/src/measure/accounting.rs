//! What traffic cost: processor time and memory of processes, and the kernel's counters, read from `/proc`.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::{SysconfVar, sysconf};

use adit_lab::Host;

/// Processor time of a process, all its threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    /// In the kernel on its behalf.
    pub(crate) system: Duration,
}

impl CpuTime {
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    fn plus(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }

    /// What was spent since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user.saturating_sub(before.user), system: self.system.saturating_sub(before.system) }
    }
}

/// Several processes and their present children, each once, also where one of them is a child of another.
pub(crate) fn family(processes: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    processes.into_iter().flat_map(with_children).collect()
}

/// Processor time of several processes and their present children together.
pub(crate) fn cpu_time(processes: impl IntoIterator<Item = u32>) -> Result<CpuTime> {
    sum_of_family(processes, cpu_time_alone, CpuTime::plus)
}

/// The sum of a figure over processes and their children. A child that cannot be read has ended meanwhile.
fn sum_of_family<T: Default>(
    processes: impl IntoIterator<Item = u32>,
    figure: impl Fn(u32) -> Result<T>,
    plus: impl Fn(T, T) -> T,
) -> Result<T> {
    let processes: Vec<u32> = processes.into_iter().collect();
    let mut sum = T::default();
    for process in family(processes.iter().copied()) {
        match figure(process) {
            Ok(one) => sum = plus(sum, one),
            Err(error) if processes.contains(&process) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(sum)
}

/// Processor time of one process without its children.
pub(crate) fn cpu_time_alone(process: u32) -> Result<CpuTime> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_stat(&stat, tick()?).with_context(|| format!("understand {path}"))
}

/// Processor time of all children of this program that have ended, and of theirs, as far as they were waited for.
pub(crate) fn ended_children() -> Result<CpuTime> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask for the processor time of children")?;
    Ok(CpuTime { user: duration(usage.user_time())?, system: duration(usage.system_time())? })
}

fn duration(time: TimeVal) -> Result<Duration> {
    let microseconds = u64::try_from(time.num_microseconds()).context("processor time is not negative")?;
    Ok(Duration::from_micros(microseconds))
}

/// A process, its children, and theirs; the process alone where the kernel does not tell.
fn with_children(process: u32) -> Vec<u32> {
    let mut family = vec![process];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(children(parent));
        next += 1;
    }
    family
}

/// The children of all threads of a process (proc_pid_task(5)).
fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

/// `utime` and `stime` of `/proc/PID/stat` (proc_pid_stat(5)), which follow a name that may hold anything.
fn parse_stat(stat: &str, tick: Duration) -> Option<CpuTime> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || Some(tick * fields.next()?.parse().ok()?);
    Some(CpuTime { user: next()?, system: next()? })
}

/// Length of the kernel's unit of processor time.
fn tick() -> Result<Duration> {
    let per_second = sysconf(SysconfVar::CLK_TCK).context("ask for the clock tick")?.context("a clock tick")?;
    Ok(Duration::from_secs(1) / u32::try_from(per_second).context("a clock tick is short")?)
}

/// Resident memory of a process and its present children in bytes; what they share counts for each.
pub(crate) fn resident(process: u32) -> Result<u64> {
    sum_of_family([process], |process| memory(process, "VmRSS:"), |sum, one| sum + one)
}

/// As [`resident`], of memory behind which no file stands.
pub(crate) fn anonymous(process: u32) -> Result<u64> {
    sum_of_family([process], |process| memory(process, "RssAnon:"), |sum, one| sum + one)
}

/// A line of a process's `/proc/PID/status` (proc_pid_status(5)), in bytes.
fn memory(process: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.trim().parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("find {name} in {path}"))? * 1024)
}

/// Time of all processors together, by what they did (`/proc/stat`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MachineTime {
    /// Programs, in user space.
    pub(crate) user: Duration,
    /// Everything but waiting.
    pub(crate) busy: Duration,
    /// Taken by the hypervisor.
    pub(crate) steal: Duration,
}

impl MachineTime {
    /// Until now, since the machine started.
    pub(crate) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&stat, tick()?).context("understand /proc/stat")
    }

    fn parse(stat: &str, tick: Duration) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let times: Vec<Duration> = line.split_whitespace().map_while(|text| Some(tick * text.parse().ok()?)).collect();
        let [user, nice, system, _idle, _wait, irq, softirq, steal, ..] = times.as_slice() else { return None };
        Some(Self { user: *user + *nice, busy: *user + *nice + *system + *irq + *softirq, steal: *steal })
    }

    /// What passed since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            busy: self.busy.saturating_sub(before.busy),
            steal: self.steal.saturating_sub(before.steal),
        }
    }
}

/// Counters of a host's network (`/proc/net/snmp` and `/proc/net/netstat`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counters(HashMap<String, u64>);

impl Counters {
    /// Those of one host, now.
    pub(crate) fn of(host: &Host) -> Result<Self> {
        // Not /proc/net, which is that of the process's first thread.
        let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        let text = host.run(move || Ok::<_, io::Error>(read("snmp")? + &read("netstat")?));
        Ok(Self::parse(&text.context("read network counters")?))
    }

    /// Pairs of lines, the first with names, the second with values, both beginning with the protocol.
    fn parse(text: &str) -> Self {
        let mut counters = HashMap::new();
        let mut lines = text.lines();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let protocol = names.split(':').next().unwrap_or_default();
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()).skip(1) {
                counters.insert(format!("{protocol}{name}"), value.parse().unwrap_or_default());
            }
        }
        Self(counters)
    }

    /// How much the counter `name` (protocol and name in one, such as `TcpRetransSegs` or `TcpExtTCPOFOQueue`) grew
    /// since `before`.
    pub(crate) fn growth(&self, before: &Self, name: &str) -> u64 {
        let of = |counters: &Self| counters.0.get(name).copied().unwrap_or_default();
        of(self).saturating_sub(of(before))
    }
}

/// Packets that a link of a host dropped until now, in and out, for want of room (`/proc/net/dev`).
pub(crate) fn link_drops(host: &Host, link: &str) -> Result<u64> {
    let text = host.run(|| fs::read_to_string("/proc/thread-self/net/dev")).context("read the links' counters")?;
    parse_link_drops(&text, link).with_context(|| format!("find the drops of {link}"))
}

/// The fourth of the eight columns about reception, and the fourth of those about transmission.
fn parse_link_drops(text: &str, link: &str) -> Option<u64> {
    let counters = text.lines().find_map(|line| line.trim().strip_prefix(link)?.strip_prefix(':'))?;
    let columns: Vec<u64> = counters.split_whitespace().map_while(|column| column.parse().ok()).collect();
    Some(columns.get(3)? + columns.get(11)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    #[test]
    fn name_of_a_process_does_not_confuse_its_times() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 30 5 6 20 0 1 0 99 1 2";
        let time = parse_stat(stat, TICK).unwrap();
        assert_eq!((time.user, time.system), (Duration::from_millis(1_500), Duration::from_millis(300)));
        assert_eq!(time.total(), Duration::from_millis(1_800));
        assert_eq!(parse_stat("7 (a", TICK), None);
    }

    #[test]
    fn own_times_and_memory_are_there() {
        let own = std::process::id();
        assert!(resident(own).unwrap() > 1 << 20);
        assert!((1..resident(own).unwrap() + (64 << 20)).contains(&anonymous(own).unwrap()));
        let before = (cpu_time([own]).unwrap(), MachineTime::now().unwrap());
        let (start, enough) = (std::time::Instant::now(), Duration::from_millis(20));
        let own_time = || cpu_time([own]).unwrap().since(before.0).total();
        let machine_time = || MachineTime::now().unwrap().since(before.1).busy;
        // However small this thread's share of the processors is.
        while own_time() < enough || machine_time() < enough {
            assert!(start.elapsed() < adit_testing::PATIENCE, "{:?}, {:?}", own_time(), machine_time());
        }
    }

    #[test]
    fn children_belong_to_their_process() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        let family = with_children(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.contains(&std::process::id()) && family.contains(&child.id()));
        assert_eq!(with_children(child.id()), [child.id()]);
    }

    #[test]
    fn child_that_has_ended_counts_nothing() {
        let own = std::process::id();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        adit_testing::eventually("the child ends", || {
            fs::read_to_string(&status).unwrap().contains("(zombie)").then_some(())
        });
        assert!(with_children(own).contains(&child.id()));
        assert!(resident(own).unwrap() > 0 && anonymous(own).unwrap() > 0);
        assert!(cpu_time([child.id()]).is_ok());
        child.wait().unwrap();
        assert!(cpu_time([child.id()]).is_err(), "who is asked for by name must be there");
    }

    #[test]
    fn counters_are_named_by_protocol() {
        let before = Counters::parse("Tcp: InSegs RetransSegs\nTcp: 5 1\nUdp: RcvbufErrors\nUdp: 2\n");
        let after = Counters::parse("Tcp: InSegs RetransSegs\nTcp: 9 4\nUdp: RcvbufErrors\nUdp: 2\n");
        assert_eq!(after.growth(&before, "TcpRetransSegs"), 3);
        assert_eq!(after.growth(&before, "UdpRcvbufErrors"), 0);
        assert_eq!(after.growth(&before, "TcpInCsumErrors"), 0);
    }

    #[test]
    fn drops_of_a_link_are_those_in_and_out() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                    adit0: 1 2 0 30 0 0 0 0 1 2 0 7 0 0 0 0\n";
        assert_eq!(parse_link_drops(text, "adit0"), Some(37));
        assert_eq!(parse_link_drops(text, "adit"), None);
        assert_eq!(parse_link_drops("eth0: 1 2", "eth0"), None);
    }

    #[test]
    fn machine_time_needs_its_eight_columns() {
        let time = MachineTime::parse("cpu  100 10 50 900 1 2 3 4 0 0\ncpu0 1\n", TICK).unwrap();
        assert_eq!(time.user, TICK * 110);
        assert_eq!((time.busy, time.steal), (TICK * 165, TICK * 4));
        assert_eq!(MachineTime::parse("cpu 1 2 3\n", TICK), None);
    }
}
