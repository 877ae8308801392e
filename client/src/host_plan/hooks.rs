//! The seam between a session and the host it configures.

use std::future::{pending, ready};

use adit_program::exit::Failure;
use serde::{Deserialize, Serialize};

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

    /// Waits until something on the host changed, so that [`Self::hold`] should look, or the host woke from sleep;
    /// never, for an embedder whose system keeps what it was given and does not tell. Cancel-safe.
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(pending())
    }

    /// Puts back what other programs changed of what was set, and reports each setting that had to be put back
    /// lately, or is not as it should be.
    fn hold(&mut self) -> BoxFuture<'_, Vec<GuardStatus>> {
        Box::pin(ready(Vec::new()))
    }

    /// Undoes everything; called once, at the end of a session that was asked to end.
    ///
    /// # Errors
    /// What stays behind, in words for the user.
    fn undo(&mut self) -> BoxFuture<'_, Result<(), Failure>>;

    /// As [`Self::undo`], of a session that nobody ended: what belongs in a full tunnel must still not leave another
    /// way, if the host can see to that.
    ///
    /// # Errors
    /// As [`Self::undo`].
    fn undo_but_stay_closed(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.undo()
    }

    /// Name of the device that packets come from, for the session's status.
    fn device(&self) -> Option<&str>;

    /// Whether a link is a tunnel itself, as far as it is known.
    fn is_tunnel(&self, _link: &str) -> bool {
        false
    }

    /// Whether what [`Self::apply`] set is in force now, as far as is known. For an embedder it is since that returned.
    fn in_force(&self) -> InForce {
        InForce { routes: true, resolver: true }
    }

    /// What the user should know about the host as it is configured, for the session's status.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Whether the settings of a tunnel are in force on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// What belongs in the tunnel is routed there.
    pub routes: bool,
    /// Names are asked for at the tunnel's servers; also if it has none.
    pub resolver: bool,
}

/// A setting of the host that another program changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardStatus {
    /// The setting: `IPv4 rule 5300`.
    pub guard: String,
    /// `mended`, or `broken` if it is not as it should be.
    pub state: GuardState,
    /// What happened to it, in words.
    pub reason: String,
    /// How often it was put back.
    pub times: u32,
}

/// Whether a guarded setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    /// It was put back.
    Mended,
    /// It is not as it should be, or does not stay so.
    Broken,
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
