//! The associations of DTLS of one worker, found by the peer's address.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adit_proto::anyconnect::frame::FrameKind;
use adit_proto::anyconnect::record;
use adit_proto::drop_reason::DropReason;
use adit_proto::dtls::record::ContentType;
use adit_proto::dtls::sa::Inbound;
use adit_proto::sealing::replay::Arrival;
use tokio::sync::mpsc;

use super::Source;
use super::table::Table;
use crate::cipher::Cipher;
use crate::worker::{Association, RecordReport, Stray};

/// The longest datagram that the control side gets: more than any message of a handshake, and any path, needs.
const LONGEST: usize = 2048;

/// The place of whoever has no association.
pub(super) const NOWHERE: usize = usize::MAX;

/// One association and whom its packets belong to.
pub(super) struct Associated<S> {
    sa: Inbound<Cipher>,
    pub(super) session: Arc<S>,
    records: Arc<AtomicU64>,
    reports: mpsc::Sender<RecordReport>,
}

/// What became of a record.
pub(super) enum Inside {
    /// A packet, which stands there.
    Packet(Range<usize>, Arrival),
    /// It was authenticated, and the control side has what was in it.
    Told(Arrival),
    /// The control side has it as it was.
    HandedOver,
}

/// Associations by the address of the peer.
pub(super) struct Associations<S> {
    table: Table<SocketAddr, Associated<S>>,
    strays: Option<mpsc::Sender<Stray>>,
}

impl<S> Default for Associations<S> {
    fn default() -> Self {
        Self { table: Table::default(), strays: None }
    }
}

/// Whether a datagram that begins with these four bytes is one of DTLS (RFC 7983).
#[inline]
pub(super) const fn is_dtls(first: u32) -> bool {
    matches!(first >> 24, 20..=23)
}

impl<S> Associations<S> {
    pub(super) fn insert(&mut self, association: Association<S>) {
        let Association { peer, sa, session, records, reports } = association;
        self.table.insert(peer, Associated { sa, session, records, reports });
    }

    /// Drops the association with a peer, if it is the one that counts its records there: a newer one may have its
    /// place.
    pub(super) fn remove(&mut self, peer: SocketAddr, records: &Arc<AtomicU64>) {
        if self.with(peer).is_some_and(|known| Arc::ptr_eq(&known.records, records)) {
            self.table.remove(&peer);
        }
    }

    pub(super) fn set_strays(&mut self, strays: mpsc::Sender<Stray>) {
        self.strays = Some(strays);
    }

    /// The place of the association with a peer, or [`NOWHERE`].
    pub(super) fn place(&self, peer: SocketAddr) -> usize {
        self.table.place(&peer).unwrap_or(NOWHERE)
    }

    pub(super) fn at(&self, place: usize) -> Option<&Associated<S>> {
        self.table.entry(place)
    }

    pub(super) fn with(&self, peer: SocketAddr) -> Option<&Associated<S>> {
        self.at(self.place(peer))
    }

    /// Opens a record in place. What is no packet goes to the control side.
    pub(super) fn open(&mut self, place: usize, source: &Source, datagram: &mut [u8]) -> Result<Inside, DropReason> {
        let is_data = datagram.first() == Some(&ContentType::ApplicationData.code());
        let Some(associated) = self.table.entry_mut(place) else { return self.hand_over(source, datagram) };
        if !is_data {
            // It is of this association, or of the handshake of the next one, which opening would spoil.
            return match associated.open_copy(datagram) {
                Some(arrival) => Ok(Inside::Told(arrival)),
                None => self.hand_over(source, datagram),
            };
        }
        let opened = associated.sa.open(datagram)?;
        let plaintext = datagram.get(opened.range.clone()).ok_or(DropReason::Truncated)?;
        if let Some((FrameKind::Data, _)) = record::split(plaintext) {
            let start = opened.range.start + record::HEAD_LEN;
            return Ok(Inside::Packet(start..opened.range.end, opened.arrival));
        }
        associated.tell(opened.content, plaintext);
        Ok(Inside::Told(opened.arrival))
    }

    /// Hands the control side what is of no association here.
    fn hand_over(&self, source: &Source, datagram: &[u8]) -> Result<Inside, DropReason> {
        let strays = self.strays.as_ref().filter(|_| datagram.len() <= LONGEST).ok_or(DropReason::UnknownEpoch)?;
        let place = strays.try_reserve().map_err(|_full| DropReason::QueueFull)?;
        place.send(Stray { from: source.address, origin: source.origin, datagram: datagram.to_vec() });
        Ok(Inside::HandedOver)
    }
}

impl<S> Associated<S> {
    /// Opens a copy of a record that is no data, and tells what is in it. `None` if it is not of this association.
    fn open_copy(&mut self, datagram: &[u8]) -> Option<Arrival> {
        let mut copy = datagram.get(..datagram.len().min(LONGEST))?.to_vec();
        let opened = self.sa.open(&mut copy).ok()?;
        self.tell(opened.content, copy.get(opened.range)?);
        Some(opened.arrival)
    }

    fn tell(&self, content: ContentType, body: &[u8]) {
        if let Ok(place) = self.reports.try_reserve() {
            place.send(RecordReport::Opened { content, body: body.to_vec() });
        }
    }

    /// Counts records that were opened. The control side hears of them while packets go to the peer another way.
    pub(super) fn note(&self, records: u64, is_in_use: bool) {
        self.records.fetch_add(records, Ordering::Relaxed);
        if !is_in_use {
            self.reports.try_send(RecordReport::Heard).ok();
        }
    }
}
