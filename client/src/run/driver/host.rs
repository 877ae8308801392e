//! The driver's part that configures the host.

use adit_proto::packet::IPV6_MIN_MTU;

use super::{Driver, Protocol};
use crate::host_plan::HostFault;
use crate::protocols::NetworkSettings;

impl<P: Protocol> Driver<P> {
    /// Brings the host in connection with the settings, if this session configures it.
    pub(super) async fn configure_host(&mut self, network: &NetworkSettings) -> Result<(), HostFault> {
        let Some(host) = &mut self.config.host else { return Ok(()) };
        let applied = host.apply(network).await;
        if let Err(fault) = &applied {
            tracing::warn!("the host could not be configured");
            tracing::debug!(error = fault.failure.reason, "the host could not be configured");
        }
        applied
    }

    /// Puts back what another program changed. It never runs beside a change of our own.
    pub(super) async fn hold_host(&mut self) {
        if let Some(host) = &mut self.config.host {
            self.guards = host.hold().await;
        }
    }

    pub(super) async fn handle_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.max(IPV6_MIN_MTU);
        if let Some(host) = &mut self.config.host
            && let Err(fault) = host.set_mtu(self.mtu).await
        {
            tracing::warn!("the device's MTU could not be set");
            tracing::debug!(error = fault.failure.reason, "the device's MTU could not be set");
        }
    }
}
