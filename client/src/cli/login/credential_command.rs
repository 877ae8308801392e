//! A command that prints the password of a profile's user: bounded in time and size, and what it prints is in no log.
//! It ends with this program, however that ends.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use adit_program::exit::{Exit, Failure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use zeroize::Zeroizing;

/// Most bytes that it may print.
const MOST_BYTES: usize = 4096;
/// How long it may take: it may have to unlock something.
const WITHIN: Duration = Duration::from_secs(60);
/// Runs the command that stands behind it, with nothing to read. A watcher beside it ends all of the process group as
/// soon as this program is gone, which alone can write to where the watcher reads.
const WATCHED: &str = "exec 3<&0 </dev/null; (read -r _ <&3; kill -KILL 0) >/dev/null & exec 3<&-; \
                       /bin/sh -c \"$1\"; ended=$?; kill $!; exit $ended";
/// How often it is looked whether it has ended, once it prints no more.
const LOOK: Duration = Duration::from_millis(10);

/// The first line that a command prints. It runs in a shell, as the user of this program, with nothing to read.
pub(super) fn password_of(command: &str) -> Result<Zeroizing<String>, Failure> {
    run(command, WITHIN).map_err(|reason| {
        let next = "run the command by hand as this user, with `</dev/null`, and see what it says";
        // The service ends with that: it must not have a server or a person asked each second.
        Failure::new(Exit::AuthRefused, "credential command", reason, next)
    })
}

fn run(command: &str, within: Duration) -> Result<Zeroizing<String>, String> {
    let deadline = Instant::now() + within;
    let mut shell = Command::new("/bin/sh");
    // A group of its own, so that all of it can be ended.
    shell.args(["-c", WATCHED, "sh", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = shell.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
    let _watched = child.stdin.take();
    let printed = match child.stdout.take() {
        Some(output) => read(output, deadline).and_then(|printed| await_end(&mut child, deadline).map(|()| printed)),
        None => Err("its output cannot be read".to_owned()),
    };
    if printed.is_err() {
        end(&mut child);
    }
    let printed = printed?;
    let line = printed.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match str::from_utf8(line) {
        Ok("") => Err("it printed no password".to_owned()),
        Ok(line) => Ok(Zeroizing::new(line.to_owned())),
        Err(_) => Err("what it printed is no UTF-8 text".to_owned()),
    }
}

/// All that is printed.
fn read(mut output: ChildStdout, deadline: Instant) -> Result<Zeroizing<Vec<u8>>, String> {
    // Room that never moves, so that no copy of a secret is left behind.
    let (mut printed, mut length) = (Zeroizing::new(vec![0; MOST_BYTES + 1]), 0);
    loop {
        await_output(&output, deadline)?;
        match output.read(&mut printed[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) => return Err(format!("its output cannot be read: {error}")),
        }
        if length > MOST_BYTES {
            return Err(format!("it printed more than {MOST_BYTES} bytes"));
        }
    }
    printed.truncate(length);
    Ok(printed)
}

fn await_output(output: &ChildStdout, deadline: Instant) -> Result<(), String> {
    loop {
        let left = time_left(deadline)?;
        let mut polled = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(format!("its output cannot be read: {error}")),
        }
    }
}

fn await_end(child: &mut Child, deadline: Instant) -> Result<(), String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("it failed: {status}")),
            Ok(None) => {}
            Err(error) => return Err(format!("its end cannot be seen: {error}")),
        }
        time_left(deadline)?;
        thread::sleep(LOOK);
    }
}

fn time_left(deadline: Instant) -> Result<Duration, String> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err("it took too long".to_owned()) } else { Ok(left) }
}

/// Ends a command and all that it has started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    if let Ok(group) = group
        && let Err(error) = killpg(group, Signal::SIGKILL)
    {
        tracing::debug!(%error, "the credential command has ended already");
    }
    child.wait().ok();
}

#[cfg(test)]
mod tests {
    use std::ops::Not as _;

    use adit_testing::eventually;

    use super::*;

    #[test]
    fn first_line_is_the_password() {
        for (command, password) in
            [("printf 'a b'", "a b"), ("printf ' a \\r\\nsecond\\n'", " a "), ("echo p\u{e4}ss; true", "p\u{e4}ss")]
        {
            assert_eq!(password_of(command).unwrap().as_str(), password);
        }
    }

    #[test]
    fn command_that_fails_or_prints_nothing_or_nonsense_gives_none() {
        for (command, words) in [
            ("echo hush; exit 3", "it failed: exit status: 3"),
            ("true", "no password"),
            ("echo; echo hush", "no password"),
            ("printf '\\377'", "no UTF-8"),
            ("no-such-command-here", "exit status: 127"),
        ] {
            let failure = password_of(command).err().unwrap();
            assert!(failure.reason.contains(words), "{command}: {failure}");
            assert_eq!(failure.exit, Exit::AuthRefused, "the unit does not start it again");
            assert!(!failure.to_string().contains("hush"), "what it printed is a secret: {failure}");
        }
    }

    #[test]
    fn command_is_bounded_in_size_and_in_time_with_all_that_it_starts() {
        assert!(run("yes", WITHIN).err().unwrap().contains("more than 4096 bytes"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("child");
        let began = Instant::now();
        let slow = format!("sleep 600 & echo $! >'{}'; wait", file.display());
        assert_eq!(run(&slow, Duration::from_millis(500)).err().unwrap(), "it took too long");
        let silent = format!("exec >/dev/null; {slow}");
        assert_eq!(run(&silent, Duration::from_millis(500)).err().unwrap(), "it took too long");
        assert!(began.elapsed() < Duration::from_secs(60));
        let started = std::fs::read_to_string(&file).unwrap();
        eventually("what it started has ended, too", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", started.trim()));
            // Nobody may have waited for it yet.
            stat.is_ok_and(|stat| !stat.contains(") Z ")).not().then_some(())
        });
    }
}
