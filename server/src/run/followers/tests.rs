use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use adit_net::tls::{client_config, rooted_client_config};
use rcgen::{CertificateParams, KeyPair};
use rustls::server::{Acceptor, ResolvesServerCert as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::super::public_certificate::Following;
use super::*;
use crate::config::{AcmeConfig, TlsConfig, config_for_tests, parse_public_address};
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

/// A gateway's certificates, and what shows others at a reload.
struct Gateway {
    directory: tempfile::TempDir,
    authority: Arc<Authority>,
    identity: Arc<ServerIdentity>,
    current: Arc<ArcSwap<Config>>,
    follow: Follower,
}

impl Gateway {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::create(&StateDir::new(directory.path()), SystemTime::now()).unwrap());
        let config = config_for_tests(directory.path());
        let issued = authority.issue_server(&config.certificate_names(), SystemTime::now()).unwrap();
        let identity = Arc::new(ServerIdentity::new(issued.chain, issued.key).unwrap());
        let current = Arc::new(ArcSwap::from_pointee(config));
        let follow = certificates(Arc::clone(&identity), Arc::clone(&authority), Arc::clone(&current));
        Self { directory, authority, identity, current, follow }
    }

    /// A configuration that names the files of this certificate, which are written anew; and the certificate.
    fn with_files(&self, name: &str) -> (Config, [u8; 32]) {
        let ([certificate, key], written) = write_certificate(self.directory.path(), name);
        let tls = TlsConfig { certificate: Some(certificate), key: Some(key) };
        (Config { tls, ..Config::clone(&self.current.load()) }, written)
    }

    /// Puts a configuration in force as a reload does.
    fn reload(&self, config: &Config) {
        let put_in_force = (self.follow)(config).ok().unwrap();
        self.current.store(Arc::new(config.clone()));
        put_in_force();
    }

    fn to_stranger(&self) -> [u8; 32] {
        shown(&self.identity, rooted_client_config(RootCertStore::empty()).unwrap())
    }

    fn to_joined(&self) -> [u8; 32] {
        shown(&self.identity, client_config(&self.authority.certificate(), None).unwrap())
    }

    /// Writes a certificate as the gateway writes what it has got by ACME.
    fn get(&self) -> [u8; 32] {
        let file = self.current.load().state_dir.acme_certificate("vpn.example.org");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let ([certificate, key], written) = write_certificate(self.directory.path(), "got");
        fs::write(&file, [fs::read(key).unwrap(), fs::read(certificate).unwrap()].concat()).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        written
    }

    fn following(&self) -> Following {
        Following::new(Arc::clone(&self.identity), Arc::clone(&self.current))
    }
}

#[test]
fn certificate_that_was_read_before_a_reload_does_not_replace_what_that_has_put_in_force() {
    let gateway = Gateway::new();
    let own = gateway.to_stranger();
    let without = Config::clone(&gateway.current.load());
    let (with_first, first) = gateway.with_files("first");
    gateway.reload(&with_first);
    let mut following = gateway.following();
    let (_, renewed) = gateway.with_files("first");
    let read = following.read().unwrap();
    gateway.reload(&without);
    following.show(read);
    assert_eq!(gateway.to_stranger(), own, "the reload has taken it away");
    assert!(following.read().is_none());

    gateway.reload(&with_first);
    let read = following.read().unwrap();
    let (with_other, other) = gateway.with_files("other");
    gateway.reload(&with_other);
    following.show(read);
    assert_eq!(gateway.to_stranger(), other);
    let read = following.read().unwrap();
    following.show(read);
    assert_eq!(gateway.to_stranger(), other);
    let (_, renewed_other) = gateway.with_files("other");
    let read = following.read().unwrap();
    following.show(read);
    assert_eq!(gateway.to_stranger(), renewed_other, "the positive control");
    assert!(following.read().is_none() && first != renewed);
}

