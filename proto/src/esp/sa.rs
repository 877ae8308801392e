//! The two halves of a session's ESP state: [`Outbound`] seals, [`Inbound`] opens, both in place.

use super::keys::DirectionKeys;
use super::packet::{self, Header, ICV_LEN, NextHeader, PREFIX_LEN, SALT_LEN, nonce};
use super::spi::Spi;
use crate::drop_reason::DropReason;
use crate::sealing::aead::{Aead, CipherRefused};
use crate::sealing::counter::Usage;
use crate::sealing::direction::{InboundCounters, Numbers, Opener, Sealer};
use crate::sealing::replay::{self, Arrival};
use crate::sealing::suite::Suite;

/// Refused packets after which a receiver wants new keys: far below any integrity limit, far above noise.
const REKEY_AFTER_REFUSED: u64 = 1 << 20;

/// The sending direction: key, salt and counter.
///
/// It can be shared by the workers of a process, and cannot be copied, stored or restored: whoever starts anew needs
/// new keys.
///
/// ```compile_fail
/// fn copy<A: Clone>(sa: &adit_proto::esp::sa::Outbound<A>) -> adit_proto::esp::sa::Outbound<A> { sa.clone() }
/// ```
pub struct Outbound<A> {
    spi: Spi,
    salt: [u8; SALT_LEN],
    sealer: Sealer<A>,
}

impl<A: Aead> Outbound<A> {
    /// Makes the SA that the peer receives as `spi`, and consumes its keys.
    ///
    /// # Errors
    /// If the cipher does not take the key.
    pub fn new(spi: Spi, keys: DirectionKeys) -> Result<Self, CipherRefused> {
        Ok(Self { spi, salt: keys.salt(), sealer: Sealer::new(keys.suite(), keys.key())? })
    }

    /// The index the peer gave.
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// The cipher in use.
    pub const fn suite(&self) -> Suite {
        self.sealer.suite()
    }

    /// What was sealed so far, for [`super::lifetime::Lifetime::is_over`].
    pub fn usage(&self) -> Usage {
        self.sealer.usage()
    }

    /// Takes sequence numbers for `packets` inner packets of at most `largest` bytes each. What the reservation does
    /// not use is skipped: the peer sees a gap, as after loss.
    ///
    /// Reserve for one batch at a time: numbers that wait fall out of the peer's window.
    ///
    /// # Errors
    /// [`DropReason::SequenceExhausted`] if that would pass a hard limit of the suite. The packets must be dropped, or
    /// take another carrier.
    pub fn reserve(&self, packets: u32, largest: usize) -> Result<Reservation<'_, A>, DropReason> {
        let numbers = self.sealer.reserve(packets, packet::plaintext_len(largest))?;
        Ok(Reservation { sa: self, numbers, largest })
    }

    #[cfg(test)]
    pub(crate) fn skip_to(&self, sequence: u64) {
        self.sealer.skip_to(sequence);
    }
}

/// Sequence numbers of one SA, each to be used once.
pub struct Reservation<'a, A> {
    sa: &'a Outbound<A>,
    numbers: Numbers<'a, A>,
    largest: usize,
}

impl<A: Aead> Reservation<'_, A> {
    /// Packets that can still be sealed.
    pub const fn left(&self) -> u64 {
        self.numbers.left()
    }

    /// Seals the inner packet of `inner` bytes that stands in `slot` behind [`PREFIX_LEN`] bytes of headroom, in place,
    /// and returns the length of the datagram, [`packet::sealed_len`], that `slot` then begins with.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] if `slot` is too short or `inner` larger than was reserved for,
    /// [`DropReason::SequenceExhausted`] if all numbers are used, [`DropReason::SealFailed`] if the cipher fails. Then
    /// `slot` must not be sent.
    pub fn seal(&mut self, slot: &mut [u8], inner: usize, next_header: NextHeader) -> Result<usize, DropReason> {
        let (prefix, body) = slot.split_first_chunk_mut::<PREFIX_LEN>().ok_or(DropReason::TooBig)?;
        if inner > self.largest {
            return Err(DropReason::TooBig);
        }
        let body_len = packet::put_trailer(body, inner, next_header.code()).ok_or(DropReason::TooBig)?;
        let (body, rest) = body.split_at_mut_checked(body_len).ok_or(DropReason::TooBig)?;
        let icv = rest.first_chunk_mut::<ICV_LEN>().ok_or(DropReason::TooBig)?;
        let number = self.numbers.take()?;
        let sequence = number.value();
        let spi = self.sa.spi.get();
        let iv = sequence.to_be_bytes();
        let [_, _, _, _, low @ ..] = iv;
        *prefix = Header { spi, sequence_low: u32::from_be_bytes(low), iv }.encode();
        let associated_data = packet::associated_data(spi, sequence);
        *icv = number.seal(nonce(self.sa.salt, iv), &associated_data, body)?;
        Ok(packet::sealed_len(inner))
    }
}

