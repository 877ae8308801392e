//! Longest-prefix matching for IPv4 and IPv6.
//!
//! Each family keeps one hash map per prefix length in use, longest first. A lookup probes them in turn, so it costs
//! one or two probes on a gateway whose table is leases and a few networks, and at most one probe per length in use.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::BitAnd;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A table of prefixes, searched for the longest one that holds an address.
#[derive(Debug, Clone)]
pub struct RouteTable<T> {
    v4: Lengths<u32, T>,
    /// IPv6 prefixes longer than 64 bits.
    v6_long: Lengths<u128, T>,
    /// IPv6 prefixes of up to 64 bits, by their upper half: half the memory, and so fewer cache misses.
    v6_short: Lengths<u64, T>,
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self { v4: Lengths(Vec::new()), v6_long: Lengths(Vec::new()), v6_short: Lengths(Vec::new()) }
    }
}

impl<T> RouteTable<T> {
    /// Makes an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of `prefix`, whose host bits are ignored, and returns its former value.
    pub fn insert(&mut self, prefix: IpNet, value: T) -> Option<T> {
        match Key::from(prefix) {
            Key::V4(network, length) => self.v4.insert(network, length, value),
            Key::V6Long(network, length) => self.v6_long.insert(network, length, value),
            Key::V6Short(network, length) => self.v6_short.insert(network, length, value),
        }
    }

    /// Removes exactly `prefix`, whose host bits are ignored, and returns its value.
    pub fn remove(&mut self, prefix: IpNet) -> Option<T> {
        match Key::from(prefix) {
            Key::V4(network, length) => self.v4.remove(network, length),
            Key::V6Long(network, length) => self.v6_long.remove(network, length),
            Key::V6Short(network, length) => self.v6_short.remove(network, length),
        }
    }

    /// The value of exactly `prefix`, whose host bits are ignored.
    pub fn value(&self, prefix: IpNet) -> Option<&T> {
        match Key::from(prefix) {
            Key::V4(network, length) => self.v4.value(network, length),
            Key::V6Long(network, length) => self.v6_long.value(network, length),
            Key::V6Short(network, length) => self.v6_short.value(network, length),
        }
    }

    /// The value of the longest prefix that holds `address`.
    ///
    /// Part of every packet's way: a call that is not inlined takes a tenth of the whole lookup.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        match address {
            IpAddr::V4(address) => self.v4.lookup(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.v6_long.lookup(bits).or_else(|| self.v6_short.lookup(upper_half(bits)))
            }
        }
    }

    /// All prefixes and their values: IPv4 before IPv6, longer before shorter, otherwise in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &T)> {
        let v4_net = |bits, length| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), length));
        let v6_net = |bits, length| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length));
        let v4 = self.v4.iter().map(move |(bits, length, value)| (v4_net(bits, length), value));
        let long = self.v6_long.iter().map(move |(bits, length, value)| (v6_net(bits, length), value));
        let short =
            self.v6_short.iter().map(move |(bits, length, value)| (v6_net(u128::from(bits) << 64, length), value));
        v4.chain(long).chain(short)
    }

    /// The number of prefixes.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6_long.len() + self.v6_short.len()
    }

    /// Tells whether the table holds no prefix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A prefix as the number and length under which its map knows it.
enum Key {
    V4(u32, u8),
    V6Long(u128, u8),
    V6Short(u64, u8),
}

impl From<IpNet> for Key {
    fn from(prefix: IpNet) -> Self {
        match prefix {
            IpNet::V4(prefix) => Self::V4(prefix.network().to_bits(), prefix.prefix_len()),
            IpNet::V6(prefix) if prefix.prefix_len() > 64 => {
                Self::V6Long(prefix.network().to_bits(), prefix.prefix_len())
            }
            IpNet::V6(prefix) => Self::V6Short(upper_half(prefix.network().to_bits()), prefix.prefix_len()),
        }
    }
}

fn upper_half(bits: u128) -> u64 {
    (bits >> 64) as u64
}

