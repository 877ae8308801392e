//! Thousands of clients in this one process, without TUN devices, and what their sessions cost a gateway.
//!
//! Each client makes a real handshake, logs in as a device of its own, opens a tunnel and, with the carrier `esp`,
//! negotiates and proves that. Then all are idle for a while, and after that each sends echo requests to the gateway's
//! inner address, which the kernel of the gateway's host answers. If wanted, some of them move to other addresses
//! meanwhile, some send much, the gateway is killed and started again, and at last clients come and go. They share a
//! few UDP sockets, but for those that move, and two threads. With the carrier `tls` each is a client of the AnyConnect
//! family, with a TCP connection of its own.

mod anyconnect;
mod capacity;
mod client;
mod echo;
mod fairness;
mod generator;
pub(crate) mod histogram;
pub(crate) mod limits;
mod load_path;
pub(crate) mod meter;
mod moves;
mod options;
pub(crate) mod passes;
mod plan;
mod report;
mod returning;
mod roam;
mod session;
mod site;
pub(crate) mod targets;
mod text;
mod watch;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_program::output;
use anyhow::{Context as _, Result, bail, ensure};

use crate::interrupt::Interrupt;
use crate::measure::accounting::resident;
use capacity::Trial;
use generator::Generator;
use meter::Meter;
use plan::Load;
use report::{Active, Churn, Descriptors, Echoes, Memory, Report};
use session::Session;
use site::Site;
use watch::{Stage, Watch};

pub use options::{Carrier, Login, Options};
pub(crate) use returning::Restarted;

/// Longest wait for ESP on all sessions, after the last has connected.
const PROOF: Duration = Duration::from_secs(10);
/// Pause before sessions count as idle: until then they look for the size their path takes.
const SETTLING: Duration = Duration::from_secs(2);
/// Longest wait for the last answers.
const DRAIN: Duration = Duration::from_millis(500);
/// Longest wait for the gateway to notice that all sessions have ended.
const ENDING: Duration = Duration::from_secs(10);
/// Share of the highest rate at which active sessions send.
const MOST: f64 = 0.8;

/// Makes the load and reports; must be called while the process has a single thread.
///
/// # Errors
/// Fails where the system permits no lab or not enough descriptors or memory, when interrupted, and, after the report,
/// where a client could not connect or lost its tunnel.
pub fn run(options: &Options) -> Result<()> {
    options.check()?;
    limits::secure(options)?;
    // Before any thread exists, as the kernel demands.
    adit_lab::enter_user_namespace()?;
    let interrupt = Interrupt::listen()?;
    let report = measure(options, &interrupt)?;
    output::line(&if options.json {
        serde_json::to_string(&report).context("write the report as JSON")?
    } else {
        report.to_string()
    });
    match report.failures() {
        Some(failures) => bail!(failures),
        None => Ok(()),
    }
}

/// Kills a gateway under so many clients, each of which sends once a second, starts it again and says how they came
/// back.
///
/// # Errors
/// Fails where the system permits no lab or not enough descriptors or memory, when interrupted, and where a client had
/// no session before.
pub(crate) fn restart(clients: u32, interrupt: &Interrupt) -> Result<Restarted> {
    let options = Options::of_restart(clients);
    limits::secure(&options)?;
    let report = measure(&options, interrupt)?;
    ensure!(report.failed == 0, "{}", report.failures().unwrap_or_default());
    report.restart.context("the gateway was restarted")
}

fn measure(options: &Options, interrupt: &Interrupt) -> Result<Report> {
    let watch = Watch::new(interrupt, options);
    let (mut site, passes) = Site::start(options, &|| watch.check())?;
    let generator = Generator::new(&site, passes, options)?;
    let meter = Meter::new(site.process()?);
    let report = Report::new(options, &site);
    let mut run = Run { options, watch: &watch, site: &mut site, meter, generator, report };
    run.sessions()?;
    if let Some(rate) = options.churn {
        run.churn(rate)?;
    }
    run.report.close();
    Ok(run.report)
}

/// A load under way.
struct Run<'a> {
    options: &'a Options,
    watch: &'a Watch<'a>,
    site: &'a mut Site,
    meter: Meter,
    // Before the site its sockets are in.
    generator: Generator,
    report: Report,
}

