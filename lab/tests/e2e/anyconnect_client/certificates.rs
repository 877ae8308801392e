//! Certificates that our client shows at gateways of the AnyConnect family: alone, or besides a password.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use adit_lab::Output;
use adit_testing::eventually;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

use super::{CLOSED, Ocserv, USAGE, add, up};
use crate::harness::{INTERNET, Tunnel, reach};
use crate::logins::{PASSWORD, gateway, run};
use crate::people::{self, REFUSED, pin};
use crate::versions::{Version, with_each_version};

/// A certificate and its key, in files.
struct Shown {
    certificate: String,
    key: String,
}

impl Shown {
    fn write(folder: &Path, name: &str, certificate: &str, key: &str) -> Self {
        let write = |kind: &str, text: &str, mode: u32| {
            let path = folder.join(format!("{name}.{kind}"));
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        Self { certificate: write("pem", certificate, 0o644), key: write("key", key, 0o600) }
    }

    /// That of the only profile of the client, which is forgotten.
    fn of_device(tunnel: &Tunnel) -> Self {
        let folder = tunnel.client().folder().join("clients");
        let is_profile = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
        let path = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(is_profile).unwrap();
        let profile = fs::read_to_string(&path).unwrap().parse::<toml::Table>().unwrap();
        let text = |key: &str| profile[key].as_str().unwrap().to_owned();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        run(tunnel.client(), &["forget", &name], "").success().unwrap();
        Self::write(tunnel.client().host().folder(), "device", &text("certificate"), &text("key"))
    }

    fn flags(&self) -> [&str; 4] {
        ["--certificate", &self.certificate, "--key", &self.key]
    }
}

/// Adds our gateway with a certificate.
fn add_with(tunnel: &Tunnel, shown: &Shown) -> Output {
    let fingerprint = pin(&tunnel.gateway);
    add(tunnel.client(), &[&["--pin", fingerprint.as_str()], &shown.flags()[..]].concat())
}

fn device_of_session(tunnel: &Tunnel) -> String {
    let told = tunnel.gateway.admin_json(&["sessions"]).unwrap();
    told["sessions"][0]["device"].as_str().unwrap().to_owned()
}

fn devices(tunnel: &Tunnel) -> Vec<String> {
    let told = tunnel.gateway.admin_json(&["devices"]).unwrap();
    told["devices"].as_array().unwrap().iter().map(|device| device["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn certificate_of_a_device_is_all_that_our_gateway_wants_until_it_is_revoked() {
    let Some(mut tunnel) = gateway() else { return };
    tunnel.join(0);
    let shown = Shown::of_device(&tunnel);
    fs::set_permissions(&shown.key, Permissions::from_mode(0o644)).unwrap();
    let open = add_with(&tunnel, &shown);
    assert_eq!(open.code, USAGE, "others could have read the key: {open:?}");
    fs::set_permissions(&shown.key, Permissions::from_mode(0o600)).unwrap();
    add_with(&tunnel, &shown).success().unwrap();
    for _ in 0..2 {
        up(&mut tunnel.clients[0], "");
        reach(tunnel.client().host(), INTERNET[0]);
        assert_eq!(vec![device_of_session(&tunnel)], devices(&tunnel), "it is the device of the certificate");
        run(tunnel.client(), &["down", "work"], "").success().unwrap();
        eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    }
    tunnel.gateway.admin(&["revoke", "user1"]).unwrap().success().unwrap();
    let revoked = run(tunnel.client(), &["up", "work"], "");
    assert_eq!(revoked.code, REFUSED, "{revoked:?}");
    assert!(revoked.stderr.contains("revoked"), "{revoked:?}");
}

#[test]
fn certificate_of_a_device_that_came_of_a_login_needs_the_password_besides() {
    let Some(mut tunnel) = gateway() else { return };
    people::join(&tunnel, tunnel.client(), "alice", &[PASSWORD]).success().unwrap();
    let shown = Shown::of_device(&tunnel);
    add_with(&tunnel, &shown).success().unwrap();
    let wrong = run(tunnel.client(), &["up", "work"], "wrong horse battery\n");
    assert_eq!(wrong.code, REFUSED, "{wrong:?}");
    up(&mut tunnel.clients[0], &format!("{PASSWORD}\n"));
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(vec![device_of_session(&tunnel)], devices(&tunnel), "no further device");
}

/// Makes an authority in a folder, as `ca.pem`, which certifies alice.
fn certify_alice(folder: &Path) -> Shown {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "alice");
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Shown::write(folder, "alice", &certificate.pem(), &key.serialize_pem())
}

const CERTIFICATES: &str = "auth = \"certificate\"\nca-cert = FOLDER/ca.pem\ncert-user-oid = 2.5.4.3\n";

with_each_version!(ocserv_lets_in_who_shows_a_certificate_alone_or_with_a_password);

fn ocserv_lets_in_who_shows_a_certificate_alone_or_with_a_password(version: Version) {
    for (passwords, typed) in [("", String::new()), (Ocserv::PASSWORDS, format!("{PASSWORD}\n"))] {
        let mut shown = None;
        let lines = [CERTIFICATES, passwords].concat();
        let Some(mut ocserv) = Ocserv::start_prepared(version, &lines, |folder| shown = Some(certify_alice(folder)))
        else {
            return;
        };
        let (shown, authority) = (shown.unwrap(), ocserv.certificate.clone());
        let known_by = ["--authority", authority.as_str()];
        let without = add(&ocserv.client, &known_by);
        assert_eq!(without.code, CLOSED, "it ends the connection without a certificate: {without:?}");
        assert!(without.stderr.contains("--certificate"), "{without:?}");
        add(&ocserv.client, &[&known_by[..], &shown.flags()].concat()).success().unwrap();
        up(&mut ocserv.client, &typed);
        reach(ocserv.client.host(), Ocserv::ADDRESSES[0].parse().unwrap());
        run(&ocserv.client, &["down", "work"], "").success().unwrap();
    }
}
