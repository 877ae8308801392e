//! One way to ask: the running gateway over its socket, or else the same verb on the store of the stopped one.

use std::io::ErrorKind;
use std::sync::Arc;

use adit_net::control::{CallError, call};
use adit_program::exit::{Exit, Failure};
use adit_program::rights::to_reach_files_of;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::small_runtime;
use crate::accounts::sqlite::{HostClock, Store};
use crate::admin::{Admin, AdminRefusal};
use crate::config::Config;
use crate::identity::Authority;

/// Asks the gateway, running or stopped.
pub(super) fn ask(config: &Config, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    match ask_running(config, method, path, body)? {
        Some(answer) => Ok(answer),
        None => ask_stopped(config, method, path, body),
    }
}

/// Asks the running gateway; `None` when none runs.
pub(super) fn ask_running(config: &Config, method: &str, path: &str, body: &Value) -> Result<Option<Value>, Failure> {
    let socket = config.runtime_dir.socket();
    match small_runtime()?.block_on(call(&socket, method, path, body)) {
        Ok(answer) => Ok(Some(answer)),
        Err(CallError::NotRunning { .. }) => Ok(None),
        Err(CallError::Refused { status, message }) => Err(refusal(AdminRefusal { status, message })),
        Err(CallError::Io { source: error, .. }) => {
            let what = socket.display().to_string();
            let (exit, next) = if error.kind() == ErrorKind::PermissionDenied {
                (Exit::Permission, to_reach_files_of("root or as the gateway's user"))
            } else if error.kind() == ErrorKind::TimedOut {
                (Exit::TimedOut, "look at the gateway's log".to_owned())
            } else {
                (Exit::Other, "look at the gateway's log".to_owned())
            };
            Err(Failure::new(exit, what, error.to_string(), next))
        }
    }
}

fn ask_stopped(config: &Config, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    let path_of_store = config.state_dir.store();
    let store = Store::open(&path_of_store).map_err(|error| Store::failure(&path_of_store, error))?;
    let authority = Authority::load(&config.state_dir).map_err(|error| error.into_failure())?;
    let admin = Admin::offline(Arc::new(store), Arc::new(authority), Arc::new(config.clone()));
    admin.perform(method, path, body, HostClock).map_err(refusal)
}

/// The failure of there being no running gateway.
pub(super) fn not_running(config: &Config) -> Failure {
    let what = config.runtime_dir.socket().display().to_string();
    let next =
        format!("start it: `systemctl start adit-server`, or `adit-server run --config {}`", config.path.display());
    Failure::new(Exit::Unreachable, what, "the gateway is not running", next)
}

/// Reads an answer of the gateway, which another version may have written.
pub(super) fn decode<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        let next = "run the adit-server of the same version as the running gateway";
        Failure::new(Exit::Other, "answer of the gateway", error.to_string(), next)
    })
}

fn refusal(refused: AdminRefusal) -> Failure {
    let (exit, next) = match refused.status {
        400 => (Exit::Usage, "see `adit-server --help`"),
        403 => (Exit::AuthRefused, "try again with the code that is shown now"),
        404 => (Exit::Other, "`adit-server users` and `adit-server devices` list what there is"),
        409 => (Exit::Unreachable, "start it: `systemctl start adit-server`, or `adit-server run`"),
        _ => (Exit::Other, "look at the gateway's log and at the disk of its state directory"),
    };
    Failure::new(exit, "gateway", refused.message, next)
}
