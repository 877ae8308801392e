//! Comparisons as a program or a pipeline sees them: exit codes, one JSON object, and nothing left behind.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{assert_nothing_left, bench, interrupt_at, report, terminate};

/// Two folders with the programs of this build.
fn two_builds(place: &TempDir) -> [String; 2] {
    let binaries = adit_lab::binaries().unwrap();
    ["old", "new"].map(|name| {
        let folder = place.path().join(name);
        fs::create_dir(&folder).unwrap();
        for program in [&binaries.server, &binaries.client] {
            fs::copy(program, folder.join(program.file_name().unwrap())).unwrap();
        }
        folder.to_str().unwrap().to_owned()
    })
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn two_copies_are_compared_and_nothing_is_left() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let (folder, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let [base, head] = two_builds(&place);
    let [json, markdown] = ["compare.json", "compare.md"].map(|name| place.path().join(name));
    let to_markdown = format!("--markdown={}", markdown.display());
    let short = ["--rounds", "1", "--max-rounds", "1", "--noise-rounds", "1", "--seconds", "0.2", "--tasks", "tcp-up"];
    let output = bench(&folder, &["compare", &base, &head, "--json", &to_markdown])
        .args(["--output", json.to_str().unwrap()])
        .args(short)
        .output()
        .unwrap();
    let report = report(&output);
    let code = output.status.code().unwrap();
    assert!([0, 8, 9].contains(&code), "{}", said(&output));
    assert_eq!(report["exit_code"], code);
    assert!(said(&output).contains("byte for byte"), "{}", said(&output));
    assert_eq!((&report["schema"], &report["rounds"]), (&"adit-bench-compare/1".into(), &1.into()));
    let names: Vec<&str> =
        report["metrics"].as_array().unwrap().iter().filter_map(|row| row["metric"].as_str()).collect();
    assert!(names.contains(&"rate") && names.contains(&"cpu"), "{names:?}");
    for row in report["metrics"].as_array().unwrap() {
        assert!((0.01..100.0).contains(&row["ratio"].as_f64().unwrap()), "{row:#}");
        assert_eq!(row["ratios"].as_array().unwrap().len(), 1, "{row:#}");
    }
    let runs = report["measurement"]["runs"].as_array().unwrap();
    let order: Vec<&str> = runs.iter().filter_map(|run| run["system"].as_str()).collect();
    assert_eq!(order, ["base", "base-again", "base-again", "base", "base", "head", "head", "base"]);
    assert_eq!(report, serde_json::from_slice::<Value>(&fs::read(json).unwrap()).unwrap());
    let markdown = fs::read_to_string(markdown).unwrap();
    assert!(markdown.contains("| tcp-up rate \\[Gbit/s\\] |") && markdown.contains("adit-bench compare"), "{markdown}");
    assert_nothing_left(&folder);
}

#[test]
fn interrupted_comparison_leaves_nothing() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let (folder, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let [base, head] = two_builds(&place);
    let file = place.path().join("compare.json");
    let arguments = ["compare", &base, &head, "--tasks", "rtt-idle", "--seconds", "0.2"];
    let mut command = bench(&folder, &arguments);
    command.args(["--output", file.to_str().unwrap()]);
    interrupt_at("round 1, base-again", command, &folder);
    assert!(!file.exists());
}

#[test]
fn wrong_builds_and_arguments_are_usage_errors() {
    let (folder, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let empty = place.path().to_str().unwrap();
    for (arguments, words) in [
        (&["nowhere", "HEAD"][..], "git repository"),
        (&[empty, empty], "holds no adit-server"),
        (&["a"], "HEAD"),
        (&["a", "b", "--threshold", "fast"], "percentage"),
        (&["a", "b", "--tasks", "tpc"], "tcp-up"),
        (&["a", "b", "--json", "--markdown"], "both would print"),
        (&["a", "b", "--output", "/nonexistent/file"], "/nonexistent/file"),
    ] {
        // Outside any repository.
        let output = bench(&folder, &["compare"]).args(arguments).current_dir(place.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{arguments:?}: {}", said(&output));
    }
    assert_nothing_left(&folder);
}

/// A repository whose commits are: programs that build, the same with another text, and one that does not build.
fn repository(place: &Path) {
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "commit.gpgsign=false"];
        let output = Command::new("git").arg("-C").arg(place).args(identity).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    };
    git(&["init", "--quiet"]);
    let write = |path: &str, text: &str| {
        let path = place.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(".gitignore", "target/\n");
    write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"adit-server\", \"adit-client\"]\n");
    let mut lock = "version = 4\n".to_owned();
    for package in ["adit-client", "adit-server"] {
        let manifest = format!("[package]\nname = \"{package}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
        write(&format!("{package}/Cargo.toml"), &manifest);
        lock += &format!("\n[[package]]\nname = \"{package}\"\nversion = \"0.1.0\"\n");
    }
    write("Cargo.lock", &lock);
    let bodies = ["println!(\"adit 1\");", "println!(\"adit 2\");", "no such thing"];
    for (number, body) in bodies.iter().enumerate() {
        for package in ["adit-client", "adit-server"] {
            write(&format!("{package}/src/main.rs"), &format!("fn main() {{ {body} }}\n"));
        }
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "x"]);
        git(&["tag", &format!("v{number}")]);
    }
}

