//! `adit-server reload`.

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use clap::Args;
use serde_json::{Value, json};

use super::{Place, Refusal, ask};
use crate::config::Config;
use crate::reload::{ReloadAnswer, ReloadRequest};

#[derive(Debug, Args)]
pub(super) struct ReloadFlags {
    /// Apply what can be, though other keys changed that need a restart
    #[arg(long)]
    partial: bool,
}

/// Has the running gateway read its configuration again.
pub(super) fn reload(place: &Place, flags: &ReloadFlags) -> Result<(), Refusal> {
    // Where the gateway listens is found in a broken file, too.
    let config = Config::load(&place.source())?;
    let request = ReloadRequest { partial: flags.partial, dry_run: false };
    let answer = asked(&config, request)?.ok_or_else(|| ask::not_running(&config))?;
    if place.json {
        output::json(&json!(answer));
    } else {
        answer.lines().iter().for_each(|line| output::line(line));
    }
    Ok(())
}

/// What a reload of the running gateway would do, or why it would be refused; `None` when none runs that this user may
/// ask.
pub(super) fn preview(config: &Config) -> Result<Option<ReloadAnswer>, Failure> {
    match asked(config, ReloadRequest { partial: true, dry_run: true }) {
        Err(failure) if failure.exit == Exit::Permission => Ok(None),
        told => told,
    }
}

fn asked(config: &Config, request: ReloadRequest) -> Result<Option<ReloadAnswer>, Failure> {
    let answer: Option<Value> = ask::ask_running(config, "POST", "/reload", &json!(request)).map_err(|failure| {
        // The gateway says what is wrong with the files.
        if failure.exit == Exit::Usage { Failure { next: NEXT.to_owned(), ..failure } } else { failure }
    })?;
    answer.map(ask::decode).transpose()
}

const NEXT: &str = "nothing has changed; mend that and reload again";
