//! How the control side reaches the workers.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_program::random::random;
use adit_proto::esp::spi::Spi;
use tokio::sync::mpsc;

use super::mailbox::{Command, Mailbox};
use super::{Association, AssociationPlane, DataPlane, Installation, Stray};
use crate::carrier::{Carried, Origin};
use crate::udp::{DatagramSocket, EspSocket, dtls_worker};

/// Installs and retires SAs, and sends what is not a packet.
pub struct WorkersHandle<S, D = EspSocket> {
    mailboxes: Vec<Arc<Mailbox<S>>>,
    /// Those of the first worker: the sockets of all workers have the same addresses.
    sockets: Vec<Arc<D>>,
    indexes: Mutex<Indexes>,
}

/// Every SPI in use, and how many each worker has.
struct Indexes {
    taken: HashSet<Spi>,
    per_worker: Vec<usize>,
}

impl<S, D> WorkersHandle<S, D> {
    pub(super) fn new(mailboxes: Vec<Arc<Mailbox<S>>>, sockets: Vec<Arc<D>>) -> Self {
        let per_worker = vec![0; mailboxes.len()];
        Self { mailboxes, sockets, indexes: Mutex::new(Indexes { taken: HashSet::new(), per_worker }) }
    }

    /// Whether there is any socket to send ESP with.
    pub fn has_sockets(&self) -> bool {
        !self.sockets.is_empty()
    }

    fn indexes(&self) -> MutexGuard<'_, Indexes> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mailbox of the worker that gets a peer's records.
    fn mailbox_of(&self, peer: SocketAddr) -> Option<&Arc<Mailbox<S>>> {
        self.mailboxes.get(dtls_worker(peer, self.mailboxes.len()))
    }

    fn put(&self, spi: Spi, command: Command<S>) {
        if let Some(mailbox) = self.mailboxes.get(usize::from(spi.worker())) {
            mailbox.put(command);
        }
    }
}

impl<S: Carried, D: DatagramSocket + Send + Sync> DataPlane<S> for WorkersHandle<S, D> {
    fn claim_spi(&self, beside: Option<Spi>) -> Option<Spi> {
        let mut indexes = self.indexes();
        let fewest = || indexes.per_worker.iter().enumerate().min_by_key(|(_, count)| **count);
        let worker = match beside {
            Some(spi) => spi.worker(),
            None => fewest().and_then(|(worker, _)| u8::try_from(worker).ok())?,
        };
        let number = || u32::from_ne_bytes(random().expect("the system has randomness: TLS came before"));
        let spi = Spi::choose(worker, number, |spi| indexes.taken.contains(&spi))?;
        *indexes.per_worker.get_mut(usize::from(worker))? += 1;
        indexes.taken.insert(spi);
        Some(spi)
    }

    fn install(&self, installation: Installation<S>) {
        self.put(installation.sa.spi(), Command::Install(Box::new(installation)));
    }

    fn retire(&self, spi: Spi) {
        self.put(spi, Command::Retire(spi));
        let mut indexes = self.indexes();
        if indexes.taken.remove(&spi)
            && let Some(count) = indexes.per_worker.get_mut(usize::from(spi.worker()))
        {
            *count = count.saturating_sub(1);
        }
    }

    fn origin(&self, to: SocketAddr) -> Origin {
        let find = |fits: fn(SocketAddr, SocketAddr) -> bool| {
            self.sockets.iter().position(|socket| socket.local_addr().is_ok_and(|local| fits(local, to)))
        };
        let socket = find(|local, to| local.is_ipv4() == to.is_ipv4())
            // An IPv6 wildcard takes IPv4 as well.
            .or_else(|| find(|local, to| to.is_ipv4() && local.ip().is_unspecified()));
        Origin { socket: socket.unwrap_or(self.sockets.len()), local: None }
    }

    fn send(&self, origin: Origin, to: SocketAddr, datagram: &[u8], ecn: u8) -> io::Result<()> {
        let socket = self.sockets.get(origin.socket).ok_or(io::ErrorKind::NotConnected)?;
        socket.send(to, origin.local, datagram, datagram.len(), ecn).error.map_or(Ok(()), Err)
    }
}

impl<S: Carried, D: DatagramSocket + Send + Sync> AssociationPlane<S> for WorkersHandle<S, D> {
    fn associate(&self, association: Association<S>) {
        if let Some(mailbox) = self.mailbox_of(association.peer) {
            mailbox.put(Command::Associate(Box::new(association)));
        }
    }

    fn dissociate(&self, peer: SocketAddr, records: &Arc<AtomicU64>) {
        if let Some(mailbox) = self.mailbox_of(peer) {
            mailbox.put(Command::Dissociate(peer, Arc::clone(records)));
        }
    }

    fn hand_strays_to(&self, strays: &mpsc::Sender<Stray>) {
        for mailbox in &self.mailboxes {
            mailbox.put(Command::HandOver(strays.clone()));
        }
    }
}
