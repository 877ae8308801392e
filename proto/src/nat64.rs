//! Addresses of IPv4 hosts as an IPv6-only network with a translator (NAT64) shows them (RFC 6052), and how the prefix
//! of that network is learned: from its routers (RFC 8781) and from its resolver (RFC 7050).
//!
//! ```text
//! bits     0        32       40       48       56       64       72       80       88       96       104      128
//! /32      | prefix | v4 (32)                           | zero   | suffix, zero
//! /40      | prefix          | v4 (24)                  | zero   | (8)    | suffix
//! /48      | prefix                   | v4 (16)         | zero   | (16)            | suffix
//! /56      | prefix                            | (8)    | zero   | v4 (24)                  | suffix
//! /64      | prefix                                     | zero   | v4 (32)                           | suffix
//! /96      | prefix                                                                       | v4 (32)
//! ```
//!
//! The bits from 64 to 71 are zero in each; with /96 they are part of the prefix.

mod announced;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use announced::{AnnouncedPrefixes, Announcement};

/// The name whose only addresses are [`WELL_KNOWN`]: one of IPv6 is made by a translator's resolver (RFC 7050 section
/// 8.1).
pub const NAME: &str = "ipv4only.arpa";
/// The addresses of that name.
pub const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// How long a translator's prefix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixLength {
    /// 32 bits.
    Bits32,
    /// 40 bits.
    Bits40,
    /// 48 bits.
    Bits48,
    /// 56 bits.
    Bits56,
    /// 64 bits.
    Bits64,
    /// 96 bits: most networks, and the well-known prefix 64:ff9b::/96.
    Bits96,
}

impl PrefixLength {
    /// All lengths there are, the most usual first: the order of their codes in RFC 8781.
    pub const ALL: [Self; 6] = [Self::Bits96, Self::Bits64, Self::Bits56, Self::Bits48, Self::Bits40, Self::Bits32];

    /// The bytes of an IPv6 address in which those of the IPv4 address are.
    const fn places(self) -> [usize; 4] {
        match self {
            Self::Bits32 => [4, 5, 6, 7],
            Self::Bits40 => [5, 6, 7, 9],
            Self::Bits48 => [6, 7, 9, 10],
            Self::Bits56 => [7, 9, 10, 11],
            Self::Bits64 => [9, 10, 11, 12],
            Self::Bits96 => [12, 13, 14, 15],
        }
    }

    /// Number of bytes.
    const fn bytes(self) -> usize {
        match self {
            Self::Bits32 => 4,
            Self::Bits40 => 5,
            Self::Bits48 => 6,
            Self::Bits56 => 7,
            Self::Bits64 => 8,
            Self::Bits96 => 12,
        }
    }
}

/// The prefix under which a translator shows the hosts of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat64Prefix {
    /// What stands before the IPv4 address; zero behind the prefix.
    address: [u8; 16],
    length: PrefixLength,
}

impl Nat64Prefix {
    /// The prefix of this length that an address begins with.
    #[must_use]
    pub fn of(address: Ipv6Addr, length: PrefixLength) -> Self {
        let mut bytes = address.octets();
        bytes.iter_mut().skip(length.bytes()).for_each(|byte| *byte = 0);
        Self { address: bytes, length }
    }

    /// The address under which an IPv4 host is reached.
    #[must_use]
    pub fn embed(self, host: Ipv4Addr) -> Ipv6Addr {
        let mut bytes = self.address;
        for (place, byte) in self.length.places().into_iter().zip(host.octets()) {
            if let Some(target) = bytes.get_mut(place) {
                *target = byte;
            }
        }
        Ipv6Addr::from(bytes)
    }

    /// The IPv4 host that an address stands for; `None` if it is not under this prefix.
    #[must_use]
    pub fn extract(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        (Self::of(address, self.length) == self).then(|| embedded(address, self.length))
    }

    /// The prefixes that the addresses of [`NAME`] tell, the most usual lengths first (RFC 7050 section 3). Where a
    /// prefix itself looks as if it held a well-known address, those count that both of them confirm.
    #[must_use]
    pub fn learn(addresses: &[Ipv6Addr]) -> Vec<Self> {
        let mut told: Vec<(Self, Ipv4Addr)> = Vec::new();
        for length in PrefixLength::ALL {
            for address in addresses {
                let pair = (Self::of(*address, length), embedded(*address, length));
                if WELL_KNOWN.contains(&pair.1) && !told.contains(&pair) {
                    told.push(pair);
                }
            }
        }
        let is_confirmed = |prefix: Self| told.iter().filter(|(other, _)| *other == prefix).count() == WELL_KNOWN.len();
        let any_confirmed = told.iter().any(|(prefix, _)| is_confirmed(*prefix));
        let mut learned: Vec<Self> = Vec::new();
        for (prefix, _) in &told {
            if (is_confirmed(*prefix) || !any_confirmed) && !learned.contains(prefix) {
                learned.push(*prefix);
            }
        }
        learned
    }
}

