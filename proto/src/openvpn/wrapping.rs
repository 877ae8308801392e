//! What hides packets of the control channel from strangers, and keeps theirs out.
//!
//! ```text
//! plain      preface (9)  body
//! tls-auth   preface (9)  MAC (20, 32 or 64)  stamp (8)  body
//! tls-crypt  preface (9)  stamp (8)  tag (32)  sealed body
//!
//! stamp    = counter (4)  Unix time (4)
//! MAC      = HMAC(key, stamp ‖ preface ‖ body)
//! tag      = HMAC-SHA-256(key, preface ‖ stamp ‖ body)
//! sealed   = AES-256-CTR(key, first block = the first 16 bytes of the tag, body)
//! ```
//!
//! Preface and body are those of [`super::wire`]. Under tls-crypt-v2 each client has a key of its own, which it brings
//! along, wrapped for the server ([`super::client_key`]): it stands unsealed behind the first packets. From the first
//! renegotiation on, both ends may use a key from their TLS session ([`DYNAMIC_LABEL`]).

pub mod tls_auth;
pub mod tls_crypt;

use super::primitives::Primitives;
use super::wire::{PREFACE_LEN, Packet};
use crate::drop_reason::DropReason;
use crate::sealing::replay::Window;

/// The label for the TLS exporter of the first keys' session, without context, for the key of tls-crypt under which
/// packets of all later key ids go, where `dyn-tls-crypt` was pushed. It is mixed with the key that the ends use
/// already, if there is one ([`super::static_key::StaticKey::mixed_with`]).
pub const DYNAMIC_LABEL: &[u8] = b"EXPORTER-OpenVPN-dynamic-tls-crypt";

/// Bytes of a stamp.
pub const STAMP_LEN: usize = 8;

/// What is never the same twice in packets of one end under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// When the counter began, in seconds of Unix time.
    pub time: u32,
    /// Counts packets, from 1 or from [`super::wire::early::FIRST_COUNT`].
    pub count: u32,
}

impl Stamp {
    /// The bytes on the wire.
    pub const fn encode(self) -> [u8; STAMP_LEN] {
        let ([a, b, c, d], [e, f, g, h]) = (self.count.to_be_bytes(), self.time.to_be_bytes());
        [a, b, c, d, e, f, g, h]
    }

    /// Reads the bytes of the wire.
    pub const fn parse(bytes: [u8; STAMP_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { count: u32::from_be_bytes([a, b, c, d]), time: u32::from_be_bytes([e, f, g, h]) }
    }

    /// A number that grows with time and counter: what comes from an earlier time is old.
    const fn sequence(self) -> u64 {
        (self.time as u64) << u32::BITS | self.count as u64
    }
}

/// The keys under which packets go both ways.
pub enum Keys {
    /// None: what protects the channel is TLS alone.
    Plain,
    /// Packets are authenticated.
    Auth(tls_auth::Keys),
    /// Packets are authenticated and encrypted.
    Crypt(tls_crypt::Keys),
}

impl Keys {
    /// Bytes that this adds to a packet.
    pub const fn overhead(&self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Auth(keys) => keys.overhead(),
            Self::Crypt(_) => tls_crypt::OVERHEAD,
        }
    }

    /// Makes a datagram of a packet. No stamp may be used twice.
    ///
    /// # Errors
    /// [`DropReason::SealFailed`] if the library fails.
    pub fn seal<P: Primitives>(&self, stamp: Stamp, packet: &Packet) -> Result<Vec<u8>, DropReason> {
        let (preface, body) = (packet.preface(), packet.body());
        match self {
            Self::Plain => Ok([&preface[..], &body].concat()),
            Self::Auth(keys) => Ok(keys.seal::<P>(stamp, &preface, &body)),
            Self::Crypt(keys) => keys.seal::<P>(stamp, preface, body),
        }
    }

    /// Reads a datagram, without the wrapped key that may stand behind it, and says what was authenticated. Only
    /// packets under a key have a stamp; whether it came before is the caller's to know.
    ///
    /// # Errors
    /// Why it must be dropped, in silence.
    pub fn open<P: Primitives>(&self, datagram: &[u8]) -> Result<(Packet, Option<Stamp>), DropReason> {
        let (preface, rest) = datagram.split_first_chunk::<PREFACE_LEN>().ok_or(DropReason::Truncated)?;
        match self {
            Self::Plain => Ok((Packet::parse(preface, rest)?, None)),
            Self::Auth(keys) => {
                let (stamp, body) = keys.open::<P>(preface, rest)?;
                Ok((Packet::parse(preface, body)?, Some(stamp)))
            }
            Self::Crypt(keys) => {
                let (stamp, body) = keys.open::<P>(preface, rest)?;
                Ok((Packet::parse(preface, &body)?, Some(stamp)))
            }
        }
    }
}

/// Numbers that the window against replays spans: a handshake has a few dozen packets on the way.
type StampWindow = Window<2, { u64::BITS }>;

/// One end's wrapping for as long as its keys last: counts what is sent, and takes nothing twice.
pub struct Wrapping {
    keys: Keys,
    next: Stamp,
    window: StampWindow,
    /// Stands behind the packets that say so.
    wrapped_key: Vec<u8>,
}

impl Wrapping {
    /// Begins to count at `first`.
    pub fn new(keys: Keys, first: Stamp) -> Self {
        Self { keys, next: first, window: StampWindow::default(), wrapped_key: Vec::new() }
    }

    /// The same for a client under tls-crypt-v2. `wrapped_key` is the one that its key came with.
    pub fn with_wrapped_key(keys: tls_crypt::Keys, wrapped_key: Vec<u8>, first: Stamp) -> Self {
        Self { wrapped_key, ..Self::new(Keys::Crypt(keys), first) }
    }

    /// Bytes that this adds to a packet that has no wrapped key.
    pub const fn overhead(&self) -> usize {
        self.keys.overhead()
    }

    /// Makes a datagram of a packet.
    ///
    /// # Errors
    /// [`DropReason::SequenceExhausted`] after 2^32 packets, [`DropReason::SealFailed`] if the library fails.
    pub fn seal<P: Primitives>(&mut self, packet: &Packet) -> Result<Vec<u8>, DropReason> {
        let stamp = self.next;
        self.next.count = stamp.count.checked_add(1).ok_or(DropReason::SequenceExhausted)?;
        let mut datagram = self.keys.seal::<P>(stamp, packet)?;
        if packet.message.as_ref().is_some_and(|message| message.kind.has_wrapped_key()) {
            datagram.extend(&self.wrapped_key);
        }
        Ok(datagram)
    }

    /// Opens a datagram, without the wrapped key that may stand behind it
    /// ([`super::client_key::split_wrapped`]).
    ///
    /// # Errors
    /// Why it must be dropped, in silence; without keys, what came before is not known.
    pub fn open<P: Primitives>(&mut self, datagram: &[u8]) -> Result<Packet, DropReason> {
        let (packet, stamp) = self.keys.open::<P>(datagram)?;
        if let Some(stamp) = stamp {
            self.window.commit(stamp.sequence())?;
        }
        Ok(packet)
    }
}

#[cfg(test)]
mod tests;
