//! Frame types (RFC 9114 section 7.2) and the head of a frame.
//!
//! ```text
//! type (varint)  length (varint)  payload (length bytes)
//! ```

use super::error::{Code, Error};
use crate::varint;

/// Part of a message's content (RFC 9114 section 7.2.1).
pub const DATA: u64 = 0x00;
/// A field section (RFC 9114 section 7.2.2).
pub const HEADERS: u64 = 0x01;
/// Withdraws a server push (RFC 9114 section 7.2.3).
pub const CANCEL_PUSH: u64 = 0x03;
/// The sender's settings, first on its control stream (RFC 9114 section 7.2.4).
pub const SETTINGS: u64 = 0x04;
/// Announces a server push (RFC 9114 section 7.2.5).
pub const PUSH_PROMISE: u64 = 0x05;
/// Announces that no further requests are taken (RFC 9114 section 7.2.6).
pub const GOAWAY: u64 = 0x07;
/// Permits server pushes (RFC 9114 section 7.2.7).
pub const MAX_PUSH_ID: u64 = 0x0d;

/// Types of HTTP/2 with no meaning here: PRIORITY, PING, WINDOW_UPDATE, CONTINUATION (RFC 9114 section 11.2.1).
const RESERVED_BY_HTTP2: [u64; 4] = [0x02, 0x06, 0x08, 0x09];

/// Refuses the frame types that HTTP/2 used and HTTP/3 forbids.
///
/// > These frame types MUST NOT be sent, and their receipt MUST be treated as a connection error of type
/// > H3_FRAME_UNEXPECTED. (RFC 9114 section 7.2.8)
pub(crate) fn refuse_reserved(kind: u64) -> Result<(), Error> {
    if RESERVED_BY_HTTP2.contains(&kind) {
        return Err(Error::connection(Code::FRAME_UNEXPECTED, "frame type reserved by HTTP/2"));
    }
    Ok(())
}

/// Appends a frame's head and payload to `out`.
pub fn encode(kind: u64, payload: &[u8], out: &mut Vec<u8>) {
    varint::encode(kind, out);
    varint::encode(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_has_type_length_and_payload() {
        let mut out = Vec::new();
        encode(HEADERS, b"ab", &mut out);
        encode(0x21, &[0; 64], &mut out);
        assert_eq!(out.get(..7), Some(&[1, 2, b'a', b'b', 0x21, 0x40, 64][..]));
        assert_eq!(out.len(), 7 + 64);
    }

    #[test]
    fn http2_types_are_refused_and_greased_ones_are_not() {
        for kind in RESERVED_BY_HTTP2 {
            assert_eq!(refuse_reserved(kind).unwrap_err().code(), Code::FRAME_UNEXPECTED);
        }
        for kind in [DATA, HEADERS, 0x21, 0x40, 0x1f * 1000 + 0x21] {
            assert_eq!(refuse_reserved(kind), Ok(()));
        }
    }
}
