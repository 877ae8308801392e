use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::dtls::association::PATIENCE;
use crate::dtls::greeting::{Greeter, Greeting};
use crate::dtls::handshake::Credential;
use crate::dtls::sa::Outbound;
use crate::dtls::suite::CipherSuite;
use crate::sealing::test_cipher::{AwsCipher, start};

type Sealing = Rc<Outbound<AwsCipher>>;
type End = Association<AwsCipher, Sealing>;

fn home() -> SocketAddr {
    "198.51.100.7:40000".parse().unwrap()
}

fn elsewhere() -> SocketAddr {
    "[2001:db8::7]:40001".parse().unwrap()
}

fn setup(random: u8, key: u8) -> Setup {
    let key = vec![key; 32].into();
    let credential = Credential::PreSharedKey { key, suites: CipherSuite::PSK.to_vec() };
    Setup { credential, session_id: vec![5; 32], random: [random; 32], largest_datagram: 1200 }
}

/// A gateway with one session.
struct Gateway {
    greeter: Greeter,
    succession: Succession<AwsCipher, Sealing, u8>,
    changes: Vec<Change>,
    /// To which of its addresses datagrams come, and from which ones it answered.
    address: u8,
    answered_from: Vec<u8>,
    /// Associations that were begun.
    begun: u8,
    now: Instant,
}

impl Gateway {
    fn new() -> Self {
        let now = start();
        let greeter = Greeter::new([3; 32], now);
        let (succession, changes) = (Succession::default(), Vec::new());
        Self { greeter, succession, changes, address: 1, answered_from: Vec::new(), begun: 0, now }
    }

    fn receive(
        &mut self,
        mut datagram: Vec<u8>,
        from: SocketAddr,
        answers: &mut Vec<Vec<u8>>,
    ) -> Result<(), DropReason> {
        let Self { greeter, succession, begun, now, address, answered_from, .. } = self;
        let outcome = match greeter.greet(&datagram, from, *now) {
            Ok(Greeting::Ask(answer)) => {
                answers.push(answer);
                return Ok(());
            }
            Ok(Greeting::Proven(introduction)) => {
                let begin = || {
                    *begun += 1;
                    setup(100 + *begun, 6)
                };
                succession.handle_hello(&introduction, from, *address, &mut datagram, begin, *now)
            }
            Err(_) => succession.handle_datagram(&mut datagram, from, *address, *now),
        };
        while let Some((to, origin, datagram)) = succession.poll_transmit() {
            assert_eq!(to, from);
            answered_from.push(origin);
            answers.push(datagram);
        }
        self.changes.extend(std::iter::from_fn(|| self.succession.poll_change()));
        outcome
    }

    /// Lets a client talk to it until neither has anything to say, `rounds` at most.
    fn talk(&mut self, client: &mut End, from: SocketAddr, rounds: usize) {
        for _ in 0..rounds {
            let mut answers = Vec::new();
            while let Some(datagram) = client.poll_transmit() {
                self.receive(datagram, from, &mut answers).ok();
            }
            for mut answer in answers {
                client.handle_datagram(&mut answer, self.now).unwrap();
            }
        }
    }

    fn established(client: &mut End, from: SocketAddr) -> Self {
        let mut gateway = Self::new();
        gateway.talk(client, from, 9);
        assert_eq!(std::mem::take(&mut gateway.changes), [Change::Established(from)]);
        gateway
    }

    fn hears(&mut self, client: &End, from: SocketAddr, text: &[u8]) -> Result<(), DropReason> {
        let record = client.outbound().unwrap().record(ContentType::ApplicationData, text).unwrap();
        self.receive(record, from, &mut Vec::new())?;
        assert_eq!(self.changes.pop(), Some(Change::Data(text.to_vec())));
        Ok(())
    }
}

#[test]
fn new_association_takes_over_once_it_is_established() {
    for new_home in [elsewhere(), home()] {
        let mut old = End::client(setup(1, 6), start());
        let mut gateway = Gateway::established(&mut old, home());
        let outbound = Rc::clone(gateway.succession.outbound().unwrap());
        let mut new = End::client(setup(2, 6), start());
        gateway.talk(&mut new, new_home, 2);
        assert_eq!((gateway.begun, gateway.changes.len()), (2, 0));
        assert!(Rc::ptr_eq(gateway.succession.outbound().unwrap(), &outbound), "the old one still carries data");
        assert_eq!(gateway.hears(&old, home(), b"by the old one"), Ok(()));
        gateway.talk(&mut new, new_home, 9);
        assert_eq!(gateway.changes.pop(), Some(Change::Established(new_home)));
        assert!(!Rc::ptr_eq(gateway.succession.outbound().unwrap(), &outbound));
        assert_eq!(gateway.hears(&new, new_home, b"by the new one"), Ok(()));
        assert!(gateway.hears(&old, home(), b"by the old one").is_err());
        assert!(gateway.succession.take_inbound().is_some());
    }
}

