//! What a profile's options add up to.

use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::Zeroizing;

use super::options::{Fate, fate};
use super::{
    Family, Ignored, MAX_REMOTES, Material, Parsed, Profile, Refused, Remote, ServerName, StaticChallenge, Transport,
    UserLogin, Wrapping,
};
use crate::openvpn::peer_info::suites;
use crate::openvpn::push::Redirect;
use crate::openvpn::push::dns::{DnsDraft, DnsError, Taken};
use crate::openvpn::push::filter::{Action, Filter};
use crate::openvpn::push::read::{MAX_ROUTES, route_v4, route_v6};
use crate::openvpn::wrapping::tls_auth::{Digest, Direction};
use crate::sealing::suite::Suite;

/// Most complaints that are told.
const MAX_COMPLAINTS: usize = 100;
/// Longest name of an option that is told, in characters.
const MAX_NAME: usize = 64;
/// Most filters for what the server pushes.
const MAX_FILTERS: usize = 256;
/// The port where none is named.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(1194).expect("it is not 0");

/// An option with its values, and what stands between `<name>` and `</name>` if it was written so.
pub(super) struct Line<'a> {
    pub(super) number: usize,
    pub(super) name: &'a str,
    pub(super) values: &'a [&'a str],
    pub(super) block: Option<&'a str>,
}

impl Line<'_> {
    fn first(&self) -> Option<&str> {
        self.values.first().copied()
    }

    fn number<T: FromStr>(&self) -> Option<T> {
        self.first()?.parse().ok()
    }

    fn seconds(&self) -> Option<Option<Duration>> {
        let seconds: u32 = self.number()?;
        Some((seconds > 0).then(|| Duration::from_secs(seconds.into())))
    }

    /// The block, or the name of a file.
    fn material(&self) -> Option<Material> {
        match (self.block, self.first()) {
            (Some(block), _) => Some(Material::Inline(Zeroizing::new(block.to_owned()))),
            (None, Some(file)) if file != "[inline]" && !file.is_empty() => Some(Material::File(file.to_owned())),
            (None, _) => None,
        }
    }
}

/// A server as far as it was named.
#[derive(Default)]
struct RemoteDraft {
    line: usize,
    host: Option<String>,
    port: Option<NonZeroU16>,
    transport: Option<(Transport, Family)>,
}

/// What was read so far.
#[derive(Default)]
pub(super) struct Draft {
    remotes: Vec<RemoteDraft>,
    /// The block `<connection>` that is open.
    connection: Option<RemoteDraft>,
    port: Option<NonZeroU16>,
    transport: Option<(Transport, Family)>,
    is_client: bool,
    suites: Option<Vec<Suite>>,
    digest: Option<Digest>,
    tls_auth: Option<(Material, Option<Direction>)>,
    direction: Option<Direction>,
    tls_crypt: Option<Material>,
    tls_crypt_v2: Option<Material>,
    dns: DnsDraft,
    tolerated: Vec<String>,
    taken: Fields,
    ignored: Vec<Ignored>,
    refused: Vec<Refused>,
}

/// What needs no second look.
#[derive(Default)]
struct Fields {
    remote_random: bool,
    ca: Option<Material>,
    certificate: Option<Material>,
    key: Option<Material>,
    revoked: Option<Material>,
    fingerprints: Vec<[u8; 32]>,
    server_name: Option<ServerName>,
    must_be_server: bool,
    user_login: Option<UserLogin>,
    static_challenge: Option<StaticChallenge>,
    routes: Vec<super::Route>,
    redirect: Redirect,
    route_nopull: bool,
    filters: Vec<Filter>,
    block_v6: bool,
    block_outside_dns: bool,
    mtu: Option<u16>,
    mssfix: Option<u16>,
    ping: Option<Duration>,
    ping_restart: Option<Duration>,
    exit_notify: bool,
    renegotiate: Option<Duration>,
    renegotiate_bytes: Option<u64>,
    hand_window: Option<Duration>,
}

impl Draft {
    pub(super) fn refuse(&mut self, line: usize, option: &str, reason: &str) {
        if self.refused.len() < MAX_COMPLAINTS {
            self.refused.push(Refused { line, option: short(option), reason: reason.to_owned() });
        }
    }

    pub(super) fn begin_connection(&mut self, line: usize) {
        if self.connection.is_some() {
            self.refuse(line, "connection", "begins within another one");
        }
        self.connection = Some(RemoteDraft { line, ..RemoteDraft::default() });
    }

