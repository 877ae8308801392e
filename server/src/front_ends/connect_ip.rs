//! The CONNECT-IP front-end: accepts QUIC connections, authenticates them, and turns requests into sessions of the
//! core. Over TCP it is a guest of the listener.

mod answer;
mod asker;
mod connection;
mod inbound;
mod login;
mod request;
mod stage;
mod tunnel;
mod upgrade;

use std::sync::Arc;
use std::time::Instant;

use adit_net::carrier::esp::EspSettings;
use adit_net::worker::DataPlane;
use arc_swap::ArcSwapOption;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::core::Core;
use crate::core::admission::{Admission, Pending};
use crate::core::router::Router;
use crate::core::sessions::Session;
use crate::enroll::Enrollment;

pub use upgrade::Upgrades;

/// The front-end and what all its connections share.
pub struct FrontEnd {
    core: Arc<dyn Core>,
    router: Arc<Router>,
    enrollment: Arc<Enrollment>,
    /// What clients may choose of ESP; empty if it is off.
    esp: ArcSwapOption<EspSettings>,
    plane: Arc<dyn DataPlane<Session>>,
    pending: Arc<Pending>,
    /// Largest packet inside the tunnel, in bytes.
    largest_packet: u16,
}

impl FrontEnd {
    /// Makes the front-end of a gateway: `core` opens its sessions, packets that come by their connections go through
    /// `router`, and `plane` carries their ESP.
    pub fn new(
        core: Arc<dyn Core>,
        router: Arc<Router>,
        enrollment: Arc<Enrollment>,
        config: &Config,
        plane: Arc<dyn DataPlane<Session>>,
    ) -> Self {
        let pending = Pending::new(config.limits.pending_sessions);
        let esp = ArcSwapOption::from_pointee(config.esp.settings());
        let largest_packet = config.tun.mtu;
        Self { core, router, enrollment, esp, plane, pending, largest_packet }
    }

    /// The places of connections without a tunnel.
    pub(crate) fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    /// Sessions that begin from now on may choose this of ESP. Whether there is ESP at all is decided at the start,
    /// when its sockets are bound.
    pub fn set_esp(&self, settings: Option<EspSettings>) {
        self.esp.store(settings.map(Arc::new));
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
        let (client, proven) = (incoming.remote_address().ip(), incoming.remote_address_validated());
        match self.pending.admit(client, proven, Instant::now()) {
            Admission::Place(place) => {
                connections.spawn(connection::serve(Arc::clone(self), incoming, place));
            }
            Admission::ProveAddress => {
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%error, "retry not sent");
                }
            }
            Admission::Full => incoming.ignore(),
        }
    }
}
