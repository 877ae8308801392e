//! Thousands of clients in this one process, without TUN devices, and what their sessions cost a gateway.
//!
//! Each client makes a real handshake, logs in with a bearer token of its own, opens a tunnel and, with the carrier `esp`,
//! negotiates and proves that. Then all are idle for a while, and at last each sends echo requests to the gateway's inner
//! address, which the kernel of the gateway's host answers. They share a few UDP sockets and two threads.

mod client;
mod echo;
mod generator;
mod histogram;
mod lane;
mod meter;
mod report;
mod session;
mod site;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::interrupt::Interrupt;
use crate::measure::accounting::resident;
use crate::{lab, output};
use generator::Generator;
use meter::Meter;
use report::{Echoes, Memory, Report};
use site::Site;

/// Most clients: each needs an inner address, and the pool has 16 bits.
const MAX_CLIENTS: i64 = 60_000;
/// Longest wait for ESP on all sessions, after the last has connected.
const PROOF: Duration = Duration::from_secs(10);
/// Pause before sessions count as idle: until then they look for the size their path takes.
const SETTLING: Duration = Duration::from_secs(2);
/// Longest wait for the last answers.
const DRAIN: Duration = Duration::from_millis(500);
/// Longest wait for the gateway to notice that all sessions have ended.
const ENDING: Duration = Duration::from_secs(10);

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// By ESP once it is proven.
    Esp,
    /// In datagrams of the QUIC connection; clients do not offer ESP.
    Quic,
}

/// What the load generator can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many clients connect.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    clients: u32,
    /// How many of them arrive each second.
    #[arg(long, default_value = "200/s", value_name = "N/s", value_parser = arrival)]
    arrive: f64,
    /// Echo requests each client sends per second once all are connected; 0 leaves them idle.
    #[arg(long, default_value_t = 0.2, value_name = "PACKETS", value_parser = rate)]
    rate: f64,
    /// How long sessions are watched idle, and how long they send.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How packets travel.
    #[arg(long, value_enum, default_value_t = Carrier::Esp)]
    carrier: Carrier,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn arrival(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    let number = number.filter(|number| (0.1..=100_000.0).contains(number));
    number.ok_or_else(|| "a number of clients per second from 0.1/s to 100000/s is needed".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=10_000.0).contains(number));
    number.ok_or_else(|| "a number of packets per second from 0 to 10000 is needed".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let is_sensible = (Duration::from_millis(100)..=Duration::from_secs(24 * 3600)).contains(&time);
    is_sensible.then_some(time).ok_or_else(|| "a time from 100ms to 24h is needed".to_owned())
}

/// Makes the load and reports; must be called while the process has a single thread.
///
/// # Errors
///
/// Fails where the system permits no lab, when interrupted, and, after the report, where a client could not connect or lost
/// its tunnel.
pub fn run(options: &Options) -> Result<()> {
    // Before any thread exists, as the kernel demands.
    lab::enter_user_namespace()?;
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

fn measure(options: &Options, interrupt: &Interrupt) -> Result<Report> {
    let check = || interrupt.check();
    let site = Site::start(options.clients)?;
    let mut report = Report::new(options, site.program());
    check()?;
    let tokens = site.tokens(options.clients)?;
    let gateway = site.process()?;
    let meter = Meter::new(gateway);
    let mut generator = Generator::new(&site, options.carrier)?;
    let before = resident(gateway)?;

    let connecting = meter.start("connect")?;
    let pace = generator.connect(tokens, options.arrive, &check)?;
    report.phases.push(connecting.end(Some(pace.lateness))?);
    report.connect_times = generator.connect_times();
    report.connect_rate = per_second(generator.connected(), pace.took);
    if options.carrier == Carrier::Esp {
        report.esp_proven = generator.settle(PROOF, &check)?;
    }
    interrupt.pause(SETTLING)?;

    let idle = meter.start("idle")?;
    interrupt.pause(options.duration)?;
    report.phases.push(idle.end(None)?);
    let with_sessions = resident(gateway)?;
    if options.rate > 0.0 {
        load(options, &site, &generator, &meter, &mut report, interrupt)?;
    }
    let loaded = resident(gateway)?;
    report.note_sessions(&generator, &site.gateway().sessions()?);
    generator.disconnect();
    await_end(&site, interrupt)?;
    report.memory = Memory::new([before, with_sessions, loaded, resident(gateway)?], report.connected);
    report.close();
    Ok(report)
}

/// Lets all sessions send for a while.
fn load(
    options: &Options,
    site: &Site,
    generator: &Generator,
    meter: &Meter,
    report: &mut Report,
    interrupt: &Interrupt,
) -> Result<()> {
    let rate = options.rate * f64::from(u32::try_from(generator.connected()).context("sessions are few")?);
    let loaded = meter.start("loaded")?;
    let pace = generator.echo(site.inner(), rate, options.duration, &|| interrupt.check())?;
    report.phases.push(loaded.end(Some(pace.lateness))?);
    interrupt.pause(DRAIN)?;
    report.echoes = Some(Echoes::new(&generator.echoes(), generator.round_trips()));
    Ok(())
}

/// Waits until the gateway has no session.
fn await_end(site: &Site, interrupt: &Interrupt) -> Result<()> {
    let deadline = Instant::now() + ENDING;
    while Instant::now() < deadline && !site.gateway().sessions()?.is_empty() {
        interrupt.check()?;
        thread::sleep(DRAIN);
    }
    interrupt.pause(DRAIN)
}

fn per_second(count: usize, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "sessions are few")]
    let count = count as f64;
    count / took.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_read_with_and_without_their_unit() {
        assert_eq!((arrival("200/s"), arrival("0.5")), (Ok(200.0), Ok(0.5)));
        for wrong in ["", "0", "-1/s", "200/m", "NaN", "inf/s"] {
            assert!(arrival(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_and_durations_have_bounds() {
        assert_eq!((rate("0"), rate("2.5")), (Ok(0.0), Ok(2.5)));
        assert!(rate("-0.1").is_err() && rate("NaN").is_err());
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("10").is_err() && duration("1ms").is_err());
    }
}