impl Run<'_> {
    /// All sessions from the first to the last.
    fn sessions(&mut self) -> Result<()> {
        let before = (self.resident()?, self.descriptors()?);
        self.connect()?;
        self.watch.enter(Stage::Idle);
        let idle = self.meter.start("idle")?;
        self.watch.pause(self.options.duration)?;
        self.report.phases.push(idle.end(None)?);
        let with_sessions = (self.resident()?, self.descriptors()?);
        if self.options.rate > 0.0 {
            self.load()?;
        }
        if self.options.active > 0 {
            self.active()?;
        }
        let loaded = self.resident()?;
        if let Some(down) = self.options.restart {
            self.restart(down)?;
        }
        self.report.note_sessions(&self.generator, &self.site.gateway().sessions()?);
        self.watch.enter(Stage::Ending);
        self.generator.disconnect();
        let (_, more_files) = self.await_end(before.1)?;
        let after = (self.resident()?, before.1 + more_files);
        self.report.memory = Memory::new([before.0, with_sessions.0, loaded, after.0], self.report.connected);
        self.report.descriptors = Descriptors { before: before.1, with_sessions: with_sessions.1, after: after.1 };
        Ok(())
    }

    /// Lets all clients connect, and waits until they have settled.
    fn connect(&mut self) -> Result<()> {
        self.watch.enter(Stage::Connecting);
        let check = || self.watch.check();
        let connecting = self.meter.start("connect")?;
        let pace = self.generator.connect(self.options.arrive, &check)?;
        self.report.phases.push(connecting.end(Some(pace.lateness))?);
        self.report.connect_times = self.generator.connect_times();
        self.report.connect_rate = per_second(self.generator.connected(), pace.took);
        if self.options.carrier == Carrier::Esp {
            self.report.esp_proven = self.generator.settle(PROOF, &check)?;
        }
        self.watch.pause(SETTLING)
    }

    /// Lets all sessions send for a while, and some clients move.
    fn load(&mut self) -> Result<()> {
        self.watch.enter(Stage::Loaded);
        let check = || self.watch.check();
        let Options { duration, roam_every, .. } = *self.options;
        let load = self.all();
        let loaded = self.meter.start("loaded")?;
        let roamers = self.generator.roam(roam_every, duration);
        let pace = self.generator.echo(load, duration, &check)?;
        self.report.phases.push(loaded.end(Some(pace.lateness))?);
        if roamers > 0 {
            self.report.roaming = Some(self.generator.return_home(roamers, roam_every, &check)?);
        }
        self.watch.pause(DRAIN)?;
        let counts = counts(&self.generator.sessions());
        self.report.echoes = Some(Echoes::new(&counts, self.generator.echoes().round_trips.percentiles()));
        Ok(())
    }

    /// Lets some sessions send as much as goes, and then most of that, while the others go on as before.
    fn active(&mut self) -> Result<()> {
        let mut sessions = self.generator.sessions();
        let others = sessions.split_off(sessions.len().min(self.options.active as usize));
        sessions.iter().for_each(|session| session.set_active(true));
        self.watch.enter(Stage::Searching);
        let capacity = capacity::search(|rate| self.attempt(&sessions, rate))?;
        let Some(capacity) = capacity else {
            bail!("the machine does not carry even the least rate of active sessions; look for other load on it");
        };
        self.watch.enter(Stage::Active);
        let echoes = self.generator.echoes();
        echoes.round_trips.clear();
        echoes.active_round_trips.clear();
        let (before, failed) = ([counts(&sessions), counts(&others)], self.generator.ended().0);
        let (rate, rest) = (capacity * MOST, self.options.rate * float(others.len()));
        let phase = self.meter.start("active")?;
        let load = |sessions: &[Arc<Session>], rate| Load { sessions: sessions.to_vec(), rate };
        let (first, second) = (load(&sessions, rate), load(&others, rest));
        let pace = self.generator.echo_with(first, Some(second), self.options.duration, &|| self.watch.check())?;
        self.report.phases.push(phase.end(Some(pace.lateness))?);
        self.watch.pause(DRAIN)?;
        let [of_active, of_others] = before;
        let echoes = self.generator.echoes();
        self.report.active = Some(Active {
            clients: u32::try_from(sessions.len()).context("sessions are few")?,
            capacity_per_second: capacity,
            rate_per_second: rate,
            echoes: Echoes::new(&since(&counts(&sessions), &of_active), echoes.active_round_trips.percentiles()),
            others: Echoes::new(&since(&counts(&others), &of_others), echoes.round_trips.percentiles()),
            drops: self.generator.ended().0 - failed,
        });
        Ok(())
    }

    /// Kills the gateway under its clients, and starts it again.
    fn restart(&mut self, down: Duration) -> Result<()> {
        self.watch.enter(Stage::Restart);
        let (watch, site) = (self.watch, &mut *self.site);
        let outage = || {
            // So that nobody is idle when it goes.
            watch.pause(SETTLING)?;
            site.restart(|| watch.pause(down))
        };
        let clients = self.generator.restart(outage, &|| watch.check())?;
        self.report.restart = Some(self.generator.returns().report(clients, down));
        // It is another process now.
        self.meter = Meter::new(self.site.process()?);
        Ok(())
    }

    /// Tries one rate for a moment.
    fn attempt(&self, sessions: &[Arc<Session>], rate: f64) -> Result<Trial> {
        let sums = || sum(&counts(sessions));
        let before = sums();
        let load = Load { sessions: sessions.to_vec(), rate };
        let began = Instant::now();
        self.generator.echo(load, capacity::TRIAL, &|| self.watch.check())?;
        // What took longer was sent at a lower rate.
        let stretch = began.elapsed().as_secs_f64().max(capacity::TRIAL.as_secs_f64()) / capacity::TRIAL.as_secs_f64();
        self.watch.pause(DRAIN)?;
        let (sent, answered) = (sums().0 - before.0, sums().1 - before.1);
        let in_time = if stretch < 1.1 { 1.0 } else { 1.0 / stretch };
        Ok(Trial { sent: in_time, answered: answered / sent.max(1.0) })
    }

    /// Lets clients come and go.
    fn churn(&mut self, rate: f64) -> Result<()> {
        self.watch.enter(Stage::Churn);
        let before = (self.resident()?, self.descriptors()?);
        let phase = self.meter.start("churn")?;
        let visits = self.generator.churn(rate, self.options.duration, &|| self.watch.check())?;
        self.report.phases.push(phase.end(Some(visits.pace.lateness))?);
        let left = self.await_end(before.1)?;
        self.report.churn = Some(Churn::new(rate, &visits, left, [before.0, self.resident()?]));
        self.report.note_failures(&self.generator);
        Ok(())
    }

    /// Waits until the gateway has no session, and no more open files than `files`; at most [`ENDING`]. Returns what is
    /// left: sessions, and open files beyond `files`.
    fn await_end(&self, files: usize) -> Result<(usize, usize)> {
        let deadline = Instant::now() + ENDING;
        while Instant::now() < deadline {
            if self.site.gateway().sessions()?.is_empty() && self.descriptors()? <= files {
                break;
            }
            self.watch.pause(DRAIN)?;
        }
        self.watch.pause(DRAIN)?;
        // Whoever asks for the sessions opens a connection, which the gateway closes in its own time.
        let files = self.descriptors()?.saturating_sub(files);
        Ok((self.site.gateway().sessions()?.len(), files))
    }

    /// All sessions at the rate that is asked for.
    fn all(&self) -> Load {
        let sessions = self.generator.sessions();
        Load { rate: self.options.rate * float(sessions.len()), sessions }
    }

    fn resident(&self) -> Result<u64> {
        resident(self.site.process()?)
    }

    /// Open files of the gateway.
    fn descriptors(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.site.process()?);
        Ok(fs::read_dir(&folder).with_context(|| format!("read {folder}"))?.count())
    }
}

/// For each session the echo requests it sent and the answers it got.
fn counts(sessions: &[Arc<Session>]) -> Vec<(u32, u32)> {
    sessions.iter().map(|session| (session.sent(), session.answered())).collect()
}

/// What was added to each.
fn since(now: &[(u32, u32)], before: &[(u32, u32)]) -> Vec<(u32, u32)> {
    now.iter().zip(before).map(|(now, before)| (now.0 - before.0, now.1 - before.1)).collect()
}

/// All together.
fn sum(counts: &[(u32, u32)]) -> (f64, f64) {
    counts.iter().fold((0.0, 0.0), |sum, (sent, answered)| (sum.0 + f64::from(*sent), sum.1 + f64::from(*answered)))
}

fn per_second(count: usize, took: Duration) -> f64 {
    float(count) / took.as_secs_f64().max(1e-9)
}

fn float(count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "sessions are few")]
    let count = count as f64;
    count
}
