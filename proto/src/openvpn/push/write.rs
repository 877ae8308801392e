//! Settings as messages.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Dns, Redirect, Route, Settings};
use crate::openvpn::message::LONGEST_SENT;
use crate::openvpn::negotiation::Format;
use crate::openvpn::peer_info::{Abilities, cipher_name};

/// The word that each message begins with.
const PUSH_REPLY: &str = "PUSH_REPLY";

/// Bytes for `,push-continuation 2`.
const CONTINUATION_LEN: usize = 20;

/// An option is longer than a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a setting is longer than a message may be: {0}")]
pub struct TooLong(String);

/// The messages that tell a client of these abilities its settings, without their NULs. DNS is told in the one way that
/// the client understands.
///
/// # Errors
/// If one option alone is longer than a message.
pub fn messages(settings: &Settings, client: Abilities) -> Result<Vec<String>, TooLong> {
    let mut messages = vec![PUSH_REPLY.to_owned()];
    for option in options(settings, client) {
        let needed = option.len().saturating_add(1);
        let has_room =
            |message: &str| message.len().saturating_add(needed) <= LONGEST_SENT.saturating_sub(CONTINUATION_LEN);
        if !messages.last().is_some_and(|last| has_room(last)) {
            messages.push(PUSH_REPLY.to_owned());
        }
        match messages.last_mut().filter(|last| has_room(last)) {
            Some(last) => {
                last.push(',');
                last.push_str(&option);
            }
            None => return Err(TooLong(option)),
        }
    }
    if let [former @ .., last] = messages.as_mut_slice()
        && !former.is_empty()
    {
        former.iter_mut().for_each(|message| message.push_str(",push-continuation 2"));
        last.push_str(",push-continuation 1");
    }
    Ok(messages)
}

fn options(settings: &Settings, client: Abilities) -> Vec<String> {
    let mut options = addresses(settings);
    options.extend(settings.routes.iter().map(route));
    options.extend(redirect(settings.redirect));
    let has_dns_option = [Abilities::DNS_OPTION, Abilities::DNS_OPTION_V2].iter().any(|one| client.has(*one));
    options.extend(if has_dns_option { dns(&settings.dns) } else { dhcp(&settings.dns) });
    let switches = [(settings.block_v6, "block-ipv6"), (settings.block_outside_dns, "block-outside-dns")];
    options.extend(switches.iter().filter(|(is_on, _)| *is_on).map(|(_, option)| (*option).to_owned()));
    options.extend(session(settings));
    options
}

fn addresses(settings: &Settings) -> Vec<String> {
    let v4 = settings.v4.map(|v4| format!("ifconfig {} {}", v4.addr(), v4.netmask()));
    let v6 = settings.v6.map(|v6| {
        // openvpn wants a third word, and uses it for routes alone.
        let gateway = settings.v6_gateway.unwrap_or_else(|| v6.network());
        format!("ifconfig-ipv6 {}/{} {gateway}", v6.addr(), v6.prefix_len())
    });
    let topology = v4.is_some().then(|| "topology subnet".to_owned());
    [topology, v4, v6, settings.v4_gateway.map(|gateway| format!("route-gateway {gateway}"))]
        .into_iter()
        .flatten()
        .collect()
}

fn route(route: &Route) -> String {
    match (route.to, route.around) {
        (IpNet::V4(to), false) => format!("route {} {}", to.network(), to.netmask()),
        (IpNet::V4(to), true) => format!("route {} {} net_gateway", to.network(), to.netmask()),
        (IpNet::V6(to), false) => format!("route-ipv6 {to}"),
        (IpNet::V6(to), true) => format!("route-ipv6 {to} net_gateway"),
    }
}

fn redirect(redirect: Redirect) -> Option<String> {
    let Redirect { v4, v6, block_local } = redirect;
    let flags = [(true, "def1"), (v6, "ipv6"), (!v4, "!ipv4"), (block_local, "block-local")];
    let flags: Vec<&str> = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| *flag).collect();
    (v4 || v6).then(|| format!("redirect-gateway {}", flags.join(" ")))
}

fn dns(dns: &Dns) -> Vec<String> {
    let list = |words: Vec<String>| words.join(" ");
    let resolvers: Vec<String> = dns.resolvers.iter().map(IpAddr::to_string).collect();
    let mut options = Vec::new();
    if !resolvers.is_empty() {
        options.push(format!("dns server 0 address {}", list(resolvers)));
        if !dns.domains.is_empty() {
            options.push(format!("dns server 0 resolve-domains {}", list(dns.domains.clone())));
        }
    }
    if !dns.search.is_empty() {
        options.push(format!("dns search-domains {}", list(dns.search.clone())));
    }
    options
}

/// The older way knows no domains that alone are asked for: those are searched, too, as clients of that time do it.
fn dhcp(dns: &Dns) -> Vec<String> {
    let resolvers = dns.resolvers.iter().map(|resolver| match resolver {
        IpAddr::V4(address) => format!("dhcp-option DNS {address}"),
        IpAddr::V6(address) => format!("dhcp-option DNS6 {address}"),
    });
    let domains = dns.search.iter().chain(&dns.domains).map(|domain| format!("dhcp-option DOMAIN-SEARCH {domain}"));
    resolvers.chain(domains).collect()
}

fn session(settings: &Settings) -> Vec<String> {
    let flags = [
        (settings.key_export, "tls-ekm"),
        (settings.exit_message, "cc-exit"),
        (settings.dynamic_tls_crypt, "dyn-tls-crypt"),
        (settings.format == Format::Epoch, "aead-epoch"),
    ];
    let flags: Vec<&str> = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| *flag).collect();
    let token = settings.token.as_ref();
    let user = token.and_then(|token| token.user.as_ref()).filter(|user| !user.is_empty());
    let options = [
        option("tun-mtu", settings.mtu),
        option("ping", settings.liveness.ping.map(seconds)),
        option("ping-restart", settings.liveness.restart.map(seconds)),
        option("ping-exit", settings.liveness.exit.map(seconds)),
        option("peer-id", settings.peer_id),
        option("cipher", Some(cipher_name(settings.suite))),
        (!flags.is_empty()).then(|| format!("protocol-flags {}", flags.join(" "))),
        settings.exit_notify.then(|| "explicit-exit-notify 1".to_owned()),
        option("reneg-sec", settings.renegotiate.map(seconds)),
        option("session-timeout", settings.session_timeout.map(seconds)),
        option("auth-token", token.map(|token| token.token.as_str())),
        option("auth-token-user", user.map(|user| data_encoding::BASE64.encode(user.as_bytes()))),
    ];
    options.into_iter().flatten().collect()
}

fn option(name: &str, value: Option<impl Display>) -> Option<String> {
    value.map(|value| format!("{name} {value}"))
}

const fn seconds(time: Duration) -> u64 {
    time.as_secs()
}
