//! `adit-server bans`, `unban` and `unlock`: what the limits of logins hold against networks and users.

use std::time::Duration;

use adit_program::output;
use serde_json::{Value, json};

use super::{Place, Refusal, ask, columns};
use crate::admin::{BansAnswer, ForgivenAnswer};

/// Lists the networks from which no stranger may try to log in.
pub(super) fn bans(place: &Place) -> Result<(), Refusal> {
    let answer = ask::ask(&place.load()?, "GET", "/bans", &Value::Null)?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    output::line(&table(&ask::decode(answer)?));
    Ok(())
}

fn table(BansAnswer { bans }: &BansAnswer) -> String {
    let lasts = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let rows: Vec<_> = bans.iter().map(|ban| [ban.network.clone(), lasts(ban.seconds)]).collect();
    if rows.is_empty() { "No bans.".to_owned() } else { columns::table(["NETWORK", "NEXT TRY IN"], &rows) }
}

/// Forgets the failed logins from a network.
pub(super) fn unban(place: &Place, network: &str) -> Result<(), Refusal> {
    forgive(place, "/unban", &json!({ "network": network }))
}

/// Forgets the failed logins of a user.
pub(super) fn unlock(place: &Place, name: &str) -> Result<(), Refusal> {
    forgive(place, "/unlock", &json!({ "user": name }))
}

fn forgive(place: &Place, path: &str, body: &Value) -> Result<(), Refusal> {
    let answer = ask::ask(&place.load()?, "POST", path, body)?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    output::line(&sentence(&ask::decode(answer)?));
    Ok(())
}

fn sentence(ForgivenAnswer { name, changed }: &ForgivenAnswer) -> String {
    if *changed {
        format!("Failed logins of {name} are forgotten.")
    } else {
        format!("There were no failed logins of {name}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::BanInfo;

    #[test]
    fn bans_are_shown_with_the_time_they_last() {
        let ban = |network: &str, seconds| BanInfo { network: network.to_owned(), seconds };
        let text = table(&BansAnswer { bans: vec![ban("192.0.2.7", 59), ban("2001:db8::/56", 61)] });
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NETWORK", "NEXT", "TRY", "IN"]);
        assert_eq!(lines[1], ["192.0.2.7", "59s"]);
        assert_eq!(lines[2], ["2001:db8::/56", "1m", "1s"]);
        assert_eq!(table(&BansAnswer { bans: Vec::new() }), "No bans.");
    }

    #[test]
    fn sentence_says_whether_there_was_anything() {
        let forgiven = |changed| sentence(&ForgivenAnswer { name: "alice".to_owned(), changed });
        assert_ne!(forgiven(true), forgiven(false));
        assert!(forgiven(true).contains("alice"));
    }
}
