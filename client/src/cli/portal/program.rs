//! What becomes the program that is let out: takes its user's rights and its group, and asks the network's resolvers.
//!
//! The C library and others read `/etc/resolv.conf`, or ask a service of this host, which is kept in by the kill
//! switch. So the program sees the host's files with another such file, and without the doors to those services.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_program::exit::{Exit, Failure};
use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, getgrouplist, setgroups, setresgid, setresuid, setsid};

use super::environment::{RUNTIME, environment};
use super::launch::write_for_all;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved and nscd answer for this host.
const SERVICES: [&str; 2] = ["/run/systemd/resolve", "/run/nscd"];

#[derive(Debug, Args)]
pub(in crate::cli) struct ProgramArgs {
    /// The user to become
    #[arg(long)]
    user: u32,
    /// That user's group
    #[arg(long)]
    own_group: u32,
    /// The group that is let out
    #[arg(long)]
    group: u32,
    /// What the program finds as /etc/resolv.conf
    #[arg(long)]
    resolver_file: PathBuf,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Becomes the program; returns only if that fails. To be called on the process's first thread.
pub(in crate::cli) fn become_program(args: &ProgramArgs) -> Failure {
    let known = User::from_uid(Uid::from_raw(args.user)).ok().flatten();
    if let Err(error) = show_resolvers(&args.resolver_file) {
        return refused("give the program its resolvers", &error);
    }
    if let Err(error) = take_rights(args, known.as_ref()) {
        return refused("give the program its user's rights", &error);
    }
    let Some((program, arguments)) = args.program.split_first() else {
        return Failure::new(Exit::Usage, "portal", "no program is given", "name one behind `--`");
    };
    let mut command = Command::new(program);
    let environment = environment(args.user, known.as_ref(), Path::new(RUNTIME), std::env::vars_os());
    command.args(arguments).env_clear().envs(environment);
    let error = command.exec();
    let next = "check its name, or give its path";
    Failure::new(Exit::Usage, program.display().to_string(), format!("it cannot be started: {error}"), next)
}

/// Mounts what the program shall see of the resolver over what the host has, for this process and its children alone.
fn show_resolvers(file: &Path) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    let target = fs::canonicalize(RESOLV_CONF)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some(file), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    for service in SERVICES.into_iter().filter(|service| Path::new(service).is_dir()) {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("none"), service, Some("tmpfs"), flags, Some("mode=755"))?;
        if target.starts_with(service) {
            // It was covered up just now.
            write_for_all(&target, &text)?;
        }
    }
    Ok(())
}

/// Becomes the user, in all its groups and the one that is let out, which is the group of its sockets.
fn take_rights(args: &ProgramArgs, known: Option<&User>) -> io::Result<()> {
    let (user, own_group, group) = (Uid::from_raw(args.user), Gid::from_raw(args.own_group), Gid::from_raw(args.group));
    let name = known.and_then(|known| CString::new(known.name.as_str()).ok());
    let mut groups = name.map_or_else(|| Ok(vec![own_group]), |name| getgrouplist(&name, own_group))?;
    groups.push(group);
    setgroups(&groups)?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    // What the caller types is for the caller's programs: who shares a terminal with them may be able to type, too.
    setsid()?;
    // Whoever lets it out ends with this process, or the other way round.
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    Ok(())
}

fn refused(doing: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Failure::new(Exit::Permission, doing, error.to_string(), "run the command as root");
    }
    Failure::new(Exit::Other, doing, error.to_string(), "")
}
