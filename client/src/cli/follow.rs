//! `status --follow`.

use adit_program::exit::Failure;
use adit_program::output;

use super::ClientFiles;
use super::events::ClientEvents;
use super::status::{disconnected, joined};
use crate::profile::ProfileName;
use crate::run::{Standing, Status, StatusEvent};

/// Prints a line for how a client stands, and one for each change until it ends, or until nobody reads them any more.
/// One that is not running has nothing to follow.
pub(super) async fn follow(files: &ClientFiles, name: &ProfileName, json: bool) -> Result<(), Failure> {
    let print = |event: &StatusEvent| output::is_line_read(&if json { in_json(event) } else { describe(event) });
    let Some(mut events) = ClientEvents::of(files, name).await? else {
        let Status { name, state, reason, .. } = disconnected(files, name)?;
        print(&StatusEvent::now(0, Standing { name, state, reason, ..Standing::default() }));
        return Ok(());
    };
    while let Some(event) = events.next().await? {
        if !print(&event) {
            break;
        }
    }
    Ok(())
}

fn in_json(event: &StatusEvent) -> String {
    serde_json::to_string(event).expect("its keys are strings")
}

/// An event for people.
fn describe(event: &StatusEvent) -> String {
    let StatusEvent { time, standing, .. } = event;
    // The reason names the portal.
    let Standing { name, state, reason, portal: _, carrier, remote, addresses, mtu, route, dns, exit } = standing;
    let mut parts = vec![format!("{time} {name}: {state}")];
    parts.extend(carrier.as_ref().map(|carrier| format!("by {carrier}")));
    if carrier.is_some() {
        parts.extend(remote.map(|remote| format!("to {remote}")));
        parts.push(format!("as {}", joined(addresses)));
        parts.extend(mtu.map(|mtu| format!("mtu {mtu}")));
        parts.extend((!route).then(|| "its routes are not in force".to_owned()));
        parts.extend((!dns).then(|| "its DNS servers are not asked".to_owned()));
    }
    parts.extend(reason.clone());
    parts.extend(exit.map(|exit| format!("exit code {exit}")));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(standing: Standing) -> String {
        describe(&StatusEvent { time: "T".to_owned(), since_seconds: 0, standing })
    }

    #[test]
    fn line_says_what_there_is_to_say() {
        let name = || "home".to_owned();
        let connected = Standing {
            name: name(),
            state: "connected".to_owned(),
            carrier: Some("esp".to_owned()),
            remote: Some("192.0.2.1:443".parse().unwrap()),
            addresses: vec!["10.64.3.2/32".parse().unwrap()],
            mtu: Some(1420),
            route: true,
            dns: true,
            ..Standing::default()
        };
        let expected = "T home: connected, by esp, to 192.0.2.1:443, as 10.64.3.2/32, mtu 1420";
        assert_eq!(line(connected.clone()), expected);
        let lacking = Standing { dns: false, ..connected };
        assert_eq!(line(lacking), format!("{expected}, its DNS servers are not asked"));
        let ended = Standing {
            name: name(),
            state: "disconnected".to_owned(),
            reason: Some("no answer".to_owned()),
            exit: Some(5),
            ..Standing::default()
        };
        assert_eq!(line(ended), "T home: disconnected, no answer, exit code 5");
    }
}
