//! The ICMP errors that tell a sender its packet does not fit the tunnel, or may not go where it is meant to, and the
//! limit on how many are sent.
//!
//! IPv4: destination unreachable, fragmentation needed (RFC 792, next-hop MTU of RFC 1191 section 4), or communication
//! administratively prohibited (RFC 1812 section 5.2.7.1).
//! IPv6: packet too big (RFC 4443 section 3.2), or destination unreachable, administratively prohibited (section 3.1).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::checksum::Checksum;
use super::{IPV6_MIN_MTU, IpPacket, ipv4, ipv6, protocol};

/// The bytes of an ICMP header in both families.
const ICMP_HEADER_LEN: usize = 8;

/// The most of the original an ICMPv4 error quotes: the error stays within 576 bytes (RFC 1812 section 4.3.2.3).
const MAX_QUOTE_V4: usize = 576 - ipv4::HEADER_LEN - ICMP_HEADER_LEN;

/// The most of the original an ICMPv6 error quotes: the error stays within the IPv6 minimum MTU (RFC 4443 section 2.4
/// (c)).
const MAX_QUOTE_V6: usize = IPV6_MIN_MTU as usize - ipv6::HEADER_LEN - ICMP_HEADER_LEN;

/// The TTL and hop limit of our answers: the default of RFC 1700.
const TTL: u8 = 64;

/// Internetwork control precedence, for ICMPv4 errors (RFC 1812 section 4.3.2.5).
const TOS_INTERNETWORK_CONTROL: u8 = 0xc0;

/// The gateway's own addresses inside the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct GatewayAddresses {
    /// The IPv4 address, if the tunnel carries IPv4.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address, if the tunnel carries IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// Replaces `out` by the answer to `original`, a packet longer than the path's `mtu` in bytes, and tells whether there
/// is one.
///
/// The answer is a whole IP packet from the gateway's address of the same family. `out` is left empty, and the result
/// is false, when `original` is malformed, when the gateway has no address of its family, or when no error may be sent:
/// to an ICMP error or redirect, to a later fragment, to or from a multicast or broadcast address, or to a source that
/// is no single host (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)). An IPv4 packet that allows fragmentation is
/// answered too, because the tunnel does not fragment. The multicast exception of RFC 4443 for this message is not
/// used: the tunnel carries no multicast.
pub fn packet_too_big(original: &[u8], mtu: u16, from: GatewayAddresses, out: &mut Vec<u8>) -> bool {
    let [mtu0, mtu1] = mtu.to_be_bytes();
    write_error(original, &Message { v4: [3, 4], v6: [2, 0], rest: [0, 0, mtu0, mtu1] }, from, out)
}

/// As [`packet_too_big`], the answer to a packet that may not go where it is meant to.
pub fn packet_prohibited(original: &[u8], from: GatewayAddresses, out: &mut Vec<u8>) -> bool {
    write_error(original, &Message { v4: [3, 13], v6: [1, 1], rest: [0; 4] }, from, out)
}

/// What an ICMP error says: type and code in each family, and the last four bytes of its header.
struct Message {
    v4: [u8; 2],
    v6: [u8; 2],
    rest: [u8; 4],
}

fn write_error(original: &[u8], message: &Message, from: GatewayAddresses, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some(packet) = IpPacket::parse(original).ok().filter(|packet| may_answer(packet, original)) else {
        return false;
    };
    match (packet.source, from) {
        (IpAddr::V4(to), GatewayAddresses { v4: Some(from), .. }) => write_v4(original, message, from, to, out),
        (IpAddr::V6(to), GatewayAddresses { v6: Some(from), .. }) => write_v6(original, message, from, to, out),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => return false,
    }
    true
}

fn may_answer(packet: &IpPacket, original: &[u8]) -> bool {
    !packet.later_fragment
        && is_single_host(packet.source)
        && !is_group(packet.destination)
        && !is_icmp_error(packet, original)
}

fn is_single_host(source: IpAddr) -> bool {
    !(source.is_unspecified() || source.is_loopback() || is_group(source))
}

fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Tells whether the packet is an ICMP error or redirect, or an ICMP packet cut too short to say.
fn is_icmp_error(packet: &IpPacket, original: &[u8]) -> bool {
    let kind = original.get(packet.upper_layer).copied();
    match (packet.protocol, packet.source) {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (protocol::ICMP, IpAddr::V4(_)) => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        // Errors are the types below 128; 137 is redirect.
        (protocol::ICMPV6, IpAddr::V6(_)) => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    }
}

fn write_v4(original: &[u8], message: &Message, from: Ipv4Addr, to: Ipv4Addr, out: &mut Vec<u8>) {
    let quote = original.get(..MAX_QUOTE_V4).unwrap_or(original);
    let Message { v4: [kind, code], rest: [rest0, rest1, rest2, rest3], .. } = *message;
    let icmp = |[sum0, sum1]: [u8; 2]| [kind, code, sum0, sum1, rest0, rest1, rest2, rest3];
    let icmp_checksum = Checksum::new().with(&icmp([0; 2])).with(quote).finish();

    let [len0, len1] = length([ipv4::HEADER_LEN, ICMP_HEADER_LEN, quote.len()]).to_be_bytes();
    // Identification 0 with "don't fragment" set, as RFC 6864 section 4.1 allows.
    let header = [0x45, TOS_INTERNETWORK_CONTROL, len0, len1, 0, 0, 0x40, 0, TTL, protocol::ICMP];
    let header_checksum = Checksum::new().with(&header).with(&from.octets()).with(&to.octets()).finish();

    out.extend_from_slice(&header);
    out.extend_from_slice(&header_checksum.to_be_bytes());
    out.extend_from_slice(&from.octets());
    out.extend_from_slice(&to.octets());
    out.extend_from_slice(&icmp(icmp_checksum.to_be_bytes()));
    out.extend_from_slice(quote);
}

fn write_v6(original: &[u8], message: &Message, from: Ipv6Addr, to: Ipv6Addr, out: &mut Vec<u8>) {
    let quote = original.get(..MAX_QUOTE_V6).unwrap_or(original);
    let len = length([ICMP_HEADER_LEN, quote.len(), 0]);
    let Message { v6: [kind, code], rest: [rest0, rest1, rest2, rest3], .. } = *message;
    let icmp = |[sum0, sum1]: [u8; 2]| [kind, code, sum0, sum1, rest0, rest1, rest2, rest3];
    let checksum = Checksum::ipv6_pseudo_header(from, to, u32::from(len), protocol::ICMPV6)
        .with(&icmp([0; 2]))
        .with(quote)
        .finish();

    let [len0, len1] = len.to_be_bytes();
    out.extend_from_slice(&[0x60, 0, 0, 0, len0, len1, protocol::ICMPV6, TTL]);
    out.extend_from_slice(&from.octets());
    out.extend_from_slice(&to.octets());
    out.extend_from_slice(&icmp(checksum.to_be_bytes()));
    out.extend_from_slice(quote);
}

/// The sum of a few lengths, which the quote limits keep far below 64 KiB.
fn length(parts: [usize; 3]) -> u16 {
    u16::try_from(parts.into_iter().fold(0, usize::saturating_add)).unwrap_or(u16::MAX)
}

/// Shares of the answers to sources: as many as keep two busy sources apart most of the time, in 4 KiB.
const SHARES: usize = 64;

/// The bits of an IPv6 address that name a network: whoever has one has all addresses in it.
const NETWORK_V6: u128 = 0xffff_ffff_ffff_ffff_0000_0000_0000_0000;

