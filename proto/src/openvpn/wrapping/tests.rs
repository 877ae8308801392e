use proptest::prelude::*;

use super::tls_auth::{Digest, Direction};
use super::*;
use crate::openvpn::static_key::{KEY_LEN, StaticKey};
use crate::openvpn::test_primitives::Aws;
use crate::openvpn::wire::{KeyId, Kind, Message, SessionId, tests::packets};
use crate::role::Role;

const FIRST: Stamp = Stamp { time: 1_700_000_000, count: 1 };

fn key() -> StaticKey {
    StaticKey::new(std::array::from_fn::<_, KEY_LEN, _>(|index| u8::try_from(index).unwrap() ^ 0x35))
}

/// The client's keys and the server's, in every way they may be wrapped.
fn pairs() -> Vec<(Keys, Keys)> {
    let auth = |digest, direction| Keys::Auth(tls_auth::Keys::new(digest, &key(), direction));
    let crypt = |role| Keys::Crypt(tls_crypt::Keys::new(&key(), role));
    vec![
        (Keys::Plain, Keys::Plain),
        (auth(Digest::Sha1, Direction::Inverse), auth(Digest::Sha1, Direction::Normal)),
        (auth(Digest::Sha256, Direction::Both), auth(Digest::Sha256, Direction::Both)),
        (auth(Digest::Sha512, Direction::Inverse), auth(Digest::Sha512, Direction::Normal)),
        (crypt(Role::Client), crypt(Role::Server)),
    ]
}

fn hello() -> Packet {
    let message = Some(Message { kind: Kind::Control, number: 1, payload: b"hello".to_vec() });
    Packet { key: KeyId::FIRST, session: SessionId([9; 8]), acks: None, message }
}

#[test]
fn lengths_are_those_that_are_announced() {
    let lengths: Vec<usize> = pairs().iter().map(|(client, _)| client.overhead()).collect();
    assert_eq!(lengths, [0, 28, 40, 72, 40]);
    for (client, _) in pairs() {
        let plain = Keys::Plain.seal::<Aws>(FIRST, &hello()).unwrap();
        assert_eq!(client.seal::<Aws>(FIRST, &hello()).unwrap().len(), plain.len() + client.overhead());
    }
}

#[test]
fn any_changed_bit_is_noticed() {
    for (client, server) in pairs().into_iter().skip(1) {
        let datagram = client.seal::<Aws>(FIRST, &hello()).unwrap();
        assert!(server.open::<Aws>(&datagram).is_ok());
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(server.open::<Aws>(&changed), Err(DropReason::AuthenticationFailed), "bit {bit}");
        }
        for len in 0..datagram.len() {
            assert!(server.open::<Aws>(&datagram[..len]).is_err());
        }
    }
}

#[test]
fn own_packets_are_not_taken_for_the_peers() {
    for (client, _) in pairs().into_iter().skip(1) {
        let datagram = client.seal::<Aws>(FIRST, &hello()).unwrap();
        let is_both = client.overhead() == 40 && matches!(client, Keys::Auth(_));
        assert_eq!(client.open::<Aws>(&datagram).is_ok(), is_both, "only without a key direction");
    }
}

#[test]
fn encrypted_packets_hide_what_they_hold() {
    for (client, _) in pairs() {
        let datagram = client.seal::<Aws>(FIRST, &hello()).unwrap();
        let shows = datagram.windows(5).any(|window| window == b"hello");
        assert_eq!(shows, !matches!(client, Keys::Crypt(_)));
    }
}

#[test]
fn nothing_is_taken_twice() {
    for (client, server) in pairs().into_iter().skip(1) {
        let mut client = Wrapping::new(client, FIRST);
        let mut server = Wrapping::new(server, FIRST);
        let datagrams: Vec<_> = (0..200).map(|_| client.seal::<Aws>(&hello()).unwrap()).collect();
        for index in [0, 2, 1, 199] {
            assert!(server.open::<Aws>(&datagrams[index]).is_ok());
        }
        assert_eq!(server.open::<Aws>(&datagrams[2]), Err(DropReason::TooOld), "below the window");
        assert_eq!(server.open::<Aws>(&datagrams[199]), Err(DropReason::Replayed));
        assert!(server.open::<Aws>(&datagrams[150]).is_ok(), "late, but within the window");
    }
}

#[test]
fn later_start_of_the_peer_makes_its_former_packets_old() {
    let begun = |time| Wrapping::new(pairs().remove(4).0, Stamp { time, ..FIRST });
    let mut server = Wrapping::new(pairs().remove(4).1, FIRST);
    let old = begun(FIRST.time).seal::<Aws>(&hello()).unwrap();
    let new = begun(FIRST.time + 1).seal::<Aws>(&hello()).unwrap();
    assert!(server.open::<Aws>(&new).is_ok());
    assert_eq!(server.open::<Aws>(&old), Err(DropReason::TooOld));
}

#[test]
fn counter_does_not_wrap() {
    let (client, _) = pairs().remove(4);
    let mut client = Wrapping::new(client, Stamp { count: u32::MAX - 1, ..FIRST });
    assert!(client.seal::<Aws>(&hello()).is_ok());
    assert_eq!(client.seal::<Aws>(&hello()), Err(DropReason::SequenceExhausted));
}

#[test]
fn wrapped_key_stands_behind_the_packets_that_say_so() {
    let keys = tls_crypt::Keys::new(&key(), Role::Client);
    let mut client = Wrapping::with_wrapped_key(keys, vec![0xee; 7], FIRST);
    let with = |kind| {
        let message = Some(Message { kind, number: 0, payload: Vec::new() });
        Packet { message, ..hello() }
    };
    for kind in [Kind::ResetClientWithKey, Kind::ControlWithKey] {
        assert!(client.seal::<Aws>(&with(kind)).unwrap().ends_with(&[0xee; 7]));
    }
    assert!(!client.seal::<Aws>(&with(Kind::Control)).unwrap().ends_with(&[0xee; 7]));
}

#[test]
fn digests_have_the_names_of_configurations() {
    let names = ["SHA1", "sha256", "SHA2-512", "MD5", ""];
    let digests = names.map(Digest::from_name);
    assert_eq!(digests, [Some(Digest::Sha1), Some(Digest::Sha256), Some(Digest::Sha512), None, None]);
}

proptest! {
    #[test]
    fn what_one_end_seals_the_other_opens(packet in packets(), time in any::<u32>(), count in 1..u32::MAX) {
        let stamp = Stamp { time, count };
        for (client, server) in pairs() {
            for (sender, receiver) in [(&client, &server), (&server, &client)] {
                let (opened, with) = receiver.open::<Aws>(&sender.seal::<Aws>(stamp, &packet).unwrap()).unwrap();
                prop_assert_eq!(&opened, &packet);
                prop_assert_eq!(with, (receiver.overhead() > 0).then_some(stamp));
            }
        }
    }

    #[test]
    fn no_stranger_gets_in(datagram in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (client, server) in pairs().into_iter().skip(1) {
            prop_assert!(client.open::<Aws>(&datagram).is_err() && server.open::<Aws>(&datagram).is_err());
        }
    }
}
