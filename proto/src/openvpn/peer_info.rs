//! What a client says of itself: lines `KEY=VALUE` in its key method message.

use crate::sealing::suite::Suite;

/// Most lines that are looked at.
const MAX_LINES: usize = 128;
/// Most characters of a text that is kept.
const MAX_TEXT: usize = 64;
/// Most ways of logging in that are kept.
const MAX_WAYS: usize = 16;

/// What a client can do: the bits of `IV_PROTO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Abilities(pub u32);

impl Abilities {
    /// Data with a peer id.
    pub const DATA_V2: Self = Self(1 << 1);
    /// Waits for PUSH_REPLY without asking for it.
    pub const REQUEST_PUSH: Self = Self(1 << 2);
    /// Data keys from the TLS exporter.
    pub const KEY_EXPORT: Self = Self(1 << 3);
    /// Words behind AUTH_PENDING.
    pub const AUTH_PENDING_WORDS: Self = Self(1 << 4);
    /// The option `dns`, as it was in 2.6.
    pub const DNS_OPTION: Self = Self(1 << 6);
    /// EXIT in the control channel.
    pub const EXIT_MESSAGE: Self = Self(1 << 7);
    /// AUTH_FAILED,TEMP.
    pub const TEMPORARY_REFUSAL: Self = Self(1 << 8);
    /// A key of tls-crypt from the TLS exporter, for renegotiations.
    pub const DYNAMIC_TLS_CRYPT: Self = Self(1 << 9);
    /// The epoch format of data.
    pub const DATA_EPOCH: Self = Self(1 << 10);
    /// The option `dns`.
    pub const DNS_OPTION_V2: Self = Self(1 << 11);
    /// PUSH_UPDATE.
    pub const PUSH_UPDATE: Self = Self(1 << 12);

    /// Whether all of those are among these.
    pub const fn has(self, those: Self) -> bool {
        self.0 & those.0 == those.0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, those: Self) -> Self {
        Self(self.0 | those.0)
    }
}

/// What a client says of itself, and nobody has proven.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerInfo {
    /// Its version: `IV_VER`.
    pub version: Option<String>,
    /// Its operating system: `IV_PLAT`.
    pub platform: Option<String>,
    /// What it can do.
    pub abilities: Abilities,
    /// Ciphers of data that it takes and that are spoken here, in its own order.
    pub suites: Vec<Suite>,
    /// Ways of answering questions during a login, such as `crtext` and `webauth`: `IV_SSO`.
    pub ways: Vec<String>,
    /// Largest packet that it takes, in bytes: `IV_MTU`.
    pub mtu: Option<u16>,
}

impl PeerInfo {
    /// Reads the lines. What is unknown or makes no sense is passed over; a second line of a key replaces the first.
    pub fn parse(text: &str) -> Self {
        let mut info = Self::default();
        let (mut has_ciphers, mut negotiates) = (false, false);
        for (key, value) in text.lines().take(MAX_LINES).filter_map(|line| line.split_once('=')) {
            match key {
                "IV_VER" => info.version = plain(value),
                "IV_PLAT" => info.platform = plain(value),
                "IV_PROTO" => info.abilities = Abilities(value.parse().unwrap_or_default()),
                "IV_CIPHERS" => {
                    has_ciphers = true;
                    info.suites = suites(value);
                }
                "IV_NCP" => negotiates = value.parse().is_ok_and(|version: u32| version >= 2),
                "IV_SSO" => info.ways = value.split(',').take(MAX_WAYS).filter_map(plain).collect(),
                "IV_MTU" => info.mtu = value.parse().ok(),
                _ => {}
            }
        }
        if negotiates && !has_ciphers {
            info.suites = vec![Suite::Aes256Gcm, Suite::Aes128Gcm];
        }
        info
    }

    /// The lines.
    pub fn encode(&self) -> String {
        let names: Vec<&str> = self.suites.iter().map(|suite| cipher_name(*suite)).collect();
        let lines = [
            self.version.as_ref().map(|version| format!("IV_VER={version}\n")),
            self.platform.as_ref().map(|platform| format!("IV_PLAT={platform}\n")),
            Some(format!("IV_PROTO={}\nIV_NCP=2\nIV_CIPHERS={}\n", self.abilities.0, names.join(":"))),
            (!self.ways.is_empty()).then(|| format!("IV_SSO={}\n", self.ways.join(","))),
            self.mtu.map(|mtu| format!("IV_MTU={mtu}\n")),
        ];
        lines.into_iter().flatten().collect()
    }
}