/// Answers packets that do not fit a tunnel, at a bounded rate, of which no source gets more than a part. In IPv6 a
/// source is a network of 64 bits.
///
/// The answers bear the name of the packet's destination: a kernel drops what comes out of a TUN device and seems to be
/// from an address of its own.
///
/// RFC 4443 section 2.4 (f) asks a node to limit what it originates. Each worker of a gateway has a limit of its own,
/// and needs no lock for it: all together they send at most as many times the rate as there are workers, and a source
/// whose flows the kernel spreads over them as many times its part. So one source that goes on sending what does not
/// fit leaves the other parts to the others, but for the few that share its hash; as many such sources as there are
/// parts can use up all of the rate.
#[derive(Debug, Clone)]
pub struct TooBigAnswers {
    all: RateLimit,
    /// Those of sources, by a hash of the address or network.
    shares: Vec<RateLimit>,
    seed: u64,
    answer: Vec<u8>,
}

impl TooBigAnswers {
    /// Allows `burst` answers at once and `per_second` each second from then on, to one source one of `parts` parts of
    /// both; 1 is for who has a single source. `seed` is random, so that no source can choose with whom it shares.
    pub fn new(per_second: u32, burst: u32, parts: u32, seed: u64) -> Self {
        let part = |of: u32| of.div_ceil(parts.max(1));
        let shares = vec![RateLimit::new(part(per_second), part(burst)); SHARES];
        Self { all: RateLimit::new(per_second, burst), shares, seed, answer: Vec::new() }
    }

    /// Takes a token of the source and one of all.
    fn allow(&mut self, source: IpAddr, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        let source = match source {
            IpAddr::V4(_) => source,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & NETWORK_V6).into(),
        };
        (self.seed, source).hash(&mut hasher);
        let share = hasher.finish().checked_rem(SHARES as u64).and_then(|share| usize::try_from(share).ok());
        share.and_then(|share| self.shares.get_mut(share)).is_some_and(|share| share.allow(now)) && self.all.allow(now)
    }

    /// The answer to `original`, which is longer than `mtu` bytes, if one may be sent `now`; see [`packet_too_big`].
    pub fn answer(&mut self, original: &[u8], mtu: u16, now: Instant) -> Option<&[u8]> {
        let IpPacket { source, destination, .. } = IpPacket::parse(original).ok()?;
        let from = match destination {
            IpAddr::V4(v4) => GatewayAddresses { v4: Some(v4), v6: None },
            IpAddr::V6(v6) => GatewayAddresses { v4: None, v6: Some(v6) },
        };
        let answered = self.allow(source, now) && packet_too_big(original, mtu, from, &mut self.answer);
        answered.then_some(self.answer.as_slice())
    }
}

/// A token bucket that limits how many ICMP errors are sent (RFC 4443 section 2.4 (f)).
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// The time that earns one token; `None` when no token is ever earned.
    interval: Option<Duration>,
    /// The most time that can be saved up: the burst.
    capacity: Duration,
    /// The time saved up and not yet spent.
    credit: Duration,
    /// When credit was last counted.
    counted: Option<Instant>,
}

