//! What a worker opens datagrams with, found by what a datagram shows.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_proto::esp::sa::Inbound;
use tokio::sync::mpsc;

use crate::cipher::Cipher;
use crate::worker::{Installation, Report};

/// One SA and whom its packets belong to.
pub(super) struct Entry<S> {
    pub(super) sa: Inbound<Cipher>,
    pub(super) epoch: u32,
    pub(super) session: Arc<S>,
    pub(super) reports: mpsc::Sender<Report>,
    /// Whether the control side has heard of a packet.
    pub(super) announced: bool,
    /// Whether the control side has heard that the SA refused too much.
    pub(super) wants_rekey: bool,
    /// The unproven address reported last, and when.
    pub(super) reported: Option<(SocketAddr, Instant)>,
}

impl<S> Entry<S> {
    pub(super) fn new(installation: Installation<S>) -> Self {
        let Installation { sa, epoch, session, reports } = installation;
        Self { sa, epoch, session, reports, announced: false, wants_rekey: false, reported: None }
    }
}

/// Entries by key. One keeps its place as long as it is there, so that one lookup serves many datagrams of a message.
pub(super) struct Table<K, E> {
    places: HashMap<K, usize>,
    entries: Vec<Option<E>>,
    free: Vec<usize>,
}

impl<K, E> Default for Table<K, E> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Vec::new(), free: Vec::new() }
    }
}

impl<K: Eq + Hash, E> Table<K, E> {
    /// Puts an entry in, in the place of the one with the same key.
    pub(super) fn insert(&mut self, key: K, entry: E) {
        let known = self.places.get(&key).copied();
        let place = known.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        *self.entries.get_mut(place).expect("a place that was given out stays") = Some(entry);
        self.places.insert(key, place);
    }

    pub(super) fn remove(&mut self, key: &K) {
        let Some(place) = self.places.remove(key) else { return };
        *self.entries.get_mut(place).expect("a place that was given out stays") = None;
        self.free.push(place);
    }

    #[inline]
    pub(super) fn place(&self, key: &K) -> Option<usize> {
        self.places.get(key).copied()
    }

    #[inline]
    pub(super) fn entry(&self, place: usize) -> Option<&E> {
        self.entries.get(place)?.as_ref()
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, place: usize) -> Option<&mut E> {
        self.entries.get_mut(place)?.as_mut()
    }
}
