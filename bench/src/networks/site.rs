//! Where it happens: a client, a gateway and a host behind it, and a network in front of the gateway that gets in the
//! way.

use std::time::{Duration, Instant};

use adit_lab::programs::{Client, Gateway};
use adit_lab::{Host, Lab};
use anyhow::{Context as _, Result};

use crate::interrupt::Interrupt;

/// Longest wait for what a network keeps from coming.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a program, each of which starts another one.
const LOOK: Duration = Duration::from_millis(100);

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
    _lab: Lab,
}

impl Site {
    /// Starts the gateway and lets the client join.
    ///
    /// # Errors
    /// Where the system permits no lab, or a program fails.
    pub(super) fn start() -> Result<Self> {
        let binaries = adit_lab::binaries()?;
        let mut lab = Lab::standard()?;
        let mut gateway = Gateway::new(&lab.host("gateway")?, &binaries);
        gateway.init()?.success()?;
        gateway.start()?;
        let client = Client::new(&lab.host("client")?, &binaries);
        client.join(&gateway.invite("bench", &[])?)?.success()?;
        Ok(Self { client, gateway, _lab: lab })
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
