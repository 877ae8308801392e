//! Sessions over in-memory connections, under a clock that stands still while anything is to be done.

mod moves;
mod portal;
mod world;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use adit_program::exit::Exit;
use adit_program::task;
use adit_proto::range::RouteRange;
use ipnet::IpNet;

use super::*;
use crate::host_plan::GuardState;
use crate::profile::{KeptLogin, ProfileStore};
use world::{CountingHost, Prepared, ScriptedHost, World};

fn settings(address: &str) -> NetworkSettings {
    let everything: IpNet = "0.0.0.0/0".parse().unwrap();
    NetworkSettings {
        addresses: vec![address.parse().unwrap()],
        routes: vec![RouteRange::from(everything)],
        ..NetworkSettings::default()
    }
}

fn lost() -> ConnectionEvent {
    ConnectionEvent::Closed(ConnectError::Closed("the gateway restarted".to_owned()))
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn embedded_session_connects_reports_and_stops() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    gateway.send(ConnectionEvent::Mtu(1350)).await.unwrap();
    let mut snapshots = world.session.snapshots();
    let snapshot = snapshots.wait_for(|snapshot| snapshot.mtu == 1350).await.unwrap().clone();
    assert_eq!(snapshot.network, Some(settings("10.64.3.2/32")));

    let handle = world.session.handle();
    let status = handle.status().await.unwrap();
    assert_eq!((status.state.as_str(), status.carrier.as_deref(), status.mtu), ("connected", Some("quic"), Some(1350)));
    assert_eq!((status.counters.rx_packets, status.reason, status.tun), (7, None, None));
    assert_eq!(status.routes, vec!["0.0.0.0/0".parse::<IpNet>().unwrap()]);

    handle.stop().await;
    world.session.wait().await.unwrap();
    assert_eq!(world.closed.load(Ordering::Relaxed), 1, "the gateway heard no goodbye");
    assert!(handle.status().await.is_none());
}

