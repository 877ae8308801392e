//! `adit-server init`, `run` and `cleanup`.

use std::path::Path;

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use adit_program::rights::to_reach_files_of;
use serde_json::json;

use super::log::LogFlags;
use super::{InitFlags, Place, Refusal, Wishes, columns, now, small_runtime};
use crate::cleanup::clean_up;
use crate::config::{Config, guard, state_dir_of};
use crate::init::{Made, init as make};
use crate::run::{AsRead, RAISE_LIMITS};

/// Exists while systemd manages this host (sd_booted(3)).
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// Makes a new gateway and says what was made and what comes next.
pub(super) fn init(place: &Place, flags: InitFlags) -> Result<(), Refusal> {
    let wishes =
        Wishes { config: place.config.clone(), directory: flags.dir, public: flags.public, listen: flags.listen };
    let made = make(&wishes, now())?;
    if place.json {
        output::json(&json!(made));
        return Ok(());
    }
    output::line(&report(place, &made));
    Ok(())
}

fn report(place: &Place, made: &Made) -> String {
    let listen: Vec<String> = made.listen.iter().map(ToString::to_string).collect();
    let facts = columns::aligned(&[
        ("configuration", made.config.display().to_string()),
        ("keys and store", made.state_dir.path().display().to_string()),
        ("public address", made.public.join(", ")),
        ("listen", listen.join(", ")),
        ("IPv4 pool", made.pool_v4.to_string()),
        ("IPv6 pool", made.pool_v6.to_string()),
        ("DNS for clients", dns_servers(made)),
        ("authority's pin", made.pin.clone()),
    ]);
    let mut text = format!("Made a gateway.\n\n{facts}\n");
    if made.detected {
        text.push_str(
            "\nThe public address was found on this host. If clients reach the gateway under another, \
             edit `public` in the configuration.\n",
        );
    }
    if made.dns_servers.is_empty() {
        text.push_str(&format!(
            "\nNo resolver of this host can serve clients, so they keep their own. A client whose resolver is in its local network \
             will not reach it through the tunnel: set `dns.servers` in the configuration. A resolver that runs on this host \
             serves clients if it listens at the gateway's address in the pool ({}), too.\n",
            made.pool_v4.hosts().next().unwrap_or_else(|| made.pool_v4.addr())
        ));
    }
    let flag = place.flag_for(&made.config);
    let managed = flag.is_empty() && Path::new(SYSTEMD_RUNS).is_dir();
    let start =
        if managed { "systemctl enable --now adit-server".to_owned() } else { format!("adit-server run{flag}") };
    text.push_str(&format!("\nNext:\n\n  {start}\n  adit-server invite NAME{flag}"));
    text
}

fn dns_servers(made: &Made) -> String {
    if made.dns_servers.is_empty() {
        return "none".to_owned();
    }
    made.dns_servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Runs the gateway.
pub(super) fn run(place: &Place, flags: &LogFlags) -> Result<(), Refusal> {
    let source = flags.on_top_of(place.source());
    let config = Config::load(&source)?;
    let values = Config::values(&source)?;
    let log = flags.start(&config).map_err(|reason| Failure::new(Exit::Other, "the log", reason, "try again"))?;
    config.runtime_dir.create().map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let (exit, next) = if denied {
            (Exit::Permission, format!("{}; or set runtime_dir", to_reach_files_of("root or as the gateway's user")))
        } else {
            (Exit::Other, "mend that, or set runtime_dir".to_owned())
        };
        let what = config.runtime_dir.path().display().to_string();
        Failure::new(exit, what, format!("cannot be made: {error}"), next)
    })?;
    // Whoever could write there could answer in the gateway's place.
    guard().check_directory(config.runtime_dir.path()).map_err(Failure::from)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers.quic_threads())
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Other, "runtime", error.to_string(), RAISE_LIMITS))?;
    Ok(runtime.block_on(crate::run::run(config, AsRead { source, values, log }))?)
}

/// Undoes what a crashed gateway left, whatever state the configuration is in: a bad edit must not keep a host as it
/// is.
pub(super) fn cleanup(place: &Place) -> Result<(), Refusal> {
    let journal = state_dir_of(&place.source()).journal();
    let undone = small_runtime()?.block_on(clean_up(&journal))?;
    if place.json {
        output::json(&json!({ "undone": undone, "journal": journal }));
    } else if undone == 0 {
        output::line(&format!("Nothing to clean up by {}.", journal.display()));
    } else {
        output::line(&format!("Changes undone: {undone}."));
    }
    Ok(())
}
