//! The result as one JSON object, and the verdict.

use std::time::{SystemTime, UNIX_EPOCH};

use adit_program::exit::{Exit, Failure};
use adit_server::sources::local::hashers::QUEUE;
use serde::Serialize;

use super::cost::Cost;
use super::flood::Tries;
use super::options::Options;
use super::plan::Flooders;
use super::users::Logins;
use crate::load::meter::Phase;
use crate::load::targets::{Bound, Target};
use crate::report::machine::{Machine, Program};

/// Version of the JSON object: raised when a field changes its meaning or vanishes.
const SCHEMA: &str = "adit-bench-logins/1";
/// Share of the wrong passwords that have to be answered for a flood to be one of its rate.
const ENOUGH: f64 = 0.95;
/// Longest time that a login of a known user may take, in milliseconds.
const SLOWEST: f64 = 2_000.0;
/// Share of the session's packets that has to be kept, in percent of those that come back without a flood.
const KEPT: f64 = 95.0;
/// Memory that a flood may cost the gateway, in MiB: 1,000 connections of 100 KiB each, the tries that wait for their
/// refusal, and the 32 MB of the limits of logins.
const FLOOD_MEMORY: f64 = 160.0;
/// What a flood of the last round may add in its second half.
const CREEP: f64 = 4.0;
/// What the floods of the last round may take above those of the first: what is remembered of failures.
const GROWTH: f64 = 8.0;
/// What a login may take above the hash of its password, in milliseconds.
const ABOVE: f64 = 100.0;

/// Everything about one run; fields are the keys of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    version: &'static str,
    pub(super) debug_build: bool,
    started_at: u64,
    pub(super) machine: Machine,
    gateway: Program,
    /// Wrong passwords a second that were wanted.
    pub(super) rate: u32,
    pub(super) duration_seconds: f64,
    pub(super) rounds: u8,
    pub(super) cost: Cost,
    pub(super) parts: Vec<Observation>,
    /// The gateway's memory before the first flood, and when the last was over.
    pub(super) before: Memory,
    pub(super) after: Memory,
    /// The most passwords that waited for a hash at a time.
    pub(super) most_waiting: usize,
    /// Whether the session of before was there at the end.
    pub(super) session_kept: bool,
    /// Which flood had fewer passwords a second than wanted; `None` where all had enough.
    pub(super) limited_by: Option<String>,
    /// Whether other load on this machine took too much in any part.
    pub(super) disturbed: bool,
    pub(super) targets: Vec<Target>,
}

/// What was seen of one part.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Observation {
    pub(super) round: u8,
    pub(super) flooders: Flooders,
    /// Addresses and connections of the flood.
    pub(super) addresses: usize,
    pub(super) connections: usize,
    pub(super) tries: Tries,
    /// Tries that were refused each second, once the flood had its rate.
    pub(super) refused_per_second: f64,
    /// The user with a device, who comes from where the flood comes from.
    pub(super) device: Logins,
    /// The user whose network is known.
    pub(super) network: Logins,
    /// Users with the right password whom nothing tells from the flood.
    pub(super) strangers: Logins,
    /// Packets of the session that were sent, and that came back.
    pub(super) packets_sent: u32,
    pub(super) packets_back: u32,
    /// Hashes that the gateway began, and those for which it had no room.
    pub(super) hashes: u64,
    pub(super) turned_away: u64,
    /// The most memory in each half of the part.
    pub(super) first_half: Memory,
    pub(super) second_half: Memory,
    pub(super) processor: Phase,
}

/// The gateway's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Memory {
    /// Resident.
    pub(super) resident_mib: f64,
    /// Of that, what no file stands behind.
    pub(super) anonymous_mib: f64,
}

impl Memory {
    /// Notes the memory of one moment, in bytes; the most counts.
    pub(super) fn note(&mut self, resident: u64, anonymous: u64) {
        self.resident_mib = self.resident_mib.max(mebibytes(resident));
        self.anonymous_mib = self.anonymous_mib.max(mebibytes(anonymous));
    }
}