#[test]
fn association_that_comes_to_nothing_changes_nothing() {
    let mut old = End::client(setup(1, 6), start());
    let mut gateway = Gateway::established(&mut old, home());
    let mut other_key = End::client(setup(2, 66), start());
    gateway.talk(&mut other_key, elsewhere(), 9);
    assert_eq!(gateway.begun, 2);
    gateway.now += PATIENCE;
    gateway.succession.handle_timeout(gateway.now);
    assert_eq!((gateway.succession.poll_change(), gateway.succession.poll_timeout()), (None, None));
    assert_eq!(gateway.hears(&old, home(), b"still there"), Ok(()));
    let late = gateway.receive(vec![23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 0], elsewhere(), &mut Vec::new());
    assert_eq!(late, Err(DropReason::NotConnected));
}

#[test]
fn session_without_an_association_hears_that_the_first_one_failed() {
    let mut gateway = Gateway::new();
    gateway.talk(&mut End::client(setup(2, 66), start()), home(), 9);
    gateway.now += PATIENCE;
    gateway.succession.handle_timeout(gateway.now);
    assert_eq!(gateway.succession.poll_change(), Some(Change::Closed(Ending::Silence)));
}

#[test]
fn repeated_hello_begins_nothing() {
    let mut client = End::client(setup(1, 6), start());
    let mut gateway = Gateway::new();
    gateway.talk(&mut client, home(), 1);
    let hello = client.poll_transmit().unwrap();
    for _ in 0..3 {
        let mut answers = Vec::new();
        gateway.receive(hello.clone(), home(), &mut answers).unwrap();
        for mut answer in answers {
            client.handle_datagram(&mut answer, gateway.now).unwrap();
        }
    }
    gateway.talk(&mut client, home(), 9);
    assert_eq!(gateway.changes, [Change::Established(home())]);
    assert_eq!(gateway.receive(hello, home(), &mut Vec::new()), Err(DropReason::UnknownEpoch));
    assert_eq!(gateway.begun, 1);
    assert_eq!(gateway.hears(&client, home(), b"still there"), Ok(()));
}

#[test]
fn either_end_closes() {
    let mut client = End::client(setup(1, 6), start());
    let mut gateway = Gateway::established(&mut client, home());
    client.handle_close();
    gateway.talk(&mut client, home(), 1);
    assert_eq!(gateway.changes, [Change::Closed(Ending::Theirs)]);
    assert!(gateway.succession.outbound().is_none());
    let mut client = End::client(setup(1, 6), start());
    let mut gateway = Gateway::established(&mut client, home());
    gateway.succession.handle_close();
    let (_, _, mut alert) = gateway.succession.poll_transmit().unwrap();
    client.handle_datagram(&mut alert, gateway.now).unwrap();
    assert_eq!(gateway.succession.poll_change(), Some(Change::Closed(Ending::Ours)));
    assert!(client.outbound().is_none());
}

/// Lets a client's end talk to a gateway until neither has anything to say.
fn talk_as_client(client: &mut Succession<AwsCipher, Sealing>, gateway: &mut Gateway) -> Vec<Change> {
    for _ in 0..9 {
        let mut answers = Vec::new();
        while let Some((to, (), datagram)) = client.poll_transmit() {
            assert_eq!(to, elsewhere(), "to the gateway");
            gateway.receive(datagram, home(), &mut answers).ok();
        }
        for mut answer in answers {
            client.handle_datagram(&mut answer, elsewhere(), (), gateway.now).unwrap();
        }
    }
    std::iter::from_fn(|| client.poll_change()).collect()
}

