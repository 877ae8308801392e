//! The connections without a tunnel: how many there may be, in all and from one network, and which of them gives way
//! when there are too many.
//!
//! A connection has a place here from its first datagram until a tunnel exists on it; then `limits.sessions` counts it.
//! When the tunnel ends and the connection does not, it needs a place again. So every connection is counted to its end.

pub(crate) mod networks;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use networks::{Networks, Shares};

/// Connections of clients that have not proved their address, above which others must first (QUIC Retry, RFC 9000
/// section 8.1.2): as many forged addresses can take.
const UNPROVEN: usize = 50;
/// The part of all places that forged addresses can take at most, where there are few.
const UNPROVEN_PART: usize = 4;
/// Nobody gives way who has begun, shaken hands or logged in within this time: long enough for a handshake over a slow
/// network.
const GRACE: Duration = Duration::from_secs(1);

/// The places of connections without a tunnel.
pub(crate) struct Pending {
    limit: usize,
    shares: Shares,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    last: u64,
    entries: HashMap<u64, Entry>,
    networks: Networks,
    unproven: usize,
}

/// What is known of a connection that has a place.
struct Entry {
    client: IpAddr,
    proven: bool,
    /// Whether a device has logged in on it.
    known: bool,
    /// Whether a login of its device is being served.
    busy: bool,
    /// When it did something last: the idlest gives way first.
    active: Instant,
    /// When it did something last that costs a client more than a few bytes. It does not give way within [`GRACE`] of
    /// that.
    earned: Instant,
    given_way: Arc<Notify>,
}

/// Whether there is room for one more connection.
pub(crate) enum Admission {
    /// There is; the place is held until it is dropped.
    Place(Place),
    /// Only for a client that proves its address first.
    ProveAddress,
    /// There is not.
    Full,
}

/// The place of one connection.
pub(crate) struct Place {
    pending: Arc<Pending>,
    number: u64,
    given_way: Arc<Notify>,
}

impl Pending {
    /// Makes room for `limit` connections in all.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, shares: Shares::of(limit), book: Mutex::default() })
    }

    /// Asks for a place for a client; `proven` says that its address is no forgery. Where a share is full, the
    /// connection in it that has been idle for longest gives way to a client that has proved its address.
    pub(crate) fn admit(self: &Arc<Self>, client: IpAddr, proven: bool, now: Instant) -> Admission {
        let client = client.to_canonical();
        let mut book = self.book();
        if !proven && (book.unproven >= self.unproven_limit() || book.entries.len() >= self.limit) {
            return Admission::ProveAddress;
        }
        if proven && !self.make_room(&mut book, client, now) {
            return Admission::Full;
        }
        let given_way = Arc::<Notify>::default();
        let (known, busy) = (false, false);
        let entry = Entry { client, proven, known, busy, active: now, earned: now, given_way: Arc::clone(&given_way) };
        book.last += 1;
        let number = book.last;
        book.enter(number, entry);
        Admission::Place(Place { pending: Arc::clone(self), number, given_way })
    }

    /// Sees to it that one more connection of a client fits, if need be by evicting one. False if none may go.
    fn make_room(&self, book: &mut Book, client: IpAddr, now: Instant) -> bool {
        // Whoever leaves the narrowest full network leaves all wider ones.
        let full = book.networks.narrowest_full(client, &self.shares);
        if full.is_none() && book.entries.len() < self.limit {
            return true;
        }
        let victim = book
            .entries
            .iter()
            .filter(|(_, entry)| full.is_none_or(|network| entry.proven && network.contains(&entry.client)))
            .filter(|(_, entry)| !entry.busy && now.saturating_duration_since(entry.earned) >= GRACE)
            .min_by_key(|(_, entry)| (entry.known, entry.active))
            .map(|(number, _)| *number);
        let Some(entry) = victim.and_then(|number| book.leave(number)) else { return false };
        entry.given_way.notify_one();
        true
    }

    fn unproven_limit(&self) -> usize {
        UNPROVEN.min(self.limit / UNPROVEN_PART)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn enter(&mut self, number: u64, entry: Entry) {
        // Only proven addresses fill the share of their network, or forged ones would shut others out.
        if entry.proven {
            self.networks.add(entry.client);
        } else {
            self.unproven += 1;
        }
        self.entries.insert(number, entry);
    }

    fn leave(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        if entry.proven {
            self.networks.remove(entry.client);
        } else {
            self.unproven -= 1;
        }
        Some(entry)
    }
}

impl Place {
    /// The handshake is complete, which proves the client's address. False if its network's share is full; then the
    /// connection has to end.
    pub(crate) fn prove(&self, now: Instant) -> bool {
        let mut book = self.pending.book();
        let Some(mut entry) = book.leave(self.number) else { return false };
        if !entry.proven && !self.pending.make_room(&mut book, entry.client, now) {
            return false;
        }
        (entry.proven, entry.active, entry.earned) = (true, now, now);
        book.enter(self.number, entry);
        true
    }

    /// A device has logged in: strangers give way before it.
    pub(crate) fn know(&self, now: Instant) {
        self.change(|entry| (entry.known, entry.active, entry.earned) = (true, now, now));
    }

    /// Somebody who may be a stranger asks for something: those that have been idle for longer go first. That costs
    /// next to nothing, so it keeps nobody from giving way.
    pub(crate) fn touch(&self, now: Instant) {
        self.change(|entry| entry.active = now);
    }

    /// Says whether a login of the device is being served; nobody gives way meanwhile.
    pub(crate) fn set_busy(&self, busy: bool, now: Instant) {
        self.change(|entry| (entry.busy, entry.active, entry.earned) = (busy, now, now));
    }

    /// Waits until the connection has to give way to another. Cancel-safe.
    pub(crate) async fn given_way(&self) {
        self.given_way.notified().await;
    }

    /// Does nothing to one that has given way.
    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.pending.book().entries.get_mut(&self.number) {
            change(entry);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.book().leave(self.number);
    }
}

#[cfg(test)]
mod tests;