impl RateLimit {
    /// Makes a full bucket of `burst` tokens that earns `per_second` tokens each second. A zero of either allows
    /// nothing.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1).checked_div(per_second);
        let capacity = interval.unwrap_or_default().saturating_mul(burst);
        Self { interval, capacity, credit: capacity, counted: None }
    }

    /// Takes one token at `now`, if there is one. A `now` before an earlier one earns nothing.
    pub fn allow(&mut self, now: Instant) -> bool {
        let counted = *self.counted.get_or_insert(now);
        let earned = now.saturating_duration_since(counted);
        self.counted = Some(counted.max(now));
        self.credit = self.credit.saturating_add(earned).min(self.capacity);
        match self.interval.and_then(|interval| self.credit.checked_sub(interval)) {
            Some(credit) => {
                self.credit = credit;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::tests::{ipv4, ipv6};

    const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
    const REMOTE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2);
    const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const GATEWAY: GatewayAddresses = GatewayAddresses {
        v4: Some(Ipv4Addr::new(10, 64, 0, 1)),
        v6: Some(Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1)),
    };

    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
    fn start() -> Instant {
        Instant::now()
    }

    fn answer(original: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0xaa; 3];
        let answered = packet_too_big(original, 1380, GATEWAY, &mut out);
        assert_eq!(answered, !out.is_empty());
        answered.then_some(out)
    }

    /// The sum of 16-bit words with end-around carry; 0xffff over data that holds its correct checksum.
    fn naive_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) * 256 + pair.get(1).copied().map_or(0, u32::from);
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        u16::try_from(sum).unwrap()
    }

    fn check_v4(original: &[u8], answer: &[u8]) {
        let parsed = IpPacket::parse(answer).unwrap();
        assert_eq!(parsed.source, IpAddr::from(GATEWAY.v4.unwrap()));
        assert_eq!(parsed.destination, IpPacket::parse(original).unwrap().source);
        assert_eq!((parsed.protocol, parsed.upper_layer), (1, 20));
        assert_eq!(naive_sum(&answer[..20]), 0xffff, "header checksum");
        assert_eq!(naive_sum(&answer[20..]), 0xffff, "icmp checksum");
        assert_eq!(answer[20..22], [3, 4]);
        assert_eq!(answer[24..28], [0, 0, 0x05, 0x64]);
        assert_eq!(answer[28..], original[..original.len().min(548)]);
        assert!(answer.len() <= 576);
    }

    fn check_v6(original: &[u8], answer: &[u8]) {
        let parsed = IpPacket::parse(answer).unwrap();
        assert_eq!(parsed.source, IpAddr::from(GATEWAY.v6.unwrap()));
        assert_eq!(parsed.destination, IpPacket::parse(original).unwrap().source);
        assert_eq!((parsed.protocol, parsed.upper_layer), (58, 40));
        let mut covered = answer[8..40].to_vec();
        covered.extend(u32::try_from(answer.len() - 40).unwrap().to_be_bytes());
        covered.extend([0, 0, 0, 58]);
        covered.extend(&answer[40..]);
        assert_eq!(naive_sum(&covered), 0xffff, "icmp checksum");
        assert_eq!(answer[40..42], [2, 0]);
        assert_eq!(answer[44..48], [0, 0, 0x05, 0x64]);
        assert_eq!(answer[48..], original[..original.len().min(1232)]);
        assert!(answer.len() <= 1280);
    }

    #[test]
    fn answers_bear_the_name_of_the_destination_and_are_limited() {
        let mut answers = TooBigAnswers::new(4, 8, 4, 1);
        let original = ipv4(CLIENT_V4, REMOTE_V4, 17, &[], &[0; 8]);
        let parsed = IpPacket::parse(answers.answer(&original, 1380, start()).unwrap()).unwrap();
        assert_eq!((parsed.source, parsed.destination), (REMOTE_V4.into(), CLIENT_V4.into()));
        let now = start();
        assert!(answers.answer(&original, 1380, now).is_some());
        assert!(answers.answer(&original, 1380, now).is_none());
        assert!(answers.answer(&original, 1380, now + Duration::from_secs(1)).is_some());
    }

    #[test]
    fn source_that_sends_without_end_does_not_keep_others_from_being_told() {
        let (mut answers, now) = (TooBigAnswers::new(200, 40, 4, 7), start());
        let mut told = |source: u8| {
            let original = ipv4(Ipv4Addr::new(10, 64, 0, source), REMOTE_V4, 17, &[], &[0; 8]);
            answers.answer(&original, 1380, now).is_some()
        };
        assert_eq!((0..1000).filter(|_| told(2)).count(), 10, "a quarter");
        let others = (3..60).filter(|&source| told(source)).count();
        assert_eq!(others, 30, "what is left of all, but for those that share with the first");
    }

    #[test]
    fn only_source_gets_the_whole_rate() {
        let (mut answers, now) = (TooBigAnswers::new(200, 40, 1, 7), start());
        let original = ipv4(CLIENT_V4, REMOTE_V4, 17, &[], &[0; 8]);
        assert_eq!((0..1000).filter(|_| answers.answer(&original, 1380, now).is_some()).count(), 40);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let (mut answers, now) = (TooBigAnswers::new(200, 40, 4, 7), start());
        let told = (0..1000).filter(|&host| {
            let source = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, host);
            answers.answer(&ipv6(source, REMOTE_V6, 17, &[0; 8]), 1380, now).is_some()
        });
        assert_eq!(told.count(), 10);
    }

    #[test]
    fn prohibited_packet_is_answered_as_that_and_an_error_is_not() {
        let originals = [ipv4(CLIENT_V4, REMOTE_V4, 17, &[], &[7; 8]), ipv6(CLIENT_V6, REMOTE_V6, 17, &[7; 8])];
        for (original, header_len, kind_and_code) in [(&originals[0], 20, [3, 13]), (&originals[1], 40, [1, 1])] {
            let mut answer = Vec::new();
            assert!(packet_prohibited(original, GATEWAY, &mut answer));
            let message = &answer[header_len..];
            assert_eq!((&message[..2], &message[4..8]), (kind_and_code.as_slice(), [0; 4].as_slice()));
            assert_eq!(&message[8..], original);
            let mut again = Vec::new();
            assert!(!packet_prohibited(&answer, GATEWAY, &mut again) && again.is_empty());
        }
    }

    #[test]
    fn ipv4_answer_is_the_known_packet() {
        let original = ipv4(CLIENT_V4, REMOTE_V4, 17, &[], &[]);
        let answer = answer(&original).unwrap();
        let expected = [
            0x45, 0xc0, 0x00, 0x30, 0x00, 0x00, 0x40, 0x00, 0x40, 0x01, 0x25, 0x8b, // header, checksum 0x258b
            10, 64, 0, 1, 10, 64, 0, 2, // addresses
            3, 4, 0xf7, 0x97, 0, 0, 0x05, 0x64, // fragmentation needed, next-hop MTU 1380
        ];
        assert_eq!(answer[..28], expected);
        assert_eq!(answer[28..], original);
    }

    #[test]
    fn full_ipv4_packet_is_quoted_up_to_576_bytes() {
        let original = ipv4(CLIENT_V4, REMOTE_V4, 6, &[1, 1, 1, 0], &[7; 1460]);
        let answer = answer(&original).unwrap();
        check_v4(&original, &answer);
        assert_eq!(answer.len(), 576);
    }

    #[test]
    fn full_ipv6_packet_is_quoted_up_to_1280_bytes() {
        let original = ipv6(CLIENT_V6, REMOTE_V6, 6, &[7; 1460]);
        let answer = answer(&original).unwrap();
        check_v6(&original, &answer);
        assert_eq!(answer.len(), 1280);
    }

    #[test]
    fn ipv4_packet_that_allows_fragmentation_is_answered() {
        let mut original = ipv4(CLIENT_V4, REMOTE_V4, 17, &[], &[0; 1472]);
        original[6] = 0;
        check_v4(&original, &answer(&original).unwrap());
    }

    #[test]
    fn first_fragment_is_answered_and_later_ones_are_not() {
        let mut original = ipv4(CLIENT_V4, REMOTE_V4, 17, &[], &[0; 1472]);
        original[6] = 0x20;
        assert!(answer(&original).is_some());
        original[7] = 1;
        assert!(answer(&original).is_none());

        let mut original = ipv6(CLIENT_V6, REMOTE_V6, 44, &[17, 0, 0, 1, 0, 0, 0, 7, 0, 0]);
        assert!(answer(&original).is_some());
        original[43] = 9;
        assert!(answer(&original).is_none());
    }

    #[test]
    fn icmp_errors_are_not_answered_and_queries_are() {
        for kind in 0..=255u8 {
            let original = ipv4(CLIENT_V4, REMOTE_V4, 1, &[], &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(answer(&original).is_none(), [3, 4, 5, 11, 12].contains(&kind), "ICMP type {kind}");
            let original = ipv6(CLIENT_V6, REMOTE_V6, 58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(answer(&original).is_none(), kind < 128 || kind == 137, "ICMPv6 type {kind}");
        }
        assert!(answer(&ipv4(CLIENT_V4, REMOTE_V4, 1, &[], &[])).is_none());
        assert!(answer(&ipv6(CLIENT_V6, REMOTE_V6, 58, &[])).is_none());
    }

    #[test]
    fn icmpv6_error_behind_extension_headers_is_not_answered() {
        let original = ipv6(CLIENT_V6, REMOTE_V6, 60, &[58, 0, 1, 4, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 5, 0]);
        assert!(answer(&original).is_none());
    }

    #[test]
    fn groups_and_sources_that_are_no_host_are_not_answered() {
        for source in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
            assert!(answer(&ipv4(source, REMOTE_V4, 17, &[], &[0; 8])).is_none(), "{source}");
        }
        for destination in [Ipv4Addr::BROADCAST, Ipv4Addr::new(239, 1, 2, 3)] {
            assert!(answer(&ipv4(CLIENT_V4, destination, 17, &[], &[0; 8])).is_none(), "{destination}");
        }
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        for source in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, all_nodes] {
            assert!(answer(&ipv6(source, REMOTE_V6, 17, &[0; 8])).is_none(), "{source}");
        }
        assert!(answer(&ipv6(CLIENT_V6, all_nodes, 17, &[0; 8])).is_none());
    }

    #[test]
    fn gateway_without_the_family_does_not_answer() {
        let mut out = Vec::new();
        let from = GatewayAddresses { v6: None, ..GATEWAY };
        assert!(!packet_too_big(&ipv6(CLIENT_V6, REMOTE_V6, 17, &[0; 8]), 1380, from, &mut out));
        assert!(packet_too_big(&ipv4(CLIENT_V4, REMOTE_V4, 17, &[], &[0; 8]), 1380, from, &mut out));
        assert!(!packet_too_big(&[0x60; 3], 1380, GATEWAY, &mut out) && out.is_empty());
    }

    #[test]
    fn rate_limit_allows_the_burst_then_the_rate() {
        let start = start();
        let mut limit = RateLimit::new(10, 3);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!([0, 0, 0, 0].map(|ms| limit.allow(at(ms))), [true, true, true, false]);
        assert_eq!([99, 100, 101, 200].map(|ms| limit.allow(at(ms))), [false, true, false, true]);
        assert_eq!([9000; 4].map(|ms| limit.allow(at(ms))), [true, true, true, false]);
    }

    #[test]
    fn rate_limit_earns_nothing_when_time_goes_back() {
        let start = start() + Duration::from_secs(10);
        let mut limit = RateLimit::new(1, 1);
        assert!(limit.allow(start));
        assert!(!limit.allow(start - Duration::from_secs(5)));
        assert!(!limit.allow(start));
        assert!(limit.allow(start + Duration::from_secs(1)));
    }

    #[test]
    fn rate_limit_of_zero_allows_nothing() {
        assert!(!RateLimit::new(0, 5).allow(start()));
        assert!(!RateLimit::new(5, 0).allow(start()));
    }

    proptest! {
        #[test]
        fn answers_are_correct_for_any_payload(
            v6: bool, next in prop::sample::select(vec![1u8, 6, 17, 47, 58]), payload in prop::collection::vec(any::<u8>(), 0..1500),
        ) {
            let original = if v6 {
                ipv6(CLIENT_V6, REMOTE_V6, next, &payload)
            } else {
                ipv4(CLIENT_V4, REMOTE_V4, next, &[], &payload)
            };
            if let Some(answer) = answer(&original) {
                if v6 { check_v6(&original, &answer) } else { check_v4(&original, &answer) }
                prop_assert!(self::answer(&answer).is_none(), "an answer is itself an error");
            } else {
                prop_assert_eq!(next, if v6 { 58 } else { 1 });
            }
        }

        #[test]
        fn never_panics(original in prop::collection::vec(any::<u8>(), 0..100), mtu: u16) {
            packet_too_big(&original, mtu, GATEWAY, &mut Vec::new());
        }
    }
}
