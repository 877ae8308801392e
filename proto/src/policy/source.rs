//! The source check: a session sends from its leased addresses only.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address_pool::Lease;
use crate::drop_reason::DropReason;
use crate::packet::IpPacket;

use super::scope::{SOURCE_REASONS, check_v4, check_v6};

/// The source addresses a session may use (BCP 38, RFC 9484 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourcePolicy {
    /// The leased IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The leased IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl From<Lease> for SourcePolicy {
    fn from(lease: Lease) -> Self {
        Self { v4: lease.v4, v6: lease.v6 }
    }
}

impl SourcePolicy {
    /// Checks that the packet comes from exactly a leased address.
    ///
    /// # Errors
    /// The reason to drop the packet. Unspecified, loopback, multicast, broadcast and link-local sources have reasons
    /// of their own and are refused whatever the lease says.
    #[inline]
    pub fn check(&self, packet: &IpPacket) -> Result<(), DropReason> {
        let leased = match packet.source {
            IpAddr::V4(source) => {
                check_v4(source, &SOURCE_REASONS)?;
                self.v4 == Some(source)
            }
            IpAddr::V6(source) => {
                check_v6(source, &SOURCE_REASONS)?;
                self.v6 == Some(source)
            }
        };
        if leased { Ok(()) } else { Err(DropReason::SourceNotLeased) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scope::packet;
    use super::*;

    fn from(source: &str) -> Result<(), DropReason> {
        let policy =
            SourcePolicy { v4: Some("10.64.0.2".parse().unwrap()), v6: Some("fd00:0:0:1::2".parse().unwrap()) };
        policy.check(&packet(source, source))
    }

    #[test]
    fn only_the_leased_addresses_may_send() {
        assert_eq!(from("10.64.0.2"), Ok(()));
        assert_eq!(from("fd00:0:0:1::2"), Ok(()));
        for other in ["10.64.0.3", "10.64.0.1", "8.8.8.8", "fd00:0:0:1::3", "fd00:0:0:2::2", "::ffff:10.64.0.2"] {
            assert_eq!(from(other), Err(DropReason::SourceNotLeased), "{other}");
        }
    }

    #[test]
    fn policy_of_a_lease_has_its_addresses() {
        let (v4, v6) = (Some(Ipv4Addr::new(10, 64, 0, 2)), Some("fd00::2".parse().unwrap()));
        assert_eq!(SourcePolicy::from(Lease { v4, v6 }), SourcePolicy { v4, v6 });
    }

    #[test]
    fn special_sources_have_their_own_reason() {
        for (source, reason) in [
            ("0.0.0.0", DropReason::SourceUnspecified),
            ("::", DropReason::SourceUnspecified),
            ("127.0.0.1", DropReason::SourceLoopback),
            ("::1", DropReason::SourceLoopback),
            ("::ffff:127.0.0.1", DropReason::SourceLoopback),
            ("224.0.0.1", DropReason::SourceMulticast),
            ("255.255.255.255", DropReason::SourceMulticast),
            ("ff02::1", DropReason::SourceMulticast),
            ("169.254.1.1", DropReason::SourceLinkLocal),
            ("fe80::1", DropReason::SourceLinkLocal),
            ("febf::1", DropReason::SourceLinkLocal),
        ] {
            assert_eq!(from(source), Err(reason), "{source}");
        }
    }

    #[test]
    fn special_source_is_refused_even_when_leased() {
        let policy = SourcePolicy { v4: Some(Ipv4Addr::LOCALHOST), v6: None };
        assert_eq!(policy.check(&packet("127.0.0.1", "8.8.8.8")), Err(DropReason::SourceLoopback));
    }

    #[test]
    fn session_without_a_family_may_not_send_it() {
        let policy = SourcePolicy { v4: None, v6: None };
        assert_eq!(policy.check(&packet("10.64.0.2", "8.8.8.8")), Err(DropReason::SourceNotLeased));
    }
}
