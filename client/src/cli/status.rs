//! `status`.

use std::time::Duration;

use adit_net::control::{self, CallError};
use adit_program::exit::{Exit, Failure};
use adit_program::output;
use serde_json::Value;

use super::lock::ClientLock;
use super::tunnel::call_failure;
use super::{ClientFiles, block, cleanup, dir_flag};
use crate::host_plan::GuardStatus;
use crate::profile::ProfileName;
use crate::run::Status;
use crate::state::State;

/// Prints how a client stands. One that is not running is disconnected, or blocked, which is no failure.
pub(super) async fn status(files: &ClientFiles, name: &ProfileName, json: bool) -> Result<(), Failure> {
    let status = match ask(files, name).await? {
        Some(status) => status,
        None => disconnected(files, name)?,
    };
    if json {
        output::json(&status);
    } else {
        output::raw(&describe(&status));
    }
    Ok(())
}

/// Asks a running client; `None` if none is running.
pub(super) async fn ask(files: &ClientFiles, name: &ProfileName) -> Result<Option<Status>, Failure> {
    match control::call(&files.directories.socket(name), "GET", "/status", &Value::Null).await {
        Ok(value) => serde_json::from_value(value).map(Some).map_err(|error| misunderstood(name, &error.to_string())),
        Err(CallError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(call_failure(name, &error)),
    }
}

/// The failure of a client whose answer is not one that this program knows.
pub(super) fn misunderstood(name: &ProfileName, error: &str) -> Failure {
    let next = "end the client with `adit-client down`; it may be of another version";
    Failure::new(Exit::Other, format!("client {name}"), error, next)
}

/// How a client stands that is not running.
pub(super) fn disconnected(files: &ClientFiles, name: &ProfileName) -> Result<Status, Failure> {
    let profile = files.store.load(name)?;
    let running = ClientLock::is_held(&files.directories, name);
    let closed = !running && block::is_closed(name);
    let reason = if running {
        Some("a client is starting or ending".to_owned())
    } else if closed {
        let flag = dir_flag(files);
        Some(format!(
            "the kill switch is closed; connect with `adit-client{flag} up {name}`, \
             or open it with `adit-client{flag} down {name}`"
        ))
    } else if cleanup::left_behind(files, name) {
        Some("a client crashed and left changes on this host; undo them with `adit-client cleanup`".to_owned())
    } else {
        None
    };
    Ok(Status {
        name: name.to_string(),
        state: if closed { State::Blocked } else { State::Disconnected }.label().to_owned(),
        reason,
        gateway: profile.gateway(),
        ..Status::default()
    })
}

/// The status for people.
fn describe(status: &Status) -> String {
    let since = status.since_seconds.map(|seconds| humantime::format_duration(Duration::from_secs(seconds)));
    let since = since.map_or_else(String::new, |since| format!(" for {since}"));
    let mut lines = vec![format!("{}: {}{since}", status.name, status.state)];
    // A row without a value is left out.
    let mut row = |label: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {label:<10} {value}"));
        }
    };
    row("reason", status.reason.clone().unwrap_or_default());
    row("portal", status.portal.clone().unwrap_or_default());
    for warning in &status.warnings {
        row("warning", warning.clone());
    }
    for GuardStatus { guard, reason, times, .. } in &status.guards {
        let times = if *times > 1 { format!(" ({times} times)") } else { String::new() };
        row("warning", format!("{guard} {reason}{times}"));
    }
    // Where the tunnel leads to, and what this host has of it.
    row("gateway", status.gateway.clone());
    row("addresses", joined(&status.addresses));
    let unlisted = status.routes_total.saturating_sub(status.routes.len());
    let more = if unlisted == 0 { String::new() } else { format!(" and {unlisted} more") };
    row("routes", joined(&status.routes) + &more);
    row("dns", joined(&status.dns));
    row("device", device(status));
    row("login", login(status));
    row("carrier", carrier(status));
    // Counters belong to a connection; without one there is nothing to count.
    if status.carrier.is_some() {
        let counters = status.counters;
        let reordered = match counters.rx_reordered {
            0 => String::new(),
            count => format!(", {count} of them not in the order of their numbers"),
        };
        row("received", format!("{} packets, {} bytes{reordered}", counters.rx_packets, counters.rx_bytes));
        row("sent", format!("{} packets, {} bytes", counters.tx_packets, counters.tx_bytes));
    }
    let drops: Vec<String> = status.drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    row("dropped", drops.join(", "));
    lines.push(String::new());
    lines.join("\n")
}

