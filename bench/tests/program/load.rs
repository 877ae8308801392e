//! The load generator as a program reads it: every client up, on its carrier and answered, and nothing left behind.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{assert_nothing_left, bench, interrupt_at, report};

/// `adit-bench load`, as [`bench`] has it.
fn load(folder: &TempDir, arguments: &[&str]) -> Command {
    bench(folder, &[&["load"], arguments].concat())
}

/// Lets 50 clients connect and send, and checks what every carrier must reach.
fn run(arguments: &[&str]) -> Option<Value> {
    if let Err(failure) = adit_lab::check_permission() {
        adit_testing::skip(failure);
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
    let [sent, answered] = ["sent", "answered"].map(|key| echoes[key].as_u64().unwrap());
    // How many are lost is a matter of the machine, and of what else it does.
    assert!(answered > 0 && answered <= sent, "{report:#}");
    assert_eq!(echoes["rtt_ms"]["count"], answered, "{report:#}");
    for times in [&echoes["rtt_ms"], &report["connect_ms"]] {
        let times: Vec<f64> = ["p50", "p90", "p99", "max"].map(|key| times[key].as_f64().unwrap()).to_vec();
        assert!(times.is_sorted() && times[0] > 0.0 && times[3] < 30_000.0, "{report:#}");
    }
    assert_nothing_left(&folder);
    Some(report)
}

#[test]
fn fifty_clients_are_up_on_esp_and_are_answered() {
    let Some(report) = run(&["--duration", "3s"]) else { return };
    assert_shared(&report["echoes"]["fairness"], 50);
    for key in ["clients_on_esp", "gateway_on_esp"] {
        assert_eq!(report[key], 50, "{key} in {report:#}");
    }
    // A generator that is late sends fewer, and never more.
    assert!(report["echoes"]["sent"].as_u64().unwrap() <= 50 * 4 * 3, "{report:#}");
    let phases: Vec<&str> = report["phases"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(phases, ["connect", "idle", "loaded"]);
    let memory = &report["memory"];
    assert!(memory["before_kib"].as_f64() < memory["with_sessions_kib"].as_f64(), "{report:#}");
    assert!((1.0..10_000.0).contains(&memory["per_session_kib"].as_f64().unwrap()), "{report:#}");
}

/// Every client got something; how evenly, the report says, and its targets judge.
fn assert_shared(fairness: &Value, clients: u64) {
    assert_eq!(fairness["clients"], clients, "{fairness:#}");
    let [jain, lowest, highest] = ["jain", "lowest", "highest"].map(|key| fairness[key].as_f64().unwrap());
    assert!(0.0 < lowest && lowest <= highest && highest <= 1.0 && 0.0 < jain && jain <= 1.0, "{fairness:#}");
}

#[test]
fn clients_that_move_are_back_and_every_client_goes_on() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    for carrier in ["esp", "quic"] {
        let folder = TempDir::new().unwrap();
        let moving = ["--roam", "20%", "--roam-every", "1s", "--duration", "3s", "--carrier", carrier];
        let output =
            load(&folder, &[&["--json", "--clients", "50", "--rate", "4"], &moving[..]].concat()).output().unwrap();
        let report = report(&output);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{report:#}{said}");
        let roaming = &report["roaming"];
        assert_eq!((&roaming["clients"], &roaming["not_back"]), (&10.into(), &0.into()), "{roaming:#}");
        let moves = roaming["moves"].as_u64().unwrap();
        assert!((10..=30).contains(&moves) && roaming["gap_ms"]["count"] == moves, "{roaming:#}");
        assert!(roaming["echoes_sent"].as_u64() >= Some(moves), "{roaming:#}");
        assert_eq!(report["connected"], 50, "{report:#}");
        assert_shared(&report["echoes"]["fairness"], 50);
        for stage in ["clients connect", "all sessions send"] {
            assert!(said.contains(stage) && said.contains("s left)"), "{said}");
        }
        assert_nothing_left(&folder);
    }
}

#[test]
fn clients_whose_gateway_was_killed_are_back_with_their_addresses() {
    for carrier in ["esp", "quic"] {
        let Some(report) = run(&["--duration", "1s", "--carrier", carrier, "--restart", "1s"]) else { return };
        let restart = &report["restart"];
        for (key, expected) in [("clients", 50), ("not_back", 0), ("other_address", 0)] {
            assert_eq!(restart[key], expected, "{key} in {restart:#}");
        }
        assert_eq!(restart["return_ms"]["count"], 50, "{restart:#}");
    }
}

#[test]
fn active_clients_and_visits_with_certificates_are_reported_beside_their_targets() {
    let wanted = ["--login", "certificate", "--active", "5", "--churn", "50/s", "--duration", "1s"];
    let Some(report) = run(&wanted) else { return };
    assert_shared(&report["echoes"]["fairness"], 50);
    let active = &report["active"];
    let [capacity, rate] = ["capacity_per_second", "rate_per_second"].map(|key| active[key].as_f64().unwrap());
    assert!(capacity > 0.0 && (rate / capacity - 0.8).abs() < 1e-6, "{active:#}");
    assert!(active["clients"] == 5 && active["drops"].is_u64(), "{active:#}");
    assert_eq!(active["others"]["fairness"]["clients"], 45, "{active:#}");
    let churn = &report["churn"];
    assert!((1..=50).contains(&churn["visits"].as_u64().unwrap()), "{churn:#}");
    for key in ["failed", "sessions_left", "descriptors_left"] {
        assert_eq!(churn[key], 0, "{key} in {churn:#}");
    }
    let targets = report["targets"].as_array().unwrap();
    for name in ["L1", "L2", "C1", "C2"] {
        assert!(targets.iter().any(|target| target["name"] == name && target["what"].is_string()), "{targets:#?}");
    }
    // Too few for any of them, and it says what would do.
    assert!(targets.iter().all(|target| target["measured"].is_null() && target["note"].is_string()), "{targets:#?}");
}

#[test]
fn wrong_flags_are_refused_with_what_would_do() {
    let folder = TempDir::new().unwrap();
    for (flags, words) in [
        (&["--roam", "5"][..], "such as 5%"),
        (&["--roam", "5%", "--rate", "0"], "give --rate more than 0"),
        (&["--active", "200", "--clients", "100"], "give --clients 200 or more"),
        (&["--churn", "100/s", "--clients", "10"], "give --clients 100 or more"),
        (&["--carrier", "tls", "--login", "certificate"], "give another --carrier"),
        (&["--clients", "0"], "--clients"),
        (&["--login", "password"], "certificate"),
    ] {
        let output = load(&folder, flags).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(words), "{flags:?}: {said}");
    }
    assert_nothing_left(&folder);
}

#[test]
fn two_loads_at_once_do_not_collide() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let start =
        |folder| load(folder, &["--json", "--clients", "20", "--rate", "4", "--duration", "1s"]).spawn().unwrap();
    let both = folders.each_ref().map(start);
    for (child, folder) in both.into_iter().zip(&folders) {
        let output = child.wait_with_output().unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(0), "{report:#}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((&report["connected"], &report["gateway_sessions"]), (&20.into(), &20.into()));
        assert_nothing_left(folder);
    }
}

