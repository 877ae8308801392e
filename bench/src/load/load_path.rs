//! The UDP sockets that sessions share for ESP, the SAs whose packets arrive there, and which socket a session uses.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_net::carrier::{Carried, Origin};
use adit_net::cipher::Cipher;
use adit_net::udp::{DatagramSocket as _, EspSocket, Message, bind_any};
use adit_net::worker::{DataPlane, Installation, Report};
use adit_program::random::random;
use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::NextHeader;
use adit_proto::esp::probe::Probe;
use adit_proto::esp::sa::Inbound;
use adit_proto::esp::spi::Spi;
use adit_proto::sealing::replay::Arrival;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Bytes of one message: UDP_GRO hands over no more.
const MESSAGE: usize = 65_535;

/// A session that packets arrive for.
pub(super) trait Receive: Carried {
    /// Takes a packet that came through the tunnel.
    fn receive(&self, packet: &[u8]);
}

/// All sockets for ESP, and the addresses clients come from.
pub(super) struct SharedSockets<S> {
    sockets: Vec<SharedSocket<S>>,
    sources: Vec<Ipv4Addr>,
}

/// One socket, and the SAs of sessions that began there; their indexes say so in their worker's place.
struct SharedSocket<S> {
    socket: EspSocket,
    table: Mutex<HashMap<Spi, Option<Entry<S>>>>,
}

/// One inbound SA. An index that is only claimed has none yet.
struct Entry<S> {
    sa: Inbound<Cipher>,
    epoch: u32,
    session: Arc<S>,
    place: Place,
    reports: mpsc::Sender<Report>,
    /// The control side has heard of a packet.
    announced: bool,
}

impl<S: Receive> SharedSockets<S> {
    /// Binds so many sockets to ports of the kernel's choice.
    ///
    /// # Errors
    /// What the system refuses.
    pub(super) fn bind(count: usize, sources: Vec<Ipv4Addr>) -> io::Result<Self> {
        let socket = |_| Ok(SharedSocket { socket: bind_any(false, None, true)?, table: Mutex::default() });
        Ok(Self { sockets: (0..count).map(socket).collect::<io::Result<_>>()?, sources })
    }

    /// Opens what arrives at one socket for as long as it is polled.
    ///
    /// # Errors
    /// If the socket cannot be waited for.
    pub(super) async fn serve(self: Arc<Self>, at: usize) -> io::Result<()> {
        let socket = &self.socket(at).socket;
        // The same socket, in the form that can be waited for.
        let ready = UdpSocket::from_std(socket.as_fd().try_clone_to_owned()?.into())?;
        let mut buffer = vec![0; MESSAGE];
        loop {
            ready.readable().await?;
            // What is no message is nothing, or an error of an earlier send; the next call tells.
            if let Ok(message) = ready.try_io(Interest::READABLE, || socket.receive(&mut buffer)) {
                self.handle(at, &message, &mut buffer);
            }
        }
    }

    fn handle(&self, at: usize, message: &Message, buffer: &mut [u8]) {
        let datagrams = buffer.get_mut(..message.len).unwrap_or_default();
        for datagram in datagrams.chunks_mut(message.segment.max(1)) {
            let spi = datagram.first_chunk().and_then(|spi| Spi::from_wire(u32::from_be_bytes(*spi)));
            let Some(spi) = spi else { continue };
            let mut table = self.socket(spi.worker().into()).table();
            let Some(Some(entry)) = table.get_mut(&spi) else { continue };
            // A client that has moved on is no longer where it was.
            if entry.place.index(self.sockets.len()) != at {
                continue;
            }
            if let Err(reason) = entry.open(datagram, message.from) {
                entry.session.carriers().counters().count_drop(reason);
            }
        }
    }

    fn socket(&self, at: usize) -> &SharedSocket<S> {
        &self.sockets[at % self.sockets.len()]
    }
}

impl<S> SharedSocket<S> {
    fn table(&self) -> MutexGuard<'_, HashMap<Spi, Option<Entry<S>>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a client has moved: whoever holds a copy sees where it is now.
#[derive(Clone)]
struct Place {
    number: usize,
    moves: Arc<AtomicUsize>,
}

impl Place {
    /// Where the client is now, of so many places.
    fn index(&self, count: usize) -> usize {
        (self.number + self.moves.load(Ordering::Relaxed)) % count
    }
}

/// Where one session's packets leave and arrive: its data plane, without a TUN device.
pub(super) struct LoadPath<S> {
    sockets: Arc<SharedSockets<S>>,
    place: Place,
}

impl<S: Receive> LoadPath<S> {
    /// The path of a client before it moves.
    pub(super) fn new(sockets: Arc<SharedSockets<S>>, number: u32) -> Self {
        Self { sockets, place: Place { number: number as usize, moves: Arc::default() } }
    }

