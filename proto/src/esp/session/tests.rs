mod world;

use std::time::Duration;

use adit_netem::Link;

use super::*;
use crate::esp::capsule::Group;
use crate::esp::rekey::RETIRE_AFTER;
use crate::sealing::suite::Suite;
use world::{LARGEST, World, answer, attacker, gateway, home, ms, policy, roaming, seconds};

/// Networks from none to a bad one: nothing, a home's, a slow one, one that loses much and mixes up what it does not
/// lose.
fn networks() -> [Link; 4] {
    let link = |delay_ms, jitter_ms| Link { delay_ms, jitter_ms, ..Link::default() };
    [
        link(0.0, 0.0),
        link(12.0, 4.0),
        Link { loss_percent: 1.0, reorder_percent: 3.0, reorder_ms: 20.0, duplicate_percent: 1.0, ..link(60.0, 40.0) },
        Link { loss_percent: 10.0, reorder_percent: 5.0, reorder_ms: 60.0, duplicate_percent: 2.0, ..link(25.0, 50.0) },
    ]
}

#[test]
fn path_comes_up_on_both_ends() {
    let mut world = World::usual();
    assert_eq!(world.by_esp(), [false, false]);
    world.run(ms(20));
    assert_eq!(world.by_esp(), [true, true]);
    assert_eq!((world.client.route_to(), world.server.route_to()), (Some(gateway()), Some(home())));
    assert_eq!(world.client.session.state(), PathState::Up);
    assert_eq!(world.server.route_from(), Some(3), "where the client's packets arrive");
    world.server.origin = 1;
    world.run_busy(seconds(2));
    assert_eq!(world.server.route_from(), Some(1), "wherever that is");
}

#[test]
fn path_comes_up_and_stays_on_bad_networks() {
    for (seed, link) in networks().into_iter().cycle().take(16).enumerate() {
        let mut world = World::new(answer(), [policy(), policy()], &link, seed as u64);
        world.run(seconds(5));
        assert_eq!(world.by_esp(), [true, true], "{link:?}");
        world.run_busy(seconds(30));
        assert_eq!(world.by_esp(), [true, true], "{link:?}");
    }
}

#[test]
fn largest_packet_is_found() {
    let mut world = World::usual();
    world.client.passes = 1400;
    world.run_busy(seconds(20));
    assert_eq!(world.server.mtu(), Some(LARGEST), "what the caller permits");
    let found = world.client.mtu().unwrap();
    assert!(packet::sealed_len(usize::from(found)) <= 1400 && found > 1350, "{found}");
}

#[test]
fn packets_do_not_shrink_for_the_round_trip_that_finds_their_size() {
    let mut world = World::new(answer(), [policy(), policy()], &networks()[1], 1);
    world.run(seconds(1));
    assert_eq!([world.client.smallest_mtu, world.server.smallest_mtu], [Some(LARGEST); 2]);
}

#[test]
fn refused_datagram_makes_packets_smaller_and_one_refusal_counts_once() {
    let mut world = World::usual();
    world.run_busy(seconds(5));
    assert_eq!(world.client.mtu(), Some(LARGEST));
    world.client.passes = 1400;
    let refused = u16::try_from(packet::sealed_len(usize::from(LARGEST))).unwrap();
    for _ in 0..3 {
        world.client.session.handle_hints(Hints { too_big: Some(refused), ..Hints::default() }, world.now);
        world.run(ms(1));
        assert!((IPV6_MIN_MTU..LARGEST).contains(&world.client.mtu().unwrap()));
        assert_eq!(world.by_esp(), [true, true]);
    }
    world.run_busy(seconds(20));
    let found = world.client.mtu().unwrap();
    assert!(packet::sealed_len(usize::from(found)) <= 1400 && found > 1350, "{found}");
}

#[test]
fn probe_that_the_system_refuses_is_not_tried_again() {
    let mut world = World::usual();
    world.client.interface = 1404;
    world.run_busy(seconds(20));
    let found = world.client.mtu().unwrap();
    assert!(packet::sealed_len(usize::from(found)) <= 1404 && found > 1350, "{found}");
    let refused = &world.client.refused;
    assert!(refused.len() > 1 && refused.is_sorted_by(|before, after| before > after), "only smaller: {refused:?}");
    assert_eq!(world.by_esp(), [true, true]);
}

#[test]
fn path_too_narrow_for_the_least_packet_is_not_used() {
    let mut world = World::usual();
    world.client.passes = 1300;
    world.run_busy(seconds(60));
    assert_eq!(world.by_esp(), [false, true]);
    assert_eq!([&world.client, &world.server].map(|end| end.session.is_too_narrow()), [true, false]);
}

#[test]
fn path_that_becomes_too_narrow_is_left_within_three_seconds_and_one_that_breaks_is_not_called_narrow() {
    let mut world = World::usual();
    world.run_busy(seconds(5));
    world.client.passes = 1300;
    let left = world.run_busy(seconds(10)).unwrap();
    assert!(left < seconds(3), "{left:?}");
    assert_eq!((world.by_esp(), world.client.session.is_too_narrow()), ([false, true], true));
    let mut world = World::usual();
    world.run_busy(seconds(5));
    world.block(true);
    world.run_busy(seconds(10));
    assert_eq!((world.client.session.state(), world.client.session.is_too_narrow()), (PathState::Down, false));
}

