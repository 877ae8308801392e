//! `cleanup` and `forget`.

use std::fs;

use adit_program::exit::{Exit, Failure};
use adit_program::output;

use super::Place;
use super::lock::ClientLock;
use crate::host_plan::managed::journal_failure;
use crate::profile::{ProfileName, file_failure};

/// Whether a client that no longer runs left changes on this host.
pub(super) fn left_behind(place: &Place, name: &ProfileName) -> bool {
    let journal = fs::metadata(place.directories.journal(name));
    journal.is_ok_and(|journal| journal.len() > 0) && !ClientLock::is_held(&place.directories, name)
}

/// Undoes what crashed clients left; running ones keep their changes. One that cannot be mended does not stop the
/// others.
pub(super) async fn cleanup(place: &Place) -> Result<(), Failure> {
    let directory = &place.directories.state;
    let names = place.directories.journals().map_err(|error| file_failure(&directory.display().to_string(), &error))?;
    if names.is_empty() {
        output::line("nothing to clean up");
    }
    let mut failed: Option<Failure> = None;
    for name in names {
        if ClientLock::is_held(&place.directories, &name) {
            output::line(&format!("{name}: running; nothing touched"));
            continue;
        }
        match recover(place, &name).await {
            Ok(undone) => {
                remove_socket(place, &name);
                output::line(&format!("{name}: {undone} changes of a crashed client undone"));
            }
            Err(failure) => failed.replace(failure).iter().for_each(output::failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Deletes a profile, and what its client may have left on this host.
pub(super) async fn forget(place: &Place, name: &ProfileName) -> Result<(), Failure> {
    if ClientLock::is_held(&place.directories, name) {
        let next = format!("end it first with `adit-client down {name}`");
        return Err(Failure::new(Exit::Usage, format!("profile {name}"), "a client is running with it", next));
    }
    if left_behind(place, name) {
        recover(place, name).await?;
    }
    place.store.remove(name)?;
    remove_socket(place, name);
    for file in [place.directories.log(name), place.directories.lock(name)] {
        // Either may be missing; neither holds anything of worth.
        fs::remove_file(file).ok();
    }
    output::line(&format!("{name}: forgotten on this host"));
    output::line("to keep the device out for good, revoke it: adit-server revoke DEVICE");
    Ok(())
}

async fn recover(place: &Place, name: &ProfileName) -> Result<usize, Failure> {
    let journal = place.directories.journal(name);
    let recovery = adit_host::recover(&journal).await;
    recovery.map(|recovery| recovery.undone).map_err(|error| journal_failure(&journal, &error))
}

/// Removes the control socket of a client that crashed, if there is one.
fn remove_socket(place: &Place, name: &ProfileName) {
    fs::remove_file(place.directories.socket(name)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_journal_with_content_and_no_living_client_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(Some(&directory.path().to_owned()));
        place.directories.create_for_running().unwrap();
        let name: ProfileName = "home".parse().unwrap();
        assert!(!left_behind(&place, &name));
        fs::write(place.directories.journal(&name), "").unwrap();
        assert!(!left_behind(&place, &name));
        fs::write(place.directories.journal(&name), "entry\n").unwrap();
        assert!(left_behind(&place, &name));
        let _running = ClientLock::acquire(&place.directories, &name).unwrap();
        assert!(!left_behind(&place, &name));
    }
}
