//! The result: one JSON object, or text for people.

use std::fmt;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use adit_server::gateway::SessionInfo;
use serde::Serialize;

use super::generator::{Generator, THREADS};
use super::histogram::Percentiles;
use super::meter::Phase;
use super::{Carrier, Options};
use crate::measure::machine::{Machine, Program};

/// Version of the JSON object: raised when a field changes its meaning or vanishes.
const SCHEMA: &str = "adit-bench-load/1";

/// Lateness (99 %) above which the generator did not keep to its plan, in milliseconds.
const LATE: f64 = 20.0;
/// Share of its threads' time above which the generator was busy, and share of all processors above which the machine was.
const BUSY: f64 = 0.9;

/// Everything about one run; fields are the keys of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    /// Version of this program.
    version: &'static str,
    /// Whether this program was built without optimisation for release.
    debug_build: bool,
    /// Seconds since 1970.
    started_at: u64,
    machine: Machine,
    gateway: Program,
    clients: u32,
    arrive_per_second: f64,
    /// Echo requests per second and client.
    rate: f64,
    duration_seconds: f64,
    carrier: Carrier,
    /// Clients that got an address.
    pub(super) connected: usize,
    /// Clients that could not connect, or lost their tunnel later.
    failed: u32,
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
    clients_on_esp: usize,
    /// Live sessions at the end, as the gateway saw it.
    gateway_sessions: usize,
    /// Of these, those with `esp`.
    gateway_on_esp: usize,
    /// The smaller of the two numbers of sessions on ESP, as a share of all clients.
    esp_share: f64,
    /// What was sent and answered; `None` where sessions were left idle.
    pub(super) echoes: Option<Echoes>,
    /// Processor time.
    pub(super) phases: Vec<Phase>,
    pub(super) memory: Memory,
    /// Why the figures say more about the generator or the machine than about the gateway; `None` where they do not.
    limited_by: Option<String>,
}

/// Echo requests and answers of all sessions together.
#[derive(Debug, Serialize)]
pub(super) struct Echoes {
    sent: u64,
    answered: u64,
    /// Answers per request.
    success: f64,
    /// That of the session with the fewest.
    least_success: f64,
    /// From sending a request to having opened its answer.
    rtt_ms: Percentiles,
}

/// Resident memory of the gateway, in KiB.
#[derive(Debug, Default, Serialize)]
pub(super) struct Memory {
    /// Before the first session, with all devices known.
    before_kib: f64,
    /// With all sessions, after they were idle.
    with_sessions_kib: f64,
    /// After they had sent.
    loaded_kib: f64,
    /// When all had ended.
    after_kib: f64,
    /// What one session adds, the larger of idle and loaded.
    per_session_kib: f64,
}

impl Echoes {
    /// Sums up requests and answers of each session.
    pub(super) fn new(sessions: &[(u32, u32)], rtt_ms: Percentiles) -> Self {
        let sent = sessions.iter().map(|(sent, _)| u64::from(*sent)).sum();
        let answered = sessions.iter().map(|(_, answered)| u64::from(*answered)).sum();
        let each = sessions.iter().filter(|(sent, _)| *sent > 0);
        let least = each.map(|(sent, answered)| f64::from(*answered) / f64::from(*sent)).min_by(f64::total_cmp);
        Self { sent, answered, success: share(answered, sent), least_success: least.unwrap_or(0.0), rtt_ms }
    }
}

impl Memory {
    /// From bytes before, with sessions, after load, and after the last session.
    pub(super) fn new(bytes: [u64; 4], sessions: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "memory is less than 2^52 bytes")]
        let [before, with, loaded, after] = bytes.map(|bytes| bytes as f64 / 1024.0);
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
    /// Begins with what is asked for.
    pub(super) fn new(options: &Options, gateway: Program) -> Self {
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
            phases: Vec::new(),
            memory: Memory::default(),
            limited_by: None,
        }
    }

    /// Notes how sessions stand, before they are ended.
    pub(super) fn note_sessions(&mut self, generator: &Generator, sessions: &[SessionInfo]) {
        self.connected = generator.connected();
        (self.failed, self.failures) = generator.ended();
        self.clients_on_esp = generator.on_esp();
        self.gateway_sessions = sessions.len();
        self.gateway_on_esp = sessions.iter().filter(|session| session.carrier == "esp").count();
        let both = self.clients_on_esp.min(self.gateway_on_esp);
        self.esp_share = share(both as u64, u64::from(self.clients));
    }

    /// Judges the figures, when all are there.
    pub(super) fn close(&mut self) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        self.limited_by = self.phases.iter().find_map(|phase| limit(phase, cores));
    }

    /// What makes the run a failure.
    pub(super) fn failures(&self) -> Option<String> {
        let reasons = || self.failures.join("; ");
        (self.failed > 0).then(|| format!("{} of {} clients failed: {}", self.failed, self.clients, reasons()))
    }
}

