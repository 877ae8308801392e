//! What a client tells whoever follows it: how it stands, each time that changes.

use std::net::SocketAddr;
use std::time::SystemTime;

use adit_program::exit::Exit;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Events that may wait for a follower. One that is further behind is told so, and has lost the oldest.
pub(super) const MOST_UNREAD: usize = 64;

/// How a client stands from some time on, as a line of `adit-client status --follow --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusEvent {
    /// When that was, by this host's clock: RFC 3339, UTC, with milliseconds.
    pub time: String,
    /// How long the state had lasted then, in seconds.
    pub since_seconds: u64,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

impl StatusEvent {
    /// Of this moment.
    pub(crate) fn now(since_seconds: u64, standing: Standing) -> Self {
        Self { time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(), since_seconds, standing }
    }
}

/// How a client stands, as far as followers are told when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Name of the profile.
    pub name: String,
    /// State of the life cycle, as [`Status`](super::Status) has it.
    pub state: String,
    /// Why it is not connected, if there is something to say.
    pub reason: Option<String>,
    /// The page of the network's captive portal, in the state `captive portal`.
    #[serde(default)]
    pub portal: Option<String>,
    /// How packets travel: `esp`, `dtls`, `quic` or `tls`.
    pub carrier: Option<String>,
    /// The address of the gateway in use.
    pub remote: Option<SocketAddr>,
    /// Inner addresses.
    pub addresses: Vec<IpNet>,
    /// Largest inner packet, in bytes.
    pub mtu: Option<u16>,
    /// Whether the session stands and its routes are in force on this host.
    pub route: bool,
    /// Whether the session stands and this host asks the tunnel's DNS servers, or there are none.
    pub dns: bool,
    /// The exit code of a client that ends; only in its last event.
    pub exit: Option<u8>,
}

impl Standing {
    /// Of a client that has ended.
    pub(super) fn ended(self, exit: Exit) -> Self {
        Self { exit: Some(exit as u8), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_one_flat_object_with_the_documented_fields() {
        let event = StatusEvent::now(7, Standing { state: "connected".into(), ..Standing::default() });
        let value = serde_json::to_value(&event).unwrap();
        let fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let documented = [
            "addresses",
            "carrier",
            "dns",
            "exit",
            "mtu",
            "name",
            "portal",
            "reason",
            "remote",
            "route",
            "since_seconds",
            "state",
            "time",
        ];
        let mut sorted = fields.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, documented);
        let time = value["time"].as_str().unwrap();
        assert!(time.len() == "2026-01-01T00:00:00.000Z".len() && time.ends_with('Z'), "{time}");
        assert_eq!(serde_json::from_value::<StatusEvent>(value).unwrap(), event);
    }
}
