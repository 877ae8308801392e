//! The verbs that list, and `adit-server revoke`.

use std::time::Duration;

use adit_program::output;
use serde_json::{Value, json};

use super::columns::{time, word};
use super::{Place, Refusal, ask, columns};

/// Lists the users.
pub(super) fn users(place: &Place) -> Result<(), Refusal> {
    list(place, "/users", |answer| {
        let rows = rows(&answer["users"], |user| {
            [
                word(&user["name"]),
                word(&user["source"]),
                if user["disabled_at"].is_null() { "active" } else { "disabled" }.to_owned(),
                means_of(user),
                word(&user["devices"]),
                word(&user["invites"]),
                time(&user["created_at"]),
            ]
        });
        match rows.as_slice() {
            [] => {
                "No users yet. Make one with `adit-server user add NAME`, or with `adit-server invite NAME`.".to_owned()
            }
            rows => columns::table(["NAME", "SOURCE", "STATE", "LOGS IN BY", "DEVICES", "OPEN INVITES", "SINCE"], rows),
        }
    })
}

/// How a user of the gateway itself logs in.
fn means_of(user: &Value) -> String {
    match (&user["has_password"], &user["has_factor"]) {
        (Value::Bool(true), Value::Bool(true)) => {
            format!("password and app, recovery codes: {}", word(&user["recovery_codes"]))
        }
        (Value::Bool(true), _) => "password".to_owned(),
        _ => "-".to_owned(),
    }
}

/// Lists the devices.
pub(super) fn devices(place: &Place) -> Result<(), Refusal> {
    list(place, "/devices", |answer| {
        let rows = rows(&answer["devices"], |device| {
            [
                word(&device["id"]),
                word(&device["user"]),
                word(&device["name"]),
                word(&device["kind"]),
                time(&device["created_at"]),
                time(&device["revoked_at"]),
            ]
        });
        match rows.as_slice() {
            [] => "No devices yet. Invite one with `adit-server invite NAME`.".to_owned(),
            rows => columns::table(["DEVICE", "USER", "NAME", "KIND", "SINCE", "REVOKED"], rows),
        }
    })
}

/// Lists the live sessions.
pub(super) fn sessions(place: &Place) -> Result<(), Refusal> {
    list(place, "/sessions", session_table)
}

fn session_table(answer: &Value) -> String {
    let rows = rows(&answer["sessions"], |session| {
        [
            word(&session["user"]),
            word(&session["device_name"]),
            word(&session["device"]),
            words(&session["addresses"]),
            word(&session["remote"]),
            word(&session["front_end"]),
            word(&session["carrier"]),
            word(&session["suite"]),
            word(&session["mtu"]),
            lasting(&session["seconds"]),
            word(&session["rx_bytes"]),
            word(&session["tx_bytes"]),
            word(&session["reordered"]),
            word(&session["group"]),
            word(&session["client"]),
        ]
    });
    let headings = [
        "USER",
        "NAME",
        "DEVICE",
        "ADDRESSES",
        "REMOTE",
        "FRONT-END",
        "CARRIER",
        "SUITE",
        "MTU",
        "SINCE",
        "RX BYTES",
        "TX BYTES",
        "REORDERED",
        "GROUP",
        "CLIENT",
    ];
    if rows.is_empty() { "No sessions.".to_owned() } else { columns::table(headings, &rows) }
}

/// Shows the gateway at a glance.
pub(super) fn status(place: &Place) -> Result<(), Refusal> {
    list(place, "/status", glance)
}

fn glance(status: &Value) -> String {
    let mut lines = vec![
        ("version", word(&status["version"])),
        ("running for", lasting(&status["uptime_seconds"])),
        ("listen", words(&status["listen"])),
        ("tun", word(&status["tun"])),
        ("workers", word(&status["workers"])),
        ("sessions", word(&status["sessions"])),
    ];
    lines.push(("dropped", counts(&status["drops"]).unwrap_or_else(|| "nothing".to_owned())));
    lines.extend(counts(&status["logins_turned_away"]).map(|counts| ("logins turned away", counts)));
    let certificates = status["certificates"].as_array().into_iter().flatten();
    lines.extend(certificates.map(|certificate| ("certificate", standing(certificate))));
    let of_guards = guards(status).map(|guard| guard.warning());
    let others = status["warnings"].as_array().into_iter().flatten();
    let warnings = of_guards.chain(others.map(|warning| format!("warning: {}", word(warning))));
    columns::aligned(&lines) + &warnings.map(|warning| format!("\n{warning}")).collect::<String>()
}

