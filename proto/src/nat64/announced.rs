//! Prefixes of translators that routers announce (PREF64, RFC 8781), and how long each is good for.
//!
//! ```text
//! 0                   1                   2                   3
//! 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------+-----+
//! | Type (38)     | Length (2)    | Lifetime, in 8 seconds  | PLC |
//! +---------------+---------------+-------------------------+-----+
//! | the first 96 bits of the prefix                               |
//! |                                                               |
//! |                                                               |
//! +---------------------------------------------------------------+
//! ```
//!
//! The prefix length code (PLC) counts the lengths of [`PrefixLength::ALL`] from 0.

use std::iter;
use std::time::{Duration, Instant};

use super::{Nat64Prefix, PrefixLength};

/// The option's type (RFC 8781 section 4).
const PREF64: u8 = 38;
/// Its length, in units.
const LENGTH: u8 = 2;
/// The unit of the lengths of options in neighbour discovery (RFC 4861 section 4.6), in bytes.
const UNIT: usize = 8;
/// The part of the field behind the length that is the prefix length code. What is before it counts units of 8 seconds,
/// so it is the number of seconds where it stands.
const CODE: u16 = 0b111;
/// Most prefixes kept, of all links; the oldest goes for a new one. Hardly any network has two.
const MOST: usize = 8;

/// What a router says of a translator's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// The prefix.
    pub prefix: Nat64Prefix,
    /// How long it may be used from now on; zero takes it back.
    pub lifetime: Duration,
}

impl Announcement {
    /// The announcements among options of neighbour discovery, up to the first option whose length cannot be. Those
    /// that the standard does not know are passed over.
    pub fn among(options: &[u8]) -> impl Iterator<Item = Self> {
        let mut rest = options;
        let next = move || {
            let size = UNIT.saturating_mul((*rest.get(1)?).into());
            let (option, after) = rest.split_at_checked(size).filter(|_| size > 0)?;
            rest = after;
            Some(option)
        };
        iter::from_fn(next).filter_map(Self::decode)
    }

    fn decode(option: &[u8]) -> Option<Self> {
        let (&[kind, length, high, low], first) = option.split_first_chunk::<4>()?;
        if (kind, length) != (PREF64, LENGTH) {
            return None;
        }
        let field = u16::from_be_bytes([high, low]);
        let length = *PrefixLength::ALL.get(usize::from(field & CODE))?;
        let mut address = [0; 16];
        address.get_mut(..first.len())?.copy_from_slice(first);
        let lifetime = Duration::from_secs((field & !CODE).into());
        Some(Self { prefix: Nat64Prefix::of(address.into(), length), lifetime })
    }
}

/// The prefixes that hold where a host is.
#[derive(Debug, Clone, Default)]
pub struct AnnouncedPrefixes(Vec<Announced>);

#[derive(Debug, Clone, Copy)]
struct Announced {
    /// The index of the link that the announcement came by.
    link: u32,
    prefix: Nat64Prefix,
    until: Instant,
}

impl AnnouncedPrefixes {
    /// A router on the link with this index announced a prefix.
    pub fn handle_announcement(&mut self, link: u32, announcement: Announcement, now: Instant) {
        let Announcement { prefix, lifetime } = announcement;
        self.0.retain(|known| (known.link, known.prefix) != (link, prefix) && known.until > now);
        if lifetime.is_zero() {
            return;
        }
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push(Announced { link, prefix, until: now + lifetime });
    }

    /// A link leads into that network no more.
    pub fn handle_link_down(&mut self, link: u32) {
        self.0.retain(|known| known.link != link);
    }

