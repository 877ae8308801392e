//! What tests of `adit-bench` begin with: the program with marked processes, interrupted and looked after.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::BIN_DIR;
use adit_testing::PATIENCE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Variable by which the processes of one test are known.
const MARK: &str = "ADIT_BENCH_TEST";

/// `adit-bench` with a folder for temporary files of its own, which also marks its processes. It takes gateway and
/// client as this program found them, and builds nothing.
pub(crate) fn bench(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit-bench"));
    let programs = adit_lab::binaries().unwrap().server;
    command.env(BIN_DIR, programs.parent().unwrap());
    command.args(arguments).env("TMPDIR", folder.path()).env(MARK, folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ends a program as an operator does, by SIGTERM.
pub(crate) fn terminate(child: &Child) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
}

/// Starts a run, ends it at the first line of progress that begins with `line`, and checks that it fails, says that it
/// was interrupted, and leaves nothing. Returns what it printed.
pub(crate) fn interrupt_at(line: &str, mut command: Command, folder: &TempDir) -> Output {
    let mut child = command.spawn().unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(progress.any(|said| said.unwrap().starts_with(line)), "never said: {line}");
    terminate(&child);
    let rest: Vec<String> = progress.map(Result::unwrap).collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{rest:?}");
    assert!(rest.iter().any(|said| said.contains("interrupted")), "{rest:?}");
    assert_nothing_left(folder);
    output
}

/// Fails where a file or a process of a run is left.
pub(crate) fn assert_nothing_left(folder: &TempDir) {
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(files.is_empty(), "{files:?}");
    let mark = format!("{MARK}={}", folder.path().display());
    let marked = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    // Those that end with the program get a signal from the kernel, which a busy host lets them act upon later.
    let left = || {
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        processes.filter(|process| marked(process)).map(|process| command_of(&process)).collect::<Vec<_>>()
    };
    let mut last = left();
    let deadline = Instant::now() + PATIENCE;
    while !last.is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
        last = left();
    }
    assert!(last.is_empty(), "{last:?}");
}

/// What a process was started as.
fn command_of(process: &Path) -> String {
    let command = fs::read(process.join("cmdline")).unwrap_or_default();
    format!("{}: {}", process.display(), String::from_utf8_lossy(&command).replace('\0', " "))
}

/// The JSON object a run printed.
pub(crate) fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}