/// How a certificate stands that the gateway gets itself.
fn standing(certificate: &Value) -> String {
    let name = word(&certificate["name"]);
    match (certificate["ends"].as_str(), certificate["renews"].as_str()) {
        (Some(ends), Some(renews)) => format!("{name} until {ends}, renewed at {renews}"),
        (Some(ends), None) => format!("{name} until {ends}, of another authority"),
        (None, _) => format!("{name}: none yet"),
    }
}

/// What was counted by reason or source, if anything was.
fn counts(counted: &Value) -> Option<String> {
    let counted = counted.as_object().filter(|counted| !counted.is_empty())?;
    Some(counted.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", "))
}

/// A guard of the host that had something to do, as the gateway tells it.
pub(super) struct Guard<'a>(&'a Value);

/// The guards in a gateway's status.
pub(super) fn guards(status: &Value) -> impl Iterator<Item = Guard<'_>> {
    status["guards"].as_array().into_iter().flatten().map(Guard)
}

impl Guard<'_> {
    /// Whether its setting does not hold.
    pub(super) fn is_broken(&self) -> bool {
        self.0["state"] == "broken"
    }

    /// The setting.
    pub(super) fn name(&self) -> String {
        word(&self.0["guard"])
    }

    /// What happened to it.
    pub(super) fn reason(&self) -> String {
        word(&self.0["reason"])
    }

    /// Both, as people read it.
    pub(super) fn warning(&self) -> String {
        format!("warning: {} {}", self.name(), self.reason())
    }
}

/// Shuts out a user or device.
pub(super) fn revoke(place: &Place, name: &str) -> Result<(), Refusal> {
    let config = place.load()?;
    let answer = ask::ask(&config, "POST", "/revoke", &json!({ "name": name }))?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    let devices = answer["devices"].as_array().map_or(0, Vec::len);
    output::line(&format!(
        "Revoked {name}: devices {devices}, open invites {}, sessions ended {}.",
        answer["invites"], answer["sessions"]
    ));
    if let Some(reason) = answer["unwritten"].as_str() {
        output::line(&format!(
            "warning: that holds, but is not written yet: {reason}. The gateway goes on trying; until it succeeds, a restart \
             would let them in again. `adit-server status` tells."
        ));
    }
    Ok(())
}

fn list(place: &Place, path: &str, text: impl FnOnce(&Value) -> String) -> Result<(), Refusal> {
    let config = place.load()?;
    let answer = ask::ask(&config, "GET", path, &Value::Null)?;
    if place.json {
        output::json(&answer);
    } else {
        output::line(&text(&answer));
    }
    Ok(())
}

fn rows<const N: usize>(items: &Value, row: impl Fn(&Value) -> [String; N]) -> Vec<[String; N]> {
    items.as_array().into_iter().flatten().map(row).collect()
}

fn words(items: &Value) -> String {
    items.as_array().into_iter().flatten().map(word).collect::<Vec<_>>().join(", ")
}