    /// Goes on at another address and port.
    pub(super) fn advance(&self) {
        self.place.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// The client's present address.
    pub(super) fn source(&self) -> Ipv4Addr {
        let sources = &self.sockets.sources;
        sources[self.place.index(sources.len())]
    }

    /// Sends one datagram; a full buffer is loss.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn send_sealed(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let shared = self.sockets.socket(self.current());
        let local = Some(IpAddr::V4(self.source()));
        shared.socket.send(to, local, datagram, datagram.len(), 0).error.map_or(Ok(()), Err)
    }

    /// The socket in use.
    fn current(&self) -> usize {
        self.place.index(self.sockets.sockets.len())
    }

    /// The socket, and the worker in the indexes of its SAs, with which it began.
    fn home(&self) -> usize {
        self.place.number % self.sockets.sockets.len()
    }
}

impl<S: Receive> Entry<S> {
    /// Opens one datagram and hands on what is in it, as a worker does.
    fn open(&mut self, datagram: &mut [u8], from: SocketAddr) -> Result<(), DropReason> {
        let len = datagram.len();
        let opened = self.sa.open(datagram)?;
        let packet = datagram.get(opened.range()).ok_or(DropReason::Truncated)?;
        let is_dummy = opened.next_header == NextHeader::Nothing;
        let probe = Probe::decode(packet).filter(|_| is_dummy);
        let is_proven = self.session.carriers().route().as_ref().is_some_and(|route| route.to == from);
        if probe.is_some() || !self.announced || !is_proven {
            let newest = opened.arrival == Arrival::Newest;
            let report = Report { epoch: self.epoch, from, origin: Origin::default(), len, newest, probe };
            self.announced |= self.reports.try_send(report).is_ok();
        }
        if !is_dummy {
            self.session.receive(packet);
        }
        Ok(())
    }
}

impl<S: Receive> DataPlane<S> for LoadPath<S> {
    fn claim_spi(&self, _beside: Option<Spi>) -> Option<Spi> {
        let worker = u8::try_from(self.home()).ok()?;
        let mut table = self.sockets.socket(self.home()).table();
        let spi = Spi::choose(worker, random_number, |spi| table.contains_key(&spi))?;
        table.insert(spi, None);
        Some(spi)
    }

    fn install(&self, installation: Installation<S>) {
        let Installation { sa, epoch, session, reports } = installation;
        let spi = sa.spi();
        let entry = Entry { sa, epoch, session, place: self.place.clone(), reports, announced: false };
        self.sockets.socket(spi.worker().into()).table().insert(spi, Some(entry));
    }

    fn retire(&self, spi: Spi) {
        let retired = self.sockets.socket(spi.worker().into()).table().remove(&spi);
        // Not under the lock: a session may end with its SA.
        drop(retired);
    }

    fn origin(&self, _to: SocketAddr) -> Origin {
        Origin::default()
    }

    fn send(&self, _origin: Origin, to: SocketAddr, datagram: &[u8], _ecn: u8) -> io::Result<()> {
        self.send_sealed(to, datagram)
    }
}

/// A random number for an SPI.
fn random_number() -> u32 {
    u32::from_ne_bytes(random().expect("the system has randomness: TLS came before"))
}

#[cfg(test)]
mod tests {
    use adit_net::carrier::Carriers;

    use super::*;

    /// No session, as nothing arrives here.
    enum NoSession {}

    impl Carried for NoSession {
        fn carriers(&self) -> &Carriers {
            match *self {}
        }
    }

    impl Receive for NoSession {
        fn receive(&self, _packet: &[u8]) {
            match *self {}
        }
    }

    fn path(sockets: &Arc<SharedSockets<NoSession>>, number: u32) -> LoadPath<NoSession> {
        LoadPath::new(Arc::clone(sockets), number)
    }

    fn sockets() -> Arc<SharedSockets<NoSession>> {
        let sources = vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 1, 1)];
        Arc::new(SharedSockets::bind(4, sources).unwrap())
    }

    #[test]
    fn claimed_indexes_are_distinct_until_they_are_retired() {
        let sockets = sockets();
        let path = path(&sockets, 5);
        let claimed: Vec<Spi> = (0..100).map(|_| path.claim_spi(None).unwrap()).collect();
        assert!(claimed.iter().all(|spi| spi.worker() == 1));
        assert_eq!(sockets.socket(1).table().len(), claimed.len());
        claimed.into_iter().for_each(|spi| path.retire(spi));
        assert!(sockets.socket(1).table().is_empty());
    }

    #[test]
    fn moving_changes_address_and_port_but_not_the_indexes() {
        let path = path(&sockets(), 6);
        let copy = path.place.clone();
        let before = (path.current(), path.source(), path.home());
        path.advance();
        assert!(path.current() != before.0 && path.source() != before.1 && path.home() == before.2);
        assert_eq!(copy.index(4), path.current(), "who holds a copy sees the move");
    }
}
