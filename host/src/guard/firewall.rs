//! The gateway's firewall.
//!
//! While its table, or that of the clients' policy, is not as it was loaded, the TUN device is down: nothing of the
//! clients reaches this host or leaves it, and nothing reaches them.

use std::time::Instant;

use adit_program::causes::with_causes;

use crate::changes::HostChanges;
use crate::journal::{Change, RecordedLink};
use crate::netlink::LinkSettings;

impl HostChanges {
    pub(super) async fn hold_firewall(&mut self, now: Instant) {
        let Some(firewall_holds) = self.firewall_holds(now) else { return };
        if self.policy_holds(now) && firewall_holds {
            self.open_tunnel().await;
        } else {
            self.close_tunnel().await;
        }
    }

    /// Puts the table back if it is not as it was loaded; says whether it holds. `None` without a table.
    fn firewall_holds(&mut self, now: Instant) -> Option<bool> {
        let loaded = self.has_table();
        let table = self.table.as_mut().filter(|_| loaded)?;
        let guard = format!("firewall table {}", table.name());
        Some(self.history.hold(&guard, table.fault(), now, || table.put_back()))
    }

    /// Sets the TUN device down, also if somebody has set it up since the last time.
    async fn close_tunnel(&mut self) {
        let Some(link) = self.tunnel_link() else { return };
        let down = LinkSettings { up: Some(false), ..LinkSettings::default() };
        let done = self.netlink.set_recorded_link(&link, down).await;
        if !self.tunnel_closed {
            tracing::warn!("the firewall does not hold: the TUN device is down until it does");
        }
        if let Err(error) = done {
            tracing::warn!(error = with_causes(&error), "the TUN device cannot be set down");
        }
        self.tunnel_closed = true;
    }

    /// Sets the TUN device up again, if it was this that set it down. The kernel took its IPv6 addresses then.
    async fn open_tunnel(&mut self) {
        if !self.tunnel_closed {
            return;
        }
        self.tunnel_closed = false;
        let Some(link) = self.tunnel_link() else { return };
        tracing::info!("the firewall holds again: the TUN device is up");
        let up = LinkSettings { up: Some(true), ..LinkSettings::default() };
        if let Err(error) = self.netlink.set_recorded_link(&link, up).await {
            tracing::warn!(error = with_causes(&error), "the TUN device cannot be set up");
        }
        self.put_back_addresses_of(&link).await;
    }

    /// Whether this process has loaded the table, and not undone that.
    pub(super) fn has_table(&self) -> bool {
        self.journal.live().iter().any(|entry| matches!(entry.change, Change::GatewayTable(_)))
    }

    /// The TUN device of the table, as the journal knows it.
    fn tunnel_link(&self) -> Option<RecordedLink> {
        let tun = self.table.as_ref()?.tun();
        let mut links = self.journal.live().iter().filter_map(|entry| entry.change.link());
        links.find(|link| link.name == tun).cloned()
    }
}