fn lasting(seconds: &Value) -> String {
    humantime::format_duration(Duration::from_secs(seconds.as_u64().unwrap_or(0))).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use adit_host::{GuardReport, GuardState};

    use super::*;
    use crate::admin::{GatewayStatus, SessionInfo};

    fn session(carrier: &str, suite: Option<&str>) -> SessionInfo {
        SessionInfo {
            session: 1,
            user: "alice".to_owned(),
            device: "dev-1".to_owned(),
            device_name: "laptop".to_owned(),
            addresses: vec!["10.77.0.2".parse().unwrap()],
            remote: "192.0.2.1:4711".parse().unwrap(),
            front_end: "connect-ip".to_owned(),
            client: None,
            group: None,
            carrier: carrier.to_owned(),
            suite: suite.map(str::to_owned),
            mtu: 1400,
            seconds: 61,
            rx_packets: 1,
            rx_bytes: 100,
            tx_packets: 2,
            tx_bytes: 200,
            reordered: 3,
            drops: BTreeMap::default(),
        }
    }

    #[test]
    fn sessions_are_shown_with_their_carrier_and_its_suite() {
        let answer = json!({ "sessions": [session("esp", Some("aes-256-gcm")), session("quic", None)] });
        let text = session_table(&answer);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][5..9], ["FRONT-END", "CARRIER", "SUITE", "MTU"]);
        assert_eq!(lines[1][5..9], ["connect-ip", "esp", "aes-256-gcm", "1400"]);
        assert_eq!(lines[1].last(), Some(&"3"));
        assert_eq!(lines[2][6..8], ["quic", "1400"]);
        assert!(answer["sessions"][1].get("suite").is_none(), "quic has none");
        assert_eq!(session_table(&json!({ "sessions": [] })), "No sessions.");
        let client = Some("Open AnyConnect VPN Agent v9.01-3".to_owned());
        let told = SessionInfo {
            front_end: "anyconnect".to_owned(),
            client,
            group: Some("staff".to_owned()),
            ..session("tls", Some("TLS13_AES_256_GCM_SHA384"))
        };
        let text = session_table(&json!({ "sessions": [told] }));
        let line = text.lines().next_back().unwrap();
        assert!(line.contains("anyconnect") && line.ends_with("  staff  Open AnyConnect VPN Agent v9.01-3"), "{text}");
    }

    #[test]
    fn status_names_the_workers() {
        let mut status = GatewayStatus {
            version: "1".to_owned(),
            uptime_seconds: 1,
            listen: vec!["[::]:443".parse().unwrap()],
            tun: "adit0".to_owned(),
            workers: 4,
            sessions: 0,
            drops: BTreeMap::from([("no_route".to_owned(), 2)]),
            passwords: None,
            logins_turned_away: BTreeMap::new(),
            guards: Vec::new(),
            certificates: Vec::new(),
            warnings: Vec::new(),
        };
        let text = glance(&serde_json::to_value(&status).unwrap());
        assert!(text.lines().any(|line| line.split_whitespace().eq(["workers", "4"])), "{text}");
        assert!(text.ends_with("no_route 2"), "{text}");
        status.logins_turned_away = BTreeMap::from([("ldap".to_owned(), 3), ("local".to_owned(), 4)]);
        let text = glance(&serde_json::to_value(&status).unwrap());
        assert!(text.ends_with("logins turned away  ldap 3, local 4"), "{text}");
        status.guards.push(GuardReport {
            guard: "firewall table adit".to_owned(),
            state: GuardState::Mended,
            reason: "was removed by another program, and put back".to_owned(),
            times: 1,
        });
        let text = glance(&serde_json::to_value(&status).unwrap());
        assert!(text.ends_with("warning: firewall table adit was removed by another program, and put back"), "{text}");
        status.warnings.push("the disk is full".to_owned());
        let text = glance(&serde_json::to_value(&status).unwrap());
        assert!(text.ends_with("and put back\nwarning: the disk is full"), "{text}");
    }

    #[test]
    fn certificate_is_shown_with_its_end_and_when_it_is_renewed() {
        let text = |certificate: Value| glance(&json!({ "drops": {}, "certificates": [certificate] }));
        let shown =
            text(json!({ "name": "a.example", "ends": "2026-04-01T00:00:00Z", "renews": "2026-03-01T00:00:00Z" }));
        assert!(shown.ends_with("a.example until 2026-04-01T00:00:00Z, renewed at 2026-03-01T00:00:00Z"), "{shown}");
        assert!(text(json!({ "name": "a.example", "ends": null })).ends_with("a.example: none yet"));
        let foreign = text(json!({ "name": "a.example", "ends": "2026-04-01T00:00:00Z", "renews": null }));
        assert!(foreign.ends_with("of another authority"), "{foreign}");
    }
}
