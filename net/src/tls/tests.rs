//! Which certificate a gateway shows, in real handshakes without a socket.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConnection, ServerConnection};

use super::*;

/// A certificate authority and a certificate that it issued for `gw.example`.
struct Issued {
    authority: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn issue() -> Issued {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["gw.example".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    Issued { chain: vec![leaf.into(), authority.clone()], authority, key }
}

/// Shakes hands; the error is the client's.
fn shake_hands(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<(), rustls::Error> {
    let mut client = ClientConnection::new(client, "gw.example".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        server.read_tls(&mut sent.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        sent.clear();
        server.write_tls(&mut sent).unwrap();
        client.read_tls(&mut sent.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    Ok(())
}

#[test]
fn client_that_knows_the_authority_gets_its_certificate_and_others_the_public_one() {
    let (own, public) = (issue(), issue());
    let identity = Arc::new(ServerIdentity::new(own.chain, own.key).unwrap());
    let server = server_config(Arc::clone(&identity), &own.authority).unwrap();
    let knows_authority = || client_config(&own.authority, None).unwrap();
    let knows_pin = || pinned_client_config(spki_sha256(&own.authority).unwrap()).unwrap();
    let trusts = |authority: &CertificateDer<'static>| rooted_client_config(roots(authority).unwrap()).unwrap();

    // Without a public certificate everybody gets the gateway's own.
    shake_hands(knows_authority(), Arc::clone(&server)).unwrap();
    shake_hands(trusts(&own.authority), Arc::clone(&server)).unwrap();
    assert!(shake_hands(trusts(&public.authority), Arc::clone(&server)).is_err());

    identity.show_to_public(public.chain, public.key).unwrap();
    shake_hands(knows_authority(), Arc::clone(&server)).unwrap();
    shake_hands(knows_pin(), Arc::clone(&server)).unwrap();
    shake_hands(trusts(&public.authority), Arc::clone(&server)).unwrap();
    assert!(shake_hands(trusts(&own.authority), server).is_err(), "it gets the public certificate");
}

#[test]
fn public_certificate_with_the_key_of_another_is_refused_and_the_former_stays() {
    let (own, public, other) = (issue(), issue(), issue());
    let identity = Arc::new(ServerIdentity::new(own.chain, own.key).unwrap());
    identity.show_to_public(public.chain.clone(), public.key).unwrap();
    assert!(identity.show_to_public(public.chain, other.key).is_err());
    let server = server_config(identity, &own.authority).unwrap();
    shake_hands(rooted_client_config(roots(&public.authority).unwrap()).unwrap(), server).unwrap();
}
