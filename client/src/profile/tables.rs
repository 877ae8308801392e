//! The optional tables of a profile, `[esp]` and `[workers]`: how its packets travel. What is left out has its default.

use std::time::Duration;

use adit_net::carrier::esp::EspSettings;
use adit_net::worker;
use adit_proto::esp::field::Offer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::esp::suite::Suite;
use serde::{Serialize, Serializer};

use crate::packet_path::DEFAULT_MTU;

/// Segments of a superpacket: 44 at an MTU of 1420 bytes, sealed, are as much as one UDP send takes.
const GSO_MAX_SEGS: u32 = 44;
const _: () = assert!(44 * adit_proto::esp::packet::sealed_len(DEFAULT_MTU as usize) <= adit_net::udp::MAX_BYTES);
const _: () = assert!(45 * adit_proto::esp::packet::sealed_len(DEFAULT_MTU as usize) > adit_net::udp::MAX_BYTES);

/// The ESP carrier of one profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EspTable {
    /// Whether it is offered to the gateway.
    pub enabled: bool,
    /// The cipher suites offered; the gateway chooses.
    #[serde(serialize_with = "write_suites")]
    pub suites: Vec<Suite>,
    /// Whether this kernel takes packets whose checksum the gateway's kernel vouches for.
    pub vouched: bool,
    /// When this device's keys are replaced, at the latest.
    #[serde(serialize_with = "write_duration")]
    pub rekey_after: Duration,
    /// Largest packet it carries, in bytes, where the path takes it. More than the gateway's `tun.mtu` is
    /// of little use.
    pub mtu: u16,
}

impl Default for EspTable {
    fn default() -> Self {
        let (offer, policy) = (Offer::default(), RekeyPolicy::default());
        Self {
            enabled: true,
            suites: offer.suites,
            vouched: offer.vouched,
            rekey_after: policy.after,
            mtu: DEFAULT_MTU,
        }
    }
}

impl EspTable {
    /// What a session offers; `None` if it is switched off.
    #[must_use]
    pub fn settings(&self) -> Option<EspSettings> {
        let offer = Offer { suites: self.suites.clone(), vouched: self.vouched, ..Offer::default() };
        let policy = RekeyPolicy { after: self.rekey_after, ..RekeyPolicy::default() };
        self.enabled.then_some(EspSettings { offer, policy })
    }
}

/// The packet path of one profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WorkersTable {
    /// How often the worker yields before it sleeps.
    pub yields: u32,
    /// Whether the kernel hands over packets of a flow together, with checksums left to us.
    pub tun_offload: bool,
    /// Whether the kernel segments and joins the datagrams of ESP.
    pub udp_offload: bool,
    /// How many packets of a flow it hands over together, at most.
    pub gso_max_segs: u32,
}

impl Default for WorkersTable {
    fn default() -> Self {
        let yields = worker::Settings::default().yields;
        Self { yields, tun_offload: true, udp_offload: true, gso_max_segs: GSO_MAX_SEGS }
    }
}

fn write_suites<S: Serializer>(suites: &[Suite], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(suites.iter().map(|suite| suite.label()))
}

fn write_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}
