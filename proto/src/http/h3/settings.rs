//! The payload of a SETTINGS frame (RFC 9114 section 7.2.4): pairs of identifier and value, both variable-length
//! integers.

use std::collections::BTreeSet;

use super::error::{Code, Error};
use crate::varint;

/// Capacity of the sender's QPACK dynamic table (RFC 9204 section 5).
const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
/// Largest field section the sender takes (RFC 9114 section 7.2.4.1).
const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
/// Streams that may wait for the dynamic table (RFC 9204 section 5).
const QPACK_BLOCKED_STREAMS: u64 = 0x07;
/// The sender takes Extended CONNECT requests (RFC 9220 section 3).
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
/// The sender takes HTTP datagrams in QUIC DATAGRAM frames (RFC 9297 section 2.1.1).
const H3_DATAGRAM: u64 = 0x33;

/// Settings of HTTP/2 that HTTP/3 forbids (RFC 9114 section 7.2.4.1); 0x00 is reserved as well (section 11.2.2).
const RESERVED_BY_HTTP2: [u64; 5] = [0x00, 0x02, 0x03, 0x04, 0x05];

/// What an endpoint says of itself when the connection begins. Settings this crate does not know are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Bytes the sender's QPACK dynamic table may take; this crate never uses one.
    pub qpack_max_table_capacity: u64,
    /// Largest field section the sender takes, in bytes counted as in RFC 9114 section 4.2.2; `None` is unlimited.
    pub max_field_section_size: Option<u64>,
    /// Streams that may wait for the sender's dynamic table.
    pub qpack_blocked_streams: u64,
    /// The sender is a server that takes Extended CONNECT (RFC 9220).
    ///
    /// A client waits for this before it sends `:protocol` (RFC 8441 section 3).
    pub connect_protocol: bool,
    /// The sender takes HTTP datagrams in QUIC DATAGRAM frames (RFC 9297).
    pub datagrams: bool,
}

impl Settings {
    /// Appends the payload of a SETTINGS frame to `out`; settings at their defaults are left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let pairs = [
            (QPACK_MAX_TABLE_CAPACITY, (self.qpack_max_table_capacity != 0).then_some(self.qpack_max_table_capacity)),
            (MAX_FIELD_SECTION_SIZE, self.max_field_section_size),
            (QPACK_BLOCKED_STREAMS, (self.qpack_blocked_streams != 0).then_some(self.qpack_blocked_streams)),
            (ENABLE_CONNECT_PROTOCOL, self.connect_protocol.then_some(1)),
            (H3_DATAGRAM, self.datagrams.then_some(1)),
        ];
        for (identifier, value) in pairs {
            if let Some(value) = value {
                varint::encode(identifier, out);
                varint::encode(value, out);
            }
        }
    }

    /// Decodes the payload of a SETTINGS frame.
    ///
    /// # Errors
    /// Closes the connection with H3_SETTINGS_ERROR for a forbidden or repeated identifier or a value out of range (RFC
    /// 9114 section 7.2.4), and with H3_FRAME_ERROR if the payload ends inside a pair (section 7.1).
    pub fn decode(mut payload: &[u8]) -> Result<Self, Error> {
        let mut settings = Self::default();
        let mut seen = BTreeSet::new();
        while !payload.is_empty() {
            let truncated = Error::connection(Code::FRAME_ERROR, "SETTINGS ends inside a setting");
            let identifier = varint::take(&mut payload).ok_or(truncated)?;
            let value = varint::take(&mut payload).ok_or(truncated)?;
            if !seen.insert(identifier) {
                return Err(Error::connection(Code::SETTINGS_ERROR, "setting given twice"));
            }
            settings.set(identifier, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, identifier: u64, value: u64) -> Result<(), Error> {
        match identifier {
            QPACK_MAX_TABLE_CAPACITY => self.qpack_max_table_capacity = value,
            MAX_FIELD_SECTION_SIZE => self.max_field_section_size = Some(value),
            QPACK_BLOCKED_STREAMS => self.qpack_blocked_streams = value,
            ENABLE_CONNECT_PROTOCOL => self.connect_protocol = flag(value)?,
            H3_DATAGRAM => self.datagrams = flag(value)?,
            reserved if RESERVED_BY_HTTP2.contains(&reserved) => {
                return Err(Error::connection(Code::SETTINGS_ERROR, "setting reserved by HTTP/2"));
            }
            _unknown => {}
        }
        Ok(())
    }
}

/// A setting that must be 0 or 1 (RFC 8441 section 3, RFC 9297 section 2.1.1).
fn flag(value: u64) -> Result<bool, Error> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::connection(Code::SETTINGS_ERROR, "setting is neither 0 nor 1")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(payload: &[u8]) -> Code {
        let error = Settings::decode(payload).unwrap_err();
        assert!(error.ends_connection());
        error.code()
    }

    #[test]
    fn known_settings_decode_and_greased_ones_are_ignored() {
        let payload = [0x06, 0x80, 0, 0x40, 0, 0x08, 1, 0x33, 1, 0x21, 5, 0x40, 0x40, 9];
        let expected = Settings {
            max_field_section_size: Some(16_384),
            connect_protocol: true,
            datagrams: true,
            ..Settings::default()
        };
        assert_eq!(Settings::decode(&payload), Ok(expected));
        assert_eq!(Settings::decode(&[]), Ok(Settings::default()));
    }

    #[test]
    fn http2_settings_are_a_settings_error() {
        for identifier in RESERVED_BY_HTTP2 {
            assert_eq!(code(&[u8::try_from(identifier).unwrap(), 0]), Code::SETTINGS_ERROR);
        }
    }

    #[test]
    fn flag_that_is_neither_0_nor_1_is_a_settings_error() {
        assert_eq!(code(&[0x33, 2]), Code::SETTINGS_ERROR);
        assert_eq!(code(&[0x08, 2]), Code::SETTINGS_ERROR);
        assert_eq!(Settings::decode(&[0x33, 0, 0x08, 0]), Ok(Settings::default()));
    }

    #[test]
    fn setting_given_twice_is_a_settings_error() {
        assert_eq!(code(&[0x33, 1, 0x33, 1]), Code::SETTINGS_ERROR);
        assert_eq!(code(&[0x21, 1, 0x40, 0x21, 2]), Code::SETTINGS_ERROR);
    }

    #[test]
    fn truncated_setting_is_a_frame_error() {
        assert_eq!(code(&[0x33]), Code::FRAME_ERROR);
        assert_eq!(code(&[0x06, 0x40]), Code::FRAME_ERROR);
        assert_eq!(code(&[0x40]), Code::FRAME_ERROR);
    }

    proptest! {
        #[test]
        fn round_trip(capacity in 0..=varint::MAX, size in proptest::option::of(0..=varint::MAX), blocked in 0..=varint::MAX,
                      connect_protocol: bool, datagrams: bool) {
            let settings = Settings {
                qpack_max_table_capacity: capacity, max_field_section_size: size, qpack_blocked_streams: blocked,
                connect_protocol, datagrams,
            };
            let mut payload = Vec::new();
            settings.encode(&mut payload);
            prop_assert_eq!(Settings::decode(&payload), Ok(settings));
        }

        #[test]
        fn arbitrary_bytes_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _outcome = Settings::decode(&payload);
        }
    }
}
