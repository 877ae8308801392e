//! What a record of DTLS holds: `type (1)  payload`, with the types of the channel's frames.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use super::frame::FrameKind;
use crate::drop_reason::DropReason;
use crate::dtls::record::ContentType;
use crate::dtls::sa::Reservation;
use crate::sealing::aead::Aead;

/// Bytes in front of a payload.
pub const HEAD_LEN: usize = 1;

/// Splits what a record holds; `None` if it is empty.
#[inline]
pub fn split(plaintext: &[u8]) -> Option<(FrameKind, &[u8])> {
    plaintext.split_first().map(|(kind, payload)| (FrameKind::of(*kind), payload))
}

/// What a record with that payload holds.
pub fn encode(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    [&[kind.number()], payload].concat()
}

/// Seals the packet of `len` bytes that stands in `slot` behind the suite's prefix and [`HEAD_LEN`] bytes, in place,
/// and returns the length of the record.
///
/// # Errors
/// As [`Reservation::seal`].
#[inline]
pub fn seal_packet<A: Aead>(
    numbers: &mut Reservation<'_, A>,
    slot: &mut [u8],
    len: usize,
) -> Result<usize, DropReason> {
    *slot.get_mut(numbers.suite().prefix_len()).ok_or(DropReason::TooBig)? = FrameKind::Data.number();
    numbers.seal(slot, len.saturating_add(HEAD_LEN), ContentType::ApplicationData)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtls::sa::{Inbound, Outbound};
    use crate::dtls::secret::DirectionKeys;
    use crate::dtls::suite::CipherSuite;
    use crate::sealing::test_cipher::AwsCipher;

    #[test]
    fn record_holds_a_type_and_a_payload() {
        assert_eq!(encode(FrameKind::DpdResponse, b"whole"), b"\x04whole");
        assert_eq!(split(b"\x03ab"), Some((FrameKind::DpdRequest, &b"ab"[..])));
        assert_eq!(split(b"\x00"), Some((FrameKind::Data, &b""[..])));
        assert_eq!(split(b""), None);
    }

    #[test]
    fn packet_is_sealed_behind_its_type_whatever_the_slot_held() {
        for suite in CipherSuite::PSK {
            let keys = || DirectionKeys::for_test(suite, 7);
            let (outbound, mut inbound) =
                (Outbound::<AwsCipher>::new(keys()).unwrap(), Inbound::<AwsCipher>::new(keys()).unwrap());
            let mut slot = vec![0xff; suite.sealed_len(HEAD_LEN + 6)];
            let at = suite.prefix_len() + HEAD_LEN;
            slot[at..at + 6].copy_from_slice(b"packet");
            let sealed = seal_packet(&mut outbound.reserve(1, 7).unwrap(), &mut slot, 6);
            assert_eq!(sealed, Ok(slot.len()));
            let opened = inbound.open(&mut slot).unwrap();
            assert_eq!(split(&slot[opened.range]), Some((FrameKind::Data, &b"packet"[..])));
            let short = seal_packet(&mut outbound.reserve(1, 7).unwrap(), &mut [0; 5], 6);
            assert_eq!(short, Err(DropReason::TooBig));
        }
    }
}
