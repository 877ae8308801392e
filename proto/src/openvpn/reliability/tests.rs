use super::*;
use crate::openvpn::wire::KeyId;
use crate::sealing::test_cipher::start;

mod world;

const HERE: SessionId = SessionId([1; 8]);
const THERE: SessionId = SessionId([2; 8]);

fn packet(acks: &[u32], message: Option<u32>) -> Packet {
    let message = message.map(|number| {
        let payload = number.to_be_bytes().to_vec();
        Message { kind: Kind::Control, number, payload }
    });
    Outgoing { acks: acks.to_vec(), message }.packet(KeyId::FIRST, THERE, HERE)
}

fn numbers(end: &mut Reliability, now: Instant) -> Vec<Option<u32>> {
    std::iter::from_fn(|| end.poll_transmit(now)).map(|out| out.message.map(|message| message.number)).collect()
}

fn received(end: &mut Reliability) -> Vec<u32> {
    std::iter::from_fn(|| end.poll_message()).map(|message| message.number).collect()
}

fn sending(count: usize) -> Reliability {
    let mut end = Reliability::new(0);
    (0..count).for_each(|_| end.handle_send(Kind::Control, vec![7]).unwrap());
    end
}

#[test]
fn window_moves_with_the_oldest_message_that_is_not_acknowledged() {
    let (now, mut end) = (start(), sending(10));
    assert_eq!(numbers(&mut end, now), [0, 1, 2, 3, 4, 5].map(Some));
    end.handle_packet(packet(&[1, 2], None)).unwrap();
    assert!(numbers(&mut end, now).is_empty(), "0 is missing, and the peer keeps what follows it");
    end.handle_packet(packet(&[0], None)).unwrap();
    assert_eq!(numbers(&mut end, now), [6, 7, 8].map(Some));
    end.handle_packet(packet(&[3, 4, 5, 6, 7, 8], None)).unwrap();
    assert_eq!(numbers(&mut end, now), [Some(9)]);
    assert!(!end.is_settled());
    end.handle_packet(packet(&[9], None)).unwrap();
    assert!(end.is_settled());
    assert_eq!(end.poll_timeout(), None);
}

#[test]
fn pauses_double_up_to_the_longest() {
    let (mut now, mut end) = (start(), sending(1));
    assert_eq!(numbers(&mut end, now), [Some(0)]);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let due = end.poll_timeout().unwrap();
        end.handle_timeout(due - Duration::from_millis(1));
        assert!(numbers(&mut end, now).is_empty(), "not before it is due");
        pauses.push((due - now).as_secs());
        now = due;
        end.handle_timeout(now);
        assert_eq!(numbers(&mut end, now), [Some(0)]);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 16]);
}

#[test]
fn message_that_three_later_ones_overtook_is_sent_again_at_once() {
    let (now, mut end) = (start(), sending(5));
    assert_eq!(numbers(&mut end, now).len(), 5);
    end.handle_packet(packet(&[1, 2], None)).unwrap();
    end.handle_packet(packet(&[1, 2], None)).unwrap();
    assert!(numbers(&mut end, now).is_empty(), "an acknowledgement that is repeated says nothing new");
    end.handle_packet(packet(&[3], None)).unwrap();
    assert_eq!(numbers(&mut end, now), [Some(0)]);
    end.handle_packet(packet(&[4], None)).unwrap();
    assert!(numbers(&mut end, now).is_empty(), "it counts anew");
}

#[test]
fn message_is_acknowledged_at_once_and_again_when_it_comes_again() {
    let (now, mut end) = (start(), Reliability::new(0));
    end.handle_packet(packet(&[], Some(0))).unwrap();
    assert_eq!(end.poll_transmit(now), Some(Outgoing { acks: vec![0], message: None }));
    assert_eq!(end.poll_transmit(now), None);
    assert_eq!(end.handle_packet(packet(&[], Some(0))), Err(DropReason::Replayed));
    assert_eq!(end.poll_transmit(now), Some(Outgoing { acks: vec![0], message: None }));
    assert_eq!(received(&mut end), [0]);
}

