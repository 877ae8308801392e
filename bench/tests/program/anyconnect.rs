//! Clients and gateways of the AnyConnect family, as they are measured.
//!
//! Where one of the stock programs is not installed these tests skip themselves with a loud word, but fail where `CI`
//! is set.

use std::process::Command;

use adit_testing::{alone, skip};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{assert_nothing_left, bench, interrupt_at, report};

/// Whether this machine has what is measured; says so where it does not.
fn is_equipped() -> bool {
    if let Err(failure) = adit_lab::check_permission() {
        skip(failure);
        return false;
    }
    let missing =
        ["openconnect", "ocserv"].into_iter().find(|name| Command::new(name).arg("--version").output().is_err());
    if let Some(name) = missing {
        skip(format!("needs {name} (the package of that name)"));
    }
    missing.is_none()
}

fn value(run: &Value, metric: &str) -> f64 {
    let readings = run["readings"].as_array().unwrap();
    let found = readings.iter().find(|reading| reading["metric"] == metric);
    found.unwrap_or_else(|| panic!("{metric} in {run:#}"))["value"].as_f64().unwrap()
}

#[test]
fn each_client_is_measured_at_each_gateway_by_the_carrier_that_its_name_says() {
    let _turn = alone();
    if !is_equipped() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let systems = [
        ("ocserv", None),
        ("openconnect-to-adit", Some("dtls")),
        ("openconnect-to-adit-tls", Some("tls")),
        ("adit-anyconnect", Some("dtls")),
        ("adit-anyconnect-tls", Some("tls")),
        ("adit-to-ocserv", Some("dtls")),
        ("adit-to-ocserv-tls", Some("tls")),
    ];
    let names = systems.map(|(name, _)| name).join(",");
    let arguments = ["peers", "--quick", "--json", "--only", "tcp-up", "--systems", &names];
    let output = bench(&folder, &arguments).output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), systems.len(), "{report:#}");
    for (run, (name, carrier)) in runs.iter().zip(systems) {
        assert_eq!((&run["system"], run["carrier"].as_str()), (&name.into(), carrier), "{run:#}");
        assert!(value(run, "rate") > 0.0 && value(run, "cpu") > 0.0, "{run:#}");
        // Each end apart.
        for metric in ["cpu_client_user", "cpu_client_system", "cpu_gateway_user", "cpu_gateway_system"] {
            assert!(value(run, metric) >= 0.0, "{run:#}");
        }
    }
    assert_nothing_left(&folder);
}

#[test]
fn quick_comparison_measures_both_ways_and_decides_nothing() {
    let _turn = alone();
    if !is_equipped() {
        return;
    }
    let (folder, results) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let page = results.path().join("page.html");
    let arguments = ["anyconnect", "--quick", "--only", "A1", "--json", "--html", page.to_str().unwrap()];
    let output = bench(&folder, &arguments).output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(9), "{report:#}");
    assert_eq!((&report["schema"], &report["exit_code"]), (&"adit-bench-anyconnect/1".into(), &9.into()));
    let targets = report["targets"].as_array().unwrap();
    assert_eq!(targets.iter().map(|row| row["task"].as_str().unwrap()).collect::<Vec<_>>(), ["tcp-up", "tcp-down"]);
    for target in targets {
        assert!((0.01..100.0).contains(&target["measured"].as_f64().unwrap()), "{target:#}");
        assert!(target["met"].is_null() && target["note"] == "1 rounds count, and 5 are needed", "{target:#}");
    }
    let runs = report["measurement"]["runs"].as_array().unwrap();
    let order: Vec<&str> = runs.iter().step_by(2).map(|run| run["system"].as_str().unwrap()).collect();
    assert_eq!(order, ["ocserv", "openconnect-to-adit", "ocserv"]);
    assert!(std::fs::read_to_string(page).unwrap().contains("openconnect-to-adit"));
    assert_nothing_left(&folder);
}

#[test]
fn interrupted_comparison_leaves_nothing() {
    let _turn = alone();
    if !is_equipped() {
        return;
    }
    let folder = TempDir::new().unwrap();
    interrupt_at("round 1, openconnect-to-adit", bench(&folder, &["anyconnect", "--only", "A1"]), &folder);
}
