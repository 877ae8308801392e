//! A server's side, for tests and fuzz targets.

use hmac::Mac;

use super::attribute::{self, MESSAGE_AUTHENTICATOR};
use super::request::Request;
use super::{AUTHENTICATOR_LEN, Authenticator, Code, HEADER_LEN, hmac_md5, length_field, md5};

/// The reply of a server to `request`: with a Message-Authenticator in front, if `authentic`, and `attributes` as they
/// are.
pub(crate) fn reply(request: &Request, code: Code, attributes: &[u8], secret: &[u8], authentic: bool) -> Vec<u8> {
    let mut all = Vec::new();
    if authentic {
        attribute::append(&mut all, MESSAGE_AUTHENTICATOR, &[0; AUTHENTICATOR_LEN]).expect("16 bytes fit");
    }
    all.extend_from_slice(attributes);
    let length = length_field(all.len().saturating_add(HEADER_LEN));
    let head = [[code.number(), request.identifier], length].concat();
    if authentic {
        let mac: Authenticator =
            hmac_md5(secret, &[&head, &request.authenticator, &all]).finalize().into_bytes().into();
        *all.get_mut(attribute::FRAME_LEN..).and_then(<[u8]>::first_chunk_mut).expect("it is in front") = mac;
    }
    let authenticator = md5(&[&head, &request.authenticator, &all, secret]);
    [&head, &authenticator[..], &all].concat()
}
