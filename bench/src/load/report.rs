//! The result as one JSON object.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use adit_lab::programs::ToldSession;
use serde::Serialize;

use super::fairness::Fairness;
use super::generator::{Generator, THREADS, Visits};
use super::histogram::Percentiles;
use super::meter::Phase;
use super::moves::Roaming;
use super::options::{Carrier, Login, Options};
use super::returning::Restarted;
use super::site::Site;
use super::targets::{self, Burst, Limit, Seen, Sessions, Target};
use crate::report::machine::{Machine, Program};

/// Version of the JSON object: raised when a field changes its meaning or vanishes.
const SCHEMA: &str = "adit-bench-load/1";

/// Lateness (99 %) above which the generator did not keep to its plan, in milliseconds.
const LATE: f64 = 20.0;
/// Share of its threads' time above which the generator was busy, and share of all processors above which the machine
/// was.
const BUSY: f64 = 0.9;

/// Everything about one run; fields are the keys of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    /// Version of this program.
    version: &'static str,
    /// Whether this program was built without optimisation for release.
    pub(super) debug_build: bool,
    /// Seconds since 1970.
    started_at: u64,
    pub(super) machine: Machine,
    gateway: Program,
    pub(super) clients: u32,
    pub(super) arrive_per_second: f64,
    login: Login,
    /// The gateway's policy; `None` without one.
    pub(super) policy: Option<Policy>,
    /// Echo requests per second and client.
    rate: f64,
    duration_seconds: f64,
    carrier: Carrier,
    /// Clients that got an address.
    pub(super) connected: usize,
    /// Clients that could not connect, or lost their tunnel later; visits do not count here.
    pub(super) failed: u32,
    /// Why, each reason once.
    failures: Vec<String>,
    /// Clients per second, from the first to the last.
    pub(super) connect_rate: f64,
    /// From the first datagram to the address.
    #[serde(rename = "connect_ms")]
    pub(super) connect_times: Percentiles,
    /// Whether all used ESP within 10 s after the last had connected.
    pub(super) esp_proven: bool,
    /// Sessions that sent by ESP at the end, as the clients saw it.
    pub(super) clients_on_esp: usize,
    /// Live sessions at the end, as the gateway saw it.
    pub(super) gateway_sessions: usize,
    /// Of these, those with `esp`.
    pub(super) gateway_on_esp: usize,
    /// The smaller of the two numbers of sessions on ESP, as a share of all clients.
    esp_share: f64,
    /// What was sent and answered; `None` where sessions were left idle.
    pub(super) echoes: Option<Echoes>,
    /// Clients that moved meanwhile; `None` where none did.
    pub(super) roaming: Option<Roaming>,
    /// Some that sent much; `None` where that was left out.
    pub(super) active: Option<Active>,
    /// A gateway that was killed and started again; `None` where that was left out.
    pub(super) restart: Option<Restarted>,
    /// Clients that came and went; `None` where that was left out.
    pub(super) churn: Option<Churn>,
    /// Processor time.
    pub(super) phases: Vec<Phase>,
    pub(super) memory: Memory,
    pub(super) descriptors: Descriptors,
    /// Why the figures say more about the generator or the machine than about the gateway; `None` where they do not.
    pub(super) limited_by: Option<String>,
    /// Whether other load on this machine, its hypervisor, a quota or heat took too much in any phase.
    pub(super) disturbed: bool,
    /// What should have been reached.
    pub(super) targets: Vec<Target>,
}

/// How large the gateway's policy was.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Policy {
    /// Its groups.
    pub(super) groups: usize,
    /// Its rules.
    pub(super) rules: usize,
}

/// Echo requests and answers of several sessions together.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Echoes {
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// Answers per request.
    pub(super) success: f64,
    /// How they were shared out; `None` without a request.
    pub(super) fairness: Option<Fairness>,
    /// From sending a request to having opened its answer.
    pub(super) rtt_ms: Percentiles,
}

/// Some sessions that sent at most of the highest rate they can.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Active {
    /// How many.
    pub(super) clients: u32,
    /// The highest rate found, in echo requests per second of all together; that of gateway and generator on one
    /// machine.
    pub(super) capacity_per_second: f64,
    /// That at which they sent.
    pub(super) rate_per_second: f64,
    /// What became of theirs.
    pub(super) echoes: Echoes,
    /// What became of those of the others meanwhile.
    pub(super) others: Echoes,
    /// Sessions that ended meanwhile.
    pub(super) drops: u32,
}