    pub(super) fn end_connection(&mut self, line: usize) {
        match self.connection.take() {
            Some(connection) if connection.host.is_some() => self.add_remote(connection),
            Some(_) => self.refuse(line, "connection", "names no server: `remote` is missing"),
            None => self.refuse(line, "connection", "ends where none has begun"),
        }
    }

    pub(super) fn end_of_text(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.refuse(connection.line, "connection", "has no end: the line </connection> is missing");
        }
    }

    fn add_remote(&mut self, remote: RemoteDraft) {
        if self.remotes.len() < MAX_REMOTES {
            self.remotes.push(remote);
        } else {
            self.refuse(remote.line, "remote", "is one more server than is taken");
        }
    }

    /// Takes an option.
    pub(super) fn take(&mut self, line: &Line<'_>) {
        match (line.name, line.values) {
            ("setenv" | "setenv-safe", ["opt", name, values @ ..]) => {
                self.tolerated.push((*name).to_owned());
                self.take(&Line { name, values, ..*line });
                return;
            }
            ("setenv" | "setenv-safe", _) => return self.ignore(line, "it is for programs, and none is run"),
            ("ignore-unknown-option", names) => {
                return self.tolerated.extend(names.iter().map(|name| (*name).to_owned()));
            }
            _ => {}
        }
        let taken = self
            .take_server(line)
            .or_else(|| self.take_identity(line))
            .or_else(|| self.take_wrapping(line))
            .or_else(|| self.take_network(line))
            .or_else(|| self.take_timing(line));
        match taken {
            Some(Ok(())) => {}
            Some(Err(reason)) => self.refuse(line.number, line.name, reason),
            None => self.take_other(line),
        }
    }

    fn ignore(&mut self, line: &Line<'_>, reason: &'static str) {
        if self.ignored.len() < MAX_COMPLAINTS {
            self.ignored.push(Ignored { line: line.number, option: short(line.name), reason });
        }
    }

    fn take_other(&mut self, line: &Line<'_>) {
        match fate(line.name) {
            Some(Fate::Ignored(reason)) => self.ignore(line, reason),
            Some(Fate::Refused(reason)) => self.refuse(line.number, line.name, reason),
            None if self.tolerated.iter().any(|name| name == line.name) => {
                self.ignore(line, "it is unknown, and the profile says that it may be");
            }
            None => self.refuse(line.number, line.name, "is not known: remove the line"),
        }
    }

    /// `None` if the option is none of these, as in the functions that follow.
    fn take_server(&mut self, line: &Line<'_>) -> Option<Result<(), &'static str>> {
        Some(match line.name {
            "client" | "pull" => {
                self.is_client = true;
                Ok(())
            }
            "remote" => remote(line).map(|remote| match &mut self.connection {
                Some(connection) => {
                    connection.host = remote.host;
                    connection.port = remote.port.or(connection.port);
                    connection.transport = remote.transport.or(connection.transport);
                }
                None => self.add_remote(remote),
            }),
            "port" | "rport" => {
                let port = line.number().ok_or("needs a port from 1 to 65535");
                port.map(|port| *self.connection.as_mut().map_or(&mut self.port, |open| &mut open.port) = Some(port))
            }
            "proto" => {
                let transport = line.first().and_then(transport).ok_or("needs `udp` or `tcp-client`");
                transport.map(|transport| {
                    let place = self.connection.as_mut().map_or(&mut self.transport, |open| &mut open.transport);
                    *place = Some(transport);
                })
            }
            "remote-random" => {
                self.taken.remote_random = true;
                Ok(())
            }
            "dev" => match line.first() {
                Some(name) if name.starts_with("tun") => Ok(()),
                _ => Err("only `tun` is spoken: the server has to be set up for `dev tun`"),
            },
            "dev-type" if line.first() != Some("tun") => Err("only `tun` is spoken"),
            _ => return None,
        })
    }

    fn take_identity(&mut self, line: &Line<'_>) -> Option<Result<(), &'static str>> {
        let fields = &mut self.taken;
        Some(match line.name {
            "ca" => set(&mut fields.ca, line.material()),
            "cert" => set(&mut fields.certificate, line.material()),
            "key" => set(&mut fields.key, line.material()),
            "crl-verify" => set(&mut fields.revoked, line.material()),
            "peer-fingerprint" => fingerprints(line).map(|found| fields.fingerprints.extend(found)),
            "verify-x509-name" => server_name(line).map(|name| fields.server_name = Some(name)),
            "remote-cert-tls" if line.first() == Some("server") => {
                fields.must_be_server = true;
                Ok(())
            }
            "remote-cert-tls" => Err("has to be `server` in a client's profile"),
            "auth-user-pass" => {
                fields.user_login = Some(line.material().map_or(UserLogin::Ask, UserLogin::Stored));
                Ok(())
            }
            "static-challenge" => match line.values {
                [text, echo @ ("0" | "1")] => {
                    fields.static_challenge = Some(StaticChallenge { text: (*text).to_owned(), echo: *echo == "1" });
                    Ok(())
                }
                _ => Err("needs a question, and 0 or 1"),
            },
            _ => return None,
        })
    }

    fn take_wrapping(&mut self, line: &Line<'_>) -> Option<Result<(), &'static str>> {
        Some(match line.name {
            "tls-auth" => match (line.material(), line.values.get(1)) {
                (Some(material), None) => {
                    self.tls_auth = Some((material, None));
                    Ok(())
                }
                (Some(material), Some(word)) => {
                    direction(word).map(|found| self.tls_auth = Some((material, Some(found))))
                }
                (None, _) => Err(NO_MATERIAL),
            },
            "key-direction" => {
                line.first().ok_or("needs 0 or 1").and_then(direction).map(|found| self.direction = Some(found))
            }
            "tls-crypt" => set(&mut self.tls_crypt, line.material()),
            "tls-crypt-v2" => set(&mut self.tls_crypt_v2, line.material()),
            "auth" => match line.first().and_then(Digest::from_name) {
                Some(digest) => {
                    self.digest = Some(digest);
                    Ok(())
                }
                None => Err("is a digest that is not spoken: SHA1, SHA256 and SHA512 are"),
            },
            "data-ciphers" | "ncp-ciphers" => {
                let list = line.first().unwrap_or_default();
                let found =
                    if list.split(':').any(|name| name == "DEFAULT") { Suite::ALL.to_vec() } else { suites(list) };
                self.suites = Some(found).filter(|found| !found.is_empty());
                self.suites.as_ref().map(|_| ()).ok_or(
                    "names no cipher that is spoken: AES-256-GCM, AES-128-GCM and CHACHA20-POLY1305 are, and no CBC",
                )
            }
            _ => return None,
        })
    }

    fn take_network(&mut self, line: &Line<'_>) -> Option<Result<(), &'static str>> {
        const ROUTE: &str = "is no route that a tunnel can have";
        let fields = &mut self.taken;
        Some(match line.name {
            "route" | "route-ipv6" if fields.routes.len() >= MAX_ROUTES => Err("is one more than is taken"),
            "route" => route_v4(line.values).ok_or(ROUTE).map(|route| fields.routes.push(route)),
            "route-ipv6" => route_v6(line.values).ok_or(ROUTE).map(|route| fields.routes.push(route)),
            "redirect-gateway" => {
                fields.redirect.v4 |= !line.values.contains(&"!ipv4");
                fields.redirect.v6 |= line.values.contains(&"ipv6");
                fields.redirect.block_local |= line.values.contains(&"block-local");
                Ok(())
            }
            "redirect-private" => {
                fields.redirect.block_local |= line.values.contains(&"block-local");
                Ok(())
            }
            "dns" => self.dns.take_dns(line.values).map(|taken| self.note_dns(taken, line)).map_err(dns_reason),
            "dhcp-option" => {
                self.dns.take_dhcp(line.values).map(|taken| self.note_dns(taken, line)).map_err(dns_reason)
            }
            "pull-filter" if fields.filters.len() >= MAX_FILTERS => Err("is one more than is taken"),
            "pull-filter" => filter(line).map(|filter| fields.filters.push(filter)),
            "route-nopull" => switch(&mut fields.route_nopull),
            "block-ipv6" => switch(&mut fields.block_v6),
            "block-outside-dns" => switch(&mut fields.block_outside_dns),
            "tun-mtu" => match line.number().filter(|mtu| *mtu >= 576) {
                Some(mtu) => {
                    fields.mtu = Some(mtu);
                    Ok(())
                }
                None => Err("needs a size from 576 to 65535"),
            },
            "mssfix" => match line.first() {
                None => Ok(()),
                Some(size) => size.parse().map(|size| fields.mssfix = Some(size)).map_err(|_| "needs a size"),
            },
            "ifconfig" | "ifconfig-ipv6" => Err("has no effect here: the server pushes addresses; remove the line"),
            _ => return None,
        })
    }

    fn note_dns(&mut self, taken: Taken, line: &Line<'_>) {
        match taken {
            Taken::Whole => {}
            Taken::Unknown => self.ignore(line, "resolvers are asked in one way, and other settings are not made"),
        }
    }

    fn take_timing(&mut self, line: &Line<'_>) -> Option<Result<(), &'static str>> {
        const SECONDS: &str = "needs a number of seconds";
        let fields = &mut self.taken;
        let place = match line.name {
            "ping" => &mut fields.ping,
            "ping-restart" => &mut fields.ping_restart,
            "reneg-sec" => &mut fields.renegotiate,
            "hand-window" => &mut fields.hand_window,
            "keepalive" => {
                let [ping, restart] = line.values else { return Some(Err("needs two numbers of seconds")) };
                let seconds = |word: &str| word.parse().ok().map(|seconds: u32| Duration::from_secs(seconds.into()));
                return Some(seconds(ping).zip(seconds(restart)).ok_or(SECONDS).map(|(ping, restart)| {
                    (fields.ping, fields.ping_restart) = (Some(ping), Some(restart));
                }));
            }
            "reneg-bytes" => {
                let bytes: Option<u64> = line.number();
                return Some(bytes.ok_or("needs a number of bytes").map(|bytes| {
                    fields.renegotiate_bytes = Some(bytes).filter(|bytes| *bytes > 0);
                }));
            }
            "explicit-exit-notify" => return Some(switch(&mut fields.exit_notify)),
            _ => return None,
        };
        Some(line.seconds().ok_or(SECONDS).map(|time| *place = time))
    }

    /// The profile, if nothing is to be mended.
    pub(super) fn finish(mut self) -> Result<Parsed, Vec<Refused>> {
        if !self.is_client {
            self.refuse(0, "client", "is missing: only profiles of clients are taken");
        }
        let remotes = self.remotes();
        if remotes.is_empty() {
            self.refuse(0, "remote", "is missing: the profile names no server");
        }
        if self.taken.ca.is_none() && self.taken.fingerprints.is_empty() {
            self.refuse(0, "ca", "is missing: nothing says by whom the server's certificate has to be signed");
        }
        if self.taken.certificate.is_some() != self.taken.key.is_some() {
            self.refuse(0, "cert", "and `key` belong together, and one of them is missing");
        }
        if self.taken.certificate.is_none() && self.taken.user_login.is_none() {
            self.refuse(0, "cert", "is missing, and so is `auth-user-pass`: there is nothing to log in with");
        }
        let wrapping = self.wrapping();
        if !self.refused.is_empty() {
            return Err(self.refused);
        }
        let fields = self.taken;
        let profile = Profile {
            remotes,
            remote_random: fields.remote_random,
            ca: fields.ca,
            certificate: fields.certificate,
            key: fields.key,
            revoked: fields.revoked,
            fingerprints: fields.fingerprints,
            server_name: fields.server_name,
            must_be_server: fields.must_be_server,
            wrapping,
            user_login: fields.user_login.unwrap_or(UserLogin::None),
            static_challenge: fields.static_challenge,
            suites: self.suites.unwrap_or_else(|| Suite::ALL.to_vec()),
            routes: fields.routes,
            redirect: fields.redirect,
            dns: self.dns.finish(),
            route_nopull: fields.route_nopull,
            filters: fields.filters,
            block_v6: fields.block_v6,
            block_outside_dns: fields.block_outside_dns,
            mtu: fields.mtu,
            mssfix: fields.mssfix,
            ping: fields.ping,
            ping_restart: fields.ping_restart,
            exit_notify: fields.exit_notify,
            renegotiate: fields.renegotiate,
            renegotiate_bytes: fields.renegotiate_bytes,
            hand_window: fields.hand_window,
        };
        Ok(Parsed { profile, ignored: self.ignored })
    }

    /// Options that stand for all servers count wherever they stand.
    fn remotes(&mut self) -> Vec<Remote> {
        let (port, transport) = (self.port, self.transport);
        let drafts = std::mem::take(&mut self.remotes).into_iter();
        let named = drafts.filter_map(|draft| {
            let (transport, family) = draft.transport.or(transport).unwrap_or((Transport::Udp, Family::Any));
            let port = draft.port.or(port).unwrap_or(DEFAULT_PORT);
            Some(Remote { host: draft.host?, port, transport, family })
        });
        named.collect()
    }

    fn wrapping(&mut self) -> Wrapping {
        let digest = self.digest.unwrap_or(Digest::Sha1);
        match (self.tls_auth.take(), self.tls_crypt.take(), self.tls_crypt_v2.take()) {
            (None, None, None) => Wrapping::Plain,
            (Some((material, direction)), None, None) => {
                Wrapping::Auth(material, digest, direction.or(self.direction).unwrap_or(Direction::Both))
            }
            (None, Some(material), None) => Wrapping::Crypt(material),
            (None, None, Some(material)) => Wrapping::CryptV2(material),
            _ => {
                self.refuse(0, "tls-crypt", "tls-auth and tls-crypt-v2 exclude each other: leave one of them");
                Wrapping::Plain
            }
        }
    }
}

const NO_MATERIAL: &str = "needs a file, or a block in the profile";

fn set(place: &mut Option<Material>, material: Option<Material>) -> Result<(), &'static str> {
    *place = Some(material.ok_or(NO_MATERIAL)?);
    Ok(())
}

const fn switch(place: &mut bool) -> Result<(), &'static str> {
    *place = true;
    Ok(())
}

const fn dns_reason(error: DnsError) -> &'static str {
    match error {
        DnsError::Value => "makes no sense",
        DnsError::TooMany => "is one more than is taken",
    }
}

/// `remote HOST [PORT [PROTO]]`
fn remote(line: &Line<'_>) -> Result<RemoteDraft, &'static str> {
    let host = line.first().filter(|host| is_host(host)).ok_or("needs a name or an address")?;
    let port = line.values.get(1).map(|port| port.parse().map_err(|_| "needs a port from 1 to 65535")).transpose()?;
    let transport = line.values.get(2).map(|word| transport(word).ok_or("needs `udp` or `tcp`")).transpose()?;
    Ok(RemoteDraft { line: line.number, host: Some(host.to_owned()), port, transport })
}

fn is_host(host: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'%');
    (1..=253).contains(&host.len()) && host.bytes().all(is_name)
}

fn transport(word: &str) -> Option<(Transport, Family)> {
    Some(match word {
        "udp" => (Transport::Udp, Family::Any),
        "udp4" => (Transport::Udp, Family::V4),
        "udp6" => (Transport::Udp, Family::V6),
        "tcp" | "tcp-client" => (Transport::Tcp, Family::Any),
        "tcp4" | "tcp4-client" => (Transport::Tcp, Family::V4),
        "tcp6" | "tcp6-client" => (Transport::Tcp, Family::V6),
        _ => return None,
    })
}

fn direction(word: &str) -> Result<Direction, &'static str> {
    match word {
        "0" => Ok(Direction::Normal),
        "1" => Ok(Direction::Inverse),
        _ => Err("needs 0 or 1 for the direction"),
    }
}