#[test]
fn certificate_that_a_reload_has_read_before_it_was_renewed_is_read_again() {
    let gateway = Gateway::new();
    let (config, first) = gateway.with_files("first");
    let put_in_force = (gateway.follow)(&config).ok().unwrap();
    gateway.current.store(Arc::new(config));
    let (_, renewed) = gateway.with_files("first");
    let mut following = gateway.following();
    let read = following.read().unwrap();
    following.show(read);
    assert_eq!(gateway.to_stranger(), renewed);
    put_in_force();
    assert_eq!(gateway.to_stranger(), first, "the reload is slow");
    let read = following.read().unwrap();
    following.show(read);
    assert_eq!(gateway.to_stranger(), renewed);
    assert!(following.read().is_none(), "once is enough");
}

#[test]
fn certificate_that_was_got_is_shown_for_as_long_as_its_name_is_configured() {
    let gateway = Gateway::new();
    let own = gateway.to_stranger();
    let ([authority, _], _) = write_certificate(gateway.directory.path(), "authority");
    let without = Config::clone(&gateway.current.load());
    let acme = AcmeConfig {
        names: vec!["vpn.example.org".to_owned()],
        directory: "https://acme.example/dir".to_owned(),
        accept_terms: true,
        authority: Some(authority),
        ..AcmeConfig::default()
    };
    let with = Config { acme, ..without.clone() };
    gateway.reload(&with);
    let mut following = gateway.following();
    let mut look = || {
        if let Some(read) = following.read() {
            following.show(read);
        }
        gateway.to_stranger()
    };
    assert_eq!(look(), own, "there is none yet");
    let first = gateway.get();
    assert_eq!(look(), first, "no reload is needed");
    gateway.reload(&with);
    assert_eq!(gateway.to_stranger(), first);
    let renewed = gateway.get();
    assert_eq!(look(), renewed);
    gateway.reload(&without);
    assert_eq!((gateway.to_stranger(), look()), (own, own));
    gateway.reload(&with);
    assert_eq!(gateway.to_stranger(), renewed, "it was kept");
    let refused = |config: &Config| (gateway.follow)(config).err().map(|failure| failure.what);
    assert_eq!(refused(&with), None);
    let unaccepted = Config { acme: AcmeConfig { accept_terms: false, ..with.acme.clone() }, ..with.clone() };
    assert_eq!(refused(&unaccepted), Some("acme.accept_terms".to_owned()));
    // One that nobody could use is got anew, and stops neither a reload nor a start.
    fs::write(gateway.current.load().state_dir.acme_certificate("vpn.example.org"), "garbage").unwrap();
    gateway.reload(&with);
    assert_eq!(gateway.to_stranger(), own);
}

#[test]
fn certificate_that_was_issued_for_names_before_a_reload_does_not_replace_the_reloads() {
    let gateway = Gateway::new();
    let (before, own) = (Config::clone(&gateway.current.load()), gateway.to_joined());
    let renew =
        |turn, config: &Config| clock::renew(&gateway.identity, turn, &gateway.authority, config, SystemTime::now());
    let turn = gateway.identity.turn();
    let mut config = before.clone();
    config.public.push(parse_public_address("second.example.org").unwrap());
    gateway.reload(&config);
    let reloaded = gateway.to_joined();
    assert!(!renew(turn, &before));
    assert!(gateway.to_joined() == reloaded && reloaded != own);
    assert!(renew(gateway.identity.turn(), &config), "the positive control");
    assert_ne!(gateway.to_joined(), reloaded);
}

#[test]
fn certificates_are_those_of_the_files_and_names_of_now_or_the_reload_is_refused() {
    let gateway = Gateway::new();
    let Gateway { directory, current, follow, .. } = &gateway;
    let mut config = Config::clone(&current.load());
    let (to_stranger, to_joined) = (|| gateway.to_stranger(), || gateway.to_joined());
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
