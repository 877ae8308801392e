//! A flood of logins as a program reads it: users and a session go on, and nothing is left behind.
//!
//! How fast that is, is a matter of the machine and of what else it does; here only what is counted decides.

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{assert_nothing_left, bench, interrupt_at, report};

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

#[test]
fn known_users_and_a_session_go_on_during_floods_and_strangers_do_not() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let folder = TempDir::new().unwrap();
    let output = bench(&folder, &["logins", "--quick", "--json"]).output().unwrap();
    let report = report(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!([0, 8, 9].contains(&output.status.code().unwrap()), "{report:#}{said}");
    assert_eq!(report["schema"], "adit-bench-logins/1");
    assert_eq!(report["session_kept"], true, "{report:#}");
    assert!((1..=32).contains(&count(&report["most_waiting"])), "{report:#}");
    let parts = report["parts"].as_array().unwrap();
    let flooders: Vec<&str> = parts.iter().filter_map(|part| part["flooders"].as_str()).collect();
    assert_eq!(flooders, ["nobody", "one", "nobody", "many"]);
    for part in parts {
        for user in ["device", "network"] {
            assert!(count(&part[user]["ms"]["count"]) > 0 && part[user]["failed"] == 0, "{user}: {part:#}{said}");
        }
        let (sent, back) = (count(&part["packets_sent"]), count(&part["packets_back"]));
        assert!(0 < back && back <= sent, "{part:#}");
        let tries = &part["tries"];
        assert_eq!(tries["let_in"], 0, "{part:#}");
        assert_eq!(count(&tries["refused"]) > 0, part["flooders"] != "nobody", "{part:#}");
    }
    // The positive control: strangers are let in while nobody floods, and not once an address has failed too often.
    assert!(count(&parts[0]["strangers"]["ms"]["count"]) > 0, "{report:#}");
    assert!(count(&parts[1]["strangers"]["failed"]) > 0, "{report:#}");
    assert_nothing_left(&folder);
}

#[test]
fn interrupted_flood_leaves_nothing() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let folder = TempDir::new().unwrap();
    interrupt_at("round 1: one address", bench(&folder, &["logins", "--quick"]), &folder);
}
