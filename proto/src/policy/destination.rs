//! The destination check: isolation of clients, and addresses that no router forwards.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::drop_reason::DropReason;
use crate::packet::IpPacket;
use crate::packet::icmp::GatewayAddresses;

use super::scope::{DESTINATION_REASONS, check_v4, check_v6};

/// The destinations a client's packets may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DestinationPolicy {
    /// The IPv4 network of the clients.
    pub pool_v4: Option<Ipv4Net>,
    /// The IPv6 network of the clients.
    pub pool_v6: Option<Ipv6Net>,
    /// The gateway's own addresses in these networks, which clients may always reach.
    pub gateway: GatewayAddresses,
    /// Whether clients may reach each other.
    pub client_to_client: bool,
}

impl DestinationPolicy {
    /// Checks that the packet goes to a host beyond the tunnel, to the gateway, or, where allowed, to another client.
    ///
    /// # Errors
    /// The reason to drop the packet: another client while clients are isolated; an unspecified, loopback, multicast,
    /// link-local or broadcast destination, among them the first and last address of the IPv4 pool.
    #[inline]
    pub fn check(&self, packet: &IpPacket) -> Result<(), DropReason> {
        self.check_address(packet.destination)
    }

    /// As [`Self::check`], for whatever packet goes to an address.
    ///
    /// # Errors
    /// As [`Self::check`].
    #[inline]
    pub fn check_address(&self, destination: IpAddr) -> Result<(), DropReason> {
        let inside = match destination {
            IpAddr::V4(destination) => {
                check_v4(destination, &DESTINATION_REASONS)?;
                let inside = self.pool_v4.filter(|pool| pool.contains(&destination));
                if inside.is_some_and(|pool| is_directed_broadcast(pool, destination)) {
                    return Err(DropReason::DestinationBroadcast);
                }
                inside.is_some() && self.gateway.v4 != Some(destination)
            }
            IpAddr::V6(destination) => {
                check_v6(destination, &DESTINATION_REASONS)?;
                let inside = self.pool_v6.is_some_and(|pool| pool.contains(&destination));
                inside && self.gateway.v6 != Some(destination)
            }
        };
        if inside && !self.client_to_client { Err(DropReason::DestinationIsolated) } else { Ok(()) }
    }
}

/// Tells whether the address is the last of `pool`, or the first, which was once a broadcast address too (RFC 1122
/// section 3.3.6). A /31 or /32 has neither.
#[inline]
fn is_directed_broadcast(pool: Ipv4Net, address: Ipv4Addr) -> bool {
    pool.prefix_len() < 31 && (address == pool.broadcast() || address == pool.network())
}

#[cfg(test)]
mod tests {
    use super::super::scope::packet;
    use super::*;

    fn to(destination: &str, client_to_client: bool) -> Result<(), DropReason> {
        let policy = DestinationPolicy {
            pool_v4: Some("10.64.0.0/24".parse().unwrap()),
            pool_v6: Some("fd00:0:0:1::/64".parse().unwrap()),
            gateway: GatewayAddresses {
                v4: Some("10.64.0.1".parse().unwrap()),
                v6: Some("fd00:0:0:1::1".parse().unwrap()),
            },
            client_to_client,
        };
        policy.check(&packet(destination, destination))
    }

    #[test]
    fn gateway_and_the_world_are_always_reachable() {
        for destination in ["10.64.0.1", "fd00:0:0:1::1", "8.8.8.8", "10.64.1.2", "2001:db8::1", "fd00:0:0:2::5"] {
            assert_eq!(to(destination, false), Ok(()), "{destination}");
            assert_eq!(to(destination, true), Ok(()), "{destination}");
        }
    }

    #[test]
    fn clients_are_isolated_unless_allowed() {
        for destination in ["10.64.0.2", "10.64.0.254", "fd00:0:0:1::2", "fd00:0:0:1:ffff::"] {
            assert_eq!(to(destination, false), Err(DropReason::DestinationIsolated), "{destination}");
            assert_eq!(to(destination, true), Ok(()), "{destination}");
        }
    }

    #[test]
    fn pool_of_two_addresses_has_no_broadcast() {
        let to = |pool: &str, destination: &str| {
            let pool_v4 = Some(pool.parse().unwrap());
            let policy = DestinationPolicy { pool_v4, client_to_client: true, ..DestinationPolicy::default() };
            policy.check_address(destination.parse().unwrap())
        };
        for address in ["10.64.0.0", "10.64.0.1"] {
            assert_eq!(to("10.64.0.0/31", address), Ok(()), "{address}");
        }
        for address in ["10.64.0.0", "10.64.0.3"] {
            assert_eq!(to("10.64.0.0/30", address), Err(DropReason::DestinationBroadcast), "{address}");
        }
    }

    #[test]
    fn special_destinations_are_refused() {
        for (destination, reason) in [
            ("0.0.0.0", DropReason::DestinationUnspecified),
            ("::", DropReason::DestinationUnspecified),
            ("127.8.8.8", DropReason::DestinationLoopback),
            ("::1", DropReason::DestinationLoopback),
            ("224.0.0.251", DropReason::DestinationMulticast),
            ("ff0e::1", DropReason::DestinationMulticast),
            ("255.255.255.255", DropReason::DestinationBroadcast),
            ("10.64.0.255", DropReason::DestinationBroadcast),
            ("10.64.0.0", DropReason::DestinationBroadcast),
            ("169.254.169.254", DropReason::DestinationLinkLocal),
            ("::ffff:169.254.169.254", DropReason::DestinationLinkLocal),
            ("fe80::1", DropReason::DestinationLinkLocal),
        ] {
            assert_eq!(to(destination, false), Err(reason), "{destination}");
            assert_eq!(to(destination, true), Err(reason), "{destination}");
        }
    }
}
