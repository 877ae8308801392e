//! A gateway that answers from a list, one answer for each connection over TLS.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use adit_net::tls;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::gateway_contact::GatewayContact;
use crate::profile::tests::profile;
use crate::profile::{GatewayProtocol, Identity, Profile};

/// How long the client may take for its next request.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request as it came.
pub(super) struct Heard {
    /// Method and path.
    pub(super) asked: String,
    pub(super) body: String,
}

pub(super) struct ListedGateway {
    port: u16,
    pin: [u8; 32],
    serving: JoinHandle<Vec<Heard>>,
}

impl ListedGateway {
    pub(super) fn start(answers: Vec<String>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate: CertificateDer<'static> =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap().into();
        let pin = tls::spki_sha256(&certificate).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(tls::crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (port, config) = (listener.local_addr().unwrap().port(), Arc::new(config));
        let serving =
            thread::spawn(move || answers.iter().map(|answer| serve(accept(&listener), &config, answer)).collect());
        Self { port, pin, serving }
    }

    /// The profile of a client that knows it.
    pub(super) fn profile(&self) -> Profile {
        Profile {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.port,
            protocol: GatewayProtocol::AnyConnect,
            addresses: Vec::new(),
            authority_pem: String::new(),
            pin: Some(self.pin),
            identity: Identity::Login,
            ..profile("work")
        }
    }

    pub(super) async fn contact(&self) -> GatewayContact {
        GatewayContact::of(&self.profile(), None).await.unwrap()
    }

    /// All requests, once each answer was given.
    pub(super) fn heard(self) -> Vec<Heard> {
        self.serving.join().unwrap()
    }
}

/// An answer with a document.
pub(super) fn page(document: &str) -> String {
    answer("200 OK", &[], document)
}

/// An answer of this status, with these fields beside the usual ones.
pub(super) fn answer(status: &str, fields: &[&str], body: &str) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn accept(listener: &TcpListener) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((socket, _)) => return socket,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < deadline, "the client asks for less than it should");
        thread::sleep(Duration::from_millis(5));
    }
}

fn serve(socket: TcpStream, config: &Arc<ServerConfig>, answer: &str) -> Heard {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), socket);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lengths = head.lines().filter_map(|line| line.split_once(": "));
    let length = lengths.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    stream.write_all(answer.as_bytes()).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let asked = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    Heard { asked, body: String::from_utf8(body).unwrap() }
}
