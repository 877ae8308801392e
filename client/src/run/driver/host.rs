//! The driver's part that configures the host.

use adit_host::HostError;
use adit_proto::packet::IPV6_MIN_MTU;
use tracing::{debug, warn};

use super::{Dial, Driver};
use crate::host_plan::{HostSetup, HostSetupError};
use crate::protocols::NetworkSettings;
use crate::state::Obstacle;

impl<D: Dial> Driver<D> {
    pub(super) async fn configure_host(&mut self, network: &NetworkSettings) -> Result<(), HostSetupError> {
        match &mut self.config.host {
            HostSetup::Managed(host) => host.apply(network).await,
            HostSetup::None => Ok(()),
        }
    }

    pub(super) fn note_host_failure(&mut self, error: &HostSetupError) {
        warn!("the host could not be configured");
        debug!(error = error.describe(), "the host could not be configured");
        self.host_failure = Some(error.failure());
    }

    pub(super) async fn handle_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.max(IPV6_MIN_MTU);
        if let HostSetup::Managed(host) = &mut self.config.host
            && let Err(error) = host.set_mtu(self.mtu).await
        {
            warn!("the device's MTU could not be set");
            debug!(error = error.describe(), "the device's MTU could not be set");
        }
    }
}

/// What kind of obstacle a refusal of the host is.
pub(super) fn obstacle(error: &HostSetupError) -> Obstacle {
    match error {
        HostSetupError::Change(HostError::NoSuchLink { .. }) => Obstacle::DeviceGone,
        HostSetupError::Change(_) | HostSetupError::Lock(_) if error.is_permission_denied() => Obstacle::Permission,
        HostSetupError::Change(_)
        | HostSetupError::Lock(_)
        | HostSetupError::Plan(_)
        | HostSetupError::SecondFullTunnel => Obstacle::Local,
    }
}
