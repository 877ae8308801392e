//! Networks that get in the way of a tunnel, as a program sees what was found.

use tempfile::TempDir;

use crate::harness::{assert_nothing_left, bench, interrupt_at, report};

#[test]
fn quick_streams_over_a_line_are_measured_and_decide_nothing() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let (folder, results) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let page = results.path().join("page.html");
    let arguments = ["networks", "--quick", "--only", "N6", "--profiles", "dsl", "--json", "--html"];
    let output = bench(&folder, &arguments).arg(&page).output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(9), "{report:#}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((&report["schema"], &report["exit_code"]), (&"adit-bench-networks/1".into(), &9.into()));
    let [line] = report["streams"].as_array().unwrap().as_slice() else { panic!("one line: {report:#}") };
    let rows = line["rows"].as_array().unwrap();
    let systems: Vec<&str> = rows.iter().step_by(2).map(|row| row["system"].as_str().unwrap()).collect();
    assert_eq!((line["profile"].as_str(), systems), (Some("dsl"), vec!["adit", "adit-quic", "adit-tls"]));
    for row in rows {
        // On a busy host packets may have gone by another carrier: then the round does not count.
        assert!(row["measured"].as_f64().is_none_or(|multiple| (0.01..100.0).contains(&multiple)), "{row:#}");
        assert!(row["met"].is_null() && row["note"].is_string(), "{row:#}");
        assert_eq!(row["target"].is_null(), row["system"] == "adit-tls", "{row:#}");
    }
    assert!(rows.iter().any(|row| row["measured"].is_number()), "{report:#}");
    assert!(std::fs::read_to_string(page).unwrap().contains("adit-quic"));
    assert_nothing_left(&folder);
}

#[test]
fn target_that_nobody_meets_is_missed() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let folder = TempDir::new().unwrap();
    let arguments = ["networks", "--only", "N1", "--rounds", "1", "--stricter", "1e6", "--json"];
    let output = bench(&folder, &arguments).output().unwrap();
    let report = report(&output);
    let [run] = report["measurement"]["runs"].as_array().unwrap().as_slice() else { panic!("one run: {report:#}") };
    assert!(run["error"].is_null() && run["task"] == "udp-blocked", "{run:#}");
    // Other load on this machine excuses everything.
    let is_excused = run["disturbed"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if is_excused { 9 } else { 8 }), "{report:#}");
    let targets = report["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 2, "{report:#}");
    for target in targets {
        assert!(target["measured"].as_f64().is_some_and(|milliseconds| milliseconds > 1.0), "{target:#}");
        assert_eq!(target["met"].as_bool(), (!is_excused).then_some(false), "{target:#}");
    }
    assert_nothing_left(&folder);
}

#[test]
fn interrupted_run_leaves_nothing() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let folder = TempDir::new().unwrap();
    let arguments = ["networks", "--only", "N6", "--profiles", "dsl", "--seconds", "0.5"];
    interrupt_at("round 1, adit", bench(&folder, &arguments), &folder);
}
