//! The SAs of a session, by epoch, and the key exchange of the next one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use adit_proto::esp::capsule::{Group, SaInit};
use adit_proto::esp::field::Answer;
use adit_proto::esp::keys::{EpochKeys, KeyChain};
use adit_proto::esp::lifetime::{Lifetime, RekeyPolicy};
use adit_proto::esp::sa::{Acceptance, Inbound, IvRule, Outbound};
use adit_proto::esp::spi::Spi;
use adit_proto::role::Role;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::EspError;
use crate::carrier::esp::key_exchange::{self, ClientExchange, SharedSecret};
use crate::carrier::esp::key_log::KeyLog;
use crate::carrier::esp::{Cipher, random};
use crate::worker::{DataPlane, Installation, Report};

/// The SAs of one epoch; the inbound one itself is a worker's.
struct Epoch {
    number: u32,
    inbound: Option<Spi>,
    outbound: Option<Arc<Outbound<Cipher>>>,
    lifetime: Lifetime,
}

/// The part of a key exchange that is kept until the peer's part is there.
enum Exchange {
    None,
    Client(Box<ClientExchange>),
    Server(SharedSecret),
}

/// The SAs of one session.
pub(super) struct Epochs<S> {
    role: Role,
    negotiated: Answer,
    plane: Arc<dyn DataPlane<S>>,
    chain: KeyChain,
    policy: RekeyPolicy,
    exchange: Exchange,
    /// The index of the epoch under way, which no SA has yet.
    claimed: Option<Spi>,
    epochs: VecDeque<Epoch>,
    active: Option<u32>,
}

impl<S> Epochs<S> {
    pub(super) fn new(
        role: Role,
        negotiated: Answer,
        chain: KeyChain,
        policy: RekeyPolicy,
        plane: Arc<dyn DataPlane<S>>,
    ) -> Self {
        let (exchange, epochs) = (Exchange::None, VecDeque::new());
        Self { role, negotiated, plane, chain, policy, exchange, claimed: None, epochs, active: None }
    }

    /// Chooses an index and makes this end's share.
    pub(super) fn prepare(&mut self, group: Option<Group>, peer_share: &[u8]) -> Result<(Spi, Bytes), EspError> {
        let (exchange, share) = match (group, self.role) {
            (None, Role::Client | Role::Server) => (Exchange::None, Bytes::new()),
            (Some(group), Role::Client) => {
                let exchange = ClientExchange::new(group)?;
                let share = exchange.share();
                (Exchange::Client(Box::new(exchange)), share)
            }
            (Some(group), Role::Server) => {
                let (share, secret) = key_exchange::answer(group, peer_share)?;
                (Exchange::Server(secret), share)
            }
        };
        let spi = self.plane.claim_spi().ok_or(EspError::NoSpi)?;
        (self.exchange, self.claimed) = (exchange, Some(spi));
        Ok((spi, share))
    }

    /// Makes the keys of an epoch and from them its SAs, of which the inbound one is in use from here on.
    pub(super) fn install(
        &mut self,
        (client, server): (&SaInit, &SaInit),
        session: &Arc<S>,
        reports: &mpsc::Sender<Report>,
        now: Instant,
    ) -> Result<(), EspError> {
        let secret = match std::mem::replace(&mut self.exchange, Exchange::None) {
            Exchange::None => None,
            Exchange::Client(exchange) => Some(exchange.finish(&server.share)?),
            Exchange::Server(secret) => Some(secret),
        };
        let EpochKeys { client_to_server, server_to_client } =
            self.chain.advance(client, server, secret.as_ref().map(|secret| secret.as_slice()))?;
        if let Some(log) = KeyLog::from_environment() {
            log.record(server.spi, &client_to_server);
            log.record(client.spi, &server_to_client);
        }
        let (ours, inbound, theirs, outbound) = match self.role {
            Role::Client => (client.spi, server_to_client, server.spi, client_to_server),
            Role::Server => (server.spi, client_to_server, client.spi, server_to_client),
        };
        let accept = Acceptance { iv: IvRule::IsSequence, vouched: self.negotiated.vouched };
        let sa = Inbound::new(ours, inbound, accept)?;
        let outbound = Arc::new(Outbound::new(theirs, outbound)?);
        let lifetime = Lifetime::new(&self.policy, u16::from_be_bytes(random()), now);
        let (session, reports) = (Arc::clone(session), reports.clone());
        self.claimed = None;
        self.plane.install(Installation { sa, epoch: client.epoch, session, reports });
        let (inbound, outbound) = (Some(ours), Some(outbound));
        self.epochs.push_back(Epoch { number: client.epoch, inbound, outbound, lifetime });
        Ok(())
    }

    /// Sends with the SA of this epoch from now on, and drops older outbound ones.
    pub(super) fn activate(&mut self, number: u32) {
        self.active = Some(number);
        for epoch in self.epochs.iter_mut().filter(|epoch| epoch.number < number) {
            epoch.outbound = None;
        }
        self.forget_empty();
    }

    /// Drops the inbound SA of an epoch.
    pub(super) fn retire_inbound(&mut self, number: u32) {
        for epoch in self.epochs.iter_mut().filter(|epoch| epoch.number == number) {
            if let Some(spi) = epoch.inbound.take() {
                self.plane.retire(spi);
            }
        }
        self.forget_empty();
    }

    /// Drops every outbound SA, and the index of an epoch that will never be.
    pub(super) fn retire_outbound(&mut self) {
        self.active = None;
        self.exchange = Exchange::None;
        if let Some(spi) = self.claimed.take() {
            self.plane.retire(spi);
        }
        for epoch in &mut self.epochs {
            epoch.outbound = None;
        }
        self.forget_empty();
    }

    /// The outbound SA of an epoch, active or not.
    pub(super) fn outbound(&self, number: u32) -> Option<&Arc<Outbound<Cipher>>> {
        self.epochs.iter().find(|epoch| epoch.number == number)?.outbound.as_ref()
    }

    /// The SA that packets are sent with.
    pub(super) fn active(&self) -> Option<&Arc<Outbound<Cipher>>> {
        self.outbound(self.active?)
    }

    /// The SA that dummies are sent with: the active one, or before the first activation the newest.
    pub(super) fn for_dummies(&self) -> Option<&Arc<Outbound<Cipher>>> {
        self.active().or_else(|| self.epochs.back()?.outbound.as_ref())
    }

    /// The active epoch and when its lifetime ends: now, if enough was sealed.
    pub(super) fn active_ends(&self, now: Instant) -> Option<(u32, Instant)> {
        let number = self.active?;
        let epoch = self.epochs.iter().find(|epoch| epoch.number == number)?;
        let is_over = epoch.lifetime.is_over(epoch.outbound.as_ref()?.usage(), now);
        Some((number, if is_over { now } else { epoch.lifetime.ends() }))
    }

    fn forget_empty(&mut self) {
        self.epochs.retain(|epoch| epoch.inbound.is_some() || epoch.outbound.is_some());
    }
}
