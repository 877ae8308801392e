//! The load generator as a program reads it: every client up, on its carrier and answered, and nothing left behind.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends a test")]

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use adit_bench::lab;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

mod harness;

use harness::{assert_nothing_left, bench, report};

/// `adit-bench load`, as [`bench`] has it.
fn load(folder: &TempDir, arguments: &[&str]) -> Command {
    bench(folder, &[&["load"], arguments].concat())
}

/// Lets 50 clients connect and send, and checks what every carrier must reach.
fn run(arguments: &[&str]) -> Option<Value> {
    if let Err(failure) = lab::check_permission() {
        lab::skip(&failure);
        return None;
    }
    let folder = TempDir::new().unwrap();
    let always = ["--json", "--clients", "50", "--rate", "4"];
    let output = load(&folder, &[&always, arguments].concat()).output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(report["schema"], "adit-bench-load/1");
    for key in ["connected", "gateway_sessions"] {
        assert_eq!(report[key], 50, "{key} in {report:#}");
    }
    let echoes = &report["echoes"];
    let sent = echoes["sent"].as_u64().unwrap();
    assert!(sent > 0 && echoes["answered"] == sent && echoes["rtt_ms"]["count"] == sent, "{report:#}");
    for times in [&echoes["rtt_ms"], &report["connect_ms"]] {
        let times: Vec<f64> = ["p50", "p90", "p99", "max"].map(|key| times[key].as_f64().unwrap()).to_vec();
        assert!(times.is_sorted() && times[0] > 0.0 && times[3] < 30_000.0, "{report:#}");
    }
    assert_nothing_left(&folder);
    Some(report)
}

#[test]
fn fifty_clients_are_up_on_esp_and_every_echo_is_answered() {
    let Some(report) = run(&["--duration", "3s"]) else { return };
    for key in ["clients_on_esp", "gateway_on_esp"] {
        assert_eq!(report[key], 50, "{key} in {report:#}");
    }
    assert_eq!(report["echoes"]["sent"], 50 * 4 * 3);
    let phases: Vec<&str> = report["phases"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(phases, ["connect", "idle", "loaded"]);
    let memory = &report["memory"];
    assert!(memory["before_kib"].as_f64() < memory["with_sessions_kib"].as_f64(), "{report:#}");
    assert!((1.0..10_000.0).contains(&memory["per_session_kib"].as_f64().unwrap()), "{report:#}");
}

#[test]
fn clients_that_do_not_offer_esp_echo_over_quic() {
    let Some(report) = run(&["--duration", "1s", "--carrier", "quic"]) else { return };
    assert_eq!((&report["gateway_on_esp"], &report["esp_share"]), (&0.into(), &0.0.into()), "{report:#}");
}

#[test]
fn interrupted_load_leaves_nothing() {
    if let Err(failure) = lab::check_permission() {
        return lab::skip(&failure);
    }
    let folder = TempDir::new().unwrap();
    let child = load(&folder, &["--clients", "20", "--duration", "1h"]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read_dir(folder.path()).unwrap().next().is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_secs(1));
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_nothing_left(&folder);
}
