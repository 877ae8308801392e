use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

pub(crate) const KINDS: [Kind; 6] = [
    Kind::SoftReset,
    Kind::Control,
    Kind::ResetClient,
    Kind::ResetServer,
    Kind::ResetClientWithKey,
    Kind::ControlWithKey,
];

pub(crate) fn packets() -> impl Strategy<Value = Packet> {
    let acks = (any::<[u8; 8]>(), proptest::collection::vec(any::<u32>(), 0..=MAX_ACKS));
    let message =
        (proptest::sample::select(KINDS.to_vec()), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..40));
    (0..8_u8, any::<[u8; 8]>(), acks, proptest::option::of(message)).prop_map(|(key, session, acks, message)| {
        let message = message.map(|(kind, number, payload)| Message { kind, number, payload });
        let numbers = if message.is_none() && acks.1.is_empty() { vec![7] } else { acks.1 };
        let acks = Acks::new(SessionId(acks.0), numbers);
        Packet { key: KeyId::new(key).unwrap(), session: SessionId(session), acks, message }
    })
}

fn parse(packet: &[u8]) -> Result<Packet, DropReason> {
    let (preface, body) = packet.split_first_chunk().ok_or(DropReason::Truncated)?;
    Packet::parse(preface, body)
}

fn encode(packet: &Packet) -> Vec<u8> {
    [&packet.preface()[..], &packet.body()].concat()
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
}

#[test]
fn first_byte_holds_opcode_and_key_id() {
    for opcode in Opcode::ALL {
        for key in 0..8 {
            let head = Head { opcode, key: KeyId::new(key).unwrap() };
            assert_eq!(Head::parse(&[head.encode()]), Ok(head));
        }
    }
    assert_eq!(Head { opcode: Opcode::Message(Kind::ResetClient), key: KeyId::FIRST }.encode(), 0x38);
    assert_eq!(Head { opcode: Opcode::DataV2, key: KeyId(1) }.encode(), 0x49);
    for number in [0, 1, 2, 12, 31] {
        assert_eq!(Head::parse(&[number << 3]), Err(DropReason::BadControlPacket));
    }
    assert_eq!(Head::parse(&[]), Err(DropReason::Truncated));
}

#[test]
fn first_key_id_never_comes_again() {
    let mut key = KeyId::FIRST;
    let ids: Vec<u8> = (0..9)
        .map(|_| {
            key = key.next();
            key.value()
        })
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 1, 2]);
    assert_eq!(KeyId::new(8), None);
}

#[test]
fn resets_look_as_those_of_openvpn() {
    let session = SessionId(*b"client_1");
    let message = |kind| Some(Message { kind, number: 0, payload: Vec::new() });
    let reset = Packet { key: KeyId::FIRST, session, acks: None, message: message(Kind::ResetClient) };
    assert_eq!(encode(&reset), hex("38 636c69656e745f31 00 00000000"));
    let acks = Acks::new(session, vec![0]);
    let server = SessionId(*b"server_1");
    let answer = Packet { key: KeyId::FIRST, session: server, acks, message: message(Kind::ResetServer) };
    assert_eq!(encode(&answer), hex("40 7365727665725f31 01 00000000 636c69656e745f31 00000000"));
}

#[test]
fn packets_that_break_a_rule_are_dropped() {
    let cases = [
        ("28 0101010101010101 00", DropReason::BadControlPacket, "an acknowledgement of nothing"),
        ("28 0101010101010101 01 00000000 0202020202020202 00", DropReason::BadControlPacket, "and something more"),
        ("20 0101010101010101 09", DropReason::BadControlPacket, "more acknowledgements than there may be"),
        ("30 0101010101010101 00 00000000", DropReason::BadControlPacket, "data"),
        ("20 0101010101010101 00 000000", DropReason::Truncated, "half a number"),
        ("20 0101010101010101 01 00000000 02020202020202", DropReason::Truncated, "half a session id"),
        ("20 0101010101010101", DropReason::Truncated, "nothing behind the preface"),
        ("20 01010101010101", DropReason::Truncated, "half a preface"),
    ];
    for (packet, reason, what) in cases {
        assert_eq!(parse(&hex(packet)), Err(reason), "{what}");
    }
}

#[test]
fn acknowledgements_have_a_bound() {
    let session = SessionId([1; 8]);
    assert!(Acks::new(session, Vec::new()).is_none());
    assert!(Acks::new(session, vec![0; MAX_ACKS]).is_some());
    assert!(Acks::new(session, vec![0; MAX_ACKS + 1]).is_none());
}

proptest! {
    #[test]
    fn packets_survive_being_written(packet in packets()) {
        prop_assert_eq!(parse(&encode(&packet)), Ok(packet));
    }

    #[test]
    fn whatever_is_read_is_written_as_it_was(bytes in proptest::collection::vec(any::<u8>(), 0..80), first in 3_u8..12) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = first << 3 | *byte & 7;
        }
        if let Ok(packet) = parse(&bytes) {
            prop_assert_eq!(encode(&packet), bytes);
        }
    }
}
