use proptest::prelude::*;

use super::*;
use crate::dtls::record::{LAST_SEQUENCE, split_first};
use crate::sealing::test_cipher::AwsCipher;

const DATA: ContentType = ContentType::ApplicationData;

fn suites() -> impl Iterator<Item = CipherSuite> {
    CipherSuite::PSK.into_iter().chain(CipherSuite::RESUMED)
}

fn pair(suite: CipherSuite) -> (Outbound<AwsCipher>, Inbound<AwsCipher>) {
    let keys = || DirectionKeys::for_test(suite, 7);
    (Outbound::new(keys()).unwrap(), Inbound::new(keys()).unwrap())
}

#[test]
fn every_suite_type_and_length_round_trips() {
    for suite in suites() {
        let (outbound, mut inbound) = pair(suite);
        for content in ContentType::ALL {
            for len in 0..40 {
                let plaintext: Vec<u8> = (0..len).collect();
                let mut record = outbound.record(content, &plaintext).unwrap();
                assert_eq!(record.len(), suite.sealed_len(plaintext.len()));
                let opened = inbound.open(&mut record).unwrap();
                assert_eq!((opened.content, opened.arrival), (content, Arrival::Newest));
                assert_eq!(record[opened.range], plaintext);
            }
        }
    }
}

#[test]
fn numbers_begin_at_zero_and_gcm_repeats_them_on_the_wire() {
    for suite in suites() {
        let (outbound, _) = pair(suite);
        for sequence in 0..3 {
            let record = outbound.record(DATA, b"data").unwrap();
            let header = Header::parse(&record).unwrap();
            assert_eq!((header.epoch, header.sequence, header.version), (EPOCH, sequence, DTLS_1_2));
            let explicit = suite.explicit_nonce_len();
            assert_eq!(record[HEADER_LEN..][..explicit], header.number()[..explicit]);
        }
    }
}

#[test]
fn slots_of_one_buffer_are_sealed_in_place() {
    let (outbound, mut inbound) = pair(CipherSuite::PskAes256Gcm);
    let suite = outbound.suite();
    let sealed = suite.sealed_len(100);
    let mut buffer = vec![0x45; 64 * sealed];
    let mut numbers = outbound.reserve(64, 100).unwrap();
    for slot in buffer.chunks_mut(sealed) {
        assert_eq!(numbers.seal(slot, 100, DATA), Ok(sealed));
    }
    assert_eq!((numbers.left(), outbound.usage().packets), (0, 64));
    assert_eq!(numbers.seal(&mut [0; 200], 100, DATA), Err(DropReason::SequenceExhausted));
    for datagram in buffer.chunks_mut(sealed) {
        let opened = inbound.open(datagram).unwrap();
        assert_eq!(datagram[opened.range], [0x45; 100]);
    }
}

#[test]
fn slot_without_room_is_refused_and_costs_no_number() {
    let (outbound, _) = pair(CipherSuite::PskChaCha20Poly1305);
    let mut numbers = outbound.reserve(1, 100).unwrap();
    for len in 0..outbound.suite().sealed_len(20) {
        assert_eq!(numbers.seal(&mut vec![0; len], 20, DATA), Err(DropReason::TooBig));
    }
    assert_eq!(numbers.seal(&mut [0; 300], 101, DATA), Err(DropReason::TooBig), "more than reserved for");
    assert_eq!(numbers.seal(&mut [0; 300], usize::MAX, DATA), Err(DropReason::TooBig));
    assert_eq!(numbers.left(), 1);
    let mut largest = vec![0; outbound.suite().sealed_len(MAX_PLAINTEXT + 1)];
    let mut numbers = outbound.reserve(2, MAX_PLAINTEXT + 1).unwrap();
    assert_eq!(numbers.seal(&mut largest, MAX_PLAINTEXT + 1, DATA), Err(DropReason::TooBig));
    assert!(numbers.seal(&mut largest, MAX_PLAINTEXT, DATA).is_ok());
}

#[test]
fn none_of_100_000_replayed_records_is_opened() {
    let (outbound, mut inbound) = pair(CipherSuite::PskAes128Gcm);
    let records: Vec<Vec<u8>> = (0..1000).map(|_| outbound.record(DATA, b"once").unwrap()).collect();
    for record in &records {
        assert!(inbound.open(&mut record.clone()).is_ok(), "the first copy is opened");
    }
    for record in records.iter().cycle().take(100_000) {
        assert_eq!(inbound.open(&mut record.clone()), Err(DropReason::Replayed));
    }
    assert_eq!((inbound.counters().opened, inbound.counters().failed), (1000, 0));
}