/// What kept a phase from showing the gateway alone.
fn limit(phase: &Phase, cores: usize) -> Option<String> {
    #[expect(clippy::cast_precision_loss, reason = "processors are few")]
    let (cores, threads) = (cores as f64, THREADS as f64);
    let Phase { name, generator_cores, machine_cores, .. } = phase;
    if *generator_cores > BUSY * threads {
        return Some(format!("{name}: the generator used {generator_cores:.2} cores with {THREADS} threads"));
    }
    if *machine_cores > BUSY * cores {
        return Some(format!("{name}: {machine_cores:.2} of {cores} processors were busy"));
    }
    let late = phase.lateness_ms.filter(|lateness| lateness.p99 > LATE);
    late.map(|late| format!("{name}: the generator was up to {:.0} ms late (99 %)", late.p99))
}

fn share(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let (part, whole) = (part as f64, whole.max(1) as f64);
    part / whole
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine.line())?;
        let build = if self.debug_build { ", not a release build" } else { "" };
        writeln!(f, "{} clients, {} arriving per second{build}\n", self.clients, self.arrive_per_second)?;
        writeln!(f, "connected   {} at {:.0}/s, {} failed", self.connected, self.connect_rate, self.failed)?;
        writeln!(f, "connect     {} ms", self.connect_times)?;
        writeln!(
            f,
            "carrier     {} of {} on esp; the gateway says {} of {}",
            self.clients_on_esp, self.connected, self.gateway_on_esp, self.gateway_sessions
        )?;
        if let Some(Echoes { sent, answered, success, least_success, rtt_ms }) = &self.echoes {
            let (percent, least) = (success * 100.0, least_success * 100.0);
            writeln!(f, "echo        {answered} of {sent} answered ({percent:.2} %; worst client {least:.1} %)")?;
            writeln!(f, "round trip  {rtt_ms} ms")?;
        }
        let Memory { before_kib, with_sessions_kib, loaded_kib, after_kib, per_session_kib } = self.memory;
        writeln!(
            f,
            "memory      {before_kib:.0} KiB before, {with_sessions_kib:.0} idle, {loaded_kib:.0} loaded, {after_kib:.0} after"
        )?;
        writeln!(f, "            {per_session_kib:.1} KiB per session\n")?;
        writeln!(f, "cores       gateway (user + system)  generator  machine")?;
        for phase in &self.phases {
            let Phase { name, gateway_cores, gateway_user_cores: user, gateway_system_cores: system, .. } = phase;
            let (generator, machine) = (phase.generator_cores, phase.machine_cores);
            let gateway = format!("{gateway_cores:.3} ({user:.3} + {system:.3})");
            writeln!(f, "{name:<10}  {gateway:<23}  {generator:<9.3}  {machine:.3}")?;
        }
        match &self.limited_by {
            Some(limit) => write!(f, "\nlimited by more than the gateway: {limit}"),
            None => write!(f, "\nneither generator nor machine was the limit"),
        }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, max, .. } = self;
        write!(f, "p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, max {max:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            lateness_ms: Some(Percentiles { p99, ..Percentiles::default() }),
        }
    }

    #[test]
    fn limits_are_told_apart() {
        assert_eq!(limit(&phase(0.5, 1.0, 2.0), 2), None);
        for (phase, words) in [
            (phase(1.9, 2.0, 2.0), "generator used 1.90"),
            (phase(1.0, 1.95, 2.0), "1.95 of 2 processors"),
            (phase(0.5, 1.0, 50.0), "50 ms late"),
        ] {
            let limit = limit(&phase, 2).unwrap();
            assert!(limit.starts_with("loaded: ") && limit.contains(words), "{limit}");
        }
    }

    #[test]
    fn worst_session_is_not_hidden_by_the_others() {
        let echoes = Echoes::new(&[(10, 10), (10, 5), (0, 0)], Percentiles::default());
        assert_eq!((echoes.sent, echoes.answered), (20, 15));
        assert_eq!((echoes.success, echoes.least_success), (0.75, 0.5));
    }

    #[test]
    fn memory_per_session_is_that_of_the_worst_moment() {
        let memory = Memory::new([10 << 20, 20 << 20, 30 << 20, 15 << 20], 1024);
        assert_eq!((memory.before_kib, memory.per_session_kib), (10_240.0, 20.0));
    }
}
