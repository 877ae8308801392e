//! What a login is worth.

use std::net::IpAddr;
use std::sync::Arc;

use adit_proto::address_pool::Lease;
use adit_proto::packet::icmp::GatewayAddresses;
use adit_proto::policy::DestinationPolicy;
use ipnet::IpNet;

use super::policy::Policy;
use crate::config::Config;

/// What the device of one session was given.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its inner addresses, for as long as the session lives.
    pub lease: Lease,
    /// Everything else, which an order may change.
    pub terms: Arc<Terms>,
}

/// What a session may do. Sessions on the same terms share them.
#[derive(Debug)]
pub struct Terms {
    /// Prefixes it is told to send to the gateway.
    pub routes: Vec<IpNet>,
    /// The resolvers it is told to ask.
    pub dns: Resolvers,
    /// Where its packets may go.
    pub policy: Arc<Policy>,
    /// Bounds of what it may do, for the whole of its life.
    pub limits: SessionLimits,
}

/// The resolvers of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// Their addresses; empty leaves the client's own in place.
    pub servers: Vec<IpAddr>,
    /// Domains they answer for; empty means every name.
    pub domains: Vec<String>,
}

/// Bounds of what one session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Largest packet it may send or receive, in bytes.
    pub largest_packet: u16,
}

impl Terms {
    /// Makes terms that allow what they advertise, and there only what `destinations` allow.
    pub fn new(routes: Vec<IpNet>, dns: Resolvers, destinations: DestinationPolicy, limits: SessionLimits) -> Self {
        let policy = Arc::new(Policy::new(destinations, &routes));
        Self { routes, dns, policy, limits }
    }

    /// The terms of every session, as the gateway is configured; `own` are its addresses in the pools.
    pub fn of(config: &Config, own: GatewayAddresses) -> Self {
        let destinations = DestinationPolicy {
            pool_v4: config.pool.v4,
            pool_v6: config.pool.v6,
            gateway: own,
            client_to_client: config.client_to_client,
        };
        let dns = Resolvers { servers: config.dns.servers.clone(), domains: config.dns.domains.clone() };
        Self::new(advertised(config, own), dns, destinations, SessionLimits { largest_packet: config.tun.mtu })
    }
}

/// The configured routes, the gateway itself, and the other clients where they may be reached.
fn advertised(config: &Config, own: GatewayAddresses) -> Vec<IpNet> {
    let mut prefixes = config.routes.clone();
    prefixes.extend(own.v4.map(|v4| IpNet::from(IpAddr::V4(v4))));
    prefixes.extend(own.v6.map(|v6| IpNet::from(IpAddr::V6(v6))));
    if config.client_to_client {
        prefixes.extend(config.pool.v4.map(IpNet::V4));
        prefixes.extend(config.pool.v6.map(IpNet::V6));
    }
    prefixes
}