impl Observation {
    /// Share of the session's packets that came back.
    pub(super) fn packets_share(&self) -> f64 {
        f64::from(self.packets_back) / f64::from(self.packets_sent.max(1))
    }

    /// The slowest login of the two who are known, in milliseconds.
    pub(super) fn slowest(&self) -> f64 {
        self.device.ms.max.max(self.network.ms.max)
    }

    /// Their logins that failed.
    pub(super) fn failed(&self) -> u32 {
        self.device.failed + self.network.failed
    }

    fn highest(&self) -> f64 {
        self.first_half.resident_mib.max(self.second_half.resident_mib)
    }
}

impl Report {
    /// Begins with what is asked for, of whom, and what a login costs.
    pub(super) fn new(options: &Options, gateway: Program, cost: Cost, before: Memory) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            debug_build: cfg!(debug_assertions),
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            machine: Machine::describe(),
            gateway,
            rate: options.rate(),
            duration_seconds: options.duration().as_secs_f64(),
            rounds: options.rounds(),
            cost,
            parts: Vec::new(),
            before,
            after: before,
            most_waiting: 0,
            session_kept: false,
            limited_by: None,
            disturbed: false,
            targets: Vec::new(),
        }
    }

    /// Judges the figures, when all are there.
    pub(super) fn close(&mut self) {
        let wanted = ENOUGH * f64::from(self.rate);
        let short = self.floods().find(|part| part.refused_per_second < wanted);
        self.limited_by = short.map(|part| {
            let (round, words, reached) = (part.round, part.flooders.words(), part.refused_per_second);
            format!("round {round}, {words}: {reached:.0} wrong passwords a second were answered, not {}", self.rate)
        });
        self.disturbed = self.parts.iter().any(|part| part.processor.disturbed);
        self.targets = [self.flooded("F1", Flooders::One), self.flooded("F2", Flooders::Many), self.gateway()].concat();
    }

    fn floods(&self) -> impl Iterator<Item = &Observation> {
        self.parts.iter().filter(|part| part.flooders != Flooders::Nobody)
    }

    fn of(&self, flooders: Flooders) -> impl Iterator<Item = &Observation> {
        self.parts.iter().filter(move |part| part.flooders == flooders)
    }

    /// What users and the session notice of the floods of one kind.
    fn flooded(&self, name: &'static str, flooders: Flooders) -> Vec<Target> {
        let most = |of: fn(&Observation) -> f64| self.of(flooders).map(of).fold(0.0, f64::max);
        let share = |flooders| {
            let (back, sent) = self.of(flooders).fold((0, 0), |(back, sent), part| {
                (back + u64::from(part.packets_back), sent + u64::from(part.packets_sent))
            });
            float(back) / float(sent.max(1))
        };
        let kept = 100.0 * share(flooders) / share(Flooders::Nobody).max(1e-9);
        let let_in: u64 = self.of(flooders).map(|part| part.tries.let_in).sum();
        let failed: u32 = self.of(flooders).map(Observation::failed).sum();
        [
            ("slowest login of a known user, ms", Bound::Most(SLOWEST), most(Observation::slowest)),
            ("logins of known users that failed", Bound::Most(0.0), failed.into()),
            ("packets of the session kept, %", Bound::Least(KEPT), kept),
            ("wrong passwords let in", Bound::Most(0.0), float(let_in)),
        ]
        .map(|(what, bound, value)| Target::of(name, what, bound, value))
        .to_vec()
    }

    /// What the gateway spends on floods, and on a login without one.
    fn gateway(&self) -> Vec<Target> {
        let before = self.before.resident_mib;
        let highest = self.floods().map(Observation::highest).fold(before, f64::max);
        let mut targets = [
            ("F3", "memory above that before, MiB", Bound::Most(FLOOD_MEMORY), highest - before),
            (
                "F3",
                "passwords that waited at a time",
                Bound::Most(float(QUEUE as u64)),
                float(self.most_waiting as u64),
            ),
            ("F3", "sessions of before that are left", Bound::Least(1.0), u8::from(self.session_kept).into()),
            ("F4", "login above its hash, ms", Bound::Most(ABOVE), self.cost.login_above()),
            ("F4", "adit-client login above its hash, ms", Bound::Most(ABOVE), self.cost.program_above()),
        ]
        .map(|(name, what, bound, value)| Target::of(name, what, bound, value))
        .to_vec();
        // The first round makes the memory that later ones use again.
        if let Some([growth, creep]) = self.growth() {
            let lines =
                [("last round above the first, MiB", GROWTH, growth), ("added in half a flood, MiB", CREEP, creep)];
            targets.extend(lines.map(|(what, most, value)| Target::of("F3", what, Bound::Most(most), value)));
        }
        targets
    }

    /// By how much the memory of the last round's floods exceeds that of the first's, and what the second half of one
    /// of them adds; `None` with one round.
    fn growth(&self) -> Option<[f64; 2]> {
        let rounds = || self.floods().map(|part| part.round);
        let (first, last) = (rounds().min()?, rounds().max()?);
        let of_round = |round| self.floods().filter(move |part| part.round == round);
        let highest = |round| of_round(round).map(Observation::highest).fold(0.0, f64::max);
        let creep = of_round(last).map(|part| part.second_half.resident_mib - part.first_half.resident_mib);
        (first < last).then(|| [(highest(last) - highest(first)).max(0.0), creep.fold(0.0, f64::max)])
    }

    /// What makes the run a failure.
    ///
    /// # Errors
    /// A target was missed: exit code 8, or 9 where other load may be why. Or a flood was less than wanted: 9.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let failure = |exit, reason: String, next: &str| Err(Failure::new(exit, "logins", reason, next));
        let missed: Vec<&str> =
            self.targets.iter().filter(|target| target.met == Some(false)).map(|target| target.what).collect();
        let quieter = "run it again on a quieter machine";
        match &self.limited_by {
            _ if !missed.is_empty() && self.disturbed => failure(Exit::Inconclusive, missed.join("; "), quieter),
            _ if !missed.is_empty() => failure(Exit::Regression, missed.join("; "), "look at what changed"),
            Some(limit) => failure(Exit::Inconclusive, limit.clone(), "give a smaller --rate, or a quieter machine"),
            None => Ok(()),
        }
    }
}

