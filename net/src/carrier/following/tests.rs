use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use adit_proto::esp::capsule::{FLAG_EXTENDED_SEQUENCE, Group, SaInit};
use adit_proto::esp::field::Answer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::esp::spi::Spi;
use adit_proto::http::field::Field;
use adit_proto::role::Role;
use adit_proto::sealing::suite::Suite;
use bytes::Bytes;
use futures::FutureExt as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::time::timeout;

use super::*;
use crate::carrier::Origin;
use crate::carrier::esp::EspSetup;
use crate::http::h3::H3Connection;
use crate::quic::{self, EndpointKeys};
use crate::testing::world::{Session, session};
use crate::tls::{self, ServerIdentity};
use crate::worker::{DataPlane, Installation};

/// Longest wait for what a test wants to see.
const PATIENCE: Duration = Duration::from_secs(10);

/// A machine that tells each piece of content as it comes, and sends what the test gives it.
#[derive(Default)]
struct Script {
    events: VecDeque<Told>,
    transmits: VecDeque<Vec<u8>>,
    due: Option<Instant>,
    esp_sent: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Data(Vec<u8>),
    Timeout,
    Esp(EspCapsule),
}

/// What a peer sends to break the rules of the protocol.
const BREACH: &[u8] = b"breach";
/// What a peer sends to break the rules of ESP.
const ESP_BREACH: &[u8] = b"esp breach";

impl TunnelMachine for Script {
    type Event = Told;

    fn handle_data(&mut self, data: &[u8]) -> Result<(), Fault> {
        match data {
            BREACH => return Err(Fault::Malformed("a breach")),
            ESP_BREACH => self.events.push_back(Told::Esp(strange_capsule())),
            data => self.events.push_back(Told::Data(data.to_vec())),
        }
        Ok(())
    }

