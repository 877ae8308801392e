//! The result as text for people.

use std::fmt;

use super::cost::Cost;
use super::plan::Flooders;
use super::report::{Observation, Report};
use crate::load::targets::Table;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine.line())?;
        let build = if self.debug_build { ", not a release build" } else { "" };
        let (rate, seconds, rounds) = (self.rate, self.duration_seconds, self.rounds);
        writeln!(f, "{rate} wrong passwords a second for {seconds} s, {rounds} times each{build}\n")?;
        let Cost { login_ms, program_ms, hash_ms } = &self.cost;
        writeln!(f, "login       {login_ms} ms")?;
        writeln!(f, "adit-client {program_ms} ms")?;
        writeln!(f, "hash alone  {hash_ms} ms\n")?;
        writeln!(
            f,
            "round flood  refused/s  wait    lost   known users: logins, failed, slowest   strangers in, out  packets   \
             hashes  gateway  MiB"
        )?;
        self.parts.iter().try_for_each(|part| write!(f, "{part}"))?;
        let (before, after) = (self.before.resident_mib, self.after.resident_mib);
        writeln!(f, "\nmemory      {before:.1} MiB before the first flood, {after:.1} MiB after the last")?;
        write!(f, "\n{}", Table(&self.targets))?;
        if self.disturbed {
            writeln!(f, "\ndisturbed: other programs, the hypervisor, a quota or heat took time")?;
        }
        match &self.limited_by {
            Some(limit) => write!(f, "\nless than wanted: {limit}"),
            None => write!(f, "\nevery flood had the rate that was wanted"),
        }
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flood = match self.flooders {
            Flooders::Nobody => "none",
            Flooders::One => "one",
            Flooders::Many => "many",
        };
        let Self { round, tries, device, network, strangers, hashes, processor, .. } = self;
        let logins = device.ms.count + network.ms.count;
        let (let_in, refused, failed) = (strangers.ms.count, strangers.failed, self.failed());
        let memory = self.first_half.resident_mib.max(self.second_half.resident_mib);
        writeln!(
            f,
            "{round:<5} {flood:<5}  {:>9.0}  {:>6}  {:>5}  {logins:>19}, {failed:>6}, {:>7.0} ms  {let_in:>13}, {refused:>3}  \
             {:>6.2} %  {hashes:>6}  {:>7.2}  {memory:>5.1}",
            self.refused_per_second,
            tries.told_to_wait,
            tries.lost,
            self.slowest(),
            100.0 * self.packets_share(),
            processor.gateway_cores,
        )
    }
}
