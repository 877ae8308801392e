//! `cleanup` and `forget`.

use std::fs;

use adit_program::exit::{Exit, Failure};
use adit_program::output;

use super::lock::ClientLock;
use super::{ClientFiles, block};
use crate::host_plan::managed::journal_failure;
use crate::profile::{ProfileName, file_failure};

/// Whether a client that no longer runs left changes on this host.
pub(super) fn left_behind(files: &ClientFiles, name: &ProfileName) -> bool {
    let journal = fs::metadata(files.directories.journal(name));
    journal.is_ok_and(|journal| journal.len() > 0) && !ClientLock::is_held(&files.directories, name)
}

/// Undoes what crashed clients left; running ones keep their changes. One that cannot be mended does not stop the
/// others.
///
/// With `keep_closed` a kill switch stays closed.
pub(super) async fn cleanup(files: &ClientFiles, keep_closed: bool) -> Result<(), Failure> {
    let directory = &files.directories.state;
    let mut names =
        files.directories.journals().map_err(|error| file_failure(&directory.display().to_string(), &error))?;
    if !keep_closed {
        names.extend(closed_without_journal(&names));
    }
    if names.is_empty() {
        output::line("nothing to clean up");
    }
    let mut failed: Option<Failure> = None;
    for name in names {
        if ClientLock::is_held(&files.directories, &name) {
            output::line(&format!("{name}: running; nothing touched"));
            continue;
        }
        match recover(files, &name, keep_closed).await {
            Ok(undone) => {
                remove_socket(files, &name);
                output::line(&format!("{name}: {undone} changes of a crashed client undone"));
            }
            Err(failure) => failed.replace(failure).iter().for_each(output::failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Deletes a profile, and what its client may have left on this host.
pub(super) async fn forget(files: &ClientFiles, name: &ProfileName) -> Result<(), Failure> {
    if ClientLock::is_held(&files.directories, name) {
        let next = format!("end it first with `adit-client down {name}`");
        return Err(Failure::new(Exit::Usage, format!("profile {name}"), "a client is running with it", next));
    }
    if left_behind(files, name) || block::is_closed(name) {
        recover(files, name, false).await?;
    }
    files.store.remove(name)?;
    files.store.forget_login(name)?;
    files.store.forget_password(name)?;
    remove_socket(files, name);
    for file in [files.directories.log(name), files.directories.lock(name)] {
        // Either may be missing; neither holds anything of worth.
        fs::remove_file(file).ok();
    }
    output::line(&format!("{name}: forgotten on this host"));
    output::line("to keep the device out for good, revoke it: adit-server revoke DEVICE");
    Ok(())
}

/// Profiles whose kill switch is closed although nothing else is known of them.
fn closed_without_journal(known: &[ProfileName]) -> Vec<ProfileName> {
    let closed = adit_host::closed_kill_switches().unwrap_or_else(|error| {
        tracing::debug!(%error, "closed kill switches cannot be listed");
        Vec::new()
    });
    let names = closed.iter().filter_map(|name| name.parse().ok());
    names.filter(|name| !known.contains(name)).collect()
}

async fn recover(files: &ClientFiles, name: &ProfileName, keep_closed: bool) -> Result<usize, Failure> {
    let journal = files.directories.journal(name);
    let recovery = if keep_closed { adit_host::recover(&journal).await } else { adit_host::release(&journal).await };
    if !keep_closed {
        block::open(files, name).await?;
    }
    recovery.map(|recovery| recovery.undone).map_err(|error| journal_failure(&journal, &error))
}

/// Removes the control socket of a client that crashed, if there is one.
fn remove_socket(files: &ClientFiles, name: &ProfileName) {
    fs::remove_file(files.directories.socket(name)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_journal_with_content_and_no_living_client_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let files = ClientFiles::new(Some(&directory.path().to_owned()));
        files.directories.create_for_running().unwrap();
        let name: ProfileName = "home".parse().unwrap();
        assert!(!left_behind(&files, &name));
        fs::write(files.directories.journal(&name), "").unwrap();
        assert!(!left_behind(&files, &name));
        fs::write(files.directories.journal(&name), "entry\n").unwrap();
        assert!(left_behind(&files, &name));
        let _running = ClientLock::acquire(&files.directories, &name).unwrap();
        assert!(!left_behind(&files, &name));
    }
}
