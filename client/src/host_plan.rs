//! What a tunnel changes on its host: the TUN device's address, routes and rules, and the resolver.
//!
//! Routes live in a table of their own, which all packets look up before `main`, except those of Adit's own outer
//! sockets, which bear a mark (by default [`Mark::CLIENT`](adit_proto::mark::Mark::CLIENT)). The kernel's `local` table
//! stays first. Nothing depends on the physical network's routes, so what a hostile DHCP server adds there changes
//! nothing for destinations of the tunnel.
//!
//! A full tunnel claims both families. Behind its routes into the tunnel stands "unreachable" for everything: it
//! catches the packets of a family the gateway does not carry, and all packets when the TUN device vanishes with its
//! routes.

mod hooks;
#[cfg(feature = "host")]
pub mod managed;
mod plan;

pub use hooks::{GuardState, GuardStatus, HostFault, HostHooks, InForce};
pub use plan::{Claim, HostPlan, HostPlanError, own_hosts};
