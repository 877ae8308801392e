//! The data channel: how sealed packets lie in datagrams, by whose keys, and what else comes where packets do.
//!
//! ```text
//! v2      head (1)  peer id (3)  number (4)  tag (16)  ciphertext
//!         associated data = the first 8 bytes         nonce = number (4) ‖ IV (8)
//! epoch   head (1)  peer id (3)  epoch (2)  counter (6)  ciphertext  tag (16)
//!         associated data = the first 12 bytes        nonce = IV (12) ⊕ (epoch ‖ counter ‖ zeros (4))
//! ```
//!
//! | room | holds |
//! | --- | --- |
//! | [`keys`] | from the TLS exporter to the keys of both directions, and of each epoch |
//! | [`outbound`], [`inbound`] | the two halves that seal and open, in place |
//!
//! Numbers and counters begin with 1. The head names the keys ([`super::wire::KeyId`]), the peer id the session: a
//! datagram may come from anywhere, and once it is opened, its sender has moved there.

pub mod inbound;
pub mod keys;
pub mod outbound;

use super::negotiation::Format;
use super::wire::{Head, KeyId, Opcode};
use crate::drop_reason::DropReason;
use crate::sealing::aead::TAG_LEN;

/// Bytes of head and peer id.
pub const PREFACE_LEN: usize = 4;

/// Bytes of a number of data v2.
const NUMBER_LEN: usize = 4;

/// Bytes of epoch and counter.
const EPOCH_NUMBER_LEN: usize = 8;

/// Bits of a counter within an epoch.
const COUNTER_BITS: u32 = 48;

/// What a sender of nothing else lets be heard, sealed like a packet.
pub const PING: [u8; 16] = *b"\x2a\x18\x7b\xf3\x64\x1e\xb4\xcb\x07\xed\x2d\x0a\x98\x1f\xc7\x48";

/// What messages between programs begin with, in the place of packets.
const PROGRAM: [u8; 16] = *b"\x28\x7f\x34\x6b\xd4\xef\x7a\x81\x2d\x56\xb8\xd3\xaf\xc5\x45\x9c";

/// The message with which a client says that it leaves, unless it has said EXIT in the control channel.
pub const EXIT: [u8; 17] = *b"\x28\x7f\x34\x6b\xd4\xef\x7a\x81\x2d\x56\xb8\xd3\xaf\xc5\x45\x9c\x06";

/// What a datagram held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// A packet, or something that says that it is one.
    Packet,
    /// A sign of life.
    Ping,
    /// The peer leaves.
    Exit,
    /// Another message between programs: nothing here has a use for one.
    Program,
}

impl Content {
    /// What a plaintext is. No packet begins as [`PING`] or a message between programs does: the version of IP would be
    /// 2.
    pub fn of(plaintext: &[u8]) -> Self {
        match plaintext {
            _ if plaintext == PING => Self::Ping,
            _ if plaintext.starts_with(&EXIT) => Self::Exit,
            _ if plaintext.starts_with(&PROGRAM) => Self::Program,
            _ => Self::Packet,
        }
    }
}

/// What a datagram begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Preface {
    /// Whose keys sealed it.
    pub key: KeyId,
    /// Whose session it belongs to; 24 bits.
    pub peer_id: u32,
}

impl Preface {
    /// Reads it.
    ///
    /// # Errors
    /// [`DropReason::Truncated`], or [`DropReason::UnknownSpi`] if it is no data that names its session.
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        let &[_, a, b, c] = datagram.first_chunk::<PREFACE_LEN>().ok_or(DropReason::Truncated)?;
        match Head::parse(datagram)? {
            Head { opcode: Opcode::DataV2, key } => Ok(Self { key, peer_id: u32::from_be_bytes([0, a, b, c]) }),
            Head { opcode: Opcode::DataV1 | Opcode::Ack | Opcode::Message(_), .. } => Err(DropReason::UnknownSpi),
        }
    }

    /// The bytes; those of a peer id above 24 bits are left out.
    pub const fn encode(self) -> [u8; PREFACE_LEN] {
        let [_, a, b, c] = self.peer_id.to_be_bytes();
        [Head { opcode: Opcode::DataV2, key: self.key }.encode(), a, b, c]
    }
}

impl Format {
    /// Bytes in front of the ciphertext.
    pub const fn prefix_len(self) -> usize {
        match self {
            Self::V2 => PREFACE_LEN + NUMBER_LEN + TAG_LEN,
            Self::Epoch => PREFACE_LEN + EPOCH_NUMBER_LEN,
        }
    }

    /// Bytes behind the ciphertext.
    pub const fn suffix_len(self) -> usize {
        match self {
            Self::V2 => 0,
            Self::Epoch => TAG_LEN,
        }
    }

    /// Bytes of a datagram with a packet of that many.
    pub const fn sealed_len(self, plaintext: usize) -> usize {
        self.prefix_len().saturating_add(plaintext).saturating_add(self.suffix_len())
    }
}

#[cfg(test)]
mod tests;
