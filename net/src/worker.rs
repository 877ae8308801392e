//! The packet path: one thread per core that moves packets between its queue of the TUN device and its UDP sockets.
//!
//! The life of a packet to a peer, `transmit`: one `readv` brings a superpacket; one lookup finds its session; its
//! segments are copied out and sealed; one `sendmsg` with UDP_SEGMENT sends them. A session without ESP gets the
//! packets through the carrier of its connection instead.
//!
//! The life of a packet from a peer, `receive`: one `recvmsg` with UDP_GRO brings up to 64 datagrams; each is opened
//! where it lies, checked, and put together with its neighbours; one `writev` hands a superpacket to the kernel.
//!
//! A worker owns its queue, its sockets, its buffers and the inbound SAs that were installed on it. Others reach it
//! through [`WorkersHandle`]: commands wait in a queue that is looked at on every wake-up. Nothing here allocates,
//! locks or logs per packet.

mod event_loop;
mod handle;
mod mailbox;
mod readiness;
mod receive;
mod transmit;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use adit_proto::drop_reason::DropReason;
use adit_proto::dtls::record::ContentType;
use adit_proto::esp::sa::Inbound;
use adit_proto::esp::spi::Spi;
use adit_proto::packet::IpPacket;
use tokio::sync::mpsc;

use crate::carrier::counters::Counters;
use crate::carrier::{Carried, Origin};
use crate::cipher::Cipher;
use crate::tun::PacketQueue;
use crate::udp::{DatagramSocket, EspSocket};

pub use event_loop::Worker;
pub use handle::WorkersHandle;

use mailbox::Mailbox;

/// The most sockets that one worker may have, so that waiting for all of them needs no allocation.
pub const MAX_SOCKETS: usize = 30;

/// What the owner of the workers decides: where packets go, and which may pass.
pub trait Routing: Send + Sync + 'static {
    /// What the owner knows of a session.
    type Session: Carried;

    /// "Too big" answers are limited in rate. Of this limit one source of packets gets at most one of so many parts, so
    /// that where there are many sources none of them uses it up for all others.
    const TOO_BIG_PARTS: u32 = 4;

    /// The session to which a packet from the TUN device goes.
    fn session_of(&self, packet: &IpPacket) -> Option<Arc<Self::Session>>;

    /// Whether a packet that came from a session may go to the TUN device.
    ///
    /// # Errors
    /// Why it must be dropped.
    fn admit(&self, session: &Self::Session, packet: &IpPacket) -> Result<(), DropReason>;

    /// Whether packets from the TUN device of so many bytes in all may go to a session.
    ///
    /// # Errors
    /// Why they must be dropped.
    fn admit_to(&self, _session: &Self::Session, _bytes: usize) -> Result<(), DropReason> {
        Ok(())
    }

    /// Hears of a packet that [`Self::admit`] refused, and may tell its sender, at a bounded rate.
    fn refused(&self, _session: &Self::Session, _packet: &[u8], _reason: DropReason) {}

    /// Drops of packets that belong to no session.
    fn counters(&self) -> &Counters;
}

/// How workers work. `docs/benchmarks.md` has the measurements behind the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often a worker that has just moved superpackets yields to other threads before it sleeps.
    pub yields: u32,
}

impl Default for Settings {
    /// No yields. Where client, gateway and other programs share few cores, yielding costs throughput and round-trip
    /// time: a thread that yields has to wait for its next turn, while the kernel runs a thread that slept and is woken
    /// soon.
    fn default() -> Self {
        Self { yields: 0 }
    }
}

/// Authenticated packets of one SA that the control side has to hear of: each with a probe, and all while the path is
/// not proven or while they come from another address than the proven one. One message makes at most one report without
/// a probe.
pub type Report = adit_proto::esp::session::Report<Origin>;

/// An inbound SA, and the session that its packets belong to.
pub struct Installation<S> {
    /// The SA; its index names the worker.
    pub sa: Inbound<Cipher>,
    /// The epoch of its keys.
    pub epoch: u32,
    /// The session that its packets belong to.
    pub session: Arc<S>,
    /// Where reports go. The channel is bounded; a report that finds it full is dropped.
    pub reports: mpsc::Sender<Report>,
}

/// An association of DTLS whose records a worker opens, and the session that its packets belong to.
pub struct Association<S> {
    /// Where its records come from, by which it is found.
    pub peer: SocketAddr,
    /// What opens them.
    pub sa: adit_proto::dtls::sa::Inbound<Cipher>,
    /// The session that its packets belong to.
    pub session: Arc<S>,
    /// Counts the records that were opened.
    pub records: Arc<AtomicU64>,
    /// Where reports go. The channel is bounded; a report that finds it full is dropped.
    pub reports: mpsc::Sender<RecordReport>,
}

/// What the control side has to hear of an association's records.
#[derive(Debug, PartialEq, Eq)]
pub enum RecordReport {
    /// The first ones came, or some while packets go to the peer another way.
    Heard,
    /// What a record held that is no packet.
    Opened {
        /// Of which type the record was.
        content: ContentType,
        /// What it held.
        body: Vec<u8>,
    },
}

