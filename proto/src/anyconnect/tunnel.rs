//! The CONNECT that turns a connection into the channel, and what it is answered.
//!
//! Clients and gateways compare the names of these headers with their case, so both heads are written here, letter by
//! letter. [`settings`] reads the answer, and [`keying`] is about the keys of records beside the channel.

pub mod keying;
pub mod settings;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use data_encoding::HEXLOWER;
use ipnet::{IpNet, Ipv4Net};
use zeroize::Zeroizing;

use super::cookie::{self, SessionCookie};
use crate::http::field::{self, Field};
use crate::packet::IPV6_MIN_MTU;

use keying::{Keying, NamedSuite};

/// What is connected to.
pub const TUNNEL_PATH: &str = "/CSCOSSLC/tunnel";
/// The suite that means: whichever the DTLS handshake comes to, under a key that both ends take from TLS.
const PSK_NEGOTIATE: &str = "PSK-NEGOTIATE";
/// The label for the TLS exporter, of the connection that the CONNECT came by; it has no context.
pub const PSK_LABEL: &[u8] = b"EXPORTER-openconnect-psk";
/// Bytes to take from the exporter.
pub const PSK_LEN: usize = 32;
/// Bytes of what names a session in a DTLS handshake.
pub const APP_ID_LEN: usize = 32;
/// Largest packet of the link below, in bytes, where it is the usual one: gateways reckon with it.
const LINK_MTU: u16 = 1500;
/// Longest text that a client says of itself, in bytes.
const MAX_TEXT: usize = 256;

/// What a client asks for. Secrets are in it, so it has no `Debug`.
pub struct TunnelRequest {
    /// Its session token.
    pub token: Option<Zeroizing<String>>,
    /// The group that its user has chosen.
    pub group: Option<String>,
    /// What it calls its host.
    pub host_name: Option<String>,
    /// Its name and version.
    pub agent: Option<String>,
    /// The largest packet that it wants, in bytes.
    pub mtu: Option<u16>,
    /// Whether it takes an IPv4 address.
    pub takes_v4: bool,
    /// Whether it takes an IPv6 address beside it.
    pub takes_v6: bool,
    /// Where the keys of DTLS come from, if it would send packets in records.
    pub dtls: Option<Keying>,
}

impl TunnelRequest {
    /// Reads the fields of a request; what makes no sense counts as not said.
    pub fn of(fields: &[Field]) -> Self {
        let text = |name| field::value(fields, name).filter(|text| text.len() <= MAX_TEXT).map(str::to_owned);
        let cookies = fields.iter().filter(|field| field.name == "cookie").map(|field| field.value.as_str());
        let families = field::value(fields, "x-cstp-address-type");
        let takes = |family| families.is_some_and(|families| families.split(',').any(|named| named.trim() == family));
        let is_full = field::value(fields, "x-cstp-full-ipv6-capability") == Some("true");
        let session = cookie::find(cookies, cookie::SESSION).map(SessionCookie::decode);
        let (token, group) = session.map_or((None, None), |session| (Some(session.token), session.group));
        Self {
            token,
            group,
            host_name: text("x-cstp-hostname"),
            agent: text("user-agent"),
            mtu: field::value(fields, "x-cstp-mtu").and_then(|mtu| mtu.parse().ok()),
            takes_v4: families.is_none() || takes("IPv4"),
            takes_v6: takes("IPv6") && is_full,
            dtls: Keying::of(fields),
        }
    }

    /// The largest packet of its session where the gateway permits `largest`; never below what IPv6 needs.
    pub fn mtu_within(&self, largest: u16) -> u16 {
        self.mtu.map_or(largest, |mtu| mtu.max(IPV6_MIN_MTU).min(largest))
    }
}

/// What our client asks for. The token is a secret, so it has no `Debug`.
pub struct Wish<'a> {
    /// The gateway, as in its URL.
    pub authority: &'a str,
    /// What the client calls itself.
    pub agent: &'a str,
    /// What it calls its host.
    pub host_name: &'a str,
    /// Its session token.
    pub token: &'a str,
    /// The largest packet that it takes, in bytes.
    pub mtu: u16,
    /// Whether it would send packets in records of DTLS, under a pre-shared key of this connection.
    pub takes_dtls: bool,
}

