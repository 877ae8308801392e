//! Building a commit: in a worktree of its own that is gone afterwards, with the programs kept by commit.
//!
//! In `target/compare` of the repository, `COMMIT/` holds the programs, `COMMIT/source` the worktree while it is built,
//! and `build` what cargo made, which both builds and all later ones share.

use std::collections::VecDeque;
use std::env;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use adit_program::exit::{Exit, Failure};
use adit_program::file_lock::FileLock;
use adit_program::signals::Termination;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal as SignalNumber, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;

use super::git::{git, short};

/// The programs of a build, gateway first.
pub(super) const PROGRAMS: [&str; 2] = ["adit-server", "adit-client"];
/// Lines of a failed build that are shown.
const LAST_LINES: usize = 20;
/// Characters of a line that are shown while it builds.
const SHOWN: usize = 60;
/// Time a build gets to end once it is no longer wanted.
const GRACE: Duration = Duration::from_secs(5);
/// How often the lock of another comparison is tried.
const RETRY: Duration = Duration::from_millis(200);

/// The place where commits are built; signals end a build in order while it exists.
///
/// It has no thread, as the process must not have one when it enters a user namespace later.
pub(super) struct Workshop {
    repository: PathBuf,
    runtime: Runtime,
    termination: Termination,
}

impl Workshop {
    /// Opens it for the repository in a folder.
    pub(super) fn open(repository: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let termination = runtime.block_on(async { Termination::listen() }).context("listen for signals")?;
        Ok(Self { repository: repository.to_owned(), runtime, termination })
    }

    /// The folder with the programs of a commit, which are built unless they are there.
    pub(super) fn build(&mut self, given: &str, commit: &str, say: &dyn Fn(&str)) -> Result<PathBuf> {
        let place = self.repository.join("target/compare");
        let folder = place.join(commit);
        if is_built(&folder) {
            return Ok(folder);
        }
        fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        let _lock = self.lock(&place.join("lock"), say)?;
        if is_built(&folder) {
            return Ok(folder);
        }
        let _unfinished = Unfinished(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let started = Instant::now();
        say(&format!("builds {given} ({})", short(commit)));
        let worktree = Worktree::add(&self.repository, &folder.join("source"), commit)?;
        let products = place.join("build");
        self.cargo(given, commit, &worktree.path, &products)?;
        for program in PROGRAMS {
            keep(&products.join("release").join(program), &folder.join(program))?;
        }
        say(&format!("built {given} in {} s", started.elapsed().as_secs()));
        Ok(folder.clone())
    }

    /// Waits until no other comparison builds in the same place.
    fn lock(&mut self, path: &Path, say: &dyn Fn(&str)) -> Result<FileLock> {
        let mut is_told = false;
        loop {
            let file = File::create(path).with_context(|| format!("open {}", path.display()))?;
            if let Some(lock) = FileLock::try_lock(file).with_context(|| format!("lock {}", path.display()))? {
                return Ok(lock);
            }
            if !is_told {
                say("waits for another comparison that builds");
                is_told = true;
            }
            let termination = &mut self.termination;
            self.runtime.block_on(async {
                tokio::select! {
                    () = termination.wanted() => bail!("interrupted"),
                    () = tokio::time::sleep(RETRY) => Ok(()),
                }
            })?;
        }
    }

    /// Builds both programs in release mode.
    fn cargo(&mut self, given: &str, commit: &str, source: &Path, products: &Path) -> Result<()> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--release", "--locked"]).current_dir(source).arg("--target-dir").arg(products);
        command.args(PROGRAMS.iter().flat_map(|program| ["-p", program]));
        // In a group of its own, which ends as a whole.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let termination = &mut self.termination;
        let (status, lines) = self.runtime.block_on(async {
            let mut child = command.spawn().context("start cargo")?;
            tokio::select! {
                ended = follow(&mut child, given) => return ended,
                () = termination.wanted() => {}
            }
            end(&mut child).await;
            bail!("interrupted")
        })?;
        if status.success() {
            return Ok(());
        }
        let what = format!("cargo build of {given} ({})", short(commit));
        let reason = format!("{status}; it said last:\n{}", lines.join("\n"));
        Err(Failure::new(Exit::Other, what, reason, "mend that commit, or compare with another one").into())
    }
}

/// Reads what cargo says until it ends, and keeps the last lines.
async fn follow(child: &mut Child, given: &str) -> Result<(ExitStatus, Vec<String>)> {
    let terminal = io::stderr().is_terminal();
    let mut last = VecDeque::with_capacity(LAST_LINES);
    let mut lines = BufReader::new(child.stderr.take().context("cargo has a standard error")?).lines();
    while let Some(line) = lines.next_line().await.context("read what cargo says")? {
        if terminal {
            let shown: String = line.trim().chars().take(SHOWN).collect();
            // Whoever closed the output does not want to read it.
            let _closed = write!(io::stderr().lock(), "\r\x1b[K{given}: {shown}");
        }
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    if terminal {
        let _closed = write!(io::stderr().lock(), "\r\x1b[K");
    }
    Ok((child.wait().await.context("wait for cargo")?, last.into()))
}

/// Ends a build and all it started.
async fn end(child: &mut Child) {
    let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) else { return };
    // Whatever has ended already cannot be ended again.
    let _ended = killpg(group, SignalNumber::SIGTERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ended = killpg(group, SignalNumber::SIGKILL);
        let _status = child.wait().await;
    }
}

/// Copies a program so that a half copied one never has its name.
fn keep(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    fs::copy(from, &partial).with_context(|| format!("copy {}", from.display()))?;
    fs::rename(&partial, to).with_context(|| format!("name {}", to.display()))
}

/// Whether a folder holds the programs of its commit.
fn is_built(folder: &Path) -> bool {
    PROGRAMS.iter().all(|program| folder.join(program).is_file())
}

/// The folder of a commit, which goes when this is dropped before the programs are there.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !is_built(self.0) {
            // What is not there cannot be removed.
            let _absent = fs::remove_dir_all(self.0);
        }
    }
}

/// A worktree that goes when it is dropped.
struct Worktree {
    repository: PathBuf,
    path: PathBuf,
}

impl Worktree {
    fn add(repository: &Path, path: &Path, commit: &str) -> Result<Self> {
        // Before anything else, so that also half of one goes; and what a killed comparison left goes first.
        let worktree = Self { repository: repository.to_owned(), path: path.to_owned() };
        worktree.remove();
        let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        git(repository, &["worktree", "add", "--quiet", "--detach", "--force", text, commit]).map_err(|said| {
            Failure::new(Exit::Other, format!("git worktree add {text}"), said, "see what git says, and try again")
        })?;
        Ok(worktree)
    }

    fn remove(&self) {
        // What is not there cannot be removed.
        let _absent = fs::remove_dir_all(&self.path);
        let _message = git(&self.repository, &["worktree", "prune"]);
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        self.remove();
    }
}
