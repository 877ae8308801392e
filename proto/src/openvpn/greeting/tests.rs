use proptest::prelude::*;

use super::*;
use crate::openvpn::client_key::SERVER_KEY_LEN;
use crate::openvpn::static_key::KEY_LEN;
use crate::openvpn::test_primitives::Aws;
use crate::openvpn::wrapping::tls_auth::{self, Digest, Direction};
use crate::sealing::test_cipher::start;

const CLIENT: SessionId = SessionId(*b"client_1");
const UNIX_TIME: u32 = 1_700_000_000;
const EARLY: Stamp = Stamp { time: UNIX_TIME, count: early::FIRST_COUNT };

fn from() -> SocketAddr {
    "198.51.100.7:40000".parse().unwrap()
}

fn key() -> StaticKey {
    StaticKey::new([7; KEY_LEN])
}

fn server_key() -> ServerKey {
    ServerKey::new([3; SERVER_KEY_LEN])
}

fn wrapped() -> Vec<u8> {
    server_key().wrap::<Aws>(&key(), &Metadata::user(b"device 7".to_vec()).unwrap()).unwrap()
}

fn crypt(role: Role) -> Keys {
    Keys::Crypt(tls_crypt::Keys::new(&key(), role))
}

fn auth(direction: Direction) -> Keys {
    Keys::Auth(tls_auth::Keys::new(Digest::Sha1, &key(), direction))
}

/// What the client wraps with, and the guard for it.
fn ways() -> [(Keys, Guard); 3] {
    let shared = |keys| Guard { shared: Some(keys), own: None };
    [
        (Keys::Plain, shared(Keys::Plain)),
        (auth(Direction::Inverse), shared(auth(Direction::Normal))),
        (crypt(Role::Client), shared(crypt(Role::Server))),
    ]
}

fn packet(kind: Kind, number: u32, acks: Option<(SessionId, Vec<u32>)>) -> Packet {
    let message = Some(Message { kind, number, payload: Vec::new() });
    let acks = acks.and_then(|(receiver, numbers)| Acks::new(receiver, numbers));
    Packet { key: KeyId::FIRST, session: CLIENT, acks, message }
}

fn reset() -> Packet {
    packet(Kind::ResetClient, 0, None)
}

/// What a client says that has read the server's reset.
fn hello(server: SessionId) -> Packet {
    packet(Kind::Control, 1, Some((server, vec![0])))
}

struct Server {
    greeter: Greeter,
    guard: Guard,
    now: Instant,
}

impl Server {
    fn new(guard: Guard) -> Self {
        let now = start();
        Self { greeter: Greeter::new([9; 32], now), guard, now }
    }

    fn greet(&self, datagram: &[u8], from: SocketAddr) -> Result<Greeting, DropReason> {
        self.greeter.greet::<Aws>(datagram, &self.guard, from, self.now, UNIX_TIME)
    }

    fn answer(&self, datagram: &[u8]) -> Vec<u8> {
        let Ok(Greeting::Answer(answer)) = self.greet(datagram, from()) else { panic!("a reset is answered") };
        answer
    }

    fn introduction(&self, datagram: &[u8]) -> Option<Box<Introduction>> {
        match self.greet(datagram, from()) {
            Ok(Greeting::Proven(introduction)) => Some(introduction),
            Ok(Greeting::Answer(_)) | Err(_) => None,
        }
    }
}

fn seal(keys: &Keys, packet: &Packet) -> Vec<u8> {
    keys.seal::<Aws>(Stamp { time: UNIX_TIME, count: 1 }, packet).unwrap()
}

#[test]
fn client_that_repeats_the_session_id_is_proven() {
    for (client, guard) in ways() {
        let server = Server::new(guard);
        let question = seal(&client, &reset());
        let answer = server.answer(&question);
        assert!(answer.len() <= question.len() + 12, "no amplifier");
        let (answer, _) = client.open::<Aws>(&answer).unwrap();
        assert_eq!(answer.acks.as_ref().map(Acks::numbers), Some(&[0][..]));
        assert_eq!(answer.acks.map(|acks| acks.receiver()), Some(CLIENT));
        let introduction = server.introduction(&seal(&client, &hello(answer.session))).unwrap();
        assert_eq!((introduction.client, introduction.server), (CLIENT, answer.session));
        assert!(introduction.own_key.is_none());
        let acks = Acks::new(answer.session, vec![0]);
        let ack = Packet { message: None, acks, ..reset() };
        assert!(server.introduction(&seal(&client, &ack)).is_some(), "an acknowledgement alone says as much");
    }
}

fn session_id(server: &Server) -> SessionId {
    let (answer, _) = Keys::Plain.open::<Aws>(&server.answer(&seal(&Keys::Plain, &reset()))).unwrap();
    answer.session
}

fn plain() -> Server {
    Server::new(Guard { shared: Some(Keys::Plain), own: None })
}