/// What stands where an address would hold one of IPv4.
fn embedded(address: Ipv6Addr, length: PrefixLength) -> Ipv4Addr {
    let bytes = address.octets();
    Ipv4Addr::from(length.places().map(|place| bytes.get(place).copied().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6052 section 2.4: a prefix of each length, and 192.0.2.33 under it.
    const TABLE: [(&str, PrefixLength, &str); 7] = [
        ("2001:db8::", PrefixLength::Bits32, "2001:db8:c000:221::"),
        ("2001:db8:100::", PrefixLength::Bits40, "2001:db8:1c0:2:21::"),
        ("2001:db8:122::", PrefixLength::Bits48, "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::", PrefixLength::Bits56, "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::", PrefixLength::Bits64, "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::", PrefixLength::Bits96, "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::", PrefixLength::Bits96, "64:ff9b::192.0.2.33"),
    ];

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_those_of_rfc_6052() {
        let host = Ipv4Addr::new(192, 0, 2, 33);
        for (prefix, length, address) in TABLE {
            let prefix = Nat64Prefix::of(v6(prefix), length);
            assert_eq!(prefix.embed(host), v6(address));
            assert_eq!(prefix.extract(v6(address)), Some(host));
            assert_eq!(prefix.extract(v6("2001:db9::1")), None, "{length:?}");
        }
    }

    #[test]
    fn prefix_is_learned_from_the_name_that_has_ipv4_alone() {
        for (prefix, length, _) in TABLE {
            let prefix = Nat64Prefix::of(v6(prefix), length);
            let answer = WELL_KNOWN.map(|host| prefix.embed(host));
            assert_eq!(Nat64Prefix::learn(&answer), [prefix], "{length:?}");
            assert_eq!(Nat64Prefix::learn(&answer[..1]), [prefix], "{length:?}, one address");
        }
        assert_eq!(Nat64Prefix::learn(&[v6("2001:db8::1"), v6("::1")]), [], "not a translator's");
    }

    #[test]
    fn network_with_two_translators_has_two_prefixes() {
        let [first, second] = ["64:ff9b::", "2001:db8:1::"].map(|text| Nat64Prefix::of(v6(text), PrefixLength::Bits96));
        let answer: Vec<_> = WELL_KNOWN.iter().flat_map(|host| [first.embed(*host), second.embed(*host)]).collect();
        assert_eq!(Nat64Prefix::learn(&answer), [first, second]);
    }

    #[test]
    fn prefix_that_holds_a_well_known_address_itself_is_no_riddle() {
        // 2001:db8:c000:aa::/64 has 192.0.0.170 where a prefix of 32 bits would have it.
        let prefix = Nat64Prefix::of(v6("2001:db8:c000:aa::"), PrefixLength::Bits64);
        let answer = WELL_KNOWN.map(|host| prefix.embed(host));
        assert_eq!(Nat64Prefix::learn(&answer), [prefix]);
        assert_eq!(Nat64Prefix::learn(&answer[..1]).len(), 2, "one address does not tell them apart");
    }

    proptest! {
        #[test]
        fn what_is_embedded_is_extracted(prefix: u128, host: u32, length in 0_usize..6) {
            let prefix = Nat64Prefix::of(Ipv6Addr::from(prefix), PrefixLength::ALL[length]);
            let host = Ipv4Addr::from(host);
            let address = prefix.embed(host);
            prop_assert_eq!(prefix.extract(address), Some(host));
            prop_assert_eq!(prefix.embed(host).octets()[8], prefix.address[8]);
        }

        #[test]
        fn learned_prefixes_show_well_known_addresses(addresses in proptest::collection::vec(any::<u128>(), 0..4)) {
            let addresses: Vec<_> = addresses.into_iter().map(Ipv6Addr::from).collect();
            for prefix in Nat64Prefix::learn(&addresses) {
                let hosts = addresses.iter().filter_map(|address| prefix.extract(*address));
                prop_assert!(hosts.into_iter().any(|host| WELL_KNOWN.contains(&host)));
            }
        }
    }
}
