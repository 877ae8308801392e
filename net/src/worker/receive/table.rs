//! The inbound SAs of one worker.

use std::collections::HashMap;
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

/// SAs by SPI. An SA keeps its place as long as it is there, so that one lookup serves many datagrams of a message.
pub(super) struct Table<S> {
    places: HashMap<u32, usize>,
    entries: Vec<Option<Entry<S>>>,
    free: Vec<usize>,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Vec::new(), free: Vec::new() }
    }
}

impl<S> Table<S> {
    pub(super) fn insert(&mut self, installation: Installation<S>) {
        let Installation { sa, epoch, session, reports } = installation;
        let spi = sa.spi().get();
        let entry = Entry { sa, epoch, session, reports, announced: false, wants_rekey: false, reported: None };
        let known = self.places.get(&spi).copied();
        let place = known.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        *self.entries.get_mut(place).expect("a place that was given out stays") = Some(entry);
        self.places.insert(spi, place);
    }

    pub(super) fn remove(&mut self, spi: u32) {
        let Some(place) = self.places.remove(&spi) else { return };
        *self.entries.get_mut(place).expect("a place that was given out stays") = None;
        self.free.push(place);
    }

    pub(super) fn place(&self, spi: u32) -> Option<usize> {
        self.places.get(&spi).copied()
    }

    pub(super) fn entry(&self, place: usize) -> Option<&Entry<S>> {
        self.entries.get(place)?.as_ref()
    }

    pub(super) fn entry_mut(&mut self, place: usize) -> Option<&mut Entry<S>> {
        self.entries.get_mut(place)?.as_mut()
    }
}
