//! The CONNECT-IP front-end: accepts QUIC connections, authenticates them, and turns requests into sessions of the core.

mod answer;
mod connection;
mod inbound;
mod peer;
mod request;
mod tunnel;

use std::sync::Arc;
use std::time::SystemTime;

use adit_net::carrier::esp::EspSettings;
use adit_net::worker::DataPlane;
use adit_proto::capsule::dns::DnsAssign;
use adit_proto::range::{RouteRange, from_prefixes};
use ipnet::IpNet;
use tokio::task::JoinSet;

use crate::accounts::{Accounts as _, AuthError, Device};
use crate::config::Config;
use crate::core::admission::{Pending, Room};
use crate::core::gateway::Gateway;
use crate::core::sessions::Session;
use crate::identity::Authority;

/// The front-end and what all its connections share.
pub struct FrontEnd {
    gateway: Arc<Gateway>,
    authority: Arc<Authority>,
    config: Arc<Config>,
    offer: Offer,
    /// What clients may choose of ESP; `None` if it is off.
    esp: Option<EspSettings>,
    plane: Arc<dyn DataPlane<Session>>,
    pending: Arc<Pending>,
}

/// What every session is offered besides its addresses.
struct Offer {
    routes: Vec<RouteRange>,
    dns: Option<DnsAssign>,
}

impl FrontEnd {
    /// Makes the front-end; sessions are offered `advertised` prefixes, and `plane` carries their ESP.
    pub fn new(
        gateway: Arc<Gateway>,
        authority: Arc<Authority>,
        config: Arc<Config>,
        advertised: &[IpNet],
        plane: Arc<dyn DataPlane<Session>>,
    ) -> Self {
        let dns = &config.dns;
        let offer = Offer {
            routes: from_prefixes(advertised),
            dns: (!dns.servers.is_empty()).then(|| DnsAssign::plain(&dns.servers, &dns.domains)),
        };
        let (esp, pending) = (config.esp.settings(), Pending::new(config.limits.pending_sessions));
        Self { gateway, authority, config, offer, esp, plane, pending }
    }

    /// Accepts connections until the endpoint closes.
    pub async fn serve(self: Arc<Self>, endpoint: quinn::Endpoint) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(incoming, &mut connections),
                    None => return,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn admit(self: &Arc<Self>, incoming: quinn::Incoming, connections: &mut JoinSet<()>) {
        match self.pending.room(incoming.remote_address().ip(), incoming.remote_address_validated()) {
            Room::Free(place) => {
                connections.spawn(connection::serve(Arc::clone(self), incoming, place));
            }
            Room::ProveAddress => {
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%error, "retry not sent");
                }
            }
            Room::None => incoming.ignore(),
        }
    }

    /// Who may log in with a certificate; checked after every handshake, since the store may have revoked it.
    fn authenticate_certificate(&self, device: &str, serial: &str) -> Result<Device, AuthError> {
        self.gateway.store().authenticate_certificate(device, serial, SystemTime::now())
    }
}
