use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::inbound::Inbound;
use super::keys::{DirectionKeys, EXPORTED_LEN, EpochSecret, Exported};
use super::outbound::Outbound;
use super::*;
use crate::role::Role;
use crate::sealing::replay::Arrival;
use crate::sealing::suite::Suite;
use crate::sealing::test_cipher::AwsCipher;

const PEER: u32 = 0x01_0203;
const FORMATS: [Format; 2] = [Format::V2, Format::Epoch];

fn exported() -> Exported {
    Exported::new(std::array::from_fn::<_, EXPORTED_LEN, _>(|index| u8::try_from(index).unwrap()))
}

fn key_id() -> KeyId {
    KeyId::new(1).unwrap()
}

fn outbound_of(keys: DirectionKeys) -> Outbound<AwsCipher> {
    Outbound::new(keys, key_id(), PEER).unwrap()
}

fn first(suite: Suite) -> EpochSecret {
    exported().first_epoch(suite, Role::Client)
}

/// What a client sends with, and its server receives with.
fn pair(suite: Suite, format: Format) -> (Outbound<AwsCipher>, Inbound<AwsCipher>) {
    match format {
        Format::V2 => {
            let keys = || exported().v2(suite, Role::Client);
            (outbound_of(keys()), Inbound::v2(keys(), key_id()).unwrap())
        }
        Format::Epoch => (outbound_of(first(suite).keys()), Inbound::epochs(first(suite), key_id()).unwrap()),
    }
}

fn pairs() -> impl Iterator<Item = (Outbound<AwsCipher>, Inbound<AwsCipher>)> {
    FORMATS.into_iter().flat_map(|format| Suite::ALL.map(|suite| pair(suite, format)))
}

fn open(inbound: &mut Inbound<AwsCipher>, datagram: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut datagram = datagram.to_vec();
    inbound.open(&mut datagram).map(|opened| datagram[opened.range].to_vec())
}

/// The sending half of an epoch of the same keys.
fn outbound_at(epoch: u16) -> Outbound<AwsCipher> {
    let mut secret = first(Suite::Aes256Gcm);
    while secret.epoch() < epoch {
        secret = secret.next().unwrap();
    }
    outbound_of(secret.keys())
}

#[test]
fn every_suite_format_and_length_round_trips() {
    for (outbound, mut inbound) in pairs() {
        for len in 0..40 {
            let plaintext: Vec<u8> = (0..len).collect();
            let datagram = outbound.datagram(&plaintext).unwrap();
            assert_eq!(datagram.len(), outbound.format().sealed_len(plaintext.len()));
            assert_eq!(Preface::parse(&datagram), Ok(Preface { key: key_id(), peer_id: PEER }));
            assert_eq!(open(&mut inbound, &datagram), Ok(plaintext));
        }
        assert_eq!(inbound.counters().opened, 40);
    }
    assert_eq!(FORMATS.map(|format| format.sealed_len(0)), [24, 28]);
}

#[test]
fn numbers_begin_at_one_and_lie_where_openvpn_has_them() {
    let (v2, epoch) = (pair(Suite::Aes256Gcm, Format::V2).0, pair(Suite::Aes256Gcm, Format::Epoch).0);
    for number in 1..4_u8 {
        assert_eq!(v2.datagram(b"data").unwrap()[..8], [0x49, 1, 2, 3, 0, 0, 0, number]);
        assert_eq!(epoch.datagram(b"data").unwrap()[..12], [0x49, 1, 2, 3, 0, 1, 0, 0, 0, 0, 0, number]);
    }
}

#[test]
fn v2_has_its_tag_in_front_under_the_nonce_that_openvpn_makes() {
    use crate::sealing::aead::Aead;
    let (outbound, _) = pair(Suite::Aes256Gcm, Format::V2);
    let datagram = outbound.datagram(b"data").unwrap();
    let key: Vec<u8> = (0..32).collect();
    let cipher = AwsCipher::new(Suite::Aes256Gcm, &key).unwrap();
    let mut body = *b"data";
    let tag = cipher.seal([0, 0, 0, 1, 64, 65, 66, 67, 68, 69, 70, 71], &datagram[..8], &mut body).unwrap();
    assert_eq!(datagram[8..], [&tag[..], &body].concat());
}

/// Computed with another implementation of HMAC.
#[test]
fn epochs_have_the_keys_that_the_labels_give() {
    let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
    let first = first(Suite::Aes256Gcm);
    assert_eq!(hex(first.keys().key()), "ebbbf838a8658beb56f2324d691351bd4c8c230fb271ada8f67de830b7ee3192");
    assert_eq!(hex(&first.keys().iv), "568de14f8f744bfb0b721f66");
    let second = exported().first_epoch(Suite::Aes128Gcm, Role::Client).next().unwrap();
    assert_eq!(second.epoch(), 2);
    assert_eq!(hex(second.keys().key()), "2586116e6e44094e7e8659d311948333");
    assert_eq!(hex(&second.keys().iv), "9caaa619cb6277bbb0e90c48");
}

