//! Carriers of byte streams: inner packets in frames on TLS over TCP, for networks that pass no UDP.
//!
//! A [`Framing`] says how packets and all else lie in the stream. Workers leave packets with a [`StreamCarrier`], as
//! with every carrier; one task, [`Pump`], owns socket and TLS of the connection. It seals many packets into one record
//! and reads as much as has come, so that a packet costs neither a call of the system nor a record of its own.
//!
//! TCP would make a long queue in front of a slow path. So little waits in the socket (`UNSENT`), and nothing longer
//! than `BOUNDS` says in front of it: packets are dropped rather than late, which tells their senders to slow down.

mod pump;
mod socket;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use adit_proto::http::fault::Fault;
use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::carrier::Carrier;
use crate::carrier::counters::Counters;
use crate::carrier::outbox::{Bounds, Outbox};
use crate::packet_buffer::PacketBuffer;

pub use pump::Pump;
pub use socket::open;

/// No packet waits longer than that in front of the socket.
const BOUNDS: Bounds = Bounds { few: 0, long: Duration::from_millis(100) };
/// How often it is looked whether what was sent has arrived.
const LOOK: Duration = Duration::from_millis(2);

/// How packets and all else lie in a stream.
pub trait Framing: Send + 'static {
    /// The carrier's name, such as `tls`.
    const NAME: &'static str;
    /// Whether every packet has a TLS record of its own.
    const IS_ALONE: bool;

    /// Puts in front of a packet what makes it a frame.
    fn frame(packet: PacketBuffer) -> Bytes;

    /// Length of the packet in a frame of so many bytes.
    fn packet_len(frame: usize) -> usize;

    /// Takes what is whole off the front of `stream`: packets are appended to `packets`, all else, in whatever form its
    /// reader knows it, to `others`. The beginning of a packet may stay in `stream`, which has room for it.
    ///
    /// # Errors
    /// What is wrong with the stream, which ends.
    fn read(&mut self, stream: &mut BytesMut, packets: &mut Vec<Bytes>, others: &mut Vec<u8>) -> Result<(), Fault>;

    /// Whether the stream may end where it is, with `rest` left in it.
    fn may_end(&self, rest: &[u8]) -> bool;
}

/// The carrier of one stream, shared by the workers, the control side and the pump. The stream may go on over another
/// connection, which has a pump of its own.
pub struct StreamCarrier<F> {
    remote: SocketAddr,
    mtu: u16,
    counters: Arc<Counters>,
    outbox: Outbox,
    control: Mutex<Control>,
    /// Told when all of [`Control::queued`] has been written.
    written: Notify,
    /// Told by [`Self::close`], for a pump whose socket is full.
    closing: Notify,
    /// The socket of the last pump, while that has it.
    socket: Mutex<Weak<TcpStream>>,
    /// The number of the pump that sends; those before it only read any more.
    sender: AtomicU32,
    framing: PhantomData<fn() -> F>,
}

/// What the other end's system has acknowledged of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Bytes, over all of the connection.
    pub bytes: u64,
    /// Whether that is all that was sent.
    pub is_all: bool,
    /// The smoothed round-trip time as TCP measures it.
    pub rtt: Duration,
}

/// What the control side has to say.
#[derive(Default)]
struct Control {
    /// Whole frames that are no packets, which go ahead of the packets that wait.
    queued: Vec<u8>,
    /// Whether some of it is on its way to the socket.
    is_in_flight: bool,
    /// Nothing more is sent after that.
    is_closing: bool,
    /// The pump is gone.
    is_over: bool,
}

impl<F: Framing> StreamCarrier<F> {
    /// The carrier of a connection with `remote`, for packets of at most `mtu` bytes. What it is given waits until its
    /// [`Pump`] runs.
    #[must_use]
    pub fn new(remote: SocketAddr, mtu: u16) -> Arc<Self> {
        let outbox = Outbox::new(BOUNDS);
        outbox.hold();
        Arc::new(Self {
            remote,
            mtu,
            counters: Arc::default(),
            outbox,
            control: Mutex::default(),
            written: Notify::new(),
            closing: Notify::new(),
            socket: Mutex::default(),
            sender: AtomicU32::new(0),
            framing: PhantomData,
        })
    }

    /// The other end's address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The round-trip time of the connection as TCP measures it.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.acknowledged().map(|acknowledged| acknowledged.rtt)
    }

    /// What the other end's system has acknowledged; `None` once nobody moves anything any more.
    #[must_use]
    pub fn acknowledged(&self) -> Option<Acknowledged> {
        self.socket().and_then(|socket| socket::acknowledged(&socket))
    }

    /// Waits until packets were taken to be sent since this last returned. Cancel-safe.
    pub async fn sent(&self) {
        self.outbox.taken().await;
    }

    fn socket(&self) -> Option<Arc<TcpStream>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Has packets, and what is queued, wait until another connection takes over. The present one only reads any more.
    pub fn pause(&self) {
        self.outbox.hold();
        self.sender.fetch_add(1, Ordering::Relaxed);
        self.outbox.wake();
    }

    /// Waits until the other end has all that was sent before [`Self::pause`], or for so long.
    pub async fn delivered(&self, patience: Duration) {
        let delivered = async {
            loop {
                // The pump has its turn meanwhile.
                sleep(LOOK).await;
                if self.acknowledged().is_none_or(|acknowledged| acknowledged.is_all) {
                    break;
                }
            }
        };
        let _in_time = timeout(patience, delivered).await;
    }

    /// Has the pump of this socket send from now on, and returns its number.
    fn take_over(&self, socket: &Arc<TcpStream>) -> u32 {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(socket);
        self.control().is_over = false;
        let number = self.sender.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.outbox.release(Instant::now());
        number
    }

    /// Whether the pump with this number sends.
    fn is_sender(&self, number: u32) -> bool {
        self.sender.load(Ordering::Relaxed) == number
    }

    /// Queues whole frames that are no packets. Whoever queues sees to it that this is bounded.
    pub fn queue(&self, frames: &[u8]) {
        self.control().queued.extend_from_slice(frames);
        self.outbox.wake();
    }

    /// Whether nothing that was queued waits to be written.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        let control = self.control();
        control.queued.is_empty() && !control.is_in_flight || control.is_over
    }

    /// Waits until all that was queued has been written, or never can be. Cancel-safe.
    pub async fn flush(&self) {
        while !self.is_flushed() {
            let written = self.written.notified();
            if !self.is_flushed() {
                written.await;
            }
        }
    }

    /// Ends the connection once what was queued has been written, or a second later where the other end does not read.
    /// Packets that wait are not sent any more.
    pub fn close(&self) {
        self.control().is_closing = true;
        self.outbox.wake();
        self.closing.notify_one();
    }

    /// Whether the connection is being closed, and whether all that was queued is on its way.
    fn closing_state(&self) -> (bool, bool) {
        let control = self.control();
        (control.is_closing, control.queued.is_empty())
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Framing> Carrier for StreamCarrier<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What waits too long is dropped, the oldest first.
    fn send(&self, packets: &mut Vec<PacketBuffer>) {
        let dropped = self.outbox.put(packets.drain(..).map(F::frame), Instant::now());
        self.counters.count_drops(dropped, DropReason::QueueFull);
    }
}
