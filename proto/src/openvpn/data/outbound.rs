//! The sending half: seals packets in place.

use super::keys::DirectionKeys;
use super::{COUNTER_BITS, PREFACE_LEN, Preface};
use crate::drop_reason::DropReason;
use crate::openvpn::negotiation::Format;
use crate::openvpn::wire::KeyId;
use crate::sealing::aead::{Aead, CipherRefused, NONCE_LEN, TAG_LEN};
use crate::sealing::counter::Usage;
use crate::sealing::direction::{Numbers, Sealer};

/// Of what a key may do, 7 eighths: then the next one is due.
const WORN: (u64, u64) = (7, 8);

/// The sending direction under one key: that of a key id, and in the epoch format of one epoch.
///
/// It can be shared by the workers of a process, and cannot be copied, stored or restored.
///
/// ```compile_fail
/// use adit_proto::openvpn::data::outbound::Outbound;
/// fn copy<A: Clone>(sa: &Outbound<A>) -> Outbound<A> { sa.clone() }
/// ```
pub struct Outbound<A> {
    preface: [u8; PREFACE_LEN],
    format: Format,
    epoch: u16,
    iv: [u8; NONCE_LEN],
    sealer: Sealer<A>,
}

impl<A: Aead> Outbound<A> {
    /// Makes it and consumes the keys.
    ///
    /// # Errors
    /// If the cipher does not take the key.
    pub fn new(keys: DirectionKeys, key: KeyId, peer_id: u32) -> Result<Self, CipherRefused> {
        let sealer = Sealer::new(keys.suite, keys.key())?;
        let preface = Preface { key, peer_id }.encode();
        Ok(Self { preface, format: keys.format, epoch: keys.epoch, iv: keys.iv, sealer })
    }

    /// How datagrams are laid out.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The epoch; 0 in data v2.
    pub const fn epoch(&self) -> u16 {
        self.epoch
    }

    /// What was sealed so far.
    pub fn usage(&self) -> Usage {
        self.sealer.usage()
    }

    /// Whether so much was sealed that the next key is due: in data v2 by renegotiation, in the epoch format by the
    /// next epoch.
    pub fn is_worn(&self) -> bool {
        let Usage { packets, blocks } = self.usage();
        let suite = self.sealer.suite();
        let share = |limit: u64| limit.checked_div(WORN.1).unwrap_or_default().saturating_mul(WORN.0);
        packets >= share(self.last_number()) || blocks >= share(suite.max_blocks())
    }

    /// The last number that has room on the wire and that the cipher may protect.
    fn last_number(&self) -> u64 {
        let wire = match self.format {
            Format::V2 => u64::from(u32::MAX),
            Format::Epoch => (1 << COUNTER_BITS) - 1,
        };
        wire.min(self.sealer.suite().last_sequence())
    }

    /// Takes numbers for `packets` packets of at most `largest` bytes each. What the reservation does not use is
    /// skipped: the peer sees a gap, as after loss.
    ///
    /// # Errors
    /// [`DropReason::SequenceExhausted`] if that would pass a hard limit of the cipher.
    pub fn reserve(&self, packets: u32, largest: usize) -> Result<Reservation<'_, A>, DropReason> {
        Ok(Reservation { outbound: self, numbers: self.sealer.reserve(packets, largest)?, largest })
    }

    /// A datagram of its own: for pings and messages between programs.
    ///
    /// # Errors
    /// As [`Reservation::seal`].
    pub fn datagram(&self, plaintext: &[u8]) -> Result<Vec<u8>, DropReason> {
        let mut datagram = vec![0; self.format.sealed_len(plaintext.len())];
        let body = datagram.iter_mut().skip(self.format.prefix_len());
        body.zip(plaintext).for_each(|(place, byte)| *place = *byte);
        self.reserve(1, plaintext.len())?.seal(&mut datagram, plaintext.len())?;
        Ok(datagram)
    }

    #[cfg(test)]
    pub(crate) fn skip_to(&self, number: u64) {
        self.sealer.skip_to(number);
    }
}

