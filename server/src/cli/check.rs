//! `adit-server check`.

use adit_proto::exit::Failure;
use serde_json::{Value, json};

use super::{Place, ask, output};
use crate::config::{Config, ConfigError};

/// Checks the configuration, the key files and the host's addresses; with `live` also that the gateway serves.
pub(super) fn check(place: &Place, live: bool) -> Result<(), Failure> {
    let checked = Config::load(&place.source()).and_then(|config| config.check_host().map(|()| config));
    let config = checked.map_err(|error| report(error, place.json))?;
    let status = if live { Some(running(&config)?) } else { None };
    if place.json {
        output::object(&json!({ "ok": true, "config": config.path, "status": status }));
        return Ok(());
    }
    let mut lines = vec![("configuration", format!("{} is good", config.path.display()))];
    lines.push(("public", join(config.public.iter().map(|public| format!("{} port {}", public.host, public.port)))));
    lines.push(("listen", join(config.listen.iter())));
    lines.push((
        "pools",
        join(config.pool.v4.iter().map(ToString::to_string).chain(config.pool.v6.iter().map(ToString::to_string))),
    ));
    if let Some(status) = status {
        lines.push(("gateway", format!("running, sessions: {}", status["sessions"])));
    }
    output::text(&output::aligned(&lines));
    Ok(())
}

fn running(config: &Config) -> Result<Value, Failure> {
    ask::ask_running(config, "GET", "/status", &Value::Null)?.ok_or_else(|| ask::not_running(config))
}

/// With `--json` the problems are also given one by one.
fn report(error: ConfigError, as_json: bool) -> Failure {
    if as_json {
        let problems: Vec<Value> = error
            .problems
            .iter()
            .map(|problem| json!({ "what": problem.what, "reason": problem.reason, "next": problem.next }))
            .collect();
        output::object(&json!({ "ok": false, "config": error.path, "problems": problems }));
    }
    error.into_failure()
}

fn join<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
