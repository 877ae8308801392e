//! N1: UDP is blocked from the start, in a network that the client does not know, and in one that it remembers.

use std::fs;

use adit_lab::programs::Client;
use anyhow::{Context as _, Result, ensure};

use super::demand::Demand;
use super::site::{Site, wait};
use super::trouble::{Trouble, Turn};
use crate::load::targets::Bound;
use crate::measure::meter::milliseconds;
use crate::report::model::Reading;

pub(super) const TROUBLE: Trouble = Trouble {
    name: "N1",
    task: "udp-blocked",
    words: "UDP is blocked from the start",
    events: None,
    demands: &[
        Demand { what: "connected where UDP is blocked, ms", metric: "connect", bound: Bound::Most(1_000.0) },
        Demand { what: "the same, remembered, ms", metric: "remembered", bound: Bound::Most(300.0) },
    ],
    measure,
};

/// The client's link, by which its file of networks names the one it is in.
const LINK: &str = "eth0";

/// From the start of the client's program to its word that it is connected.
fn measure(turn: &Turn<'_>) -> Result<Vec<Reading>> {
    let mut site = Site::start()?;
    site.block_udp()?;
    let unknown = site.connect()?;
    let reason = not_by_udp(&site.client)?;
    ensure!(!is_remembered(&reason), "the client knew this network: {reason}");
    // It is noted a little later.
    let networks = site.client.folder().join("state/networks.json");
    let noted = || Ok(fs::read_to_string(&networks).unwrap_or_default().contains(LINK).then_some(()));
    wait(turn.interrupt, noted)?.context("the client does not remember this network")?;
    site.client.stop()?;
    let known = site.connect()?;
    let reason = not_by_udp(&site.client)?;
    ensure!(is_remembered(&reason), "the client forgot this network: {reason}");
    Ok(vec![milliseconds("connect", unknown), milliseconds("remembered", known)])
}

/// Why the client goes by TLS, as it says.
fn not_by_udp(client: &Client) -> Result<String> {
    let status = client.status()?;
    let carrier = status.carrier.unwrap_or_default();
    ensure!(carrier == "tls", "the client goes by {carrier:?} where UDP is blocked");
    status.not_by_udp.context("the client does not say why it goes by TLS")
}

/// Whether the client says that it knew it from before.
fn is_remembered(reason: &str) -> bool {
    reason.contains("as before")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::demand::tests::met;
    use super::*;

    #[test]
    fn second_start_has_less_time_than_the_first() {
        let of = |connect, remembered| {
            let [connect, remembered] = [connect, remembered].map(Duration::from_millis);
            met(&TROUBLE, vec![milliseconds("connect", connect), milliseconds("remembered", remembered)])
        };
        assert_eq!(of(900, 300), [Some(true), Some(true)]);
        assert_eq!(of(900, 310), [Some(true), Some(false)]);
        assert_eq!(of(1_001, 300), [Some(false), Some(true)]);
    }

    #[test]
    fn what_is_remembered_is_told_from_what_was_just_found() {
        assert!(is_remembered("as before in this network, nothing is answered over UDP"));
        assert!(!is_remembered("nothing is answered over UDP"));
    }
}
