//! A table that belongs to nobody, as this process loaded it.

use super::batch::Batch;
use super::socket::Socket;
use super::state::TableState;
use crate::error::HostError;

/// A table of this process, which every privileged program may change. Dropping it leaves the table in the kernel.
#[derive(Debug)]
pub(crate) struct LoadedTable {
    batch: Batch,
    as_loaded: Option<TableState>,
}

impl LoadedTable {
    /// Loads the table that a batch makes, in one transaction; the batch must remove what was there of it.
    ///
    /// # Errors
    /// The kernel's refusal, naming the rule; an earlier table is then still there.
    pub(crate) fn load(batch: Batch) -> Result<Self, HostError> {
        apply(batch.clone(), "load")?;
        // It stands by now, whatever the kernel lists; what it does not list is found changed.
        let as_loaded = state(&batch).ok().flatten();
        Ok(Self { batch, as_loaded })
    }

    /// Whether nobody has touched the table since it was loaded.
    ///
    /// # Errors
    /// The kernel does not list it.
    pub(crate) fn is_intact(&self) -> Result<bool, HostError> {
        let now = state(&self.batch)?;
        Ok(now.is_some() && now == self.as_loaded)
    }

    /// Loads the table again as it was.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn put_back(&mut self) -> Result<(), HostError> {
        self.as_loaded = Self::load(self.batch.clone())?.as_loaded;
        Ok(())
    }
}

/// Removes the table of an empty batch if it is there.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn unload(mut batch: Batch) -> Result<(), HostError> {
    batch.delete_table();
    apply(batch, "remove")
}

fn apply(batch: Batch, verb: &str) -> Result<(), HostError> {
    let doing = format!("{verb} the nftables table {}", batch.table_name());
    let socket = Socket::open().map_err(|source| HostError::system(&doing, source))?;
    socket.apply(batch).map_err(|refusal| HostError::system(format!("{doing}: {}", refusal.step), refusal.source))
}

fn state(batch: &Batch) -> Result<Option<TableState>, HostError> {
    Socket::open()
        .and_then(|socket| TableState::read(&socket, batch.family, &batch.table))
        .map_err(|source| HostError::system(format!("list the nftables table {}", batch.table_name()), source))
}
