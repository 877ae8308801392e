//! DTLS between us and OpenSSL and GnuTLS, in both roles, over loopback.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod hostile;
mod road;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_net::cipher::Cipher;
use adit_proto::dtls::association::{Association, Ending, Event};
use adit_proto::dtls::greeting::{Greeter, Greeting};
use adit_proto::dtls::handshake::{Credential, Setup};
use adit_proto::dtls::record::ContentType;
use adit_proto::dtls::sa::Outbound;
use adit_proto::dtls::secret::MasterSecret;
use adit_proto::dtls::suite::CipherSuite;
use adit_testing::{PATIENCE, skip};

use road::Road;

type End = Association<Cipher, Arc<Outbound<Cipher>>>;

const KEY: [u8; 32] = [0x5a; 32];
const MASTER: [u8; 48] = [0x3c; 48];
const SESSION: [u8; 32] = [0x77; 32];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random<const N: usize>() -> [u8; N] {
    adit_program::random::random().unwrap()
}

fn psk(suite: CipherSuite) -> Credential {
    Credential::PreSharedKey { key: KEY.to_vec().into(), suites: vec![suite] }
}

fn setup(credential: Credential) -> Setup {
    Setup { credential, session_id: SESSION.to_vec(), random: random(), largest_datagram: 1200 }
}

/// A suite as GnuTLS names it.
fn priority(suite: CipherSuite) -> String {
    let cipher = match suite {
        CipherSuite::PskAes256Gcm => "AES-256-GCM",
        CipherSuite::PskAes128Gcm => "AES-128-GCM",
        CipherSuite::PskChaCha20Poly1305 => "CHACHA20-POLY1305",
        CipherSuite::RsaAes256Gcm
        | CipherSuite::RsaAes128Gcm
        | CipherSuite::EcdheRsaAes256Gcm
        | CipherSuite::EcdheRsaAes128Gcm => panic!("no suite of a pre-shared key"),
    };
    format!("NONE:+VERS-DTLS1.2:+PSK:+{cipher}:+AEAD:+COMP-NULL:+SIGN-ALL:+GROUP-ALL")
}

/// A program of others; dropping it ends it.
struct Stranger {
    child: Child,
    output: Receiver<Vec<u8>>,
    heard: Vec<u8>,
}

