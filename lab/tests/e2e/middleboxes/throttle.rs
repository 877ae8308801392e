//! Boxes that let only so many datagrams a second pass.

use std::process::Command;

use adit_lab::Process;
use adit_lab::programs::Client;
use adit_testing::eventually;
use serde_json::Value;

use super::{assert_carries, ends, joined, met, put_box};
use crate::harness::{Carrier, Tunnel};

const TRANSFER: u64 = 256 << 10;
/// A rate at which a tunnel is slow, and one at which it is of no use.
const SLOW: &str = "limit rate over 150/second burst 20 packets counter drop";
const USELESS: &str = "limit rate over 2/second burst 2 packets counter drop";
/// A session that goes to another carrier and back has not made up its mind. Once is an accident of a full box.
const MOST_CHANGES: usize = 2;

/// Follows what a client tells.
fn follow(client: &Client) -> Process {
    let told = client.command(&["status", "--follow", "--json"]);
    let mut command = Command::new(told.get_program());
    command.args(told.get_args());
    client.host().spawn(command).unwrap()
}

/// The carriers that packets travelled by, one after the other.
fn carriers(follower: &Process) -> Vec<String> {
    let events = follower.stdout();
    let told = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut carriers: Vec<String> = told.filter_map(|event| event["carrier"].as_str().map(str::to_owned)).collect();
    carriers.dedup();
    carriers
}

fn up() -> Option<Tunnel> {
    let mut tunnel = joined()?;
    tunnel.clients[0].up().unwrap();
    tunnel.travels_by(Carrier::Esp);
    Some(tunnel)
}

#[test]
fn session_stays_on_udp_that_is_slow_and_does_not_flap() {
    let Some(tunnel) = up() else { return };
    let number = tunnel.gateway.sessions().unwrap()[0].session;
    let follower = follow(tunnel.client());
    put_box(&tunnel, SLOW);
    assert_carries(&tunnel, TRANSFER, "slow");
    for (host, _) in ends(&tunnel) {
        assert!(met(host) > 0, "the box had something to do at the {}", host.name());
    }
    let carriers = carriers(&follower);
    println!("{carriers:?}");
    assert!(!carriers.is_empty() && carriers.len() <= 1 + MOST_CHANGES, "{carriers:?}");
    let sessions = tunnel.gateway.sessions().unwrap();
    assert!(sessions.len() == 1 && sessions[0].session == number, "{sessions:?}");
}

#[test]
fn session_leaves_udp_that_is_of_no_use() {
    let Some(tunnel) = up() else { return };
    put_box(&tunnel, USELESS);
    assert_carries(&tunnel, TRANSFER, "useless");
    eventually("packets travel by tls", || {
        (tunnel.client().status().unwrap().carrier.as_deref() == Some("tls")).then_some(())
    });
    assert_eq!(tunnel.gateway.sessions().unwrap().len(), 1);
}
