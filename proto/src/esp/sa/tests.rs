use proptest::prelude::*;

use super::*;
use crate::esp::packet::{MAX_OVERHEAD, sealed_len};
use crate::sealing::test_cipher::AwsCipher;

const OURS: Acceptance = Acceptance { iv: IvRule::IsSequence, vouched: true };

fn spi() -> Spi {
    Spi::new(5, 0x12_3456).unwrap()
}

fn sending(suite: Suite) -> Outbound<AwsCipher> {
    Outbound::new(spi(), DirectionKeys::for_test(suite, 7)).unwrap()
}

fn receiving(suite: Suite, accept: Acceptance) -> Inbound<AwsCipher> {
    Inbound::new(spi(), DirectionKeys::for_test(suite, 7), accept).unwrap()
}

fn pair() -> (Outbound<AwsCipher>, Inbound<AwsCipher>) {
    (sending(Suite::Aes256Gcm), receiving(Suite::Aes256Gcm, OURS))
}

fn seal_as(sa: &Outbound<AwsCipher>, packet: &[u8], next_header: NextHeader) -> Vec<u8> {
    let mut slot = vec![0xaa; packet.len() + MAX_OVERHEAD];
    slot[PREFIX_LEN..PREFIX_LEN + packet.len()].copy_from_slice(packet);
    let len = sa.reserve(1, packet.len()).unwrap().seal(&mut slot, packet.len(), next_header).unwrap();
    slot.truncate(len);
    slot
}

fn seal(sa: &Outbound<AwsCipher>) -> Vec<u8> {
    seal_as(sa, &[0x45; 41], NextHeader::Ipv4)
}

/// Seals a plaintext, trailer included, that the rules may not allow.
fn seal_plaintext(sequence: u64, iv: u64, plaintext: &[u8]) -> Vec<u8> {
    let keys = DirectionKeys::for_test(Suite::Aes256Gcm, 7);
    let cipher = AwsCipher::new(Suite::Aes256Gcm, keys.key()).unwrap();
    let (spi, iv) = (spi().get(), iv.to_be_bytes());
    let header = Header { spi, sequence_low: sequence as u32, iv };
    let mut body = plaintext.to_vec();
    let icv = cipher.seal(nonce(keys.salt(), iv), &packet::associated_data(spi, sequence), &mut body).unwrap();
    [&header.encode()[..], &body, &icv].concat()
}

#[test]
fn every_suite_and_kind_round_trips() {
    for suite in Suite::ALL {
        let (out, mut inbound) = (sending(suite), receiving(suite, OURS));
        for next_header in NextHeader::ALL {
            for len in 1..40 {
                let packet = vec![next_header.version().unwrap_or(0) << 4 | 5; len];
                let mut datagram = seal_as(&out, &packet, next_header);
                assert_eq!(datagram.len(), sealed_len(len));
                let opened = inbound.open(&mut datagram).unwrap();
                assert_eq!((opened.next_header, opened.arrival), (next_header, Arrival::Newest));
                assert_eq!(datagram[opened.range()], packet);
            }
        }
    }
}

#[test]
fn empty_dummy_is_opened_and_an_empty_packet_is_not() {
    let (out, mut inbound) = pair();
    assert_eq!(inbound.open(&mut seal_as(&out, &[], NextHeader::Nothing)).unwrap().len, 0);
    assert_eq!(inbound.open(&mut seal_as(&out, &[], NextHeader::Ipv4)), Err(DropReason::BadVersion));
}

#[test]
fn first_sequence_number_is_one_and_the_iv_repeats_it() {
    let out = sending(Suite::Aes256Gcm);
    for sequence in 1..=3_u64 {
        let datagram = seal(&out);
        assert_eq!(datagram[..4], spi().get().to_be_bytes());
        assert_eq!(datagram[4..8], (sequence as u32).to_be_bytes());
        assert_eq!(datagram[8..16], sequence.to_be_bytes());
    }
}