impl Stranger {
    /// `None`, and said so, where the program is missing.
    fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                skip(format_args!("{program} is missing; install openssl and gnutls-bin"));
                return None;
            }
            Err(error) => panic!("{program}: {error}"),
        };
        let (sender, output) = mpsc::sync_channel(1000);
        let mut stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = stdout.read(&mut buffer)
                && sender.send(buffer[..len].to_vec()).is_ok()
            {}
        });
        Some(Self { child, output, heard: Vec::new() })
    }

    fn say(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).unwrap();
    }

    fn has_heard(&mut self, text: &str) -> bool {
        self.heard.extend(self.output.try_iter().flatten());
        self.heard.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Our end on a socket.
struct Ours {
    socket: UdpSocket,
    greeter: Greeter,
    /// What an association begins with once a client is introduced.
    waiting: Option<Setup>,
    end: Option<(End, SocketAddr)>,
    /// Whom the last datagram was from.
    peer: Option<SocketAddr>,
    events: Vec<Event>,
    /// What happens to datagrams on their way to us.
    road: Road,
    /// What came, and what was sent, as it was at our end.
    came: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Ours {
    fn new(waiting: Option<Setup>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let greeter = Greeter::new(random(), Instant::now());
        let (end, peer, events, came, sent) = (None, None, Vec::new(), Vec::new(), Vec::new());
        Self { socket, greeter, waiting, end, peer, events, road: Road::Good, came, sent }
    }

    fn server(setup: Setup) -> (Self, String) {
        let ours = Self::new(Some(setup));
        let port = ours.socket.local_addr().unwrap().port().to_string();
        (ours, port)
    }

    fn client(setup: Setup, port: u16) -> Self {
        let mut ours = Self::new(None);
        ours.end = Some((End::client(setup, Instant::now()), SocketAddr::from(([127, 0, 0, 1], port))));
        ours
    }

    fn say(&mut self, text: &str) {
        let (end, to) = self.end.as_ref().unwrap();
        let (record, to) =
            (end.outbound().unwrap().record(ContentType::ApplicationData, text.as_bytes()).unwrap(), *to);
        self.send(&record, to);
    }

    fn send(&mut self, datagram: &[u8], to: SocketAddr) {
        self.sent.push(datagram.to_vec());
        self.socket.send_to(datagram, to).unwrap();
    }

    /// Moves datagrams until `done`, for so long as anything may take.
    fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "it does not happen; so far: {:?}", self.events);
            self.step();
        }
    }

    fn step(&mut self) {
        let mut buffer = [0; 2048];
        // A timeout, or a stranger that does not listen yet.
        match self.socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                self.peer = Some(from);
                for mut arriving in self.road.carry(&buffer[..len]) {
                    self.came.push(arriving.clone());
                    self.handle(&mut arriving, from);
                }
            }
            Err(_) => {
                // Nothing more comes that what is late could come behind.
                if let Some((mut late, from)) = self.road.late().zip(self.peer) {
                    self.came.push(late.clone());
                    self.handle(&mut late, from);
                }
            }
        }
        self.drain();
    }

    fn drain(&mut self) {
        let Some((end, to)) = &mut self.end else { return };
        end.handle_timeout(Instant::now());
        let (datagrams, to): (Vec<_>, _) = (std::iter::from_fn(|| end.poll_transmit()).collect(), *to);
        self.events.extend(std::iter::from_fn(|| end.poll_event()));
        for datagram in datagrams {
            self.send(&datagram, to);
        }
    }

    fn handle(&mut self, datagram: &mut [u8], from: SocketAddr) {
        let now = Instant::now();
        match self.greeter.greet(datagram, from, now) {
            Ok(Greeting::Ask(answer)) => self.send(&answer, from),
            Ok(Greeting::Proven(introduction)) => {
                if let Some(setup) = self.waiting.take() {
                    self.end = Some((End::server(setup, &introduction, now), from));
                }
            }
            Err(_) => {}
        }
        if let Some((end, _)) = &mut self.end {
            // What is not for the association is dropped by it.
            end.handle_datagram(datagram, now).ok();
        }
    }

    fn has_heard(&self, text: &str) -> bool {
        self.heard(text) > 0
    }

    /// How often the stranger said this.
    fn heard(&self, text: &str) -> usize {
        let data = self.events.iter().filter_map(|event| match event {
            Event::Data(data) => Some(&data[..]),
            Event::Established | Event::Closed(_) => None,
        });
        let said: Vec<u8> = data.flatten().copied().collect();
        said.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
    }

    fn established(&self) -> usize {
        self.events.iter().filter(|event| **event == Event::Established).count()
    }

    /// The handshake, and data both ways.
    fn talk(&mut self, stranger: &mut Stranger) {
        self.run_until(|ours| ours.events.contains(&Event::Established));
        stranger.say("from the stranger\n");
        self.run_until(|ours| ours.has_heard("from the stranger\n"));
        self.say("from us\n");
        self.run_until(|_| stranger.has_heard("from us\n"));
        let ends = self.events.iter().filter(|event| matches!(event, Event::Closed(_))).count();
        assert_eq!(ends, 0, "the association lives");
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn openssl_client(port: &str, suite: CipherSuite, more: &[&str]) -> Option<Stranger> {
    let (address, key) = (format!("127.0.0.1:{port}"), hex(&KEY));
    let arguments = ["s_client", "-dtls1_2", "-connect", &address, "-cipher", suite.name(), "-psk", &key];
    Stranger::start("openssl", &[&arguments[..], &["-psk_identity", "psk"], more].concat())
}

#[test]
fn openssl_as_client_talks_to_us_with_each_suite() {
    for suite in CipherSuite::PSK {
        let (mut ours, port) = Ours::server(setup(psk(suite)));
        let Some(mut stranger) = openssl_client(&port, suite, &["-quiet"]) else { return };
        ours.talk(&mut stranger);
    }
}

fn openssl_server(port: u16, suite: CipherSuite) -> Option<Stranger> {
    let (address, key) = (format!("127.0.0.1:{port}"), hex(&KEY));
    let arguments = ["s_server", "-dtls1_2", "-accept", &address, "-nocert", "-quiet", "-psk", &key];
    Stranger::start("openssl", &[&arguments[..], &["-psk_identity", "psk", "-cipher", suite.name()]].concat())
}

#[test]
fn openssl_as_server_talks_to_us_with_each_suite() {
    for suite in CipherSuite::PSK {
        let port = free_port();
        let Some(mut stranger) = openssl_server(port, suite) else { return };
        Ours::client(setup(psk(suite)), port).talk(&mut stranger);
    }
}

fn gnutls_client(port: &str, suite: CipherSuite, more: &[&str]) -> Option<Stranger> {
    let (key, priority) = (hex(&KEY), priority(suite));
    let arguments = ["--udp", "-p", port, "--pskusername", "psk", "--pskkey", &key, "--priority", &priority];
    Stranger::start("gnutls-cli", &[&arguments[..], more, &["127.0.0.1"]].concat())
}

#[test]
fn gnutls_as_client_talks_to_us_with_each_suite() {
    for suite in CipherSuite::PSK {
        let (mut ours, port) = Ours::server(setup(psk(suite)));
        let Some(mut stranger) = gnutls_client(&port, suite, &[]) else { return };
        ours.talk(&mut stranger);
    }
}

/// It sends back what it hears.
#[test]
fn gnutls_as_server_talks_to_us_with_each_suite() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, format!("psk:{}\n", hex(&KEY))).unwrap();
    for suite in CipherSuite::PSK {
        let (port, priority) = (free_port(), priority(suite));
        let (number, keys) = (port.to_string(), keys.to_str().unwrap());
        let arguments = ["--udp", "--echo", "-p", &number, "--pskpasswd", keys, "--priority", &priority];
        let Some(_stranger) = Stranger::start("gnutls-serv", &arguments) else { return };
        let mut ours = Ours::client(setup(psk(suite)), port);
        ours.run_until(|ours| ours.events.contains(&Event::Established));
        ours.say("there and back\n");
        ours.run_until(|ours| ours.has_heard("there and back\n"));
    }
}

