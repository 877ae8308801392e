//! A queue that stands in front of a worker is told to the senders.

use adit_proto::packet::ecn;

use super::scene::{SEGMENTS, Scene};
use super::*;

#[test]
fn single_packets_are_marked_whose_ends_know_ecn() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::ECT_0);
        scene.arrive(20);
        let began = Instant::now();
        scene.stand_until(|_| began.elapsed() > Duration::from_millis(30));
        while scene.take() {}
        let messages = scene.came_in();
        assert_eq!(
            (messages.concat().len(), scene.session.carriers.counters().traffic().drops),
            (scene.messages * SEGMENTS, vec![])
        );
        let marks = |message: &Vec<u8>| message.iter().filter(|&&bits| bits == ecn::CE).count();
        assert_eq!(messages.iter().map(marks).max(), Some(1));
        // The first ones came before the queue stood; the first of a message is marked, so that its sender hears
        // soonest.
        assert_eq!(marks(&messages[0]), 0);
        assert!(messages.iter().all(|message| message[1..] == [ecn::ECT_0; SEGMENTS - 1]));
    });
}

#[test]
fn single_packets_are_lost_whose_ends_do_not() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::NOT_ECT);
        scene.arrive(20);
        scene.stand_until(|scene| scene.lost(DropReason::CongestionExperienced) >= 2);
        while scene.take() {}
        let lost = scene.lost(DropReason::CongestionExperienced);
        assert!(lost < scene.messages, "{lost} packets of {} messages", scene.messages);
        assert_eq!(scene.came_in().concat().len() + lost, scene.messages * SEGMENTS);
    });
}

#[test]
fn sign_waits_for_a_packet_that_can_bear_it() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::ECT_0);
        let first = scene.peer.seal(&scene.packets, false);
        let len = first.len() / SEGMENTS;
        scene.peer.send(&first, len, 0);
        assert!(scene.take());
        let replay = &first[..len];
        let send = |scene: &Scene| {
            let sealed = scene.peer.seal(&scene.packets, false);
            let mut forged = sealed[..len].to_vec();
            forged[len - 1] ^= 1;
            scene.peer.send(&[&forged[..], replay, &sealed[len..]].concat(), len, 0);
        };
        (0..20).for_each(|_| send(&scene));
        let is_marked = (0..10_000).any(|_| {
            send(&scene);
            assert!(scene.take());
            scene.came_in().concat().contains(&ecn::CE)
        });
        assert!(is_marked);
    });
}

#[test]
fn lone_messages_cost_nothing_however_late_the_worker_is() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::NOT_ECT);
        for _ in 0..20 {
            scene.arrive(1);
            thread::sleep(Duration::from_millis(5));
            // It never looks for a second one.
            assert!(scene.take());
        }
        assert_eq!(scene.came_in().concat().len(), scene.messages * SEGMENTS);
    });
}

#[test]
fn what_waits_too_long_for_a_sign_to_help_is_lost() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::NOT_ECT);
        scene.arrive(60);
        scene.stand_until(|scene| scene.lost(DropReason::QueueFull) > 0);
        assert_eq!(scene.lost(DropReason::QueueFull), SEGMENTS);
        assert_eq!(scene.lost(DropReason::CongestionExperienced), 16, "signs come first");
        // What comes later passes again.
        while scene.take() {}
        scene.came_in();
        scene.arrive(1);
        assert!(scene.take());
        assert_eq!(scene.came_in(), [[ecn::NOT_ECT; SEGMENTS]]);
    });
}
