//! What a device that may connect may do: it is a client made by hand, with the profile of a real one.

use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_client::profile::{Identity, Profile};
use adit_lab::GATEWAY_V4;
use adit_lab::programs::Client;
use adit_lab::traffic::{Direction, NumberedPlan, numbered};
use adit_net::carrier::esp::{EspControl, EspSetup, exporter_secret};
use adit_net::carrier::quic::Datagrams;
use adit_net::carrier::{Carried, Carriers, Origin};
use adit_net::http::h3::{H3Connection, RequestStream};
use adit_net::udp::{DatagramSocket as _, EspSocket, bind_any};
use adit_net::worker::{DataPlane, Installation, Report};
use adit_net::{quic, tls};
use adit_proto::connect_ip::client::{Client as Machine, ClientConfig, ClientEvent};
use adit_proto::connect_ip::template::FULL_TUNNEL_PATH;
use adit_proto::esp::field::Offer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};
use adit_proto::esp::probe::{self, Kind, Probe};
use adit_proto::esp::spi::Spi;
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::role::Role;
use adit_proto::sealing::replay::Arrival;
use adit_testing::eventually;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::observe::{PORT, profile, stands};
use crate::harness::{INTERNET, Options, Tunnel};

/// Probes of a flood each millisecond.
const AT_ONCE: u64 = 20;
/// Probes of a flood, at least.
const FLOOD: u64 = 10_000;
/// Answers the gateway gives one session, each second and at once.
const ANSWERS: (u64, u64) = (50, 50);

/// The session of a client made by hand.
struct Own(Carriers);

impl Carried for Own {
    fn carriers(&self) -> &Carriers {
        &self.0
    }
}

/// Its packet path: one socket, and what came by it.
struct Plane {
    socket: EspSocket,
    sas: Mutex<Vec<Installation<Own>>>,
    claimed: AtomicU32,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    answers: AtomicU64,
    answer_bytes: AtomicU64,
}

impl DataPlane<Own> for Plane {
    fn claim_spi(&self, _beside: Option<Spi>) -> Option<Spi> {
        Spi::new(0, self.claimed.fetch_add(1, Ordering::Relaxed))
    }

    fn install(&self, installation: Installation<Own>) {
        self.sas.lock().unwrap().push(installation);
    }

    fn retire(&self, spi: Spi) {
        self.sas.lock().unwrap().retain(|known| known.sa.spi() != spi);
    }

    fn origin(&self, _to: SocketAddr) -> Origin {
        Origin::default()
    }

    fn send(&self, _origin: Origin, to: SocketAddr, datagram: &[u8], _ecn: u8) -> io::Result<()> {
        self.socket.send(to, None, datagram, datagram.len(), 0).error.map_or(Ok(()), Err)
    }
}

impl Plane {
    fn new() -> Self {
        let zero = AtomicU64::default;
        let socket = bind_any(false, None, false).unwrap();
        let (sas, claimed) = (Mutex::default(), AtomicU32::new(7));
        Self { socket, sas, claimed, sent: zero(), sent_bytes: zero(), answers: zero(), answer_bytes: zero() }
    }

    /// Opens all that has come and reports the probes.
    fn receive(&self) {
        let mut buffer = [0; 65_535];
        while let Ok(message) = self.socket.receive(&mut buffer) {
            for datagram in buffer[..message.len].chunks_mut(message.segment.max(1)) {
                self.open(datagram, message.from);
            }
        }
    }

