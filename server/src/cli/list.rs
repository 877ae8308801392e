//! The verbs that list, and `adit-server revoke`.

use std::time::Duration;

use serde_json::{Value, json};

use super::output::{time, word};
use super::{Place, Refusal, ask, output};

/// Lists the users.
pub(super) fn users(place: &Place) -> Result<(), Refusal> {
    list(place, "/users", |answer| {
        let rows = rows(&answer["users"], |user| {
            [word(&user["name"]), word(&user["devices"]), word(&user["invites"]), time(&user["created_at"])]
        });
        match rows.as_slice() {
            [] => "No users yet. Make one with `adit-server invite NAME`.".to_owned(),
            rows => output::table(["NAME", "DEVICES", "OPEN INVITES", "SINCE"], rows),
        }
    })
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
            rows => output::table(["DEVICE", "USER", "NAME", "KIND", "SINCE", "REVOKED"], rows),
        }
    })
}

/// Lists the live sessions.
pub(super) fn sessions(place: &Place) -> Result<(), Refusal> {
    list(place, "/sessions", |answer| {
        let rows = rows(&answer["sessions"], |session| {
            [
                word(&session["user"]),
                word(&session["device_name"]),
                word(&session["device"]),
                words(&session["addresses"]),
                word(&session["remote"]),
                word(&session["carrier"]),
                lasting(&session["seconds"]),
                word(&session["rx_bytes"]),
                word(&session["tx_bytes"]),
            ]
        });
        match rows.as_slice() {
            [] => "No sessions.".to_owned(),
            rows => output::table(
                ["USER", "NAME", "DEVICE", "ADDRESSES", "REMOTE", "CARRIER", "SINCE", "RX BYTES", "TX BYTES"],
                rows,
            ),
        }
    })
}

/// Shows the gateway at a glance.
pub(super) fn status(place: &Place) -> Result<(), Refusal> {
    list(place, "/status", |status| {
        let mut lines = vec![
            ("version", word(&status["version"])),
            ("running for", lasting(&status["uptime_seconds"])),
            ("listen", words(&status["listen"])),
            ("tun", word(&status["tun"])),
            ("sessions", word(&status["sessions"])),
        ];
        let drops = status["drops"].as_object();
        let drops: Vec<String> =
            drops.into_iter().flatten().map(|(reason, count)| format!("{reason} {count}")).collect();
        lines.push(("dropped", if drops.is_empty() { "nothing".to_owned() } else { drops.join(", ") }));
        output::aligned(&lines)
    })
}

/// Shuts out a user or device.
pub(super) fn revoke(place: &Place, name: &str) -> Result<(), Refusal> {
    let config = place.load()?;
    let answer = ask::ask(&config, "POST", "/revoke", &json!({ "name": name }))?;
    if place.json {
        output::object(&answer);
        return Ok(());
    }
    let devices = answer["devices"].as_array().map_or(0, Vec::len);
    output::text(&format!(
        "Revoked {name}: devices {devices}, open invites {}, sessions ended {}.",
        answer["invites"], answer["sessions"]
    ));
    Ok(())
}

fn list(place: &Place, path: &str, text: impl FnOnce(&Value) -> String) -> Result<(), Refusal> {
    let config = place.load()?;
    let answer = ask::ask(&config, "GET", path, &Value::Null)?;
    if place.json {
        output::object(&answer);
    } else {
        output::text(&text(&answer));
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
