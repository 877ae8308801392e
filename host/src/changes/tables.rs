//! The nftables tables among a host's changes: the gateway's firewall, what clients may reach, and the kill switch.

use std::sync::Arc;

use super::{HostChanges, is_kill_switch};
use crate::error::HostError;
use crate::firewall::{GatewayRules, Table, TableRecord};
use crate::journal::Change;
use crate::kill_switch::{self, ClosedKillSwitch, KillSwitch};
use crate::policy_table::PolicyTable;

impl HostChanges {
    /// Loads the gateway's firewall table, replacing this process's earlier one, in one transaction.
    ///
    /// # Errors
    /// `ForeignTable`, or the kernel's refusal, naming the rule; the earlier table is then still in force.
    #[expect(clippy::unused_async, reason = "awaited like its siblings, whether or not the kernel answers at once")]
    pub async fn load_firewall(&mut self, rules: &GatewayRules) -> Result<(), HostError> {
        let recorded = self.journal.live().iter().any(|entry| matches!(entry.change, Change::GatewayTable(_)));
        if let Some(table) = self.table.as_mut().filter(|_| recorded) {
            return table.replace(rules.clone());
        }
        let record = TableRecord::new(&rules.tun)?;
        let id = self.journal.record(Change::GatewayTable(record.clone()))?;
        let done = Table::load(&record, rules.clone()).map(|table| self.table = Some(table));
        self.settle_if_failed(id, done)
    }

    /// Loads the table that holds the clients of a gateway to their policy, without members: nothing that comes from
    /// `tun` is forwarded until there are some. It is guarded as the gateway's firewall is.
    ///
    /// # Errors
    /// `ForeignTable`, or the kernel's refusal, also when connections that it tracks cannot be listed.
    #[expect(clippy::unused_async, reason = "awaited like its siblings, whether or not the kernel answers at once")]
    pub async fn load_policy_table(&mut self, tun: &str) -> Result<Arc<PolicyTable>, HostError> {
        self.load_policy_table_by(tun, PolicyTable::load)
    }

    /// As [`Self::load_policy_table`], for a gateway that has clients already: they go on as they do without a policy
    /// until the table has its first one, with all members, by [`PolicyTable::replace`].
    ///
    /// # Errors
    /// As [`Self::load_policy_table`].
    #[expect(clippy::unused_async, reason = "awaited like its siblings, whether or not the kernel answers at once")]
    pub async fn load_idle_policy_table(&mut self, tun: &str) -> Result<Arc<PolicyTable>, HostError> {
        self.load_policy_table_by(tun, PolicyTable::load_idle)
    }

    fn load_policy_table_by(
        &mut self,
        tun: &str,
        load: impl FnOnce(&TableRecord) -> Result<PolicyTable, HostError>,
    ) -> Result<Arc<PolicyTable>, HostError> {
        let record = TableRecord::new(tun)?;
        let id = self.journal.record(Change::PolicyTable(record.clone()))?;
        let done = load(&record).map(|table| self.policy_table = Some(Arc::new(table)));
        self.settle_if_failed(id, done)?;
        Ok(Arc::clone(self.policy_table.as_ref().expect("it was just loaded")))
    }

    /// Removes the table that holds clients to their policy: they reach what the gateway's firewall lets them.
    ///
    /// # Errors
    /// `Undo` with the kernel's refusal; then the table holds them as before.
    pub async fn unload_policy_table(&mut self) -> Result<(), HostError> {
        self.undo_where(|change| matches!(change, Change::PolicyTable(_))).await?;
        self.policy_table = None;
        Ok(())
    }

    /// Loads the gateway's firewall with other rules, in one transaction, and tells the former ones; does nothing if
    /// they are the same or none is loaded.
    ///
    /// # Errors
    /// The kernel's refusal, naming the rule; the earlier rules are then still in force.
    #[expect(clippy::unused_async, reason = "awaited like its siblings, whether or not the kernel answers at once")]
    pub async fn change_firewall(
        &mut self,
        change: impl FnOnce(&mut GatewayRules),
    ) -> Result<Option<GatewayRules>, HostError> {
        let Some(table) = &mut self.table else { return Ok(None) };
        let former = table.rules().clone();
        let mut rules = former.clone();
        change(&mut rules);
        if rules == former {
            return Ok(None);
        }
        table.replace(rules)?;
        Ok(Some(former))
    }

    /// Closes the kill switch, replacing its earlier rules if they are others, in one transaction.
    ///
    /// # Errors
    /// The kernel's refusal, naming the rule; the earlier rules are then still in force.
    #[expect(clippy::unused_async, reason = "awaited like its siblings, whether or not the kernel answers at once")]
    pub async fn close_kill_switch(&mut self, switch: &KillSwitch) -> Result<(), HostError> {
        let change = Change::KillSwitch(switch.profile.clone());
        if self.is_recorded(&change) {
            // Its guard hears of each table that is loaded, and looks around again.
            if !self.kill_switch.as_ref().is_some_and(|closed| closed.is_as(switch)) {
                self.kill_switch = Some(kill_switch::load(switch)?);
            }
            return Ok(());
        }
        let id = self.journal.record(change)?;
        let loaded = kill_switch::load(switch);
        if loaded.is_err() {
            self.journal.settle(id)?;
        }
        self.kill_switch = Some(loaded?);
        Ok(())
    }

    /// Opens the kill switch if it is closed.
    ///
    /// # Errors
    /// `Undo` with the kernel's refusal.
    pub async fn open_kill_switch(&mut self) -> Result<(), HostError> {
        self.kill_switch = None;
        self.undo_where(is_kill_switch).await
    }

    /// Closes the way to a captive portal past a kill switch that this process has closed, if somebody opened one.
    ///
    /// # Errors
    /// The kernel's refusal; the way closes by itself then, after its time.
    pub fn close_portal_way(&self) -> Result<(), HostError> {
        self.kill_switch.as_ref().map_or(Ok(()), ClosedKillSwitch::close_portal_way)
    }

    /// Whether the kill switch is closed, by this process or by one before it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.journal.live().iter().any(|entry| is_kill_switch(&entry.change))
    }
}
