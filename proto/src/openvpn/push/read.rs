//! Messages as settings.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zeroize::Zeroizing;

use super::dns::{DnsDraft, DnsError, Taken};
use super::filter::{Action, Filter, decide};
use super::{Liveness, MAX_PEER_ID, Route, Settings, Token};
use crate::openvpn::login::from_base64;
use crate::openvpn::negotiation::Format;
use crate::openvpn::peer_info::suite;
use crate::openvpn::words;
use crate::packet::IPV6_MIN_MTU;
use crate::sealing::suite::Suite;

/// Most bytes of all messages together.
pub const MAX_LEN: usize = 256 * 1024;
/// Most routes.
pub const MAX_ROUTES: usize = 4096;
/// Most names of options that are told as unknown.
const MAX_UNKNOWN: usize = 64;
/// Longest name of one that is told, in bytes.
const MAX_UNKNOWN_LEN: usize = 64;
/// Smallest packet that a tunnel of IPv4 may have as its largest: every host takes one (RFC 791).
const IPV4_MIN_MTU: u16 = 576;

/// Why pushed settings give no tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// More was pushed than is taken.
    #[error("the server pushes more than is taken")]
    TooMuch,
    /// An option has no value, or one that makes no sense.
    #[error("the server pushes `{0}` with a value that makes no sense")]
    Value(&'static str),
    /// The server wants data compressed.
    #[error("the server wants compression, which gives away what is said: remove `compress` and `comp-lzo` there")]
    Compression,
    /// The server has chosen a cipher that is not spoken here.
    #[error("the server has chosen a cipher that is not spoken here: give it `data-ciphers AES-256-GCM`")]
    Cipher,
    /// The server says nothing of a cipher, so it is one of before 2.5 or set up without negotiation.
    #[error("the server has negotiated no cipher: it has to be OpenVPN 2.6 or newer")]
    NoCipher,
    /// Data keys are to be made as before 2.5.
    #[error("the server makes data keys in an old way: it has to be OpenVPN 2.6 or newer")]
    KeyDerivation,
    /// No address was pushed.
    #[error("the server pushes no address")]
    NoAddress,
    /// A `pull-filter reject` of the profile is about an option.
    #[error("the profile does not permit what the server pushes: `{0}`")]
    Rejected(String),
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The settings.
    pub settings: Settings,
    /// Names of the options that were passed over, each once and not all of very many.
    pub unknown: Vec<String>,
}

/// Puts together what comes in several messages.
#[derive(Default)]
pub struct Reader {
    filters: Vec<Filter>,
    options: Vec<String>,
    len: usize,
}

impl Reader {
    /// One that asks the filters of a profile about each option; without filters, as by default, each one counts.
    pub const fn new(filters: Vec<Filter>) -> Self {
        Self { filters, options: Vec::new(), len: 0 }
    }

    /// Takes what stands behind `PUSH_REPLY,` in the next message; `None` while more is announced.
    ///
    /// # Errors
    /// Why there will be no tunnel.
    pub fn handle(&mut self, text: &str) -> Result<Option<Reply>, PushError> {
        self.len = self.len.saturating_add(text.len());
        if self.len > MAX_LEN {
            return Err(PushError::TooMuch);
        }
        let (markers, options): (Vec<&str>, Vec<&str>) =
            text.split(',').partition(|option| option.trim_start().starts_with("push-continuation"));
        for option in options {
            match decide(&self.filters, option) {
                Action::Accept => self.options.push(option.to_owned()),
                Action::Ignore => {}
                Action::Reject => return Err(PushError::Rejected(option.chars().take(MAX_UNKNOWN_LEN).collect())),
            }
        }
        if markers.iter().any(|marker| marker.split_whitespace().nth(1) == Some("2")) {
            return Ok(None);
        }
        self.len = 0;
        parse(&std::mem::take(&mut self.options)).map(Some)
    }
}

/// What options add up to.
struct Draft {
    settings: Settings,
    /// The two words of `ifconfig`, which mean one thing or the other by what `topology` says, wherever that stands.
    ifconfig: Option<(Ipv4Addr, Ipv4Addr)>,
    is_subnet: bool,
    has_cipher: bool,
    dns: DnsDraft,
    user: Option<String>,
    unknown: Vec<String>,
}

