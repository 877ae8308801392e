//! The optional tables of a profile, `[esp]` and `[workers]`: how its packets travel. What is left out has its default.

use std::time::Duration;

use adit_net::carrier::esp::EspSettings;
use adit_net::worker;
use adit_proto::esp::field::Offer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::esp::suite::Suite;
use adit_proto::packet::IPV6_MIN_MTU;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::packet_path::DEFAULT_MTU;

/// Keys of `[esp]`.
pub(super) const ESP_KEYS: [&str; 5] = ["enabled", "suites", "vouched", "rekey_after", "mtu"];
/// Keys of `[workers]`.
pub(super) const WORKERS_KEYS: [&str; 4] = ["yields", "tun_offload", "udp_offload", "gso_max_segs"];

/// Largest packet of the TUN device, in bytes: what its buffers hold.
const LARGEST_MTU: u16 = 9216;
const _: () = assert!(LARGEST_MTU as usize == adit_net::tun::LARGEST_PACKET);
/// The shortest time between two keys: a gateway takes no more than two a second.
const SHORTEST_REKEY: Duration = Duration::from_secs(1);
/// The longest: a key that old is worth replacing, however idle.
const LONGEST_REKEY: Duration = Duration::from_secs(24 * 3600);
/// Most yields: about a tenth of a millisecond.
const MOST_YIELDS: u32 = 1000;
/// Segments of a superpacket: 44 at an MTU of 1420 bytes, sealed, are as much as one UDP send takes.
const GSO_MAX_SEGS: u32 = 44;
const _: () = assert!(44 * adit_proto::esp::packet::sealed_len(DEFAULT_MTU as usize) <= adit_net::udp::MAX_BYTES);
const _: () = assert!(45 * adit_proto::esp::packet::sealed_len(DEFAULT_MTU as usize) > adit_net::udp::MAX_BYTES);
/// The most the kernel knows (`GSO_MAX_SEGS`).
const MOST_GSO_SEGS: u32 = 65_535;

/// The ESP carrier of one profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EspTable {
    /// Whether it is offered to the gateway.
    pub enabled: bool,
    /// The cipher suites offered; the gateway chooses.
    #[serde(serialize_with = "write_suites", deserialize_with = "read_suites")]
    pub suites: Vec<Suite>,
    /// Whether this kernel takes packets whose checksum the gateway's kernel vouches for.
    pub vouched: bool,
    /// When this device's keys are replaced, at the latest: 1 s to 24 h.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub rekey_after: Duration,
    /// Largest packet it carries, in bytes, where the path takes it: 1280 to 9216. More than the gateway's `tun.mtu` is
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

    /// What is wrong with it, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let seconds = SHORTEST_REKEY..=LONGEST_REKEY;
        if self.suites.is_empty() {
            Some("`esp.suites` is empty; use `enabled = false` to switch it off")
        } else if !seconds.contains(&self.rekey_after) {
            Some("`esp.rekey_after` is not between 1s and 24h")
        } else if !(IPV6_MIN_MTU..=LARGEST_MTU).contains(&self.mtu) {
            Some("`esp.mtu` is not between 1280 and 9216")
        } else {
            None
        }
    }
}

/// The packet path of one profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkersTable {
    /// How often the worker yields before it sleeps, at most 1000.
    pub yields: u32,
    /// Whether the kernel hands over packets of a flow together, with checksums left to us.
    pub tun_offload: bool,
    /// Whether the kernel segments and joins the datagrams of ESP.
    pub udp_offload: bool,
    /// How many packets of a flow it hands over together, at most: 1 to 65,535.
    pub gso_max_segs: u32,
}

impl Default for WorkersTable {
    fn default() -> Self {
        let yields = worker::Settings::default().yields;
        Self { yields, tun_offload: true, udp_offload: true, gso_max_segs: GSO_MAX_SEGS }
    }
}

impl WorkersTable {
    /// What is wrong with it, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.yields > MOST_YIELDS {
            Some("`workers.yields` is more than 1000")
        } else if !(1..=MOST_GSO_SEGS).contains(&self.gso_max_segs) {
            Some("`workers.gso_max_segs` is not between 1 and 65535")
        } else {
            None
        }
    }
}

/// Whether a table says nothing that its default does not.
pub(super) fn is_default<T: Default + PartialEq>(table: &T) -> bool {
    *table == T::default()
}

fn write_suites<S: Serializer>(suites: &[Suite], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(suites.iter().map(|suite| suite.label()))
}

fn read_suites<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Suite>, D::Error> {
    let suite = |label: &String| {
        let known = Suite::ALL.into_iter().find(|suite| suite.label() == label);
        let all = || Suite::ALL.map(Suite::label).join(", ");
        known.ok_or_else(|| de::Error::custom(format!("unknown suite `{label}`; known are {}", all())))
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(suite).collect()
}

fn write_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

fn read_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| de::Error::custom(format!("`{text}` is no duration: {error}")))
}
