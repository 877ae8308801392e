//! A table of family `inet` that belongs to one process.
//!
//! It belongs to the netlink socket it was loaded through, so that `nft flush ruleset`, a reload of the host's own
//! firewall and other programs pass it by. Kernels before 5.12 keep no table from anybody: there, and wherever else it
//! changes, [`OwnedTable::fault`] tells.

use std::io;

use nix::net::if_::if_nametoindex;

use crate::error::HostError;
use crate::nft::{Batch, FAMILY_INET, ListedTable, Protection, Refusal, Socket, TableState};

/// What a table is called, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    table: String,
    /// The TUN link it is for.
    tun: String,
    /// How the comments of all tables of this kind begin; the number of a gateway follows.
    comments: &'static str,
    instance: String,
}

impl Label {
    pub(crate) fn new(table: String, tun: &str, comments: &'static str, instance: &str) -> Self {
        Self { table, tun: tun.to_owned(), comments, instance: instance.to_owned() }
    }

    fn comment(&self) -> String {
        format!("{}{}", self.comments, self.instance)
    }
}

/// A loaded table. Dropping it leaves the table in the kernel, or, before Linux 6.9, lets it go.
#[derive(Debug)]
#[must_use]
pub(crate) struct OwnedTable {
    label: Label,
    socket: Socket,
    protections: &'static [Protection],
    pub(crate) as_loaded: TableState,
}

impl OwnedTable {
    /// Loads the table with the first protection that the kernel knows, in one transaction. `fill` makes what is in it.
    ///
    /// # Errors
    /// `ForeignTable` if there is one of this name that no dead gateway left behind, or the kernel's refusal.
    pub(crate) fn load(
        label: Label,
        protections: &'static [Protection],
        fill: impl Fn(&mut Batch),
    ) -> Result<Self, HostError> {
        let socket = open()?;
        let as_loaded = place(&socket, &label, protections, fill)?;
        Ok(Self { label, socket, protections, as_loaded })
    }

    /// Replaces all that is in it, in one transaction.
    ///
    /// # Errors
    /// As [`Self::load`]; what is in the kernel is then unchanged.
    pub(crate) fn replace(&mut self, fill: impl Fn(&mut Batch)) -> Result<(), HostError> {
        self.as_loaded = place(&self.socket, &self.label, self.protections, fill)?;
        Ok(())
    }

    /// Changes elements of its sets and maps, in one transaction.
    ///
    /// # Errors
    /// The kernel's refusal; then nothing is changed.
    pub(crate) fn change_elements(&self, change: impl FnOnce(&mut Batch)) -> Result<(), HostError> {
        let mut batch = Batch::new(&self.label.table);
        change(&mut batch);
        self.socket.apply(batch).map_err(|refusal| refused("change", &self.label.table, refusal))
    }

    /// Changes it, in one transaction.
    ///
    /// # Errors
    /// The kernel's refusal; then nothing is changed.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Batch)) -> Result<(), HostError> {
        self.change_elements(change)?;
        self.as_loaded = state(&self.socket, &self.label)?.ok_or_else(|| vanished(&self.label))?;
        Ok(())
    }

    /// Says what somebody did to the table, if anything.
    ///
    /// # Errors
    /// The kernel does not list it.
    pub(crate) fn fault(&self) -> Result<Option<&'static str>, HostError> {
        Ok(match state(&self.socket, &self.label)? {
            None => Some("was removed"),
            Some(state) if state == self.as_loaded => None,
            Some(state) if state.table.handle == self.as_loaded.table.handle => Some("was changed"),
            Some(_) => Some("was replaced"),
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.label.table
    }

    /// Removes the table; leaves one that is not of this gateway.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn unload(&self) -> Result<(), HostError> {
        remove_through(&self.socket, &self.label)
    }
}

/// Removes what a dead gateway left of its table; leaves one that is of another gateway.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn remove(label: &Label) -> Result<(), HostError> {
    remove_through(&open()?, label)
}

/// Removes a table that has neither owner nor comment.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn remove_nameless(table: &str) -> Result<(), HostError> {
    let socket = open()?;
    let found = find(&socket, table)?;
    if found.is_some_and(|table| table.owner.is_none() && table.comment.is_none()) {
        delete(&socket, table)?;
    }
    Ok(())
}

fn remove_through(socket: &Socket, label: &Label) -> Result<(), HostError> {
    let Some(table) = find(socket, &label.table)? else { return Ok(()) };
    let of_another = match (table.owner, &table.comment) {
        (Some(owner), _) => owner != socket.port(),
        (None, Some(comment)) => *comment != label.comment(),
        // A kernel before 5.10 keeps no comment. A dead gateway's link is gone.
        (None, None) => if_nametoindex(label.tun.as_str()).is_ok(),
    };
    if of_another {
        tracing::info!(table = label.table, "the firewall's table is another program's by now, and stays");
        return Ok(());
    }
    delete(socket, &label.table)
}

fn delete(socket: &Socket, name: &str) -> Result<(), HostError> {
    let mut batch = Batch::new(name);
    batch.delete_existing_table();
    match socket.apply(batch) {
        Err(refusal) if refusal.source.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|refusal| refused("remove", name, refusal)),
    }
}

/// Loads the table with the first protection that the kernel knows.
fn place(
    socket: &Socket,
    label: &Label,
    protections: &[Protection],
    fill: impl Fn(&mut Batch),
) -> Result<TableState, HostError> {
    let existing = find(socket, &label.table)?;
    if let Some(reason) = existing.as_ref().and_then(|table| why_foreign(table, label, socket)) {
        return Err(foreign(label, reason));
    }
    let mut outcome = Ok(());
    for &protection in protections {
        let mut batch = Batch::new(&label.table);
        if existing.is_some() {
            batch.delete_existing_table();
        }
        batch.create_table_of(&label.comment(), protection);
        fill(&mut batch);
        outcome = socket.apply(batch);
        match &outcome {
            Err(refusal) if refusal.is_of_protection() => {
                tracing::debug!(?protection, "this kernel does not protect tables so");
            }
            Ok(()) | Err(_) => break,
        }
    }
    outcome.map_err(|refusal| refused("load", &label.table, refusal))?;
    state(socket, label)?.ok_or_else(|| vanished(label))
}

/// Why a table is not one that this gateway may replace: its own, or what a dead gateway left for the same link.
fn why_foreign(table: &ListedTable, label: &Label, socket: &Socket) -> Option<String> {
    match (table.owner, &table.comment) {
        (Some(owner), _) => (owner != socket.port()).then(|| format!("belongs to process {owner}")),
        (None, Some(comment)) if comment.starts_with(label.comments) => None,
        (None, _) => Some("was not made by Adit".to_owned()),
    }
}

fn state(socket: &Socket, label: &Label) -> Result<Option<TableState>, HostError> {
    let name = &label.table;
    TableState::read(socket, FAMILY_INET, name)
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

fn vanished(label: &Label) -> HostError {
    foreign(label, "vanished while it was loaded")
}

fn foreign(label: &Label, reason: impl Into<String>) -> HostError {
    HostError::ForeignTable { table: label.table.clone(), reason: reason.into() }
}
