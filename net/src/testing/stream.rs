//! Connections over TLS and TCP.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_program::task;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConnection;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::carrier::stream::open;
use crate::http::h1::{Shaken, connect};
use crate::tls::{ServerIdentity, client_config, listener_config, over_tcp};

/// Both ends of a connection whose handshake is done.
pub async fn shaken() -> ((TcpStream, ServerConnection), Shaken) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["gw.example".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let identity = ServerIdentity::new(vec![leaf.into(), authority.clone()], key).unwrap();
    let server = listener_config(Arc::new(identity), &authority, false).unwrap();
    let client = over_tcp(&client_config(&authority, None).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = task::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(server).accept(socket).await.unwrap().into_inner()
    });
    let shaken = connect(open(address, None).await.unwrap(), client, "gw.example").await.unwrap();
    (accepting.await.unwrap(), shaken)
}

/// What a server sends that says something and ends its TLS by an alert at once.
pub fn sealed_before_an_alert(tls: &mut ServerConnection, words: &[u8]) -> Vec<u8> {
    tls.writer().write_all(words).unwrap();
    // A record that was sealed with no key of this connection.
    let forged = [&[23, 3, 3, 0, 32][..], &[0; 32]].concat();
    tls.read_tls(&mut forged.as_slice()).unwrap();
    tls.process_new_packets().unwrap_err();
    let mut sealed = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut sealed).unwrap();
    }
    sealed
}
