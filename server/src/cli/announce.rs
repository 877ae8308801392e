//! `adit-server announce`.

use std::time::Duration;

use adit_program::output;
use clap::Args;

use super::{Place, Refusal, ask, duration};
use crate::admin::AnnounceRequest;

/// What clients are to know.
#[derive(Debug, Args)]
pub(super) struct AnnounceFlags {
    /// How long after its stop the gateway is back, such as 30s or 5m; at most 1h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    back_in: Duration,
}

/// Tells the running gateway that its next stop is a restart.
pub(super) fn announce(place: &Place, flags: &AnnounceFlags) -> Result<(), Refusal> {
    let request = AnnounceRequest { back_in_seconds: flags.back_in.as_secs() };
    let answer = ask::ask(&place.load()?, "POST", "/announce", &serde_json::json!(request))?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    let AnnounceRequest { back_in_seconds } = ask::decode(answer)?;
    let back_in = humantime::format_duration(Duration::from_secs(back_in_seconds));
    output::line(&format!("If the gateway is stopped within ten minutes, clients hear that it is back in {back_in}."));
    Ok(())
}
