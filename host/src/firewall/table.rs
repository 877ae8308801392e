//! The gateway's table in the kernel: which it is, and how it is replaced.

use std::io;

use adit_program::random::random;
use serde::{Deserialize, Serialize};

use super::GatewayRules;
use crate::error::HostError;
use crate::nft::Protection;
use crate::owned_table::{self, Label, OwnedTable};

/// The link whose table has the short name, which administrators know.
const USUAL_LINK: &str = "adit0";
/// The table of [`USUAL_LINK`], and the beginning of all others' names.
const USUAL_TABLE: &str = "adit";
/// How the comment of every gateway's table begins.
const COMMENT: &str = "Adit gateway, instance ";
/// What the names of the tables with clients' policy begin with; the TUN device's name follows.
const POLICY_TABLE: &str = "adit_policy_";
/// How the comment of every such table begins.
const POLICY_COMMENT: &str = "Adit policy, instance ";

/// Which table it is, and of which gateway: what has to be known to remove it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableRecord {
    /// The TUN link it is for.
    pub(crate) tun: String,
    /// A number of this gateway's own, in hexadecimal.
    pub(crate) instance: String,
}

impl TableRecord {
    /// The record of a table that is not loaded yet.
    pub(crate) fn new(tun: &str) -> Result<Self, HostError> {
        let number =
            random::<8>().map_err(|error| HostError::system("number the firewall's table", io::Error::other(error)))?;
        Ok(Self { tun: tun.to_owned(), instance: format!("{:016x}", u64::from_be_bytes(number)) })
    }

    /// Of the gateway's own firewall.
    pub(crate) fn firewall(&self) -> Label {
        Label::new(table_of(&self.tun), &self.tun, COMMENT, &self.instance)
    }

    /// Of the table that holds clients to their policy.
    pub(crate) fn policy(&self) -> Label {
        Label::new(format!("{POLICY_TABLE}{}", self.tun), &self.tun, POLICY_COMMENT, &self.instance)
    }
}

/// The name of a TUN link's table: `adit` for `adit0`, `adit_vpn1` for `vpn1`.
pub(super) fn table_of(tun: &str) -> String {
    if tun == USUAL_LINK { USUAL_TABLE.to_owned() } else { format!("{USUAL_TABLE}_{tun}") }
}

/// Whether a table bears the name of a gateway's.
pub(super) fn is_of_a_gateway(table: &str) -> bool {
    table.strip_prefix(USUAL_TABLE).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// A loaded table. Dropping it leaves the table in the kernel, or, before Linux 6.9, lets it go.
#[derive(Debug)]
#[must_use]
pub(crate) struct Table {
    tun: String,
    rules: GatewayRules,
    owned: OwnedTable,
}

impl Table {
    /// Loads the table, in one transaction.
    ///
    /// # Errors
    /// `ForeignTable` if there is one of this name that no dead gateway left behind, or the kernel's refusal.
    pub(crate) fn load(record: &TableRecord, rules: GatewayRules) -> Result<Self, HostError> {
        Self::load_with(record, rules, &Protection::ALL)
    }

    /// Loads the table with the first protection that the kernel knows.
    pub(crate) fn load_with(
        record: &TableRecord,
        rules: GatewayRules,
        protections: &'static [Protection],
    ) -> Result<Self, HostError> {
        let owned = OwnedTable::load(record.firewall(), protections, |batch| rules.fill(batch))?;
        Ok(Self { tun: record.tun.clone(), rules, owned })
    }

    /// Replaces the table by one with other rules.
    ///
    /// # Errors
    /// As [`Self::load`]; what is in the kernel is then unchanged.
    pub(crate) fn replace(&mut self, rules: GatewayRules) -> Result<(), HostError> {
        self.owned.replace(|batch| rules.fill(batch))?;
        self.rules = rules;
        Ok(())
    }

    /// Says what somebody did to the table, if anything.
    ///
    /// # Errors
    /// The kernel does not list it.
    pub(crate) fn fault(&self) -> Result<Option<&'static str>, HostError> {
        self.owned.fault()
    }

    /// Loads it again as it was.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn put_back(&mut self) -> Result<(), HostError> {
        self.owned.replace(|batch| self.rules.fill(batch))
    }

    /// Its name, `adit` or `adit_NAME`.
    pub(crate) fn name(&self) -> &str {
        self.owned.name()
    }

    /// The TUN link it is for.
    pub(crate) fn tun(&self) -> &str {
        &self.tun
    }

    /// Its rules.
    pub(crate) fn rules(&self) -> &GatewayRules {
        &self.rules
    }

    /// Removes the table; leaves one that is not of this gateway.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn unload(&self) -> Result<(), HostError> {
        self.owned.unload()
    }
}

/// Removes what a dead gateway left of its table; leaves one that is of another gateway.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn remove(record: &TableRecord) -> Result<(), HostError> {
    owned_table::remove(&record.firewall())
}

/// Removes the table of an older version's gateway, of which nothing but the name is known.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn remove_nameless() -> Result<(), HostError> {
    owned_table::remove_nameless(USUAL_TABLE)
}

#[cfg(test)]
mod tests;
