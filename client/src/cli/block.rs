//! The kill switch without a client: `block` closes it, and others ask whether it is closed.

use adit_host::{HostChanges, HostError};
use adit_program::causes::with_causes;
use adit_program::exit::{Exit, Failure};
use adit_program::output;
use adit_program::rights::Capability;

use super::lock::ClientLock;
use super::{ClientFiles, dir_flag};
use crate::host_plan::managed::{Closing, journal_failure};
use crate::profile::ProfileName;

/// Closes this host for what belongs in the profile's tunnel, until its client is up, or `down` opens it again.
pub(super) async fn block(files: &ClientFiles, name: &ProfileName) -> Result<(), Failure> {
    let profile = files.store.load(name)?;
    if profile.kill_switch == Some(false) {
        let next = "remove `kill_switch = false` from the profile, or do without `block`";
        return Err(Failure::new(Exit::Usage, format!("profile {name}"), "it does without a kill switch", next));
    }
    files.directories.create_for_running()?;
    let _lock = ClientLock::acquire(&files.directories, name)?;
    let journal = files.directories.journal(name);
    let mut changes = HostChanges::open(&journal).await.map_err(|error| journal_failure(&journal, &error))?;
    let closed = Closing::of(&profile, Some(true)).begin(&mut changes).await;
    closed.map_err(|error| journal_failure(&journal, &error))?;
    let flag = dir_flag(files);
    output::line(&format!("{name}: blocked; next: adit-client{flag} up {name}, or adit-client{flag} down {name}"));
    Ok(())
}

/// Whether the profile's kill switch is closed, as far as this user may know.
pub(super) fn is_closed(name: &ProfileName) -> bool {
    adit_host::closed_kill_switches().is_ok_and(|closed| closed.iter().any(|profile| profile == name.as_str()))
}

/// Fails unless the profile's kill switch is closed, and this user may see that.
pub(super) fn must_be_closed(name: &ProfileName) -> Result<(), Failure> {
    let what = || format!("kill switch of {name}");
    match adit_host::closed_kill_switches() {
        Ok(closed) if closed.iter().any(|profile| profile == name.as_str()) => Ok(()),
        Ok(_) => {
            let next = "start the program as ever: nothing keeps it in";
            Err(Failure::new(Exit::Usage, what(), "it is open", next))
        }
        Err(error) if error.is_permission_denied() => {
            Err(Failure::new(Exit::Permission, what(), with_causes(&error), Capability::NetAdmin.next_step()))
        }
        Err(error) => Err(Failure::new(Exit::Other, what(), with_causes(&error), "")),
    }
}

/// Opens the kill switch of a client that no longer runs, and undoes what else it left; returns whether it was closed.
/// Who may not see whether it is must not hear that all is well.
pub(super) async fn open(files: &ClientFiles, name: &ProfileName) -> Result<bool, Failure> {
    match adit_host::closed_kill_switches() {
        Ok(closed) if closed.iter().any(|profile| profile == name.as_str()) => {}
        Err(error) if error.is_permission_denied() => return Err(hidden(name, &error)),
        Ok(_) | Err(_) => return Ok(false),
    }
    let journal = files.directories.journal(name);
    let released = adit_host::release(&journal).await;
    // The journal may have been lost, or hold something that cannot be undone: the host is opened all the same.
    adit_host::open_kill_switch(name.as_str()).map_err(|error| journal_failure(&journal, &error))?;
    released.map_err(|error| journal_failure(&journal, &error))?;
    Ok(true)
}

fn hidden(name: &ProfileName, error: &HostError) -> Failure {
    let reason = format!("not running; whether this host is closed cannot be seen: {}", with_causes(error));
    Failure::new(Exit::Permission, format!("client {name}"), reason, Capability::NetAdmin.next_step())
}

/// Adds to a failure that this host stays closed, if it does.
pub(super) fn staying_closed(files: &ClientFiles, name: &ProfileName, mut failure: Failure) -> Failure {
    if is_closed(name) {
        let semicolon = if failure.next.is_empty() { "" } else { "; " };
        let open = format!("this host stays closed until then, or until `adit-client{} down {name}`", dir_flag(files));
        failure.next = format!("{}{semicolon}{open}", failure.next);
    }
    failure
}
