//! The logins in a browser that have begun, in the memory of this process: a restart ends them, and their users begin
//! anew.
//!
//! A login has two secrets. Its *ticket* is the client's, which polls by it. Its *link* is what the browser opens; a
//! stranger who sees it learns nothing of what the login brings.

mod browser;
mod poll;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use adit_proto::login::Verdict;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Origin;
use crate::core::admission::networks::{Networks, Shares};

pub(super) use browser::{Browser, NotSent, Returned};
pub(super) use poll::{Device, Progress};

/// How long a login in a browser may take.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);
/// Most logins at once, each below 2 KiB. A network has a share of them, as of the connections without a tunnel, so
/// that nobody can fill them all from one. Where they or a share are full, the oldest there gives way, strangers before
/// devices.
const MOST: usize = 4096;
/// Most logins at once of a device that shows its certificate; its own oldest gives way.
const MOST_OF_DEVICE: usize = 4;

/// Every login that has begun, by its ticket.
pub(super) struct Flows {
    flows: HashMap<String, Flow>,
    /// How many of strangers each network has.
    networks: Networks,
    shares: Shares,
}

struct Flow {
    client: IpAddr,
    /// The device, where it has shown its certificate.
    device: Option<String>,
    until: Instant,
    /// What the client has to bring, where the browser goes on to it.
    proof: Option<Zeroizing<String>>,
    stage: Stage,
}

enum Stage {
    /// The browser is on its way.
    Browser(Browser),
    /// It came back, and the provider is asked about what it brought.
    Checking,
    /// The user has to type a code at the provider.
    Device(Device),
    /// The client has not been told yet.
    Over(Verdict),
}

impl Default for Flows {
    fn default() -> Self {
        Self { flows: HashMap::new(), networks: Networks::default(), shares: Shares::of(MOST) }
    }
}

impl Flows {
    pub(super) fn begin_browser(&mut self, ticket: String, browser: Browser, origin: &Origin, now: Instant) {
        let proof = browser.to_client.as_ref().map(|way| way.proof.clone());
        self.begin(ticket, (Stage::Browser(browser), proof), LIFETIME, origin, now);
    }

    pub(super) fn begin_device(
        &mut self,
        ticket: String,
        device: Device,
        lifetime: Duration,
        origin: &Origin,
        now: Instant,
    ) {
        self.begin(ticket, (Stage::Device(device), None), lifetime, origin, now);
    }

    fn begin(
        &mut self,
        ticket: String,
        (stage, proof): (Stage, Option<Zeroizing<String>>),
        lifetime: Duration,
        origin: &Origin,
        now: Instant,
    ) {
        let (client, device) = (origin.address.to_canonical(), origin.device.clone());
        if self.in_the_way(client, device.as_deref()).is_some() {
            let over: Vec<String> = self.tickets_where(|flow| flow.until <= now).cloned().collect();
            over.iter().for_each(|ticket| self.forget(ticket));
        }
        if let Some(ticket) = self.in_the_way(client, device.as_deref()) {
            self.forget(&ticket);
        }
        if device.is_none() {
            self.networks.add(client);
        }
        self.flows.insert(ticket, Flow { client, device, until: now + lifetime, proof, stage });
    }

    /// Which login has to give way to one more of this client, if one has.
    fn in_the_way(&self, client: IpAddr, device: Option<&str>) -> Option<String> {
        let of_device = |flow: &Flow| device.is_some() && flow.device.as_deref() == device;
        let share = self.networks.narrowest_full(client, &self.shares).filter(|_| device.is_none());
        let of_share =
            |flow: &Flow| flow.device.is_none() && share.is_some_and(|network| network.contains(&flow.client));
        let oldest = if device.is_some() && self.tickets_where(of_device).count() >= MOST_OF_DEVICE {
            self.tickets_where(of_device).min_by_key(|ticket| self.flows[*ticket].until)
        } else if share.is_some() {
            self.tickets_where(of_share).min_by_key(|ticket| self.flows[*ticket].until)
        } else if self.flows.len() >= MOST {
            let rank = |ticket: &&String| (self.flows[*ticket].device.is_some(), self.flows[*ticket].until);
            self.flows.keys().min_by_key(rank)
        } else {
            None
        };
        oldest.cloned()
    }

    fn tickets_where(&self, wanted: impl Fn(&Flow) -> bool) -> impl Iterator<Item = &String> {
        self.flows.iter().filter(move |(_, flow)| wanted(flow)).map(|(ticket, _)| ticket)
    }

    /// A login is over, and its client has been told.
    pub(super) fn forget(&mut self, ticket: &str) {
        if let Some(flow) = self.flows.remove(ticket).filter(|flow| flow.device.is_none()) {
            self.networks.remove(flow.client);
        }
    }
}

#[cfg(test)]
mod tests;