/// Clients that connected, logged in, got one echo and left.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Churn {
    /// How many came each second.
    pub(super) rate_per_second: f64,
    /// How many came in all.
    pub(super) visits: u32,
    /// Of these, those that could not connect or got no answer.
    pub(super) failed: u32,
    /// The share of the others.
    pub(super) success: f64,
    /// From the first datagram to the address.
    pub(super) connect_ms: Percentiles,
    /// Sessions that the gateway had after the last had left.
    pub(super) sessions_left: usize,
    /// Descriptors it had more than before.
    pub(super) descriptors_left: usize,
    /// Its memory before and after.
    pub(super) memory_kib: [f64; 2],
}

/// Open files of the gateway.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Descriptors {
    /// Before the first session.
    pub(super) before: usize,
    /// With all sessions.
    pub(super) with_sessions: usize,
    /// When all had ended.
    pub(super) after: usize,
}

/// Resident memory of the gateway, in KiB.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Memory {
    /// Before the first session, with all devices known.
    pub(super) before_kib: f64,
    /// With all sessions, after they were idle.
    pub(super) with_sessions_kib: f64,
    /// After they had sent.
    pub(super) loaded_kib: f64,
    /// When all had ended.
    pub(super) after_kib: f64,
    /// What one session adds, the larger of idle and loaded.
    pub(super) per_session_kib: f64,
}

impl Echoes {
    /// Sums up requests and answers of each session.
    pub(super) fn new(sessions: &[(u32, u32)], rtt_ms: Percentiles) -> Self {
        let sent = sessions.iter().map(|(sent, _)| u64::from(*sent)).sum();
        let answered = sessions.iter().map(|(_, answered)| u64::from(*answered)).sum();
        Self { sent, answered, success: share(answered, sent), fairness: Fairness::of(sessions), rtt_ms }
    }
}

impl Churn {
    /// From the visits, what the gateway kept of them, and its memory in bytes before and after.
    pub(super) fn new(rate: f64, visits: &Visits, left: (usize, usize), memory: [u64; 2]) -> Self {
        let Visits { count, failed, times, .. } = *visits;
        Self {
            rate_per_second: rate,
            visits: count,
            failed,
            success: share(u64::from(count.saturating_sub(failed)), count.into()),
            connect_ms: times,
            sessions_left: left.0,
            descriptors_left: left.1,
            memory_kib: memory.map(kibibytes),
        }
    }

    /// By how much its memory grew.
    fn growth(&self) -> f64 {
        let [before, after] = self.memory_kib;
        after / before.max(1.0) - 1.0
    }
}

impl Memory {
    /// From bytes before, with sessions, after load, and after the last session.
    pub(super) fn new(bytes: [u64; 4], sessions: usize) -> Self {
        let [before, with, loaded, after] = bytes.map(kibibytes);
        #[expect(clippy::cast_precision_loss, reason = "sessions are few")]
        let per_session = (with.max(loaded) - before) / sessions.max(1) as f64;
        Self {
            before_kib: before,
            with_sessions_kib: with,
            loaded_kib: loaded,
            after_kib: after,
            per_session_kib: per_session,
        }
    }
}

impl Report {
    /// Begins with what is asked for, and of whom.
    pub(super) fn new(options: &Options, site: &Site) -> Self {
        Self::of(options, site.program(), site.policy())
    }