/// Numbers of one key, each to be used once.
pub struct Reservation<'a, A> {
    outbound: &'a Outbound<A>,
    numbers: Numbers<'a, A>,
    largest: usize,
}

impl<A: Aead> Reservation<'_, A> {
    /// How datagrams are laid out.
    pub const fn format(&self) -> Format {
        self.outbound.format
    }

    /// Packets that can still be sealed.
    pub const fn left(&self) -> u64 {
        self.numbers.left()
    }

    /// Seals the `plaintext` bytes that stand in `slot` behind [`Format::prefix_len`] bytes of headroom, in place, and
    /// returns the length of the datagram, [`Format::sealed_len`], that `slot` then begins with.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] if `slot` is too short or the plaintext larger than was reserved for,
    /// [`DropReason::SequenceExhausted`] if all numbers are used, [`DropReason::SealFailed`] if the cipher fails. Then
    /// `slot` must not be sent.
    pub fn seal(&mut self, slot: &mut [u8], plaintext: usize) -> Result<usize, DropReason> {
        if plaintext > self.largest {
            return Err(DropReason::TooBig);
        }
        let outbound = self.outbound;
        let format = outbound.format;
        let (prefix, rest) = slot.split_at_mut_checked(format.prefix_len()).ok_or(DropReason::TooBig)?;
        let (body, rest) = rest.split_at_mut_checked(plaintext).ok_or(DropReason::TooBig)?;
        let (suffix, _) = rest.split_at_mut_checked(format.suffix_len()).ok_or(DropReason::TooBig)?;
        let (preface, prefix) = prefix.split_first_chunk_mut().ok_or(DropReason::TooBig)?;
        *preface = outbound.preface;
        let number = self.numbers.take()?;
        if number.value() > outbound.last_number() {
            return Err(DropReason::SequenceExhausted);
        }
        match format {
            Format::V2 => {
                let counter = u32::try_from(number.value()).map_err(|_| DropReason::SequenceExhausted)?.to_be_bytes();
                let (number_slot, prefix) = prefix.split_first_chunk_mut().ok_or(DropReason::TooBig)?;
                *number_slot = counter;
                let tag_slot = prefix.first_chunk_mut::<TAG_LEN>().ok_or(DropReason::TooBig)?;
                *tag_slot = number.seal(v2_nonce(counter, outbound.iv), &v2_associated(*preface, counter), body)?;
            }
            Format::Epoch => {
                let place = epoch_number(outbound.epoch, number.value());
                let number_slot = prefix.first_chunk_mut().ok_or(DropReason::TooBig)?;
                *number_slot = place;
                let tag_slot = suffix.first_chunk_mut::<TAG_LEN>().ok_or(DropReason::TooBig)?;
                *tag_slot = number.seal(epoch_nonce(place, outbound.iv), &epoch_associated(*preface, place), body)?;
            }
        }
        Ok(format.sealed_len(plaintext))
    }
}

pub(super) const fn v2_nonce(number: [u8; 4], iv: [u8; NONCE_LEN]) -> [u8; NONCE_LEN] {
    let ([a, b, c, d], [e, f, g, h, i, j, k, l, ..]) = (number, iv);
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

pub(super) const fn v2_associated(preface: [u8; PREFACE_LEN], number: [u8; 4]) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (preface, number);
    [a, b, c, d, e, f, g, h]
}

/// Epoch and counter as they stand on the wire.
const fn epoch_number(epoch: u16, counter: u64) -> [u8; 8] {
    ((epoch as u64) << COUNTER_BITS | counter).to_be_bytes()
}

pub(super) fn epoch_nonce(place: [u8; 8], iv: [u8; NONCE_LEN]) -> [u8; NONCE_LEN] {
    let mut nonce = iv;
    nonce.iter_mut().zip(place).for_each(|(byte, place)| *byte ^= place);
    nonce
}

pub(super) const fn epoch_associated(preface: [u8; PREFACE_LEN], place: [u8; 8]) -> [u8; 12] {
    let ([a, b, c, d], [e, f, g, h, i, j, k, l]) = (preface, place);
    [a, b, c, d, e, f, g, h, i, j, k, l]
}
