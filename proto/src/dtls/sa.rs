//! The two halves of an association's data: [`Outbound`] seals, [`Inbound`] opens, both in place. The nonce is the
//! record's number, so it is unique per key by construction.

use std::ops::Range;

use super::record::{ContentType, DTLS_1_2, HEADER_LEN, Header, MAX_PLAINTEXT};
use super::secret::DirectionKeys;
use super::suite::{CipherSuite, EXPLICIT_NONCE_LEN};
use crate::drop_reason::DropReason;
use crate::sealing::aead::{Aead, CipherRefused, NONCE_LEN, TAG_LEN};
use crate::sealing::counter::Usage;
use crate::sealing::direction::{InboundCounters, Numbers, Opener, Sealer};
use crate::sealing::replay::Arrival;
use crate::sealing::suite::Suite;

/// The epoch under the keys.
pub const EPOCH: u16 = 1;

/// The counter and the window begin at 1, as ESP's numbers do; those of DTLS begin at 0.
const FIRST: u64 = 1;

/// The sending direction: key, IV and counter.
///
/// It can be shared by the workers of a process, and cannot be copied, stored or restored.
///
/// ```compile_fail
/// fn copy<A: Clone>(sa: &adit_proto::dtls::sa::Outbound<A>) -> adit_proto::dtls::sa::Outbound<A> { sa.clone() }
/// ```
pub struct Outbound<A> {
    suite: CipherSuite,
    iv: [u8; NONCE_LEN],
    sealer: Sealer<A>,
}

impl<A: Aead> Outbound<A> {
    /// Makes the SA and consumes its keys.
    ///
    /// # Errors
    /// If the cipher does not take the key.
    pub fn new(keys: DirectionKeys) -> Result<Self, CipherRefused> {
        let suite = keys.suite();
        Ok(Self { suite, iv: keys.iv(), sealer: Sealer::new(suite.aead(), keys.key())? })
    }

    /// The suite in use.
    pub const fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// What was sealed so far.
    pub fn usage(&self) -> Usage {
        self.sealer.usage()
    }

    /// Takes numbers for `records` records of at most `largest` bytes of plaintext each. What the reservation does not
    /// use is skipped: the peer sees a gap, as after loss.
    ///
    /// # Errors
    /// [`DropReason::SequenceExhausted`] if that would pass a hard limit of the cipher.
    pub fn reserve(&self, records: u32, largest: usize) -> Result<Reservation<'_, A>, DropReason> {
        Ok(Reservation { sa: self, numbers: self.sealer.reserve(records, largest)?, largest })
    }

    /// A record of its own: for alerts and handshake messages.
    ///
    /// # Errors
    /// As [`Reservation::seal`].
    pub fn record(&self, content: ContentType, plaintext: &[u8]) -> Result<Vec<u8>, DropReason> {
        let prefix = self.suite.prefix_len();
        let mut record = vec![0; self.suite.sealed_len(plaintext.len())];
        record.iter_mut().skip(prefix).zip(plaintext).for_each(|(place, byte)| *place = *byte);
        self.reserve(1, plaintext.len())?.seal(&mut record, plaintext.len(), content)?;
        Ok(record)
    }

    #[cfg(test)]
    pub(crate) fn skip_to(&self, sequence: u64) {
        self.sealer.skip_to(sequence + FIRST);
    }
}

/// Numbers of one SA, each to be used once.
pub struct Reservation<'a, A> {
    sa: &'a Outbound<A>,
    numbers: Numbers<'a, A>,
    largest: usize,
}

impl<A: Aead> Reservation<'_, A> {
    /// The suite that they are for.
    pub const fn suite(&self) -> CipherSuite {
        self.sa.suite
    }

    /// Records that can still be sealed.
    pub const fn left(&self) -> u64 {
        self.numbers.left()
    }

    /// Seals the `plaintext` bytes that stand in `slot` behind [`CipherSuite::prefix_len`] bytes of headroom, in place,
    /// and returns the length of the record, [`CipherSuite::sealed_len`], that `slot` then begins with.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] if `slot` is too short or the plaintext larger than was reserved for or than a record
    /// takes, [`DropReason::SequenceExhausted`] if all numbers are used, [`DropReason::SealFailed`] if the cipher
    /// fails. Then `slot` must not be sent.
    pub fn seal(&mut self, slot: &mut [u8], plaintext: usize, content: ContentType) -> Result<usize, DropReason> {
        if plaintext > self.largest.min(MAX_PLAINTEXT) {
            return Err(DropReason::TooBig);
        }
        let suite = self.sa.suite;
        let (prefix, body) = slot.split_at_mut_checked(suite.prefix_len()).ok_or(DropReason::TooBig)?;
        let (body, rest) = body.split_at_mut_checked(plaintext).ok_or(DropReason::TooBig)?;
        let tag = rest.first_chunk_mut::<TAG_LEN>().ok_or(DropReason::TooBig)?;
        let (header_slot, explicit) = prefix.split_first_chunk_mut::<HEADER_LEN>().ok_or(DropReason::TooBig)?;
        let length = u16::try_from(plaintext).map_err(|_| DropReason::TooBig)?;
        let number = self.numbers.take()?;
        let sequence = number.value().saturating_sub(FIRST);
        let header = Header { content, version: DTLS_1_2, epoch: EPOCH, sequence, length };
        let nonce = nonce(suite, self.sa.iv, header.number());
        *tag = number.seal(nonce, &header.associated_data(length), body)?;
        let sealed_len = suite.sealed_len(plaintext);
        let length = u16::try_from(sealed_len.saturating_sub(HEADER_LEN)).map_err(|_| DropReason::TooBig)?;
        *header_slot = Header { length, ..header }.encode();
        explicit.iter_mut().zip(header.number()).for_each(|(place, byte)| *place = byte);
        Ok(sealed_len)
    }
}