pub(super) fn float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let count = count as f64;
    count
}

/// Bytes as MiB.
fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::parsed;
    use super::*;
    use crate::documented;
    use crate::load::histogram::Percentiles;

    fn times(p50: f64, max: f64) -> Percentiles {
        Percentiles { count: 15, p50, max, ..Percentiles::default() }
    }

    fn part(flooders: Flooders, slowest: f64) -> Observation {
        let logins = Logins { ms: times(30.0, slowest), ..Logins::default() };
        Observation {
            round: 1,
            flooders,
            addresses: 1,
            connections: 400,
            tries: Tries { offered: 10_000, refused: 9_000, ..Tries::default() },
            refused_per_second: 990.0,
            device: logins.clone(),
            network: logins.clone(),
            strangers: logins,
            packets_sent: 20_000,
            packets_back: 19_900,
            hashes: 100,
            turned_away: 0,
            first_half: Memory { resident_mib: 90.0, anonymous_mib: 80.0 },
            second_half: Memory { resident_mib: 91.0, anonymous_mib: 81.0 },
            processor: Phase {
                name: "one",
                seconds: 10.0,
                gateway_cores: 0.5,
                gateway_user_cores: 0.3,
                gateway_system_cores: 0.2,
                generator_cores: 0.5,
                machine_cores: 1.5,
                stolen_cores: 0.0,
                foreign_cores: 0.0,
                throttled_seconds: 0.0,
                overheated: 0,
                disturbed: false,
                lateness_ms: None,
            },
        }
    }

    /// A run in which everything was met.
    fn good() -> Report {
        let program = Program { name: "adit-server".to_owned(), version: None, sha256: None };
        let cost = Cost { login_ms: times(40.0, 50.0), program_ms: times(50.0, 60.0), hash_ms: times(20.0, 21.0) };
        let before = Memory { resident_mib: 50.0, anonymous_mib: 40.0 };
        let mut report = Report::new(&parsed(&["--rate", "1000/s"]), program, cost, before);
        report.parts = [Flooders::Nobody, Flooders::One, Flooders::Nobody, Flooders::Many]
            .map(|flooders| part(flooders, 900.0))
            .to_vec();
        (report.most_waiting, report.session_kept) = (9, true);
        report
    }

    /// A part of the next round, with more memory than may be added from round to round.
    fn heavier(part: &Observation) -> Observation {
        let more = |memory: Memory| Memory { resident_mib: memory.resident_mib + 9.0, ..memory };
        let (first_half, second_half) = (more(part.first_half), more(part.second_half));
        Observation { round: 2, first_half, second_half, ..part.clone() }
    }

    /// A part of the next round, whose second half adds more than may be.
    fn creeping(part: &Observation) -> Observation {
        let second_half = Memory { resident_mib: part.first_half.resident_mib + 5.0, ..part.second_half };
        Observation { round: 2, second_half, ..part.clone() }
    }

    fn exit(mut report: Report) -> Option<Exit> {
        report.close();
        report.verdict().err().map(|failure| failure.exit)
    }

    #[test]
    fn run_that_meets_everything_succeeds() {
        assert_eq!(exit(good()), None);
    }

    #[test]
    fn each_missed_target_is_a_regression() {
        let changes: [fn(&mut Report); 12] = [
            |report| report.parts[1].device.ms.max = 2_001.0,
            |report| report.parts[3].network.ms.max = 2_001.0,
            |report| report.parts[1].device.failed = 1,
            |report| report.parts[3].network.failed = 1,
            |report| report.parts[1].packets_back = 18_800,
            |report| report.parts[3].tries.let_in = 1,
            |report| report.parts[3].first_half.resident_mib = 211.0,
            |report| report.parts.push(creeping(&report.parts[3])),
            |report| report.parts.push(heavier(&report.parts[3])),
            |report| report.most_waiting = QUEUE + 1,
            |report| report.session_kept = false,
            |report| report.cost.login_ms.p50 = 121.0,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut report = good();
            change(&mut report);
            assert_eq!(exit(report), Some(Exit::Regression), "change {number}");
        }
    }

    #[test]
    fn flood_below_its_rate_and_a_disturbed_machine_decide_nothing() {
        let mut short = good();
        short.parts[1].refused_per_second = 940.0;
        assert_eq!(exit(short), Some(Exit::Inconclusive));
        let mut disturbed = good();
        disturbed.parts[1].device.failed = 1;
        disturbed.parts[0].processor.disturbed = true;
        assert_eq!(exit(disturbed), Some(Exit::Inconclusive));
    }

    #[test]
    fn users_are_not_judged_by_what_happens_without_a_flood() {
        let mut report = good();
        report.parts[0].strangers.failed = 1;
        report.parts[1].strangers.failed = 15;
        assert_eq!(exit(report), None);
    }

    #[test]
    fn every_key_is_documented_and_no_other() {
        const ELSEWHERE: [&str; 8] =
            ["machine", "gateway", "processor", "targets", "ms", "login_ms", "program_ms", "hash_ms"];
        let document = documented::text("logins-report.md");
        let written = documented::keys(&serde_json::to_value(good()).unwrap(), &ELSEWHERE);
        assert_eq!(documented::fields(&document), written);
        assert!(document.contains(&format!("`{SCHEMA}`")));
    }
}
