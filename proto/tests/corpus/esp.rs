//! Seeds for the targets of the ESP carrier.

use adit_proto::esp::capsule::{EspCapsule, FLAG_EXTENDED_SEQUENCE, Group, SaInit};
use adit_proto::esp::field::{Answer, Offer};
use adit_proto::esp::packet::{Header, put_trailer};
use adit_proto::esp::probe::{Kind, Probe};
use adit_proto::esp::spi::Spi;
use adit_proto::sealing::suite::Suite;

use super::{Seed, seeds};

pub(super) fn carrier() -> Vec<Seed> {
    [datagrams(), windows(), probes(), capsules(), fields(), paths(), sizes(), epochs()].into_iter().flatten().collect()
}

/// A step of data: its length and the data.
fn step(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).expect("a step is short")][..], data].concat()
}

/// A step with a datagram whose SPI the target puts right.
fn datagram(sequence: u64, inner: &[u8], next_header: u8) -> Vec<u8> {
    let [_, _, _, _, low @ ..] = sequence.to_be_bytes();
    let header = Header { spi: 0x8000_0001, sequence_low: u32::from_be_bytes(low), iv: sequence.to_be_bytes() };
    let mut body = [inner, &[0; 5]].concat();
    let len = put_trailer(&mut body, inner.len(), next_header).expect("there is room");
    body.truncate(len);
    step(&[&header.encode()[..], &body, &[0; 16]].concat())
}

fn datagrams() -> Vec<Seed> {
    let with = |options: u8, datagrams: &[Vec<u8>]| [&[options][..], &datagrams.concat()].concat();
    let mut bad_padding = datagram(1, &[0x45; 21], 4);
    let first_of_padding = bad_padding.len() - 19;
    bad_padding[first_of_padding] = 9;
    seeds(
        "esp_open",
        [
            ("packets_of_both_versions", with(0, &[datagram(1, &[0x45; 20], 4), datagram(2, &[0x60; 40], 41)])),
            ("late_and_replayed", with(0, &[3, 1, 3, 2].map(|sequence| datagram(sequence, &[0x45; 20], 4)))),
            ("dummy", with(0, &[datagram(1, &[], 59)])),
            ("vouched", with(2, &[datagram(1, &[0x45; 20], 253), datagram(2, &[0x60; 40], 254)])),
            ("vouched_unasked", with(0, &[datagram(1, &[0x45; 20], 253)])),
            ("version_of_the_other_kind", with(0, &[datagram(1, &[0x60; 40], 4)])),
            ("bad_padding", with(0, &[bad_padding])),
            ("high_half", with(0, &[1 << 31, (1 << 32) - 5, 1 << 32].map(|sequence| datagram(sequence, &[0x45], 4)))),
            ("any_iv", with(1, &[datagram(7, &[0x45; 20], 4)])),
        ],
    )
}

fn windows() -> Vec<Seed> {
    let numbers = |start: u64, distances: &[i16]| {
        let distances = distances.iter().flat_map(|distance| distance.to_be_bytes());
        start.to_be_bytes().into_iter().chain(distances).collect::<Vec<u8>>()
    };
    seeds(
        "esp_replay",
        [
            ("in_order", numbers(1, &[1, 1, 1, 1])),
            ("edge_of_the_window", numbers(1, &[8192, -8191, -1, 8193, 0, 0])),
            ("jumps", numbers(5, &[63, 1, 64, 32_767, -8000, 8191, 8192])),
            ("end_of_numbers", numbers(u64::MAX - 2, &[1, 1, 1, -2])),
            ("zero", numbers(0, &[0, 1, -1])),
        ],
    )
}

fn probes() -> Vec<Seed> {
    let probe = |kind| Probe { kind, nonce: [7; 16] }.encode().to_vec();
    seeds(
        "esp_probe",
        [
            ("request", probe(Kind::Request)),
            ("answer", probe(Kind::Answer)),
            ("padded", [probe(Kind::Request), vec![0; 100]].concat()),
            ("cut_short", probe(Kind::Request)[..23].to_vec()),
        ],
    )
}

fn init(epoch: u32, group: Option<Group>) -> EspCapsule {
    let share = vec![5; group.map_or(0, Group::client_share_len)].into();
    let spi = Spi::new(1, 100 + epoch).expect("worker 1 exists");
    EspCapsule::SaInit(SaInit { epoch, suite: Suite::Aes256Gcm, flags: FLAG_EXTENDED_SEQUENCE, spi, group, share })
}

/// The whole capsule that a client sends first.
pub(super) fn first_init() -> Vec<u8> {
    let mut encoded = Vec::new();
    init(0, None).encode(&mut encoded);
    encoded
}

/// A capsule without its type, of four bytes, and its length, of one or two.
fn value(capsule: &EspCapsule) -> Vec<u8> {
    let mut encoded = Vec::new();
    capsule.encode(&mut encoded);
    let length_len = if encoded[4] < 0x40 { 1 } else { 2 };
    encoded.split_off(4 + length_len)
}

