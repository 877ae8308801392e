//! Which device holds which addresses, and how many devices there may be at a time.
//!
//! The book of it is in memory, behind a lock that is held for a look-up only, never while the accounts are written: a
//! session that ends on a thread of the runtime waits for no disk. An address is taken in the book first, which decides
//! whether there is room; then, if another device may have had it, its old flows are ended; then it is written. It is
//! given back if any of that fails.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_host::HostError;
use adit_proto::address_pool::{AddressPool, Lease, PoolConfig};

use super::OpenError;
use crate::accounts::{Accounts, StoreFault, StoredLease};
use crate::config::Config;

/// Makes the pool and gives every remembered address back to its device.
pub fn restore_pool(config: &Config, remembered: Vec<StoredLease>, now: Instant) -> AddressPool {
    let mut pool =
        AddressPool::new(PoolConfig { v4: config.pool.v4, v6: config.pool.v6, cooldown: config.lease_cooldown });
    for StoredLease { device, lease } in remembered {
        match pool.lease(&device, Some(lease), now) {
            Ok(_) => pool.release(&device, now),
            Err(error) => tracing::debug!(%error, device, "remembered address no longer fits the pools"),
        }
    }
    pool
}

/// The connections that the gateway's host tracks for inner addresses.
pub trait Flows: Send + Sync {
    /// Ends those of both addresses, so that nothing of them reaches who gets the addresses next. Blocks.
    ///
    /// # Errors
    /// The host's refusal; some may go on.
    fn end(&self, addresses: Lease) -> Result<(), HostError>;

    /// All addresses that there are flows of, inner and others. Blocks.
    ///
    /// # Errors
    /// The host's refusal.
    fn addresses(&self) -> Result<HashSet<IpAddr>, HostError>;
}

/// The leases of all devices.
pub struct Leases {
    accounts: Arc<dyn Accounts>,
    flows: Arc<dyn Flows>,
    book: Mutex<Book>,
    /// Most devices that may hold addresses at a time.
    limit: AtomicUsize,
}

struct Book {
    pool: AddressPool,
    /// By device, how many sessions hold its addresses: two while one session replaces another, or two log in at once.
    holders: HashMap<String, usize>,
    /// Devices with an address whose flows may still be those of another.
    inherited: HashSet<String>,
    used: Used,
}

/// The addresses that somebody may have had before: there were flows of them when the gateway started, since the host
/// remembers longer, or a device got them since. Nobody had the others, so nothing of them has to be looked for, which
/// takes the host some milliseconds.
enum Used {
    Known(HashSet<IpAddr>),
    /// The host does not tell.
    PerhapsAll,
}

/// Addresses that a session on its way holds. They are given back when this is dropped, unless they were kept.
pub struct Claim {
    leases: Arc<Leases>,
    device: String,
    lease: Lease,
    /// Flows of another device may go on under these addresses.
    inherited: bool,
    kept: bool,
}

impl Leases {
    /// Leases addresses of `pool`, which knows what `accounts` remember, to `limit` devices at most. Blocks while the
    /// host looks for flows.
    pub fn new(accounts: Arc<dyn Accounts>, flows: Arc<dyn Flows>, pool: AddressPool, limit: usize) -> Self {
        let used = flows.addresses().map_or(Used::PerhapsAll, Used::Known);
        let book = Book { pool, holders: HashMap::new(), inherited: HashSet::new(), used };
        Self { accounts, flows, book: Mutex::new(book), limit: AtomicUsize::new(limit) }
    }

    /// From now on at most so many devices get addresses. Those that have some keep them.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// From now on the address of a device that left is kept from others for this time.
    pub fn set_cooldown(&self, cooldown: Duration) {
        self.book().pool.set_cooldown(cooldown);
    }

    /// Takes the addresses of a device for one more session.
    ///
    /// # Errors
    /// [`OpenError::Full`] or [`OpenError::NoAddress`]; then nothing is taken.
    pub fn claim(self: &Arc<Self>, device: &str, now: Instant) -> Result<Claim, OpenError> {
        let mut book = self.book();
        if !book.holders.contains_key(device) && book.holders.len() >= self.limit.load(Ordering::Relaxed) {
            return Err(OpenError::Full);
        }
        let former = book.pool.kept_for(device);
        let lease = book.pool.lease(device, None, now)?;
        *book.holders.entry(device.to_owned()).or_default() += 1;
        if former != Some(lease) && book.used.note(lease) {
            book.inherited.insert(device.to_owned());
        }
        let inherited = book.inherited.contains(device);
        Ok(Claim { leases: Arc::clone(self), device: device.to_owned(), lease, inherited, kept: false })
    }

    /// One session of a device has ended. With its last one the addresses rest, before another device gets them.
    pub fn release(&self, device: &str, now: Instant) {
        let mut book = self.book();
        let sessions = book.holders.get_mut(device).expect("a session that ends has held its addresses until now");
        *sessions -= 1;
        if *sessions == 0 {
            book.holders.remove(device);
            book.pool.release(device, now);
        }
    }

    /// How many devices hold addresses.
    #[cfg(test)]
    pub(super) fn devices(&self) -> usize {
        self.book().holders.len()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    /// Somebody gets these addresses; tells whether another may have had one of them.
    fn note(&mut self, lease: Lease) -> bool {
        let Self::Known(addresses) = self else { return true };
        let both = lease.v4.map(IpAddr::V4).into_iter().chain(lease.v6.map(IpAddr::V6));
        both.filter(|address| !addresses.insert(*address)).count() > 0
    }
}

impl Claim {
    /// The addresses.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// Ends what flows the addresses had with another device. Blocks until nothing is left of them.
    ///
    /// # Errors
    /// Some may go on; the addresses must not be given out.
    pub fn end_old_flows(&self) -> Result<(), HostError> {
        if self.inherited {
            self.leases.flows.end(self.lease)?;
            self.leases.book().inherited.remove(&self.device);
        }
        Ok(())
    }

    /// Whether the device has these addresses from an earlier session, so that nothing is to be written.
    ///
    /// # Errors
    /// The accounts could not be read.
    pub fn is_durable(&self) -> Result<bool, StoreFault> {
        self.leases.accounts.has_lease(&self.device, self.lease)
    }

    /// Remembers the addresses for the device beyond a restart. Blocks until they are written.
    ///
    /// # Errors
    /// They could not be written.
    pub fn make_durable(&self) -> Result<(), StoreFault> {
        self.leases.accounts.save_lease(&self.device, self.lease)
    }

    /// From now on a session holds the addresses, whose end must [release](Leases::release) them.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            self.leases.release(&self.device, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
