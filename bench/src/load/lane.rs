//! A UDP socket that many sessions share for ESP, and the SAs whose packets arrive there.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_net::carrier::Origin;
use adit_net::esp::Cipher;
use adit_net::udp::{EspSocket, Message, bind_any};
use adit_net::worker::{DataPlane, Installation, Report};
use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::NextHeader;
use adit_proto::esp::probe::Probe;
use adit_proto::esp::replay::Arrival;
use adit_proto::esp::sa::Inbound;
use adit_proto::esp::spi::Spi;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::session::Session;

/// Bytes of one message: UDP_GRO hands over no more.
const MESSAGE: usize = 65_535;

/// The data plane of some of the clients, without a TUN device: what arrives is checked and counted here.
pub(super) struct Lane {
    socket: EspSocket,
    table: Mutex<HashMap<Spi, Option<Entry>>>,
}

/// One inbound SA. An index that is only claimed has none yet.
struct Entry {
    sa: Inbound<Cipher>,
    epoch: u32,
    session: Arc<Session>,
    reports: mpsc::Sender<Report>,
    /// The control side has heard of a packet.
    announced: bool,
}

impl Lane {
    /// Binds a socket to a port of the kernel's choice.
    ///
    /// # Errors
    /// What the system refuses.
    pub(super) fn bind() -> io::Result<Self> {
        Ok(Self { socket: bind_any(false, None, true)?, table: Mutex::default() })
    }

    /// Opens what arrives for as long as it is polled.
    ///
    /// # Errors
    /// If the socket cannot be waited for.
    pub(super) async fn serve(self: Arc<Self>) -> io::Result<()> {
        // The same socket, in the form that can be waited for.
        let ready = UdpSocket::from_std(self.socket.as_fd().try_clone_to_owned()?.into())?;
        let mut buffer = vec![0; MESSAGE];
        loop {
            ready.readable().await?;
            // What is no message is nothing, or an error of an earlier send; the next call tells.
            if let Ok(message) = ready.try_io(Interest::READABLE, || self.socket.receive(&mut buffer)) {
                self.handle(&message, &mut buffer);
            }
        }
    }

    /// Sends one sealed packet; a full buffer is loss.
    pub(super) fn send_sealed(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.socket.send(to, None, datagram, datagram.len(), 0).error.is_none()
    }

    fn handle(&self, message: &Message, buffer: &mut [u8]) {
        let mut table = self.table();
        let datagrams = buffer.get_mut(..message.len).unwrap_or_default();
        for datagram in datagrams.chunks_mut(message.segment.max(1)) {
            let spi = datagram.first_chunk().and_then(|spi| Spi::from_wire(u32::from_be_bytes(*spi)));
            let Some(Some(entry)) = spi.and_then(|spi| table.get_mut(&spi)) else { continue };
            if let Err(reason) = entry.open(datagram, message.from) {
                entry.session.as_ref().as_ref().counters().count_drop(reason);
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Spi, Option<Entry>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Opens one datagram and hands on what is in it, as a worker does.
    fn open(&mut self, datagram: &mut [u8], from: SocketAddr) -> Result<(), DropReason> {
        let len = datagram.len();
        let opened = self.sa.open(datagram)?;
        let packet = datagram.get(opened.range()).ok_or(DropReason::Truncated)?;
        let is_dummy = opened.next_header == NextHeader::Nothing;
        let probe = Probe::decode(packet).filter(|_| is_dummy);
        let is_proven = self.session.carriers().esp().as_ref().is_some_and(|route| route.to == from);
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

impl DataPlane<Session> for Lane {
    fn claim_spi(&self) -> Option<Spi> {
        let mut table = self.table();
        let spi = Spi::choose(0, random, |spi| table.contains_key(&spi))?;
        table.insert(spi, None);
        Some(spi)
    }

    fn install(&self, installation: Installation<Session>) {
        let Installation { sa, epoch, session, reports } = installation;
        let spi = sa.spi();
        self.table().insert(spi, Some(Entry { sa, epoch, session, reports, announced: false }));
    }

    fn retire(&self, spi: Spi) {
        let retired = self.table().remove(&spi);
        // Not under the lock: a session may end with its SA.
        drop(retired);
    }

    fn origin(&self, _to: SocketAddr) -> Origin {
        Origin::default()
    }

    fn send(&self, _origin: Origin, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.socket.send(to, None, datagram, datagram.len(), 0).error.map_or(Ok(()), Err)
    }
}

/// A random number; if the system has none, one that makes SPIs collide until claiming them fails.
fn random() -> u32 {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).map_or(0, |()| u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_indexes_are_distinct_until_they_are_retired() {
        let lane = Lane::bind().unwrap();
        let claimed: Vec<Spi> = (0..100).map(|_| lane.claim_spi().unwrap()).collect();
        assert_eq!(lane.table().len(), claimed.len());
        claimed.into_iter().for_each(|spi| lane.retire(spi));
        assert!(lane.table().is_empty());
    }
}
