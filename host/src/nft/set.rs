//! Sets of addresses with a name, and what is in them.

use std::net::IpAddr;
use std::time::Duration;

use super::attribute::Attributes;

/// Most bytes of elements in one message: a list's length is a number of 16 bits.
const MOST_BYTES: usize = 48 * 1024;
/// `NFT_SET_INTERVAL`.
const INTERVAL: u32 = 0x04;
/// `NFT_SET_TIMEOUT`.
const TIMEOUT: u32 = 0x10;
/// `NFT_SET_ELEM_INTERVAL_END`.
const RANGE_END: u32 = 1;

/// The family of the addresses in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    V4,
    V6,
}

/// What the elements of a set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Addresses,
    /// Each found by any address within it.
    Ranges,
    /// Each goes after a time of its own.
    PassingAddresses,
}

/// A set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) key: Key,
    pub(crate) holds: Holds,
}

/// A set of numbers, each of which goes after a time of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumberSet {
    pub(crate) name: &'static str,
    pub(crate) numbers: Numbers,
}

/// What numbers in a set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Groups of users.
    Groups,
    /// Ports of TCP or UDP.
    Ports,
}

/// One element of a set, or the end of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element(Attributes);

impl Key {
    /// Both families.
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn length(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// `ipv4_addr` and `ipv6_addr`, for `nft list` only.
    fn data_type(self) -> u32 {
        match self {
            Self::V4 => 7,
            Self::V6 => 8,
        }
    }
}

impl Set {
    /// Encodes the set with a number that no other set of the batch has.
    pub(super) fn encode(&self, table: &str, id: u32) -> Attributes {
        let flags = match self.holds {
            Holds::Addresses => 0,
            Holds::Ranges => INTERVAL,
            Holds::PassingAddresses => TIMEOUT,
        };
        Attributes::new()
            .text(1, table)
            .text(2, &self.name)
            .number(3, flags)
            .number(4, self.key.data_type())
            .number(5, self.key.length())
            .number(10, id)
    }
}

impl NumberSet {
    /// Encodes the set with a number that no other set of the batch has.
    pub(super) fn encode(self, table: &str, id: u32) -> Attributes {
        // The types are `gid` and `inet_service`, for `nft list` only.
        let (kind, length) = match self.numbers {
            Numbers::Groups => (25, 4),
            Numbers::Ports => (13, 2),
        };
        Attributes::new()
            .text(1, table)
            .text(2, self.name)
            .number(3, TIMEOUT)
            .number(4, kind)
            .number(5, length)
            .number(10, id)
    }
}

impl Element {
    fn of(key: &[u8]) -> Self {
        Self(Attributes::new().nested(1, &Attributes::new().bytes(1, key)))
    }

    /// An address.
    pub(crate) fn address(address: IpAddr) -> Self {
        Self::of(&octets(address))
    }

    /// A group of users.
    pub(crate) fn group(group: u32) -> Self {
        Self::of(&group.to_ne_bytes())
    }

    /// A port.
    pub(crate) fn port(port: u16) -> Self {
        Self::of(&port.to_be_bytes())
    }

    /// The addresses from one to another, both included, of the same family.
    pub(crate) fn range(first: IpAddr, last: IpAddr) -> impl Iterator<Item = Self> {
        let behind = match last {
            IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| bits.to_be_bytes().to_vec()),
            IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| bits.to_be_bytes().to_vec()),
        };
        // A range up to the last address of all has no end.
        let end = behind.map(|behind| Self(Self::of(&behind).0.number(3, RANGE_END)));
        [Self::address(first)].into_iter().chain(end)
    }

    /// Gone after this time, in a set of passing addresses.
    pub(crate) fn lasting(self, time: Duration) -> Self {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.bytes(4, &milliseconds.to_be_bytes()))
    }
}

/// Encodes the elements of a set, as many to a message as fit.
pub(super) fn encode_elements(table: &str, set: &str, elements: impl IntoIterator<Item = Element>) -> Vec<Attributes> {
    let message = |list: &Attributes| Attributes::new().text(1, table).text(2, set).nested(3, list);
    let (mut messages, mut list) = (Vec::new(), Attributes::new());
    for Element(element) in elements {
        list = list.nested(1, &element);
        if list.as_bytes().len() > MOST_BYTES {
            messages.push(message(&list));
            list = Attributes::new();
        }
    }
    if !list.as_bytes().is_empty() {
        messages.push(message(&list));
    }
    messages
}

/// Encodes "everything that is in the set".
pub(super) fn encode_all_elements(table: &str, set: &str) -> Attributes {
    Attributes::new().text(1, table).text(2, set)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_behind_its_last_address_and_the_last_of_all_needs_no_end() {
        let range = |first: &str, last: &str| {
            let elements = Element::range(first.parse().unwrap(), last.parse().unwrap());
            elements.map(|element| element.0).collect::<Vec<_>>()
        };
        let start = Element::address("10.1.0.0".parse().unwrap()).0;
        let end = Element::address("10.2.0.0".parse().unwrap()).0.number(3, RANGE_END);
        assert_eq!(range("10.1.0.0", "10.1.255.255"), [start.clone(), end]);
        assert_eq!(range("10.1.0.0", "255.255.255.255"), [start]);
        assert_eq!(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").len(), 1);
    }

    #[test]
    fn many_elements_are_spread_over_messages_that_a_length_can_tell() {
        let elements = |count: u32| (0..count).map(|number| Element::address(IpAddr::V4(number.into())));
        assert_eq!(encode_elements("t", "s", elements(0)).len(), 0);
        assert_eq!(encode_elements("t", "s", elements(1)).len(), 1);
        let messages = encode_elements("t", "s", elements(10_000));
        assert!(messages.len() > 1 && messages.iter().all(|message| message.as_bytes().len() < 1 << 16));
    }
}
