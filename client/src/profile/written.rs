//! A profile as its file says it.

use std::net::SocketAddr;

use adit_net::carrier::esp::EspSettings;
use adit_net::worker;
use adit_proto::mark::Mark;
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::{EspTable, GatewayProtocol, Identity, LanAccess, LoginTable, Profile, WorkersTable};

/// The keys of a file, in the order they are written. Optional tables that say nothing new are left out.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    user: &'a str,
    device: &'a str,
    addresses: &'a [SocketAddr],
    #[serde(skip_serializing_if = "Option::is_none")]
    kill_switch: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lan: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    captive_probe: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_tunnel: Option<bool>,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<WrittenLogin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    esp: Option<WrittenEsp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<WrittenWorkers>,
}

/// The keys of `[login]`, but those that say nothing new.
#[derive(Serialize)]
struct WrittenLogin<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    credential_command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    browser: Option<bool>,
}

/// The keys of `[esp]`.
#[derive(Serialize)]
struct WrittenEsp {
    enabled: bool,
    suites: Vec<&'static str>,
    vouched: bool,
    rekey_after: String,
    mtu: u16,
}

/// The keys of `[workers]`.
#[derive(Serialize)]
struct WrittenWorkers {
    yields: u32,
    tun_offload: bool,
    udp_offload: bool,
    gso_max_segs: u32,
}

impl<'a> Written<'a> {
    pub(super) fn of(profile: &'a Profile) -> Self {
        let (certificate, key, token) = match &profile.identity {
            Identity::Certificate { chain_pem, key_pem } => (Some(chain_pem.as_str()), Some(key_pem.as_str()), None),
            Identity::Token(token) => (None, None, Some(token.as_str())),
            Identity::Login => (None, None, None),
        };
        Self {
            host: &profile.host,
            port: profile.port,
            others: profile.others.iter().map(ToString::to_string).collect(),
            protocol: (profile.protocol == GatewayProtocol::AnyConnect).then_some("anyconnect"),
            user: &profile.user,
            device: &profile.device,
            addresses: &profile.addresses,
            kill_switch: profile.kill_switch,
            lan: (profile.lan == LanAccess::Allow).then_some("allow"),
            captive_probe: profile.captive_probe.written(),
            full_tunnel: profile.full_tunnel.then_some(true),
            authority: &profile.authority_pem,
            pin: profile.pin.map(|pin| HEXLOWER.encode(&pin)),
            certificate,
            key,
            token,
            mark: (profile.mark != Mark::default()).then(|| profile.mark.to_string()),
            login: (profile.login != LoginTable::default()).then(|| WrittenLogin::of(&profile.login)),
            esp: (profile.esp != EspTable::default()).then(|| WrittenEsp::of(&profile.esp)),
            workers: (profile.workers != WorkersTable::default()).then(|| WrittenWorkers::of(&profile.workers)),
        }
    }
}

impl<'a> WrittenLogin<'a> {
    fn of(table: &'a LoginTable) -> Self {
        let LoginTable { path, group, credential_command, browser } = table;
        let path = (*path != LoginTable::default().path).then_some(path.as_str());
        Self { path, group, credential_command, browser: browser.then_some(true) }
    }
}

impl WrittenEsp {
    fn of(table: &EspTable) -> Self {
        let EspTable { enabled, offered: EspSettings { offer, policy }, mtu } = table;
        Self {
            enabled: *enabled,
            suites: offer.suites.iter().map(|suite| suite.label()).collect(),
            vouched: offer.vouched,
            rekey_after: humantime::format_duration(policy.after).to_string(),
            mtu: *mtu,
        }
    }
}

impl WrittenWorkers {
    fn of(table: &WorkersTable) -> Self {
        let WorkersTable { settings: worker::Settings { yields }, tun_offload, udp_offload, gso_max_segs } = *table;
        Self { yields, tun_offload, udp_offload, gso_max_segs }
    }
}