    fn of(options: &Options, gateway: Program, policy: Option<Policy>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            debug_build: cfg!(debug_assertions),
            started_at: now.as_secs(),
            machine: Machine::describe(),
            gateway,
            clients: options.clients,
            arrive_per_second: options.arrive,
            login: options.login,
            policy,
            rate: options.rate,
            duration_seconds: options.duration.as_secs_f64(),
            carrier: options.carrier,
            connected: 0,
            failed: 0,
            failures: Vec::new(),
            connect_rate: 0.0,
            connect_times: Percentiles::default(),
            esp_proven: false,
            clients_on_esp: 0,
            gateway_sessions: 0,
            gateway_on_esp: 0,
            esp_share: 0.0,
            echoes: None,
            roaming: None,
            active: None,
            restart: None,
            churn: None,
            phases: Vec::new(),
            memory: Memory::default(),
            descriptors: Descriptors::default(),
            limited_by: None,
            disturbed: false,
            targets: Vec::new(),
        }
    }

    /// Notes who failed until now, and why.
    pub(super) fn note_failures(&mut self, generator: &Generator) {
        (self.failed, self.failures) = generator.ended();
    }

    /// Notes how sessions stand, before they are ended.
    pub(super) fn note_sessions(&mut self, generator: &Generator, sessions: &[ToldSession]) {
        self.connected = generator.connected();
        self.note_failures(generator);
        self.clients_on_esp = generator.on_esp();
        self.gateway_sessions = sessions.len();
        self.gateway_on_esp = sessions.iter().filter(|session| session.carrier == "esp").count();
        let both = self.clients_on_esp.min(self.gateway_on_esp);
        self.esp_share = share(both as u64, u64::from(self.clients));
    }

    /// Judges the figures, when all are there.
    pub(super) fn close(&mut self) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let limits: Vec<Limit> = self.phases.iter().filter_map(|phase| limit(phase, cores)).collect();
        self.limited_by = limits.first().map(|limit| limit.what.clone());
        self.disturbed = self.phases.iter().any(|phase| phase.disturbed);
        self.targets = targets::judge(&self.seen(limits));
    }

    /// What targets are about.
    fn seen(&self, limits: Vec<Limit>) -> Seen {
        let phase = |name: &str| self.phases.iter().find(|phase| phase.name == name);
        let seconds = |name: &str| phase(name).map_or(0.0, |phase| phase.seconds);
        #[expect(clippy::cast_precision_loss, reason = "sessions and descriptors are few")]
        let count = |count: usize| count as f64;
        let Memory { with_sessions_kib, loaded_kib, per_session_kib, .. } = self.memory;
        let active = self.active.as_ref().map(|active| {
            let seen = targets::Active {
                idle_rtt_p99_ms: active.others.rtt_ms.p99,
                jain: active.echoes.fairness.map_or(0.0, |fairness| fairness.jain),
                drops: active.drops.into(),
                seconds: seconds("active"),
            };
            (active.clients, seen)
        });
        let churn = self.churn.as_ref().map(|churn| {
            let seen = targets::Churn {
                success: churn.success,
                connect_p99_ms: churn.connect_ms.p99,
                sessions_left: count(churn.sessions_left),
                descriptors_left: count(churn.descriptors_left),
                growth: churn.growth(),
                seconds: seconds("churn"),
            };
            (churn.rate_per_second, seen)
        });
        Seen {
            clients: self.clients,
            limits,
            sessions: Sessions {
                up: count(self.connected.min(self.gateway_sessions)),
                echo_share: self.echoes.map(|echoes| echoes.success),
                rtt_p99_ms: self.echoes.map(|echoes| echoes.rtt_ms.p99),
                resident_mib: with_sessions_kib.max(loaded_kib) / 1024.0,
                per_session_kib,
                idle_cores: phase("idle").map(|phase| phase.gateway_cores),
                descriptors: count(self.descriptors.with_sessions),
                seconds: seconds("loaded"),
            },
            active,
            churn,
            burst: Burst {
                login: self.login,
                under_policy: self.policy.is_some(),
                by_tls: self.carrier == Carrier::Tls,
                wanted: self.arrive_per_second,
                reached: self.connect_rate,
                seconds: seconds("connect"),
            },
        }
    }

    /// What makes the run a failure.
    pub(super) fn failures(&self) -> Option<String> {
        let visits = self.churn.as_ref().map_or(0, |churn| churn.failed);
        let clients = (self.failed > 0).then(|| format!("{} of {} clients failed", self.failed, self.clients));
        let lost = self.restart.map_or(0, |restart| restart.not_back);
        let lost = (lost > 0).then(|| format!("{lost} clients did not come back to the restarted gateway"));
        let visits = (visits > 0).then(|| format!("{visits} visits failed"));
        let parts: Vec<String> = clients.into_iter().chain(lost).chain(visits).collect();
        (!parts.is_empty()).then(|| format!("{}: {}", parts.join(", "), self.failures.join("; ")))
    }
}

/// What kept a phase from showing the gateway alone.
fn limit(phase: &Phase, cores: usize) -> Option<Limit> {
    #[expect(clippy::cast_precision_loss, reason = "processors are few")]
    let (cores, threads) = (cores as f64, THREADS as f64);
    let Phase { name, generator_cores, machine_cores, .. } = phase;
    let found =
        |what: String, of_generator| Some(Limit { phase: phase.name, what: format!("{name}: {what}"), of_generator });
    if *generator_cores > BUSY * threads {
        return found(format!("the generator used {generator_cores:.2} cores with {THREADS} threads"), true);
    }
    // Before the machine: what was not sent in time tells nothing of whoever should have answered.
    if let Some(late) = phase.lateness_ms.filter(|lateness| lateness.p99 > LATE) {
        return found(format!("the generator was up to {:.0} ms late (99 %)", late.p99), true);
    }
    let is_busy = *machine_cores > BUSY * cores;
    if is_busy { found(format!("{machine_cores:.2} of {cores} processors were busy"), false) } else { None }
}

