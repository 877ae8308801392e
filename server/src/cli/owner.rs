//! Whose rights a verb uses.
//!
//! The state of a gateway that runs as a service belongs to that service's user. Whatever root does in there, such as
//! opening a data base or obeying a journal, could be steered by that user, so root becomes that user first.

use std::fs;
use std::os::unix::fs::MetadataExt;

use adit_program::exit::{Exit, Failure};

use super::Verb;
use crate::config::{GATEWAY_USER, gateway_user};
use crate::directories::StateDir;

/// Becomes the user of a gateway's state, if this is root and that is the service's user.
pub(super) fn step_down(verb: &Verb, state_dir: &StateDir) -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    // A directory that is missing, or of somebody else, is refused by whoever opens a file in it.
    let (Some(user), Ok(found)) = (gateway_user(), fs::metadata(state_dir.path())) else { return Ok(()) };
    if user.uid.is_root() || found.uid() != user.uid.as_raw() {
        return Ok(());
    }
    let what = state_dir.path().display().to_string();
    if matches!(verb, Verb::Run(_)) {
        let reason = format!(
            "belongs to the user {GATEWAY_USER}, as whom the service runs; root would obey what that user wrote"
        );
        return Err(Failure::new(Exit::Usage, what, reason, "start the service: `systemctl start adit-server`"));
    }
    adit_host::become_user(user.uid.as_raw(), user.gid.as_raw()).map_err(|error| {
        let reason = format!("belongs to the user {GATEWAY_USER}, whom root could not become: {error}");
        let next = format!(
            "run this as that user: `setpriv --reuid {GATEWAY_USER} --regid {GATEWAY_USER} --init-groups adit-server …`"
        );
        Failure::new(Exit::Permission, what, reason, next)
    })
}