#[test]
fn no_nonce_is_used_twice_whatever_becomes_of_a_reservation() {
    let out = sending(Suite::Aes256Gcm);
    let mut ivs = Vec::new();
    let mut slot = [0x45; 100];
    for (reserved, used) in [(5, 5), (5, 2), (3, 0), (0, 0), (4, 4)] {
        let mut reservation = out.reserve(reserved, 20).unwrap();
        for _ in 0..used {
            reservation.seal(&mut slot, 20, NextHeader::Ipv4).unwrap();
            ivs.push(u64::from_be_bytes(slot[8..16].try_into().unwrap()));
        }
        assert_eq!(reservation.left(), u64::from(reserved - used));
        if reservation.left() == 0 {
            assert_eq!(reservation.seal(&mut slot, 20, NextHeader::Ipv4), Err(DropReason::SequenceExhausted));
        }
    }
    assert_eq!(ivs, [1, 2, 3, 4, 5, 6, 7, 14, 15, 16, 17]);
}

#[test]
fn slot_without_room_is_refused_and_costs_no_number() {
    let out = sending(Suite::Aes256Gcm);
    let mut reservation = out.reserve(1, 100).unwrap();
    for len in 0..sealed_len(20) {
        assert_eq!(reservation.seal(&mut vec![0; len], 20, NextHeader::Ipv4), Err(DropReason::TooBig));
    }
    assert_eq!(
        reservation.seal(&mut [0; 300], 101, NextHeader::Ipv4),
        Err(DropReason::TooBig),
        "more than reserved for"
    );
    assert_eq!(reservation.seal(&mut [0; 300], usize::MAX, NextHeader::Ipv4), Err(DropReason::TooBig));
    assert_eq!(reservation.seal(&mut vec![0; sealed_len(20)], 20, NextHeader::Ipv4), Ok(sealed_len(20)));
}

#[test]
fn gcm_key_stops_before_2_to_the_32_packets() {
    for suite in [Suite::Aes256Gcm, Suite::Aes128Gcm] {
        let (out, mut inbound) = (sending(suite), receiving(suite, OURS));
        out.skip_to(1 << 31);
        inbound.open(&mut seal(&out)).unwrap();
        out.skip_to((1 << 32) - 3);
        assert_eq!(out.reserve(4, 20).err(), Some(DropReason::SequenceExhausted));
        for sequence in (1_u64 << 32) - 3..1 << 32 {
            let mut datagram = seal(&out);
            assert_eq!(datagram[8..16], sequence.to_be_bytes());
            assert!(inbound.open(&mut datagram).is_ok());
        }
        for _ in 0..3 {
            assert_eq!(out.reserve(1, 20).err(), Some(DropReason::SequenceExhausted));
        }
        assert_eq!(out.usage().packets, (1 << 32) - 1);
    }
}

#[test]
fn gcm_key_stops_before_2_to_the_36_blocks() {
    let out = sending(Suite::Aes256Gcm);
    let per_packet = Suite::blocks(packet::plaintext_len(65_535));
    let packets = u32::try_from((1 << 36) / per_packet).unwrap();
    assert!(out.reserve(packets, 65_535).is_ok());
    assert_eq!(out.reserve(1, 65_535).err(), Some(DropReason::SequenceExhausted));
    assert!(u64::from(packets) < 1 << 25, "long before the packets run out");
}

#[test]
fn high_half_of_the_sequence_number_counts_on() {
    let (out, mut inbound) = (sending(Suite::ChaCha20Poly1305), receiving(Suite::ChaCha20Poly1305, OURS));
    let mut late = Vec::new();
    for step in 1..=3 {
        out.skip_to((step << 32) - 20_000);
        inbound.open(&mut seal(&out)).unwrap();
        out.skip_to((step << 32) - 2);
        late.push(seal(&out));
        for _ in 0..4 {
            assert_eq!(inbound.open(&mut seal(&out)).unwrap().arrival, Arrival::Newest);
        }
        assert_eq!(inbound.open(&mut late.remove(0)).unwrap().arrival, Arrival::Late, "from before the wrap");
    }
    assert_eq!(inbound.counters(), InboundCounters { opened: 18, late: 3, failed: 0 });
    assert_eq!(inbound.mismatched, 0);
}