fn parse(options: &[String]) -> Result<Reply, PushError> {
    let mut draft = Draft {
        settings: Settings { key_export: false, ..Settings::new(Suite::Aes256Gcm) },
        ifconfig: None,
        is_subnet: false,
        has_cipher: false,
        dns: DnsDraft::default(),
        user: None,
        unknown: Vec::new(),
    };
    for option in options {
        let words = words::split(option).map_err(|_| PushError::Value("an option"))?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let [name, values @ ..] = words.as_slice() {
            draft.take(name, values)?;
        }
    }
    draft.finish()
}

impl Draft {
    fn take(&mut self, name: &str, values: &[&str]) -> Result<(), PushError> {
        let first = values.first().copied();
        let liveness = &mut self.settings.liveness;
        match name {
            "ifconfig" => self.ifconfig = Some(pair(values).ok_or(PushError::Value("ifconfig"))?),
            "ifconfig-ipv6" => self.take_v6(values).ok_or(PushError::Value("ifconfig-ipv6"))?,
            "topology" => self.is_subnet = first == Some("subnet"),
            "route-gateway" => self.settings.v4_gateway = first.and_then(|word| word.parse().ok()),
            "route" => self.take_route(route_v4(values).ok_or(PushError::Value("route"))?)?,
            "route-ipv6" => self.take_route(route_v6(values).ok_or(PushError::Value("route-ipv6"))?)?,
            "redirect-gateway" | "redirect-private" => self.take_redirect(name == "redirect-gateway", values),
            "block-ipv6" => self.settings.block_v6 = true,
            "block-outside-dns" => self.settings.block_outside_dns = true,
            "dns" => {
                let taken = self.dns.take_dns(values);
                self.note_dns(taken, "dns")?;
            }
            "dhcp-option" => {
                let taken = self.dns.take_dhcp(values);
                self.note_dns(taken, "dhcp-option")?;
            }
            "tun-mtu" => self.settings.mtu = Some(number(values).ok_or(PushError::Value("tun-mtu"))?),
            "ping" => liveness.ping = time(values, "ping")?,
            "ping-restart" => liveness.restart = time(values, "ping-restart")?,
            "ping-exit" => liveness.exit = time(values, "ping-exit")?,
            "keepalive" => *liveness = keepalive(values).ok_or(PushError::Value("keepalive"))?,
            "peer-id" => {
                let id = number(values).filter(|id| *id <= MAX_PEER_ID).ok_or(PushError::Value("peer-id"))?;
                self.settings.peer_id = Some(id);
            }
            "cipher" => {
                self.settings.suite = first.and_then(suite).ok_or(PushError::Cipher)?;
                self.has_cipher = true;
            }
            "protocol-flags" => values.iter().for_each(|flag| self.take_flag(flag)),
            "key-derivation" if first == Some("tls-ekm") => self.settings.key_export = true,
            "key-derivation" => return Err(PushError::KeyDerivation),
            "explicit-exit-notify" => self.settings.exit_notify = true,
            "reneg-sec" => self.settings.renegotiate = time(values, "reneg-sec")?,
            "session-timeout" => self.settings.session_timeout = time(values, "session-timeout")?,
            "auth-token" => {
                let token = first.filter(|token| !token.is_empty()).ok_or(PushError::Value("auth-token"))?;
                self.settings.token = Some(Token { token: Zeroizing::new(token.to_owned()), user: None });
            }
            "auth-token-user" => {
                let user = first.and_then(from_base64).ok_or(PushError::Value("auth-token-user"))?;
                self.user = Some(user.as_str().to_owned());
            }
            // Both announce that data is framed for compression, even where nothing is compressed.
            "compress" | "comp-lzo" => return Err(PushError::Compression),
            _ => self.take_unknown(name),
        }
        Ok(())
    }

    fn take_v6(&mut self, values: &[&str]) -> Option<()> {
        let address: Ipv6Net = values.first()?.parse().ok()?;
        self.settings.v6 = Some(address);
        self.settings.v6_gateway = values.get(1).and_then(|word| word.parse().ok());
        Some(())
    }

    fn take_route(&mut self, route: Route) -> Result<(), PushError> {
        if self.settings.routes.len() >= MAX_ROUTES {
            return Err(PushError::TooMuch);
        }
        self.settings.routes.push(route);
        Ok(())
    }

    fn take_redirect(&mut self, is_all: bool, flags: &[&str]) {
        let redirect = &mut self.settings.redirect;
        redirect.v4 |= is_all && !flags.contains(&"!ipv4");
        redirect.v6 |= is_all && flags.contains(&"ipv6");
        redirect.block_local |= flags.contains(&"block-local");
    }

