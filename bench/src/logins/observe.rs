//! One part of a run: a flood or none, and what users, a session and the gateway's memory notice of it.

use std::thread;
use std::time::{Duration, Instant};

use adit_lab::Host;
use adit_lab::traffic::{EchoReport, echo};
use adit_program::task::Task;
use anyhow::{Context as _, Result, anyhow};

use super::flood::{Flood, Tries};
use super::options::Options;
use super::plan::{self, Flooders, Part};
use super::report::{Memory, Observation, float};
use super::site::{FROM_HOME, PASSWORD, Site, WITH_DEVICE};
use super::users::{Logins, Visitor};
use super::wire::Door;
use crate::load::meter::Meter;
use crate::measure::accounting::{anonymous, resident};
use crate::runtime::on;

/// Packets of the session each second, and the bytes of each: some 20 Mbit/s each way.
const PACKETS: u32 = 2_000;
const SIZE: usize = 1_200;
/// How long after its begin a flood has the rate that it will have: a refusal takes a second, or two.
const RAMP: Duration = Duration::from_millis(2_500);
/// How often the gateway's memory is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Lets one part of a run pass.
///
/// # Errors
/// Where a flood cannot be made, the gateway has ended, or `pause` fails.
pub(super) fn observe(
    site: &Site,
    options: &Options,
    part: Part,
    pause: &dyn Fn(Duration) -> Result<()>,
) -> Result<Observation> {
    // The connections of the flood are open before it begins.
    let plan = part.flood(options.rate());
    let (addresses, connections) = plan.as_ref().map_or((0, 0), |plan| (plan.addresses.len(), plan.connections));
    let mut flood = plan.map(|plan| Flood::connect(&site.flood, &site.anonymous, plan)).transpose()?;
    let process = site.process()?;
    let (before, meter) = (site.hashes()?, Meter::new(process).start(name(part.flooders))?);
    // Flood, users and session begin together.
    let begin = Instant::now();
    if let Some(flood) = &mut flood {
        flood.begin(&site.flood);
    }
    let end = begin + options.duration();
    let users = visitors(site, options, part).map(|visitor| on(&site.users, visitor.visit(begin, end)));
    let traffic = send(site.client.host().clone(), site, options.duration())?;
    let Watched { halves: [first_half, second_half], refused_per_second } =
        watch(process, flood.as_ref(), begin, options.duration(), pause)?;
    let tries = flood.map_or_else(Tries::default, Flood::end);
    let processor = meter.end(None)?;
    // What is still on its way is waited for.
    let echoes = traffic.join().map_err(|_panic| anyhow!("the session's traffic stopped"))??;
    let [device, network, strangers] = users.map(|user| wait_for(site, user));
    let after = site.hashes()?;
    Ok(Observation {
        round: part.round + 1,
        flooders: part.flooders,
        addresses,
        connections,
        tries,
        refused_per_second,
        device: device?,
        network: network?,
        strangers: strangers?,
        packets_sent: echoes.sent,
        packets_back: echoes.received,
        hashes: after.begun - before.begun,
        turned_away: after.turned_away - before.turned_away,
        first_half,
        second_half,
        processor,
    })
}

/// What was seen while a part passed.
struct Watched {
    /// The most memory in each half.
    halves: [Memory; 2],
    /// Tries of the flood that were refused each second, once it had its rate.
    refused_per_second: f64,
}

/// Lets the time of a part pass, and looks at the gateway's memory and at the flood.
fn watch(
    process: u32,
    flood: Option<&Flood>,
    begin: Instant,
    duration: Duration,
    pause: &dyn Fn(Duration) -> Result<()>,
) -> Result<Watched> {
    let mut halves = [Memory::default(); 2];
    let mut ramped = None;
    while begin.elapsed() < duration {
        pause(LOOK.min(duration.saturating_sub(begin.elapsed())))?;
        let [first, second] = &mut halves;
        let half = if begin.elapsed() < duration / 2 { first } else { second };
        half.note(resident(process)?, anonymous(process)?);
        if begin.elapsed() >= RAMP && ramped.is_none() {
            ramped = flood.map(|flood| (Instant::now(), flood.refused()));
        }
    }
    let refused_per_second = match (flood, ramped) {
        (Some(flood), Some((since, before))) => float(flood.refused() - before) / since.elapsed().as_secs_f64(),
        (Some(_) | None, Some(_) | None) => 0.0,
    };
    Ok(Watched { halves, refused_per_second })
}

fn name(flooders: Flooders) -> &'static str {
    match flooders {
        Flooders::Nobody => "nobody",
        Flooders::One => "one",
        Flooders::Many => "many",
    }
}

/// The user with a device, the one whose network is known, and strangers who know their passwords.
fn visitors(site: &Site, options: &Options, part: Part) -> [Visitor; 3] {
    let visitor = |door: &Door, source, names| Visitor { door: door.clone(), source, names, password: PASSWORD };
    let rate = options.rate();
    [
        visitor(&site.with_device, part.of_device(rate), vec![WITH_DEVICE.to_owned()]),
        visitor(&site.anonymous, plan::HOME, vec![FROM_HOME.to_owned()]),
        visitor(&site.anonymous, part.of_strangers(rate), part.strangers(options)),
    ]
}

/// Sends packets through the session for a time, and counts those that come back.
fn send(client: Host, site: &Site, duration: Duration) -> Result<thread::JoinHandle<Result<EchoReport>>> {
    let (server, seconds) = (site.echo.address(), u32::try_from(duration.as_secs()).context("a short time")?);
    let job = move || echo(&client, server, PACKETS * seconds, PACKETS, SIZE);
    thread::Builder::new().name("session".to_owned()).spawn(job).context("start a thread")
}

fn wait_for(site: &Site, user: Task<Logins>) -> Result<Logins> {
    site.users.block_on(user).context("a user stopped logging in")
}
