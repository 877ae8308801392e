//! The driver's part that looks for a captive portal, beside the attempts to connect.

use std::future::pending;

use adit_program::task::{self, Task};
use adit_proto::captive_portal::PageAddress;

use super::{Driver, Protocol, now};
use crate::captive_portal::{self, Look};
use crate::gateway_addresses;
use crate::state::{Obstacle, State};

/// What is known of a captive portal.
#[derive(Default)]
pub(super) struct PortalWatch {
    /// Whether there was an attempt already since there was a connection.
    has_tried: bool,
    look: Option<Task<Option<PageAddress>>>,
    page: Option<PageAddress>,
}

impl PortalWatch {
    /// Waits for what a look has found. Cancel-safe.
    pub(super) async fn looked(&mut self) -> Option<PageAddress> {
        let found = match &mut self.look {
            Some(look) => look.await,
            None => pending().await,
        };
        self.look = None;
        found.unwrap_or_default()
    }
}

impl<P: Protocol> Driver<P> {
    /// Looks at the network while an attempt goes on, if one before it failed, and no look goes on already.
    pub(super) fn look_for_portal(&mut self) {
        let is_waiting = matches!(self.life.state(), State::Connecting | State::Reconnecting | State::CaptivePortal);
        if !std::mem::replace(&mut self.portal.has_tried, true) || !is_waiting || self.portal.look.is_some() {
            return;
        }
        let own_way = self.own_way();
        let profile = &self.config.profile;
        let look = Look {
            probe: profile.captive_probe.clone(),
            hosts: profile.places().into_iter().map(|place| place.host).collect(),
            addresses: gateway_addresses::remember(self.lookups.resolved(), &profile.addresses),
            own_way,
            mark: self.config.mark,
        };
        self.portal.look = Some(task::spawn(look.portal()));
    }

    pub(super) fn handle_looked(&mut self, page: Option<PageAddress>) {
        let reason = page.as_ref().map(captive_portal::in_words);
        self.life.handle_portal(reason.as_deref(), now());
        if let Some(reason) = reason
            && self.life.state() == State::CaptivePortal
        {
            self.tell_obstacle(Obstacle::CaptivePortal, &reason);
            tracing::debug!(reason, "no connection yet");
        }
        self.portal.page = page;
    }

    pub(super) fn forget_portal(&mut self) {
        self.portal = PortalWatch::default();
    }

    /// Where the network's portal is, while that is what this session is held up by.
    pub(super) fn portal_page(&self) -> Option<String> {
        let page = self.portal.page.as_ref().filter(|_| self.life.state() == State::CaptivePortal);
        page.map(PageAddress::to_string)
    }
}
