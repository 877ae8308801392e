//! `adit-server check`.

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{Place, Refusal, ask, columns, list, reload, small_runtime};
use crate::acme;
use crate::admin::{CertificateReport, GatewayStatus};
use crate::config::Config;
use crate::identity::Authority;
use crate::run::resolver;
use crate::state_files;

/// Checks the configuration, everything in the state directory, the host's addresses, and whether resolvers on this
/// host that clients are told of answer, and says what a reload of a running gateway would do; with `live` also that
/// the gateway serves.
pub(super) fn check(place: &Place, live: bool) -> Result<(), Refusal> {
    let config = state_files::check(&place.source())?;
    let status = if live { Some(running(&config)?) } else { None };
    if let Some(broken) = status.as_ref().and_then(|status| list::guards(status).find(list::Guard::is_broken)) {
        let next = "mend that on this host; the gateway goes on by itself";
        return Err(Failure::new(Exit::Other, broken.name(), broken.reason(), next).into());
    }
    let mut warnings = config.warnings();
    warnings.extend(small_runtime()?.block_on(resolver::unhelpful(&config)));
    warnings.extend(of_certificates(&config, status.as_ref())?);
    let reload = reload::preview(&config)?;
    let authority = Authority::load(&config.state_dir).map_err(|error| error.into_failure())?;
    let fingerprint = HEXLOWER.encode(&authority.pin());
    if place.json {
        output::json(&json!({
            "ok": true, "config": config.path, "fingerprint": fingerprint, "warnings": warnings, "status": status,
            "reload": reload,
        }));
        return Ok(());
    }
    let mut lines = vec![("configuration", format!("{} is good", config.path.display()))];
    lines.push(("public", join(config.public.iter().map(|public| format!("{} port {}", public.host, public.port)))));
    lines.push(("listen", join(config.listen.iter())));
    lines.push((
        "pools",
        join(config.pool.v4.iter().map(ToString::to_string).chain(config.pool.v6.iter().map(ToString::to_string))),
    ));
    lines.push(("fingerprint", fingerprint));
    if let Some(status) = &status {
        lines.push(("gateway", format!("running, sessions: {}", status["sessions"])));
    }
    lines.extend(reload.map(|answer| ("a reload", answer.preview())));
    output::line(&columns::aligned(&lines));
    for warning in warnings {
        output::line(&format!("warning: {warning}"));
    }
    for guard in status.iter().flat_map(list::guards) {
        output::line(&guard.warning());
    }
    Ok(())
}

fn running(config: &Config) -> Result<Value, Failure> {
    ask::ask_running(config, "GET", "/status", &Value::Null)?.ok_or_else(|| ask::not_running(config))
}

/// What is wrong with certificates that the gateway gets itself. One that runs knows best.
fn of_certificates(config: &Config, status: Option<&Value>) -> Result<Vec<String>, Failure> {
    if config.acme.names.is_empty() {
        return Ok(Vec::new());
    }
    let asked = match status {
        Some(status) => Some(status.clone()),
        None => match ask::ask_running(config, "GET", "/status", &Value::Null) {
            Err(failure) if failure.exit == Exit::Permission => None,
            told => told?,
        },
    };
    let Some(status) = asked else { return Ok(acme::warnings(config, super::now())) };
    let status: GatewayStatus = ask::decode(status)?;
    Ok(status.certificates.iter().filter_map(CertificateReport::warning).collect())
}

fn join<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
