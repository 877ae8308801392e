//! The SAs of a session, by epoch.

use std::collections::VecDeque;
use std::time::Instant;

use super::OutboundHandle;
use crate::esp::lifetime::Lifetime;
use crate::esp::spi::Spi;

/// The SAs of one epoch; the inbound one itself is a worker's.
struct Epoch<H> {
    number: u32,
    inbound: Option<Spi>,
    outbound: Option<H>,
    lifetime: Lifetime,
}

/// The SAs of one session.
pub(super) struct Epochs<H> {
    epochs: VecDeque<Epoch<H>>,
    active: Option<u32>,
}

impl<H> Default for Epochs<H> {
    fn default() -> Self {
        Self { epochs: VecDeque::new(), active: None }
    }
}

impl<H: OutboundHandle> Epochs<H> {
    /// The SAs of an epoch exist; it is the newest.
    pub(super) fn add(&mut self, number: u32, inbound: Spi, outbound: H, lifetime: Lifetime) {
        let (inbound, outbound) = (Some(inbound), Some(outbound));
        self.epochs.push_back(Epoch { number, inbound, outbound, lifetime });
    }

    /// Sends with the SA of this epoch from now on, and drops older outbound ones.
    pub(super) fn activate(&mut self, number: u32) {
        self.active = Some(number);
        for epoch in self.epochs.iter_mut().filter(|epoch| epoch.number < number) {
            epoch.outbound = None;
        }
        self.forget_empty();
    }

    /// Forgets the inbound SA of an epoch; returns its index.
    pub(super) fn retire_inbound(&mut self, number: u32) -> Option<Spi> {
        let epoch = self.epochs.iter_mut().find(|epoch| epoch.number == number);
        let spi = epoch.and_then(|epoch| epoch.inbound.take());
        self.forget_empty();
        spi
    }

    /// Drops every outbound SA.
    pub(super) fn retire_outbound(&mut self) {
        self.active = None;
        for epoch in &mut self.epochs {
            epoch.outbound = None;
        }
        self.forget_empty();
    }

    /// The outbound SA of an epoch, active or not.
    pub(super) fn outbound(&self, number: u32) -> Option<&H> {
        self.epochs.iter().find(|epoch| epoch.number == number)?.outbound.as_ref()
    }

    /// The SA that packets are sent with.
    pub(super) fn active(&self) -> Option<&H> {
        self.outbound(self.active?)
    }

    /// The epoch that packets are sent with.
    pub(super) const fn active_number(&self) -> Option<u32> {
        self.active
    }

    /// The SA that probes are sent with: the active one, or before the first activation the newest.
    pub(super) fn for_probes(&self) -> Option<&H> {
        self.active().or_else(|| self.epochs.back()?.outbound.as_ref())
    }

    /// When the lifetime of the active epoch ends: now, if enough was sealed.
    pub(super) fn active_ends(&self, now: Instant) -> Option<Instant> {
        let number = self.active?;
        let epoch = self.epochs.iter().find(|epoch| epoch.number == number)?;
        let is_over = epoch.lifetime.is_over(epoch.outbound.as_ref()?.usage(), now);
        Some(if is_over { now } else { epoch.lifetime.ends() })
    }

    fn forget_empty(&mut self) {
        self.epochs.retain(|epoch| epoch.inbound.is_some() || epoch.outbound.is_some());
    }
}
