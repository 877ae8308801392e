//! Ranges of addresses and the prefixes that cover them.
//!
//! CONNECT-IP advertises routes as inclusive ranges (RFC 9484 section 4.7.3); routing tables hold prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// One inclusive range of addresses of one family, reachable through the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteRange {
    /// The first address.
    pub start: IpAddr,
    /// The last address; of the family of `start` and not below it.
    pub end: IpAddr,
    /// The upper-layer protocol (IANA number) the route is for; 0 means any.
    pub protocol: u8,
}

/// Why a list of ranges is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Start and end are of different families.
    #[error("range {start} to {end} mixes IPv4 and IPv6")]
    MixedFamilies {
        /// The first address.
        start: IpAddr,
        /// The last address.
        end: IpAddr,
    },
    /// The end lies before the start.
    #[error("range {start} to {end} ends before it starts")]
    Reversed {
        /// The first address.
        start: IpAddr,
        /// The last address.
        end: IpAddr,
    },
    /// The range needs more prefixes than allowed.
    #[error("range {start} to {end} needs more than {cap} prefixes")]
    TooManyPrefixes {
        /// The first address.
        start: IpAddr,
        /// The last address.
        end: IpAddr,
        /// The number of prefixes allowed.
        cap: usize,
    },
    /// A range overlaps its predecessor or should stand before it.
    #[error("range {start} to {end} overlaps an earlier range or is out of order")]
    OutOfOrder {
        /// The first address.
        start: IpAddr,
        /// The last address.
        end: IpAddr,
    },
}

impl RouteRange {
    /// Checks that both ends are of one family and in order.
    ///
    /// # Errors
    /// [`RangeError::MixedFamilies`] or [`RangeError::Reversed`].
    pub fn check(&self) -> Result<(), RangeError> {
        let Self { start, end, .. } = *self;
        if start.is_ipv4() != end.is_ipv4() {
            return Err(RangeError::MixedFamilies { start, end });
        }
        if end < start {
            return Err(RangeError::Reversed { start, end });
        }
        Ok(())
    }

    /// Tells whether `address` is of the range's family and inside it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && (self.start..=self.end).contains(&address)
    }
}

/// The range of all addresses of `prefix`, for any protocol.
impl From<IpNet> for RouteRange {
    fn from(prefix: IpNet) -> Self {
        Self { start: prefix.network(), end: prefix.broadcast(), protocol: 0 }
    }
}

/// Checks a route advertisement as its receiver must (RFC 9484 section 4.7.3).
///
/// > 1. The IP Version of A MUST be less than or equal to the IP Version of B.
/// > 2. If the IP Version of A and B are equal, the IP Protocol of A MUST be less than or equal to the IP Protocol of
/// > B.
/// > 3. If the IP Version and IP Protocol of A and B are both equal, the End IP Address of A MUST be strictly less than
/// > the Start IP Address of B.
///
/// # Errors
/// The fault of the first range that breaks a rule.
pub fn check_advertisement(ranges: &[RouteRange]) -> Result<(), RangeError> {
    for range in ranges {
        range.check()?;
    }
    for (before, range) in ranges.iter().zip(ranges.iter().skip(1)) {
        let (key_before, key) = (order_key(before), order_key(range));
        if key < key_before || (key == key_before && range.start <= before.end) {
            return Err(RangeError::OutOfOrder { start: range.start, end: range.end });
        }
    }
    Ok(())
}

fn order_key(range: &RouteRange) -> (bool, u8) {
    (range.start.is_ipv6(), range.protocol)
}

/// The fewest prefixes that cover exactly the addresses from `start` to `end`, in ascending order.
///
/// A range needs at most 62 prefixes for IPv4 and 254 for IPv6. `cap` bounds what a peer can make us install.
///
/// # Errors
/// [`RangeError::MixedFamilies`], [`RangeError::Reversed`], or [`RangeError::TooManyPrefixes`] when `cap` does not
/// suffice.
pub fn to_prefixes(start: IpAddr, end: IpAddr, cap: usize) -> Result<Vec<IpNet>, RangeError> {
    RouteRange { start, end, protocol: 0 }.check()?;
    let last = to_bits(end);
    let mut next = Some(to_bits(start));
    let mut prefixes = Vec::new();
    while let Some(first) = next.filter(|first| *first <= last) {
        if prefixes.len() == cap {
            return Err(RangeError::TooManyPrefixes { start, end, cap });
        }
        let host_bits = largest_block(first, last, width(start));
        prefixes.push(prefix(start, first, host_bits));
        next = first.checked_add(low_mask(host_bits)).and_then(|end| end.checked_add(1));
    }
    Ok(prefixes)
}