fn capsules() -> Vec<Seed> {
    let with = |which: u8, value: &[u8]| [&[which], value].concat();
    let first = value(&init(0, None));
    let long_length = [&first[..13], &[0x40, 0]].concat();
    seeds(
        "esp_capsule",
        [
            ("first_epoch", with(0, &first)),
            ("x25519", with(0, &value(&init(1, Some(Group::X25519))))),
            ("hybrid", with(0, &value(&init(2, Some(Group::X25519MlKem768))))),
            ("rekey_request", with(1, &value(&EspCapsule::RekeyRequest(3)))),
            ("long_share_length", with(0, &long_length)),
            ("cut_short", with(0, &first[..9])),
        ],
    )
}

fn fields() -> Vec<Seed> {
    let answer = Answer { suite: Suite::Aes128Gcm, group: Group::X25519, vouched: true };
    let skipped = r#"g=:aGk=:, v=1;a="\"", suites=(9 tok 2;q=0.5), groups=(29),h=-1.5, i=@3, j=%"%c3", vouched=?0"#;
    seeds(
        "esp_field",
        [
            ("offer", Offer::default().to_string().into_bytes()),
            ("answer", answer.to_string().into_bytes()),
            ("much_to_skip", skipped.into()),
            ("other_version", b"v=2, suites=(1), groups=(29)".to_vec()),
            ("open_list", b"v=1, suites=(1 2".to_vec()),
        ],
    )
}

/// Steps of one byte: who in bits 0 and 1, what in bits 2 to 4, newest in bit 5; pauses from 0x80 on.
fn paths() -> Vec<Seed> {
    const NEWEST: u8 = 0x20;
    const REQUEST: u8 = 3 << 2;
    const ANSWER: u8 = 4 << 2;
    const SENT: u8 = 5 << 2;
    const DOUBT: u8 = 6 << 2;
    const REBIND: u8 = 7 << 2;
    seeds(
        "esp_path",
        [
            ("client_comes_up_and_goes_down", vec![0, ANSWER, SENT, 0xb4, 0x95, 0x95, 0x95, 0x95, 0x95, 0xff, ANSWER]),
            (
                "server_learns_and_moves",
                vec![1, NEWEST, ANSWER | NEWEST, 1 | NEWEST, ANSWER | 1, 2 | NEWEST, ANSWER | 2],
            ),
            (
                "attacker_asks",
                vec![1, NEWEST, ANSWER, REQUEST | NEWEST | 3, REQUEST | 3, 0x94, REQUEST | 3, 0xff, 0xff],
            ),
            ("doubt_and_rebind", vec![0, ANSWER, DOUBT, ANSWER, REBIND, 0xff, REBIND, ANSWER]),
        ],
    )
}

/// Steps of one byte: what in bits 0 to 2, how much in bits 3 to 6; pauses from 0x80 on.
fn sizes() -> Vec<Seed> {
    const UP: u8 = 0;
    const DOWN: u8 = 1;
    const SENT: u8 = 2;
    const DOUBT: u8 = 3;
    const PROBE_REFUSED: u8 = 4;
    const CURRENT_REFUSED: u8 = 5;
    const ANSWER: u8 = 6;
    const FOREIGN: u8 = 7;
    /// Until an answer is overdue.
    const OVERDUE: u8 = 0x86;
    let with = |steps: &[u8]| [&[0, 156], steps].concat();
    seeds(
        "esp_path_mtu",
        [
            ("wide", with(&[UP, ANSWER, SENT, 0xff, ANSWER])),
            ("halved", with(&[UP, OVERDUE, OVERDUE, OVERDUE, ANSWER, OVERDUE, OVERDUE, OVERDUE, ANSWER, ANSWER])),
            (
                "refused",
                with(&[UP, PROBE_REFUSED, PROBE_REFUSED, ANSWER, CURRENT_REFUSED, ANSWER, CURRENT_REFUSED | 8]),
            ),
            ("shrinks", with(&[UP, ANSWER, DOUBT, OVERDUE, FOREIGN, OVERDUE, OVERDUE, SENT, 0xb2, ANSWER])),
            ("too_narrow", with(&[UP, CURRENT_REFUSED, 0xff, ANSWER, ANSWER, DOWN, UP, ANSWER])),
        ],
    )
}

fn epochs() -> Vec<Seed> {
    let capsule = |what: u8, capsule: &EspCapsule| step(&[&[what], &value(capsule)[..]].concat());
    let (wanted, closed, pause) = (step(&[2]), step(&[4]), vec![0xff]);
    let confirmed = |epoch: u8| step(&[3, epoch]);
    let [first, second] = [init(0, None), init(1, Some(Group::X25519))].map(|init| capsule(0, &init));
    let request = capsule(1, &EspCapsule::RekeyRequest(1));
    let with =
        |options: u8, steps: &[&Vec<u8>]| steps.iter().fold(vec![options], |all, step| [&all[..], step].concat());
    seeds(
        "esp_rekey",
        [
            ("client", with(0, &[&wanted, &first, &confirmed(0), &request, &second, &confirmed(1), &pause, &closed])),
            ("server", with(1, &[&first, &confirmed(0), &wanted, &second, &confirmed(1), &pause, &closed])),
            ("server_unconfirmed", with(1, &[&first, &second, &pause, &pause, &pause])),
            ("out_of_order", with(1, &[&second, &first, &request])),
        ],
    )
}
