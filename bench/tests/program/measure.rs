//! The measurements as a program reads them: figures that can be true, one JSON object, and nothing left behind.

use std::fs;

use adit_testing::alone;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{assert_nothing_left, bench, interrupt_at, report};

/// The median of one figure of the bare cable.
fn median(report: &Value, task: &str, metric: &str) -> f64 {
    let figures = report["summary"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["task"] == task && figure["metric"] == metric);
    found.unwrap_or_else(|| panic!("{task} {metric} in {report:#}"))["median"].as_f64().unwrap()
}

/// The first run of a task.
fn run<'a>(report: &'a Value, task: &str) -> &'a Value {
    report["runs"].as_array().unwrap().iter().find(|run| run["task"] == task).unwrap()
}

#[test]
fn bare_cable_has_sane_figures_and_nothing_is_left() {
    let _turn = alone();
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let (folder, results) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = results.path().join("report.json");
    let arguments = ["run", "--quick", "--json", "--systems", "plain", "--output", file.to_str().unwrap()];
    let output = bench(&folder, &arguments).output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report, serde_json::from_slice::<Value>(&fs::read(file).unwrap()).unwrap());
    assert_eq!((&report["schema"], &report["complete"]), (&"adit-bench/1".into(), &true.into()));
    for task in ["tcp-up", "tcp-down", "tcp4-up", "tcp4-down", "tcp-both", "tcp-half"] {
        let rate = median(&report, task, "rate");
        assert!(rate > 0.0 && rate < 1_000.0, "{task}: {rate} Gbit/s");
        assert!(median(&report, task, "checksum_errors").abs() < 0.5);
        assert!(!run(&report, task)["timeline"]["values"].as_array().unwrap().is_empty(), "{task}");
    }
    let [both, up, down] = ["rate", "rate_up", "rate_down"].map(|metric| median(&report, "tcp-both", metric));
    assert!(up > 0.0 && down > 0.0 && (up + down - both).abs() < 0.01 * both, "{up} + {down} = {both}");
    let [rate, offered] = ["rate", "offered"].map(|metric| median(&report, "tcp-half", metric));
    assert!(rate > 0.0 && offered > 0.0, "{rate} of {offered} Gbit/s");
    for task in ["udp64-flood", "udp1200-flood"] {
        let delivered = median(&report, task, "delivered");
        assert!(delivered > 0.0 && delivered < 1e8, "{task}: {delivered} packets/s");
    }
    for task in ["udp64-loss", "udp1200-loss"] {
        let [rate, clean] = ["rate", "clean_rate"].map(|metric| median(&report, task, metric));
        assert!((0.0..1e8).contains(&rate) && clean <= rate, "{task}: {rate} packets/s, {clean} without loss");
    }
    for task in ["rtt-idle", "rtt-load"] {
        let quantiles = ["p50", "p90", "p99", "p99.9"].map(|metric| median(&report, task, metric));
        assert!(quantiles.is_sorted() && quantiles[0] > 0.5 && quantiles[3] < 1e6, "{task}: {quantiles:?} µs");
        let shares: Vec<_> =
            run(&report, task)["latencies"].as_array().unwrap().iter().map(|pair| pair[1].as_f64().unwrap()).collect();
        assert!(shares.is_sorted() && shares.last().is_some_and(|share| *share > 0.0 && *share <= 1.0), "{shares:?}");
    }
    let cable = median(&report, "reconnect", "cable");
    assert!((0.0..60_000.0).contains(&cable), "{cable} ms");
    assert!(report["machine"]["kernel"].as_str().is_some_and(|kernel| kernel.starts_with("Linux")));
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), report["tasks"].as_array().unwrap().len());
    assert_nothing_left(&folder);
}

#[test]
fn life_of_a_tunnel_is_measured() {
    let _turn = alone();
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let folder = TempDir::new().unwrap();
    let tasks = "tcp-up,tcp-half,flooded,memory,connect,reconnect";
    let output = bench(&folder, &["run", "--quick", "--json", "--systems", "adit", "--only", tasks]).output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    for (task, metric) in [("connect", "time"), ("reconnect", "cable"), ("reconnect", "gateway_restart")] {
        let time = median(&report, task, metric);
        assert!((1.0..60_000.0).contains(&time), "{task} {metric}: {time} ms");
    }
    for metric in ["gateway", "client", "gateway_start", "client_start", "gateway_growth"] {
        let task = if metric.ends_with("growth") { "memory-growth" } else { "memory" };
        assert!(median(&report, task, metric).abs() < 1_000_000.0, "{task} {metric}");
    }
    for metric in ["cpu", "cpu_gateway_user", "cpu_client_system"] {
        assert!(median(&report, "tcp-up", metric) > 0.0, "{metric}");
    }
    for metric in ["rate", "rate_beside", "left"] {
        assert!(median(&report, "flooded", metric) > 0.0, "{metric}");
    }
    assert_nothing_left(&folder);
}

#[test]
fn unknown_names_are_usage_errors_with_what_was_meant() {
    let folder = TempDir::new().unwrap();
    let output = bench(&folder, &["peers", "--systems", "plain,wiregard-go"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("wiregard-go") && said.contains("did you mean `wireguard-go`?"), "{said}");
    let output = bench(&folder, &["run", "--only", "tpc-up"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("tpc-up") && said.contains("tcp-up"), "{said}");
}

#[test]
fn interrupted_run_reports_what_it_has_and_leaves_nothing() {
    let _turn = alone();
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let folder = TempDir::new().unwrap();
    let arguments =
        ["run", "--json", "--systems", "plain", "--only", "rtt-idle", "--seconds", "0.5", "--rounds", "1000"];
    let report = report(&interrupt_at("round 2,", bench(&folder, &arguments), &folder));
    assert_eq!(report["complete"], false);
    assert!(median(&report, "rtt-idle", "p50") > 0.0);
}
