//! What Adit changes on its host (addresses, routes, rules, sysctls, firewall, resolver), and how each change is
//! undone.
//!
//! [`HostChanges`] writes how to undo a change into a journal before it makes the change. A clean stop calls
//! [`HostChanges::undo`]; after a crash the next [`HostChanges::open`], or [`recover`], does it from the journal.
//!
//! What is set is guarded meanwhile: [`HostChanges::changed`] says when something changed on the host, and
//! [`HostChanges::hold`] looks whether everything is still as set, and puts back what is not.

mod answers;
mod changes;
mod conntrack;
mod dns;
mod error;
mod firewall;
mod guard;
mod ipv6;
mod journal;
mod kill_switch;
mod namespace;
mod netlink;
mod nft;
mod owned_table;
mod policy_table;
mod privileges;
mod sysctl;
#[cfg(test)]
mod test_bus;
#[cfg(test)]
mod test_packets;
mod waking;

pub use answers::AnswerRules;
pub use changes::{HostChanges, HostOptions, Recovery, recover, recover_same_namespace, recover_with, release};
pub use conntrack::{addresses_with_connections, forget_connections};
pub use dns::SystemBus;
pub use error::HostError;
pub use firewall::{ForwardedBefore, GatewayRules, LocalService, TrackedPort, is_forbidden_destination, tracked_ports};
pub use guard::{GuardReport, GuardState, InForce};
pub use ipv6::why_no_ipv6;
pub use journal::WithoutDisk;
pub use kill_switch::{
    KillSwitch, LanNetwork, PortalWay, ProtectedTunnel, close_portal_way, closed_kill_switches, open_kill_switch,
};
pub use netlink::{
    Family, LinkKind, LinkSettings, MAIN_TABLE, Netlink, Route, RouteTarget, Rule, SeenAddress, SeenLink, SeenNetwork,
    SeenRoute, Survey, default_source_addresses,
};
pub use policy_table::{MemberChange, PolicyClass, PolicyTable};
pub use privileges::become_user;
