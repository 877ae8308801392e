//! IPv4 headers (RFC 791 section 3.1).

use std::net::{IpAddr, Ipv4Addr};

use super::IpPacket;
use crate::drop_reason::DropReason;

/// The length of a header without options.
pub(super) const HEADER_LEN: usize = 20;

/// The bits of the fragment offset; the three above them are flags.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Option types (RFC 791 section 3.1): end of list, no operation, loose and strict source route.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// The bits of flags and fragment offset that only fragments have: more fragments, and the offset.
const FRAGMENT: u16 = 0x3fff;

/// Checks one IPv4 packet of `len` bytes that begins with `head`, whose version is known to be 4.
pub(super) fn parse(head: &[u8], len: usize) -> Result<IpPacket, DropReason> {
    let Some((header, rest)) = head.split_first_chunk::<HEADER_LEN>() else {
        return Err(DropReason::Truncated);
    };
    let [version_ihl, _, len0, len1, _, _, fragment0, fragment1, ttl, protocol, _, _, addresses @ ..] = *header;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    let header_len = usize::from(version_ihl & 0x0f) << 2;
    if usize::from(u16::from_be_bytes([len0, len1])) != len {
        return Err(DropReason::BadLength);
    }
    let fragment = u16::from_be_bytes([fragment0, fragment1]);
    let options = header_len.checked_sub(HEADER_LEN).and_then(|len| rest.get(..len));
    check_options(options.ok_or(DropReason::BadHeaderLength)?)?;
    if ttl == 0 {
        return Err(DropReason::HopLimitExceeded);
    }
    Ok(IpPacket {
        source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        protocol,
        ttl,
        len,
        upper_layer: header_len,
        later_fragment: fragment & FRAGMENT_OFFSET != 0,
        fragment: fragment & FRAGMENT != 0,
    })
}

/// Checks that the options are well formed and route nothing (RFC 7126 sections 4.3 and 4.4 drop source routes).
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    loop {
        options = match *options {
            [] | [END_OF_OPTIONS, ..] => return Ok(()),
            [NO_OPERATION, ref rest @ ..] => rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return Err(DropReason::SourceRouted),
            [_, len, ..] if len >= 2 => options.get(usize::from(len)..).ok_or(DropReason::BadExtensionHeader)?,
            [_, ..] => return Err(DropReason::BadExtensionHeader),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::ipv4;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn packet() -> Vec<u8> {
        ipv4(SOURCE, DESTINATION, 17, &[], &[0; 8])
    }

    fn changed(at: usize, value: u8) -> Result<IpPacket, DropReason> {
        let mut packet = packet();
        packet[at] = value;
        IpPacket::parse(&packet)
    }

    #[test]
    fn plain_packet_is_read() {
        let expected = IpPacket {
            source: SOURCE.into(),
            destination: DESTINATION.into(),
            protocol: 17,
            ttl: 64,
            len: 28,
            upper_layer: 20,
            later_fragment: false,
            fragment: false,
        };
        assert_eq!(IpPacket::parse(&packet()), Ok(expected));
    }

    #[test]
    fn each_cut_packet_is_refused() {
        let packet = packet();
        for len in 1..packet.len() {
            let reason = if len < HEADER_LEN { DropReason::Truncated } else { DropReason::BadLength };
            assert_eq!(IpPacket::parse(&packet[..len]), Err(reason), "{len} bytes");
        }
    }

    #[test]
    fn trailing_byte_is_refused() {
        let mut packet = packet();
        packet.push(0);
        assert_eq!(IpPacket::parse(&packet), Err(DropReason::BadLength));
    }

    #[test]
    fn header_length_below_20_or_beyond_the_packet_is_refused() {
        assert_eq!(changed(0, 0x44), Err(DropReason::BadHeaderLength));
        assert_eq!(changed(0, 0x48), Err(DropReason::BadHeaderLength));
    }

    #[test]
    fn spent_ttl_is_refused() {
        assert_eq!(changed(8, 0), Err(DropReason::HopLimitExceeded));
    }

    #[test]
    fn later_fragment_is_told_from_the_first() {
        let first = changed(6, 0x20).unwrap();
        let later = changed(7, 1).unwrap();
        assert!(first.fragment && !first.later_fragment);
        assert!(later.fragment && later.later_fragment);
    }

    #[test]
    fn harmless_options_pass_and_move_the_upper_layer() {
        let parsed = IpPacket::parse(&ipv4(SOURCE, DESTINATION, 6, &[1, 7, 3, 4], &[0; 20])).unwrap();
        assert_eq!(parsed.upper_layer, 24);
    }

    #[test]
    fn source_routes_are_refused() {
        for option in [131, 137] {
            let packet = ipv4(SOURCE, DESTINATION, 6, &[1, option, 7, 4, 127, 0, 0, 1], &[]);
            assert_eq!(IpPacket::parse(&packet), Err(DropReason::SourceRouted));
        }
    }

    #[test]
    fn malformed_options_are_refused() {
        for options in [[7, 0, 0, 0], [7, 1, 0, 0], [7, 5, 0, 0], [1, 1, 1, 7]] {
            let packet = ipv4(SOURCE, DESTINATION, 6, &options, &[0; 8]);
            assert_eq!(IpPacket::parse(&packet), Err(DropReason::BadExtensionHeader), "{options:?}");
        }
    }
}