impl Wish<'_> {
    /// The head of the request, with the empty line at its end.
    pub fn head(&self) -> Zeroizing<String> {
        // There is room for all of it, so that no copy of the token is left behind when it grows.
        let mut head = Head(String::with_capacity(self.token.len().saturating_add(4096)));
        for part in ["CONNECT ", TUNNEL_PATH, " HTTP/1.1\r\nCookie: ", cookie::SESSION, "="] {
            head.0.push_str(part);
        }
        head.0.extend(self.token.chars().filter(char::is_ascii_graphic));
        head.0.push_str("\r\n");
        head.line("Host", self.authority).line("User-Agent", self.agent);
        head.line("X-CSTP-Version", 1).line("X-CSTP-Hostname", self.host_name);
        head.line("X-CSTP-Base-MTU", LINK_MTU).line("X-CSTP-MTU", self.mtu);
        head.line("X-CSTP-Address-Type", "IPv6,IPv4").line("X-CSTP-Full-IPv6-Capability", true);
        if self.takes_dtls {
            head.line("X-DTLS-CipherSuite", PSK_NEGOTIATE);
        }
        Zeroizing::new(head.0 + "\r\n")
    }
}

/// What a client is granted.
#[derive(Clone)]
pub struct Offer<'a> {
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// What it sends through the tunnel.
    pub routes: &'a [IpNet],
    /// Whom it asks for names.
    pub resolvers: &'a [IpAddr],
    /// The names that they are asked for; all if there are none here.
    pub domains: &'a [String],
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// How long either side may be silent before it is asked whether it is there.
    pub dpd: Duration,
    /// How often a client sends something through whatever is on the way.
    pub keepalive: Duration,
    /// When the client makes a new connection.
    pub rekey: Duration,
    /// How long the session lasts at most.
    pub lasts: Option<Duration>,
    /// How long it may carry nothing.
    pub idle: Option<Duration>,
    /// What its user is to read.
    pub banner: Option<&'a str>,
    /// Where it may send records of DTLS.
    pub dtls: Option<DtlsOffer>,
}

/// How a client may send its packets in records of DTLS. The name of the session is no key, but nobody else's business.
#[derive(Clone, Copy)]
pub struct DtlsOffer {
    /// The UDP port, of the address that the client has connected to.
    pub port: u16,
    /// What names the session in the handshake.
    pub app_id: [u8; APP_ID_LEN],
    /// The suite of the session of TLS that is resumed; without one the handshake is under a pre-shared key.
    pub resumed: Option<NamedSuite>,
    /// How long either side may be silent there before it is asked whether it is there.
    pub dpd: Duration,
}