    fn note_dns(&mut self, taken: Result<Taken, DnsError>, option: &'static str) -> Result<(), PushError> {
        match taken {
            Ok(Taken::Whole) => {}
            Ok(Taken::Unknown) => self.take_unknown(option),
            Err(DnsError::Value) => return Err(PushError::Value(option)),
            Err(DnsError::TooMany) => return Err(PushError::TooMuch),
        }
        Ok(())
    }

    fn take_flag(&mut self, flag: &str) {
        let settings = &mut self.settings;
        match flag {
            "tls-ekm" => settings.key_export = true,
            "cc-exit" => settings.exit_message = true,
            "dyn-tls-crypt" => settings.dynamic_tls_crypt = true,
            "aead-epoch" => settings.format = Format::Epoch,
            _ => self.take_unknown("protocol-flags"),
        }
    }

    fn take_unknown(&mut self, name: &str) {
        let is_new = !self.unknown.iter().any(|known| known == name);
        if is_new && self.unknown.len() < MAX_UNKNOWN && name.len() <= MAX_UNKNOWN_LEN {
            self.unknown.push(name.to_owned());
        }
    }

    fn finish(mut self) -> Result<Reply, PushError> {
        let settings = &mut self.settings;
        settings.dns = self.dns.finish();
        if let Some((address, second)) = self.ifconfig {
            let network = if self.is_subnet { Ipv4Net::with_netmask(address, second).ok() } else { None };
            // Without a subnet the second word is the other end of the tunnel.
            let (network, gateway) = match (self.is_subnet, network) {
                (true, network) => (network.ok_or(PushError::Value("ifconfig"))?, None),
                (false, _) => (Ipv4Net::from(address), Some(second)),
            };
            settings.v4 = Some(network);
            settings.v4_gateway = settings.v4_gateway.or(gateway);
        }
        if settings.v4.is_none() && settings.v6.is_none() {
            return Err(PushError::NoAddress);
        }
        if !self.has_cipher {
            return Err(PushError::NoCipher);
        }
        if !settings.key_export {
            return Err(PushError::KeyDerivation);
        }
        let smallest = if settings.v6.is_some() { IPV6_MIN_MTU } else { IPV4_MIN_MTU };
        if settings.mtu.is_some_and(|mtu| mtu < smallest) {
            return Err(PushError::Value("tun-mtu"));
        }
        if let Some(token) = &mut settings.token {
            token.user = self.user;
        }
        Ok(Reply { settings: self.settings, unknown: self.unknown })
    }
}

fn pair(values: &[&str]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let [address, second, ..] = values else { return None };
    Some((address.parse().ok()?, second.parse().ok()?))
}

/// `NETWORK [NETMASK [GATEWAY [METRIC]]]`
pub(in crate::openvpn) fn route_v4(values: &[&str]) -> Option<Route> {
    let network: Ipv4Addr = values.first()?.parse().ok()?;
    let netmask = match values.get(1) {
        None | Some(&"default") => Ipv4Addr::BROADCAST,
        Some(netmask) => netmask.parse().ok()?,
    };
    let to = IpNet::V4(Ipv4Net::with_netmask(network, netmask).ok()?);
    route(to, values.get(2).copied())
}

/// `NETWORK/BITS [GATEWAY [METRIC]]`
pub(in crate::openvpn) fn route_v6(values: &[&str]) -> Option<Route> {
    let to: Ipv6Net = values.first()?.parse().ok()?;
    route(IpNet::V6(to), values.get(1).copied())
}

/// A route through another gateway than the tunnel's is none that a tunnel could have.
fn route(to: IpNet, gateway: Option<&str>) -> Option<Route> {
    let around = match gateway {
        None | Some("default" | "vpn_gateway" | "net_gateway" | "net_gateway_ipv6") => {
            matches!(gateway, Some("net_gateway" | "net_gateway_ipv6"))
        }
        Some(address) => {
            let _: IpAddr = address.parse().ok()?;
            false
        }
    };
    (to.trunc() == to).then_some(Route { to, around })
}

fn number<T: std::str::FromStr>(values: &[&str]) -> Option<T> {
    values.first()?.parse().ok()
}

/// A time in seconds; 0 switches off what has it.
fn time(values: &[&str], option: &'static str) -> Result<Option<Duration>, PushError> {
    let seconds: u32 = number(values).ok_or(PushError::Value(option))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

/// `keepalive PING RESTART`
fn keepalive(values: &[&str]) -> Option<Liveness> {
    let [ping, restart, ..] = values else { return None };
    let time = |word: &str| word.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    Some(Liveness { ping: Some(time(ping)?), restart: Some(time(restart)?), exit: None })
}
