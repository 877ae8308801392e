//! `list`.

use adit_program::exit::Failure;
use adit_program::output;
use serde::Serialize;

use super::{ClientFiles, block, dir_flag, status};
use crate::profile::Entry;
use crate::state::State;

/// One line of the listing.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    gateway: Option<String>,
    user: Option<String>,
    state: String,
    /// Why the profile cannot be used.
    error: Option<String>,
}

/// Lists the profiles and how they stand.
pub(super) async fn list(files: &ClientFiles, json: bool) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for entry in files.store.list()? {
        rows.push(row(files, entry).await);
    }
    if json {
        output::json(&rows);
    } else if rows.is_empty() {
        output::line(&format!("no profile; make one with: adit-client{} join URL", dir_flag(files)));
    } else {
        let name_width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        rows.iter().for_each(|row| output::line(&describe(row, name_width)));
    }
    Ok(())
}

async fn row(files: &ClientFiles, entry: Entry) -> Row {
    let state = match status::ask(files, &entry.name).await {
        Ok(Some(status)) => status.state,
        Ok(None) if block::is_closed(&entry.name) => State::Blocked.label().to_owned(),
        Ok(None) => State::Disconnected.label().to_owned(),
        Err(_) => "unknown".to_owned(),
    };
    let name = entry.name.to_string();
    match entry.profile {
        Ok(profile) => Row { name, gateway: Some(profile.gateway()), user: Some(profile.user), state, error: None },
        Err(error) => Row { name, gateway: None, user: None, state, error: Some(error.to_string()) },
    }
}

fn describe(row: &Row, name_width: usize) -> String {
    let details = match (&row.gateway, &row.error) {
        (_, Some(error)) => format!("unusable: {error}"),
        (Some(gateway), None) => gateway.clone(),
        (None, None) => String::new(),
    };
    format!("{:<name_width$}  {:<13}  {details}", row.name, row.state)
}
