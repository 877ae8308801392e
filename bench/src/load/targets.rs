//! What a gateway should reach on a machine of two cores, and what it was seen to reach.

use std::fmt;

use serde::Serialize;

use super::options::Login;

/// Sessions that the targets of many sessions are about.
const SESSIONS: u32 = 10_000;
/// Active sessions among them.
const ACTIVE: u32 = 200;
/// How long the targets last, in seconds: many sessions, active ones, churn, and a burst.
const LONG: f64 = 900.0;
const ACTIVE_LONG: f64 = 300.0;
const CHURN_LONG: f64 = 1_800.0;
const BURST_LONG: f64 = 60.0;
/// Clients per second that come and go.
const CHURN: f64 = 100.0;
/// Clients per second of a burst.
const BURST: f64 = 250.0;
/// Sessions of the AnyConnect family, and how many clients per second come for them.
const CHANNELS: u32 = 2_000;
const CHANNELS_BURST: f64 = 100.0;

/// One target beside what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Target {
    /// Whose target: `L1` and `L2` of many sessions, `C1` of clients that come and go, `C2` of a burst, `P1` of many
    /// sessions under a policy, `A7` of sessions of the AnyConnect family.
    pub(crate) name: &'static str,
    /// What is meant, with its unit.
    pub(crate) what: &'static str,
    /// The bound, such as `<= 20`.
    pub(crate) target: String,
    /// What was seen; `None` where this run could not show it.
    pub(crate) measured: Option<f64>,
    /// Whether that is within the bound; `None` where it was not measured, or says nothing of the gateway.
    pub(crate) met: Option<bool>,
    /// Why there is nothing to judge, or how this run differs from what the target asks for.
    pub(crate) note: Option<String>,
}

impl Target {
    /// A target that a run of any size shows.
    pub(crate) fn of(name: &'static str, what: &'static str, bound: Bound, value: f64) -> Self {
        let (target, met) = (bound.to_string(), Some(bound.holds(value)));
        Self { name, what, target, measured: Some(value), met, note: None }
    }
}

/// What was seen of everything targets are about; each part `None` where it was not done.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Clients that were to connect.
    pub(super) clients: u32,
    /// What kept phases from showing the gateway alone.
    pub(super) limits: Vec<Limit>,
    /// All sessions.
    pub(super) sessions: Sessions,
    /// Those that sent much, with the number of them.
    pub(super) active: Option<(u32, Active)>,
    /// Clients that came and went, with how many per second.
    pub(super) churn: Option<(f64, Churn)>,
    /// How they connected.
    pub(super) burst: Burst,
}

/// What kept a phase from showing the gateway alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    /// The phase's name.
    pub(super) phase: &'static str,
    /// What it was.
    pub(super) what: String,
    /// Whether the generator did not do what it should, so that the gateway had less to do.
    pub(super) of_generator: bool,
}

impl Seen {
    /// What limited one of these phases, the generator before the machine.
    fn limit(&self, phases: &[&str]) -> Option<&Limit> {
        let find =
            |any: bool| self.limits.iter().find(|limit| phases.contains(&limit.phase) && (any || limit.of_generator));
        find(false).or_else(|| find(true))
    }
}

/// All sessions, up at once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sessions {
    pub(super) up: f64,
    pub(super) echo_share: Option<f64>,
    pub(super) rtt_p99_ms: Option<f64>,
    pub(super) resident_mib: f64,
    pub(super) per_session_kib: f64,
    pub(super) idle_cores: Option<f64>,
    pub(super) descriptors: f64,
    pub(super) seconds: f64,
}

/// Some that sent much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Active {
    pub(super) idle_rtt_p99_ms: f64,
    pub(super) jain: f64,
    pub(super) drops: f64,
    pub(super) seconds: f64,
}

/// Clients that came and went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Churn {
    pub(super) success: f64,
    pub(super) connect_p99_ms: f64,
    pub(super) sessions_left: f64,
    pub(super) descriptors_left: f64,
    pub(super) growth: f64,
    pub(super) seconds: f64,
}

/// How clients connected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burst {
    pub(super) login: Login,
    pub(super) under_policy: bool,
    /// Whether they are of the AnyConnect family.
    pub(super) by_tls: bool,
    pub(super) wanted: f64,
    pub(super) reached: f64,
    pub(super) seconds: f64,
}

impl Default for Burst {
    fn default() -> Self {
        Self { login: Login::Token, under_policy: false, by_tls: false, wanted: 0.0, reached: 0.0, seconds: 0.0 }
    }
}

/// On which side of a bound a value has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// At least this.
    Least(f64),
    /// At most this.
    Most(f64),
}

