//! How the packets of a session travel: in datagrams of their own while those pass, by ESP or DTLS, else by the
//! connection the session was opened on.
//!
//! [`Carriers`] is what the packet path and the control side of one session share. The control side sets and clears the
//! route of datagrams; workers read it once per batch and say, at most once per proof of the path, that they used it.

pub mod counters;
pub mod cstp;
pub mod dtls;
pub mod esp;
pub mod following;
mod outbox;
pub mod quic;
mod route;
pub mod stream;
pub mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use adit_proto::esp::session::Hints;
use adit_proto::sealing::suite::Suite;
use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;

use crate::carrier::counters::Counters;
use crate::packet_buffer::PacketBuffer;

pub(crate) use route::SealPackets;
pub use route::{DatagramRoute, Origin, OutboundSa};

/// A carrier that is part of a connection and there as long as that, such as `quic`. Packets are handed over in
/// batches.
pub trait Carrier: Send + Sync {
    /// The carrier's name, such as `quic`.
    fn name(&self) -> &'static str;
    /// Largest packet it takes now, in bytes.
    fn mtu(&self) -> u16;
    /// Whether it takes packets of `len` bytes. Cheaper than [`Self::mtu`] where it does.
    ///
    /// # Errors
    /// The largest packet it takes, in bytes.
    fn takes(&self, len: usize) -> Result<(), u16> {
        let mtu = self.mtu();
        if len > usize::from(mtu) { Err(mtu) } else { Ok(()) }
    }
    /// The traffic of the session it belongs to, over all carriers.
    fn counters(&self) -> &Arc<Counters>;
    /// Sends the packets, emptying `packets`, and counts each as sent or dropped, now or later. Only packets that are
    /// still on their way when the session ends are not counted. Never waits.
    fn send(&self, packets: &mut Vec<PacketBuffer>);
}

/// A session as the packet path sees it: something that has carriers. The session's owner keeps whatever else it needs
/// in the same type.
pub trait Carried: Send + Sync + 'static {
    /// The carriers of the session.
    fn carriers(&self) -> &Carriers;
}

/// The carriers of one session and its traffic.
pub struct Carriers {
    connection: Arc<dyn Carrier>,
    counters: Arc<Counters>,
    route: ArcSwapOption<DatagramRoute>,
    epoch: AtomicU32,
    closed: AtomicBool,
    sent: AtomicBool,
    doubt: AtomicBool,
    /// Bytes of the smallest datagram that was refused; 0 for none.
    too_big: AtomicU16,
    rekey: AtomicBool,
    hint: Notify,
}

impl Carriers {
    /// Starts with the carrier of the connection alone.
    pub fn new(connection: Arc<dyn Carrier>) -> Self {
        let no = AtomicBool::default;
        Self {
            counters: Arc::clone(connection.counters()),
            connection,
            route: ArcSwapOption::empty(),
            epoch: AtomicU32::new(0),
            closed: no(),
            sent: no(),
            doubt: no(),
            too_big: AtomicU16::new(0),
            rekey: no(),
            hint: Notify::new(),
        }
    }