    fn handle_end(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.due.take_if(|due| now >= *due).is_some() {
            self.events.push_back(Told::Timeout);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn poll_event(&mut self) -> Option<Told> {
        self.events.pop_front()
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    fn send_esp(&mut self, _capsule: EspCapsule) {
        self.esp_sent += 1;
        self.transmits.push_back(b"esp".to_vec());
    }

    fn esp_capsule(event: Told) -> Result<EspCapsule, Told> {
        if let Told::Esp(capsule) = event { Ok(capsule) } else { Err(event) }
    }
}

/// A part of a key exchange that nobody asked for.
fn strange_capsule() -> EspCapsule {
    let spi = Spi::choose(0, || 0x1234, |_| false).unwrap();
    let (suite, flags, share) = (Suite::Aes256Gcm, FLAG_EXTENDED_SEQUENCE, Bytes::new());
    EspCapsule::SaInit(SaInit { epoch: 7, suite, flags, spi, group: None, share })
}

/// Workers by which nothing passes.
struct NoWorkers;

impl DataPlane<Session> for NoWorkers {
    fn claim_spi(&self, _beside: Option<Spi>) -> Option<Spi> {
        Spi::choose(0, || 0x4321, |_| false)
    }

    fn install(&self, _installation: Installation<Session>) {}

    fn retire(&self, _spi: Spi) {}

    fn origin(&self, _to: SocketAddr) -> Origin {
        Origin::default()
    }

    fn send(&self, _origin: Origin, _to: SocketAddr, _datagram: &[u8], _ecn: u8) -> io::Result<()> {
        Ok(())
    }
}

/// Both ends of a tunnel over the loopback. The near one is followed; the far one does what a test says.
struct World {
    near: Following<Script, Session>,
    far: TunnelStream,
    _connections: [H3Connection; 2],
}

impl World {
    /// A tunnel whose far end takes this many bytes that it has not read.
    async fn new(window: u32) -> Self {
        let [near, far] = connections(window).await;
        let mut request = TunnelStream::from(far.open_request().await.unwrap());
        request.expect_tunnel();
        request.send_headers(&[(":method", "CONNECT"), (":scheme", "https")].map(field)).await.unwrap();
        let mut accepted = TunnelStream::from(near.accept_request().await.unwrap());
        assert!(matches!(accepted.next_event().await, Ok(Some(MessageEvent::Headers(_)))));
        accepted.send_headers(&[field((":status", "200"))]).await.unwrap();
        assert!(matches!(request.next_event().await, Ok(Some(MessageEvent::Headers(_)))));
        let following = Following::new(accepted, Script::default(), None);
        Self { near: following, far: request, _connections: [near, far] }
    }

    /// Gives the near end an ESP carrier that wants its first keys.
    fn start_esp(&mut self) {
        let setup = EspSetup {
            negotiated: Answer { suite: Suite::Aes256Gcm, group: Group::ALL[0], vouched: false },
            secret: &mut [7; 32],
            plane: Arc::new(NoWorkers),
            session: session().0,
            policy: RekeyPolicy::default(),
            largest_packet: 1400,
        };
        self.near.esp = Some(EspControl::client(setup, "192.0.2.1:443".parse().unwrap(), now()));
    }

    async fn step(&mut self) -> Result<Step<Told>, FollowError> {
        timeout(PATIENCE, self.near.step()).await.expect("the step never ends")
    }

    /// The next content at the far end.
    async fn heard(&mut self) -> Vec<u8> {
        match timeout(PATIENCE, self.far.next_event()).await.expect("nothing comes") {
            Ok(Some(MessageEvent::Data(data))) => data.to_vec(),
            other => panic!("{other:?}"),
        }
    }
}

fn field((name, value): (&str, &str)) -> Field {
    Field::new(name, value)
}

async fn connections(window: u32) -> [H3Connection; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["gw.example".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let leaf_key = PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into();
    let identity = ServerIdentity::new(vec![leaf.into(), authority.clone()], leaf_key).unwrap();
    let tls = tls::server_config(Arc::new(identity), &authority).unwrap();
    let bind = || quic::bind((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
    let keys = EndpointKeys { reset: [1; 32], token: [2; 32], connection_id: 3 };
    let server = quic::server_endpoint(bind(), tls, &keys).unwrap();
    let client = quic::client_endpoint(bind()).unwrap();
    let mut config = quic::client_config(tls::client_config(&authority, None).unwrap()).unwrap();
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(window.into());
    config.transport_config(Arc::new(transport));
    let connecting = client.connect_with(config, server.local_addr().unwrap(), "gw.example").unwrap();
    let accepting = async { server.accept().await.unwrap().await };
    let (far, near) = futures::try_join!(connecting, accepting).unwrap();
    [H3Connection::start(near, Role::Server), H3Connection::start(far, Role::Client)]
}

const WIDE: u32 = 1 << 20;

#[tokio::test]
async fn events_are_told_in_order_and_then_that_there_are_no_more() {
    let mut world = World::new(WIDE).await;
    for text in ["one", "two"] {
        world.far.send_data(text.as_bytes()).await.unwrap();
        assert_eq!(world.step().await.unwrap(), Step::Event(Told::Data(text.as_bytes().to_vec())));
        assert_eq!(world.step().await.unwrap(), Step::Drained);
    }
    assert!(world.near.step().now_or_never().is_none(), "there is nothing to tell");
}

#[tokio::test]
async fn what_the_machine_has_to_say_is_sent_in_one_piece_and_in_order() {
    let mut world = World::new(WIDE).await;
    world.near.machine.transmits.extend([b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    assert!(world.near.step().now_or_never().is_none(), "it waits for the peer then");
    assert_eq!(world.heard().await, b"onetwothree");
}

#[tokio::test]
async fn deadline_of_the_machine_is_kept() {
    let mut world = World::new(WIDE).await;
    world.near.machine.due = Some(now() + Duration::from_millis(20));
    assert_eq!(world.step().await.unwrap(), Step::Event(Told::Timeout));
    assert_eq!(world.step().await.unwrap(), Step::Drained);
    assert!(world.near.step().now_or_never().is_none(), "one deadline is told once");
}

#[tokio::test]
async fn end_of_the_peers_message_ends_every_further_step() {
    let mut world = World::new(WIDE).await;
    world.far.send_data(b"last").await.unwrap();
    world.far.finish();
    assert_eq!(world.step().await.unwrap(), Step::Event(Told::Data(b"last".to_vec())));
    assert_eq!(world.step().await.unwrap(), Step::Drained);
    for _ in 0..2 {
        assert_eq!(world.step().await.unwrap(), Step::Ended);
    }
}

#[tokio::test]
async fn peer_that_breaks_the_protocol_loses_its_stream() {
    let mut world = World::new(WIDE).await;
    world.far.send_data(BREACH).await.unwrap();
    let error = world.step().await.unwrap_err();
    assert!(matches!(error, FollowError::Stream(StreamError::Protocol(_))), "{error:?}");
    let told = timeout(PATIENCE, world.far.next_event()).await.unwrap();
    let code = adit_proto::http::h3::error::Code::MESSAGE_ERROR.value();
    assert!(matches!(told, Err(StreamError::Reset(reset)) if reset == code), "{told:?}");
}

#[tokio::test]
async fn peer_that_goes_away_is_an_error() {
    let mut world = World::new(WIDE).await;
    let TunnelStream::H3(stream) = &world.far else { panic!("the world has HTTP/3") };
    stream.quic().close(0_u32.into(), b"");
    let error = world.step().await.unwrap_err();
    assert!(matches!(error, FollowError::Stream(StreamError::Connection(_))), "{error:?}");
}

#[tokio::test]
async fn peer_that_does_not_read_is_given_up_only_if_there_is_a_limit() {
    let mut world = World::new(1024).await;
    world.near.machine.transmits.push_back(vec![1; 64 * 1024]);
    assert!(timeout(Duration::from_millis(100), world.near.step()).await.is_err(), "it waits for the peer to read");
    world.near = world.near.with_unread_limit(Duration::from_millis(20));
    assert!(matches!(world.step().await, Err(FollowError::Unread)));
}

#[tokio::test]
async fn cancelled_steps_give_a_peer_that_does_not_read_no_more_time() {
    let mut world = World::new(1024).await;
    world.near.machine.transmits.push_back(vec![1; 64 * 1024]);
    world.near = world.near.with_unread_limit(Duration::from_millis(50));
    let given_up = async {
        while !matches!(timeout(Duration::from_millis(1), world.near.step()).await, Ok(Err(FollowError::Unread))) {}
    };
    timeout(PATIENCE, given_up).await.expect("each step begins the limit anew");
}

#[tokio::test]
async fn step_that_is_cancelled_while_it_sends_goes_on_where_it_was() {
    let mut world = World::new(1024).await;
    let content: Vec<u8> = (0..64 * 1024_u32).map(|number| number.to_le_bytes()[0]).collect();
    world.near.machine.transmits.extend(content.chunks(1000).map(<[u8]>::to_vec));
    let World { near, far, .. } = &mut world;
    let reading = async {
        let mut read = Vec::new();
        while read.len() < content.len() {
            match far.next_event().await {
                Ok(Some(MessageEvent::Data(data))) => read.extend_from_slice(&data),
                other => panic!("{other:?}"),
            }
        }
        read
    };
    let mut reading = pin!(reading);
    let (mut cancelled, until) = (0, Instant::now() + PATIENCE);
    let read = loop {
        tokio::select! {
            biased;
            read = &mut reading => break read,
            step = near.step() => panic!("{step:?}"),
            // The step is polled once and dropped.
            () = tokio::task::yield_now() => cancelled += 1,
        }
        // Goes behind what waits, not into the middle of it.
        near.ask();
        assert!(Instant::now() < until, "nothing arrives");
        tokio::task::yield_now().await;
    };
    assert!(read == content, "what was half sent was lost or sent again");
    assert!(cancelled > 0);
}

#[tokio::test]
async fn step_that_is_cancelled_loses_no_event() {
    let mut world = World::new(WIDE).await;
    let World { near, far, .. } = &mut world;
    let mut told = Vec::new();
    for number in 0..50_u8 {
        far.send_data(&[number]).await.unwrap();
    }
    let until = Instant::now() + PATIENCE;
    while told.iter().map(Vec::len).sum::<usize>() < 50 && Instant::now() < until {
        // Polled once and dropped, over and over.
        if let Some(Ok(Step::Event(Told::Data(data)))) = near.step().now_or_never() {
            told.push(data);
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(told.concat(), (0..50).collect::<Vec<u8>>());
}

#[tokio::test]
async fn asking_sends_content_of_no_bytes() {
    let mut world = World::new(WIDE).await;
    let TunnelStream::H3(stream) = &world.far else { panic!("the world has HTTP/3") };
    let quic = stream.quic().clone();
    let before = quic.stats().frame_rx.stream;
    world.near.ask();
    assert!(world.near.step().now_or_never().is_none());
    let asked = async {
        while quic.stats().frame_rx.stream == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, asked).await.expect("nothing was sent");
    world.near.machine.transmits.push_back(b"after".to_vec());
    assert!(world.near.step().now_or_never().is_none());
    assert_eq!(world.heard().await, b"after");
}

#[tokio::test]
async fn esp_is_driven_while_the_tunnel_waits_and_its_capsules_go_to_it() {
    let mut world = World::new(WIDE).await;
    world.start_esp();
    assert!(world.near.step().now_or_never().is_none());
    assert_eq!((world.near.machine.esp_sent, world.heard().await), (1, b"esp".to_vec()), "it asked for its first keys");
    world.far.send_data(ESP_BREACH).await.unwrap();
    let error = world.step().await.unwrap_err();
    assert!(matches!(error, FollowError::Esp(_)), "{error:?}");
    // The owner decides what becomes of the stream.
    world.far.send_data(b"still there").await.unwrap();
}

#[tokio::test]
async fn without_esp_its_capsules_are_told_to_the_owner() {
    let mut world = World::new(WIDE).await;
    world.far.send_data(ESP_BREACH).await.unwrap();
    assert_eq!(world.step().await.unwrap(), Step::Event(Told::Esp(strange_capsule())));
    assert!(!world.near.take_unanswered());
}