/// What a receiver asks of the explicit IV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IvRule {
    /// It is the extended sequence number, as between two of us; checked before anything is decrypted.
    IsSequence,
    /// Anything the sender made unique (RFC 4106 section 3.1), for foreign senders.
    Any,
}

/// What a receiver accepts beyond IP packets and dummies that follow the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Acceptance {
    /// The rule for the IV.
    pub iv: IvRule,
    /// Whether vouched packets were negotiated.
    pub vouched: bool,
}

/// An authenticated packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What it is.
    pub next_header: NextHeader,
    /// Bytes of it.
    pub len: usize,
    /// Whether it is the newest, which alone may move a session to another address.
    pub arrival: Arrival,
}

impl Opened {
    /// Where in the datagram it stands.
    pub fn range(&self) -> std::ops::Range<usize> {
        PREFIX_LEN..PREFIX_LEN.saturating_add(self.len)
    }
}

/// The receiving direction: key, salt and replay window. One worker owns it.
pub struct Inbound<A> {
    spi: Spi,
    salt: [u8; SALT_LEN],
    opener: Opener<A>,
    accept: Acceptance,
    /// Packets refused because IV and inferred number differ.
    mismatched: u64,
}

impl<A: Aead> Inbound<A> {
    /// Makes the SA that this end receives as `spi`, and consumes its keys.
    ///
    /// # Errors
    /// If the cipher does not take the key.
    pub fn new(spi: Spi, keys: DirectionKeys, accept: Acceptance) -> Result<Self, CipherRefused> {
        let opener = Opener::new(keys.suite(), keys.key())?;
        Ok(Self { spi, salt: keys.salt(), opener, accept, mismatched: 0 })
    }

    /// The index this end gave.
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// The cipher in use.
    pub const fn suite(&self) -> Suite {
        self.opener.suite()
    }

    /// What it saw so far.
    pub const fn counters(&self) -> InboundCounters {
        self.opener.counters()
    }

    /// Whether so much was refused that new keys are wanted: forgeries, or a peer whose numbers ran away (after the
    /// loss of some 2^32 packets), which new keys mend and a search would not.
    pub const fn wants_rekey(&self) -> bool {
        self.opener.counters().failed.saturating_add(self.mismatched) >= REKEY_AFTER_REFUSED
    }

    /// Opens a datagram in place: infers the sequence number, then [`Opener::open`] (RFC 4303 sections 3.4.3 and 3.4.4,
    /// appendix A2).
    ///
    /// # Errors
    /// Why it must be dropped, in silence: nothing is ever answered that was not authenticated. After
    /// [`DropReason::AuthenticationFailed`], `datagram` holds nothing of use.
    pub fn open(&mut self, datagram: &mut [u8]) -> Result<Opened, DropReason> {
        let header = Header::parse(datagram)?;
        if header.spi != self.spi.get() {
            return Err(DropReason::UnknownSpi);
        }
        let sequence = self.sequence(&header)?;
        let (_, sealed) = datagram.split_first_chunk_mut::<PREFIX_LEN>().ok_or(DropReason::Truncated)?;
        let associated_data = packet::associated_data(header.spi, sequence);
        let arrival = self.opener.open(sequence, nonce(self.salt, header.iv), &associated_data, sealed)?;
        let plaintext = sealed.len().checked_sub(ICV_LEN).and_then(|len| sealed.get(..len));
        self.inside(plaintext.ok_or(DropReason::Truncated)?, arrival)
    }

    /// The extended sequence number that the header means, if its IV agrees.
    fn sequence(&mut self, header: &Header) -> Result<u64, DropReason> {
        let newest = self.opener.newest();
        let inferred = replay::infer(header.sequence_low, newest);
        let claimed = u64::from_be_bytes(header.iv);
        match (self.accept.iv, inferred) {
            (IvRule::IsSequence, Some(sequence)) if sequence == claimed => Ok(sequence),
            (IvRule::Any, Some(sequence)) => Ok(sequence),
            // A copy from long ago, which inference alone would take for one from far ahead.
            (IvRule::IsSequence, _) if newest.saturating_sub(claimed) >= replay::WIDTH => Err(DropReason::TooOld),
            (IvRule::IsSequence | IvRule::Any, _) => {
                self.mismatched = self.mismatched.saturating_add(1);
                Err(DropReason::SequenceMismatch)
            }
        }
    }

    fn inside(&self, plaintext: &[u8], arrival: Arrival) -> Result<Opened, DropReason> {
        let (len, code) = packet::split_trailer(plaintext)?;
        let next_header = NextHeader::from_code(code)
            .filter(|next_header| self.accept.vouched || !next_header.is_vouched())
            .ok_or(DropReason::UnknownNextHeader)?;
        let version = plaintext.get(..len).and_then(<[u8]>::first).map(|first| first >> 4);
        if next_header.version().is_some() && next_header.version() != version {
            return Err(DropReason::BadVersion);
        }
        Ok(Opened { next_header, len, arrival })
    }
}

#[cfg(test)]
mod tests;
