//! Moves packets between the TUN device and the sessions, and decides which may pass.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_net::counters::Counters;
use adit_net::packet_buffer::{Arena, PacketBuffer};
use adit_net::tun::Tun;
use adit_proto::drop_reason::DropReason;
use adit_proto::packet::IpPacket;
use adit_proto::packet::icmp::TooBigAnswers;
use adit_proto::policy::DestinationPolicy;
use adit_proto::route_table::RouteTable;
use bytes::Bytes;
use ipnet::IpNet;

use crate::session::{Session, SessionTable};

/// Packets taken from the TUN device at a time.
const BATCH: usize = 64;
/// "Too big" answers per second, and at once.
const TOO_BIG_RATE: (u32, u32) = (200, 50);

/// What may go where.
pub struct Router {
    tun: Tun,
    mtu: u16,
    sessions: Arc<SessionTable>,
    destinations: DestinationPolicy,
    advertised: RouteTable<()>,
    /// Drops of packets that belong to no session.
    counters: Counters,
}

impl Router {
    /// Routes between `tun` and `sessions`; clients may send to `advertised` prefixes as far as `destinations` allows.
    ///
    /// `mtu` is the TUN device's, in bytes.
    pub fn new(
        tun: Tun,
        mtu: u16,
        sessions: Arc<SessionTable>,
        destinations: DestinationPolicy,
        advertised: &[IpNet],
    ) -> Self {
        let mut table = RouteTable::new();
        for prefix in advertised {
            table.insert(*prefix, ());
        }
        Self { tun, mtu, sessions, destinations, advertised: table, counters: Counters::default() }
    }

    /// The TUN device's name.
    pub fn tun_name(&self) -> &str {
        self.tun.name()
    }

    /// Drops of packets that belong to no session.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes packets that came from a client, checks each and gives those that may pass to the kernel. Empties `packets`.
    pub fn from_client(&self, session: &Session, packets: &mut Vec<Bytes>) {
        packets.retain(|packet| match self.admit(session, packet) {
            Ok(()) => true,
            Err(reason) => {
                session.counters.count_drop(reason);
                false
            }
        });
        session.counters.count_rx(packets.len() as u64, packets.iter().map(|packet| packet.len() as u64).sum());
        for _refused in self.tun.send(packets)..packets.len() {
            session.counters.count_drop(DropReason::TunWriteFailed);
        }
        packets.clear();
    }

    /// A client's packet must be well-formed, bear the session's own source (RFC 9484 section 4.7.1, BCP 38), and go where the gateway
    /// offered to take it.
    fn admit(&self, session: &Session, packet: &[u8]) -> Result<(), DropReason> {
        let parsed = IpPacket::parse(packet)?;
        session.source.check(&parsed)?;
        self.destinations.check(&parsed)?;
        match self.advertised.lookup(parsed.destination) {
            Some(()) => Ok(()),
            None => Err(DropReason::NoRoute),
        }
    }

    /// Moves packets from the TUN device to the sessions until the device fails; returns why it did.
    pub async fn to_clients(self: Arc<Self>) -> io::Error {
        let mut arena = Arena::new(usize::from(self.mtu));
        let mut batch = Vec::with_capacity(BATCH);
        let mut run = Run::default();
        let mut too_big = TooBigAnswers::new(TOO_BIG_RATE.0, TOO_BIG_RATE.1);
        loop {
            if let Err(error) = self.tun.receive(&mut arena, &mut batch, BATCH).await {
                return error;
            }
            for packet in batch.drain(..) {
                self.to_client(packet, &mut run, &mut too_big);
            }
            run.flush();
        }
    }

    fn to_client(&self, packet: PacketBuffer, run: &mut Run, too_big: &mut TooBigAnswers) {
        let parsed = match IpPacket::parse(packet.packet()) {
            Ok(parsed) => parsed,
            Err(reason) => return self.counters.count_drop(reason),
        };
        run.turn_to(parsed.destination, &self.sessions);
        match &run.session {
            None => self.counters.count_drop(DropReason::NoRoute),
            Some(session) if parsed.len > usize::from(run.mtu) => {
                session.counters.count_drop(DropReason::TooBig);
                if let Some(answer) = too_big.answer(packet.packet(), run.mtu, Instant::now()) {
                    self.tun.send(&[answer]);
                }
            }
            Some(_) => run.packets.push(packet),
        }
    }
}

/// Consecutive packets for one session, sent together.
#[derive(Default)]
struct Run {
    destination: Option<IpAddr>,
    session: Option<Arc<Session>>,
    mtu: u16,
    packets: Vec<PacketBuffer>,
}

impl Run {
    /// Finds the session of a destination; another one than before first sends what is collected.
    fn turn_to(&mut self, destination: IpAddr, sessions: &SessionTable) {
        if self.destination != Some(destination) {
            self.flush();
            self.session = sessions.lookup(destination);
            self.mtu = self.session.as_ref().map_or(0, |session| session.carrier.mtu());
            self.destination = Some(destination);
        }
    }

    /// Sends what is collected and forgets the session, which may end before the next batch.
    fn flush(&mut self) {
        if let Some(session) = self.session.take()
            && !self.packets.is_empty()
        {
            session.carrier.send(&mut self.packets, &session.counters);
        }
        self.destination = None;
    }
}
