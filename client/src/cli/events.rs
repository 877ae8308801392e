//! What a running client tells as it changes. `wait` and `status --follow` hear it over the client's control socket.

use adit_net::control::{self, CallError, Follower};
use adit_program::exit::{Exit, Failure};

use super::ClientFiles;
use super::status::misunderstood;
use super::tunnel::call_failure;
use crate::profile::ProfileName;
use crate::run::StatusEvent;

/// The path of the control socket at which a client tells its events.
pub(super) const EVENTS: &str = "/events";

/// The events of one client, of which the first says how it stands.
pub(super) struct ClientEvents {
    name: ProfileName,
    follower: Follower,
}

impl ClientEvents {
    /// Begins to hear a running client; `None` if none is running.
    pub(super) async fn of(files: &ClientFiles, name: &ProfileName) -> Result<Option<Self>, Failure> {
        match control::follow(&files.directories.socket(name), EVENTS).await {
            Ok(follower) => Ok(Some(Self { name: name.clone(), follower })),
            Err(CallError::NotRunning { .. }) => Ok(None),
            Err(error) => Err(call_failure(name, &error)),
        }
    }

    /// Waits for the next event; `None` once the client has ended.
    pub(super) async fn next(&mut self) -> Result<Option<StatusEvent>, Failure> {
        let Self { name, follower } = self;
        match follower.next().await {
            Ok(None) => Ok(None),
            Ok(Some(value)) => {
                serde_json::from_value(value).map(Some).map_err(|error| misunderstood(name, &error.to_string()))
            }
            Err(_) => {
                let reason = "it tells nothing more: it was killed, or what it told was not read for too long";
                let next = format!("`adit-client status {name}` says how it stands");
                Err(Failure::new(Exit::Other, format!("client {name}"), reason, next))
            }
        }
    }
}