fn server_name(line: &Line<'_>) -> Result<ServerName, &'static str> {
    let name = line.first().filter(|name| !name.is_empty()).ok_or("needs a name")?.to_owned();
    match line.values.get(1) {
        None | Some(&"subject") => Ok(ServerName::Subject(name)),
        Some(&"name") => Ok(ServerName::Name(name)),
        Some(&"name-prefix") => Ok(ServerName::NamePrefix(name)),
        Some(_) => Err("needs `subject`, `name` or `name-prefix`"),
    }
}

/// `pull-filter ACTION TEXT`
fn filter(line: &Line<'_>) -> Result<Filter, &'static str> {
    let [action, prefix] = line.values else { return Err("needs an action and a text") };
    let action = match *action {
        "accept" => Action::Accept,
        "ignore" => Action::Ignore,
        "reject" => Action::Reject,
        _ => return Err("needs `accept`, `ignore` or `reject`"),
    };
    Ok(Filter { action, prefix: (*prefix).to_owned() })
}

/// One in the line, or one in each line of a block; with or without colons.
fn fingerprints(line: &Line<'_>) -> Result<Vec<[u8; 32]>, &'static str> {
    let texts: Vec<&str> = line.block.map_or_else(
        || line.first().into_iter().collect(),
        |block| block.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])).collect(),
    );
    let fingerprint = |text: &&str| {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.replace(':', "").as_bytes()).ok()?;
        <[u8; 32]>::try_from(bytes).ok()
    };
    let found: Option<Vec<_>> = texts.iter().take(MAX_REMOTES).map(fingerprint).collect();
    found.filter(|found| !found.is_empty()).ok_or("needs the SHA-256 of a certificate")
}

fn short(name: &str) -> String {
    name.chars().filter(|char| !char.is_control()).take(MAX_NAME).collect()
}