impl Offer<'_> {
    /// The head of the answer, with the empty line at its end.
    pub fn head(&self) -> String {
        let mut head = Head("HTTP/1.1 200 CONNECTED\r\n".to_owned());
        head.line("X-CSTP-Version", 1).line("X-CSTP-Server-Name", "Adit").line("X-CSTP-License", "accept");
        self.addresses(&mut head);
        self.names(&mut head);
        self.include(&mut head);
        head.line("X-CSTP-MTU", self.mtu);
        head.line("X-CSTP-DPD", self.dpd.as_secs()).line("X-CSTP-Keepalive", self.keepalive.as_secs());
        // Newer clients of Cisco refuse a gateway that announces no way to renew keys.
        head.line("X-CSTP-Rekey-Time", self.rekey.as_secs()).line("X-CSTP-Rekey-Method", "new-tunnel");
        let seconds =
            |time: Option<Duration>| time.map_or_else(|| "none".to_owned(), |time| time.as_secs().to_string());
        head.line("X-CSTP-Session-Timeout", seconds(self.lasts)).line("X-CSTP-Idle-Timeout", seconds(self.idle));
        head.line("X-CSTP-Disconnected-Timeout", "none").line("X-CSTP-Keep", true);
        head.line("X-CSTP-TCP-Keepalive", true).line("X-CSTP-Smartcard-Removal-Disconnect", true);
        if let Some(banner) = self.banner {
            head.line("X-CSTP-Banner", escaped(banner));
        }
        self.dtls(&mut head);
        head.0 + "\r\n"
    }

    fn dtls(&self, head: &mut Head) {
        let Some(DtlsOffer { port, app_id, resumed, dpd }) = self.dtls else { return };
        let name = HEXLOWER.encode(&app_id);
        // From the link's size the client reckons what fits a record, and then looks what passes.
        head.line("X-CSTP-Base-MTU", LINK_MTU).line("X-DTLS-Port", port);
        match resumed {
            None => head.line("X-DTLS-CipherSuite", PSK_NEGOTIATE).line("X-DTLS-App-ID", name),
            Some(suite) => {
                head.line(suite.header, suite.name).line("X-DTLS-Session-ID", name);
                head.line("X-DTLS-MTU", self.mtu.min(suite.largest_packet()))
            }
        };
        head.line("X-DTLS-DPD", dpd.as_secs()).line("X-DTLS-Keepalive", self.keepalive.as_secs());
    }

    fn addresses(&self, head: &mut Head) {
        if let Some(v4) = self.v4 {
            head.line("X-CSTP-Address", v4).line("X-CSTP-Netmask", Ipv4Addr::BROADCAST);
        }
        if let Some(v6) = self.v6 {
            head.line("X-CSTP-Address-IP6", format_args!("{v6}/128"));
        }
    }

    fn names(&self, head: &mut Head) {
        for resolver in self.resolvers {
            head.line("X-CSTP-DNS", resolver);
        }
        // Where Cisco's clients look for them. Others count these lines as well, and take the first three of all.
        for resolver in self.resolvers.iter().filter(|resolver| resolver.is_ipv6()) {
            head.line("X-CSTP-DNS-IP6", resolver);
        }
        for domain in self.domains {
            head.line("X-CSTP-Split-DNS", domain);
        }
        head.line("X-CSTP-Tunnel-All-DNS", !self.resolvers.is_empty() && self.domains.is_empty());
    }

    /// Says what goes through the tunnel. A client to which no prefix of a family is said sends all of it, so a family
    /// of which nothing goes through has the client's own address said.
    fn include(&self, head: &mut Head) {
        let is_all = |v6: bool| self.routes.iter().any(|route| route.prefix_len() == 0 && route.addr().is_ipv6() == v6);
        let v4s = self.routes.iter().filter_map(|route| if let IpNet::V4(v4) = route { Some(*v4) } else { None });
        if let Some(own) = self.v4.filter(|_| !is_all(false)) {
            let said: Vec<Ipv4Net> = v4s.collect();
            let own = said.is_empty().then(|| Ipv4Net::from(own));
            for route in said.iter().chain(&own) {
                head.line("X-CSTP-Split-Include", format_args!("{}/{}", route.network(), route.netmask()));
            }
        }
        if let Some(own) = self.v6.filter(|_| !is_all(true)) {
            let said: Vec<&IpNet> = self.routes.iter().filter(|route| route.addr().is_ipv6()).collect();
            let own = said.is_empty().then(|| IpNet::from(IpAddr::V6(own)));
            for route in said.into_iter().chain(&own) {
                head.line("X-CSTP-Split-Include-IP6", format_args!("{}/{}", route.network(), route.prefix_len()));
            }
        }
    }
}

/// A text as clients read it: all but plain letters as `%` and two digits for each byte.
fn escaped(text: &str) -> String {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'%';
    text.bytes()
        .map(|byte| if is_plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

/// The lines of a head so far.
struct Head(String);

impl Head {
    /// Adds a line. What cannot stand in a header is left out of its value.
    fn line(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        let value: String = value.to_string().chars().filter(|letter| matches!(letter, ' '..='~')).collect();
        write!(self.0, "{name}: {value}\r\n").expect("texts can be appended to");
        self
    }
}

#[cfg(test)]
mod tests;
