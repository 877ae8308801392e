//! Explicit congestion notification across the tunnel (RFC 6040): copied out by who seals, brought in by who opens.

use super::checksum::Checksum;
use crate::drop_reason::DropReason;

/// Not ECN-capable (RFC 3168 section 5).
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable, the L4S kind (RFC 9331).
pub const ECT_1: u8 = 0b01;
/// ECN-capable.
pub const ECT_0: u8 = 0b10;
/// Congestion was experienced.
pub const CE: u8 = 0b11;

const BITS: u8 = 0b11;
const V4_HEADER_LEN: usize = 20;

/// The ECN bits of a packet; [`NOT_ECT`] if it is none. The outer header gets the same (RFC 6040 section 4.1, normal
/// mode).
pub fn of_packet(packet: &[u8]) -> u8 {
    match *packet {
        [first, second, ..] if first >> 4 == 4 => second & BITS,
        [first, second, ..] if first >> 4 == 6 => second >> 4 & BITS,
        _ => NOT_ECT,
    }
}

/// Brings the ECN bits of the outer header into the packet that was inside (RFC 6040 section 4.2, figure 4).
///
/// # Errors
/// [`DropReason::CongestionExperienced`] if the network marked a packet whose ends do not know ECN: they hear of it by
/// the loss.
pub fn decapsulate(packet: &mut [u8], outer: u8) -> Result<(), DropReason> {
    match (of_packet(packet), outer & BITS) {
        (NOT_ECT, CE) => Err(DropReason::CongestionExperienced),
        (ECT_0, ECT_1) => {
            mark(packet, ECT_1);
            Ok(())
        }
        (ECT_0 | ECT_1, CE) => {
            mark(packet, CE);
            Ok(())
        }
        (_, _) => Ok(()),
    }
}

fn mark(packet: &mut [u8], bits: u8) {
    match packet {
        [first, second, ..] if *first >> 4 == 6 => *second = *second & !(BITS << 4) | bits << 4,
        [first, second, ..] => {
            *second = *second & !BITS | bits;
            let header_len = usize::from(*first & 0x0f).saturating_mul(4).max(V4_HEADER_LEN);
            sum_again(packet, header_len);
        }
        _ => {}
    }
}

/// Computes the IPv4 header checksum anew. The packet was authenticated, so a checksum that was wrong before is its
/// sender's own.
fn sum_again(packet: &mut [u8], header_len: usize) {
    let Some(header) = packet.get_mut(..header_len) else { return };
    if let Some(field) = header.get_mut(10..12) {
        field.fill(0);
    }
    let sum = Checksum::new().with(header).finish().to_be_bytes();
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(bits: u8) -> Vec<u8> {
        let mut packet =
            vec![0x45, 0xb8 | bits, 0, 24, 1, 2, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4];
        sum_again(&mut packet, 20);
        packet
    }

    fn v6(bits: u8) -> Vec<u8> {
        let mut packet = vec![0; 44];
        packet[..2].copy_from_slice(&[0x6b, 0x85 | bits << 4]);
        packet
    }

    #[test]
    fn bits_are_read_from_both_versions() {
        for bits in 0..4 {
            assert_eq!(of_packet(&v4(bits)), bits);
            assert_eq!(of_packet(&v6(bits)), bits);
        }
        assert_eq!(of_packet(&[]), NOT_ECT);
        assert_eq!(of_packet(&[0x15, 3]), NOT_ECT);
    }

    /// RFC 6040 figure 4: rows are the inner bits, columns the outer ones, in the order 00, 01, 10, 11.
    #[test]
    fn decapsulation_follows_the_table() {
        let drop = u8::MAX;
        let table = [[0, 0, 0, drop], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
        for (inner, row) in (0..).zip(table) {
            for (outer, expected) in (0..).zip(row) {
                for mut packet in [v4(inner), v6(inner)] {
                    let before = packet.clone();
                    let result = decapsulate(&mut packet, outer);
                    if expected == drop {
                        assert_eq!(result, Err(DropReason::CongestionExperienced));
                        assert_eq!(packet, before);
                    } else {
                        assert_eq!(result, Ok(()));
                        assert_eq!(of_packet(&packet), expected, "inner {inner} outer {outer}");
                        let mut rest = packet.clone();
                        mark(&mut rest, inner);
                        assert_eq!(rest, before, "only the bits and the checksum change");
                    }
                }
            }
        }
    }

    #[test]
    fn header_checksum_stays_right() {
        let mut packet = v4(ECT_0);
        assert_eq!(decapsulate(&mut packet, CE), Ok(()));
        assert_eq!(Checksum::new().with(&packet[..20]).finish(), 0);
    }
}