#[test]
fn packets_are_marked_once_marks_have_passed_and_while_they_do() {
    let marked = |world: &World| [&world.client, &world.server].map(|end| end.route.as_ref().map(|route| route.marked));
    let mut world = World::usual();
    world.client.drops_marks = true;
    world.run_busy(seconds(5));
    assert_eq!(marked(&world), [Some(false), Some(true)], "each direction for itself");
    world.client.drops_marks = false;
    world.server.drops_marks = true;
    world.run_busy(seconds(65));
    assert_eq!(marked(&world), [Some(true), Some(false)]);
    assert_eq!(world.by_esp(), [true, true]);
}

#[test]
fn packets_pass_through_thirty_rekeys_without_a_failed_open() {
    for (number, link) in networks().into_iter().enumerate() {
        for rekeys_at_server in [false, true] {
            let often = RekeyPolicy { after: seconds(1), ..policy() };
            let policies = if rekeys_at_server { [policy(), often] } else { [often, policy()] };
            let negotiated = Answer { group: Group::X25519MlKem768, ..answer() };
            let mut world = World::new(negotiated, policies, &link, number as u64);
            world.run(seconds(2));
            world.run_busy(seconds(40));
            // What is on its way arrives.
            world.run(seconds(1));
            for end in [&world.client, &world.server] {
                assert_eq!(end.failed, 0, "{link:?}");
                assert!(end.epoch >= Some(30), "{:?} {link:?}", end.epoch);
                assert!(end.inbound.len() <= 16, "old epochs go");
            }
            let lost = world.sent - world.client.opened - world.server.opened;
            assert!(lost <= world.lost(), "{lost} of {}: only what the network lost", world.sent);
        }
    }
}

#[test]
fn lifetime_by_packets_ends_too() {
    let few = RekeyPolicy { packets: 500, ..policy() };
    let mut world = World::new(answer(), [few, policy()], &Link::default(), 1);
    world.run(ms(20));
    assert_eq!(world.run_busy(seconds(10)), None);
    assert!(world.client.epoch >= Some(1));
    assert_eq!(world.client.failed + world.server.failed, 0);
}

#[test]
fn blocked_from_the_start_never_comes_up() {
    let mut world = World::usual();
    world.block(true);
    assert_eq!(world.run_busy(seconds(70)), Some(Duration::ZERO));
    assert_eq!(world.by_esp(), [false, false]);
    world.block(false);
    world.run(seconds(20));
    assert_eq!(world.by_esp(), [true, true], "but is tried again");
}

#[test]
fn blocked_later_is_left_within_three_seconds_and_returns() {
    for link in networks().into_iter().take(3) {
        let mut world = World::new(answer(), [policy(), policy()], &link, 7);
        world.run(seconds(3));
        assert_eq!(world.run_busy(seconds(5)), None, "{link:?}");
        world.block(true);
        let stopped = world.run_busy(seconds(6)).unwrap();
        assert!(stopped <= seconds(3), "{stopped:?}");
        assert_eq!(world.by_esp(), [false, false]);
        world.block(false);
        world.run(seconds(17));
        assert_eq!(world.by_esp(), [true, true]);
        assert_eq!(world.run_busy(seconds(5)), None);
    }
}

#[test]
fn idle_path_is_kept_alive_by_the_client_alone() {
    let mut world = World::usual();
    world.run(seconds(3));
    let before = [world.client.sent_to(gateway()), world.server.sent_to(home())];
    world.run(seconds(16 * 60));
    let probes = world.client.sent_to(gateway()).len() - before[0].len();
    assert!((3..=5).contains(&probes), "{probes}");
    assert_eq!(world.server.sent_to(home()).len() - before[1].len(), probes, "answers");
}

#[test]
fn server_follows_the_client_only_after_a_probe() {
    let mut world = World::usual();
    world.run(seconds(3));
    world.client.address = roaming();
    // What the server sends does not arrive, so no probe is answered.
    world.server.blocked = true;
    assert!(world.send_packet_from_client());
    world.run(ms(10));
    assert_eq!(world.server.route_to(), Some(home()));
    assert!(!world.server.sent_to(roaming()).is_empty(), "it is probed");
    world.server.blocked = false;
    world.run(ms(500));
    assert_eq!(world.server.route_to(), Some(roaming()));
}

#[test]
fn rebind_moves_the_session_at_once() {
    let mut world = World::usual();
    world.run(seconds(3));
    world.client.address = roaming();
    let now = world.now;
    world.client.session.handle_rebind(now);
    world.run(ms(20));
    assert_eq!((world.by_esp(), world.server.route_to()), ([true, true], Some(roaming())));
}