#[test]
fn epochs_end() {
    let mut secret = first(Suite::Aes256Gcm);
    let mut count = 1;
    while let Some(next) = secret.next() {
        (secret, count) = (next, count + 1);
    }
    assert_eq!((secret.epoch(), count), (u16::MAX, 65_535));
}

#[test]
fn directions_have_keys_of_their_own() {
    let of = |role| (exported().v2(Suite::Aes256Gcm, role), exported().first_epoch(Suite::Aes256Gcm, role).keys());
    let ((client, client_epoch), (server, server_epoch)) = (of(Role::Client), of(Role::Server));
    assert_eq!((client.key()[0], client.iv[0]), (0, 64));
    assert_eq!((server.key()[0], server.iv[0]), (128, 192));
    assert_ne!(client_epoch.key(), server_epoch.key());
}

#[test]
fn slots_of_one_buffer_are_sealed_in_place() {
    for (outbound, mut inbound) in pairs() {
        let (prefix, sealed) = (outbound.format().prefix_len(), outbound.format().sealed_len(100));
        let mut buffer = vec![0x45; 64 * sealed];
        let mut numbers = outbound.reserve(64, 100).unwrap();
        for slot in buffer.chunks_mut(sealed) {
            slot[..prefix].fill(0xff);
            assert_eq!(numbers.seal(slot, 100), Ok(sealed));
        }
        assert_eq!((numbers.left(), outbound.usage().packets), (0, 64));
        assert_eq!(numbers.seal(&mut [0; 200], 100), Err(DropReason::SequenceExhausted));
        for slot in buffer.chunks(sealed) {
            assert_eq!(open(&mut inbound, slot), Ok(vec![0x45; 100]));
        }
    }
}

#[test]
fn what_does_not_fit_is_not_sealed() {
    for (outbound, _) in pairs() {
        let sealed = outbound.format().sealed_len(100);
        let seal = |len: usize, plaintext| outbound.reserve(1, 100).unwrap().seal(&mut vec![0; len], plaintext);
        assert_eq!(seal(sealed, 100), Ok(sealed));
        assert_eq!(seal(sealed - 1, 100), Err(DropReason::TooBig));
        assert_eq!(seal(sealed + 1, 101), Err(DropReason::TooBig));
        assert_eq!(seal(0, 0), Err(DropReason::TooBig));
    }
}

#[test]
fn any_changed_bit_is_noticed() {
    for (outbound, mut inbound) in pairs() {
        let datagram = outbound.datagram(b"data").unwrap();
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut inbound, &changed).is_err(), "bit {bit}");
        }
        for len in 0..datagram.len() {
            assert!(open(&mut inbound, &datagram[..len]).is_err());
        }
        assert_eq!(open(&mut inbound, &datagram), Ok(b"data".to_vec()), "and nothing of that changed anything");
    }
}

#[test]
fn nothing_is_taken_twice_and_late_is_told_apart() {
    for (outbound, mut inbound) in pairs() {
        let datagrams: Vec<_> = (0..3).map(|_| outbound.datagram(b"data").unwrap()).collect();
        let mut arrival = |index: usize| inbound.open(&mut datagrams[index].clone()).map(|opened| opened.arrival);
        assert_eq!(arrival(2), Ok(Arrival::Newest));
        assert_eq!(arrival(0), Ok(Arrival::Late));
        assert_eq!(arrival(0), Err(DropReason::Replayed));
    }
}

#[test]
fn number_that_has_no_room_on_the_wire_is_never_used() {
    let (outbound, _) = pair(Suite::ChaCha20Poly1305, Format::V2);
    outbound.skip_to(u32::MAX.into());
    assert!(outbound.datagram(b"last").is_ok());
    assert_eq!(outbound.datagram(b"none"), Err(DropReason::SequenceExhausted));
    let (outbound, _) = pair(Suite::ChaCha20Poly1305, Format::Epoch);
    outbound.skip_to((1 << 48) - 1);
    assert!(outbound.datagram(b"last").is_ok());
    assert_eq!(outbound.datagram(b"none"), Err(DropReason::SequenceExhausted));
}

#[test]
fn key_is_worn_before_it_ends() {
    for format in FORMATS {
        for suite in Suite::ALL {
            let is_wide = (suite, format) == (Suite::ChaCha20Poly1305, Format::Epoch);
            let last: u64 = if is_wide { (1 << 48) - 1 } else { (1 << 32) - 1 };
            let (outbound, _) = pair(suite, format);
            outbound.skip_to(last / 8 * 7);
            assert!(!outbound.is_worn());
            outbound.skip_to(last / 8 * 7 + 1);
            assert!(outbound.is_worn());
        }
    }
}

