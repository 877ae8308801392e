//! A process in a lab host, with its output captured in files.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::namespace::reap;

/// Pause between two looks at a process or its output.
const POLL: Duration = Duration::from_millis(5);

/// Lines of output shown of a process that failed.
const TAIL_LINES: usize = 20;

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Arc<Mutex<Child>>,
    stdout: PathBuf,
    stderr: PathBuf,
    started: Instant,
}

/// What a process left when it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code, or 128 and the number of the signal that ended it.
    pub code: i32,
    /// Everything it wrote to its standard output.
    pub stdout: String,
    /// Everything it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// Returns the standard output, or an error with both outputs where the exit code is not 0.
    pub fn success(self) -> Result<String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        bail!("exit code {}\n{}{}", self.code, self.stdout, self.stderr)
    }
}

impl Process {
    /// Starts `command` by `spawn`, its output going to `log.out` and `log.err`.
    pub(super) fn capture(
        command: &mut Command,
        name: String,
        log: &Path,
        spawn: impl FnOnce(Command) -> io::Result<Arc<Mutex<Child>>>,
    ) -> Result<Self> {
        let (stdout, stderr) = (log.with_extension("out"), log.with_extension("err"));
        let create = |path: &Path| File::create(path).with_context(|| format!("make {}", path.display()));
        let mut command = std::mem::replace(command, Command::new(""));
        command.stdin(Stdio::null()).stdout(create(&stdout)?).stderr(create(&stderr)?);
        let started = Instant::now();
        let child = spawn(command).with_context(|| format!("start {name}"))?;
        Ok(Self { name, child, stdout, stderr, started })
    }

    /// The process id, as seen from outside the host.
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What it has written to its standard output.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to its standard error.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.child();
        if child.try_wait().with_context(|| format!("look at {}", self.name))?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id fits")?);
        signal::kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Asks the process to leave, with `SIGTERM`.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Kills the process and waits for its end; it has no chance to put anything in order.
    pub fn kill(&self) {
        reap(&mut self.child());
    }

    /// The exit code where the process has ended; a signal counts as 128 and its number.
    pub fn try_wait(&self) -> Result<Option<i32>> {
        let status = self.child().try_wait().with_context(|| format!("look at {}", self.name))?;
        Ok(status.map(exit_code))
    }

    /// Waits for the end and returns the exit code; fails with the output's tail where it takes longer than `limit`.
    pub fn wait(&self, limit: Duration) -> Result<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(code) = self.try_wait()? {
                return Ok(code);
            }
            if Instant::now() >= deadline {
                bail!("{} still runs after {limit:?}\n{}", self.name, self.tail());
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for the end and returns everything it left; kills it where it takes longer than `limit`.
    pub fn output(self, limit: Duration) -> Result<Output> {
        let code = self.wait(limit)?;
        Ok(Output { code, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Waits until a line of either output contains `text`, and returns that line.
    pub fn wait_for_line(&self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.try_wait()?;
            let written = [self.stdout(), self.stderr()];
            if let Some(line) = written.iter().flat_map(|output| output.lines()).find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if let Some(code) = ended {
                bail!("{} ended with exit code {code} and never said {text:?}\n{}", self.name, self.tail());
            }
            if Instant::now() >= deadline {
                bail!("{} did not say {text:?} in {limit:?}\n{}", self.name, self.tail());
            }
            thread::sleep(POLL);
        }
    }

    /// The last lines of both outputs, for a message about a failure.
    pub fn tail(&self) -> String {
        let mut text = String::new();
        for (label, output) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            let lines: Vec<&str> = output.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)) {
                let _infallible = writeln!(text, "  {} {label} | {line}", self.name);
            }
        }
        text
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The exit code as a shell gives it.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}
