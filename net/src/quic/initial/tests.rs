//! Both ends of a handshake without sockets, and a forger who hears all of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::quic;
use crate::testing::forgery::{Forger, Forgery};
use crate::tls;

const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 50_000);

/// The settings of a gateway, and those of a client that knows it.
fn settings() -> (quinn_proto::ServerConfig, quinn_proto::ClientConfig) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let authority: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    let issuer = rcgen::Issuer::new(params, key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["gw.example".into()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let leaf_key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let identity = tls::ServerIdentity::new(vec![leaf.into(), authority.clone()], leaf_key).unwrap();
    let server = tls::server_config(identity.into(), &authority).unwrap();
    let server = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
    let client = quic::client_config(tls::client_config(&authority, None).unwrap()).unwrap();
    (quinn_proto::ServerConfig::with_crypto(Arc::new(server)), client)
}

/// All that a connection wants to send now.
fn transmits(connection: &mut Connection) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    loop {
        let mut buffer = Vec::new();
        if connection.poll_transmit(Instant::now(), 1, &mut buffer).is_none() {
            return datagrams;
        }
        datagrams.push(buffer);
    }
}

/// Lets an endpoint take a datagram for a connection of its.
fn take(endpoint: &mut Endpoint, connection: &mut Connection, from: SocketAddr, datagram: &[u8]) {
    let taken = endpoint.handle(Instant::now(), from, None, None, datagram.into(), &mut Vec::new());
    if let Some(DatagramEvent::ConnectionEvent(_, event)) = taken {
        connection.handle_event(event);
    }
}

/// The client of a handshake whose last flight from the gateway has just been taken, with the client's first datagram.
/// Nothing of what follows from it has been sent.
struct Proven {
    client: Connection,
    endpoint: Endpoint,
    hello: Vec<u8>,
}

fn proven() -> Proven {
    let (server, client) = settings();
    let config = Arc::new(EndpointConfig::default());
    let mut gateway = Endpoint::new(Arc::clone(&config), Some(Arc::new(server)), true, None);
    let mut endpoint = Endpoint::new(config, None, true, None);
    let (_, mut client) = endpoint.connect(Instant::now(), client, GATEWAY, "gw.example").unwrap();
    let hello = transmits(&mut client);
    let mut accepted: Option<(ConnectionHandle, Connection)> = None;
    for datagram in &hello {
        match &mut accepted {
            Some((_, connection)) => take(&mut gateway, connection, CLIENT, datagram),
            None => {
                let taken =
                    gateway.handle(Instant::now(), CLIENT, None, None, datagram.as_slice().into(), &mut Vec::new());
                let Some(DatagramEvent::NewConnection(incoming)) = taken else { panic!("no Initial packet") };
                accepted = Some(gateway.accept(incoming, Instant::now(), &mut Vec::new(), None).unwrap());
            }
        }
    }
    let (_, mut server) = accepted.unwrap();
    // A gateway sends no more than three times what it got before it knows the client's address, which is enough here.
    for datagram in transmits(&mut server) {
        take(&mut endpoint, &mut client, GATEWAY, &datagram);
    }
    assert!(!client.is_handshaking(), "the gateway's flight is not whole");
    Proven { client, endpoint, hello: hello.into_iter().next().unwrap() }
}

fn is_lost(client: &mut Connection) -> bool {
    std::iter::from_fn(|| client.poll()).any(|event| matches!(event, Event::ConnectionLost { .. }))
}

#[test]
fn forged_packet_right_behind_the_gateways_proof_is_not_heard() {
    for forgery in Forgery::ALL {
        let Proven { mut client, mut endpoint, hello } = proven();
        let forged = Forger::default().answer(&hello, forgery).unwrap();
        take(&mut endpoint, &mut client, GATEWAY, &forged);
        assert!(!client.is_closed() && !is_lost(&mut client), "{forgery:?}");
    }
}

#[test]
fn forged_packet_before_the_gateways_proof_is_heard() {
    for forgery in Forgery::ALL {
        let (_, client) = settings();
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let (_, mut client) = endpoint.connect(Instant::now(), client, GATEWAY, "gw.example").unwrap();
        let hello = transmits(&mut client);
        let forged = Forger::default().answer(&hello[0], forgery).unwrap();
        take(&mut endpoint, &mut client, GATEWAY, &forged);
        assert!(client.is_closed() && is_lost(&mut client), "{forgery:?}: the forgery is none");
    }
}
