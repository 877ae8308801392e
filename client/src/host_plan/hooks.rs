//! The seam between a session and the host it configures.

use adit_program::exit::Failure;

use crate::packet_source::BoxFuture;
use crate::protocols::NetworkSettings;
use crate::state::Obstacle;

/// Brings a host in line with what a session needs. The program does that itself; an embedder, such as a VPN service of
/// the operating system, may pass the settings on and wait until they are in force.
///
/// A session calls one method at a time.
pub trait HostHooks: Send + 'static {
    /// Puts the settings in place of earlier ones, and returns when they are in force: packets flow right after the
    /// first time.
    ///
    /// # Errors
    /// The first connection is given up then; a session that was connected loses its connection and makes another.
    fn apply<'a>(&'a mut self, settings: &'a NetworkSettings) -> BoxFuture<'a, Result<(), HostFault>>;

    /// Sets the largest packet, in bytes, that may be handed to the session.
    ///
    /// # Errors
    /// They are logged, and the session goes on: a packet that is too large is answered with "too big".
    fn set_mtu(&mut self, mtu: u16) -> BoxFuture<'_, Result<(), HostFault>>;

    /// Undoes everything; called once, at the session's end.
    ///
    /// # Errors
    /// What stays behind, in words for the user.
    fn undo(&mut self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Name of the device that packets come from, for the session's status.
    fn device(&self) -> Option<&str>;
}

/// Why a host could not be configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", failure.reason)]
pub struct HostFault {
    /// Whether and how the session goes on.
    pub obstacle: Obstacle,
    /// How the session ends, if it ends for this reason.
    pub failure: Failure,
}