/// What each folder where a commit was built holds; what cargo keeps is none.
fn kept(place: &Path) -> Vec<Vec<String>> {
    let compare = place.join("target/compare");
    let commits = fs::read_dir(compare).unwrap().map(|entry| entry.unwrap().path());
    let commits = commits.filter(|path| path.is_dir() && !path.ends_with("build"));
    let names = |commit| {
        let entries = fs::read_dir(commit).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    commits.map(names).collect()
}

#[test]
fn revisions_are_built_once_and_their_worktrees_go() {
    let (folder, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    repository(place.path());
    let compare = |arguments: &[&str]| {
        let mut command = bench(&folder, &["compare", "--quick"]);
        command.args(arguments).current_dir(place.path()).env_remove("CARGO_TARGET_DIR").output().unwrap()
    };
    let unknown = compare(&["v0", "v9"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
    assert!(said(&unknown).contains("no revision of"), "{}", said(&unknown));

    fs::write(place.path().join("adit-client/src/main.rs"), "changed").unwrap();
    let broken = compare(&["v1", "HEAD"]);
    assert_eq!(broken.status.code(), Some(1), "{}", said(&broken));
    for words in ["uncommitted changes", "cargo build of HEAD", "it said last:", "no such thing", "mend that commit"] {
        assert!(said(&broken).contains(words), "{words} in {}", said(&broken));
    }
    assert_eq!(kept(place.path()), [["adit-client", "adit-server"]], "nothing of the broken one");
    let worktrees = Command::new("git").arg("-C").arg(place.path()).args(["worktree", "list"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&worktrees.stdout).lines().count(), 1);

    // What these build is no VPN, so the comparison ends at its first turn.
    let again = compare(&["v0", "v1"]);
    assert_eq!(said(&again).matches("builds v").count(), 1, "only v0 is new: {}", said(&again));
    assert_eq!(kept(place.path()), [["adit-client", "adit-server"]; 2]);
    if adit_lab::check_permission().is_ok() {
        assert_eq!(again.status.code(), Some(1), "{}", said(&again));
        assert!(said(&again).contains("base, start: failed 3 times"), "{}", said(&again));
    }
    assert_nothing_left(&folder);
}

#[test]
fn interrupted_build_leaves_no_worktree_and_no_process() {
    let (folder, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    repository(place.path());
    let cargo = place.path().join("target/cargo");
    fs::create_dir_all(cargo.parent().unwrap()).unwrap();
    fs::write(&cargo, "#!/bin/sh\ntouch \"$(dirname \"$0\")/started\"\nsleep 60 & wait\n").unwrap();
    File::open(&cargo).unwrap().set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = bench(&folder, &["compare", "v0", "v1"]);
    let mut child = command.current_dir(place.path()).env("CARGO", &cargo).spawn().unwrap();
    adit_testing::eventually("the build begins", || place.path().join("target/started").exists().then_some(()));
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(kept(place.path()).is_empty(), "{:?}", kept(place.path()));
    assert_nothing_left(&folder);
}
