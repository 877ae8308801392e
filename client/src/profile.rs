//! Profiles: what a client knows about one gateway, kept in one file that only its owner may read.
//!
//! `adit-client join` writes a profile. A profile that logs in with a bearer token is written by hand, mode 0600:
//!
//! ```toml
//! host = "vpn.example.org"
//! port = 443
//! authority = """
//! -----BEGIN CERTIFICATE-----
//! …
//! -----END CERTIFICATE-----
//! """
//! token = "…"
//! ```
//!
//! Either kind may say how its packets travel, in tables that are kept when the profile is saved. These are the defaults:
//!
//! ```toml
//! [esp]                   # packets by ESP, where the gateway can do that; by QUIC datagrams else
//! enabled = true
//! suites = ["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"]    # the gateway chooses
//! vouched = true          # leave checksums of inner packets to the tunnel's authentication
//! rekey_after = "1h"      # at least "1s", at most "24h"
//! mtu = 1420              # largest packet where the path takes it, 1280 to 9216
//!
//! [workers]               # the thread that moves packets
//! yields = 0              # how often it gives way to others after superpackets before it sleeps
//! tun_offload = true      # take packets of a flow from the kernel together
//! udp_offload = true      # let the kernel segment and join datagrams
//! gso_max_segs = 44       # packets of a flow that the kernel may hand over together
//! ```

mod directories;
mod error;
mod store;
mod tables;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use adit_program::closest::closest;
use adit_program::toml_error::TomlFault;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::protocols::{Credentials, Target, authority};

pub use directories::Directories;
pub use error::ProfileError;
pub(crate) use error::file_failure;
pub use store::{Entry, ProfileStore};
pub use tables::{EspTable, WorkersTable};

use tables::{ESP_KEYS, WORKERS_KEYS, is_default};

/// Keys of a profile file, in the order they are written.
const KEYS: [&str; 11] =
    ["host", "port", "user", "device", "addresses", "authority", "certificate", "key", "token", "esp", "workers"];
/// Longest profile name, in bytes: leaves room for the run directory in a Unix socket's path (108 bytes).
const LONGEST_NAME: usize = 48;
/// Port of a gateway that names none.
const DEFAULT_PORT: u16 = 443;

/// The name of a profile: letters, digits, `.`, `_` and `-`, not beginning with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileName(String);