#[test]
fn acknowledgements_ride_on_messages_four_at_a_time_and_alone_eight() {
    let (now, mut end) = (start(), sending(1));
    (0..12).for_each(|number| end.handle_packet(packet(&[], Some(number))).unwrap());
    let sent: Vec<_> = std::iter::from_fn(|| end.poll_transmit(now)).collect();
    assert_eq!(sent.iter().map(|out| out.message.is_some()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(sent[0].acks, [3, 2, 1, 0]);
    assert_eq!(sent[1].acks, [11, 10, 9, 8, 7, 6, 5, 4]);
}

#[test]
fn former_acknowledgements_are_repeated_beside_new_ones() {
    let (now, mut end) = (start(), Reliability::new(0));
    end.handle_packet(packet(&[], Some(0))).unwrap();
    end.poll_transmit(now).unwrap();
    end.handle_packet(packet(&[], Some(1))).unwrap();
    assert_eq!(end.poll_transmit(now).unwrap().acks, [1, 0]);
    end.handle_send(Kind::Control, vec![7]).unwrap();
    assert_eq!(end.poll_transmit(now).unwrap().acks, [1, 0]);
}

#[test]
fn messages_come_in_order_and_those_too_far_ahead_are_dropped() {
    let mut end = Reliability::new(0);
    end.handle_packet(packet(&[], Some(2))).unwrap();
    end.handle_packet(packet(&[], Some(1))).unwrap();
    assert_eq!(end.handle_packet(packet(&[], Some(2))), Err(DropReason::Replayed));
    assert_eq!(end.handle_packet(packet(&[], Some(12))), Err(DropReason::QueueFull));
    assert!(received(&mut end).is_empty());
    end.handle_packet(packet(&[], Some(0))).unwrap();
    assert_eq!(received(&mut end), [0, 1, 2]);
    assert_eq!(end.poll_transmit(start()).unwrap().acks, [0, 1, 2], "what was dropped is not acknowledged");
}

#[test]
fn storm_of_acknowledgements_changes_nothing() {
    let (now, mut end) = (start(), sending(3));
    numbers(&mut end, now);
    for round in 0..10_000_u32 {
        let acks: Vec<u32> = (3..11).map(|number| number + round * 8).collect();
        end.handle_packet(packet(&acks, None)).unwrap();
        assert_eq!(end.poll_transmit(now), None);
    }
    assert_eq!(end.waiting.len(), 3);
}

#[test]
fn message_that_was_never_sent_cannot_be_acknowledged() {
    let (now, mut end) = (start(), sending(8));
    end.handle_packet(packet(&[0], None)).unwrap();
    assert_eq!(numbers(&mut end, now).len(), 6);
    end.handle_packet(packet(&[6, 7], None)).unwrap();
    assert_eq!(end.waiting.len(), 8);
}

#[test]
fn storm_of_old_messages_is_answered_once_each_and_kept_in_bounds() {
    let (now, mut end) = (start(), Reliability::new(0));
    for number in 0..100 {
        end.handle_packet(packet(&[], Some(number))).unwrap();
        while end.poll_message().is_some() {}
    }
    while end.poll_transmit(now).is_some() {}
    for number in (0..100).cycle().take(10_000) {
        assert_eq!(end.handle_packet(packet(&[], Some(number))), Err(DropReason::Replayed));
    }
    assert_eq!(end.owed.len(), MAX_OWED);
    assert_eq!(std::iter::from_fn(|| end.poll_transmit(now)).count(), MAX_OWED / MAX_ACKS);
}

#[test]
fn what_has_no_room_is_refused_whole() {
    let mut end = sending(MAX_WAITING - 2);
    assert_eq!(end.handle_stream(&[0; 250], 100), Err(Full));
    assert_eq!(end.waiting.len(), MAX_WAITING - 2);
    assert_eq!(end.handle_stream(&[0; 200], 100), Ok(()));
    assert_eq!(end.handle_send(Kind::Control, Vec::new()), Err(Full));
}

#[test]
fn message_that_is_too_large_is_dropped() {
    let mut end = Reliability::new(0);
    let of = |len| {
        let message = Some(Message { kind: Kind::Control, number: 0, payload: vec![0; len] });
        Packet { message, ..packet(&[], None) }
    };
    assert_eq!(end.handle_packet(of(MAX_PAYLOAD + 1)), Err(DropReason::BadLength));
    assert_eq!(end.handle_packet(of(MAX_PAYLOAD)), Ok(()));
}

#[test]
fn transport_that_goes_on_after_the_resets_begins_with_the_next_number() {
    let mut end = Reliability::new(1);
    assert_eq!(end.handle_packet(packet(&[0], Some(0))), Err(DropReason::Replayed));
    end.handle_packet(packet(&[], Some(1))).unwrap();
    end.handle_send(Kind::Control, Vec::new()).unwrap();
    assert_eq!(numbers(&mut end, start()), [Some(1)]);
}