fn share(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let (part, whole) = (part as f64, whole.max(1) as f64);
    part / whole
}

/// Bytes as KiB.
fn kibibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "memory is less than 2^52 bytes")]
    let bytes = bytes as f64;
    bytes / 1024.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::moves::Moves;
    use super::super::options::tests::parsed;
    use super::super::returning::Returns;
    use super::*;
    use crate::documented;

    /// Every part of a report is there.
    fn full() -> Report {
        let echoes = Echoes::new(&[(1, 1)], Percentiles::default());
        let program = Program { name: "adit-server".to_owned(), version: None, sha256: None };
        let mut report = Report::of(&parsed(&[]), program, Some(Policy { groups: 10, rules: 100 }));
        report.echoes = Some(echoes);
        report.roaming = Some(Moves::default().report(1, std::time::Duration::from_secs(1)));
        report.active = Some(Active {
            clients: 1,
            capacity_per_second: 1.0,
            rate_per_second: 1.0,
            echoes,
            others: echoes,
            drops: 0,
        });
        report.restart = Some(Returns::default().report(1, std::time::Duration::from_secs(1)));
        report.churn = Some(Churn {
            rate_per_second: 1.0,
            visits: 1,
            failed: 0,
            success: 1.0,
            connect_ms: Percentiles::default(),
            sessions_left: 0,
            descriptors_left: 0,
            memory_kib: [1.0; 2],
        });
        report.phases.push(phase(0.5, 1.0, 2.0));
        report.close();
        report
    }

    /// `docs/load-report.md`, which describes this object.
    fn document() -> String {
        documented::text("load-report.md")
    }

    /// The keys of an object; the machine is that of all results, which is described with them.
    fn keys(value: &Value) -> BTreeSet<String> {
        documented::keys(value, &["machine"])
    }

    #[test]
    fn every_key_is_documented_and_no_other() {
        assert_eq!(documented::fields(&document()), keys(&serde_json::to_value(full()).unwrap()));
        assert!(document().contains(&format!("`{SCHEMA}`")));
    }

    #[test]
    fn example_of_the_document_has_the_keys_of_a_report() {
        let text = document();
        let (_, example) = text.split_once("```json\n").unwrap();
        let example: Value = serde_json::from_str(example.split_once("```").unwrap().0).unwrap();
        let (shown, written) = (keys(&example), keys(&serde_json::to_value(full()).unwrap()));
        assert_eq!(example["schema"], SCHEMA);
        assert!(shown.is_subset(&written), "{:?}", shown.difference(&written));
    }

    fn phase(generator_cores: f64, machine_cores: f64, p99: f64) -> Phase {
        Phase {
            name: "loaded",
            seconds: 1.0,
            gateway_cores: 0.1,
            gateway_user_cores: 0.05,
            gateway_system_cores: 0.05,
            generator_cores,
            machine_cores,
            stolen_cores: 0.0,
            foreign_cores: 0.0,
            throttled_seconds: 0.0,
            overheated: 0,
            disturbed: false,
            lateness_ms: Some(Percentiles { p99, ..Percentiles::default() }),
        }
    }

    #[test]
    fn limits_are_told_apart() {
        assert_eq!(limit(&phase(0.5, 1.0, 2.0), 2), None);
        for (phase, words, of_generator) in [
            (phase(1.9, 2.0, 2.0), "generator used 1.90", true),
            (phase(1.0, 1.95, 2.0), "1.95 of 2 processors", false),
            (phase(1.0, 1.95, 50.0), "50 ms late", true),
            (phase(0.5, 1.0, 50.0), "50 ms late", true),
        ] {
            let limit = limit(&phase, 2).unwrap();
            assert!(limit.what.starts_with("loaded: ") && limit.what.contains(words), "{limit:?}");
            assert_eq!((limit.phase, limit.of_generator), ("loaded", of_generator));
        }
    }

    #[test]
    fn worst_session_is_not_hidden_by_the_others() {
        let echoes = Echoes::new(&[(10, 10), (10, 5), (0, 0)], Percentiles::default());
        assert_eq!((echoes.sent, echoes.answered), (20, 15));
        assert_eq!((echoes.success, echoes.fairness.unwrap().lowest), (0.75, 0.5));
    }

    #[test]
    fn memory_per_session_is_that_of_the_worst_moment() {
        let memory = Memory::new([10 << 20, 20 << 20, 30 << 20, 15 << 20], 1024);
        assert_eq!((memory.before_kib, memory.per_session_kib), (10_240.0, 20.0));
    }
}
