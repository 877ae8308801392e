//! Bodies of the targets for RADIUS.

use crate::radius::attribute::MESSAGE_AUTHENTICATOR;
use crate::radius::reply::{MessageAuthenticator, Reply};
use crate::radius::request::Draft;
use crate::radius::{AUTHENTICATOR_LEN, Code, HEADER_LEN, MAX_PACKET, attribute, double};

const SECRET: &[u8] = b"nobody who makes inputs knows it";

/// Bytes of a Message-Authenticator with its type and length.
const MESSAGE_AUTHENTICATOR_LEN: usize = 18;

/// No datagram of a stranger is believed. The same bytes as attributes of a server's reply are believed where they are
/// attributes, and what is read of them is what they say.
pub fn radius_reply(data: &[u8]) {
    let request = Draft::access(7, [3; AUTHENTICATOR_LEN]).seal(SECRET);
    assert!(Reply::read(data, &request, SECRET, MessageAuthenticator::Required).is_err());
    let room = MAX_PACKET.saturating_sub(HEADER_LEN).saturating_sub(MESSAGE_AUTHENTICATOR_LEN);
    let attributes = data.get(..data.len().min(room)).unwrap_or_default();
    let answer = double::reply(&request, Code::AccessAccept, attributes, SECRET, true);
    let read = Reply::read(&answer, &request, SECRET, MessageAuthenticator::Required);
    let has_second = attribute::each(attributes).any(|(kind, _)| kind == MESSAGE_AUTHENTICATOR);
    assert_eq!(read.is_ok(), attribute::are_whole(attributes) && !has_second);
    let Ok(reply) = read else { return };
    for kind in 0..=u8::MAX {
        let values = reply.values(kind).filter(|_| kind != MESSAGE_AUTHENTICATOR);
        let told = attribute::each(attributes).filter(|(found, _)| *found == kind).map(|(_, value)| value);
        assert!(values.eq(told), "attributes come through");
    }
}
