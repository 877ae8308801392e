//! The result as text for people.

use std::fmt;

use super::fairness::Fairness;
use super::histogram::Percentiles;
use super::moves::Roaming;
use super::report::{Active, Churn, Echoes, Memory, Policy, Report};
use super::returning::Restarted;
use super::targets::Table;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine.line())?;
        let build = if self.debug_build { ", not a release build" } else { "" };
        writeln!(f, "{} clients, {} arriving per second{build}\n", self.clients, self.arrive_per_second)?;
        writeln!(f, "connected   {} at {:.0}/s, {} failed", self.connected, self.connect_rate, self.failed)?;
        writeln!(f, "connect     {} ms", self.connect_times)?;
        if let Some(Policy { groups, rules }) = self.policy {
            writeln!(f, "policy      {groups} groups, {rules} rules")?;
        }
        writeln!(
            f,
            "carrier     {} of {} on esp; the gateway says {} of {}",
            self.clients_on_esp, self.connected, self.gateway_on_esp, self.gateway_sessions
        )?;
        self.echoes.iter().try_for_each(|echoes| write!(f, "{echoes}"))?;
        self.roaming.iter().try_for_each(|roaming| write!(f, "{roaming}"))?;
        self.active.iter().try_for_each(|active| write!(f, "{active}"))?;
        self.restart.iter().try_for_each(|restart| write!(f, "{restart}"))?;
        self.churn.iter().try_for_each(|churn| write!(f, "{churn}"))?;
        let Memory { before_kib, with_sessions_kib, loaded_kib, after_kib, per_session_kib } = self.memory;
        writeln!(
            f,
            "memory      {before_kib:.0} KiB before, {with_sessions_kib:.0} idle, {loaded_kib:.0} loaded, {after_kib:.0} after"
        )?;
        let files = self.descriptors;
        writeln!(f, "            {per_session_kib:.1} KiB per session")?;
        writeln!(
            f,
            "files       {} before, {} with sessions, {} after\n",
            files.before, files.with_sessions, files.after
        )?;
        self.write_phases(f)?;
        write!(f, "\n{}", Table(&self.targets))?;
        if self.disturbed {
            writeln!(
                f,
                "\ndisturbed: other programs, the hypervisor, a quota or heat took time; do not compare these figures"
            )?;
        }
        match &self.limited_by {
            Some(limit) => write!(f, "\nlimited by more than the gateway: {limit}"),
            None => write!(f, "\nneither generator nor machine was the limit"),
        }
    }
}

impl Report {
    fn write_phases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cores       gateway (user + system)  generator  machine  others")?;
        for phase in &self.phases {
            let gateway = format!(
                "{:.3} ({:.3} + {:.3})",
                phase.gateway_cores, phase.gateway_user_cores, phase.gateway_system_cores
            );
            let (generator, machine, others) = (phase.generator_cores, phase.machine_cores, phase.foreign_cores);
            let disturbed = if phase.disturbed { "  disturbed" } else { "" };
            let name = phase.name;
            writeln!(f, "{name:<10}  {gateway:<23}  {generator:<9.3}  {machine:<7.3}  {others:.3}{disturbed}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Echoes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, answered, success, fairness, rtt_ms } = self;
        writeln!(f, "echo        {answered} of {sent} answered ({:.2} %)", success * 100.0)?;
        fairness.iter().try_for_each(|fairness| writeln!(f, "fairness    {fairness}"))?;
        writeln!(f, "round trip  {rtt_ms} ms")
    }
}

impl fmt::Display for Fairness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, jain, lowest, lowest_answered, highest, highest_answered } = self;
        let [lowest, highest] = [lowest, highest].map(|share| share * 100.0);
        write!(
            f,
            "Jain's index {jain:.5} of {clients} clients; lowest {lowest_answered} ({lowest:.1} %), \
             highest {highest_answered} ({highest:.1} %)"
        )
    }
}

impl fmt::Display for Roaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, every_seconds, moves, not_back, gap_ms, echoes_sent, echoes_lost } = self;
        writeln!(f, "roaming     {clients} clients, each every {every_seconds} s: {moves} moves, {not_back} not back")?;
        writeln!(f, "gap         {gap_ms} ms; {echoes_lost} of {echoes_sent} echoes lost in gaps")
    }
}

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, capacity_per_second, rate_per_second, echoes, others, drops } = self;
        let rates = format!("{rate_per_second:.0}/s, of at most {capacity_per_second:.0}/s");
        writeln!(f, "active      {clients} clients at {rates} of generator and gateway; {drops} sessions lost")?;
        let indented = |f: &mut fmt::Formatter<'_>, echoes: &Echoes, who: &str| {
            echoes.to_string().lines().try_for_each(|line| writeln!(f, "  {who}  {line}"))
        };
        indented(f, echoes, "active")?;
        indented(f, others, "others")
    }
}

impl fmt::Display for Restarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, down_seconds, not_back, other_address, return_ms } = self;
        writeln!(f, "restart     killed for {down_seconds} s under {clients} clients: {not_back} not back")?;
        writeln!(f, "  return    {return_ms} ms after it was ready; {other_address} with another address")
    }
}

impl fmt::Display for Churn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate_per_second, visits, failed, success, connect_ms, .. } = self;
        let percent = success * 100.0;
        writeln!(f, "churn       {visits} visits at {rate_per_second}/s, {failed} failed ({percent:.3} % answered)")?;
        writeln!(f, "  connect   {connect_ms} ms")?;
        let [before, after] = self.memory_kib;
        let (sessions, files) = (self.sessions_left, self.descriptors_left);
        writeln!(f, "  left      {sessions} sessions, {files} files; memory {before:.0} KiB before, {after:.0} after")
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, max, .. } = self;
        write!(f, "p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, max {max:.2}")
    }
}