impl ProfileName {
    /// The name a profile gets from its gateway's host name.
    ///
    /// # Errors
    /// `Name` if nothing usable is left of the host name.
    pub fn from_host(host: &str) -> Result<Self, ProfileError> {
        let name: String = host.chars().map(|c| if is_name_character(c) { c } else { '-' }).collect();
        let name: String = name.trim_start_matches(['.', '-']).chars().take(LONGEST_NAME).collect();
        name.parse()
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = ProfileError;

    fn from_str(name: &str) -> Result<Self, ProfileError> {
        let fits = !name.is_empty() && name.len() <= LONGEST_NAME;
        if fits && !name.starts_with(['.', '-']) && name.chars().all(is_name_character) {
            return Ok(Self(name.to_owned()));
        }
        Err(ProfileError::Name { name: name.to_owned() })
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// How a profile proves who its device is. The secrets are wiped from memory on drop.
#[derive(Clone)]
pub enum Identity {
    /// A device certificate and its key, both PEM.
    Certificate {
        /// The certificate.
        chain_pem: String,
        /// Its private key.
        key_pem: Zeroizing<String>,
    },
    /// A bearer token of `adit-server token`.
    Token(Zeroizing<String>),
}

/// What a client knows about one gateway.
#[derive(Clone)]
pub struct Profile {
    /// Name of the profile, which is also its file's name.
    pub name: ProfileName,
    /// Host name or address of the gateway, which its certificate must bear.
    pub host: String,
    /// UDP port of the gateway.
    pub port: u16,
    /// The user the device belongs to; empty if unknown.
    pub user: String,
    /// The device's id at the gateway; empty if unknown.
    pub device: String,
    /// Addresses of the gateway: the one last reached first, then those its name had then.
    pub addresses: Vec<SocketAddr>,
    /// The gateway's certificate authority, PEM.
    pub authority_pem: String,
    /// The device's proof.
    pub identity: Identity,
    /// The ESP carrier.
    pub esp: EspTable,
    /// The packet path.
    pub workers: WorkersTable,
}

impl Profile {
    /// Parses a profile file's text.
    ///
    /// # Errors
    /// `Syntax`, `UnknownKey` or `Invalid`, each naming the key or line.
    pub fn parse(name: ProfileName, text: &str) -> Result<Self, ProfileError> {
        let syntax = |error: toml::de::Error| ProfileError::Syntax {
            name: name.to_string(),
            message: describe(&TomlFault::of(&error, text)),
        };
        let table: toml::Table = text.parse().map_err(syntax)?;
        if let Some((key, nearest)) = unknown_key(&table) {
            return Err(ProfileError::UnknownKey { name: name.to_string(), key, nearest });
        }
        let file: ProfileFile = toml::from_str(text).map_err(syntax)?;
        file.check(name)
    }

    /// The profile file's text, secrets included.
    ///
    /// # Errors
    /// `Invalid` if a value cannot be written as TOML.
    pub fn encode(&self) -> Result<Zeroizing<String>, ProfileError> {
        let text = toml::to_string_pretty(&ProfileFile::from(self))
            .map_err(|error| ProfileError::invalid(&self.name, error.to_string()))?;
        Ok(Zeroizing::new(text))
    }

    /// The profile as [`crate::protocols::connect_ip::Connection::open`] wants it, to be tried at `addresses`.
    #[must_use]
    pub fn target(&self, addresses: Vec<SocketAddr>, mark: Option<u32>) -> Target {
        let credentials = match &self.identity {
            Identity::Certificate { chain_pem, key_pem } => {
                Credentials::Certificate { chain_pem: chain_pem.clone(), key_pem: key_pem.to_string() }
            }
            Identity::Token(token) => Credentials::Token(token.to_string()),
        };
        let authority_pem = self.authority_pem.clone();
        Target { host: self.host.clone(), port: self.port, addresses, authority_pem, credentials, mark }
    }

    /// The gateway as `HOST:PORT`, with brackets around an IPv6 address.
    #[must_use]
    pub fn gateway(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A profile as it stands in its file, not yet checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    host: String,
    #[serde(default = "default_port")]
    port: u16,
    #[serde(default)]
    user: String,
    #[serde(default)]
    device: String,
    #[serde(default)]
    addresses: Vec<SocketAddr>,
    authority: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Secret>,
    #[serde(default, skip_serializing_if = "is_default")]
    esp: EspTable,
    #[serde(default, skip_serializing_if = "is_default")]
    workers: WorkersTable,
}

impl ProfileFile {
    fn check(self, name: ProfileName) -> Result<Profile, ProfileError> {
        let invalid = |message: &str| ProfileError::invalid(&name, message);
        let identity = match (self.certificate, self.key, self.token) {
            (Some(chain_pem), Some(key), None) => Identity::Certificate { chain_pem, key_pem: key.0 },
            (None, None, Some(token)) => Identity::Token(token.0),
            (None, None, None) => return Err(invalid("neither `certificate` and `key` nor `token` is given")),
            (Some(_), None, None) => return Err(invalid("`certificate` without `key`")),
            (None, Some(_), None) => return Err(invalid("`key` without `certificate`")),
            (_, _, Some(_)) => return Err(invalid("`token` excludes `certificate` and `key`")),
        };
        if self.host.is_empty() || self.host.contains(char::is_whitespace) {
            return Err(invalid("`host` is not a host name or address"));
        }
        if self.port == 0 {
            return Err(invalid("`port` is 0"));
        }
        if CertificateDer::from_pem_slice(self.authority.as_bytes()).is_err() {
            return Err(invalid("`authority` is not a PEM certificate"));
        }
        if let Identity::Certificate { chain_pem, .. } = &identity
            && CertificateDer::from_pem_slice(chain_pem.as_bytes()).is_err()
        {
            return Err(invalid("`certificate` is not a PEM certificate"));
        }
        if let Some(fault) = self.esp.fault().or_else(|| self.workers.fault()) {
            return Err(invalid(fault));
        }
        Ok(Profile {
            name,
            host: self.host,
            port: self.port,
            user: self.user,
            device: self.device,
            addresses: self.addresses,
            authority_pem: self.authority,
            identity,
            esp: self.esp,
            workers: self.workers,
        })
    }
}

impl From<&Profile> for ProfileFile {
    fn from(profile: &Profile) -> Self {
        let (certificate, key, token) = match &profile.identity {
            Identity::Certificate { chain_pem, key_pem } => {
                (Some(chain_pem.clone()), Some(Secret(key_pem.clone())), None)
            }
            Identity::Token(token) => (None, None, Some(Secret(token.clone()))),
        };
        Self {
            host: profile.host.clone(),
            port: profile.port,
            user: profile.user.clone(),
            device: profile.device.clone(),
            addresses: profile.addresses.clone(),
            authority: profile.authority_pem.clone(),
            certificate,
            key,
            token,
            esp: profile.esp.clone(),
            workers: profile.workers,
        }
    }
}

/// Text that is wiped from memory on drop.
struct Secret(Zeroizing<String>);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

fn default_port() -> u16 {
    DEFAULT_PORT
}

fn describe(fault: &TomlFault) -> String {
    format!("line {}: {}", fault.line, fault.reason)
}

/// The first key that profiles do not have, as a path, and a known one of the same table that looks like it.
fn unknown_key(profile: &toml::Table) -> Option<(String, Option<&'static str>)> {
    let tables = [("esp", &ESP_KEYS[..]), ("workers", &WORKERS_KEYS)];
    let in_table = tables.into_iter().find_map(|(name, known)| {
        let key = profile.get(name)?.as_table()?.keys().find(|key| !known.contains(&key.as_str()))?;
        Some((format!("{name}.{key}"), closest(key, known.iter().copied())))
    });
    let at_top = profile.keys().find(|key| !KEYS.contains(&key.as_str()));
    at_top.map(|key| (key.clone(), closest(key, KEYS))).or(in_table)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn authority_pem() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(vec!["authority".into()]).unwrap().self_signed(&key).unwrap().pem()
    }

    pub(crate) fn profile(name: &str) -> Profile {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["device".into()]).unwrap().self_signed(&key).unwrap();
        Profile {
            name: name.parse().unwrap(),
            host: "vpn.example.org".into(),
            port: 4443,
            user: "alice".into(),
            device: "d1".into(),
            addresses: vec!["192.0.2.1:4443".parse().unwrap(), "[2001:db8::1]:4443".parse().unwrap()],
            authority_pem: authority_pem(),
            identity: Identity::Certificate {
                chain_pem: certificate.pem(),
                key_pem: Zeroizing::new(key.serialize_pem()),
            },
            esp: EspTable::default(),
            workers: WorkersTable::default(),
        }
    }

    fn name() -> ProfileName {
        "home".parse().unwrap()
    }

    #[test]
    fn profile_survives_encode_and_parse() {
        let original = profile("home");
        let text = original.encode().unwrap();
        let read = Profile::parse(name(), &text).unwrap();
        assert_eq!(read.encode().unwrap(), text);
        assert_eq!(read.addresses, original.addresses);
        assert!(matches!(read.identity, Identity::Certificate { .. }));
    }

    #[test]
    fn token_profile_needs_no_certificate_and_defaults_the_port() {
        let text = format!("host = \"h\"\ntoken = \"t\"\nauthority = '''\n{}'''\n", authority_pem());
        let read = Profile::parse(name(), &text).unwrap();
        assert_eq!(read.port, 443);
        assert!(matches!(read.identity, Identity::Token(token) if token.as_str() == "t"));
    }

    #[test]
    fn token_and_certificate_together_are_refused() {
        let text = format!("{}token = \"t\"\n", profile("home").encode().unwrap().as_str());
        let error = Profile::parse(name(), &text).unwrap_err();
        assert!(error.to_string().contains("`token` excludes"), "{error}");
    }

    #[test]
    fn key_without_certificate_is_refused() {
        let text = format!("host = \"h\"\nkey = \"k\"\nauthority = '''\n{}'''\n", authority_pem());
        assert!(Profile::parse(name(), &text).unwrap_err().to_string().contains("`key` without `certificate`"));
    }

    #[test]
    fn unknown_key_is_named_with_the_nearest_known_one() {
        let text = format!("{}autority = \"x\"\n", profile("home").encode().unwrap().as_str());
        let error = Profile::parse(name(), &text).unwrap_err();
        assert!(
            matches!(&error, ProfileError::UnknownKey { key, nearest: Some("authority"), .. } if key == "autority")
        );
    }

    fn with(tables: &str) -> Result<Profile, ProfileError> {
        Profile::parse(
            name(),
            &format!("host = \"h\"\ntoken = \"t\"\nauthority = '''\n{}'''\n{tables}", authority_pem()),
        )
    }

    #[test]
    fn tables_that_say_nothing_new_are_not_written() {
        let original = profile("home");
        let text = original.encode().unwrap();
        assert!(!text.contains("[esp]") && !text.contains("[workers]"), "{}", text.as_str());
        let documented = "[esp]\nenabled = true\nsuites = [\"aes-256-gcm\", \"aes-128-gcm\", \"chacha20-poly1305\"]\n\
            vouched = true\nrekey_after = \"1h\"\nmtu = 1420\n\
            [workers]\nyields = 0\ntun_offload = true\nudp_offload = true\ngso_max_segs = 44\n";
        for defaults in ["", "[esp]\n[workers]\n", documented] {
            let read = with(defaults).unwrap();
            assert_eq!((&read.esp, &read.workers), (&original.esp, &original.workers), "{defaults}");
        }
    }

    #[test]
    fn tables_survive_encode_and_parse() {
        let tables = "[esp]\nsuites = [\"chacha20-poly1305\"]\nvouched = false\nrekey_after = \"90s\"\nmtu = 8900\n\
            [workers]\nyields = 7\nudp_offload = false\n";
        let read = with(tables).unwrap();
        let settings = read.esp.settings().unwrap();
        assert_eq!(settings.offer.suites, [adit_proto::esp::suite::Suite::ChaCha20Poly1305]);
        assert!(!settings.offer.vouched && !settings.offer.groups.is_empty());
        assert_eq!(settings.policy.after, std::time::Duration::from_secs(90));
        assert_eq!(read.workers, WorkersTable { yields: 7, udp_offload: false, ..WorkersTable::default() });
        assert_eq!(read.esp.mtu, 8900);
        let again = Profile::parse(name(), &read.encode().unwrap()).unwrap();
        assert_eq!((again.esp, again.workers), (read.esp, read.workers));
        assert!(with("[esp]\nenabled = false\n").unwrap().esp.settings().is_none());
    }

    #[test]
    fn tables_with_nonsense_are_refused_in_words() {
        for (tables, words) in [
            ("[esp]\nsuites = []\n", "`esp.suites` is empty"),
            ("[esp]\nsuites = [\"rot13\"]\n", "unknown suite `rot13`; known are aes-256-gcm"),
            ("[esp]\nrekey_after = \"999ms\"\n", "between 1s and 24h"),
            ("[esp]\nrekey_after = \"25h\"\n", "between 1s and 24h"),
            ("[esp]\nrekey_after = 60\n", "line"),
            ("[workers]\nyields = 1001\n", "more than 1000"),
            ("[workers]\nyields = -1\n", "line"),
            ("[workers]\ngso_max_segs = 0\n", "between 1 and 65535"),
            ("[esp]\nmtu = 1279\n", "between 1280 and 9216"),
            ("[esp]\nmtu = 9217\n", "between 1280 and 9216"),
            ("esp = true\n", "line"),
        ] {
            let error = with(tables).unwrap_err().to_string();
            assert!(error.contains(words), "{tables}{error}");
        }
    }

    #[test]
    fn unknown_key_of_a_table_is_named_with_its_table() {
        let error = with("[esp]\nsuite = []\n").unwrap_err();
        assert!(
            matches!(&error, ProfileError::UnknownKey { key, nearest: Some("suites"), .. } if key == "esp.suite"),
            "{error}"
        );
        let error = with("[workers]\nthreads_of_all_kinds = 3\n").unwrap_err();
        assert!(matches!(&error, ProfileError::UnknownKey { nearest: None, .. }), "{error}");
    }

    #[test]
    fn syntax_error_names_the_line_and_hides_the_secret_on_it() {
        let error = Profile::parse(name(), "host = \"h\"\ntoken = \"hush-hush\" x\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hush-hush"), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", profile("home"));
        assert!(!text.contains("PRIVATE") && !text.contains("vpn.example.org"), "{text}");
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "-x", "a b", "ä", &"x".repeat(49)] {
            assert!(bad.parse::<ProfileName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_becomes_a_valid_name() {
        assert_eq!(ProfileName::from_host("vpn.example.org").unwrap().as_str(), "vpn.example.org");
        assert_eq!(ProfileName::from_host("::1").unwrap().as_str(), "1");
        assert_eq!(ProfileName::from_host("2001:db8::1").unwrap().as_str(), "2001-db8--1");
        assert!(ProfileName::from_host(&"long.".repeat(30)).is_ok());
    }
}