#[test]
fn session_id_belongs_to_one_address_one_client_and_one_server() {
    let server = plain();
    let datagram = seal(&Keys::Plain, &hello(session_id(&server)));
    assert!(server.greet(&datagram, from()).is_ok());
    for other in ["198.51.100.7:40001", "198.51.100.8:40000", "[2001:db8::7]:40000"] {
        assert_eq!(server.greet(&datagram, other.parse().unwrap()).err(), Some(DropReason::NotConnected));
    }
    let mapped = "[::ffff:198.51.100.7]:40000".parse().unwrap();
    assert!(server.greet(&datagram, mapped).is_ok(), "the same address, as a socket for both families tells it");
    let stranger = Packet { session: SessionId([8; 8]), ..hello(session_id(&server)) };
    assert!(server.introduction(&seal(&Keys::Plain, &stranger)).is_none());
    let other = Server { greeter: Greeter::new([8; 32], start()), ..plain() };
    assert!(other.introduction(&datagram).is_none());
}

#[test]
fn session_id_is_good_for_a_minute_and_not_for_two() {
    let mut server = plain();
    let datagram = seal(&Keys::Plain, &hello(session_id(&server)));
    let begun = server.now;
    for (seconds, is_good) in [(0, true), (60, true), (89, true), (90, false), (3600, false)] {
        server.now = begun + Duration::from_secs(seconds);
        assert_eq!(server.introduction(&datagram).is_some(), is_good, "after {seconds} s");
    }
}

#[test]
fn what_is_no_beginning_is_dropped() {
    let server = plain();
    let id = session_id(&server);
    let cases = [
        (packet(Kind::ResetClient, 1, None), "a reset is number 0"),
        (packet(Kind::ResetClient, 0, Some((id, vec![0]))), "a reset has nothing to acknowledge"),
        (Packet { key: KeyId::FIRST.next(), ..reset() }, "a session begins with the first keys"),
        (Packet { session: SessionId([0; 8]), ..reset() }, "no session id"),
        (packet(Kind::SoftReset, 0, None), "there are no keys to renew"),
        (packet(Kind::ResetServer, 0, None), "from a server"),
        (packet(Kind::Control, 1, None), "shows nothing"),
        (packet(Kind::Control, 2, Some((id, vec![0]))), "in the middle of a handshake"),
        (packet(Kind::Control, 1, Some((id, vec![0, 5]))), "acknowledges what was never sent"),
        (packet(Kind::Control, 1, Some((SessionId([0; 8]), vec![0]))), "another session id"),
    ];
    for (packet, why) in cases {
        assert!(server.greet(&seal(&Keys::Plain, &packet), from()).is_err(), "{why}");
    }
    assert!(server.greet(&[0x48, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], from()).is_err(), "data");
}

fn own() -> Server {
    Server::new(Guard { shared: None, own: Some(server_key()) })
}

fn with_key(kind: Kind, number: u32, server: Option<SessionId>, stamp: Stamp) -> Vec<u8> {
    let packet = packet(kind, number, server.map(|server| (server, vec![0])));
    [crypt(Role::Client).seal::<Aws>(stamp, &packet).unwrap(), wrapped()].concat()
}

#[test]
fn client_with_a_key_of_its_own_is_asked_for_it_again() {
    let server = own();
    let question = with_key(Kind::ResetClientWithKey, 0, None, EARLY);
    let answer = server.answer(&question);
    assert!(answer.len() < question.len());
    let (answer, _) = crypt(Role::Client).open::<Aws>(&answer).unwrap();
    assert!(early::asks_for_key(&answer.message.unwrap().payload));
    let hello = with_key(Kind::ControlWithKey, 1, Some(answer.session), EARLY);
    let introduction = server.introduction(&hello).unwrap();
    let (key, metadata) = introduction.own_key.unwrap();
    assert_eq!((key.bytes(), metadata.chosen()), (&[7; KEY_LEN], Some(&b"device 7"[..])));
}

#[test]
fn client_that_cannot_be_asked_for_its_key_is_not_answered() {
    let stamp = Stamp { time: UNIX_TIME, count: 1 };
    let old = with_key(Kind::ResetClientWithKey, 0, None, stamp);
    assert_eq!(own().greet(&old, from()).err(), Some(DropReason::BadControlPacket));
}

#[test]
fn key_of_another_kind_opens_nothing() {
    let plain = seal(&Keys::Plain, &reset());
    assert_eq!(own().greet(&plain, from()).err(), Some(DropReason::AuthenticationFailed));
    let question = with_key(Kind::ResetClientWithKey, 0, None, EARLY);
    for (_, guard) in ways() {
        assert_eq!(Server::new(guard).greet(&question, from()).err(), Some(DropReason::BadControlPacket));
    }
    let other = Guard { shared: None, own: Some(ServerKey::new([4; SERVER_KEY_LEN])) };
    assert_eq!(Server::new(other).greet(&question, from()).err(), Some(DropReason::AuthenticationFailed));
    let [_, (auth, _), (crypt, _)] = ways();
    for (client, (_, guard)) in
        [(crypt, 1), (auth, 2)].map(|(client, at)| (client, ways().into_iter().nth(at).unwrap()))
    {
        assert!(Server::new(guard).greet(&seal(&client, &reset()), from()).is_err());
    }
}

proptest! {
    #[test]
    fn no_guess_proves_an_address(datagram in proptest::collection::vec(any::<u8>(), 0..120), head in 0x20_u8..0x60) {
        let mut datagram = datagram;
        if let Some(first) = datagram.first_mut() {
            *first = head & 0xf8;
        }
        for server in [plain(), own()] {
            prop_assert!(server.introduction(&datagram).is_none());
        }
    }
}
