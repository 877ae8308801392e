//! Starts the program that is let out, and ends it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use adit_program::random::random;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Gid, Group, Pid, Uid, User, geteuid, getgid, getuid};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// The numbers that systemd gives to users and groups of services for as long as they run: no system has lasting ones
/// there.
const PASSING: std::ops::RangeInclusive<u32> = 61_184..=65_519;
/// How often a group is looked for that nobody has.
const MOST_TRIES: usize = 64;
/// How long the program may take to end when it is asked to.
const GOODBYE: Duration = Duration::from_secs(5);

/// How often it is looked whether all of it has ended.
const LOOK: Duration = Duration::from_millis(50);

/// The program, which runs, with all that it starts and that stays in its session.
pub(super) struct Launched {
    child: Child,
    session: Option<Pid>,
}

impl Launched {
    /// Starts it as who called this program, in the group; what it asks for names stands in the file.
    pub(super) fn start(group: u32, resolver_file: &Path, program: &[OsString]) -> Result<Self, Failure> {
        let (user, own_group) = caller();
        if user.is_root() {
            output::note("called by no other user, so the program runs as root");
        }
        let own = std::env::current_exe().map_err(|error| not_started(&error))?;
        let mut command = Command::new(own);
        command.arg("portal-program");
        for (flag, number) in [("--user", user.as_raw()), ("--own-group", own_group.as_raw()), ("--group", group)] {
            command.arg(flag).arg(number.to_string());
        }
        command.arg("--resolver-file").arg(resolver_file).arg("--").args(program);
        let child = command.spawn().map_err(|error| not_started(&error))?;
        let session = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self { child, session })
    }

    /// Waits for its end, and says its exit code, if it was not killed. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Option<i32> {
        match self.child.wait().await {
            Ok(status) => status.code(),
            Err(error) => {
                tracing::debug!(%error, "the program's end cannot be seen");
                None
            }
        }
    }

    /// Asks all of it to end, and sees to that.
    pub(super) async fn end(mut self) {
        self.send(Signal::SIGTERM);
        if timeout(GOODBYE, self.all_ended()).await.is_err() {
            self.send(Signal::SIGKILL);
            self.ended().await;
        }
    }

    async fn all_ended(&mut self) {
        self.ended().await;
        // Nothing is left that a signal could reach.
        while self.session.is_some_and(|session| killpg(session, None).is_ok()) {
            sleep(LOOK).await;
        }
    }

    /// Sends a signal to the program, and to what it has started.
    fn send(&self, signal: Signal) {
        let Some(session) = self.session else { return };
        // One that has only just started has no session of its own yet, and has started nothing.
        let sent = killpg(session, signal)
            .or_else(|error| if self.child.id().is_some() { kill(session, signal) } else { Err(error) });
        if let Err(error) = sent {
            tracing::debug!(%error, "the program has ended already");
        }
    }
}

/// A group that nobody is in, by name, and no process by its number: neither a service in a container without names of
/// its own, nor what an earlier program has left behind.
pub(super) fn unused_group() -> Result<u32, Failure> {
    let in_use = groups_in_use(Path::new("/proc"));
    let room = PASSING.end() - PASSING.start() + 1;
    for _ in 0..MOST_TRIES {
        let number = random().map(u32::from_ne_bytes).map_err(|error| not_started(&io::Error::other(error)))?;
        let group = PASSING.start() + number % room;
        if !in_use.contains(&group) && matches!(Group::from_gid(Gid::from_raw(group)), Ok(None)) {
            return Ok(group);
        }
    }
    Err(not_started(&io::Error::other("there is no group that nobody is in")))
}

/// The groups that processes act in, or may: those of `Gid` and `Groups` in their `status` (`proc_pid_status(5)`).
fn groups_in_use(processes: &Path) -> BTreeSet<u32> {
    let folders = fs::read_dir(processes).into_iter().flatten().flatten();
    // One that has ended meanwhile is in no group any more.
    let texts = folders.filter_map(|folder| fs::read(folder.path().join("status")).ok());
    let mut in_use = BTreeSet::new();
    for text in texts {
        let text = String::from_utf8_lossy(&text);
        let lists = text.lines().filter_map(|line| line.strip_prefix("Gid:").or_else(|| line.strip_prefix("Groups:")));
        in_use.extend(lists.flat_map(str::split_whitespace).filter_map(|number| number.parse::<u32>().ok()));
    }
    in_use
}

/// Who called this program: behind `sudo`, `pkexec` or `doas` another than root, if that user is known.
fn caller() -> (Uid, Gid) {
    let own = (getuid(), getgid());
    if !geteuid().is_root() {
        return own;
    }
    let number = |variable: &str| std::env::var(variable).ok()?.parse().ok().filter(|number: &u32| *number != 0);
    let by_number = ["SUDO_UID", "PKEXEC_UID"].into_iter().find_map(number);
    let by_name = || User::from_name(&std::env::var("DOAS_USER").ok()?).ok().flatten();
    let user = by_number.map(Uid::from_raw);
    let known = user.map_or_else(by_name, |user| User::from_uid(user).ok().flatten());
    match (user, known) {
        (_, Some(known)) => (known.uid, known.gid),
        // A user that is in no file, as in a container.
        (Some(user), None) => (user, Gid::from_raw(number("SUDO_GID").unwrap_or(user.as_raw()))),
        (None, None) => own,
    }
}

/// Writes a file that everybody may read.
pub(super) fn write_for_all(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(path)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())
}

fn not_started(error: &io::Error) -> Failure {
    Failure::new(Exit::Other, "start the program", error.to_string(), "run this command as root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_of_the_program_is_one_that_nobody_is_in() {
        let group = unused_group().unwrap();
        assert!(PASSING.contains(&group) && Group::from_gid(Gid::from_raw(group)).unwrap().is_none());
        let in_use = groups_in_use(Path::new("/proc"));
        assert!(in_use.contains(&getgid().as_raw()) && !in_use.contains(&group), "{group} of {in_use:?}");
    }

    #[test]
    fn group_is_in_use_that_any_process_is_in_by_whichever_right() {
        let processes = tempfile::tempdir().unwrap();
        let status = |process: &str, text: &str| {
            fs::create_dir(processes.path().join(process)).unwrap();
            fs::write(processes.path().join(process).join("status"), text).unwrap();
        };
        status(
            "1",
            "Name:\tinit\nUid:\t7\t7\t7\t7\nGid:\t0\t61184\t0\t61185\nNgid:\t8\nGroups:\t4 61186 \nVmPeak:\t9 kB\n",
        );
        status("2", "Name:\tpast\nGid:\t61187\t61187\t61187\t61187\nGroups:\t\n");
        fs::create_dir(processes.path().join("sys")).unwrap();
        assert_eq!(groups_in_use(processes.path()), [0, 4, 61_184, 61_185, 61_186, 61_187].into());
    }
}
