//! `up` and `down`.

use std::time::{Duration, Instant};

use adit_net::control::{self, CallError};
use adit_program::causes::with_causes;
use adit_program::exit::{Exit, Failure};
use adit_program::output;
use serde_json::Value;

use super::lock::ClientLock;
use super::session::{self, UpOptions};
use super::{Carrier, ClientFiles, UpArgs, block, detach, login};
use crate::profile::{GatewayProtocol, Profile, ProfileName};
use crate::run::Status;

/// How long a client may take to say goodbye and undo its changes.
const DOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often `down` looks whether the client has gone.
const DOWN_POLL: Duration = Duration::from_millis(20);

/// Connects, and returns when the session has ended.
pub(super) async fn up(files: &ClientFiles, args: UpArgs) -> Result<(), Failure> {
    let name = files.choose(&args.profile)?;
    let profile = files.store.load(&name)?;
    if args.detached {
        detach::leave_terminal()?;
    }
    // Keys are in memory from here on: no core dump, no debugger of the same user.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::debug!(%error, "core dumps stay allowed");
    }
    let outcome = match profile.protocol {
        GatewayProtocol::ConnectIp => run(files, &args, profile).await,
        GatewayProtocol::AnyConnect => run_with_login(files, &args, profile).await,
    };
    outcome.map_err(|failure| block::staying_closed(files, &name, failure))
}

/// Connects to an AnyConnect gateway, with the login of before if that is still good, or after a new one.
async fn run_with_login(files: &ClientFiles, args: &UpArgs, profile: Profile) -> Result<(), Failure> {
    let flag = match args.connection.carrier {
        Carrier::Auto | Carrier::Tls => None,
        Carrier::Esp => Some("--carrier esp"),
        Carrier::Quic => Some("--carrier quic"),
    };
    if let Some(flag) = flag {
        let next = "leave it out, or give `tls`";
        return Err(Failure::new(Exit::Usage, flag, "an AnyConnect gateway has no such carrier", next));
    }
    // Without a terminal there is nobody to ask; whoever started the detached process has asked.
    let is_old = args.detached || login::ensure(files, &profile).await?;
    let mut outcome = run(files, args, profile.clone()).await;
    if is_old && !args.detached && matches!(&outcome, Err(failure) if failure.exit == Exit::AuthRefused) {
        login::log_in_anew(files, &profile).await?;
        outcome = run(files, args, profile.clone()).await;
    }
    if outcome.is_ok() {
        // Whoever ended the session wants the login to end, too; the gateway knows if it heard the farewell.
        files.store.forget_login(&profile.name)?;
    }
    outcome
}

async fn run(files: &ClientFiles, args: &UpArgs, profile: Profile) -> Result<(), Failure> {
    let detached = args.detached;
    let on_connected = move |status: &Status| {
        output::line(&connected_line(status));
        if detached {
            detach::report_ready();
        } else {
            output::line("Ctrl-C ends the connection");
        }
    };
    session::up(UpOptions {
        profile,
        directories: files.directories.clone(),
        tun: args.connection.tun.clone(),
        carrier: args.connection.carrier,
        kill_switch: args.connection.kill_switch,
        patience: (!args.connection.timeout.is_zero()).then_some(args.connection.timeout),
        on_connected: Box::new(on_connected),
    })
    .await
}

fn connected_line(status: &Status) -> String {
    let addresses: Vec<String> = status.addresses.iter().map(|address| address.addr().to_string()).collect();
    let scope = if status.routes.iter().any(|route| route.prefix_len() == 0) { "all traffic" } else { "some traffic" };
    let device = status.tun.as_deref().unwrap_or("no device");
    format!("connected to {} as {}; {scope} goes through {device}", status.gateway, addresses.join(" and "))
}

/// Ends a running client and waits until it has gone.
pub(super) async fn down(files: &ClientFiles, name: &ProfileName) -> Result<(), Failure> {
    match control::call(&files.directories.socket(name), "POST", "/down", &Value::Null).await {
        Ok(_) => wait_until_gone(files, name).await?,
        Err(CallError::NotRunning { .. }) if ClientLock::is_held(&files.directories, name) => {
            let next = "wait a moment and try again, or send the process SIGTERM";
            return Err(Failure::new(Exit::Other, format!("client {name}"), "it runs but does not listen", next));
        }
        Err(CallError::NotRunning { .. }) => {
            if block::open(files, name).await? {
                output::line(&format!("{name}: not running; this host was closed, and is open now"));
                return Ok(());
            }
            output::line(&format!("{name}: not running"));
            if super::cleanup::left_behind(files, name) {
                output::line("a crashed client left changes on this host; undo them with `adit-client cleanup`");
            }
            return Ok(());
        }
        Err(error) => return Err(call_failure(name, &error)),
    }
    output::line(&format!("{name}: disconnected"));
    Ok(())
}

async fn wait_until_gone(files: &ClientFiles, name: &ProfileName) -> Result<(), Failure> {
    let deadline = Instant::now() + DOWN_TIMEOUT;
    while ClientLock::is_held(&files.directories, name) {
        if Instant::now() >= deadline {
            let reason = "it has not ended within 10 s";
            let next = "see its log; if it hangs, kill it and run `adit-client cleanup`";
            return Err(Failure::new(Exit::TimedOut, format!("client {name}"), reason, next));
        }
        tokio::time::sleep(DOWN_POLL).await;
    }
    Ok(())
}

/// The failure of a call to a running client.
pub(super) fn call_failure(name: &ProfileName, error: &CallError) -> Failure {
    let what = format!("client {name}");
    match error {
        CallError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::Permission, what, "permission denied", "run as the user who started it, or as root")
        }
        CallError::NotRunning { .. } | CallError::Refused { .. } | CallError::Io { .. } => {
            Failure::new(Exit::Other, what, with_causes(error), "")
        }
    }
}
