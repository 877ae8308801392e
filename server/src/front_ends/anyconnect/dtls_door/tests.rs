use std::io;
use std::sync::atomic::AtomicU64;

use adit_net::cipher::Cipher;
use adit_net::worker::{Association as Installed, DataPlane, Installation};
use adit_proto::dtls::association::Association;
use adit_proto::dtls::handshake::{Credential, Setup};
use adit_proto::dtls::sa::Outbound;
use adit_proto::dtls::suite::CipherSuite;
use adit_proto::esp::spi::Spi;
use zeroize::Zeroizing;

use super::*;

/// Workers that keep what they are to send.
#[derive(Default)]
pub(in super::super) struct Sent(Mutex<Vec<Vec<u8>>>);

impl Sent {
    /// Takes what they are to send.
    pub(in super::super) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl DataPlane<Session> for Sent {
    fn claim_spi(&self, _beside: Option<Spi>) -> Option<Spi> {
        None
    }

    fn install(&self, _installation: Installation<Session>) {}

    fn retire(&self, _spi: Spi) {}

    fn origin(&self, _to: SocketAddr) -> Origin {
        Origin::default()
    }

    fn send(&self, _origin: Origin, _to: SocketAddr, datagram: &[u8], _ecn: u8) -> io::Result<()> {
        self.0.lock().unwrap().push(datagram.to_vec());
        Ok(())
    }
}

impl AssociationPlane<Session> for Sent {
    fn associate(&self, _association: Installed<Session>) {}

    fn dissociate(&self, _peer: SocketAddr, _records: &Arc<AtomicU64>) {}

    fn hand_strays_to(&self, _strays: &mpsc::Sender<Stray>) {}
}

struct World {
    door: Arc<DtlsDoor>,
    sent: Arc<Sent>,
}

impl World {
    fn new() -> Self {
        let sent = Arc::<Sent>::default();
        Self { door: DtlsDoor::new(Arc::<Sent>::clone(&sent), None), sent }
    }

    fn handle(&self, from: SocketAddr, datagram: &[u8]) {
        let stray = Stray { from, origin: Origin::default(), datagram: datagram.to_vec() };
        self.door.handle(stray, Instant::now());
    }

    /// Says hello from there, twice, as a client of that session does; returns both hellos.
    fn greet(&self, from: SocketAddr, app_id: AppId) -> [Vec<u8>; 2] {
        let key = Zeroizing::new(vec![7; 32]);
        let credential = Credential::PreSharedKey { key, suites: CipherSuite::PSK.to_vec() };
        let setup = Setup { credential, session_id: app_id.to_vec(), random: random(), largest_datagram: 1200 };
        let now = Instant::now();
        let mut client = Association::<Cipher, Arc<Outbound<Cipher>>>::client(setup, now);
        let first = client.poll_transmit().unwrap();
        self.handle(from, &first);
        let mut answer = self.sent.0.lock().unwrap().pop().unwrap();
        assert!(answer.len() <= first.len(), "no answer is longer than what it answers");
        client.handle_datagram(&mut answer, now).unwrap();
        let second = client.poll_transmit().unwrap();
        self.handle(from, &second);
        assert!(self.sent.0.lock().unwrap().is_empty());
        [first, second]
    }

    /// Sessions and addresses that are known.
    fn known(&self) -> (usize, usize) {
        let book = self.door.book();
        (book.sessions.len(), book.addresses.len())
    }
}

pub(in super::super) fn address(port: u16) -> SocketAddr {
    (std::net::Ipv4Addr::new(192, 0, 2, 7), port).into()
}

#[test]
fn nothing_is_kept_of_strangers() {
    let world = World::new();
    let (registration, mut datagrams) = world.door.register();
    for port in 1000..1100 {
        let [_, hello] = world.greet(address(port), random());
        world.handle(address(port + 5000), &hello);
        assert_eq!(world.sent.0.lock().unwrap().drain(..).count(), 1, "a cookie is good for one address");
        world.handle(address(port), &[23, 0xfe, 0xfd, 0, 1, 0, 0]);
    }
    assert_eq!(world.known(), (1, 0));
    assert!(datagrams.try_recv().is_err());
    drop(registration);
    assert_eq!(world.known(), (0, 0));
}

#[test]
fn client_that_names_a_session_reaches_it_from_its_own_address() {
    let world = World::new();
    let (registration, mut datagrams) = world.door.register();
    let (_other, mut others) = world.door.register();
    let [_, hello] = world.greet(address(1000), registration.app_id);
    let FromClient { introduction, stray } = datagrams.try_recv().unwrap();
    assert!(introduction.is_some() && (stray.from, stray.datagram) == (address(1000), hello));
    let finished = [22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9];
    world.handle(address(1000), &finished);
    let FromClient { introduction, stray } = datagrams.try_recv().unwrap();
    assert!(introduction.is_none() && stray.datagram == finished);
    world.handle(address(1001), &finished);
    assert!(datagrams.try_recv().is_err() && others.try_recv().is_err());
}

#[test]
fn session_has_few_addresses_and_few_datagrams_wait_for_it() {
    let world = World::new();
    let (registration, mut datagrams) = world.door.register();
    for port in 1000..1050 {
        world.greet(address(port), registration.app_id);
        assert!(world.known().1 <= ADDRESSES);
    }
    assert_eq!(std::iter::from_fn(|| datagrams.try_recv().ok()).count(), WAITING);
    world.handle(address(1000), &[22; 20]);
    assert!(datagrams.try_recv().is_err(), "long forgotten");
    world.handle(address(1049), &[22; 20]);
    assert!(datagrams.try_recv().is_ok());
    drop(registration);
    assert_eq!(world.known(), (0, 0));
}
