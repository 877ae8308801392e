use proptest::prelude::*;

use super::super::attribute::{CLASS, MAX_VALUE, STATE, USER_NAME};
use super::super::double::reply;
use super::super::request::{Draft, MAX_PASSWORD};
use super::*;

const SECRET: &[u8] = b"a secret of the lab";

fn request() -> Request {
    let draft = Draft::access(9, [5; 16]).text(USER_NAME, "alice").unwrap();
    draft.password(b"wonderland", SECRET).unwrap().seal(SECRET)
}

fn read(datagram: &[u8]) -> Result<Reply, ReplyFault> {
    Reply::read(datagram, &request(), SECRET, MessageAuthenticator::Required)
}

fn class(value: &[u8]) -> Vec<u8> {
    let mut attributes = Vec::new();
    attribute::append(&mut attributes, CLASS, value).unwrap();
    attributes
}

#[test]
fn reply_with_every_proof_is_believed() {
    for code in [Code::AccessAccept, Code::AccessReject, Code::AccessChallenge] {
        let found = read(&reply(&request(), code, &class(b"staff"), SECRET, true)).unwrap();
        assert_eq!(found.code, code);
        assert_eq!(found.values(CLASS).collect::<Vec<_>>(), [b"staff"]);
        assert_eq!(found.values(STATE).count(), 0);
    }
}

#[test]
fn reply_without_message_authenticator_is_not_believed_whatever_it_says() {
    for code in [Code::AccessAccept, Code::AccessReject, Code::AccessChallenge] {
        let bare = reply(&request(), code, &class(b"staff"), SECRET, false);
        assert_eq!(read(&bare), Err(ReplyFault::NoMessageAuthenticator));
        // It is that alone which is missing.
        assert!(Reply::read(&bare, &request(), SECRET, MessageAuthenticator::Optional).is_ok());
    }
}

#[test]
fn wrong_message_authenticator_is_refused_even_where_none_is_required() {
    let mut forged = Vec::new();
    attribute::append(&mut forged, MESSAGE_AUTHENTICATOR, &[7; 16]).unwrap();
    let forged = reply(&request(), Code::AccessAccept, &forged, SECRET, false);
    let read = Reply::read(&forged, &request(), SECRET, MessageAuthenticator::Optional);
    assert_eq!(read, Err(ReplyFault::WrongMessageAuthenticator));
}

#[test]
fn second_message_authenticator_is_refused() {
    let mut second = Vec::new();
    attribute::append(&mut second, MESSAGE_AUTHENTICATOR, &[0; 16]).unwrap();
    let twice = reply(&request(), Code::AccessAccept, &second, SECRET, true);
    assert_eq!(read(&twice), Err(ReplyFault::WrongMessageAuthenticator));
}

#[test]
fn reply_made_with_another_secret_is_refused() {
    let other = reply(&request(), Code::AccessAccept, &[], b"another secret", true);
    assert_eq!(read(&other), Err(ReplyFault::WrongAuthenticator));
}

#[test]
fn reply_to_another_request_is_refused() {
    let later = Draft::access(9, [6; 16]).seal(SECRET);
    assert_eq!(read(&reply(&later, Code::AccessAccept, &[], SECRET, true)), Err(ReplyFault::WrongAuthenticator));
    let other = Draft::access(10, [5; 16]).seal(SECRET);
    assert_eq!(read(&reply(&other, Code::AccessAccept, &[], SECRET, true)), Err(ReplyFault::OtherRequest));
}

#[test]
fn reply_of_another_kind_is_refused() {
    for code in [Code::AccountingResponse, Code::AccessRequest, Code::StatusServer] {
        assert_eq!(read(&reply(&request(), code, &[], SECRET, true)), Err(ReplyFault::OtherCode));
    }
}

#[test]
fn padding_behind_the_packet_is_ignored_and_a_cut_one_refused() {
    let whole = reply(&request(), Code::AccessAccept, &class(b"staff"), SECRET, true);
    let padded = [&whole[..], &[0xff; 9]].concat();
    assert!(read(&padded).is_ok());
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), Err(ReplyFault::Malformed));
    }
}

#[test]
fn attribute_that_does_not_end_within_the_packet_is_refused() {
    for attributes in [&[CLASS, 1][..], &[CLASS, 0], &[CLASS, 9, 1], &[CLASS]] {
        let broken = reply(&request(), Code::AccessAccept, attributes, SECRET, false);
        assert_eq!(read(&broken), Err(ReplyFault::Malformed), "{attributes:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let draft = || Draft::access(0, [0; 16]);
    assert!(draft().text(USER_NAME, "").is_err());
    assert!(draft().bytes(STATE, &[0; MAX_VALUE]).is_ok());
    assert!(draft().bytes(STATE, &[0; MAX_VALUE + 1]).is_err());
    assert!(draft().password(b"", SECRET).is_err());
    assert!(draft().password(&[b'x'; MAX_PASSWORD], SECRET).is_ok());
    assert!(draft().password(&[b'x'; MAX_PASSWORD + 1], SECRET).is_err());
    let full = (0..15).try_fold(draft(), |draft, _| draft.bytes(STATE, &[0; MAX_VALUE])).unwrap();
    assert!(full.bytes(STATE, &[0; MAX_VALUE]).is_err());
}

/// Undoes what [`Draft::password`] does, written apart.
fn reveal(hidden: &[u8], authenticator: &[u8]) -> Vec<u8> {
    let mut clear = Vec::new();
    let mut before = authenticator.to_vec();
    for piece in hidden.chunks(16) {
        let mask = md5(&[SECRET, &before]);
        clear.extend(piece.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        before = piece.to_vec();
    }
    while clear.last() == Some(&0) {
        clear.pop();
    }
    clear
}

proptest! {
    #[test]
    fn password_of_any_length_can_be_revealed_by_the_server(
        password in proptest::collection::vec(1_u8.., 1..=MAX_PASSWORD),
        authenticator: [u8; 16],
    ) {
        let request = Draft::access(1, authenticator).password(&password, SECRET).unwrap().seal(SECRET);
        let hidden = request.packet()[HEADER_LEN + 18 + 2..].to_vec();
        prop_assert_eq!(hidden.len() % 16, 0);
        prop_assert_eq!(reveal(&hidden, &authenticator), password);
    }

    #[test]
    fn no_datagram_makes_reading_panic_or_is_believed(datagram in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&datagram).is_err());
    }

    #[test]
    fn no_changed_byte_is_overlooked(
        value in proptest::collection::vec(any::<u8>(), 1..40),
        at: proptest::sample::Index,
        change in 1_u8..,
    ) {
        let mut datagram = reply(&request(), Code::AccessReject, &class(&value), SECRET, true);
        prop_assert!(read(&datagram).is_ok());
        let at = at.index(datagram.len());
        datagram[at] ^= change;
        prop_assert!(read(&datagram).is_err());
    }

    #[test]
    fn attributes_are_read_as_they_were_written(
        values in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 1..=MAX_VALUE)), 0..8),
    ) {
        let mut written = Vec::new();
        for (kind, value) in &values {
            attribute::append(&mut written, *kind, value).unwrap();
        }
        let read: Vec<_> = attribute::each(&written).map(|(kind, value)| (kind, value.to_vec())).collect();
        prop_assert!(attribute::are_whole(&written));
        prop_assert_eq!(read, values);
    }
}