#[test]
fn late_records_are_opened_as_far_as_the_window_reaches() {
    let (outbound, mut inbound) = pair(CipherSuite::PskAes128Gcm);
    let width = crate::sealing::replay::WIDTH;
    assert!(width >= 1024);
    let [mut too_old, mut oldest] = [0, 1].map(|_| outbound.record(DATA, b"late").unwrap());
    outbound.skip_to(width);
    assert!(inbound.open(&mut outbound.record(DATA, b"newest").unwrap()).is_ok());
    assert_eq!(inbound.open(&mut oldest).map(|opened| opened.arrival), Ok(Arrival::Late));
    assert_eq!(inbound.open(&mut too_old), Err(DropReason::TooOld));
    assert_eq!(inbound.counters().late, 1);
}

#[test]
fn every_changed_bit_is_noticed() {
    for suite in CipherSuite::PSK {
        let (outbound, mut inbound) = pair(suite);
        let record = outbound.record(DATA, b"data").unwrap();
        for bit in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(inbound.open(&mut changed).is_err(), "{} bit {bit}", suite.name());
        }
        assert!(inbound.open(&mut record.clone()).is_ok(), "nothing of that moved the window");
    }
}

#[test]
fn record_of_another_epoch_version_or_key_is_not_opened() {
    let (outbound, mut inbound) = pair(CipherSuite::PskAes256Gcm);
    let mut record = outbound.record(DATA, b"data").unwrap();
    for (place, byte, reason) in
        [(4, 0, DropReason::UnknownEpoch), (4, 2, DropReason::UnknownEpoch), (2, 0xff, DropReason::BadRecord)]
    {
        let mut other = record.clone();
        other[place] = byte;
        assert_eq!(inbound.open(&mut other), Err(reason));
    }
    let mut stranger = Inbound::<AwsCipher>::new(DirectionKeys::for_test(outbound.suite(), 8)).unwrap();
    assert_eq!(stranger.open(&mut record.clone()), Err(DropReason::AuthenticationFailed));
    assert!(inbound.open(&mut record).is_ok());
}

#[test]
fn record_without_room_for_a_tag_is_dropped() {
    for suite in CipherSuite::PSK {
        let (_, mut inbound) = pair(suite);
        for length in 0..suite.sealed_len(0) - HEADER_LEN {
            let header = Header {
                content: DATA,
                version: DTLS_1_2,
                epoch: EPOCH,
                sequence: 9,
                length: u16::try_from(length).unwrap(),
            };
            let mut record = [&header.encode()[..], &vec![0; length]].concat();
            assert_eq!(inbound.open(&mut record), Err(DropReason::Truncated), "{} {length}", suite.name());
        }
        assert_eq!(inbound.counters().failed, 0, "the cipher was not asked");
    }
}

#[test]
fn numbers_never_wrap() {
    for suite in CipherSuite::PSK {
        let (outbound, mut inbound) = pair(suite);
        // The last number that the cipher permits is one less here, as those of DTLS begin at 0.
        let last = suite.aead().last_sequence() - FIRST;
        assert!(last < LAST_SEQUENCE);
        outbound.skip_to(last);
        let mut record = outbound.record(DATA, b"last").unwrap();
        assert_eq!(Header::parse(&record).unwrap().sequence, last);
        assert!(inbound.open(&mut record).is_ok());
        assert_eq!(outbound.record(DATA, b"beyond"), Err(DropReason::SequenceExhausted));
        let header = Header { content: DATA, version: DTLS_1_2, epoch: EPOCH, sequence: LAST_SEQUENCE, length: 40 };
        let mut forged = [&header.encode()[..], &[0; 40]].concat();
        assert_eq!(inbound.open(&mut forged), Err(DropReason::AuthenticationFailed), "the largest number of all");
    }
}

proptest! {
    #[test]
    fn records_packed_into_a_datagram_are_opened_one_by_one(lengths in proptest::collection::vec(0_usize..300, 1..8)) {
        let (outbound, mut inbound) = pair(CipherSuite::PskAes256Gcm);
        let records: Vec<_> = lengths.iter().map(|len| outbound.record(DATA, &vec![9; *len]).unwrap()).collect();
        let mut datagram = records.concat();
        let mut rest = &mut datagram[..];
        for len in lengths {
            let (_, record, after) = split_first(rest).unwrap();
            let opened = inbound.open(record).unwrap();
            prop_assert_eq!(&record[opened.range], &vec![9; len][..]);
            rest = after;
        }
        prop_assert!(rest.is_empty());
    }
}