#[test]
fn clients_that_do_not_offer_esp_echo_over_quic() {
    let Some(report) = run(&["--duration", "1s", "--carrier", "quic"]) else { return };
    assert_eq!((&report["gateway_on_esp"], &report["esp_share"]), (&0.into(), &0.0.into()), "{report:#}");
}

#[test]
fn clients_of_anyconnect_come_with_a_cookie_and_echo_over_tls() {
    let Some(report) = run(&["--duration", "1s", "--carrier", "tls", "--churn", "20/s"]) else { return };
    assert_eq!((&report["carrier"], &report["gateway_on_esp"]), (&"tls".into(), &0.into()), "{report:#}");
    assert_shared(&report["echoes"]["fairness"], 50);
    let churn = &report["churn"];
    assert!(churn["visits"].as_u64().is_some_and(|visits| visits > 0), "{churn:#}");
    for key in ["failed", "sessions_left", "descriptors_left"] {
        assert_eq!(churn[key], 0, "{key} in {churn:#}");
    }
    let targets = report["targets"].as_array().unwrap();
    assert!(targets.iter().all(|target| target["name"] == "A7"), "{targets:#?}");
    let needs = |target: &Value| target["note"].as_str().is_some_and(|note| note.contains("--clients 2000"));
    assert!(targets.len() == 3 && targets.iter().all(needs), "{targets:#?}");
}

#[test]
fn interrupted_load_leaves_nothing() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let folder = TempDir::new().unwrap();
    interrupt_at("clients connect", load(&folder, &["--clients", "20", "--duration", "1h"]), &folder);
}