/// The states and exit codes that a follower hears until the session has ended.
async fn heard(mut events: broadcast::Receiver<StatusEvent>) -> Vec<(String, Option<u8>)> {
    let mut heard = Vec::new();
    while let Ok(event) = events.recv().await {
        heard.push((event.standing.state, event.standing.exit));
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn followers_hear_each_change_of_a_session_and_its_end() {
    let world = World::start(PATIENCE);
    let handle = world.session.handle();
    let (first, events) = handle.follow().await.unwrap();
    assert_eq!((first.standing.state.as_str(), first.standing.name.as_str()), ("connecting", "home"));
    assert!(!first.standing.route && !first.standing.dns && first.standing.exit.is_none());
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    // Whoever comes later begins with what is so by then, and what has not changed is not told.
    let (second, mut later) = handle.follow().await.unwrap();
    assert_eq!((second.standing.state.as_str(), second.standing.carrier.as_deref()), ("connected", Some("quic")));
    assert!(second.standing.route && second.standing.dns, "nobody but the embedder configures its host");
    tokio::time::sleep(Duration::from_secs(7)).await;
    gateway.send(ConnectionEvent::Carrier).await.unwrap();
    let status = handle.status().await.unwrap();
    assert_eq!((status.carrier_seconds, status.path_mtu), (Some(7), Some(1499)), "it is the same carrier still");
    gateway.send(ConnectionEvent::Mtu(1350)).await.unwrap();
    assert_eq!(later.recv().await.unwrap().standing.mtu, Some(1350));
    gateway.send(lost()).await.unwrap();
    let away = later.recv().await.unwrap().standing;
    assert_eq!((away.state.as_str(), away.carrier, away.remote), ("reconnecting", None, None));
    assert!(away.reason.is_some_and(|reason| reason.contains("restarted")) && !away.route && !away.dns);
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    handle.stop().await;
    world.session.wait().await.unwrap();

    let told = ["connected", "disconnecting"].map(|state| (state.to_owned(), None));
    let end = ("disconnected".to_owned(), Some(0));
    assert_eq!(heard(later).await, [&told[..], std::slice::from_ref(&end)].concat());
    let all = heard(events).await;
    assert!(all.starts_with(&[("connected".to_owned(), None)]) && all.ends_with(&[end]), "{all:?}");
    assert!(handle.follow().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn last_event_of_a_session_that_gives_up_has_its_exit_code_and_reason() {
    let world = World::start(PATIENCE);
    let (_, mut events) = world.session.handle().follow().await.unwrap();
    world.refuse(ConnectError::Refused("revoked".to_owned())).await;
    let last = events.recv().await.unwrap().standing;
    let failure = world.session.wait().await.unwrap_err();
    assert_eq!((last.state.as_str(), last.exit), ("disconnected", Some(failure.exit as u8)));
    assert!(last.reason.is_some_and(|reason| reason.contains("revoked")));
    assert!(events.recv().await.is_err(), "there is one last event");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_hold_on_the_host_is_told_until_it_does() {
    let (host, interfere, _) = ScriptedHost::new();
    let world = Prepared { host: Some(host), ..World::prepare(PATIENCE, None) }.begin();
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let (first, mut events) = world.session.handle().follow().await.unwrap();
    assert!(first.standing.route && first.standing.dns);
    let broken = |guard: &str| GuardStatus {
        guard: guard.to_owned(),
        state: GuardState::Broken,
        reason: "was removed".to_owned(),
        times: 1,
    };
    for (guards, route, dns) in [(vec![broken("rule")], false, true), (vec![broken("resolver")], true, false)] {
        interfere.send(guards).await.unwrap();
        let told = events.recv().await.unwrap().standing;
        assert_eq!((told.route, told.dns), (route, dns));
    }
    interfere.send(Vec::new()).await.unwrap();
    let told = events.recv().await.unwrap().standing;
    assert!(told.route && told.dns);
}

#[tokio::test(start_paused = true)]
async fn lost_session_keeps_its_settings_and_takes_new_ones() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    gateway.send(lost()).await.unwrap();
    world.reach(State::Reconnecting).await;
    let status = world.session.handle().status().await.unwrap();
    assert_eq!(status.addresses, settings("10.64.3.2/32").addresses);
    assert!(status.reason.unwrap().contains("the gateway restarted"));
    assert_eq!(status.carrier, None);

    let _gateway = world.accept("10.64.3.9/32").await;
    world.reach(State::Connected).await;
    let status = world.session.handle().status().await.unwrap();
    assert_eq!(status.addresses, settings("10.64.3.9/32").addresses);
}

#[tokio::test(start_paused = true)]
async fn settings_changed_by_the_gateway_reach_the_embedder() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    gateway.send(ConnectionEvent::Network(settings("10.64.3.3/32"))).await.unwrap();
    let mut snapshots = world.session.snapshots();
    snapshots.wait_for(|snapshot| snapshot.network == Some(settings("10.64.3.3/32"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_host_of_each_assigned_prefix_is_admitted() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.0/24").await;
    world.reach(State::Connected).await;
    assert_eq!(*world.admitted.lock().await, ["10.64.3.1".parse::<IpAddr>().unwrap()]);
    gateway.send(ConnectionEvent::Network(settings("10.64.3.9/16"))).await.unwrap();
    let mut snapshots = world.session.snapshots();
    snapshots.wait_for(|snapshot| snapshot.network == Some(settings("10.64.3.9/16"))).await.unwrap();
    assert_eq!(*world.admitted.lock().await, ["10.64.3.9".parse::<IpAddr>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn refusal_ends_the_first_connection_at_once_and_a_mismatch_when_patience_ends() {
    let refused = World::start(PATIENCE);
    refused.refuse(ConnectError::Refused("revoked".to_owned())).await;
    let failure = refused.session.wait().await.unwrap_err();
    assert_eq!(failure.exit, Exit::AuthRefused);
    assert!(failure.reason.contains("revoked") && failure.next.contains("join"));

    let (began, mismatch) = (tokio::time::Instant::now(), World::start(PATIENCE));
    mismatch.refuse(ConnectError::IdentityMismatch("other authority".to_owned())).await;
    let failure = mismatch.session.wait().await.unwrap_err();
    assert_eq!((failure.exit, began.elapsed().as_secs()), (Exit::IdentityMismatch, PATIENCE.as_secs()));
    assert!(failure.reason.contains("other authority"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn silent_gateway_ends_the_first_connection_when_patience_ends() {
    let (began, world) = (tokio::time::Instant::now(), World::start(PATIENCE));
    let failure = world.session.wait().await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    assert_eq!((failure.exit, failure.what.as_str()), (Exit::Unreachable, "192.0.2.1:4443"));
}

#[tokio::test(start_paused = true)]
async fn first_connection_is_tried_again_after_no_answer() {
    let world = World::start(PATIENCE);
    world.refuse(ConnectError::Unreachable("192.0.2.1:4443".to_owned())).await;
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn client_without_patience_connects_after_whatever_strangers_did() {
    let world = World::start(None);
    let text = || "forged".to_owned();
    for error in [
        ConnectError::BrokenOff(text()),
        ConnectError::IdentityMismatch(text()),
        ConnectError::Clock(text()),
        ConnectError::Unreachable(text()),
    ] {
        world.refuse(error).await;
    }
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn gateway_that_floods_and_never_says_goodbye_neither_tires_the_host_nor_holds_up_the_end() {
    let (host, applied) = CountingHost::new();
    let mut prepared = World::prepare(PATIENCE, None);
    prepared.host = Some(host);
    let mut world = prepared.begin();
    world.close_hangs = true;
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let flooding = task::spawn(async move {
        for number in 0_u16..60_000 {
            let changed = settings(&format!("10.64.3.{}/32", number % 197 + 3));
            for event in [ConnectionEvent::Network(changed), ConnectionEvent::Mtu(1300 + number % 100)] {
                if gateway.send(event).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let times = applied.load(Ordering::Relaxed);
    assert!((5..=12).contains(&times), "applied {times} times in 10 s");
    let asked = tokio::time::Instant::now();
    world.session.handle().stop().await;
    world.session.wait().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    drop(flooding);
}

#[tokio::test(start_paused = true)]
async fn device_revoked_while_connected_is_blocked_with_the_reason() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    gateway.send(ConnectionEvent::Closed(ConnectError::Refused("this device was revoked".to_owned()))).await.unwrap();
    world.reach(State::Blocked).await;
    let status = world.session.handle().status().await.unwrap();
    assert_eq!(status.state, "blocked");
    assert!(status.reason.unwrap().contains("this device was revoked"));
    world.session.handle().stop().await;
    world.session.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn login_that_ends_is_never_called_connected_and_a_new_one_connects_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = ProfileStore::new(directory.path());
    let prepared = World::prepare(PATIENCE, Some(store.clone()));
    let name = prepared.profile.name.clone();
    let now = SystemTime::now();
    let soon = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 7 * 60;
    let login = |token| KeptLogin::new(token, Some(soon), now);
    store.save_login(&name, &login("old")).unwrap();
    let world = prepared.begin();
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let status = world.session.handle().status().await.unwrap();
    assert!(status.warnings.iter().any(|warning| warning.contains("adit-client login")), "{:?}", status.warnings);

    gateway.send(ConnectionEvent::Closed(ConnectError::LoginNeeded("it is over".to_owned()))).await.unwrap();
    world.reach(State::LoginNeeded).await;
    let status = world.session.handle().status().await.unwrap();
    assert_eq!(status.state, "login needed");
    assert!(status.reason.unwrap().contains("it is over"));

    store.save_login(&name, &login("new")).unwrap();
    world.session.handle().logged_in().await;
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    world.session.handle().stop().await;
    world.session.wait().await.unwrap();
}

async fn reach_mtu(world: &World, mtu: u16) {
    let mut snapshots = world.session.snapshots();
    drop(snapshots.wait_for(|snapshot| snapshot.mtu == mtu).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn end_of_a_login_that_a_gateway_tells_is_kept_with_that_login_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = ProfileStore::new(directory.path());
    let prepared = World::prepare(PATIENCE, Some(store.clone()));
    let name = prepared.profile.name.clone();
    let login = |token| KeptLogin::new(token, None, SystemTime::now());
    store.save_login(&name, &login("first")).unwrap();
    let world = prepared.begin();
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let left = || async { world.session.handle().status().await.unwrap().login_seconds };
    assert_eq!(left().await, None);

    gateway.send(ConnectionEvent::LoginLasts(Duration::from_secs(600))).await.unwrap();
    gateway.send(ConnectionEvent::Mtu(1350)).await.unwrap();
    reach_mtu(&world, 1350).await;
    assert!(left().await.is_some_and(|seconds| (590..=600).contains(&seconds)));
    let status = world.session.handle().status().await.unwrap();
    assert!(status.warnings.iter().any(|warning| warning.contains("adit-client login")), "{:?}", status.warnings);
    assert!(store.login(&name).unwrap().ends_at.is_some(), "and after a restart");

    // Somebody has logged in meanwhile, which this session does not go on.
    store.save_login(&name, &login("second")).unwrap();
    gateway.send(ConnectionEvent::LoginLasts(Duration::from_secs(300))).await.unwrap();
    gateway.send(ConnectionEvent::Mtu(1351)).await.unwrap();
    reach_mtu(&world, 1351).await;
    assert!(store.login(&name).unwrap().ends_at.is_none());
    world.session.handle().stop().await;
    world.session.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn night_of_sleep_is_told_to_the_connection_whose_loss_is_then_mended_without_a_wait() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.woke.lock().await.is_empty(), "a minute of waking is no sleep");
    world.sleep(8 * 3600);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let woke = world.woke.lock().await.clone();
    assert!(woke.len() == 1 && woke[0].as_secs().abs_diff(8 * 3600) <= 1, "{woke:?}");

    let lost_at = tokio::time::Instant::now();
    let _gateway = world.accept("10.64.3.9/32").await;
    gateway.send(lost()).await.unwrap();
    let mut snapshots = world.session.snapshots();
    snapshots.wait_for(|snapshot| snapshot.network == Some(settings("10.64.3.9/32"))).await.unwrap();
    assert_eq!(lost_at.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn sleep_ends_the_wait_of_a_client_that_is_reconnecting() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    gateway.send(ConnectionEvent::Closed(ConnectError::Refused("revoked".to_owned()))).await.unwrap();
    world.reach(State::Blocked).await;
    world.sleep(8 * 3600);
    let _gateway = world.accept("10.64.3.2/32").await;
    let slept = tokio::time::Instant::now();
    world.reach(State::Connected).await;
    assert!(slept.elapsed() <= Duration::from_secs(1), "not after half a minute: {:?}", slept.elapsed());
}

#[tokio::test(start_paused = true)]
async fn restart_is_told_with_its_time_and_waited_for() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let back_in = Duration::from_secs(30);
    gateway.send(ConnectionEvent::Closed(ConnectError::Restarts(back_in))).await.unwrap();
    world.reach(State::Reconnecting).await;
    let (lost_at, _gateway) = (tokio::time::Instant::now(), world.accept("10.64.3.2/32").await);
    let reason = world.session.handle().status().await.unwrap().reason.unwrap();
    assert!(reason.starts_with("the gateway restarts, back at 20"), "{reason}");
    tokio::time::sleep(back_in).await;
    world.reach(State::Connected).await;
    assert!((30..=38).contains(&lost_at.elapsed().as_secs()), "{:?}", lost_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn source_that_fails_ends_the_session_instead_of_leaving_it_deaf() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let deleted = io::Error::new(io::ErrorKind::NotFound, "the device was deleted");
    gateway.send(ConnectionEvent::Closed(ConnectError::Source(deleted))).await.unwrap();
    let failure = world.session.wait().await.unwrap_err();
    assert_eq!(failure.exit, Exit::Other);
    assert!(failure.reason.contains("the device was deleted") && failure.next.contains("up"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn full_tunnel_without_resolvers_has_a_warning() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let warnings = world.session.handle().status().await.unwrap().warnings;
    assert!(matches!(warnings.as_slice(), [only] if only.contains("no DNS servers")), "{warnings:?}");
    let with_dns = NetworkSettings { dns_servers: vec!["10.64.3.1".parse().unwrap()], ..settings("10.64.3.2/32") };
    gateway.send(ConnectionEvent::Network(with_dns.clone())).await.unwrap();
    let mut snapshots = world.session.snapshots();
    drop(snapshots.wait_for(|snapshot| snapshot.network.as_ref() == Some(&with_dns)).await.unwrap());
    assert!(world.session.handle().status().await.unwrap().warnings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_address_of_the_gateways_name_is_saved() {
    let directory = tempfile::tempdir().unwrap();
    let store = ProfileStore::new(directory.path());
    let mut world = World::prepare(PATIENCE, Some(store.clone()));
    world.profile.addresses = vec!["192.0.2.77:4443".parse().unwrap()];
    store.save(&world.profile, false).unwrap();
    let world = world.begin();
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let saved = store.load(&"home".parse().unwrap()).unwrap().addresses;
    let expected: [SocketAddr; 3] = ["192.0.2.9:4443", "192.0.2.1:4443", "192.0.2.77:4443"].map(|a| a.parse().unwrap());
    assert_eq!(saved, expected, "the one that worked, those of the name, those known before");
}

#[tokio::test(start_paused = true)]
async fn full_tunnel_counts_as_connected_only_with_its_routes() {
    let world = World::start(PATIENCE);
    let bare = NetworkSettings { routes: Vec::new(), ..settings("10.64.3.2/32") };
    let all = ConnectionEvent::Network(settings("10.64.3.2/32"));
    let _gateway = world.accept_saying([ConnectionEvent::Network(bare), ConnectionEvent::Mtu(1400), all]).await;
    let mut snapshots = world.session.snapshots();
    let connected = snapshots.wait_for(|snapshot| snapshot.state == State::Connected).await.unwrap().clone();
    assert_eq!((connected.network, connected.mtu), (Some(settings("10.64.3.2/32")), 1400));
}

#[tokio::test(start_paused = true)]
async fn what_other_programs_change_on_the_host_is_in_the_status() {
    let (host, interfere, undone) = ScriptedHost::new();
    let world = Prepared { host: Some(host), ..World::prepare(PATIENCE, None) }.begin();
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let handle = world.session.handle();
    assert_eq!(handle.status().await.unwrap().guards, []);
    let (guard, reason) = ("IPv4 rule 5300".to_owned(), "was removed".to_owned());
    let mended = vec![GuardStatus { guard, state: GuardState::Mended, reason, times: 1 }];
    interfere.send(mended.clone()).await.unwrap();
    while handle.status().await.unwrap().guards != mended {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    handle.stop().await;
    world.session.wait().await.unwrap();
    assert_eq!(undone.load(Ordering::Relaxed), 1);
}

/// How often the host is undone when the device of a session with these routes is deleted.
async fn undone_without_device(routes: &str) -> usize {
    let (host, _interfere, undone) = ScriptedHost::new();
    let world = Prepared { host: Some(host), ..World::prepare(PATIENCE, None) }.begin();
    let routes = vec![RouteRange::from(routes.parse::<IpNet>().unwrap())];
    let gateway = world.accept_with(NetworkSettings { routes, ..settings("10.64.3.2/32") }).await;
    world.reach(State::Connected).await;
    let deleted = io::Error::new(io::ErrorKind::NotFound, "the device was deleted");
    gateway.send(ConnectionEvent::Closed(ConnectError::Source(deleted))).await.unwrap();
    world.session.wait().await.unwrap_err();
    undone.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn full_tunnel_without_its_device_stays_closed_and_a_split_one_is_undone() {
    assert_eq!(undone_without_device("0.0.0.0/0").await, 0);
    assert_eq!(undone_without_device("10.0.0.0/8").await, 1);
}

fn without_routes(address: &str) -> NetworkSettings {
    NetworkSettings { routes: Vec::new(), ..settings(address) }
}

#[tokio::test(start_paused = true)]
async fn full_tunnel_stays_full_through_a_reconnect_until_the_gateway_says_otherwise() {
    let world = World::start(PATIENCE);
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    gateway.send(lost()).await.unwrap();
    world.reach(State::Reconnecting).await;
    let gateway = world.accept_with(without_routes("10.64.3.9/32")).await;
    world.reach(State::Connected).await;
    let mut snapshots = world.session.snapshots();
    assert_eq!(snapshots.borrow().network, Some(settings("10.64.3.9/32")));

    let none = NetworkSettings { has_no_routes: true, ..without_routes("10.64.3.9/32") };
    gateway.send(ConnectionEvent::Network(none.clone())).await.unwrap();
    drop(snapshots.wait_for(|snapshot| snapshot.network.as_ref() == Some(&none)).await.unwrap());
    assert!(world.session.handle().status().await.unwrap().routes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn profile_remembers_that_its_tunnel_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let store = ProfileStore::new(directory.path());
    let prepare = || World::prepare(PATIENCE, Some(store.clone()));
    store.save(&prepare().profile, false).unwrap();
    let profile = || store.load(&"home".parse().unwrap()).unwrap();
    let mut first = prepare();
    first.profile = profile();
    let world = first.begin();
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    assert!(profile().full_tunnel);
    world.session.handle().stop().await;
    world.session.wait().await.unwrap();

    let world = Prepared { profile: profile(), ..prepare() }.begin();
    let _gateway = world.accept_with(without_routes("10.64.3.2/32")).await;
    world.reach(State::Connected).await;
    let routes = world.session.handle().status().await.unwrap().routes;
    assert_eq!(routes, ["0.0.0.0/0".parse::<IpNet>().unwrap()], "before the gateway told any");
}