/// A datagram of DTLS that is of no association of its worker.
#[derive(Debug, PartialEq, Eq)]
pub struct Stray {
    /// Who sent it, if that is true.
    pub from: SocketAddr,
    /// Where it arrived.
    pub origin: Origin,
    /// The datagram.
    pub datagram: Vec<u8>,
}

/// What the control side of sessions with DTLS needs of the packet path besides.
pub trait AssociationPlane<S>: DataPlane<S> {
    /// Gives an association to the worker to which the kernel steers its records. It takes the place of one with the
    /// same peer.
    fn associate(&self, association: Association<S>);

    /// Drops the association with a peer that counts its records in `records`, if it is still there.
    fn dissociate(&self, peer: SocketAddr, records: &Arc<AtomicU64>);

    /// Has workers hand over datagrams of DTLS that are of no association. The channel is bounded; what finds it full
    /// is dropped.
    fn hand_strays_to(&self, strays: &mpsc::Sender<Stray>);
}

/// What the control side of a session needs of the packet path.
pub trait DataPlane<S>: Send + Sync {
    /// Chooses an SPI for an inbound SA: on the worker of `beside`, so that a session's packets stay in order when its
    /// keys are replaced, or on the one that has the fewest. It stays taken until [`Self::retire`].
    fn claim_spi(&self, beside: Option<Spi>) -> Option<Spi>;

    /// Gives an inbound SA to its worker, which opens its packets from now on.
    fn install(&self, installation: Installation<S>);

    /// Drops an inbound SA, if there is one, and gives its SPI back.
    fn retire(&self, spi: Spi);

    /// Where datagrams to `to` leave, before any came from there. If no socket reaches `to`, sending from there fails
    /// with `NotConnected`.
    fn origin(&self, to: SocketAddr) -> Origin;

    /// Sends one datagram, with these ECN bits. Never waits.
    ///
    /// # Errors
    /// What the system says; `EMSGSIZE` if it is larger than the path takes.
    fn send(&self, origin: Origin, to: SocketAddr, datagram: &[u8], ecn: u8) -> io::Result<()>;
}

/// The running workers; dropping them stops and joins their threads.
pub struct Workers<S, D = EspSocket> {
    handle: Arc<WorkersHandle<S, D>>,
    mailboxes: Vec<Arc<Mailbox<S>>>,
    threads: Vec<JoinHandle<()>>,
    failures: mpsc::Receiver<io::Error>,
}

impl<S: Carried, D: DatagramSocket + AsFd + Send + Sync + 'static> Workers<S, D> {
    /// Starts one worker for each of `queues`, with the sockets at the same position of `sockets`: the same number for
    /// each, none where there is no ESP.
    ///
    /// A worker sleeps in epoll_wait(2) until one of the descriptors has something to read. None of them may block:
    /// reading one says `WouldBlock` when it has nothing.
    ///
    /// # Errors
    /// `InvalidInput` for more than [`MAX_SOCKETS`] on one worker; else the system gives no thread or no event
    /// descriptor.
    ///
    /// # Panics
    /// If there are not as many lists of sockets as queues.
    pub fn start<R, Q>(
        routing: &Arc<R>,
        queues: &[Arc<Q>],
        sockets: Vec<Vec<Arc<D>>>,
        settings: Settings,
    ) -> io::Result<Self>
    where
        R: Routing<Session = S>,
        Q: PacketQueue + AsFd + Send + Sync + 'static,
    {
        assert_eq!(queues.len(), sockets.len(), "each worker has one queue and its own sockets");
        if sockets.iter().any(|sockets| sockets.len() > MAX_SOCKETS) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mailboxes = queues.iter().map(|_| Mailbox::new().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
        // The sockets of all workers have the same addresses, so the control side uses those of the first one.
        let first_sockets = sockets.first().cloned().unwrap_or_default();
        let handle = Arc::new(WorkersHandle::new(mailboxes.clone(), first_sockets));
        let (failed, failures) = mpsc::channel(queues.len().max(1));
        let mut workers = Self { handle, mailboxes, threads: Vec::new(), failures };
        for (number, (queue, sockets)) in queues.iter().zip(sockets).enumerate() {
            let mailbox = Arc::clone(&workers.mailboxes[number]);
            let worker = Worker::new(Arc::clone(routing), Arc::clone(queue), sockets, mailbox, settings);
            let failed = failed.clone();
            let thread = std::thread::Builder::new().name(format!("adit-worker-{number}")).spawn(move || {
                // A panic of one worker is told like a failure, so that the tunnel ends: one of which a part stands
                // still is worse than none.
                let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
                if let Err(error) = ended.unwrap_or_else(|_panic| Err(io::Error::other("a worker panicked"))) {
                    // Whoever waits hears of the first failure; the others have the same cause.
                    failed.try_send(error).ok();
                }
            })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// How the control side reaches the workers.
    pub fn handle(&self) -> &Arc<WorkersHandle<S, D>> {
        &self.handle
    }

    /// Waits until a worker failed, which it does when the TUN device is deleted, or if it panics; returns why.
    /// Cancel-safe.
    pub async fn failed(&mut self) -> io::Error {
        self.failures.recv().await.unwrap_or_else(|| io::Error::other("the workers have ended"))
    }
}

impl<S, D> Drop for Workers<S, D> {
    fn drop(&mut self) {
        for mailbox in &self.mailboxes {
            mailbox.stop();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;