#[test]
fn replayed_packet_is_dropped_before_it_is_opened() {
    let (out, mut inbound) = pair();
    let datagrams: Vec<Vec<u8>> = (0..3).map(|_| seal(&out)).collect();
    for datagram in &datagrams {
        assert!(inbound.open(&mut datagram.clone()).is_ok());
        let mut copy = datagram.clone();
        assert_eq!(inbound.open(&mut copy), Err(DropReason::Replayed));
        assert_eq!(&copy, datagram, "nothing was decrypted");
    }
    out.skip_to(20_000);
    inbound.open(&mut seal(&out)).unwrap();
    assert_eq!(inbound.open(&mut datagrams[0].clone()), Err(DropReason::TooOld));
    assert_eq!(inbound.counters(), InboundCounters { opened: 4, ..InboundCounters::default() });
}

#[test]
fn hundred_thousand_replays_are_all_refused() {
    let (out, mut inbound) = pair();
    let datagrams: Vec<Vec<u8>> = (0..1000).map(|_| seal(&out)).collect();
    assert!(datagrams.iter().all(|datagram| inbound.open(&mut datagram.clone()).is_ok()));
    let accepted = (0..100).flat_map(|_| &datagrams).filter(|datagram| inbound.open(&mut datagram.to_vec()).is_ok());
    assert_eq!(accepted.count(), 0);
}

#[test]
fn forgery_does_not_move_the_window() {
    let (out, mut inbound) = pair();
    out.skip_to(50_000);
    let mut forged = seal(&out);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(inbound.open(&mut forged), Err(DropReason::AuthenticationFailed));
    out.skip_to(1);
    assert_eq!(
        inbound.open(&mut seal(&out)).unwrap().arrival,
        Arrival::Newest,
        "number 1 would be below a moved window"
    );
    assert_eq!(inbound.counters(), InboundCounters { opened: 1, late: 0, failed: 1 });
}

#[test]
fn no_bit_can_be_changed() {
    let (out, mut inbound) = pair();
    let mut datagram = seal(&out);
    for bit in 0..datagram.len() * 8 {
        let mut changed = datagram.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(inbound.open(&mut changed).is_err(), "bit {bit}");
    }
    assert!(inbound.open(&mut datagram).is_ok());
}

#[test]
fn garbage_truncation_and_strangers_are_dropped() {
    let (out, mut inbound) = pair();
    let datagram = seal(&out);
    for len in 0..datagram.len() {
        assert!(inbound.open(&mut datagram[..len].to_vec()).is_err());
    }
    let mut stranger = datagram;
    stranger[3] ^= 1;
    assert_eq!(inbound.open(&mut stranger), Err(DropReason::UnknownSpi));
    assert!(inbound.open(&mut vec![0x85; 65_507]).is_err());
}

#[test]
fn iv_that_is_not_the_sequence_number_is_dropped_before_decryption() {
    let (_, mut inbound) = pair();
    let plaintext = [0x45, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 4];
    let plaintext = &plaintext[..];
    let mut datagram = seal_plaintext(1, 2, plaintext);
    assert_eq!(inbound.open(&mut datagram), Err(DropReason::SequenceMismatch));
    let mut datagram = seal_plaintext(1, (1 << 32) + 1, plaintext);
    assert_eq!(inbound.open(&mut datagram), Err(DropReason::SequenceMismatch), "the high half counts");
    assert_eq!((inbound.counters(), inbound.mismatched), (InboundCounters::default(), 2));
    assert!(inbound.open(&mut seal_plaintext(1, 1, plaintext)).is_ok());
}

#[test]
fn foreign_sender_may_choose_its_ivs() {
    let mut inbound = receiving(Suite::Aes256Gcm, Acceptance { iv: IvRule::Any, vouched: false });
    let plaintext = [0x45, 0, 0, 4];
    for (sequence, iv) in [(1, 0x0123_4567_89ab_cdef), (2, u64::MAX)] {
        assert!(inbound.open(&mut seal_plaintext(sequence, iv, &plaintext)).is_ok());
        assert_eq!(inbound.open(&mut seal_plaintext(sequence, iv, &plaintext)), Err(DropReason::Replayed));
    }
}

