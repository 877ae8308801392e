//! The driver's part that takes over what a gateway says of the network.

use adit_proto::range::RouteRange;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Driver, OpenConnection, Protocol, now};
use crate::host_plan::{HostFault, HostPlan, own_hosts};
use crate::protocols::NetworkSettings;
use crate::run::status::NO_RESOLVER;

impl<P: Protocol> Driver<P> {
    /// Applies what the gateway changed lately.
    pub(super) async fn apply_changes(&mut self) {
        let (network, mtu) = self.changes.apply(now());
        if let Some(network) = network {
            self.handle_network(network).await;
        }
        if let Some(mtu) = mtu {
            self.handle_mtu(mtu).await;
        }
    }

    async fn handle_network(&mut self, network: NetworkSettings) {
        let network = self.with_known_routes(network);
        if self.network.as_ref() == Some(&network) {
            return;
        }
        match self.configure_host(&network).await {
            Ok(()) => {
                tracing::info!("the gateway changed the network settings");
                if let Some(connection) = &mut self.connection {
                    connection.admit(own_hosts(&network));
                }
                self.adopt(network);
            }
            Err(HostFault { obstacle, failure }) => {
                self.handle_lost(obstacle, &failure.reason);
                self.host_failure = Some(failure);
            }
        }
    }

    /// Settings in which the routes known before stand in for those that the gateway has not told yet: a tunnel that
    /// was full stays full until the gateway says otherwise.
    pub(super) fn with_known_routes(&self, network: NetworkSettings) -> NetworkSettings {
        if network.tells_routes() {
            return network;
        }
        match &self.network {
            Some(known) => {
                let (dns_servers, dns_domains) = match network.dns_servers.is_empty() {
                    true => (known.dns_servers.clone(), known.dns_domains.clone()),
                    false => (network.dns_servers, network.dns_domains),
                };
                let (routes, has_no_routes) = (known.routes.clone(), known.has_no_routes);
                NetworkSettings { addresses: network.addresses, routes, has_no_routes, dns_servers, dns_domains }
            }
            None if self.config.profile.full_tunnel => NetworkSettings { routes: everything(), ..network },
            None => network,
        }
    }

    /// Takes settings as those in force, and remembers whether all traffic goes into the tunnel.
    pub(super) fn adopt(&mut self, network: NetworkSettings) {
        // An embedder's host may accept what ours would refuse; the status lists no route of it then.
        let plan = HostPlan::new(&network, true).unwrap_or_default();
        if plan.lacks_resolver() && !self.plan.lacks_resolver() {
            tracing::warn!("{NO_RESOLVER}");
        }
        let remembers = self.config.profile.full_tunnel;
        self.config.profile.full_tunnel = plan.full_tunnel;
        self.plan = plan;
        self.network = Some(network);
        if remembers != self.plan.full_tunnel {
            self.save_profile();
        }
    }
}

/// All destinations of both families.
fn everything() -> Vec<RouteRange> {
    [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].map(RouteRange::from).to_vec()
}