/// A session that OpenSSL resumes though it was never in it, as Cisco's clients do: an `SSL_SESSION` of its own format.
fn session_file(suite: CipherSuite) -> String {
    let tagged = |tag: u8, value: &[u8]| [&[tag, u8::try_from(value.len()).unwrap()], value].concat();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let session = [
        tagged(2, &[1]),
        tagged(2, &[0, 0xfe, 0xfd]),
        tagged(4, &suite.code().to_be_bytes()),
        tagged(4, &SESSION),
        tagged(4, &MASTER),
        tagged(0xa1, &tagged(2, &now.to_be_bytes()[4..])),
        tagged(0xa2, &tagged(2, &[0x1c, 0x20])),
    ];
    let mut encoder = Command::new("openssl");
    encoder.args(["base64", "-e"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = encoder.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&tagged(0x30, &session.concat())).unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    format!("-----BEGIN SSL SESSION PARAMETERS-----\n{text}-----END SSL SESSION PARAMETERS-----\n")
}

#[test]
fn openssl_resumes_a_given_session_with_each_suite() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        return skip("openssl is missing; install it");
    }
    let folder = tempfile::tempdir().unwrap();
    for suite in CipherSuite::RESUMED {
        let file = folder.path().join(suite.name());
        std::fs::write(&file, session_file(suite)).unwrap();
        let credential = Credential::Resumed { master: MasterSecret::new(MASTER), suite };
        let (mut ours, port) = Ours::server(setup(credential));
        let more = ["-quiet", "-sess_in", file.to_str().unwrap()];
        let Some(mut stranger) = openssl_client(&port, suite, &more) else { return };
        ours.talk(&mut stranger);
    }
}
