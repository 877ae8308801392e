//! IPv6 headers and the extension headers behind them (RFC 8200 sections 3 and 4).

use std::net::{IpAddr, Ipv6Addr};

use super::{IpPacket, protocol};
use crate::drop_reason::DropReason;

/// The length of the fixed header.
pub(super) const HEADER_LEN: usize = 40;

/// The extension headers one packet may have. RFC 8200 section 4.1 names six, one of them allowed twice; none is
/// repeated otherwise in practice.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Checks one IPv6 packet of `len` bytes that begins with `head`, whose version is known to be 6.
pub(super) fn parse(head: &[u8], len: usize) -> Result<IpPacket, DropReason> {
    let Some((header, payload)) = head.split_first_chunk::<HEADER_LEN>() else {
        return Err(DropReason::Truncated);
    };
    let [_, _, _, _, len0, len1, next_header, hop_limit, addresses @ ..] = header;
    let (source, destination) = addresses.split_at(16);
    // A jumbogram (RFC 2675) says 0 and has more, so it is refused here too.
    if usize::from(u16::from_be_bytes([*len0, *len1])).saturating_add(HEADER_LEN) != len {
        return Err(DropReason::BadLength);
    }
    if *hop_limit == 0 {
        return Err(DropReason::HopLimitExceeded);
    }
    let upper = upper_layer(*next_header, payload)?;
    Ok(IpPacket {
        source: address(source),
        destination: address(destination),
        protocol: upper.protocol,
        ttl: *hop_limit,
        len,
        upper_layer: head.len().saturating_sub(upper.rest.len()),
        later_fragment: upper.later_fragment,
        fragment: upper.fragment,
    })
}

fn address(octets: &[u8]) -> IpAddr {
    IpAddr::V6(<[u8; 16]>::try_from(octets).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from))
}

/// What stands behind the extension headers.
struct UpperLayer<'a> {
    protocol: u8,
    rest: &'a [u8],
    later_fragment: bool,
    fragment: bool,
}

/// Walks the extension headers to the first header that is none, or into the body of a later fragment.
fn upper_layer(first: u8, payload: &[u8]) -> Result<UpperLayer<'_>, DropReason> {
    let (mut current, mut rest, mut fragment) = (first, payload, false);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let unit_len = match current {
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HOST_IDENTITY
            | protocol::SHIM6 => 8,
            protocol::AUTHENTICATION => 4,
            protocol::FRAGMENT => 0,
            _ => return Ok(UpperLayer { protocol: current, rest, later_fragment: false, fragment }),
        };
        let [next, len, third, fourth, ..] = *rest else {
            return Err(DropReason::BadExtensionHeader);
        };
        // The third and fourth byte are, in a fragment header, offset and flags; in a routing header, type and segments
        // left.
        if current == protocol::ROUTING && fourth != 0 {
            return Err(DropReason::SourceRouted);
        }
        // Lengths do not count the first 8 bytes; the authentication header alone counts in units of 4.
        let header_len = usize::from(len).saturating_mul(unit_len).saturating_add(8);
        rest = rest.get(header_len..).ok_or(DropReason::BadExtensionHeader)?;
        if current == protocol::FRAGMENT && u16::from_be_bytes([third, fourth]) >> 3 != 0 {
            return Ok(UpperLayer { protocol: next, rest, later_fragment: true, fragment: true });
        }
        fragment |= current == protocol::FRAGMENT;
        current = next;
    }
    Err(DropReason::BadExtensionHeader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::ipv6;

    const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2);
    const DESTINATION: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    fn parse(next: u8, payload: &[u8]) -> Result<IpPacket, DropReason> {
        IpPacket::parse(&ipv6(SOURCE, DESTINATION, next, payload))
    }

    #[test]
    fn plain_packet_is_read() {
        let expected = IpPacket {
            source: SOURCE.into(),
            destination: DESTINATION.into(),
            protocol: 17,
            ttl: 64,
            len: 48,
            upper_layer: 40,
            later_fragment: false,
            fragment: false,
        };
        assert_eq!(parse(17, &[0; 8]), Ok(expected));
    }

    #[test]
    fn header_alone_may_say_that_nothing_follows() {
        assert_eq!(parse(59, &[]).map(|packet| packet.protocol), Ok(59));
    }

    #[test]
    fn each_cut_packet_is_refused() {
        let packet = ipv6(SOURCE, DESTINATION, 17, &[0; 8]);
        for len in 1..packet.len() {
            let reason = if len < HEADER_LEN { DropReason::Truncated } else { DropReason::BadLength };
            assert_eq!(IpPacket::parse(&packet[..len]), Err(reason), "{len} bytes");
        }
    }

    #[test]
    fn trailing_byte_and_jumbogram_are_refused() {
        let mut packet = ipv6(SOURCE, DESTINATION, 17, &[0; 8]);
        packet.push(0);
        assert_eq!(IpPacket::parse(&packet), Err(DropReason::BadLength));
        packet[4..6].fill(0);
        assert_eq!(IpPacket::parse(&packet), Err(DropReason::BadLength));
    }

    #[test]
    fn spent_hop_limit_is_refused() {
        let mut packet = ipv6(SOURCE, DESTINATION, 17, &[0; 8]);
        packet[7] = 0;
        assert_eq!(IpPacket::parse(&packet), Err(DropReason::HopLimitExceeded));
    }

    #[test]
    fn protocol_is_found_behind_extension_headers() {
        let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop, 8 bytes
        payload.extend([51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // destination options, 16 bytes
        payload.extend([44, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // authentication, 24 bytes
        payload.extend([43, 0xff, 0, 1, 0, 0, 0, 7]); // fragment header, first fragment; its second byte is reserved
        payload.extend([6, 0, 0, 0, 0, 0, 0, 0]); // routing header with no segments left
        payload.extend([0; 20]);
        let parsed = parse(0, &payload).unwrap();
        assert_eq!((parsed.protocol, parsed.upper_layer, parsed.later_fragment), (6, 40 + 64, false));
        assert!(parsed.fragment, "the first of several");
    }

    #[test]
    fn later_fragment_ends_the_walk() {
        let parsed = parse(44, &[60, 0, 0, 8, 0, 0, 0, 7, 0xff, 0xff]).unwrap();
        assert_eq!((parsed.protocol, parsed.upper_layer, parsed.later_fragment), (60, 48, true));
    }

    #[test]
    fn routing_header_with_segments_left_is_refused() {
        assert_eq!(parse(43, &[17, 0, 0, 1, 0, 0, 0, 0]), Err(DropReason::SourceRouted));
    }

    #[test]
    fn extension_header_beyond_the_packet_is_refused() {
        for payload in [&[][..], &[17], &[17, 0, 0, 0, 0, 0, 0], &[17, 1, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(parse(60, payload), Err(DropReason::BadExtensionHeader), "{payload:?}");
        }
    }

    #[test]
    fn endless_extension_headers_are_refused() {
        let headers = |count: usize| {
            let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
            let last = payload.len() - 8;
            payload[last] = 17;
            parse(60, &payload).map(|packet| packet.protocol)
        };
        assert_eq!(headers(MAX_EXTENSION_HEADERS), Ok(17));
        assert_eq!(headers(MAX_EXTENSION_HEADERS + 1), Err(DropReason::BadExtensionHeader));
    }
}
