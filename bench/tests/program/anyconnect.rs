//! Clients and gateways of the AnyConnect family, as they are measured.
//!
//! Where one of the stock programs is not installed these tests skip themselves with a loud word, but fail where `CI`
//! is set.

use std::process::Command;

use adit_testing::{alone, skip};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{assert_nothing_left, bench, report};

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
