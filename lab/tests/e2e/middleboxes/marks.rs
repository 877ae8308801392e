//! Boxes that drop what bears an ECN mark, clear marks, or give datagrams another class (DSCP). Flows whose ends use
//! ECN pass them.

use std::time::Duration;

use super::{amid_transfers, assert_carries, ends, joined, met, put_box};
use crate::harness::{Carrier, Tunnel, sysctl, unfilter};

const TRANSFER: u64 = 4 << 20;
/// How long transfers take at least: longer than it takes to notice that marks are dropped.
const LASTING: Duration = Duration::from_secs(5);
/// What boxes do to what bears a mark, or to everything, and count. The one that drops comes last: that marks pass
/// again is noticed a minute later.
const BOXES: [(&str, &str); 3] = [
    ("clears marks", "ip ecn != not-ect counter ip ecn set not-ect"),
    ("gives another class", "counter ip dscp set cs1"),
    ("drops what is marked", "ip ecn != not-ect counter drop"),
];

/// A joined client, and ends behind both sides of the tunnel that use ECN.
fn with_ecn() -> Option<Tunnel> {
    let tunnel = joined()?;
    for host in [tunnel.client().host(), &tunnel.internet] {
        sysctl(host, "net/ipv4/tcp_ecn", "1");
    }
    Some(tunnel)
}

fn take_away(tunnel: &Tunnel, name: &str) {
    for (host, _) in ends(tunnel) {
        assert!(met(host) > 0, "{name}: the box had something to do at the {}", host.name());
        unfilter(host, "box");
    }
}

#[test]
fn session_comes_up_behind_boxes_that_dislike_marks() {
    let Some(mut tunnel) = with_ecn() else { return };
    for (name, treatment) in BOXES {
        put_box(&tunnel, treatment);
        tunnel.clients[0].up().unwrap();
        tunnel.travels_by(Carrier::Esp);
        assert_carries(&tunnel, TRANSFER / 4, name);
        tunnel.travels_by(Carrier::Esp);
        assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
        take_away(&tunnel, name);
    }
}

#[test]
fn session_and_flows_go_on_when_a_box_begins_to_dislike_marks() {
    let Some(mut tunnel) = with_ecn() else { return };
    tunnel.clients[0].up().unwrap();
    tunnel.travels_by(Carrier::Esp);
    let number = tunnel.gateway.sessions().unwrap()[0].session;
    for (name, treatment) in BOXES {
        amid_transfers(&tunnel, TRANSFER, LASTING, name, || put_box(&tunnel, treatment));
        take_away(&tunnel, name);
        tunnel.travels_by(Carrier::Esp);
        let sessions = tunnel.gateway.sessions().unwrap();
        assert!(sessions.len() == 1 && sessions[0].session == number, "{name}: {sessions:?}");
    }
}
