//! Seeds for the targets of DTLS.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use adit_proto::dtls::association::Association;
use adit_proto::dtls::greeting::{Greeter, Greeting};
use adit_proto::dtls::handshake::{Credential, Setup};
use adit_proto::dtls::message::{Fragment, Kind, ServerHello};
use adit_proto::dtls::record::{ContentType, DTLS_1_2, Header};
use adit_proto::dtls::sa::Outbound;
use adit_proto::dtls::suite::CipherSuite;
use adit_proto::sealing::aead::{Aead, CipherRefused, Forged, NONCE_LEN, TAG_LEN};
use adit_proto::sealing::suite::Suite;

use super::{Seed, seeds};

/// No cipher: what is sealed is the text.
struct Open;

impl Aead for Open {
    fn new(_: Suite, _: &[u8]) -> Result<Self, CipherRefused> {
        Ok(Self)
    }

    fn seal(&self, _: [u8; NONCE_LEN], _: &[u8], _: &mut [u8]) -> Result<[u8; TAG_LEN], CipherRefused> {
        Ok([0; TAG_LEN])
    }

    fn open(&self, _: [u8; NONCE_LEN], _: &[u8], _: &mut [u8]) -> Result<(), Forged> {
        Ok(())
    }
}

pub(super) fn associations() -> Vec<Seed> {
    [records(), greetings(), messages(), fragments(), handshakes()].into_iter().flatten().collect()
}

/// A step of data: its length and the data.
fn step(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).expect("a step is short")][..], data].concat()
}

fn record(content: ContentType, epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a record is short");
    [&Header { content, version: DTLS_1_2, epoch, sequence, length }.encode()[..], body].concat()
}

fn records() -> Vec<Seed> {
    let data = |sequence| step(&record(ContentType::ApplicationData, 1, sequence, &[0x45; 50]));
    let with = |suite: u8, records: &[Vec<u8>]| [&[suite][..], &records.concat()].concat();
    seeds(
        "dtls_open",
        [
            ("gcm", with(0, &[data(0), data(1)])),
            ("chacha", with(1, &[data(0), data(1)])),
            ("late_and_replayed", with(0, &[3, 1, 3, 2].map(data))),
            ("far_ahead", with(0, &[data(0), data((1 << 48) - 1), data(1)])),
            ("empty", with(0, &[step(&record(ContentType::Alert, 1, 0, &[0; 24]))])),
            ("no_room_for_a_tag", with(0, &[step(&record(ContentType::Alert, 1, 0, &[0; 23]))])),
        ],
    )
}

/// The client's hellos, before and after the cookie of the target's greeter.
#[expect(clippy::disallowed_methods, reason = "a start is needed, and only differences from it matter")]
fn hellos() -> [Vec<u8>; 2] {
    let now = Instant::now();
    let setup = Setup {
        credential: Credential::PreSharedKey { key: vec![6; 32].into(), suites: vec![CipherSuite::PskAes256Gcm] },
        session_id: vec![5; 4],
        random: [1; 32],
        largest_datagram: 1200,
    };
    let mut client = Association::<Open, Rc<Outbound<Open>>>::client(setup, now);
    let first = client.poll_transmit().expect("a client begins");
    let from = SocketAddr::from(([192, 0, 2, 1], 40_000));
    let Ok(Greeting::Ask(mut question)) = Greeter::new([3; 32], now).greet(&first, from, now) else {
        panic!("a stranger is asked")
    };
    client.handle_datagram(&mut question, now).expect("it is a question");
    [first, client.poll_transmit().expect("it is answered")]
}

fn greetings() -> Vec<Seed> {
    let [first, second] = hellos();
    let mut fragment = second.clone();
    fragment.truncate(13 + 12 + 60);
    fragment[12] = 72;
    fragment[24] = 60;
    seeds(
        "dtls_greeting",
        [
            ("stranger", step(&first)),
            ("with_cookie", step(&second)),
            ("cookie_of_long_ago", [&[0xff; 30][..], &step(&second)].concat()),
            ("first_fragment", step(&fragment)),
            ("data", step(&record(ContentType::ApplicationData, 1, 0, &[0; 40]))),
        ],
    )
}

