//! The connections that the gateway's host tracks for inner addresses.

use std::collections::HashSet;
use std::net::IpAddr;

use adit_host::{HostError, addresses_with_connections, forget_connections};
use adit_program::causes::with_causes;
use adit_proto::address_pool::Lease;
use adit_proto::packet::icmp::GatewayAddresses;

use crate::core::leases::Flows;

/// Those in the kernel's table.
pub(super) struct HostFlows;

impl Flows for HostFlows {
    fn end(&self, addresses: Lease) -> Result<(), HostError> {
        let both = addresses.v4.map(IpAddr::V4).into_iter().chain(addresses.v6.map(IpAddr::V6));
        both.map(forget_connections).try_for_each(|forgotten| forgotten.map(drop))
    }

    fn addresses(&self) -> Result<HashSet<IpAddr>, HostError> {
        addresses_with_connections()
    }
}

/// Warns where they cannot be ended. That is wanted when an address goes to another device, and told before.
pub(super) fn warn_if_they_last(own: GatewayAddresses) {
    if let Err(error) = HostFlows.end(Lease { v4: own.v4, v6: own.v6 }) {
        let (error, next) = (with_causes(&error), "load the kernel module nf_conntrack_netlink");
        tracing::warn!(error, next, "no address can go from one device to another");
    }
}
