//! QUIC, TLS and HTTP/3 of both sides over loopback.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use adit_net::carrier::Carrier as _;
use adit_net::carrier::quic::Datagrams;
use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_net::packet_buffer::PacketBuffer;
use adit_net::quic::{self, EndpointKeys};
use adit_net::tls::{self, ServerIdentity, spki_sha256};
use adit_program::task::{self, Task};
use adit_proto::http::field::{Field, status, value};
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::role::Role;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().into();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> Chain {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![leaf.into(), self.certificate.clone()], key.into())
    }

    fn client_certificate(&self) -> Chain {
        self.issue("device.example", ExtendedKeyUsagePurpose::ClientAuth)
    }
}

struct Server {
    address: SocketAddr,
    _serving: Task,
}

/// A server that answers every request with what it read of the body, and whether the client showed a certificate.
fn echo_server(authority: &Authority) -> Server {
    let (chain, key) = authority.issue("gw.example", ExtendedKeyUsagePurpose::ServerAuth);
    let identity = Arc::new(ServerIdentity::new(chain, key).unwrap());
    let tls = tls::server_config(identity, &authority.certificate).unwrap();
    let socket = quic::bind((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
    let keys = EndpointKeys { reset: [1; 32], token: [2; 32], connection_id: 3 };
    let endpoint = quic::server_endpoint(socket, tls, &keys).unwrap();
    let address = endpoint.local_addr().unwrap();
    let serving = task::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Some(incoming) = endpoint.accept().await {
            connections.spawn(async move {
                let Ok(quic) = incoming.await else { return };
                let known = if quic.peer_identity().is_some() { "yes" } else { "no" };
                let http = H3Connection::start(quic, Role::Server);
                while let Ok(stream) = http.accept_request().await {
                    echo(stream.into(), known).await;
                }
            });
        }
    });
    Server { address, _serving: serving }
}

async fn echo(mut stream: TunnelStream, known: &str) {
    let Ok(body) = stream.read_body(1024 * 1024).await else { return };
    stream.send_headers(&[Field::new(":status", "200"), Field::new("known", known)]).await.unwrap();
    stream.send_data(&body).await.unwrap();
    stream.finish();
}

async fn connect(address: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Result<H3Connection, String> {
    let socket = quic::bind((Ipv4Addr::UNSPECIFIED, 0).into(), None).unwrap();
    let endpoint = quic::client_endpoint(socket).unwrap();
    let connecting = endpoint.connect_with(quic::client_config(tls).unwrap(), address, "gw.example").unwrap();
    let quic = connecting.await.map_err(|error| error.to_string())?;
    Ok(H3Connection::start(quic, Role::Client))
}

/// Posts `body`; gives the `known` field and the body of the answer.
async fn post(http: &H3Connection, body: &[u8]) -> Result<(String, Vec<u8>), String> {
    let settings = http.peer_settings().await.map_err(|error| error.to_string())?;
    assert!(settings.connect_protocol && settings.datagrams);
    let mut stream = TunnelStream::from(http.open_request().await.map_err(|error| error.to_string())?);
    let fields = [(":method", "POST"), (":scheme", "https"), (":authority", "gw.example"), (":path", "/")];
    let sent = stream.send_headers(&fields.map(|(name, value)| Field::new(name, value))).await;
    sent.map_err(|error| error.to_string())?;
    stream.send_data(body).await.map_err(|error| error.to_string())?;
    stream.finish();
    match stream.next_event().await.map_err(|error| error.to_string())? {
        Some(MessageEvent::Headers(fields)) => {
            assert_eq!(status(&fields), Ok(200));
            let known = value(&fields, "known").unwrap().to_owned();
            Ok((known, stream.read_body(1024 * 1024).await.map_err(|error| error.to_string())?))
        }
        other => Err(format!("unexpected {other:?}")),
    }
}

#[tokio::test]
async fn request_and_answer_carry_their_bodies() {
    let authority = Authority::new();
    let server = echo_server(&authority);
    let http = connect(server.address, tls::client_config(&authority.certificate, None).unwrap()).await.unwrap();
    let body: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let (known, echoed) = post(&http, &body).await.unwrap();
    assert_eq!(known, "no");
    assert_eq!(echoed, body);
}

#[tokio::test]
async fn client_that_offers_only_post_quantum_key_exchange_is_served() {
    let authority = Authority::new();
    let server = echo_server(&authority);
    let mut provider = rustls::crypto::CryptoProvider::clone(&tls::crypto_provider());
    provider.kx_groups.truncate(1);
    assert_eq!(provider.kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let http = connect(server.address, Arc::new(tls)).await.unwrap();
    assert_eq!(post(&http, b"hello").await.unwrap().1, b"hello");
}

#[tokio::test]
async fn client_certificate_of_the_authority_is_seen() {
    let authority = Authority::new();
    let server = echo_server(&authority);
    let certificate = Some(authority.client_certificate());
    let http = connect(server.address, tls::client_config(&authority.certificate, certificate).unwrap()).await.unwrap();
    assert_eq!(post(&http, b"hello").await.unwrap().0, "yes");
}

#[tokio::test]
async fn client_certificate_of_another_authority_ends_the_connection() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = echo_server(&authority);
    let certificate = Some(other.client_certificate());
    let tls = tls::client_config(&authority.certificate, certificate).unwrap();
    let refused = match connect(server.address, tls).await {
        Ok(http) => post(&http, b"hello").await.unwrap_err(),
        Err(error) => error,
    };
    assert!(refused.contains("invalid peer certificate"), "{refused}");
}

#[tokio::test]
async fn gateway_of_another_authority_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = echo_server(&authority);
    assert!(connect(server.address, tls::client_config(&other.certificate, None).unwrap()).await.is_err());
    let pin = spki_sha256(&other.certificate).unwrap();
    assert!(connect(server.address, tls::pinned_client_config(pin).unwrap()).await.is_err());
}

