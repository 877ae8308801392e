//! The demo as a program reads it: one JSON object, however it ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use adit_lab::BIN_DIR;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// `adit-bench demo --json` with the programs of a folder.
fn demo(programs: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit-bench"));
    command.args(["demo", "--json"]).args(more).env(BIN_DIR, programs);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ends_a_kept_demo(child: &Child) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
}

#[test]
fn failure_before_the_first_step_is_an_object_too() {
    let output = demo(Path::new("/nonexistent"), &[]).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false, "{report:#}");
    assert!(report["error"].as_str().is_some_and(|error| error.contains("next:")), "{report:#}");
}

#[test]
fn kept_demo_prints_one_object_with_the_way_in_and_ends_in_order() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let programs = adit_lab::binaries().unwrap().server;
    let mut child = demo(programs.parent().unwrap(), &["--keep"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let report: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    ends_a_kept_demo(&child);
    assert_eq!(report["ok"], true, "{report:#}");
    assert!(report["total_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report:#}");
    let transfers = report["transfers"].as_array().unwrap();
    assert_eq!(transfers.len(), 4, "{report:#}");
    assert!(transfers.iter().all(|transfer| transfer["bytes"] == 32 << 20), "{report:#}");
    let hosts: Vec<_> = report["entries"].as_array().unwrap().iter().map(|entry| &entry["host"]).collect();
    assert_eq!(hosts, ["client", "gateway", "internet"]);
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(rest.is_empty(), "{rest:?}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
