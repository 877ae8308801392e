//! What the load is doing now and how long it will still take, for whoever watches, and whether the user wants it to
//! end.

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use adit_program::output;
use anyhow::Result;

use super::options::{Carrier, Options};
use crate::interrupt::Interrupt;

/// How often the line on a terminal changes.
const REFRESH: Duration = Duration::from_millis(250);
/// Devices a gateway makes per second, about.
const DEVICES: f64 = 1_000.0;
/// What start, waits between phases and the end take, about.
const BESIDES: Duration = Duration::from_secs(4);
/// What the search for the highest rate takes, about.
const SEARCH: Duration = Duration::from_secs(12);

/// The phases of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The gateway starts and learns its devices.
    Preparing,
    /// Clients connect.
    Connecting,
    /// Nobody sends.
    Idle,
    /// All send.
    Loaded,
    /// Some look for the highest rate.
    Searching,
    /// Some send at most of it.
    Active,
    /// The gateway is killed and started again.
    Restart,
    /// Sessions end.
    Ending,
    /// Clients come and go.
    Churn,
}

impl Stage {
    fn words(self) -> &'static str {
        match self {
            Self::Preparing => "a gateway starts and learns its devices",
            Self::Connecting => "clients connect",
            Self::Idle => "sessions are idle",
            Self::Loaded => "all sessions send",
            Self::Searching => "the highest rate is searched",
            Self::Active => "some sessions send much",
            Self::Restart => "the gateway is killed and started again",
            Self::Ending => "sessions end",
            Self::Churn => "clients come and go",
        }
    }
}

/// Watches over one run. It lives in the thread that started it.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    interrupt: &'a Interrupt,
    plan: Vec<(Stage, Duration)>,
    terminal: bool,
    now: RefCell<Now>,
}

#[derive(Debug)]
struct Now {
    stage: Stage,
    began: Instant,
    shown: Option<Instant>,
}

impl<'a> Watch<'a> {
    /// Begins, with the phases these options ask for.
    pub(super) fn new(interrupt: &'a Interrupt, options: &Options) -> Self {
        let now = RefCell::new(Now { stage: Stage::Preparing, began: Instant::now(), shown: None });
        let watch = Self { interrupt, plan: plan(options), terminal: io::stderr().is_terminal(), now };
        watch.enter(Stage::Preparing);
        watch
    }

    /// A phase begins.
    pub(super) fn enter(&self, stage: Stage) {
        self.now.replace(Now { stage, began: Instant::now(), shown: None });
        if !self.terminal {
            let left = short(remaining(&self.plan, stage, Duration::ZERO));
            output::note(&format!("{} ({left} left)", stage.words()));
        }
        self.show();
    }

    /// Fails once the user wants the work to end; to be called often.
    pub(super) fn check(&self) -> Result<()> {
        self.show();
        self.interrupt.check()
    }

    /// Sleeps, and fails as soon as the user wants the work to end.
    pub(super) fn pause(&self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            self.show();
            let left = end.saturating_duration_since(Instant::now());
            self.interrupt.pause(left.min(REFRESH))?;
            if left <= REFRESH {
                return Ok(());
            }
        }
    }

    fn show(&self) {
        let mut now = self.now.borrow_mut();
        if !self.terminal || now.shown.is_some_and(|shown| shown.elapsed() < REFRESH) {
            return;
        }
        now.shown = Some(Instant::now());
        let left = short(remaining(&self.plan, now.stage, now.began.elapsed()));
        let mut output = io::stderr().lock();
        let _closed = write!(output, "\r\x1b[K{} ({left} left)", now.stage.words()).and_then(|()| output.flush());
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.terminal {
            let _closed = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// The phases in their order and how long each should take.
fn plan(options: &Options) -> Vec<(Stage, Duration)> {
    let per = |count: u32, rate: f64| Duration::from_secs_f64(f64::from(count) / rate);
    let proof = if options.carrier == Carrier::Esp { Duration::from_secs(1) } else { Duration::ZERO };
    let mut plan = vec![
        (Stage::Preparing, BESIDES + per(options.clients, DEVICES)),
        (Stage::Connecting, per(options.clients, options.arrive) + proof + super::SETTLING),
        (Stage::Idle, options.duration),
    ];
    if options.rate > 0.0 {
        plan.push((Stage::Loaded, options.duration));
    }
    if options.active > 0 {
        plan.extend([(Stage::Searching, SEARCH), (Stage::Active, options.duration)]);
    }
    if let Some(down) = options.restart {
        plan.push((Stage::Restart, BESIDES + down));
    }
    plan.push((Stage::Ending, BESIDES));
    if options.churn.is_some() {
        plan.push((Stage::Churn, options.duration));
    }
    plan
}

/// What is left of this stage and of all behind it.
fn remaining(plan: &[(Stage, Duration)], stage: Stage, elapsed: Duration) -> Duration {
    let all: Duration = plan.iter().skip_while(|(one, _)| *one != stage).map(|(_, duration)| *duration).sum();
    let own = plan.iter().find(|(one, _)| *one == stage).map_or(Duration::ZERO, |(_, duration)| *duration);
    all - own.min(elapsed)
}

fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::parsed;
    use super::*;

    #[test]
    fn a_stage_that_takes_longer_does_not_shorten_the_next() {
        let second = Duration::from_secs(1);
        let plan = [(Stage::Connecting, second * 5), (Stage::Idle, second * 10), (Stage::Ending, second)];
        assert_eq!(remaining(&plan, Stage::Connecting, second * 2), second * 14);
        assert_eq!(remaining(&plan, Stage::Connecting, second * 60), second * 11);
        assert_eq!(remaining(&plan, Stage::Ending, Duration::ZERO), second);
    }

    #[test]
    fn only_stages_that_are_asked_for_are_planned() {
        let stages =
            |arguments: &[&str]| plan(&parsed(arguments)).into_iter().map(|(stage, _)| stage).collect::<Vec<_>>();
        let always = [Stage::Preparing, Stage::Connecting, Stage::Idle, Stage::Ending];
        assert_eq!(stages(&["--rate", "0"]), always);
        let all = stages(&["--active", "5", "--churn", "5/s"]);
        assert_eq!((all.len(), all.last()), (8, Some(&Stage::Churn)));
    }

    #[test]
    fn times_are_short() {
        assert_eq!(
            (short(Duration::from_secs(59)).as_str(), short(Duration::from_secs(61)).as_str()),
            ("59 s", "1 min 1 s")
        );
    }
}
