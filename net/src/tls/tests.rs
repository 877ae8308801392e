//! Which certificate a gateway shows, in real handshakes without a socket.

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair};
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

/// Shakes hands by a protocol of QUIC; the error is the client's.
fn shake_hands(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<(), rustls::Error> {
    assert_eq!(speak(client, server)?, ALPN);
    Ok(())
}

/// Shakes hands, and gives the protocol that was chosen.
fn speak(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Vec<u8>, rustls::Error> {
    let mut client = ClientConnection::new(client, "gw.example".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        server.read_tls(&mut sent.as_slice()).unwrap();
        // Why the server refuses, the client hears.
        let _refused = server.process_new_packets();
        sent.clear();
        server.write_tls(&mut sent).unwrap();
        client.read_tls(&mut sent.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(client.alpn_protocol().unwrap_or_default().to_vec())
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

    identity.show_to_public(Certified::new(public.chain, public.key).unwrap().into());
    shake_hands(knows_authority(), Arc::clone(&server)).unwrap();
    shake_hands(knows_pin(), Arc::clone(&server)).unwrap();
    shake_hands(trusts(&public.authority), Arc::clone(&server)).unwrap();
    assert!(shake_hands(trusts(&own.authority), Arc::clone(&server)).is_err(), "it gets the public certificate");

    identity.show_to_public(PublicCertificates::default());
    shake_hands(trusts(&own.authority), Arc::clone(&server)).unwrap();
    assert!(shake_hands(trusts(&public.authority), server).is_err(), "there is none any more");
}

#[test]
fn each_name_has_its_certificate_and_other_names_get_the_first() {
    let (own, first, second) = (issue(), issue(), issue());
    let authority = own.authority.clone();
    let identity = Arc::new(ServerIdentity::new(own.chain, own.key).unwrap());
    let server = listener_config(Arc::clone(&identity), &authority, false).unwrap();
    let is_shown = |other: &Issued| {
        let trusting = over_tcp(&rooted_client_config(roots(&other.authority).unwrap()).unwrap());
        speak(trusting, Arc::clone(&server)).is_ok()
    };
    let with = |first_name: &str, second_name: &str| {
        let certified = |of: &Issued| Certified::new(of.chain.clone(), of.key.clone_key()).unwrap();
        let all = PublicCertificates::default().with(first_name, certified(&first));
        identity.show_to_public(all.with(second_name, certified(&second)));
        (is_shown(&first), is_shown(&second))
    };
    // Clients ask for gw.example.
    assert_eq!(with("other.example", "gw.example"), (false, true));
    assert_eq!(with("gw.example", "other.example"), (true, false));
    assert_eq!(with("other.example", "third.example"), (true, false));
}

#[test]
fn answer_to_an_authority_may_have_its_critical_extension() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["gw.example".to_owned()]).unwrap();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&[7; 32])];
    let proof = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    assert!(challenge_config(proof.der().clone(), key).is_ok());
}

#[test]
fn certificate_with_the_key_of_another_is_refused() {
    let (one, other) = (issue(), issue());
    assert!(Certified::new(one.chain.clone(), other.key).is_err());
    assert!(Certified::new(one.chain, one.key).is_ok());
}

#[test]
fn over_tcp_certificates_are_chosen_as_by_quic_and_renewed_for_the_next_handshake() {
    let (own, public, renewed) = (issue(), issue(), issue());
    let identity = Arc::new(ServerIdentity::new(own.chain, own.key).unwrap());
    let server = listener_config(Arc::clone(&identity), &own.authority, false).unwrap();
    let trusts =
        |authority: &CertificateDer<'static>| over_tcp(&rooted_client_config(roots(authority).unwrap()).unwrap());
    let knows_authority = || over_tcp(&client_config(&own.authority, None).unwrap());

    identity.show_to_public(Certified::new(public.chain, public.key).unwrap().into());
    assert_eq!(speak(knows_authority(), Arc::clone(&server)).unwrap(), HTTP1);
    assert_eq!(speak(trusts(&public.authority), Arc::clone(&server)).unwrap(), HTTP1);
    assert!(speak(trusts(&renewed.authority), Arc::clone(&server)).is_err(), "not yet");
    identity.show_to_public(Certified::new(renewed.chain, renewed.key).unwrap().into());
    assert_eq!(speak(trusts(&renewed.authority), Arc::clone(&server)).unwrap(), HTTP1);
    assert!(speak(trusts(&public.authority), server).is_err(), "not any more");
}

#[test]
fn gateway_that_is_looked_at_hears_nothing_and_is_known_by_what_it_has_shown() {
    let (own, other) = (issue(), issue());
    let identity = |chain, key| Arc::new(ServerIdentity::new(chain, key).unwrap());
    let with_authority = identity(own.chain.clone(), own.key.clone_key());
    let alone = identity(own.chain[..1].to_vec(), own.key);
    let stranger = listener_config(identity(other.chain, other.key), &other.authority, false).unwrap();
    for (identity, pinned) in [(with_authority, &own.authority), (alone, &own.chain[0])] {
        let server = listener_config(identity, &own.authority, false).unwrap();
        let (looking, sight) = looking_client_config().unwrap();
        assert_eq!(sight.seen("gw.example"), None);
        assert!(speak(looking, Arc::clone(&server)).is_err(), "there is no connection");
        let seen = sight.seen("gw.example").unwrap();
        let is_of_authority = pinned == &own.authority;
        let expected = Seen { certificate: own.chain[0].clone(), pin: spki_sha256(pinned).unwrap(), is_of_authority };
        assert_eq!(seen, expected);
        let known = || foreign_client_config(KnownBy::Pin(seen.pin), None).unwrap();
        assert_eq!(speak(known(), server).unwrap(), HTTP1);
        assert!(speak(known(), Arc::clone(&stranger)).is_err(), "another gateway is not known");
        let elsewhere = sight.seen("other.example").unwrap();
        assert_eq!(elsewhere.pin, spki_sha256(&own.chain[0]).unwrap(), "the authority vouches for no other name");
    }
}

#[test]
fn tls_1_2_is_for_who_permits_it() {
    let own = issue();
    let identity = Arc::new(ServerIdentity::new(own.chain, own.key).unwrap());
    let client = || {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        Arc::new(builder.with_root_certificates(roots(&own.authority).unwrap()).with_no_client_auth())
    };
    for old in [false, true] {
        let server = listener_config(Arc::clone(&identity), &own.authority, old).unwrap();
        assert_eq!(speak(client(), Arc::clone(&server)).is_ok(), old);
        let newer = over_tcp(&client_config(&own.authority, None).unwrap());
        assert_eq!(speak(newer, server).unwrap(), HTTP1, "the positive control");
    }
}