    /// The carrier in use: `esp`, `dtls`, or the connection's.
    pub fn name(&self) -> &'static str {
        self.route.load().as_ref().map_or_else(|| self.connection.name(), |route| route.sa.name())
    }

    /// The cipher, while datagrams are in use.
    pub fn suite(&self) -> Option<Suite> {
        self.route.load().as_ref().map(|route| route.sa.suite())
    }

    /// How often the keys of `esp` were replaced.
    pub fn rekeys(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Packets are sealed with the keys of this epoch from now on.
    pub fn note_epoch(&self, epoch: u32) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Largest packet that the carrier in use takes, in bytes.
    pub fn mtu(&self) -> u16 {
        self.route.load().as_ref().map_or_else(|| self.connection.mtu(), |route| route.mtu)
    }

    /// The session's traffic, over all carriers.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The carrier of the connection.
    pub fn connection(&self) -> &dyn Carrier {
        &*self.connection
    }

    /// How to send datagrams now; `None` while they do not pass.
    pub fn route(&self) -> Guard<Option<Arc<DatagramRoute>>> {
        self.route.load()
    }

    /// Has packets sent by this route from now on, or by the connection again. Does nothing once the session is
    /// closed.
    pub fn set_route(&self, route: Option<DatagramRoute>) {
        self.route.store(route.filter(|_| !self.is_closed()).map(Arc::new));
        if self.is_closed() {
            self.route.store(None);
        }
    }

    /// Ends the session: from now on nothing passes in datagrams, in either direction.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.route.store(None);
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Notes that packets were sent in datagrams. After the first call that costs one load until [`Self::forget_sent`].
    pub fn note_sent(&self) {
        self.note(&self.sent);
    }

    /// Notes that datagrams may not pass any more: the peer's packets come another way, or the system reports an error.
    pub fn note_doubt(&self) {
        if self.route.load().is_some() {
            self.note(&self.doubt);
        }
    }

    /// Notes that the system refused a datagram of that many bytes as larger than the path takes.
    pub fn note_too_big(&self, datagram: u16) {
        let known = self.too_big.load(Ordering::Relaxed);
        if known == 0 || datagram < known {
            // If two workers note a size at the same moment, either may stay: both are too large.
            self.too_big.store(datagram, Ordering::Release);
            self.hint.notify_one();
        }
    }

    /// Notes that an inbound SA refused so much that new keys are wanted.
    pub fn note_rekey(&self) {
        self.note(&self.rekey);
    }

    fn note(&self, flag: &AtomicBool) {
        if !flag.load(Ordering::Relaxed) {
            flag.store(true, Ordering::Release);
            self.hint.notify_one();
        }
    }

    /// Waits until workers noticed something, and takes all hints. Only `sent` stays until [`Self::forget_sent`].
    /// Cancel-safe.
    pub async fn hinted(&self) -> Hints {
        self.hint.notified().await;
        Hints {
            sent: self.sent.load(Ordering::Acquire),
            doubt: self.doubt.swap(false, Ordering::AcqRel),
            too_big: Some(self.too_big.swap(0, Ordering::AcqRel)).filter(|&datagram| datagram > 0),
            rekey: self.rekey.swap(false, Ordering::AcqRel),
        }
    }

    /// Forgets that packets were sent, because the path was proven since. The next one that is sent is a hint again.
    pub fn forget_sent(&self) {
        self.sent.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::esp::spi::Spi;
    use futures::FutureExt as _;

    use super::*;
    use crate::testing::world::{MTU, route, sas, session};

    fn esp_route() -> DatagramRoute {
        let [near, far] = [1, 2].map(|random| Spi::new(0, random).unwrap());
        let to = "192.0.2.1:443".parse().unwrap();
        DatagramRoute { mtu: 1400, ..route(sas(near, far, true).near.0, to, true) }
    }

    /// What there is to know now, without waiting.
    fn hints(carriers: &Carriers) -> Option<Hints> {
        carriers.hinted().now_or_never()
    }

    #[test]
    fn connection_carries_what_esp_does_not() {
        let (session, _keeper) = session();
        let carriers = &session.carriers;
        let seen = || (carriers.name(), carriers.mtu(), carriers.suite());
        assert_eq!(seen(), ("quic", MTU, None));
        carriers.set_route(Some(esp_route()));
        assert_eq!(seen(), ("esp", 1400, Some(Suite::Aes256Gcm)));
        carriers.note_epoch(3);
        assert_eq!(carriers.rekeys(), 3);
        carriers.set_route(None);
        assert_eq!(seen(), ("quic", MTU, None));
    }

    #[test]
    fn closed_session_gets_no_route_any_more() {
        let (session, _keeper) = session();
        session.carriers.set_route(Some(esp_route()));
        session.carriers.close();
        assert!(session.carriers.is_closed() && session.carriers.route().is_none());
        session.carriers.set_route(Some(esp_route()));
        assert!(session.carriers.route().is_none());
    }

    #[test]
    fn packets_sent_are_told_once_per_proof() {
        let (session, _keeper) = session();
        let carriers = &session.carriers;
        assert_eq!(hints(carriers), None);
        for _ in 0..2 {
            carriers.note_sent();
            carriers.note_sent();
            assert_eq!(hints(carriers), Some(Hints { sent: true, ..Hints::default() }));
            carriers.note_sent();
            assert_eq!(hints(carriers), None);
            carriers.forget_sent();
            assert_eq!(hints(carriers), None);
        }
    }

    #[test]
    fn hints_are_taken_by_who_hears_them() {
        let (session, _keeper) = session();
        let carriers = &session.carriers;
        carriers.note_doubt();
        assert_eq!(hints(carriers), None, "nothing to doubt while esp is not in use");
        carriers.set_route(Some(esp_route()));
        for _ in 0..2 {
            carriers.note_doubt();
            carriers.note_too_big(1400);
            carriers.note_rekey();
            assert_eq!(hints(carriers), Some(Hints { sent: false, doubt: true, too_big: Some(1400), rekey: true }));
            assert_eq!(hints(carriers), None);
        }
    }
}