#[test]
fn client_that_moves_while_keys_change_is_followed_at_once() {
    let mut world = World::usual();
    world.run(seconds(3));
    // The server has heard the new keys, and the client has heard nothing of that.
    world.server.blocked = true;
    let now = world.now;
    world.client.session.handle_hints(Hints { rekey: true, ..Hints::default() }, now);
    world.run(ms(700));
    assert_eq!((world.client.epoch, world.server.epoch), (Some(0), Some(1)));
    world.server.blocked = false;
    world.client.address = roaming();
    let now = world.now;
    world.client.session.handle_rebind(now);
    world.run(ms(20));
    assert_eq!((world.by_esp(), world.server.route_to()), ([true, true], Some(roaming())));
}

#[test]
fn replay_from_elsewhere_moves_nothing_and_gets_little() {
    let mut world = World::usual();
    world.run(seconds(3));
    // What was seen once is dropped.
    for datagram in world.client.sent_to(gateway()) {
        world.deliver_to_server(attacker(), datagram);
    }
    world.run(seconds(3));
    assert!(world.server.sent_to(attacker()).is_empty());
    // A packet that the attacker holds back and sends in its own name.
    world.client.blocked = true;
    assert!(world.send_packet_from_client());
    world.client.blocked = false;
    let stolen = world.client.sent_to(gateway()).pop().unwrap();
    let received = stolen.len();
    world.deliver_to_server(attacker(), stolen);
    world.run_busy(seconds(5));
    assert_eq!(world.server.route_to(), Some(home()));
    let sent: usize = world.server.sent_to(attacker()).iter().map(Vec::len).sum();
    assert!(sent > 0 && sent <= 3 * received, "{sent} bytes for {received}");
}

#[test]
fn end_retires_every_index_and_the_route() {
    let often = RekeyPolicy { after: seconds(1), ..policy() };
    let mut world = World::new(answer(), [often, policy()], &Link::default(), 1);
    world.run_busy(seconds(5));
    for end in [&mut world.client, &mut world.server] {
        assert!(end.inbound.len() > 1 && end.route.is_some());
        end.session.handle_closed();
        end.execute(world.now);
        assert!(end.claimed.is_empty() && end.inbound.is_empty() && end.route.is_none());
    }
}

#[test]
fn end_after_a_failed_command_retires_what_waited_behind_it() {
    let often = RekeyPolicy { after: seconds(1), ..policy() };
    let mut world = World::new(answer(), [often, policy()], &Link::default(), 1);
    world.run_busy(seconds(5));
    let (client, late) = (&mut world.client, world.now + RETIRE_AFTER);
    assert!(client.inbound.len() > 1);
    client.lacks_indices = true;
    // After a pause as on a host that slept, new keys are due at the same time as the end of the old ones.
    client.session.handle_timeout(late);
    client.execute(late);
    let mut left = client.session.commands.iter();
    assert!(left.any(|command| matches!(command, Command::Retire(_))), "the failure left one behind");
    client.session.handle_closed();
    client.execute(late);
    assert!(client.claimed.is_empty() && client.inbound.is_empty() && client.route.is_none());
}

#[test]
fn closed_session_sends_tells_and_wants_nothing_more() {
    let mut world = World::usual();
    world.run_busy(seconds(3));
    let hints = Hints { sent: true, doubt: true, too_big: Some(1472), rekey: true };
    let report = Report { epoch: 0, from: attacker(), origin: 3, len: 100, newest: true, probe: None };
    for end in [&mut world.client, &mut world.server] {
        end.session.handle_closed();
        end.execute(world.now);
        for later in [ms(0), seconds(2), seconds(4000)] {
            let now = world.now + later;
            end.session.handle_hints(hints, now);
            end.session.handle_rebind(now);
            end.session.handle_report(&report, now);
            end.session.handle_timeout(now);
            assert_eq!(end.session.poll_timeout(now), None);
            assert!(end.session.poll_command().is_none() && end.session.poll_transmit().is_none());
        }
    }
}

#[test]
fn index_of_an_epoch_that_never_came_is_given_back() {
    let mut world = World::usual();
    assert_eq!(world.client.claimed.len(), 1);
    world.client.session.handle_closed();
    world.client.execute(world.now);
    assert!(world.client.claimed.is_empty());
}

#[test]
fn capsule_against_the_rules_ends_the_session() {
    let mut world = World::usual();
    world.run(ms(20));
    let outcome = world.server.session.handle_capsule(EspCapsule::RekeyRequest(1), world.now);
    assert_eq!(outcome, Err(RekeyError::Unexpected), "only a server asks for keys");
}

#[test]
fn ends_with_different_secrets_never_come_up() {
    let mut world = World::with_secrets([[7; 32], [8; 32]]);
    world.run(seconds(10));
    assert_eq!(world.by_esp(), [false, false]);
    assert!(world.client.failed + world.server.failed > 0);
}

#[test]
fn negotiated_suite_and_vouching_are_those_of_the_route() {
    for suite in Suite::ALL {
        for vouched in [false, true] {
            let negotiated = Answer { suite, vouched, ..answer() };
            let mut world = World::new(negotiated, [policy(), policy()], &Link::default(), 1);
            world.run(ms(20));
            for end in [&world.client, &world.server] {
                let route = end.route.as_ref().unwrap();
                assert_eq!((route.sa.suite(), route.vouched), (suite, vouched));
            }
        }
    }
}
