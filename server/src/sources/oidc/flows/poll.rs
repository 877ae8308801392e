//! What the client of a login hears, which polls by the ticket.

use std::time::Duration;

use adit_proto::login::Verdict;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Flows, Stage};

/// A login by a device code.
pub(crate) struct Device {
    pub(crate) code: Zeroizing<String>,
    pub(crate) interval: Duration,
    /// Not before this the provider is asked again.
    pub(crate) next: Instant,
}

/// How far a login is.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Ask again after this time.
    Pending(Duration),
    /// The provider may be asked about this device code.
    AskProvider(Zeroizing<String>),
    /// It is over.
    Over(Verdict),
    /// There is no such login, or not any longer.
    Gone,
    /// The client brought another proof than this login's, which ends it.
    Unproven,
}

impl Flows {
    /// How long to wait between two polls while the browser is on its way.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(2);

    /// What a login brought, for the client to hear at its next poll.
    pub(crate) fn settle(&mut self, ticket: &str, verdict: Verdict) {
        if let Some(flow) = self.flows.get_mut(ticket) {
            flow.stage = Stage::Over(verdict);
        }
    }

    /// The client asks how far its login is, and may bring what its browser brought. Once it is told that the login is
    /// over, that is forgotten. Where a proof is wanted, nobody is told anything without it, and nobody may guess.
    pub(crate) fn poll(&mut self, ticket: &str, proof: Option<&str>, now: Instant) -> Progress {
        let Some(flow) = self.flows.get_mut(ticket) else { return Progress::Gone };
        if flow.until <= now {
            self.forget(ticket);
            return Progress::Gone;
        }
        match (&flow.proof, proof) {
            (Some(wanted), Some(proof)) if !bool::from(wanted.as_bytes().ct_eq(proof.as_bytes())) => {
                self.forget(ticket);
                return Progress::Unproven;
            }
            (Some(_), None) => return Progress::Pending(Self::INTERVAL),
            (Some(_), Some(_)) | (None, _) => {}
        }
        match &mut flow.stage {
            Stage::Browser(_) | Stage::Checking => Progress::Pending(Self::INTERVAL),
            Stage::Device(device) if now < device.next => Progress::Pending(device.next - now),
            Stage::Device(device) => {
                device.next = now + device.interval;
                Progress::AskProvider(device.code.clone())
            }
            Stage::Over(verdict) => {
                let verdict = verdict.clone();
                self.forget(ticket);
                Progress::Over(verdict)
            }
        }
    }

    /// The provider wants to be asked about this device code less often by `more`. Gives the interval from now on.
    pub(crate) fn slow_down(&mut self, ticket: &str, more: Duration, now: Instant) -> Duration {
        match self.flows.get_mut(ticket).map(|flow| &mut flow.stage) {
            Some(Stage::Device(device)) => {
                device.interval += more;
                device.next = now + device.interval;
                device.interval
            }
            Some(Stage::Browser(_) | Stage::Checking | Stage::Over(_)) | None => Self::INTERVAL,
        }
    }
}
