//! The gateway's table in the kernel: whose it is, whether it is still as it was loaded, and how it is replaced.
//!
//! The table belongs to the netlink socket it was loaded through, so that `nft flush ruleset`, a reload of the host's
//! own firewall and other programs pass it by. Kernels before 5.12 keep no table from anybody: there, and wherever else
//! it changes, [`Table::fault`] tells.

use std::io;

use adit_program::random::random;
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use super::GatewayRules;
use crate::error::HostError;
use crate::nft::{Batch, FAMILY_INET, ListedTable, Protection, Refusal, Socket, TableState};

/// The link whose table has the short name, which administrators know.
const USUAL_LINK: &str = "adit0";
/// The table of [`USUAL_LINK`], and the beginning of all others' names.
const USUAL_TABLE: &str = "adit";
/// How the comment of every gateway's table begins.
const COMMENT: &str = "Adit gateway, instance ";

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

    /// The table's name.
    pub(crate) fn table(&self) -> String {
        table_of(&self.tun)
    }

    fn comment(&self) -> String {
        format!("{COMMENT}{}", self.instance)
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
    record: TableRecord,
    rules: GatewayRules,
    socket: Socket,
    protections: &'static [Protection],
    as_loaded: TableState,
}

impl Table {
    /// Loads the table, in one transaction.
    ///
    /// # Errors
    /// `ForeignTable` if there is one of this name that no dead gateway left behind, or the kernel's refusal.
    pub(crate) fn load(record: TableRecord, rules: GatewayRules) -> Result<Self, HostError> {
        Self::load_with(record, rules, &[Protection::OwnerAndPersistent, Protection::Owner, Protection::None])
    }

    /// Loads the table with the first protection that the kernel knows.
    pub(crate) fn load_with(
        record: TableRecord,
        rules: GatewayRules,
        protections: &'static [Protection],
    ) -> Result<Self, HostError> {
        let socket = open()?;
        let as_loaded = place(&socket, &record, &rules, protections)?;
        Ok(Self { record, rules, socket, protections, as_loaded })
    }

    /// Replaces the table by one with other rules.
    ///
    /// # Errors
    /// As [`Self::load`]; what is in the kernel is then unchanged.
    pub(crate) fn replace(&mut self, rules: GatewayRules) -> Result<(), HostError> {
        self.as_loaded = place(&self.socket, &self.record, &rules, self.protections)?;
        self.rules = rules;
        Ok(())
    }

    /// Says what somebody did to the table, if anything.
    ///
    /// # Errors
    /// The kernel does not list it.
    pub(crate) fn fault(&self) -> Result<Option<&'static str>, HostError> {
        Ok(match state(&self.socket, &self.record)? {
            None => Some("was removed"),
            Some(state) if state == self.as_loaded => None,
            Some(state) if state.table.handle == self.as_loaded.table.handle => Some("was changed"),
            Some(_) => Some("was replaced"),
        })
    }

    /// Loads it again as it was.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn put_back(&mut self) -> Result<(), HostError> {
        self.as_loaded = place(&self.socket, &self.record, &self.rules, self.protections)?;
        Ok(())
    }

    /// Its name, `adit` or `adit_NAME`.
    pub(crate) fn name(&self) -> String {
        self.record.table()
    }

    /// The TUN link it is for.
    pub(crate) fn tun(&self) -> &str {
        &self.record.tun
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
        remove_through(&self.socket, &self.record)
    }
}

/// Removes what a dead gateway left of its table; leaves one that is of another gateway.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn remove(record: &TableRecord) -> Result<(), HostError> {
    remove_through(&open()?, record)
}

/// Removes the table of an older version's gateway, of which nothing but the name is known.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn remove_nameless() -> Result<(), HostError> {
    let socket = open()?;
    let table = find(&socket, USUAL_TABLE)?;
    if table.is_some_and(|table| table.owner.is_none() && table.comment.is_none()) {
        delete(&socket, USUAL_TABLE)?;
    }
    Ok(())
}

fn remove_through(socket: &Socket, record: &TableRecord) -> Result<(), HostError> {
    let name = record.table();
    let Some(table) = find(socket, &name)? else { return Ok(()) };
    let of_another = match (table.owner, &table.comment) {
        (Some(owner), _) => owner != socket.port(),
        (None, Some(comment)) => *comment != record.comment(),
        // A kernel before 5.10 keeps no comment. A dead gateway's link is gone.
        (None, None) => if_nametoindex(record.tun.as_str()).is_ok(),
    };
    if of_another {
        tracing::info!(table = name, "the firewall's table is another program's by now, and stays");
        return Ok(());
    }
    delete(socket, &name)
}

fn delete(socket: &Socket, name: &str) -> Result<(), HostError> {
    let mut batch = Batch::new(name);
    batch.delete_existing_table();
    match socket.apply(batch) {
        Err(refusal) if refusal.source.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|refusal| refused("remove", name, refusal)),
    }
}

/// Loads the rules with the first protection that the kernel knows.
fn place(
    socket: &Socket,
    record: &TableRecord,
    rules: &GatewayRules,
    protections: &[Protection],
) -> Result<TableState, HostError> {
    let name = record.table();
    let existing = find(socket, &name)?;
    if let Some(reason) = existing.as_ref().and_then(|table| why_foreign(table, socket)) {
        return Err(foreign(record, reason));
    }
    let mut outcome = Ok(());
    for &protection in protections {
        let mut batch = Batch::new(&name);
        if existing.is_some() {
            batch.delete_existing_table();
        }
        batch.create_table_of(&record.comment(), protection);
        rules.fill(&mut batch);
        outcome = socket.apply(batch);
        match &outcome {
            Err(refusal) if refusal.is_of_protection() => {
                tracing::debug!(?protection, "this kernel does not protect tables so");
            }
            Ok(()) | Err(_) => break,
        }
    }
    outcome.map_err(|refusal| refused("load", &name, refusal))?;
    state(socket, record)?.ok_or_else(|| foreign(record, "vanished while it was loaded"))
}

/// Why a table is not one that this gateway may replace: its own, or what a dead gateway left for the same link.
fn why_foreign(table: &ListedTable, socket: &Socket) -> Option<String> {
    match (table.owner, &table.comment) {
        (Some(owner), _) => (owner != socket.port()).then(|| format!("belongs to process {owner}")),
        (None, Some(comment)) if comment.starts_with(COMMENT) => None,
        (None, _) => Some("was not made by Adit".to_owned()),
    }
}

fn state(socket: &Socket, record: &TableRecord) -> Result<Option<TableState>, HostError> {
    let name = record.table();
    TableState::read(socket, FAMILY_INET, &name)
        .map_err(|source| HostError::system(format!("list the nftables table inet {name}"), source))
}

fn open() -> Result<Socket, HostError> {
    Socket::open().map_err(|source| HostError::system("open a socket to nftables", source))
}

fn find(socket: &Socket, name: &str) -> Result<Option<ListedTable>, HostError> {
    socket.table(FAMILY_INET, name).map_err(|source| HostError::system("list the nftables tables", source))
}

fn refused(verb: &str, name: &str, refusal: Refusal) -> HostError {
    HostError::system(format!("{verb} the nftables table inet {name}: {}", refusal.step), refusal.source)
}

fn foreign(record: &TableRecord, reason: impl Into<String>) -> HostError {
    HostError::ForeignTable { table: record.table(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
