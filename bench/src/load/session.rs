//! One session as its client sees it: how its packets travel, and what came back of them.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use adit_net::carrier::{Carried, Carrier, Carriers};
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};

use tokio::sync::Notify;

use super::echo::{self, Mark};
use super::histogram::Histogram;
use super::load_path::{LoadPath, Receive};
use super::moves::Moves;

/// Set in the sequence number of a request that only asks whether a client that moved is back.
const SEEKING: u32 = 1 << 31;

/// The generator's clock, and what came back to all sessions.
#[derive(Debug)]
pub(super) struct Echoes {
    start: Instant,
    /// From sending a request to having opened its answer.
    pub(super) round_trips: Histogram,
    /// The same, of active sessions.
    pub(super) active_round_trips: Histogram,
    /// What became of clients that moved.
    pub(super) moves: Moves,
}

impl Echoes {
    /// Starts the clock.
    pub(super) fn new() -> Self {
        let none = Histogram::default;
        Self { start: Instant::now(), round_trips: none(), active_round_trips: none(), moves: Moves::default() }
    }

    /// Nanoseconds since the start, at least 1.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

/// A session of the generator.
pub(super) struct Session {
    number: u32,
    carriers: Carriers,
    path: Arc<LoadPath<Self>>,
    echoes: Arc<Echoes>,
    address: OnceLock<Ipv4Addr>,
    sent: AtomicU32,
    answered: AtomicU32,
    active: AtomicBool,
    /// When the client moved and was not answered since, by the generator's clock; 0 where it is at home.
    away_since: AtomicU64,
    order: Notify,
}

impl Carried for Session {
    fn carriers(&self) -> &Carriers {
        &self.carriers
    }
}

impl Session {
    /// A session on a connection that has no address yet.
    pub(super) fn new(
        number: u32,
        connection: Arc<dyn Carrier>,
        path: Arc<LoadPath<Self>>,
        echoes: Arc<Echoes>,
    ) -> Self {
        let none = AtomicU32::default;
        Self {
            number,
            carriers: Carriers::new(connection),
            path,
            echoes,
            address: OnceLock::new(),
            sent: none(),
            answered: none(),
            active: AtomicBool::new(false),
            away_since: AtomicU64::new(0),
            order: Notify::new(),
        }
    }

    /// The number of its client.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Where its packets leave and arrive.
    pub(super) fn path(&self) -> &LoadPath<Self> {
        &self.path
    }

    /// Whether it is among those that send much.
    pub(super) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }

    /// Tells its client to move.
    pub(super) fn order_move(&self) {
        self.order.notify_one();
    }

    /// Waits until the client is told to move. Cancel-safe.
    pub(super) async fn ordered(&self) {
        self.order.notified().await;
    }

    /// The client is elsewhere from now on, and away until it is answered there.
    pub(super) fn depart(&self) {
        self.path.advance();
        self.echoes.moves.note_departure();
        self.away_since.store(self.echoes.now(), Ordering::Relaxed);
    }

    /// How long the client has moved and not been answered; `None` where it is at home.
    pub(super) fn away(&self) -> Option<Duration> {
        let since = self.away_since.load(Ordering::Relaxed);
        (since > 0).then(|| Duration::from_nanos(self.echoes.now().saturating_sub(since)))
    }

    /// The gateway gave it an address; says whether it is the first.
    pub(super) fn assign(&self, address: Ipv4Addr) -> bool {
        self.address.set(address).is_ok()
    }

    /// The address that the gateway gave it.
    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        self.address.get().copied()
    }

    /// Echo requests it has sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Answers it has got.
    pub(super) fn answered(&self) -> u32 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Sends the next echo request to `gateway`, an inner address. A session that has ended counts it as sent, too.
    pub(super) fn ping(&self, gateway: Ipv4Addr) {
        let sequence = self.sent.fetch_add(1, Ordering::Relaxed);
        self.request(gateway, sequence & !SEEKING);
    }

    /// Asks `gateway` whether packets pass again; not counted among the echoes.
    pub(super) fn seek(&self, gateway: Ipv4Addr) {
        self.request(gateway, SEEKING | self.echoes.moves.note_sent());
    }

    fn request(&self, gateway: Ipv4Addr, sequence: u32) {
        let Some(&address) = self.address.get() else { return };
        let mark = Mark { client: self.number, sequence, sent: self.echoes.now() };
        let packet = echo::request(address, gateway, mark);
        if let Err(reason) = self.send(&packet) {
            self.carriers.counters().count_drop(reason);
        }
    }

    /// Sends by ESP while that passes, else by the connection, as a worker does.
    fn send(&self, packet: &[u8; echo::LEN]) -> Result<(), DropReason> {
        const SEALED: usize = sealed_len(echo::LEN);
        let route = self.carriers.route();
        let Some(route) = route.as_ref() else {
            self.carriers.connection().send(&mut vec![PacketBuffer::copy_from(packet)]);
            return Ok(());
        };
        let mut datagram = [0; SEALED];
        datagram[PREFIX_LEN..PREFIX_LEN + echo::LEN].copy_from_slice(packet);
        route.seal(&mut datagram, echo::LEN, NextHeader::Ipv4)?;
        self.carriers.note_sent();
        self.path.send_sealed(route.to, &datagram).map_err(|_full| DropReason::SendFailed)?;
        self.carriers.counters().count_tx(1, packet.len() as u64);
        Ok(())
    }
}

impl Receive for Session {
    fn receive(&self, packet: &[u8]) {
        self.carriers.counters().count_rx(1, packet.len() as u64);
        let Some(mark) = echo::answer(packet).filter(|mark| mark.client == self.number) else { return };
        let now = self.echoes.now();
        let since = self.away_since.load(Ordering::Relaxed);
        if (1..=mark.sent).contains(&since) && self.away_since.swap(0, Ordering::Relaxed) > 0 {
            self.echoes.moves.note_return(Duration::from_nanos(now.saturating_sub(since)));
        }
        if mark.sequence & SEEKING != 0 {
            return self.echoes.moves.note_answer();
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        let is_active = self.active.load(Ordering::Relaxed);
        let times = if is_active { &self.echoes.active_round_trips } else { &self.echoes.round_trips };
        times.note(Duration::from_nanos(now.saturating_sub(mark.sent)));
    }
}