/// An address, or the part of one that prefixes are made of, as a number.
trait Bits: Copy + Eq + Hash + BitAnd<Output = Self> {
    /// The number with the `length` highest bits set; `length` is at most the width.
    fn mask(length: u8) -> Self;
}

impl Bits for u32 {
    fn mask(length: u8) -> Self {
        !Self::MAX.checked_shr(length.into()).unwrap_or(0)
    }
}

impl Bits for u64 {
    fn mask(length: u8) -> Self {
        !Self::MAX.checked_shr(length.into()).unwrap_or(0)
    }
}

impl Bits for u128 {
    fn mask(length: u8) -> Self {
        !Self::MAX.checked_shr(length.into()).unwrap_or(0)
    }
}

/// The prefixes of one length, by their network address.
#[derive(Debug, Clone)]
struct Length<B, T> {
    length: u8,
    mask: B,
    networks: HashMap<B, T, BuildHasherDefault<AddressHasher>>,
}

/// The prefixes of one kind: one non-empty map per length in use, longest first.
#[derive(Debug, Clone)]
struct Lengths<B, T>(Vec<Length<B, T>>);

impl<B: Bits, T> Lengths<B, T> {
    /// Where `length` is, or where it belongs.
    fn position(&self, length: u8) -> Result<usize, usize> {
        self.0.binary_search_by(|entry| length.cmp(&entry.length))
    }

    fn insert(&mut self, network: B, length: u8, value: T) -> Option<T> {
        let position = self.position(length).unwrap_or_else(|position| {
            self.0.insert(position, Length { length, mask: B::mask(length), networks: HashMap::default() });
            position
        });
        self.0[position].networks.insert(network, value)
    }

    fn remove(&mut self, network: B, length: u8) -> Option<T> {
        let position = self.position(length).ok()?;
        let networks = &mut self.0[position].networks;
        let removed = networks.remove(&network);
        if networks.is_empty() {
            self.0.remove(position);
        }
        removed
    }

    fn value(&self, network: B, length: u8) -> Option<&T> {
        self.0[self.position(length).ok()?].networks.get(&network)
    }

    #[inline]
    fn lookup(&self, address: B) -> Option<&T> {
        self.0.iter().find_map(|entry| entry.networks.get(&(address & entry.mask)))
    }

    fn iter(&self) -> impl Iterator<Item = (B, u8, &T)> {
        self.0.iter().flat_map(|entry| entry.networks.iter().map(|(bits, value)| (*bits, entry.length, value)))
    }

    fn len(&self) -> usize {
        self.0.iter().map(|entry| entry.networks.len()).sum()
    }
}

/// Hashes one address with one multiplication, several times faster than the standard hasher.
///
/// It does not resist chosen keys. The keys of the table are chosen by the gateway's operator and address pool; packets
/// only look addresses up.
#[derive(Debug, Clone, Copy, Default)]
struct AddressHasher(u64);

/// Two odd numbers with well mixed bits: digits of the golden ratio and of pi.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const PI: u64 = 0x2436_6e7e_8f3d_96a5;

/// Multiplies to 128 bits and folds the halves, so that every input bit reaches both ends of the result.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    upper_half(product) ^ product as u64
}

impl Hasher for AddressHasher {
    fn write_u32(&mut self, bits: u32) {
        self.0 = fold(u64::from(bits) ^ PI, GOLDEN);
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = fold(bits ^ PI, GOLDEN);
    }