#[test]
fn peer_whose_numbers_ran_away_is_not_searched_for() {
    let (out, mut inbound) = (sending(Suite::ChaCha20Poly1305), receiving(Suite::ChaCha20Poly1305, OURS));
    inbound.open(&mut seal(&out)).unwrap();
    out.skip_to(1 << 33);
    assert_eq!(inbound.open(&mut seal(&out)), Err(DropReason::SequenceMismatch));
    assert!(!inbound.wants_rekey());
    inbound.mismatched = REKEY_AFTER_REFUSED;
    assert!(inbound.wants_rekey());
}

#[test]
fn forgeries_first_ask_for_new_keys_and_then_retire_the_sa() {
    let (out, mut inbound) = pair();
    inbound.opener.set_failed(REKEY_AFTER_REFUSED - 1);
    let mut forged = seal(&out);
    forged[20] ^= 1;
    assert!(!inbound.wants_rekey());
    assert_eq!(inbound.open(&mut forged), Err(DropReason::AuthenticationFailed));
    assert!(inbound.wants_rekey());
    inbound.opener.set_failed(Suite::Aes256Gcm.max_failures());
    assert_eq!(inbound.open(&mut seal(&out)), Err(DropReason::SaRetired));
}

#[test]
fn authenticated_nonsense_is_dropped_and_still_counts_as_seen() {
    let cases: [(&[u8], DropReason); 5] = [
        (&[0x45, 0, 0, 17], DropReason::UnknownNextHeader),
        (&[0x65, 0, 0, 4], DropReason::BadVersion),
        (&[0x45, 0, 0, 41], DropReason::BadVersion),
        (&[0x45, 2, 1, 4], DropReason::BadPadding),
        (&[0x45, 0, 200, 4], DropReason::BadPadding),
    ];
    let (_, mut inbound) = pair();
    for (sequence, (plaintext, reason)) in (1..).zip(cases) {
        assert_eq!(inbound.open(&mut seal_plaintext(sequence, sequence, plaintext)), Err(reason));
        assert_eq!(inbound.open(&mut seal_plaintext(sequence, sequence, plaintext)), Err(DropReason::Replayed));
    }
}

#[test]
fn vouched_packets_need_to_be_negotiated() {
    let out = sending(Suite::Aes256Gcm);
    let mut plain = receiving(Suite::Aes256Gcm, Acceptance { vouched: false, ..OURS });
    let mut datagram = seal_as(&out, &[0x45; 30], NextHeader::VouchedIpv4);
    assert_eq!(plain.open(&mut datagram), Err(DropReason::UnknownNextHeader));
}

#[test]
fn other_direction_and_other_suite_do_not_open() {
    let out = sending(Suite::Aes256Gcm);
    let mut other = Inbound::<AwsCipher>::new(spi(), DirectionKeys::for_test(Suite::Aes256Gcm, 8), OURS).unwrap();
    assert_eq!(other.open(&mut seal(&out)), Err(DropReason::AuthenticationFailed));
    let mut other = receiving(Suite::ChaCha20Poly1305, OURS);
    assert_eq!(other.open(&mut seal(&out)), Err(DropReason::AuthenticationFailed));
}

proptest! {
    #[test]
    fn arbitrary_datagrams_never_open(mut datagram in proptest::collection::vec(any::<u8>(), 0..200), ours: bool) {
        if ours && datagram.len() >= 16 {
            datagram[..4].copy_from_slice(&spi().get().to_be_bytes());
            datagram[4..16].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        }
        prop_assert!(pair().1.open(&mut datagram).is_err());
    }

    #[test]
    fn what_was_sealed_is_opened_once_in_any_order(
        lens in proptest::collection::vec(1_usize..1500, 1..30), order in proptest::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let (out, mut inbound) = pair();
        let datagrams: Vec<Vec<u8>> = lens.iter().map(|&len| seal_as(&out, &vec![0x45; len], NextHeader::Ipv4)).collect();
        let mut seen = std::collections::BTreeSet::new();
        for index in order {
            let at = index.index(datagrams.len());
            let expected = seen.insert(at).then_some(lens[at]);
            prop_assert_eq!(inbound.open(&mut datagrams[at].clone()).ok().map(|opened| opened.len), expected);
        }
    }
}
