//! Where the packets of a session may go.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_proto::drop_reason::DropReason;
use adit_proto::packet::IpPacket;
use adit_proto::policy::DestinationPolicy;
use adit_proto::route_table::RouteTable;
use arc_swap::ArcSwapOption;
use ipnet::IpNet;

/// Where packets of clients may go: to routes that were advertised, and there only to destinations that are allowed.
#[derive(Debug)]
pub struct Policy {
    destinations: DestinationPolicy,
    routes: RouteTable<()>,
}

impl Policy {
    /// Allows `routes` as far as `destinations` does.
    pub fn new(destinations: DestinationPolicy, routes: &[IpNet]) -> Self {
        let mut table = RouteTable::new();
        for prefix in routes {
            table.insert(*prefix, ());
        }
        Self { destinations, routes: table }
    }

    /// Checks where a packet goes.
    ///
    /// # Errors
    /// Why it must be dropped.
    pub fn check(&self, packet: &IpPacket) -> Result<(), DropReason> {
        self.destinations.check(packet)?;
        self.routed(packet.destination)
    }

    /// As [`Self::check`], for whatever packet goes to an address.
    ///
    /// # Errors
    /// Why it must be dropped.
    pub fn check_destination(&self, address: IpAddr) -> Result<(), DropReason> {
        self.destinations.check_address(address)?;
        self.routed(address)
    }

    fn routed(&self, destination: IpAddr) -> Result<(), DropReason> {
        match self.routes.lookup(destination) {
            Some(()) => Ok(()),
            None => Err(DropReason::NoRoute),
        }
    }
}

/// The policy of one live session.
///
/// Every packet from a client meets it. Few sessions ever get a second policy, so the first is found without any
/// counting of references: a session pays for a change only once it had one.
pub struct SessionPolicy {
    first: Arc<Policy>,
    has_newer: AtomicBool,
    newer: ArcSwapOption<Policy>,
}

impl SessionPolicy {
    /// Starts with the policy of the first grant.
    pub fn new(first: Arc<Policy>) -> Self {
        Self { first, has_newer: AtomicBool::new(false), newer: ArcSwapOption::empty() }
    }

    /// Packets that come from now on meet this policy.
    pub fn replace(&self, policy: Arc<Policy>) {
        self.newer.store(Some(policy));
        self.has_newer.store(true, Ordering::Release);
    }

    /// Checks where a packet of the session goes. Takes no lock.
    ///
    /// # Errors
    /// Why it must be dropped.
    pub fn check(&self, packet: &IpPacket) -> Result<(), DropReason> {
        if !self.has_newer.load(Ordering::Acquire) {
            return self.first.check(packet);
        }
        self.newer.load().as_ref().expect("it was stored before anybody was told of it").check(packet)
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::packet::icmp::GatewayAddresses;

    use super::*;

    fn policy(route: &str) -> Arc<Policy> {
        let destinations = DestinationPolicy {
            pool_v4: "10.64.0.0/24".parse().ok(),
            pool_v6: None,
            gateway: GatewayAddresses { v4: "10.64.0.1".parse().ok(), v6: None },
            client_to_client: false,
        };
        Arc::new(Policy::new(destinations, &[route.parse().unwrap()]))
    }

    fn packet(destination: &str) -> IpPacket {
        // An IPv4 header alone (RFC 791 section 3.1), of UDP.
        let mut bytes = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 64, 0, 2, 0, 0, 0, 0];
        bytes[16..].copy_from_slice(&destination.parse::<std::net::Ipv4Addr>().unwrap().octets());
        IpPacket::parse(&bytes).unwrap()
    }

    #[test]
    fn packet_goes_where_a_route_leads_and_destinations_allow() {
        let policy = policy("10.0.0.0/8");
        assert_eq!(policy.check(&packet("10.1.2.3")), Ok(()));
        assert_eq!(policy.check(&packet("192.0.2.1")), Err(DropReason::NoRoute));
        assert_eq!(policy.check(&packet("10.64.0.3")), Err(DropReason::DestinationIsolated));
    }

    #[test]
    fn newest_policy_of_a_session_holds() {
        let session = SessionPolicy::new(policy("10.0.0.0/8"));
        let seen = || [session.check(&packet("10.1.2.3")).is_ok(), session.check(&packet("192.0.2.1")).is_ok()];
        assert_eq!(seen(), [true, false]);
        session.replace(policy("192.0.2.0/24"));
        assert_eq!(seen(), [false, true]);
        session.replace(policy("0.0.0.0/0"));
        assert_eq!(seen(), [true, true]);
    }
}