#[tokio::test]
async fn pinned_authority_is_enough_to_connect() {
    let authority = Authority::new();
    let server = echo_server(&authority);
    let pin = spki_sha256(&authority.certificate).unwrap();
    let http = connect(server.address, tls::pinned_client_config(pin).unwrap()).await.unwrap();
    assert_eq!(post(&http, b"hello").await.unwrap().1, b"hello");
}

/// Waits until `holds`.
async fn eventually(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it never happens");
}

#[tokio::test]
async fn packets_sent_by_quic_are_counted_when_they_leave_and_dropped_when_the_connection_is_gone() {
    const PACKETS: usize = 500;
    let authority = Authority::new();
    let server = echo_server(&authority);
    let http = connect(server.address, tls::client_config(&authority.certificate, None).unwrap()).await.unwrap();
    let datagrams = Datagrams::new(http.quic().clone(), 0);
    let send = |packets, len| {
        let mut batch: Vec<_> = (0..packets).map(|_| PacketBuffer::copy_from(&vec![7; len])).collect();
        datagrams.send(&mut batch);
        assert!(batch.is_empty());
    };
    let traffic = || datagrams.counters().traffic();
    // Many times what the connection takes at once, less than may wait.
    send(PACKETS, 1000);
    eventually(|| traffic().tx_packets == PACKETS as u64).await;
    assert_eq!((traffic().tx_bytes, traffic().drops), (PACKETS as u64 * 1000, vec![]));
    // What came to an end begins again.
    send(1, 1000);
    eventually(|| traffic().tx_packets == PACKETS as u64 + 1).await;

    let mtu = datagrams.mtu();
    assert_eq!(datagrams.takes(usize::from(mtu)), Ok(()));
    let refused = datagrams.takes(usize::from(u16::MAX)).unwrap_err();
    assert!(refused >= mtu, "{refused} is less than {mtu}");
    send(1, 9000);
    eventually(|| traffic().drops == [("too_big", 1)]).await;

    http.quic().close(0_u32.into(), b"");
    send(3, 1000);
    eventually(|| traffic().drops.contains(&("not_connected", 3))).await;
    assert_eq!(traffic().tx_packets, PACKETS as u64 + 1);
}
