//! Connections that are made anew, or break: sessions keep their addresses, and nobody is asked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use adit_lab::traffic::Dialogue;

use super::records::comes_to_at;
use super::*;
use crate::harness::{answers, filter, unfilter};

/// How soon clients make a new connection, and how often each does.
const REKEY_AFTER: &str = "4s";
const REKEYS: usize = 3;
/// Packets a second each way, of each client.
const RATE: u32 = 100;
/// How long the cable is out, and how long it may take then: TCP waits longer before each repetition.
const OUT: Duration = Duration::from_secs(30);
const BACK: Duration = Duration::from_secs(90);
const CABLE: &str = "cable";

#[test]
fn new_keys_under_load_cost_no_packet_that_a_client_sends() {
    let versions = [Version::Own, Version::Newest];
    let Some(tunnel) = start_many(&[versions, versions].concat(), &[]) else { return };
    let file = tunnel.gateway.folder().join("server.toml");
    let made = fs::read_to_string(&file).unwrap();
    fs::write(file, made.replace("\n[anyconnect]\n", &format!("\n[anyconnect]\nrekey_after = \"{REKEY_AFTER}\"\n")))
        .unwrap();
    let reloaded = tunnel.gateway.admin_json(&["reload"]).unwrap();
    assert_eq!(reloaded["new_sessions"][0], "anyconnect.rekey_after", "{reloaded}");
    let options = |client: usize| if client < 2 { &["--no-dtls"][..] } else { &[] };
    let as_alice = ["--user", "alice", "--passwd-on-stdin"];
    let strangers = [0, 1, 2, 3].map(|client| {
        let stranger = up_at(&tunnel, client, &[&as_alice[..], options(client)].concat(), &format!("{PASSWORD}\n"));
        reach_internet(tunnel.clients[client].host());
        stranger
    });
    let dialogues = [0, 1, 2, 3].map(|client| {
        Dialogue::start(tunnel.clients[client].host(), &tunnel.internet, INTERNET[client % 2], RATE).unwrap()
    });
    let connections = follow(&tunnel, strangers.each_ref().map(|(_, session)| session.addresses[0]));
    for (client, (dialogue, seen)) in dialogues.into_iter().zip(connections).enumerate() {
        let [up, down] = dialogue.finish();
        println!("client {client}: {seen:?}; {} of {} back are lost", down.lost(), down.sent);
        // By UDP what was under way when the connection ended may come behind that: at this rate one packet.
        let permitted = if client < 2 { 0 } else { seen.sessions.len() };
        assert!(up.lost() <= permitted && up.duplicated() == 0, "client {client}: {} of {}", up.lost(), up.sent);
        assert_eq!(seen.carriers.contains("dtls"), client >= 2, "client {client}: {seen:?}");
        let (stranger, session) = &strangers[client];
        assert_eq!(stranger.0.try_wait().unwrap(), None, "{}", stranger.0.tail());
        let after = eventually("it has a session", || tunnel.session_of(session.addresses[0]));
        assert_eq!(after.addresses, session.addresses);
    }
}

/// What was seen of the sessions that had an address, one after the other.
#[derive(Debug, Default)]
struct Seen {
    sessions: BTreeSet<u64>,
    carriers: BTreeSet<String>,
}

/// Watches until each client of these has connected anew often enough.
fn follow<const N: usize>(tunnel: &Tunnel, addresses: [IpAddr; N]) -> [Seen; N] {
    let (deadline, mut all) = (Instant::now() + 3 * PATIENCE, [(); N].map(|()| Seen::default()));
    while all.iter().any(|seen| seen.sessions.len() <= REKEYS) {
        assert!(Instant::now() < deadline, "{all:?}");
        for told in tunnel.gateway.sessions().unwrap() {
            let client = addresses.iter().position(|address| told.addresses.contains(address)).unwrap();
            all[client].sessions.insert(told.session);
            all[client].carriers.insert(told.carrier);
        }
        thread::sleep(Duration::from_millis(100));
    }
    all
}

#[test]
fn cable_that_is_out_for_half_a_minute_costs_neither_address_nor_answer() {
    let Some(tunnel) = start_many(&[Version::Own, Version::Newest], &[]) else { return };
    let strangers = [0, 1].map(|client| log_in_at(&tunnel, client));
    for (client, (_, session)) in strangers.iter().enumerate() {
        comes_to_at(&tunnel, client, session, "dtls", PATIENCE);
    }
    pull(&tunnel);
    assert!((0..2).all(|client| !answers(tunnel.clients[client].host(), INTERNET[0])), "the positive control");
    thread::sleep(OUT);
    plug_in(&tunnel);
    for (client, (stranger, session)) in strangers.iter().enumerate() {
        let deadline = Instant::now() + BACK;
        while !answers(tunnel.clients[client].host(), INTERNET[0]) {
            assert!(Instant::now() < deadline, "never in {BACK:?}: packets pass\n{}", stranger.0.tail());
        }
        reach_internet(tunnel.clients[client].host());
        let after = tunnel.session_of(session.addresses[0]).unwrap();
        assert_eq!(after.addresses, session.addresses);
        assert_eq!(stranger.0.try_wait().unwrap(), None, "{}", stranger.0.tail());
    }
}

/// Nothing arrives any more of what clients and gateway send each other, and none of them hears of that.
fn pull(tunnel: &Tunnel) {
    for host in tunnel.clients.iter().map(adit_lab::programs::Client::host) {
        filter(host, CABLE, &[("prerouting priority -400", &format!("iifname {OUTER_LINK} drop"))]);
    }
    let outer = tunnel.gateway.sessions().unwrap().into_iter().map(|told| told.remote.ip().to_string());
    let outer = outer.collect::<Vec<_>>().join(", ");
    filter(tunnel.gateway.host(), CABLE, &[("prerouting priority -400", &format!("ip saddr {{ {outer} }} drop"))]);
}

fn plug_in(tunnel: &Tunnel) {
    for host in tunnel.clients.iter().map(adit_lab::programs::Client::host).chain([tunnel.gateway.host()]) {
        unfilter(host, CABLE);
    }
}