/// The suites among the names of a list such as `AES-256-GCM:AES-128-GCM`, each once. `?`, which marks those that may
/// be missing, is passed over.
pub fn suites(list: &str) -> Vec<Suite> {
    let mut suites = Vec::new();
    for suite in list.split(':').filter_map(|name| suite(name.strip_prefix('?').unwrap_or(name))) {
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    }
    suites
}

/// The suite that OpenVPN calls so; `None` if it is not spoken here.
pub fn suite(name: &str) -> Option<Suite> {
    Suite::ALL.into_iter().find(|suite| cipher_name(*suite).eq_ignore_ascii_case(name))
}

/// What OpenVPN calls a suite.
pub const fn cipher_name(suite: Suite) -> &'static str {
    match suite {
        Suite::Aes256Gcm => "AES-256-GCM",
        Suite::Aes128Gcm => "AES-128-GCM",
        Suite::ChaCha20Poly1305 => "CHACHA20-POLY1305",
    }
}

/// A text of a stranger that is short and plain.
fn plain(text: &str) -> Option<String> {
    let is_plain = (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stock_client_is_understood() {
        let text = "IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n\
                    IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\nIV_PROTO=990\nIV_SSO=crtext,webauth\n";
        let info = PeerInfo::parse(text);
        assert_eq!(info.suites, Suite::ALL);
        assert_eq!((info.version.as_deref(), info.platform.as_deref()), (Some("2.6.14"), Some("linux")));
        assert_eq!((info.ways, info.mtu), (vec!["crtext".to_owned(), "webauth".to_owned()], Some(1600)));
        let has = [Abilities::DATA_V2, Abilities::KEY_EXPORT, Abilities::DYNAMIC_TLS_CRYPT, Abilities::EXIT_MESSAGE];
        assert!(has.into_iter().all(|ability| info.abilities.has(ability)));
        let lacks = [Abilities::DATA_EPOCH, Abilities::PUSH_UPDATE, Abilities::DNS_OPTION_V2];
        assert!(!lacks.into_iter().any(|ability| info.abilities.has(ability)));
        assert!(PeerInfo::parse("IV_PROTO=8094").abilities.has(Abilities::DATA_EPOCH.with(Abilities::PUSH_UPDATE)));
    }

    #[test]
    fn ciphers_that_are_not_spoken_are_passed_over() {
        assert_eq!(
            suites("BF-CBC:?chacha20-poly1305:AES-256-CBC:AES-128-GCM:AES-128-GCM"),
            [Suite::ChaCha20Poly1305, Suite::Aes128Gcm]
        );
        assert_eq!(PeerInfo::parse("IV_NCP=2").suites, [Suite::Aes256Gcm, Suite::Aes128Gcm]);
        assert_eq!(PeerInfo::parse("IV_NCP=2\nIV_CIPHERS=BF-CBC").suites, []);
        assert_eq!(PeerInfo::parse("IV_NCP=1").suites, []);
    }

    #[test]
    fn nonsense_is_passed_over() {
        let long = format!("IV_VER={}\n", "9".repeat(65));
        let info = PeerInfo::parse(&(long + "IV_PLAT=a\u{7f}b\nIV_PROTO=-1\nIV_MTU=70000\nIV_SSO=,,a b\nnothing\n="));
        assert_eq!(info, PeerInfo::default());
    }

    proptest! {
        #[test]
        fn info_survives_being_written(
            version in proptest::option::of("[!-~]{1,20}"),
            abilities in any::<u32>(),
            suites in proptest::sample::subsequence(Suite::ALL.to_vec(), 0..=3),
            ways in proptest::collection::vec("[a-z]{1,8}", 0..4),
            mtu in proptest::option::of(any::<u16>()),
        ) {
            let platform = version.clone();
            let info = PeerInfo { version, platform, abilities: Abilities(abilities), suites, ways, mtu };
            prop_assert_eq!(PeerInfo::parse(&info.encode()), info);
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,200}") {
            PeerInfo::parse(&text);
        }
    }
}
