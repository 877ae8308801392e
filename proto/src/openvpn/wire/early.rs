//! Early negotiation: what a server can ask of a client of tls-crypt-v2 in its reset, before there is any state.
//!
//! ```text
//! records: { type (2)  length (2)  value } …
//! type 1: flags (2); bit 0: send the wrapped key again, with the first message of TLS
//! ```
//!
//! A client says that it understands this by the counter of its first packet ([`FIRST_COUNT`]).

/// The counter of the stamp of a client's first packet, if it understands early negotiation. It counts on from there.
pub const FIRST_COUNT: u32 = 0x0f00_0001;

/// Asks for the wrapped key with the first message of TLS.
pub const ASK_FOR_KEY: [u8; 6] = [0, 1, 0, 2, 0, 1];

const FLAGS: u16 = 1;
const RESEND_KEY: u16 = 1;

/// Whether a client's first counter says that it understands early negotiation.
pub const fn is_understood(count: u32) -> bool {
    let [high, ..] = count.to_be_bytes();
    let [expected, ..] = FIRST_COUNT.to_be_bytes();
    high == expected
}

/// Whether the payload of a server's reset asks for the wrapped key. Unknown records and flags are passed over; what is
/// cut short asks for nothing.
pub fn asks_for_key(mut payload: &[u8]) -> bool {
    let mut asks = false;
    while let Some((&[t0, t1, l0, l1], rest)) = payload.split_first_chunk() {
        let Some((value, rest)) = rest.split_at_checked(u16::from_be_bytes([l0, l1]).into()) else { return false };
        if let (FLAGS, &[f0, f1]) = (u16::from_be_bytes([t0, t1]), value) {
            asks |= u16::from_be_bytes([f0, f1]) & RESEND_KEY != 0;
        }
        payload = rest;
    }
    asks && payload.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_for_the_key_is_found_among_other_records() {
        assert!(asks_for_key(&ASK_FOR_KEY));
        assert!(asks_for_key(&[&[0, 9, 0, 1, 7][..], &ASK_FOR_KEY].concat()));
        assert!(!asks_for_key(&[0, 1, 0, 2, 0, 2]), "another flag");
        assert!(!asks_for_key(&[0, 2, 0, 2, 0, 1]), "another type");
        assert!(!asks_for_key(&[0, 1, 0, 1, 1]), "flags of another length");
        assert!(!asks_for_key(&[]));
        assert!(!asks_for_key(&[&ASK_FOR_KEY[..], &[0]].concat()));
        assert!(!asks_for_key(&[&ASK_FOR_KEY[..], &[0, 1, 0, 9]].concat()));
    }

    #[test]
    fn counter_of_the_first_packet_tells_who_understands() {
        assert!([FIRST_COUNT, FIRST_COUNT + 5].into_iter().all(is_understood));
        assert!(![0, 1, 0x1f00_0001, 0x0e00_0001].into_iter().any(is_understood));
    }
}
