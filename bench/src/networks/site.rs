//! Where it happens: a client, a gateway and a host behind it, and a network in front of the gateway that gets in the
//! way.

use std::time::{Duration, Instant};

use adit_lab::programs::{Client, Gateway};
use adit_lab::traffic::Dialogue;
use adit_lab::{Host, INTERNET_V4, Lab};
use anyhow::{Context as _, Result, ensure};

use crate::interrupt::Interrupt;

/// Longest wait for what a network keeps from coming.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a program, each of which starts another one.
const LOOK: Duration = Duration::from_millis(100);

/// The carriers over UDP that a client chooses among.
pub(super) const BY_UDP: [&str; 2] = ["esp", "quic"];
/// Packets a second each way of what shows gaps, which are measured as finely as packets follow each other.
const RATE: u32 = 200;
/// So many packets each way show that they flow, and are no remainder of before.
const FLOWING: usize = 20;

/// What comes to the gateway's host, before anything else looks at it.
const ARRIVING: &str = "prerouting priority -400";
/// Names the rules of the network in front of the gateway.
const FILTER: &str = "no_udp";

/// A gateway that runs, and a client that has joined it.
#[derive(Debug)]
pub(super) struct Site {
    // Processes before the lab they run in.
    pub(super) client: Client,
    pub(super) gateway: Gateway,
    /// The host behind the gateway.
    pub(super) internet: Host,
    pub(super) lab: Lab,
}

impl Site {
    /// Starts the gateway and lets the client join.
    ///
    /// # Errors
    /// Where the system permits no lab, or a program fails.
    pub(super) fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same with keys of the gateway's configuration.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        Self::in_lab(Lab::standard()?, settings)
    }

    /// The same in a lab that has a client, a gateway and a host behind it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn in_lab(mut lab: Lab, settings: &[(&str, &str)]) -> Result<Self> {
        let binaries = adit_lab::binaries()?;
        let mut gateway = Gateway::new(&lab.host("gateway")?, &binaries);
        settings.iter().for_each(|(key, value)| gateway.set(key, value));
        gateway.init()?.success()?;
        gateway.start()?;
        let client = Client::new(&lab.host("client")?, &binaries);
        client.join(&gateway.invite("bench", &[])?)?.success()?;
        let internet = lab.host("internet")?;
        Ok(Self { client, gateway, internet, lab })
    }

    /// Starts the client; says how long that took until it was connected.
    ///
    /// # Errors
    /// Where it does not connect.
    pub(super) fn connect(&mut self) -> Result<Duration> {
        self.client.up()?;
        Ok(self.client.process().context("the client runs")?.started().elapsed())
    }

    /// Has the network in front of the gateway drop what goes to its UDP port.
    ///
    /// # Errors
    /// Where nft is not installed.
    pub(super) fn block_udp(&self) -> Result<()> {
        self.gateway.host().filter(FILTER, &[(ARRIVING, "udp dport 443 drop")])
    }

    /// Takes back [`Self::block_udp`].
    ///
    /// # Errors
    /// Where nothing is blocked.
    pub(super) fn open_udp(&self) -> Result<()> {
        self.gateway.host().unfilter(FILTER)
    }

    /// Waits until both ends say that packets travel by one of these carriers, and says after how long; `None` where
    /// they do not.
    ///
    /// # Errors
    /// When interrupted.
    pub(super) fn comes_to(&self, carriers: &[&str], interrupt: &Interrupt) -> Result<Option<Duration>> {
        let is_one = |carrier: Option<&str>| carrier.is_some_and(|carrier| carriers.contains(&carrier));
        let both = || {
            let (near, far) = (self.client.status()?.carrier, self.gateway.sessions()?.pop());
            let far = far.map(|session| session.carrier);
            Ok((is_one(near.as_deref()) && is_one(far.as_deref())).then_some(()))
        };
        Ok(wait(interrupt, both)?.map(|((), after)| after))
    }

    /// Numbered packets between the client and the host behind the gateway, which flow both ways.
    ///
    /// # Errors
    /// Where they do not, or when interrupted.
    pub(super) fn dialogue(&self, interrupt: &Interrupt) -> Result<Dialogue> {
        let began = Instant::now();
        let dialogue = Dialogue::start(self.client.host(), &self.internet, INTERNET_V4.into(), RATE)?;
        ensure!(flow_again(&dialogue, began, interrupt)?, "no packets flow through the tunnel");
        Ok(dialogue)
    }
}

/// The longer silence of both directions.
pub(super) fn longest(silences: [Duration; 2]) -> Duration {
    let [up, down] = silences;
    up.max(down)
}

/// Waits until packets arrive both ways that did not before `since`; false where they do not.
///
/// # Errors
/// When interrupted.
pub(super) fn flow_again(dialogue: &Dialogue, since: Instant, interrupt: &Interrupt) -> Result<bool> {
    let flowing = || dialogue.arrived_since(since).iter().all(|count| *count >= FLOWING);
    Ok(wait(interrupt, || Ok(flowing().then_some(())))?.is_some())
}

/// Asks until there is an answer, for at most [`PATIENCE`]; says how long that took.
///
/// # Errors
/// When interrupted, or where the question fails.
pub(super) fn wait<T>(
    interrupt: &Interrupt,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<(T, Duration)>> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(answer) = question()? {
            return Ok(Some((answer, began.elapsed())));
        }
        interrupt.pause(LOOK)?;
    }
    Ok(None)
}