impl Bound {
    /// Whether a value is on its right side.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::Least(bound) => value >= bound,
            Self::Most(bound) => value <= bound,
        }
    }

    /// A bound that asks for so many times more, or leaves so many times less.
    pub(crate) fn stricter(self, factor: f64) -> Self {
        match self {
            Self::Least(bound) => Self::Least(bound * factor),
            Self::Most(bound) => Self::Most(bound / factor),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Least(bound) => write!(f, ">= {bound}"),
            Self::Most(bound) => write!(f, "<= {bound}"),
        }
    }
}

/// One line of a group: what, its bound, and the value.
type Line = (&'static str, Bound, Option<f64>);

/// All targets, in their order; of sessions of the AnyConnect family theirs alone.
pub(super) fn judge(seen: &Seen) -> Vec<Target> {
    if seen.burst.by_tls {
        return anyconnect(seen);
    }
    [sessions(seen), active(seen), churn(seen), burst(seen), policy(seen), anyconnect(seen)].concat()
}

fn sessions(seen: &Seen) -> Vec<Target> {
    let needs = (seen.clients < SESSIONS).then(|| format!("needs --clients {SESSIONS}"));
    let Sessions { up, echo_share, rtt_p99_ms, resident_mib, per_session_kib, idle_cores, descriptors, seconds } =
        seen.sessions;
    let lines = [
        ("sessions up", Bound::Least(SESSIONS.into()), Some(up)),
        ("echoes answered, %", Bound::Least(99.99), echo_share.map(percent)),
        ("echo round trip, p99, ms", Bound::Most(20.0), rtt_p99_ms),
        ("gateway memory, MiB", Bound::Most(1_024.0), Some(resident_mib)),
        ("memory per session, KiB", Bound::Most(100.0), Some(per_session_kib)),
        ("gateway, idle sessions, cores", Bound::Most(0.15), idle_cores),
        ("gateway descriptors", Bound::Most(200.0), Some(descriptors)),
    ];
    group("L1", &lines, needs, &differs(seconds, LONG), seen.limit(&["connect", "idle", "loaded"]))
}

fn active(seen: &Seen) -> Vec<Target> {
    let (count, found) = seen.active.map_or((0, None), |(count, active)| (count, Some(active)));
    let all = SESSIONS + ACTIVE;
    let is_large = found.is_some() && count >= ACTIVE && seen.clients >= all;
    let needs = (!is_large).then(|| format!("needs --clients {all} --active {ACTIVE}"));
    let lines = [
        ("echo round trip of the others, p99, ms", Bound::Most(50.0), found.map(|active| active.idle_rtt_p99_ms)),
        ("fairness of active sessions, Jain", Bound::Least(0.9), found.map(|active| active.jain)),
        ("sessions lost", Bound::Most(0.0), found.map(|active| active.drops)),
    ];
    let differs = differs(found.map_or(0.0, |active| active.seconds), ACTIVE_LONG);
    group("L2", &lines, needs, &differs, seen.limit(&["active"]))
}

fn churn(seen: &Seen) -> Vec<Target> {
    let (rate, found) = seen.churn.map_or((0.0, None), |(rate, churn)| (rate, Some(churn)));
    let needs = (rate < CHURN).then(|| format!("needs --churn {CHURN}/s"));
    let lines = [
        ("visits answered, %", Bound::Least(99.99), found.map(|churn| percent(churn.success))),
        ("connect, p99, ms", Bound::Most(500.0), found.map(|churn| churn.connect_p99_ms)),
        ("sessions left", Bound::Most(0.0), found.map(|churn| churn.sessions_left)),
        ("descriptors left", Bound::Most(0.0), found.map(|churn| churn.descriptors_left)),
        ("gateway memory growth, %", Bound::Most(5.0), found.map(|churn| percent(churn.growth))),
    ];
    let differs = differs(found.map_or(0.0, |churn| churn.seconds), CHURN_LONG);
    group("C1", &lines, needs, &differs, seen.limit(&["churn"]))
}

fn burst(seen: &Seen) -> Vec<Target> {
    let Burst { login, wanted, reached, seconds, .. } = seen.burst;
    let is_one = login == Login::Certificate && wanted >= BURST;
    // A little more, as the last arrives when its turn is over.
    let needs = (!is_one).then(|| "needs --login certificate --arrive 300/s --clients 18000".to_owned());
    let line = ("connects with certificates, 1/s", Bound::Least(BURST), Some(reached));
    let mut targets = group("C2", &[line], needs, &differs(seconds, BURST_LONG), seen.limit(&["connect"]));
    targets.push(Target {
        name: "C2",
        what: "connects with tickets, 1/s",
        target: Bound::Least(500.0).to_string(),
        measured: None,
        met: None,
        note: Some("not comparable: this gateway resumes no TLS session, by design".to_owned()),
    });
    targets
}

fn policy(seen: &Seen) -> Vec<Target> {
    let Burst { under_policy, wanted, reached, .. } = seen.burst;
    let is_one = under_policy && wanted >= BURST && seen.clients >= SESSIONS;
    let needs = (!is_one).then(|| format!("needs --policy FILE --arrive 300/s --clients {SESSIONS}"));
    let line = ("connects under a policy, 1/s", Bound::Least(BURST), Some(reached));
    group("P1", &[line], needs, "", seen.limit(&["connect"]))
}

fn anyconnect(seen: &Seen) -> Vec<Target> {
    let Burst { by_tls, wanted, reached, .. } = seen.burst;
    let is_one = by_tls && wanted >= CHANNELS_BURST && seen.clients >= CHANNELS;
    // A little more, as the last arrives when its turn is over.
    let needs = (!is_one).then(|| format!("needs --carrier tls --arrive 120/s --clients {CHANNELS}"));
    let lines = [
        ("AnyConnect sessions up", Bound::Least(CHANNELS.into()), Some(seen.sessions.up)),
        ("connects with a cookie, 1/s", Bound::Least(CHANNELS_BURST), Some(reached)),
        ("memory per session, KiB", Bound::Most(150.0), Some(seen.sessions.per_session_kib)),
    ];
    group("A7", &lines, needs, "", seen.limit(&["connect", "idle", "loaded"]))
}

/// The targets of one name, in a run that `needs` something else to show them, or differs from what they ask for.
///
/// A machine that is too small excuses what was missed; a generator that did too little, what was met as well.
fn group(
    name: &'static str,
    lines: &[Line],
    needs: Option<String>,
    differs: &str,
    limit: Option<&Limit>,
) -> Vec<Target> {
    let target = |&(what, bound, value): &Line| {
        let target = bound.to_string();
        let unmeasured = |why: String| {
            let note = Some(format!("not measured: {why}"));
            Target { name, what, target: target.clone(), measured: None, met: None, note }
        };
        if let Some(needs) = &needs {
            return unmeasured(needs.clone());
        }
        let Some(value) = value else { return unmeasured("this run left it out".to_owned()) };
        let difference = (!differs.is_empty()).then(|| differs.to_owned());
        let is_met = bound.holds(value);
        let (met, note) = match limit {
            Some(limit) if limit.of_generator || !is_met => (None, Some(format!("not comparable: {}", limit.what))),
            _ => (Some(is_met), difference),
        };
        Target { name, what, target: target.clone(), measured: Some(value), met, note }
    };
    lines.iter().map(target).collect()
}

/// How the length of a run differs from that of a target.
fn differs(seconds: f64, wanted: f64) -> String {
    if seconds >= wanted { String::new() } else { format!("over {seconds:.0} s, not {wanted:.0} s") }
}

fn percent(share: f64) -> f64 {
    share * 100.0
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, what, target, measured, met, note } = self;
        let measured = measured.map_or_else(String::new, number);
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let note = note.as_deref().unwrap_or_default();
        let line = format!("{name}  {what:<38}  {target:<9}  {measured:>9}  {verdict:<6}  {note}");
        write!(f, "{}", line.trim_end())
    }
}

