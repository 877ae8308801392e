//! One end of one session, of either kind: its machines and its worker, which opens what comes at once.

mod esp;
mod records;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::capsule::EspCapsule;
use adit_proto::esp::probe::Probe;
use adit_proto::esp::session::Hints;
use adit_proto::role::Role;

use crate::promises::{Generation, Kept};

pub(crate) use esp::EspTunnel;
pub(crate) use records::{RecordTerms, RecordTunnel};

/// Which socket of its host a datagram uses.
pub(crate) type Origin = u32;

/// How long an end that is closed is looked at whether it still sends something.
const AFTERMATH: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(70), Duration::from_secs(7200)];

/// A datagram that leaves.
pub(crate) struct Outgoing {
    pub(crate) to: SocketAddr,
    pub(crate) origin: Option<Origin>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) marked: bool,
    /// The packet in it; `None` if it has none.
    pub(crate) packet: Option<usize>,
}

/// What an end makes of a datagram.
pub(crate) enum Outcome {
    /// It was sealed, and this is in it.
    Opened {
        probe: Option<Probe>,
        packet: Option<Vec<u8>>,
        /// Whether nothing that was sealed later came before.
        newest: bool,
    },
    /// It is dropped.
    Refused(DropReason),
    /// It is part of a handshake, and proves nothing by itself.
    Unsealed,
    /// The same, but a cookie in it shows that its sender gets what is sent to that address.
    Cookie,
}

/// What became of a packet that was to go in a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendOutcome {
    Sent,
    /// The connection has to take it.
    NotInDatagrams,
}

/// How packets go in datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) to: SocketAddr,
    pub(crate) origin: Option<Origin>,
    /// The largest packet, in bytes.
    pub(crate) mtu: u16,
}

/// Something that an end tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Up,
    Moved,
    Down,
    NewKeys,
    Narrow,
    Other,
}

/// How much time an end takes for what it promises.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How long packets may go where nothing arrives.
    pub(crate) hole: Duration,
    /// How long packets may get lost because they are too large.
    pub(crate) large: Duration,
    /// How long a network has been good when packets must go in datagrams.
    pub(crate) calm: Duration,
}

/// One end of one session.
pub(crate) trait Tunnel {
    fn role(&self) -> Role;

    fn generation(&self) -> Generation;

    fn patience(&self) -> Patience;

    /// Lets the machines see how late it is.
    fn handle_timeout(&mut self, now: Instant) -> Kept;

    fn handle_hints(&mut self, hints: Hints, now: Instant) -> Kept;

    /// This end's own address or network changed.
    fn handle_rebind(&mut self, now: Instant) -> Kept;

    fn handle_capsule(&mut self, capsule: EspCapsule, now: Instant) -> Kept;

    /// Sends a packet as a worker does.
    fn send_packet(&mut self, content: &[u8], packet: usize, marked: bool, now: Instant) -> Kept<SendOutcome>;

    /// Leaves out so many numbers that all datagrams before are too old for the peer, as a great loss would.
    fn skip_numbers(&mut self) -> Kept;

    /// Opens a datagram and tells the machines of it, as a worker does.
    fn receive(&mut self, from: SocketAddr, origin: Origin, datagram: Vec<u8>, now: Instant) -> Kept<Outcome>;

    /// When [`Self::handle_timeout`] is due.
    fn poll_timeout(&self, now: Instant) -> Option<Instant>;

    fn poll_capsule(&mut self) -> Option<EspCapsule>;

    /// What leaves.
    fn outgoing(&mut self) -> &mut Vec<Outgoing>;

    /// What was told.
    fn told(&mut self) -> &mut Vec<Told>;

    /// Whether the gateway is to be asked on the connection whether it is still there.
    fn take_unanswered(&mut self) -> bool;

    /// Larger datagrams are refused by this end's system.
    fn set_interface(&mut self, largest: usize);

    /// How packets go in datagrams; `None` while they go by the connection.
    fn way(&self) -> Option<Way>;

    /// Whether the path takes no datagrams that are large enough, as far as this end knows.
    fn is_narrow(&self) -> bool;

    /// Since when the keys in use are in use, if they are replaced.
    fn keys_since(&self) -> Option<Instant>;

    /// Whether it is right to refuse a datagram that the peer sealed and that never came before.
    fn may_refuse(&self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool;

    /// What holds for it after each step.
    fn check(&self, now: Instant) -> Kept;

    /// Ends the session; then nothing is sent or told, whatever its owner still calls.
    fn close(self: Box<Self>, now: Instant) -> Kept;
}