#[test]
fn client_keeps_its_association_until_the_next_one_is_established() {
    let (mut client, mut gateway) = (Succession::<AwsCipher, Sealing>::default(), Gateway::new());
    client.begin(elsewhere(), (), setup(1, 6), gateway.now);
    assert!(client.is_beginning() && client.outbound().is_none());
    assert_eq!(talk_as_client(&mut client, &mut gateway), [Change::Established(elsewhere())]);
    assert!(!client.is_beginning());
    let first = Rc::clone(client.outbound().unwrap());
    let _worker = client.take_inbound().unwrap();

    // The gateway has another key for this one.
    client.begin(elsewhere(), (), setup(2, 66), gateway.now);
    assert_eq!(talk_as_client(&mut client, &mut gateway), []);
    assert!(client.is_beginning() && Rc::ptr_eq(client.outbound().unwrap(), &first));
    client.handle_timeout(gateway.now + PATIENCE);
    assert_eq!((client.poll_change(), client.is_beginning()), (None, false), "it came to nothing");
    assert!(Rc::ptr_eq(client.outbound().unwrap(), &first), "and the first one goes on");

    client.begin(elsewhere(), (), setup(3, 6), gateway.now);
    assert_eq!(talk_as_client(&mut client, &mut gateway), [Change::Established(elsewhere())]);
    assert!(!Rc::ptr_eq(client.outbound().unwrap(), &first));
}

#[test]
fn client_takes_nothing_from_anybody_but_its_gateway() {
    let (mut client, mut gateway) = (Succession::<AwsCipher, Sealing>::default(), Gateway::new());
    client.begin(elsewhere(), (), setup(1, 6), gateway.now);
    let (_, (), hello) = client.poll_transmit().unwrap();
    let mut answers = Vec::new();
    gateway.receive(hello, home(), &mut answers).unwrap();
    let stranger: SocketAddr = "[2001:db8::7]:40002".parse().unwrap();
    let taken = client.handle_datagram(&mut answers[0].clone(), stranger, (), gateway.now);
    assert_eq!((taken, client.poll_transmit()), (Err(DropReason::NotConnected), None));
    assert_eq!(client.handle_datagram(&mut answers[0], elsewhere(), (), gateway.now), Ok(()));
    assert!(client.poll_transmit().is_some(), "the control");
}

#[test]
fn hello_that_is_sent_again_to_another_address_moves_no_answer_there() {
    let (mut client, mut gateway) = (End::client(setup(1, 6), start()), Gateway::new());
    gateway.talk(&mut client, home(), 1);
    let hello = client.poll_transmit().unwrap();
    let mut answers = Vec::new();
    gateway.receive(hello.clone(), home(), &mut answers).unwrap();
    // Whoever overheard it has the gateway's own answer to the copy come from elsewhere, and nothing more.
    gateway.address = 2;
    gateway.now += Duration::from_secs(1);
    gateway.receive(hello.clone(), home(), &mut Vec::new()).unwrap();
    assert_eq!(std::mem::take(&mut gateway.answered_from), [1, 2]);
    gateway.address = 1;
    for mut answer in answers {
        client.handle_datagram(&mut answer, gateway.now).unwrap();
    }
    gateway.talk(&mut client, home(), 9);
    assert_eq!(gateway.changes, [Change::Established(home())]);
    assert_eq!((gateway.succession.origin(), gateway.answered_from.last()), (Some(1), Some(&1)));
    gateway.changes.clear();

    gateway.address = 2;
    assert_eq!(gateway.receive(hello, home(), &mut Vec::new()), Err(DropReason::UnknownEpoch));
    assert_eq!(gateway.hears(&client, home(), b"still there"), Ok(()));
    assert_eq!(gateway.succession.origin(), Some(1));
}

#[test]
fn hellos_of_others_leave_an_association_where_it_is() {
    let mut client = End::client(setup(1, 6), start());
    let mut gateway = Gateway::established(&mut client, home());
    gateway.address = 2;
    for port in [40_002, 40_003, 40_004] {
        let stranger = SocketAddr::new(elsewhere().ip(), port);
        gateway.talk(&mut End::client(setup(9, 66), start()), stranger, 9);
    }
    assert_eq!(gateway.begun, 4, "they know the session, and no key");
    assert_eq!((gateway.succession.origin(), gateway.hears(&client, home(), b"still there")), (Some(1), Ok(())));
    let mut anew = End::client(setup(2, 6), start());
    gateway.talk(&mut anew, home(), 9);
    assert_eq!(gateway.changes, [Change::Established(home())]);
    assert_eq!(gateway.succession.origin(), Some(2), "the control: one that begins there stays there");
}