#[test]
fn datagrams_of_other_keys_are_left_alone() {
    let (outbound, mut inbound) = pair(Suite::Aes256Gcm, Format::V2);
    let mut datagram = outbound.datagram(b"data").unwrap();
    datagram[0] = 0x48;
    assert_eq!(open(&mut inbound, &datagram), Err(DropReason::UnknownSpi));
    datagram[0] = 0x31;
    assert_eq!(open(&mut inbound, &datagram), Err(DropReason::UnknownSpi), "data v1");
    assert_eq!(inbound.counters().failed, 0);
    assert!(Inbound::<AwsCipher>::v2(first(Suite::Aes256Gcm).keys(), key_id()).is_err());
}

#[test]
fn peer_may_be_four_epochs_ahead_and_not_five() {
    let datagram = |epoch| outbound_at(epoch).datagram(b"data").unwrap();
    let (_, mut inbound) = pair(Suite::Aes256Gcm, Format::Epoch);
    assert_eq!(open(&mut inbound, &datagram(6)), Err(DropReason::UnknownEpoch));
    assert_eq!(inbound.epoch(), 1);
    assert!(open(&mut inbound, &datagram(5)).is_ok());
    assert_eq!(inbound.epoch(), 5);
    assert!(open(&mut inbound, &datagram(9)).is_ok());
    assert_eq!(open(&mut inbound, &datagram(0)), Err(DropReason::UnknownEpoch));
}

#[test]
fn former_epoch_is_still_opened_and_the_one_before_it_not() {
    let (_, mut inbound) = pair(Suite::Aes256Gcm, Format::Epoch);
    let [one, two, three] = [1, 2, 3].map(outbound_at);
    assert!(open(&mut inbound, &two.datagram(b"data").unwrap()).is_ok());
    let late = inbound.open(&mut one.datagram(b"data").unwrap()).unwrap();
    assert_eq!(late.arrival, Arrival::Late);
    assert!(open(&mut inbound, &three.datagram(b"data").unwrap()).is_ok());
    assert!(open(&mut inbound, &two.datagram(b"data").unwrap()).is_ok());
    assert_eq!(open(&mut inbound, &one.datagram(b"data").unwrap()), Err(DropReason::UnknownEpoch));
    let counters = inbound.counters();
    assert_eq!((counters.opened, counters.failed), (4, 0), "what is forgotten still counts");
}

#[test]
fn forged_epoch_changes_nothing() {
    let (outbound, mut inbound) = pair(Suite::Aes256Gcm, Format::Epoch);
    for epoch in [2, 3, 4, 5, 5, 2] {
        let mut forged = outbound.datagram(b"data").unwrap();
        forged[5] = epoch;
        assert_eq!(open(&mut inbound, &forged), Err(DropReason::AuthenticationFailed));
        assert_eq!(inbound.epoch(), 1);
    }
    assert_eq!(inbound.counters().failed, 6);
    assert!(open(&mut inbound, &outbound.datagram(b"data").unwrap()).is_ok());
    assert!(open(&mut inbound, &outbound_at(4).datagram(b"data").unwrap()).is_ok(), "an epoch that a forger named");
}

#[test]
fn messages_between_programs_are_told_from_packets() {
    assert_eq!(Content::of(&PING), Content::Ping);
    assert_eq!(Content::of(&EXIT), Content::Exit);
    assert_eq!(Content::of(&[&PROGRAM[..], &[0]].concat()), Content::Program);
    for packet in [&[][..], &[0x45; 20], &[0x60; 40], &PING[..15], &[&PING[..], &[0]].concat()] {
        assert_eq!(Content::of(packet), Content::Packet);
    }
}

proptest! {
    #[test]
    fn no_datagram_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..80), has_head in any::<bool>()) {
        let bytes = if has_head { [&[0x49][..], &bytes].concat() } else { bytes };
        for (_, mut inbound) in pairs() {
            prop_assert!(open(&mut inbound, &bytes).is_err());
        }
    }

    #[test]
    fn packets_come_through_in_any_order(
        order in Just((0..20_usize).collect::<Vec<_>>()).prop_shuffle(),
        plaintext in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        for (outbound, mut inbound) in pairs() {
            let datagrams: Vec<_> = (0..20).map(|_| outbound.datagram(&plaintext).unwrap()).collect();
            for index in &order {
                prop_assert_eq!(open(&mut inbound, &datagrams[*index]), Ok(plaintext.clone()));
            }
        }
    }
}
