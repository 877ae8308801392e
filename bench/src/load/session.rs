//! One session as its client sees it: how its packets travel, and what came back of them.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use adit_net::carrier::Carriers;
use adit_net::datagrams::Datagrams;
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};

use super::echo::{self, Mark};
use super::histogram::Histogram;
use super::lane::Lane;

/// The generator's clock, and the round-trip times of all sessions.
#[derive(Debug)]
pub(super) struct Echoes {
    start: Instant,
    /// From sending a request to having opened its answer.
    pub(super) round_trips: Histogram,
}

impl Echoes {
    /// Starts the clock.
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), round_trips: Histogram::default() }
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A session of the generator.
pub(super) struct Session {
    number: u32,
    carriers: Carriers,
    lane: Arc<Lane>,
    echoes: Arc<Echoes>,
    address: OnceLock<Ipv4Addr>,
    sent: AtomicU32,
    answered: AtomicU32,
}

impl AsRef<Carriers> for Session {
    fn as_ref(&self) -> &Carriers {
        &self.carriers
    }
}

impl Session {
    /// A session on a connection that has no address yet.
    pub(super) fn new(number: u32, datagrams: Arc<Datagrams>, lane: Arc<Lane>, echoes: Arc<Echoes>) -> Self {
        let none = AtomicU32::default;
        let carriers = Carriers::new(datagrams);
        Self { number, carriers, lane, echoes, address: OnceLock::new(), sent: none(), answered: none() }
    }

    /// How its packets travel.
    pub(super) fn carriers(&self) -> &Carriers {
        &self.carriers
    }

    /// The gateway gave it an address; says whether it is the first.
    pub(super) fn assign(&self, address: Ipv4Addr) -> bool {
        self.address.set(address).is_ok()
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
        let esp = self.carriers.esp();
        let Some(route) = esp.as_ref() else {
            self.carriers.connection().send(&mut vec![PacketBuffer::copy_from(packet)], self.carriers.counters());
            return Ok(());
        };
        let mut datagram = [0; SEALED];
        datagram[PREFIX_LEN..PREFIX_LEN + echo::LEN].copy_from_slice(packet);
        route.sa.reserve(1, echo::LEN)?.seal(&mut datagram, echo::LEN, NextHeader::Ipv4)?;
        self.carriers.note_sent();
        if !self.lane.send_sealed(route.to, &datagram) {
            return Err(DropReason::SendFailed);
        }
        self.carriers.counters().count_tx(1, packet.len() as u64);
        Ok(())
    }

    /// Takes a packet that came through the tunnel.
    pub(super) fn receive(&self, packet: &[u8]) {
        self.carriers.counters().count_rx(1, packet.len() as u64);
        if let Some(mark) = echo::answer(packet).filter(|mark| mark.client == self.number) {
            self.answered.fetch_add(1, Ordering::Relaxed);
            let nanoseconds = self.echoes.now().saturating_sub(mark.sent);
            self.echoes.round_trips.note(Duration::from_nanos(nanoseconds));
        }
    }
}
