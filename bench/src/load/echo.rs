//! Echo requests (RFC 792) that say who sent them and when, and the answers to them.

use std::net::Ipv4Addr;

use adit_proto::packet::checksum::Checksum;

/// Bytes of an IPv4 header without options (RFC 791 section 3.1).
const HEADER: usize = 20;
/// Bytes of one packet: those of `ping`, 56 of payload after 8 of ICMP.
pub(super) const LEN: usize = HEADER + 8 + 56;
/// Time to live of a request.
const TTL: u8 = 64;
/// Protocol number of ICMP.
const ICMP: u8 = 1;
/// Types of ICMP.
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// What a request carries and its answer brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The client that sent it.
    pub(super) client: u32,
    /// Counted by that client, from 0.
    pub(super) sequence: u32,
    /// When, in nanoseconds of the generator's clock.
    pub(super) sent: u64,
}

/// Writes an echo request.
pub(super) fn request(source: Ipv4Addr, destination: Ipv4Addr, mark: Mark) -> [u8; LEN] {
    let mut packet = [0; LEN];
    let total = u16::try_from(LEN).expect("an echo request is short");
    let [total_high, total_low] = total.to_be_bytes();
    let start = [0x45, 0, total_high, total_low, 0, 0, 0, 0, TTL, ICMP, 0, 0];
    put(&mut packet, 0, &start);
    put(&mut packet, 12, &source.octets());
    put(&mut packet, 16, &destination.octets());
    let sum = Checksum::new().with(&packet[..HEADER]).finish();
    put(&mut packet, 10, &sum.to_be_bytes());

    let [_, _, identifier @ ..] = mark.client.to_be_bytes();
    let [_, _, sequence @ ..] = mark.sequence.to_be_bytes();
    put(&mut packet, HEADER, &[ECHO_REQUEST]);
    put(&mut packet, HEADER + 4, &identifier);
    put(&mut packet, HEADER + 6, &sequence);
    put(&mut packet, HEADER + 8, &mark.client.to_be_bytes());
    put(&mut packet, HEADER + 12, &mark.sequence.to_be_bytes());
    put(&mut packet, HEADER + 16, &mark.sent.to_be_bytes());
    let sum = Checksum::new().with(&packet[HEADER..]).finish();
    put(&mut packet, HEADER + 2, &sum.to_be_bytes());
    packet
}

fn put(packet: &mut [u8; LEN], at: usize, bytes: &[u8]) {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The mark in the answer to one of our requests; `None` in anything else.
pub(super) fn answer(packet: &[u8]) -> Option<Mark> {
    let (header, message) = packet.get(..LEN)?.split_at(HEADER);
    let is_answer =
        header.first() == Some(&0x45) && header.get(9) == Some(&ICMP) && message.first() == Some(&ECHO_REPLY);
    if !is_answer || Checksum::new().with(message).finish() != 0 {
        return None;
    }
    let word = |at: usize| message.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let sent = message.get(16..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))?;
    Some(Mark { client: word(8)?, sequence: word(12)?, sent })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { client: 70_000, sequence: 3, sent: 5_000_000_000 };

    fn sample() -> [u8; LEN] {
        request(Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 1), MARK)
    }

    /// What a host makes of a request: the type changes, and the checksum by as much (RFC 1624).
    fn answered(mut packet: [u8; LEN]) -> [u8; LEN] {
        packet[HEADER] = ECHO_REPLY;
        put(&mut packet, HEADER + 2, &[0, 0]);
        let sum = Checksum::new().with(&packet[HEADER..]).finish();
        put(&mut packet, HEADER + 2, &sum.to_be_bytes());
        packet
    }

    #[test]
    fn request_has_correct_checksums() {
        let packet = sample();
        assert_eq!(Checksum::new().with(&packet[..HEADER]).finish(), 0);
        assert_eq!(Checksum::new().with(&packet[HEADER..]).finish(), 0);
        assert_eq!(packet[16..20], [10, 77, 0, 1]);
    }

    #[test]
    fn answer_brings_the_mark_back() {
        assert_eq!(answer(&answered(sample())), Some(MARK));
    }

    #[test]
    fn requests_and_damaged_answers_are_none() {
        assert_eq!(answer(&sample()), None);
        let mut damaged = answered(sample());
        damaged[LEN - 1] ^= 1;
        assert_eq!(answer(&damaged), None);
        assert_eq!(answer(&answered(sample())[..LEN - 1]), None);
    }
}
