//! What one message begins and the next goes on with is written in one piece.

use adit_proto::packet::ecn;

use super::scene::{SEGMENTS, Scene};
use super::*;

/// Has the packets of a scene come in messages of so many.
fn arrive_in(scene: &Scene, count: usize) {
    for packets in scene.packets.chunks(count) {
        scene.peer.send_packets(packets, false);
    }
}

/// Has a flow come in messages of so many packets, which are held together.
fn reaches_the_kernel_in_one_piece(count: usize) {
    in_namespace(move || {
        let mut scene = Scene::new(ecn::NOT_ECT);
        arrive_in(&scene, count);
        (0..SEGMENTS / count).for_each(|_| assert!(scene.hold()));
        nothing_comes(&scene.inside);
        scene.flush();
        let (received, messages) = datagrams(&scene.inside, SEGMENTS);
        assert!(received.into_iter().zip(0..).all(|(payload, number)| payload == content(1300, number)));
        assert_eq!(messages, 1);
        assert_eq!(scene.session.carriers.counters().traffic().drops, []);
    });
}

#[test]
fn flow_that_goes_on_in_the_next_message_reaches_the_kernel_in_one_piece() {
    reaches_the_kernel_in_one_piece(SEGMENTS / 4);
}

#[test]
fn flow_whose_packets_come_one_by_one_reaches_the_kernel_in_one_piece() {
    reaches_the_kernel_in_one_piece(1);
}

#[test]
fn no_more_is_held_than_there_is_room_for() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::NOT_ECT);
        // Messages of 40 packets have about 54 KB, so that the room is for four.
        scene.arrive(9);
        (0..9).for_each(|_| assert!(scene.hold()));
        let written = scene.came_in().len();
        assert_eq!(written, 8, "the ninth message waits alone");
        scene.flush();
        assert_eq!(scene.came_in().concat().len(), SEGMENTS);
        (0..2).for_each(|_| arrive_in(&scene, 1));
        (0..2 * SEGMENTS).for_each(|_| assert!(scene.hold()));
        let written = scene.came_in().concat().len();
        assert_eq!(written, 64, "no more messages than that are held, however short they are");
        assert_eq!(scene.session.carriers.counters().traffic().drops, []);
    });
}
