//! The optional tables of a profile: `[login]`, how its user logs in; `[esp]` and `[workers]`, how its packets travel.
//! What is left out has its default.

use adit_net::carrier::esp::EspSettings;
use adit_net::worker;

use crate::packet_path::DEFAULT_MTU;

/// Segments of a superpacket: 44 at an MTU of 1420 bytes, sealed, are as much as one UDP send takes.
const GSO_MAX_SEGS: u32 = 44;
const _: () = assert!(44 * adit_proto::esp::packet::sealed_len(DEFAULT_MTU as usize) <= adit_net::udp::MAX_BYTES);
const _: () = assert!(45 * adit_proto::esp::packet::sealed_len(DEFAULT_MTU as usize) > adit_net::udp::MAX_BYTES);

/// How the user of a profile logs in at an AnyConnect gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginTable {
    /// The path of the gateway's link, with the slash that it begins with. Some gateways have one for each group.
    pub path: String,
    /// The group, by its label or its value in the gateway's list; empty if whoever logs in is asked for it.
    pub group: String,
    /// A command that prints the password; empty if there is none.
    pub credential_command: String,
    /// Whether its user may log in in a browser of this host.
    pub browser: bool,
}

impl Default for LoginTable {
    fn default() -> Self {
        Self { path: "/".to_owned(), group: String::new(), credential_command: String::new(), browser: false }
    }
}

/// The ESP carrier of one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspTable {
    /// Whether it is offered to the gateway.
    pub enabled: bool,
    /// What is offered, at least one suite, and when this device's keys are replaced.
    pub offered: EspSettings,
    /// Largest packet it carries, in bytes, where the path takes it. More than the gateway's `tun.mtu` is of little
    /// use.
    pub mtu: u16,
}

impl Default for EspTable {
    fn default() -> Self {
        Self { enabled: true, offered: EspSettings::default(), mtu: DEFAULT_MTU }
    }
}

impl EspTable {
    /// What a session offers; `None` if it is switched off.
    #[must_use]
    pub fn settings(&self) -> Option<EspSettings> {
        self.enabled.then(|| self.offered.clone())
    }
}

/// The packet path of one profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkersTable {
    /// How the worker works.
    pub settings: worker::Settings,
    /// Whether the kernel hands over packets of a flow together, with checksums left to us.
    pub tun_offload: bool,
    /// Whether the kernel segments and joins the datagrams of ESP.
    pub udp_offload: bool,
    /// How many packets of a flow it hands over together, at most.
    pub gso_max_segs: u32,
}

impl Default for WorkersTable {
    fn default() -> Self {
        let settings = worker::Settings::default();
        Self { settings, tun_offload: true, udp_offload: true, gso_max_segs: GSO_MAX_SEGS }
    }
}