/// The nonce of a record: for AES-GCM IV and explicit part, for ChaCha20-Poly1305 the IV combined with the number.
fn nonce(suite: CipherSuite, iv: [u8; NONCE_LEN], number: [u8; EXPLICIT_NONCE_LEN]) -> [u8; NONCE_LEN] {
    let [i0, i1, i2, i3, tail @ ..] = iv;
    let tail = u64::from_be_bytes(tail);
    let number = u64::from_be_bytes(number);
    let [n0, n1, n2, n3, n4, n5, n6, n7] = match suite.aead() {
        Suite::Aes256Gcm | Suite::Aes128Gcm => number,
        Suite::ChaCha20Poly1305 => tail ^ number,
    }
    .to_be_bytes();
    [i0, i1, i2, i3, n0, n1, n2, n3, n4, n5, n6, n7]
}

/// An authenticated record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What it holds.
    pub content: ContentType,
    /// Where in the record that stands.
    pub range: Range<usize>,
    /// Whether it is the newest.
    pub arrival: Arrival,
}

/// The receiving direction: key, IV and replay window. One worker owns it.
pub struct Inbound<A> {
    suite: CipherSuite,
    iv: [u8; NONCE_LEN],
    opener: Opener<A>,
}

impl<A: Aead> Inbound<A> {
    /// Makes the SA and consumes its keys.
    ///
    /// # Errors
    /// If the cipher does not take the key.
    pub fn new(keys: DirectionKeys) -> Result<Self, CipherRefused> {
        let suite = keys.suite();
        Ok(Self { suite, iv: keys.iv(), opener: Opener::new(suite.aead(), keys.key())? })
    }

    /// The suite in use.
    pub const fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// What it saw so far.
    pub const fn counters(&self) -> InboundCounters {
        self.opener.counters()
    }

    /// Opens the record that `datagram` begins with, in place, as [`Opener::open`] does.
    ///
    /// # Errors
    /// Why it must be dropped, in silence. After [`DropReason::AuthenticationFailed`] the record holds nothing of use.
    pub fn open(&mut self, datagram: &mut [u8]) -> Result<Opened, DropReason> {
        let header = Header::parse(datagram)?;
        if header.epoch != EPOCH {
            return Err(DropReason::UnknownEpoch);
        }
        if header.version != DTLS_1_2 {
            return Err(DropReason::BadRecord);
        }
        let end = HEADER_LEN.saturating_add(header.length.into());
        let record = datagram.get_mut(..end).ok_or(DropReason::Truncated)?;
        let (prefix, sealed) = record.split_at_mut_checked(self.suite.prefix_len()).ok_or(DropReason::Truncated)?;
        let plaintext = sealed.len().checked_sub(TAG_LEN).ok_or(DropReason::Truncated)?;
        if plaintext > MAX_PLAINTEXT {
            return Err(DropReason::BadLength);
        }
        let length = u16::try_from(plaintext).map_err(|_| DropReason::BadLength)?;
        // The sender of AES-GCM chooses the explicit part; ours and GnuTLS's is the number, OpenSSL's is not.
        let number = match self.suite.explicit_nonce_len() {
            0 => header.number(),
            _ => *prefix.last_chunk().ok_or(DropReason::Truncated)?,
        };
        let nonce = nonce(self.suite, self.iv, number);
        let sequence = header.sequence.saturating_add(FIRST);
        let arrival = self.opener.open(sequence, nonce, &header.associated_data(length), sealed)?;
        let start = self.suite.prefix_len();
        Ok(Opened { content: header.content, range: start..start.saturating_add(plaintext), arrival })
    }
}

#[cfg(test)]
mod tests;