    /// The prefixes that may be used now, the one announced last first.
    #[must_use]
    pub fn prefixes(&self, now: Instant) -> Vec<Nat64Prefix> {
        let mut prefixes: Vec<Nat64Prefix> = Vec::new();
        for known in self.0.iter().rev().filter(|known| known.until > now) {
            if !prefixes.contains(&known.prefix) {
                prefixes.push(known.prefix);
            }
        }
        prefixes
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "only differences from it matter")]
    fn start() -> Instant {
        Instant::now()
    }

    /// An option as routers send it.
    fn option(lifetime_and_code: u16, prefix: &str) -> Vec<u8> {
        let prefix: Ipv6Addr = prefix.parse().unwrap();
        [&[PREF64, LENGTH][..], &lifetime_and_code.to_be_bytes(), &prefix.octets()[..12]].concat()
    }

    fn only(options: &[u8]) -> Option<Announcement> {
        let found: Vec<_> = Announcement::among(options).collect();
        assert!(found.len() <= 1, "{found:?}");
        found.first().copied()
    }

    fn announcement(prefix: &str, seconds: u64) -> Announcement {
        let prefix = Nat64Prefix::of(prefix.parse().unwrap(), PrefixLength::Bits96);
        Announcement { prefix, lifetime: Duration::from_secs(seconds) }
    }

    #[test]
    fn codes_are_the_lengths_of_rfc_8781_and_others_are_passed_over() {
        let (all, address) = ("2001:db8:122:344:55:66:77:88", "2001:db8:122:344:55:66::".parse().unwrap());
        let lengths = [96, 64, 56, 48, 40, 32].map(|bits| bits / 8);
        for (code, length) in (0..).zip(PrefixLength::ALL) {
            assert_eq!(length.bytes(), lengths[usize::from(code)]);
            let heard = only(&option(1800 | code, all)).unwrap();
            assert_eq!(heard, Announcement { prefix: Nat64Prefix::of(address, length), ..announcement("::", 1800) });
        }
        for code in 6..8 {
            assert_eq!(only(&option(1800 | code, all)), None, "code {code} means nothing");
        }
    }

    #[test]
    fn lifetime_counts_eights_of_seconds() {
        for (scaled, seconds) in [(0_u16, 0), (1, 8), (225, 1800), (8191, 65_528)] {
            assert_eq!(only(&option(scaled << 3, "64:ff9b::")), Some(announcement("64:ff9b::", seconds)));
        }
    }

    #[test]
    fn announcements_are_found_among_other_options_and_hostile_lengths_end_the_search() {
        let good = option(1800, "64:ff9b::");
        let other = [25, 1, 0, 0, 0, 0, 0, 0];
        let longer = [&[PREF64, 3][..], &[0; 22]].concat();
        let shorter = [PREF64, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(Announcement::among(&[&other[..], &good, &longer, &shorter, &good].concat()).count(), 2);
        let nothing = [3, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(only(&[&good[..], &nothing, &good].concat()), Some(announcement("64:ff9b::", 1800)));
        for end in 0..good.len() {
            assert_eq!(only(&good[..end]), None, "cut short to {end} bytes");
        }
        assert_eq!(only(&[PREF64, 255, 7, 8]), None, "longer than what there is");
    }

    #[test]
    fn prefix_holds_until_its_time_is_over_or_it_is_taken_back() {
        let (mut known, now) = (AnnouncedPrefixes::default(), start());
        let [first, second] = [announcement("64:ff9b::", 600), announcement("2001:db8:64::", 1800)];
        known.handle_announcement(2, first, now);
        known.handle_announcement(2, second, now);
        assert_eq!(known.prefixes(now), [second.prefix, first.prefix]);
        let later = now + first.lifetime;
        assert_eq!(known.prefixes(later), [second.prefix]);
        known.handle_announcement(2, first, later);
        assert_eq!(known.prefixes(later + Duration::from_secs(599)), [first.prefix, second.prefix], "heard again");
        known.handle_announcement(2, Announcement { lifetime: Duration::ZERO, ..first }, later);
        assert_eq!(known.prefixes(later), [second.prefix]);
    }

    #[test]
    fn prefix_of_a_network_that_was_left_holds_no_more() {
        let (mut known, now) = (AnnouncedPrefixes::default(), start());
        let [home, away] = [announcement("64:ff9b::", 600), announcement("2001:db8:64::", 600)];
        known.handle_announcement(2, home, now);
        known.handle_announcement(3, home, now);
        known.handle_announcement(3, away, now);
        assert_eq!(known.prefixes(now), [away.prefix, home.prefix], "none comes twice");
        known.handle_link_down(3);
        assert_eq!(known.prefixes(now), [home.prefix]);
        known.handle_link_down(2);
        assert_eq!(known.prefixes(now), []);
    }

    #[test]
    fn number_of_prefixes_is_bounded_and_the_newest_stays() {
        let (mut known, now) = (AnnouncedPrefixes::default(), start());
        for number in 0..100 {
            known.handle_announcement(2, announcement(&format!("2001:db8:{number}::"), 600), now);
        }
        assert_eq!(known.prefixes(now).len(), MOST);
        assert_eq!(known.prefixes(now)[0], announcement("2001:db8:99::", 600).prefix);
    }

    proptest! {
        #[test]
        fn whatever_stands_in_options_is_read_to_its_end(options in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Announcement::among(&options).count() <= options.len() / (UNIT * usize::from(LENGTH)));
        }
    }
}