fn server_hello() -> Vec<u8> {
    let (random, suite) = ([2; 32], CipherSuite::PskAes256Gcm.code());
    ServerHello { random, session_id: &[], suite, names_renegotiation: true }.encode()
}

fn messages() -> Vec<Seed> {
    let [first, second] = hellos();
    seeds(
        "dtls_message",
        [
            ("hello", first[25..].to_vec()),
            ("hello_with_cookie", second[25..].to_vec()),
            ("fragment", second[13..].to_vec()),
            ("server_hello", server_hello()),
            ("server_hello_of_a_resumed_session", {
                let (random, suite) = ([2; 32], CipherSuite::RsaAes128Gcm.code());
                ServerHello { random, session_id: &[7; 32], suite, names_renegotiation: false }.encode()
            }),
        ],
    )
}

fn fragments() -> Vec<Seed> {
    let part = |number: u8, offset: u8, len: usize| step(&[&[number, offset][..], &vec![number; len]].concat());
    seeds(
        "dtls_reassembly",
        [
            ("in_order", [part(0, 0, 20), part(1, 0, 20)].concat()),
            ("out_of_order", [part(1, 10, 10), part(0, 10, 10), part(1, 0, 10), part(0, 0, 10)].concat()),
            ("overlapping", [part(0, 5, 10), part(0, 0, 20)].concat()),
            ("far_ahead", [part(9, 0, 20), part(0, 0, 20)].concat()),
        ],
    )
}

/// What the first byte of a step says about the rest: what a record in the clear holds, or a sealed one.
const CLEAR: u8 = 4;
const SEALED: u8 = 12;

fn handshakes() -> Vec<Seed> {
    let holding =
        |what: u8, content: ContentType, body: &[u8]| step(&[&[what | (content.code() & 3)][..], body].concat());
    let message =
        |kind, number, body: &[u8]| Fragment { kind, length: body.len(), number, offset: 0, part: body }.encode();
    let handshake = ContentType::Handshake;
    let answer = [
        holding(CLEAR, handshake, &message(Kind::ServerHello, 1, &server_hello())),
        holding(CLEAR, handshake, &message(Kind::ServerHelloDone, 2, &[])),
        holding(SEALED, handshake, &message(Kind::Finished, 3, &[0; 12])),
    ]
    .concat();
    let exchange = holding(CLEAR, handshake, &message(Kind::ClientKeyExchange, 2, b"\0\x03psk"));
    let data = holding(SEALED, ContentType::ApplicationData, b"data");
    let close = holding(SEALED, ContentType::Alert, &[1, 0]);
    let renegotiation = holding(SEALED, handshake, &message(Kind::ClientHello, 0, &[0; 20]));
    let repeated = holding(SEALED, handshake, &message(Kind::Finished, 3, &[0; 12]));
    let with = |options: u8, steps: &[&[u8]]| [&[options][..], &steps.concat()].concat();
    seeds(
        "dtls_association",
        [
            ("client_is_answered", with(0, &[&answer])),
            ("server_is_answered", with(1, &[&exchange, &repeated])),
            ("silence", with(0, &[&[0xff; 40]])),
            ("established", with(5, &[&data, &[0x80 | 20], &repeated, &renegotiation, &data, &close, &data])),
            ("resumed", with(7, &[&data, &close])),
            ("resumed_client", with(6, &[&data, &[0x80 | 20], &repeated, &close])),
            ("resumed_before_the_end", with(3, &[&data, &repeated])),
            ("alert_in_the_clear", with(0, &[&holding(CLEAR, ContentType::Alert, &[2, 40])])),
        ],
    )
}
