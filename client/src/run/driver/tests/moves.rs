//! Hosts that move, in a network of their own.

use adit_testing::eventually;
use adit_testing::namespace::{in_namespace_async, ip};
use tokio::time::timeout;

use super::world::{Prepared, World};
use super::*;
use crate::ways::ways;

const MARK: u32 = 0x16;
/// Longer than it takes a session to look around.
const A_WHILE: Duration = Duration::from_secs(1);

/// A host with a cable to its gateway's network, and a connected session on it; with the connection's other end.
async fn connected(outlives_moves: bool) -> (World, mpsc::Sender<ConnectionEvent>) {
    for command in [
        "link add eth0 type veth peer name gateway0",
        "link set gateway0 up",
        "link set eth0 up",
        "address add 192.0.2.20/24 dev eth0",
    ] {
        ip(command);
    }
    let gateway = "192.0.2.9:4443".parse().unwrap();
    eventually("there is a way to the gateway", || ways([gateway], MARK)[&gateway]);
    let mut world = Prepared { mark: Some(MARK), ..World::prepare(PATIENCE, None) }.begin();
    world.outlives_moves = outlives_moves;
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    (world, gateway)
}

fn get_another_address() {
    ip("address del 192.0.2.20/24 dev eth0");
    ip("address add 192.0.2.21/24 dev eth0");
}

#[test]
fn connection_that_does_not_outlive_a_move_serves_until_another_takes_its_place() {
    in_namespace_async(|| async {
        let (world, first) = connected(false).await;
        let mut snapshots = world.session.snapshots();
        assert_eq!(snapshots.borrow_and_update().state, State::Connected);
        get_another_address();
        assert!(timeout(A_WHILE, first.closed()).await.is_err(), "there is no other connection yet");
        let second = world.accept("10.64.3.2/32").await;
        timeout(PATIENCE, first.closed()).await.expect("the second takes the place of the first");
        assert!(!snapshots.has_changed().unwrap(), "the session was connected all the time");
        second.send(lost()).await.unwrap();
        world.reach(State::Reconnecting).await;
    });
}

#[test]
fn connection_that_outlives_moves_is_replaced_only_while_it_has_no_way() {
    in_namespace_async(|| async {
        let (world, first) = connected(true).await;
        get_another_address();
        tokio::time::sleep(A_WHILE).await;
        let _second = world.accept("10.64.3.2/32").await;
        assert!(timeout(A_WHILE, first.closed()).await.is_err(), "it goes on by itself");
        ip("address del 192.0.2.21/24 dev eth0");
        timeout(PATIENCE, first.closed()).await.expect("the second takes the place of the first");
    });
}

#[tokio::test(start_paused = true)]
async fn silent_connection_serves_until_another_takes_its_place_or_it_is_answered_again() {
    let world = World::start(PATIENCE);
    let first = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let mut snapshots = world.session.snapshots();
    assert_eq!(snapshots.borrow_and_update().state, State::Connected);
    first.send(ConnectionEvent::Silent(true)).await.unwrap();
    tokio::time::sleep(A_WHILE / 2).await;
    assert_eq!(world.attempts(), 2, "another one is being made at once");
    assert!(!first.is_closed() && world.makes_way.load(Ordering::Relaxed), "the first makes none itself meanwhile");
    let second = world.accept("10.64.3.2/32").await;
    timeout(PATIENCE, first.closed()).await.expect("the second takes the place of the first");
    assert!(!snapshots.has_changed().unwrap(), "the session was connected all the time");

    second.send(ConnectionEvent::Silent(true)).await.unwrap();
    tokio::time::sleep(PATIENCE).await;
    let tried = world.attempts();
    assert!(tried > 3, "it is tried again and again while nothing is answered");
    second.send(ConnectionEvent::Silent(false)).await.unwrap();
    tokio::time::sleep(PATIENCE).await;
    assert!(world.attempts() == tried && !second.is_closed(), "{} attempts", world.attempts());
    assert!(!world.makes_way.load(Ordering::Relaxed), "the second may go over to another by itself again");
}