fn device(status: &Status) -> String {
    let mtu = status.mtu.map_or_else(String::new, |mtu| format!(", mtu {mtu}"));
    status.tun.as_ref().map_or_else(String::new, |tun| format!("{tun}{mtu}"))
}

fn login(status: &Status) -> String {
    let Some(seconds) = status.login_seconds else { return String::new() };
    let left = humantime::format_duration(Duration::from_secs(seconds));
    let renew = if status.login_past_half {
        format!("; renew it with `adit-client login {}`", status.name)
    } else {
        String::new()
    };
    format!("ends in {left}{renew}")
}

fn carrier(status: &Status) -> String {
    let Some(carrier) = &status.carrier else { return String::new() };
    let suite = status.suite.as_ref().map_or_else(String::new, |suite| format!(" with {suite}"));
    // Without a device its MTU is nowhere else.
    let mtu = status.mtu.filter(|_| status.tun.is_none()).map_or_else(String::new, |mtu| format!(", mtu {mtu}"));
    let path = status.path_mtu.map_or_else(String::new, |mtu| format!(", path mtu {mtu}"));
    let lasts = status.carrier_seconds.map(|seconds| humantime::format_duration(Duration::from_secs(seconds)));
    let lasts = lasts.map_or_else(String::new, |lasts| format!(" for {lasts}"));
    let rtt = status.rtt_ms.map_or_else(String::new, |rtt| format!(", round trip {rtt:.1} ms"));
    let why = status.not_by_udp.as_ref().map_or_else(String::new, |why| format!("; by UDP: {why}"));
    format!("{carrier}{suite}{lasts}{mtu}{path}{rtt}{why}")
}

pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_plan::GuardState;
    use crate::run::StatusCounters;

    #[test]
    fn disconnected_status_is_short() {
        let status =
            Status { name: "home".into(), state: "disconnected".into(), gateway: "gw:443".into(), ..Status::default() };
        assert_eq!(describe(&status), "home: disconnected\n  gateway    gw:443\n");
    }

    #[test]
    fn connected_status_names_addresses_routes_and_counters() {
        let status = Status {
            name: "home".into(),
            state: "connected".into(),
            warnings: vec!["mind the gap".into()],
            guards: vec![GuardStatus {
                guard: "IPv4 rule 5300".into(),
                state: GuardState::Broken,
                reason: "was removed".into(),
                times: 3,
            }],
            since_seconds: Some(61),
            addresses: vec!["10.64.3.2/32".parse().unwrap()],
            routes: vec!["0.0.0.0/0".parse().unwrap()],
            routes_total: 3,
            carrier: Some("quic".into()),
            rtt_ms: Some(1.25),
            counters: StatusCounters { rx_packets: 5, ..StatusCounters::default() },
            drops: [("too_big".to_owned(), 2)].into(),
            ..Status::default()
        };
        let text = describe(&status);
        for part in [
            "connected for 1m 1s",
            "warning    mind the gap",
            "warning    IPv4 rule 5300 was removed (3 times)",
            "10.64.3.2/32",
            "0.0.0.0/0 and 2 more",
            "quic, round trip 1.2 ms",
            "5 packets",
            "too_big 2",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("out of order"), "{text}");
    }

    #[test]
    fn carrier_is_shown_with_its_suite() {
        let status = Status {
            tun: Some("adit0".into()),
            mtu: Some(1420),
            carrier: Some("esp".into()),
            carrier_seconds: Some(61),
            path_mtu: Some(1499),
            suite: Some("aes-256-gcm".into()),
            counters: StatusCounters { rx_packets: 9, rx_bytes: 900, rx_reordered: 4, ..StatusCounters::default() },
            ..Status::default()
        };
        let text = describe(&status);
        for part in [
            "  device     adit0, mtu 1420\n",
            "esp with aes-256-gcm for 1m 1s, path mtu 1499\n",
            "9 packets, 900 bytes, 4 of them not in the order of their numbers",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let embedded = describe(&Status { tun: None, carrier: Some("quic".into()), suite: None, ..status });
        assert!(embedded.contains("  carrier    quic for 1m 1s, mtu 1420, path mtu 1499\n"), "{embedded}");
        let (carrier, why) = (Some("tls".into()), Some("no answer yet".into()));
        let without_udp = describe(&Status { carrier, not_by_udp: why, ..Status::default() });
        assert!(without_udp.contains("  carrier    tls; by UDP: no answer yet\n"), "{without_udp}");
    }
}