/// The ranges that cover exactly `prefixes`, for any protocol.
///
/// They are sorted, and overlapping or adjacent ones merged, so the result is a valid route advertisement
/// (RFC 9484 section 4.7.3).
pub fn from_prefixes(prefixes: &[IpNet]) -> Vec<RouteRange> {
    let mut ranges: Vec<RouteRange> = prefixes.iter().copied().map(RouteRange::from).collect();
    ranges.sort_by_key(|range| (range.start.is_ipv6(), range.start));
    let mut merged: Vec<RouteRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if touches(last, &range) => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Tells whether `next`, which does not start before `last`, overlaps it or follows it without a gap.
fn touches(last: &RouteRange, next: &RouteRange) -> bool {
    last.end.is_ipv4() == next.start.is_ipv4() && to_bits(next.start) <= to_bits(last.end).saturating_add(1)
}

/// The host bits of the largest aligned block that starts at `first` and does not pass `last`.
fn largest_block(first: u128, last: u128, width: u32) -> u32 {
    let aligned = first.trailing_zeros().min(width);
    let mut host_bits = aligned;
    while low_mask(host_bits) > last - first {
        host_bits -= 1;
    }
    host_bits
}

/// A mask of the `bits` lowest bits; `bits` is at most 128.
fn low_mask(bits: u32) -> u128 {
    u128::MAX.checked_shr(128 - bits).unwrap_or(0)
}

fn width(family: IpAddr) -> u32 {
    if family.is_ipv4() { 32 } else { 128 }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The prefix of the family of `family` at `first` with `host_bits` bits below it.
fn prefix(family: IpAddr, first: u128, host_bits: u32) -> IpNet {
    let length = u8::try_from(width(family) - host_bits).expect("a prefix has at most 128 bits");
    if family.is_ipv4() {
        let address = Ipv4Addr::from_bits(u32::try_from(first).expect("an IPv4 range holds 32-bit numbers"));
        IpNet::V4(Ipv4Net::new_assert(address, length))
    } else {
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(first), length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn range(start: &str, end: &str, protocol: u8) -> RouteRange {
        RouteRange { start: ip(start), end: ip(end), protocol }
    }

    #[test]
    fn whole_families_are_one_prefix() {
        assert_eq!(to_prefixes(ip("0.0.0.0"), ip("255.255.255.255"), 1), Ok(nets(&["0.0.0.0/0"])));
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(to_prefixes(ip("::"), ip(last), 1), Ok(nets(&["::/0"])));
        assert_eq!(
            from_prefixes(&nets(&["::/0", "0.0.0.0/0"])),
            [range("0.0.0.0", "255.255.255.255", 0), range("::", last, 0),]
        );
    }

    #[test]
    fn single_addresses_are_one_prefix() {
        for (address, prefix) in
            [("255.255.255.255", "255.255.255.255/32"), ("0.0.0.0", "0.0.0.0/32"), ("::", "::/128")]
        {
            assert_eq!(to_prefixes(ip(address), ip(address), 1), Ok(nets(&[prefix])));
        }
    }

    #[test]
    fn unaligned_range_is_split_exactly() {
        let expected = nets(&["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/30", "10.0.0.8/31", "10.0.0.10/32"]);
        assert_eq!(to_prefixes(ip("10.0.0.1"), ip("10.0.0.10"), 5), Ok(expected));
    }

    #[test]
    fn worst_ranges_need_as_many_prefixes_as_documented() {
        assert_eq!(to_prefixes(ip("0.0.0.1"), ip("255.255.255.254"), 62).map(|prefixes| prefixes.len()), Ok(62));
        let end = ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
        assert_eq!(to_prefixes(ip("::1"), end, 254).map(|prefixes| prefixes.len()), Ok(254));
    }

    #[test]
    fn cap_is_exact() {
        let (start, end) = (ip("0.0.0.1"), ip("255.255.255.254"));
        assert_eq!(to_prefixes(start, end, 61), Err(RangeError::TooManyPrefixes { start, end, cap: 61 }));
        assert_eq!(to_prefixes(start, end, 0), Err(RangeError::TooManyPrefixes { start, end, cap: 0 }));
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let (low, high, v6) = (ip("10.0.0.1"), ip("10.0.0.2"), ip("::1"));
        assert_eq!(to_prefixes(high, low, 9), Err(RangeError::Reversed { start: high, end: low }));
        assert_eq!(to_prefixes(low, v6, 9), Err(RangeError::MixedFamilies { start: low, end: v6 }));
        assert_eq!(to_prefixes(v6, low, 9), Err(RangeError::MixedFamilies { start: v6, end: low }));
    }

    #[test]
    fn overlapping_and_adjacent_prefixes_are_merged() {
        let prefixes =
            nets(&["10.0.1.0/24", "10.0.0.0/24", "10.0.1.128/25", "10.0.3.0/24", "fd00::/64", "255.0.0.0/8"]);
        assert_eq!(
            from_prefixes(&prefixes),
            [
                range("10.0.0.0", "10.0.1.255", 0),
                range("10.0.3.0", "10.0.3.255", 0),
                range("255.0.0.0", "255.255.255.255", 0),
                range("fd00::", "fd00::ffff:ffff:ffff:ffff", 0),
            ]
        );
    }

    #[test]
    fn last_ipv4_and_first_ipv6_address_are_not_adjacent() {
        assert_eq!(from_prefixes(&nets(&["255.255.255.255/32", "::/128"])).len(), 2);
        assert_eq!(from_prefixes(&nets(&["255.255.255.255/32", "::1:0:0/128"])).len(), 2);
    }

    #[test]
    fn advertisement_order_is_version_protocol_address() {
        let ordered = [
            range("10.0.0.0", "10.0.0.9", 0),
            range("10.0.0.11", "10.0.0.19", 0),
            range("10.1.0.0", "10.1.0.9", 6),
            range("9.0.0.0", "9.0.0.9", 17),
            range("::", "::9", 0),
        ];
        assert_eq!(check_advertisement(&ordered), Ok(()));
        assert_eq!(check_advertisement(&[]), Ok(()));
        for swapped in 0..ordered.len() - 1 {
            let mut ranges = ordered;
            ranges.swap(swapped, swapped + 1);
            let RouteRange { start, end, .. } = ordered[swapped];
            assert_eq!(check_advertisement(&ranges), Err(RangeError::OutOfOrder { start, end }), "swapped {swapped}");
        }
    }

    #[test]
    fn adjacent_ranges_may_be_advertised_and_overlapping_ones_not() {
        let first = range("10.0.0.0", "10.0.0.9", 0);
        assert_eq!(check_advertisement(&[first, range("10.0.0.10", "10.0.0.19", 0)]), Ok(()));
        let (start, end) = (ip("10.0.0.9"), ip("10.0.0.19"));
        let overlapping = RouteRange { start, end, protocol: 0 };
        assert_eq!(check_advertisement(&[first, overlapping]), Err(RangeError::OutOfOrder { start, end }));
    }

    #[test]
    fn impossible_range_is_not_advertised() {
        let (start, end) = (ip("10.0.0.2"), ip("10.0.0.1"));
        let reversed = RouteRange { start, end, protocol: 0 };
        assert_eq!(check_advertisement(&[reversed]), Err(RangeError::Reversed { start, end }));
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            (0..64u32).prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
            (0..64u128).prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(u128::MAX - bits))),
        ]
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (address(), 0..=128u8).prop_map(|(address, length)| {
            IpNet::new(address, length.min(if address.is_ipv4() { 32 } else { 128 })).unwrap()
        })
    }

    proptest! {
        #[test]
        fn range_to_prefixes_and_back_is_the_identity(a in address(), b in address()) {
            let (start, end) = (a.min(b), a.max(b));
            match to_prefixes(start, end, 254) {
                Ok(prefixes) => {
                    prop_assert_eq!(from_prefixes(&prefixes), vec![RouteRange { start, end, protocol: 0 }]);
                    let mut tight = prefixes.clone();
                    tight.sort();
                    prop_assert_eq!(IpNet::aggregate(&prefixes).len(), prefixes.len(), "not the fewest");
                    prop_assert_eq!(tight, prefixes);
                }
                Err(error) => {
                    prop_assert_eq!(error, RangeError::MixedFamilies { start, end });
                    prop_assert!(start.is_ipv4() != end.is_ipv4());
                }
            }
        }

        #[test]
        fn ranges_hold_exactly_the_addresses_of_the_prefixes(
            prefixes in prop::collection::vec(prefix(), 0..12), probes in prop::collection::vec(address(), 20),
        ) {
            let ranges = from_prefixes(&prefixes);
            prop_assert_eq!(check_advertisement(&ranges), Ok(()));
            let ends = prefixes.iter().flat_map(|prefix| [prefix.network(), prefix.broadcast()]);
            for address in probes.into_iter().chain(ends) {
                let inside = prefixes.iter().any(|prefix| prefix.contains(&address));
                prop_assert_eq!(ranges.iter().any(|range| range.contains(address)), inside, "{}", address);
            }
        }

        #[test]
        fn checks_never_panic(
            ends in prop::collection::vec((address(), address(), 0..3u8), 0..6), cap in 0..300usize,
        ) {
            let ranges: Vec<_> = ends.iter().map(|(start, end, protocol)| RouteRange { start: *start, end: *end, protocol: *protocol }).collect();
            let _ = check_advertisement(&ranges);
            for range in ranges {
                if let Ok(prefixes) = to_prefixes(range.start, range.end, cap) {
                    prop_assert!(prefixes.len() <= cap);
                }
            }
        }
    }
}