    fn write_u128(&mut self, bits: u128) {
        self.0 = fold(upper_half(bits) ^ PI, bits as u64 ^ GOLDEN);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = fold(self.0 ^ u64::from(*byte), GOLDEN);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn longest_prefix_wins() {
        let mut table = RouteTable::new();
        for prefix in ["0.0.0.0/0", "10.0.0.0/8", "10.64.0.0/24", "10.64.0.2/32", "::/0", "fd00::/64", "fd00::2/128"] {
            table.insert(net(prefix), prefix);
        }
        for (address, prefix) in [
            ("10.64.0.2", "10.64.0.2/32"),
            ("10.64.0.3", "10.64.0.0/24"),
            ("10.65.0.3", "10.0.0.0/8"),
            ("9.9.9.9", "0.0.0.0/0"),
            ("fd00::2", "fd00::2/128"),
            ("fd00::3", "fd00::/64"),
            ("2001:db8::", "::/0"),
        ] {
            assert_eq!(table.lookup(ip(address)), Some(&prefix), "{address}");
        }
    }

    #[test]
    fn families_do_not_mix() {
        let mut table = RouteTable::new();
        table.insert(net("0.0.0.0/0"), 4);
        assert_eq!(table.lookup(ip("::")), None);
        assert_eq!(table.lookup(ip("::ffff:1.2.3.4")), None);
    }

    #[test]
    fn insert_and_remove_return_the_former_value() {
        let mut table = RouteTable::new();
        assert_eq!(table.insert(net("10.1.0.0/16"), 1), None);
        assert_eq!(table.insert(net("10.1.2.3/16"), 2), Some(1));
        assert_eq!(table.value(net("10.1.0.0/16")), Some(&2));
        assert_eq!(table.remove(net("10.1.0.0/17")), None);
        assert_eq!(table.remove(net("10.1.0.0/16")), Some(2));
        assert!(table.is_empty());
        assert_eq!(table.lookup(ip("10.1.0.0")), None);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Insert(IpNet, u32),
        Remove(IpNet),
        Lookup(IpAddr),
    }

    /// Addresses that differ in few bits at both ends, so that prefixes nest and collide.
    fn address() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), 0..4u128, 0..8u128).prop_map(|(v6, high, low)| {
            if v6 {
                IpAddr::V6(Ipv6Addr::from_bits((high << 126) | (high << 63) | low))
            } else {
                let high = u32::try_from(high).unwrap();
                IpAddr::V4(Ipv4Addr::from_bits((high << 30) | (high << 15) | u32::try_from(low).unwrap()))
            }
        })
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (address(), prop::sample::select(vec![0u8, 1, 2, 8, 15, 16, 17, 24, 30, 31, 32, 64, 65, 126, 127, 128]))
            .prop_map(|(address, length)| {
                IpNet::new(address, length.min(if address.is_ipv4() { 32 } else { 128 })).unwrap()
            })
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (prefix(), any::<u32>()).prop_map(|(prefix, value)| Op::Insert(prefix, value)),
            1 => prefix().prop_map(Op::Remove),
            3 => address().prop_map(Op::Lookup),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_list(ops in prop::collection::vec(op(), 0..200)) {
            let mut table = RouteTable::new();
            let mut naive = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert(prefix, value) => {
                        prop_assert_eq!(table.insert(prefix, value), naive.insert(prefix.trunc(), value));
                    }
                    Op::Remove(prefix) => {
                        prop_assert_eq!(table.remove(prefix), naive.remove(&prefix.trunc()));
                    }
                    Op::Lookup(address) => {
                        let best = naive.iter().filter(|(prefix, _)| prefix.contains(&address));
                        let best = best.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, value)| value);
                        prop_assert_eq!(table.lookup(address), best);
                    }
                }
                prop_assert_eq!(table.len(), naive.len());
            }
            let listed: BTreeMap<IpNet, u32> = table.iter().map(|(prefix, value)| (prefix, *value)).collect();
            prop_assert_eq!(listed, naive);
        }
    }

    #[test]
    fn hash_spreads_neighbours_and_aligned_networks() {
        let hash = |bits: u128| {
            let mut hasher = AddressHasher::default();
            hasher.write_u128(bits);
            hasher.finish()
        };
        for shift in [0, 16, 64, 96] {
            let buckets: HashSet<u64> = (0..4096u128).map(|n| hash(n << shift) & 0xfff).collect();
            // A random function uses 2589 of them.
            assert!(buckets.len() > 2000, "shift {shift}: {} of 4096 buckets used", buckets.len());
        }
    }
}
