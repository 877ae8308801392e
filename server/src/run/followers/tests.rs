use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use adit_net::tls::{client_config, rooted_client_config};
use rcgen::{CertificateParams, KeyPair};
use rustls::server::{Acceptor, ResolvesServerCert as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::config::{TlsConfig, config_for_tests, parse_public_address};
use crate::directories::StateDir;
use crate::identity::sha256;

/// A certificate of nobody's authority, and its key, in files.
fn write_certificate(directory: &Path, name: &str) -> ([PathBuf; 2], [u8; 32]) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["vpn.example.org".into()]).unwrap().self_signed(&key).unwrap();
    let files = ["pem", "key"].map(|extension| directory.join(name).with_extension(extension));
    for (file, text) in files.iter().zip([certificate.pem(), key.serialize_pem()]) {
        fs::write(file, text).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    }
    (files, sha256(certificate.der()))
}

/// The certificate that a client is shown.
fn shown(identity: &ServerIdentity, config: Arc<ClientConfig>) -> [u8; 32] {
    let mut client = ClientConnection::new(config, "vpn.example.org".try_into().unwrap()).unwrap();
    let (mut hello, mut acceptor) = (Vec::new(), Acceptor::default());
    client.write_tls(&mut hello).unwrap();
    acceptor.read_tls(&mut hello.as_slice()).unwrap();
    let accepted = acceptor.accept().unwrap().unwrap();
    sha256(&identity.resolve(accepted.client_hello()).unwrap().cert[0])
}

#[test]
fn certificates_are_those_of_the_files_and_names_of_now_or_the_reload_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = StateDir::new(directory.path());
    let authority = Arc::new(Authority::create(&state_dir, SystemTime::now()).unwrap());
    let mut config = config_for_tests(directory.path());
    let issued = authority.issue_server(&config.certificate_names(), SystemTime::now()).unwrap();
    let identity = Arc::new(ServerIdentity::new(issued.chain, issued.key).unwrap());
    let current = Arc::new(ArcSwap::from_pointee(config.clone()));
    let follow = certificates(Arc::clone(&identity), Arc::clone(&authority), Arc::clone(&current));
    let stranger = rooted_client_config(RootCertStore::empty()).unwrap();
    let joined = client_config(&authority.certificate(), None).unwrap();
    let to_stranger = || shown(&identity, Arc::clone(&stranger));
    let to_joined = || shown(&identity, Arc::clone(&joined));
    let own = to_joined();
    assert_eq!(to_stranger(), own, "there is no public one");

    let ([certificate, key], first) = write_certificate(directory.path(), "first");
    let ([_, other_key], _) = write_certificate(directory.path(), "other");
    config.tls = TlsConfig { certificate: Some(certificate.clone()), key: Some(other_key) };
    assert!(follow(&config).is_err_and(|failure| failure.next.contains("must be that of the certificate")));
    config.tls.key = Some(key);
    drop(follow(&config).ok().unwrap());
    assert_eq!(to_stranger(), own, "nobody has put it in force");
    follow(&config).ok().unwrap()();
    assert_eq!((to_stranger(), to_joined()), (first, own));

    // The same files, with other content.
    let (_, second) = write_certificate(directory.path(), "first");
    follow(&config).ok().unwrap()();
    assert_eq!(to_stranger(), second);
    fs::remove_file(&certificate).unwrap();
    assert!(follow(&config).is_err_and(|failure| failure.reason.contains("does not exist")));

    config.tls = TlsConfig::default();
    config.public.push(parse_public_address("second.example.org").unwrap());
    follow(&config).ok().unwrap()();
    current.store(Arc::new(config.clone()));
    let renewed = to_joined();
    assert!(renewed != own && to_stranger() == renewed);
    follow(&config).ok().unwrap()();
    assert_eq!(to_joined(), renewed, "the names are the same");
}
