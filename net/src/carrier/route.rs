//! How packets travel in datagrams of their own: sealed by a worker, one packet in each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use adit_proto::anyconnect::record;
use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{self, NextHeader};
use adit_proto::packet::ecn;
use adit_proto::sealing::suite::Suite;
use adit_proto::{dtls, esp};

use crate::cipher::Cipher;

/// From where a datagram leaves this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The position among a worker's sockets.
    pub socket: usize,
    /// The local address, where the socket has several.
    pub local: Option<IpAddr>,
}

/// Everything needed to send a packet in a datagram of its own.
pub struct DatagramRoute {
    /// What seals it.
    pub sa: OutboundSa,
    /// The peer's validated address.
    pub to: SocketAddr,
    /// Where it leaves.
    pub origin: Origin,
    /// Largest packet that fits a datagram on this path, in bytes.
    pub mtu: u16,
    /// Whether the peer takes packets with partial checksums.
    pub vouched: bool,
    /// Whether datagrams bear the ECN marks of their packets.
    pub marked: bool,
}

/// What seals packets, in one of the formats.
pub enum OutboundSa {
    /// ESP.
    Esp(Arc<esp::sa::Outbound<Cipher>>),
    /// Records of DTLS as AnyConnect clients want them.
    Dtls(Arc<dtls::sa::Outbound<Cipher>>),
}

impl OutboundSa {
    /// The carrier's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Esp(_) => "esp",
            Self::Dtls(_) => "dtls",
        }
    }

    /// The cipher in use.
    pub fn suite(&self) -> Suite {
        match self {
            Self::Esp(sa) => sa.suite(),
            Self::Dtls(sa) => sa.suite().aead(),
        }
    }
}

impl DatagramRoute {
    /// Returns the ECN bits of the datagram that carries a packet.
    #[inline]
    pub fn ecn_of(&self, packet: &[u8]) -> u8 {
        if self.marked { ecn::of_packet(packet) } else { ecn::NOT_ECT }
    }

    /// Returns how many bytes stand in front of a packet in its datagram.
    #[inline]
    pub fn prefix_len(&self) -> usize {
        match &self.sa {
            OutboundSa::Esp(_) => packet::PREFIX_LEN,
            OutboundSa::Dtls(sa) => sa.suite().prefix_len() + record::HEAD_LEN,
        }
    }

    /// Returns how many bytes the datagram of a packet of `len` bytes has.
    #[inline]
    pub fn sealed_len(&self, len: usize) -> usize {
        match &self.sa {
            OutboundSa::Esp(_) => packet::sealed_len(len),
            OutboundSa::Dtls(sa) => sa.suite().sealed_len(record::HEAD_LEN + len),
        }
    }

    /// Seals the packet of `len` bytes that stands in `slot` behind [`Self::prefix_len`] bytes, in place, and returns
    /// the length of its datagram.
    ///
    /// # Errors
    /// Why it must be dropped.
    #[inline]
    pub fn seal(&self, slot: &mut [u8], len: usize, next_header: NextHeader) -> Result<usize, DropReason> {
        match &self.sa {
            OutboundSa::Esp(sa) => sa.reserve(1, len)?.seal_packet(slot, len, next_header),
            OutboundSa::Dtls(sa) => sa.reserve(1, record::HEAD_LEN + len)?.seal_packet(slot, len, next_header),
        }
    }
}

/// Numbers of one SA, with which packets of one call are sealed: the format is looked at once for all of them.
pub(crate) trait SealPackets {
    /// As [`DatagramRoute::seal`].
    fn seal_packet(&mut self, slot: &mut [u8], len: usize, next_header: NextHeader) -> Result<usize, DropReason>;
}

impl SealPackets for esp::sa::Reservation<'_, Cipher> {
    #[inline]
    fn seal_packet(&mut self, slot: &mut [u8], len: usize, next_header: NextHeader) -> Result<usize, DropReason> {
        self.seal(slot, len, next_header)
    }
}

impl SealPackets for dtls::sa::Reservation<'_, Cipher> {
    #[inline]
    fn seal_packet(&mut self, slot: &mut [u8], len: usize, _next_header: NextHeader) -> Result<usize, DropReason> {
        record::seal_packet(self, slot, len)
    }
}
