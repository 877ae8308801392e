//! `up --detach`: starts this program again in a session of its own and waits until it is connected.
//!
//! The detached process reports on its standard output: text, then one zero byte once connected. Without the zero byte
//! the text is a failure, and the exit code is the detached process's.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use clap::ValueEnum as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::lock::ClientLock;
use super::{ClientFiles, UpArgs, dir_flag};
use crate::profile::{ProfileName, file_failure};

/// Longest log that is kept, in bytes.
const LONGEST_LOG: u64 = 1024 * 1024;
/// Ends the report of a detached process that is connected.
const READY: u8 = 0;

/// Starts the detached process and waits for its report.
pub(super) fn spawn(files: &ClientFiles, args: &UpArgs, dir: Option<&Path>) -> Result<ExitCode, Failure> {
    let name = files.choose(&args.profile)?;
    files.store.load(&name)?;
    files.directories.create_for_running()?;
    // Not held on: the detached process takes it. But a running client's log must stay its own.
    drop(ClientLock::acquire(&files.directories, &name)?);
    let mut child = start(files, args, dir, &name)?;
    let report = read_report(&mut child)?;
    match report.strip_suffix(&[READY]) {
        Some(text) => {
            output::raw(&String::from_utf8_lossy(text));
            output::line(&format!("log: {}", files.directories.log(&name).display()));
            output::line(&format!("end it with: adit-client{} down {name}", dir_flag(files)));
            Ok(Exit::Ok.into())
        }
        None => {
            output::raw_error(&String::from_utf8_lossy(&report));
            let status = child.wait().map_err(|error| start_failure(&error))?;
            Ok(exit_code(status))
        }
    }
}

fn start(files: &ClientFiles, args: &UpArgs, dir: Option<&Path>, name: &ProfileName) -> Result<Child, Failure> {
    let path = files.directories.log(name);
    let log = open_log(&path).map_err(|error| file_failure(&path.display().to_string(), &error))?;
    let program = std::env::current_exe().map_err(|error| start_failure(&error))?;
    let mut command = Command::new(program);
    if let Some(dir) = dir {
        command.arg("--dir").arg(dir);
    }
    command.args(["up", "--detached", name.as_str(), "--timeout"]);
    command.arg(humantime::format_duration(args.connection.timeout).to_string());
    if let Some(tun) = &args.connection.tun {
        command.args(["--tun", tun]);
    }
    if let Some(carrier) = args.connection.carrier.to_possible_value() {
        command.args(["--carrier", carrier.get_name()]);
    }
    if let Some(wanted) = args.connection.kill_switch {
        command.args(["--kill-switch", if wanted { "true" } else { "false" }]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command.spawn().map_err(|error| start_failure(&error))
}

/// Opens a log to add to it; one that has grown long begins anew.
fn open_log(path: &Path) -> io::Result<File> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    if log.metadata()?.len() > LONGEST_LOG {
        log.set_len(0)?;
    }
    Ok(log)
}

/// Reads up to the zero byte, or to the end if the process ends before.
fn read_report(child: &mut Child) -> Result<Vec<u8>, Failure> {
    let mut report = Vec::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_until(READY, &mut report).map_err(|error| start_failure(&error))?;
    }
    Ok(report)
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or_else(|| Exit::Other.into(), ExitCode::from)
}

fn start_failure(error: &io::Error) -> Failure {
    Failure::new(Exit::Other, "start the detached client", error.to_string(), "try without `--detach`")
}

/// Leaves the terminal's session, so that its end does not end the client. For the detached process.
///
/// Until [`report_ready`], the end of the waiting process (Ctrl-C, say) ends this one, by a signal it obeys.
pub(super) fn leave_terminal() -> Result<(), Failure> {
    nix::unistd::setsid().map_err(|error| start_failure(&error.into()))?;
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(|error| start_failure(&error.into()))?;
    if nobody_waits() {
        return Err(start_failure(&io::ErrorKind::BrokenPipe.into()));
    }
    Ok(())
}

/// Whether the waiting process has ended already: then nobody reads our standard output.
fn nobody_waits() -> bool {
    let out = io::stdout();
    let mut polled = [PollFd::new(out.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Tells the waiting process that the client is connected. For the detached process, on the thread of
/// [`leave_terminal`].
pub(super) fn report_ready() {
    if let Err(error) = prctl::set_pdeathsig(None) {
        tracing::warn!(%error, "this client may end with the process that started it");
    }
    output::raw("\0");
}

/// Tells the waiting process why the client failed. For the detached process.
pub(super) fn report_failure(failure: &Failure) {
    output::raw(&format!("error: {failure}\n"));
}