    fn open(&self, datagram: &mut [u8], from: SocketAddr) {
        let mut sas = self.sas.lock().unwrap();
        let len = datagram.len();
        let Some((known, opened)) = sas.iter_mut().find_map(|known| {
            let opened = known.sa.open(datagram).ok()?;
            Some((known, opened))
        }) else {
            return;
        };
        let probe = Probe::decode(&datagram[opened.range()]);
        if probe.is_some_and(|probe| probe.kind == Kind::Answer) {
            self.answers.fetch_add(1, Ordering::Relaxed);
            self.answer_bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        let newest = opened.arrival == Arrival::Newest;
        let report = Report { epoch: known.epoch, from, origin: Origin::default(), len, newest, probe };
        known.reports.try_send(report).ok();
    }

    /// Sends requests to be answered, as many as are due each millisecond, if ESP passes.
    fn flood(&self, carriers: &Carriers) {
        let Some(route) = carriers.route().clone() else { return };
        for _ in 0..AT_ONCE {
            let nonce = u128::from(self.sent.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
            let mut datagram = vec![0; sealed_len(probe::LEN)];
            datagram[PREFIX_LEN..][..probe::LEN].copy_from_slice(&Probe { kind: Kind::Request, nonce }.encode());
            route.seal(&mut datagram, probe::LEN, NextHeader::Nothing).unwrap();
            self.send(route.origin, route.to, &datagram, 0).ok();
            self.sent_bytes.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        }
    }
}

/// An accepted connection, and what the gateway takes it for.
struct Insider {
    http: H3Connection,
    machine: Machine,
    stream: RequestStream,
}

impl Insider {
    /// Connects as the device of a profile, and asks for a tunnel. `window` is what the gateway may send on one stream
    /// before it is read.
    async fn connect(profile: &Profile, window: Option<u32>) -> Self {
        let authority = CertificateDer::from_pem_slice(profile.authority_pem.as_bytes()).unwrap();
        let Identity::Certificate { chain_pem, key_pem } = &profile.identity else { panic!("a token") };
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
        let mut config = quic::client_config(tls::client_config(&authority, Some((chain, key))).unwrap()).unwrap();
        if let Some(window) = window {
            let mut transport = quinn::TransportConfig::default();
            transport.stream_receive_window(window.into()).keep_alive_interval(Some(Duration::from_secs(1)));
            config.transport_config(Arc::new(transport));
        }
        let socket = quic::bind((Ipv4Addr::UNSPECIFIED, 0).into(), None).unwrap();
        let endpoint = quic::client_endpoint(socket).unwrap();
        let gateway = SocketAddr::from((GATEWAY_V4, PORT));
        let http = H3Connection::start(
            endpoint.connect_with(config, gateway, &profile.host).unwrap().await.unwrap(),
            Role::Client,
        );
        http.peer_settings().await.unwrap();
        let machine = Machine::new(ClientConfig {
            authority: profile.host.clone(),
            path: FULL_TUNNEL_PATH.to_owned(),
            bearer: None,
            wants_dns: true,
            login: None,
            esp: Some(Offer::default()),
        });
        let mut stream = http.open_request().await.unwrap();
        stream.expect_tunnel();
        stream.send_headers(&machine.request()).await.unwrap();
        Self { http, machine, stream }
    }

    /// Reads the answer and follows the tunnel, in which it sends probes without end, until it is told to stop.
    async fn flood(mut self, plane: &Arc<Plane>, stop: &AtomicBool) {
        let Some(MessageEvent::Headers(response)) = self.stream.next_event().await.unwrap() else {
            panic!("no answer")
        };
        self.machine.handle_response(&response, Instant::now()).unwrap();
        let datagrams = Arc::new(Datagrams::new(self.http.quic().clone(), self.stream.id()));
        let session = Arc::new(Own(Carriers::new(datagrams)));
        let setup = EspSetup {
            negotiated: self.machine.esp().unwrap(),
            secret: &mut exporter_secret(self.http.quic()).unwrap(),
            plane: Arc::clone(plane) as Arc<dyn DataPlane<Own>>,
            session: Arc::clone(&session),
            policy: RekeyPolicy::default(),
            largest_packet: 1_420,
        };
        let mut esp = EspControl::client(setup, (GATEWAY_V4, PORT).into(), Instant::now());
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        while !stop.load(Ordering::Relaxed) {
            while let Some(capsule) = esp.poll_capsule() {
                self.machine.send_esp(capsule);
            }
            while let Some(capsules) = self.machine.poll_transmit() {
                self.stream.send_data(&capsules).await.unwrap();
            }
            tokio::select! {
                event = self.stream.next_event() => match event.unwrap() {
                    Some(MessageEvent::Data(data)) => self.machine.handle_data(&data).unwrap(),
                    other => panic!("the gateway ended the session: {other:?}"),
                },
                passed = esp.drive() => passed.unwrap(),
                _ = tick.tick() => {
                    plane.receive();
                    plane.flood(&session.0);
                }
            }
            while let Some(event) = self.machine.poll_event() {
                if let ClientEvent::Esp(capsule) = event {
                    esp.handle_capsule(capsule, Instant::now()).unwrap();
                }
            }
        }
        plane.receive();
    }
}

/// Runs what a client made by hand does, on the host of a real one.
fn start(client: &Client, act: impl AsyncFnOnce(Profile) + Send + 'static) -> JoinHandle<()> {
    let text = std::fs::read_to_string(profile(client)).unwrap();
    let profile = Profile::parse("home".parse().unwrap(), &text).unwrap();
    client.host().start(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(act(profile));
    })
}

#[test]
fn flood_of_probes_is_answered_at_a_rate_and_is_in_nobodys_way() {
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 2, settings: &[] }) else { return };
    tunnel.gateway.start().unwrap();
    (0..2).for_each(|number| tunnel.join(number));
    tunnel.clients[0].up().unwrap();
    stands(&tunnel, 0, "esp");
    let (plane, stop) = (Arc::new(Mutex::new(None::<Arc<Plane>>)), Arc::new(AtomicBool::new(false)));
    let flooding = start(&tunnel.clients[1], {
        let (told, stop) = (Arc::clone(&plane), Arc::clone(&stop));
        async move |profile| {
            let plane = Arc::new(Plane::new());
            *told.lock().unwrap() = Some(Arc::clone(&plane));
            Insider::connect(&profile, None).await.flood(&plane, &stop).await;
        }
    });
    let plane = eventually("the flood is on", || {
        plane.lock().unwrap().clone().filter(|plane| plane.sent.load(Ordering::Relaxed) > AT_ONCE)
    });
    let begun = Instant::now();
    let client = tunnel.client().host();
    for direction in [Direction::Upload, Direction::Download] {
        let plan = NumberedPlan { direction, flows: 2, sizes: vec![200, 1_200], packets: 500, rate: 500 };
        let report = numbered(client, &tunnel.internet, INTERNET[0], &plan).unwrap();
        println!("{direction:?}: {report:?}");
        assert!(report.is_flawless(), "established traffic is not harmed: {report:?}");
    }
    eventually("there was a flood", || (plane.sent.load(Ordering::Relaxed) > FLOOD).then_some(()));
    stop.store(true, Ordering::Relaxed);
    flooding.join().unwrap();
    let lasted = begun.elapsed() + Duration::from_secs(1);
    let [sent, answers] = [&plane.sent, &plane.answers].map(|count| count.load(Ordering::Relaxed));
    let [out, back] = [&plane.sent_bytes, &plane.answer_bytes].map(|count| count.load(Ordering::Relaxed));
    println!("{sent} probes of {out} bytes in {lasted:?}: {answers} answers of {back} bytes");
    assert!(answers > 0 && answers <= ANSWERS.1 + ANSWERS.0 * (lasted.as_secs() + 1), "{answers} answers");
    assert!(back * 10 < out, "{back} bytes for {out}");
    stands(&tunnel, 0, "esp");
}

#[test]
fn client_that_does_not_read_its_stream_is_cut_off() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    // Too little for the answer, for what is assigned, and for the keys of ESP.
    for window in [8, 40, 100] {
        let stop = Arc::new(AtomicBool::new(false));
        let stalled = start(tunnel.client(), {
            let stop = Arc::clone(&stop);
            async move |profile| {
                let insider = Insider::connect(&profile, Some(window)).await;
                let closed = insider.http.quic().closed();
                let told = async {
                    while !stop.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::select! {
                    _ = closed => pending::<()>().await,
                    () = told => {}
                }
            }
        });
        let begun = Instant::now();
        let sessions = || tunnel.gateway.sessions().unwrap().len();
        let opened = eventually("there is a session", || (sessions() == 1).then(Instant::now));
        eventually("the session is over", || (sessions() == 0).then_some(()));
        println!("window {window}: a session after {:?}, none {:?} later", opened - begun, opened.elapsed());
        stop.store(true, Ordering::Relaxed);
        stalled.join().unwrap();
    }
    // Who reads is served.
    tunnel.clients[0].up().unwrap();
    let status = stands(&tunnel, 0, "esp");
    assert!(status.addresses.iter().any(|address| matches!(address.addr(), IpAddr::V4(_))));
}
