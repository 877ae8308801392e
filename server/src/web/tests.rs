use std::net::Ipv4Addr;

use adit_program::task::{self, Task};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::*;
use crate::config::OidcConfig;
use crate::sources::oidc::RefreshTokens;

/// Refresh tokens of a provider that nobody asks here.
struct Nowhere;

impl RefreshTokens for Nowhere {
    fn keep(&self, _subject: &str, _token: &Zeroizing<String>) -> Result<bool, String> {
        Ok(false)
    }

    fn kept(&self, _subject: &str) -> Result<Option<Zeroizing<String>>, String> {
        Ok(None)
    }
}

fn oidc() -> Arc<Oidc> {
    let settings = OidcConfig {
        issuer: Some("https://provider.test".to_owned()),
        client_id: Some("adit".to_owned()),
        ..OidcConfig::default()
    };
    Arc::new(Oidc::new(settings, "gateway.test", Arc::new(Nowhere)).unwrap())
}

fn identity() -> (Arc<ServerIdentity>, CertificateDer<'static>) {
    let issued = rcgen::generate_simple_self_signed(["gateway.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let certificate = issued.cert.der().clone();
    (Arc::new(ServerIdentity::new(vec![certificate.clone()], key).unwrap()), certificate)
}

fn serving(address: impl Into<IpAddr>) -> (u16, CertificateDer<'static>, Task) {
    let (identity, certificate) = identity();
    let listener = Listener::bind((address.into(), 0).into(), identity).unwrap();
    (listener.local_address().port(), certificate, task::spawn(listener.serve(oidc())))
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap()
}

/// Sends a request and gives all that comes back until the connection ends.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> String {
    // A gateway that refuses the head may not take all of it.
    let _refused = stream.write_all(text.as_bytes()).await;
    let mut heard = Vec::new();
    let _reset = stream.read_to_end(&mut heard).await;
    String::from_utf8(heard).unwrap()
}

fn request(cookies: usize) -> String {
    let cookies = "x".repeat(cookies);
    format!("GET /login/style.css HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncookie: {cookies}\r\n\r\n")
}

#[tokio::test]
async fn browsers_are_served_over_tls_with_the_gateways_certificate() {
    // All addresses: any but loopback ones has TLS.
    let (port, certificate, _serving) = serving(Ipv4Addr::UNSPECIFIED);
    let client = |trusted: CertificateDer<'static>| {
        let mut roots = RootCertStore::empty();
        roots.add(trusted).unwrap();
        let config = ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    };
    let name = || ServerName::try_from("gateway.test").unwrap();
    let stream = client(certificate).connect(name(), connect(port).await).await.unwrap();
    assert!(say(stream, &request(0)).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let (_, another) = identity();
    assert!(client(another).connect(name(), connect(port).await).await.is_err());
    assert!(!say(connect(port).await, &request(0)).await.contains("HTTP/1.1 200"), "there is no way without TLS");
}

#[tokio::test]
async fn head_that_no_browser_sends_is_refused() {
    let (port, _, _serving) = serving(Ipv4Addr::LOCALHOST);
    assert!(say(connect(port).await, &request(4096)).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(!say(connect(port).await, &request(2 * MAX_HEAD)).await.contains("HTTP/1.1 200"));
    let many = request(0).replace("cookie: ", &"a: b\r\n".repeat(1000));
    assert!(!say(connect(port).await, &many).await.contains("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_is_slow_to_ask_is_not_waited_for() {
    let (port, _, _serving) = serving(Ipv4Addr::LOCALHOST);
    let stream = connect(port).await;
    tokio::time::pause();
    let began = Instant::now();
    assert!(!say(stream, "GET /login/style.css HTTP/1.1\r\n").await.contains("HTTP/1.1 200"));
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
}

#[tokio::test]
async fn connection_ends_after_a_minute_however_busy_it_is() {
    let (port, _, _serving) = serving(Ipv4Addr::LOCALHOST);
    let mut stream = connect(port).await;
    tokio::time::pause();
    let began = Instant::now();
    let ask = request(0).replace("connection: close\r\n", "");
    let mut heard = vec![0; 4096];
    loop {
        if stream.write_all(ask.as_bytes()).await.is_err() || matches!(stream.read(&mut heard).await, Ok(0) | Err(_)) {
            break;
        }
        sleep(Duration::from_secs(5)).await;
    }
    assert!((55..=65).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

/// A connection of this address, handed to the gateway.
async fn from(client: [u8; 4], pending: &Arc<Pending>) -> (TcpStream, Task) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stream = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = socket.accept().await.unwrap();
    (stream, task::spawn(admit(accepted, client.into(), None, oidc(), Arc::clone(pending))))
}

#[tokio::test]
async fn one_network_cannot_take_all_places() {
    let pending = Pending::new(MAX_CONNECTIONS);
    let mut held = Vec::new();
    for number in 0..32 {
        held.push(from([192, 0, 2, number], &pending).await);
        tokio::task::yield_now().await;
    }
    let (full, _task) = from([192, 0, 2, 200], &pending).await;
    assert_eq!(say(full, &request(0)).await, "");
    let (other, _task) = from([198, 51, 100, 1], &pending).await;
    assert!(say(other, &request(0)).await.starts_with("HTTP/1.1 200 OK\r\n"));
    drop(held.pop());
    let served = timeout(adit_testing::PATIENCE, async {
        loop {
            let (next, _task) = from([192, 0, 2, 200], &pending).await;
            if say(next, &request(0)).await.starts_with("HTTP/1.1 200 OK\r\n") {
                break;
            }
        }
    });
    served.await.expect("a place that was given back is taken again");
}