/// Targets as a table.
pub(crate) struct Table<'a>(pub(crate) &'a [Target]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<4}{:<38}  {:<9}  {:>9}", "", "target", "bound", "measured")?;
        self.0.iter().try_for_each(|target| writeln!(f, "{target}"))
    }
}

/// With as many decimals as tell something.
fn number(value: f64) -> String {
    if value.abs() >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of so many clients that reaches everything but the memory it takes.
    fn seen(clients: u32) -> Seen {
        let sessions = Sessions {
            up: clients.into(),
            echo_share: Some(1.0),
            rtt_p99_ms: Some(3.0),
            resident_mib: 2_000.0,
            per_session_kib: 70.0,
            idle_cores: Some(0.1),
            descriptors: 20.0,
            seconds: 900.0,
        };
        Seen { clients, sessions, ..Seen::default() }
    }

    fn limit(phase: &'static str, what: &str, of_generator: bool) -> Limit {
        Limit { phase, what: what.to_owned(), of_generator }
    }

    fn of<'a>(targets: &'a [Target], name: &str, what: &str) -> &'a Target {
        targets.iter().find(|target| target.name == name && target.what.starts_with(what)).unwrap()
    }

    #[test]
    fn small_runs_say_what_they_need() {
        let targets = judge(&seen(50));
        assert!(targets.iter().all(|target| target.measured.is_none() && target.met.is_none()));
        for (name, words) in [
            ("L1", "--clients 10000"),
            ("L2", "--active 200"),
            ("C1", "--churn"),
            ("C2", "--login"),
            ("P1", "--policy"),
            ("A7", "--carrier tls"),
        ] {
            let note = of(&targets, name, "").note.as_deref().unwrap();
            assert!(note.starts_with("not measured: needs") && note.contains(words), "{note}");
        }
    }

    #[test]
    fn sessions_of_anyconnect_have_targets_of_their_own() {
        let mut seen = seen(2_000);
        seen.sessions.per_session_kib = 151.0;
        seen.burst = Burst { by_tls: true, wanted: 120.0, reached: 119.0, ..Burst::default() };
        let targets = judge(&seen);
        assert!(targets.iter().all(|target| target.name == "A7"), "{targets:?}");
        let met: Vec<_> = targets.iter().map(|target| target.met).collect();
        assert_eq!(met, [Some(true), Some(true), Some(false)]);
    }

    #[test]
    fn large_runs_are_judged_line_by_line() {
        let targets = judge(&seen(10_000));
        assert_eq!(of(&targets, "L1", "sessions up").met, Some(true));
        assert_eq!(of(&targets, "L1", "sessions up").note, None);
        let memory = of(&targets, "L1", "gateway memory");
        assert_eq!((memory.measured, memory.met), (Some(2_000.0), Some(false)));
        assert_eq!(of(&targets, "L2", "").met, None);
    }

    #[test]
    fn what_the_generator_missed_is_not_the_gateways_fault() {
        let late = |phase| Seen { limits: vec![limit(phase, "the generator was late", true)], ..seen(10_000) };
        assert_eq!(of(&judge(&late("churn")), "L1", "gateway memory").met, Some(false));
        let targets = judge(&late("loaded"));
        for what in ["gateway memory", "echo round trip"] {
            let target = of(&targets, "L1", what);
            assert_eq!((target.met, target.note.as_deref()), (None, Some("not comparable: the generator was late")));
        }
    }

    #[test]
    fn what_a_busy_machine_reached_counts_nevertheless() {
        let busy = limit("idle", "2 of 2 processors were busy", false);
        let targets = judge(&Seen { limits: vec![busy.clone()], ..seen(10_000) });
        assert_eq!(of(&targets, "L1", "echo round trip").met, Some(true));
        assert_eq!(of(&targets, "L1", "gateway memory").met, None);
        let both = Seen { limits: vec![busy, limit("loaded", "late", true)], ..seen(10_000) };
        assert_eq!(of(&judge(&both), "L1", "echo round trip").note.as_deref(), Some("not comparable: late"));
    }

    #[test]
    fn shorter_runs_say_so() {
        let mut seen = seen(10_200);
        seen.sessions.seconds = 20.0;
        seen.active = Some((200, Active { idle_rtt_p99_ms: 10.0, jain: 0.99, drops: 0.0, seconds: 300.0 }));
        let targets = judge(&seen);
        assert_eq!(of(&targets, "L1", "sessions").note.as_deref(), Some("over 20 s, not 900 s"));
        assert_eq!((of(&targets, "L2", "fair").met, &of(&targets, "L2", "fair").note), (Some(true), &None));
    }

    #[test]
    fn a_burst_needs_certificates() {
        let mut seen = seen(18_000);
        seen.burst =
            Burst { login: Login::Certificate, wanted: 300.0, reached: 240.0, seconds: 60.0, ..Burst::default() };
        assert_eq!(of(&judge(&seen), "C2", "connects with c").met, Some(false));
        seen.burst.login = Login::Token;
        assert_eq!(of(&judge(&seen), "C2", "connects with c").measured, None);
    }

    #[test]
    fn connects_under_a_policy_need_one_and_many_sessions() {
        let mut seen = seen(10_000);
        seen.burst = Burst { under_policy: true, wanted: 300.0, reached: 290.0, seconds: 33.0, ..Burst::default() };
        assert_eq!(of(&judge(&seen), "P1", "connects").met, Some(true));
        seen.burst.reached = 249.0;
        assert_eq!(of(&judge(&seen), "P1", "connects").met, Some(false));
        for without in [Burst { under_policy: false, ..seen.burst }, Burst { wanted: 100.0, ..seen.burst }] {
            assert_eq!(of(&judge(&Seen { burst: without, ..seen.clone() }), "P1", "connects").measured, None);
        }
        seen.clients = 9_999;
        assert_eq!(of(&judge(&seen), "P1", "connects").measured, None);
    }
}
