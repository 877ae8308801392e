//! `netcheck`: what of a gateway answers from where this host is now, and what does not.
//!
//! It asks as a client does, by sockets with the client's mark where this user may set it, so a tunnel that runs and a
//! host that is closed do not stand in the way. It shows no credentials: who answers proves itself, and we do not.

mod names;
mod path;
mod report;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_net::carrier::stream;
use adit_net::{quic, tls};
use adit_program::exit::{Exit, Failure};
use adit_program::output;
use adit_program::rights::Capability;
use adit_proto::captive_portal::PageAddress;
use adit_proto::invite::Place;
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{ClientFiles, NameArgs, block, status};
use crate::captive_portal::Look;
use crate::gateway_addresses;
use crate::own_question::LocalResolvers;
use crate::profile::{GatewayProtocol, Profile};
use crate::protocols::connect_ip::{self, Endpoint};
use crate::protocols::{Candidates, ConnectError, Credentials, GatewayAccess, anyconnect};
use crate::run::Status;
use crate::state::State;
use crate::ways::{leads_nowhere, link_with};
use path::{Measured, NotMeasured, UdpPath};
use report::{AddressReport, Answer, NameReport, Outcome, Report, SessionReport};

/// How long the addresses are, which are asked side by side.
const ADDRESSES: Duration = Duration::from_secs(6);

#[derive(Debug, Args)]
pub(super) struct NetcheckArgs {
    #[command(flatten)]
    profile: NameArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Asks, and prints what was found. The failure of a gateway that does not answer comes after that.
pub(super) async fn netcheck(files: &ClientFiles, args: &NetcheckArgs) -> Result<(), Failure> {
    let name = files.choose(&args.profile)?;
    let profile = files.store.load(&name)?;
    let mut report = Report { name: name.to_string(), gateway: profile.gateway(), ..Report::default() };
    let mark = mark(&profile, &mut report);
    let tunnel = match status::ask(files, &name).await {
        Ok(running) => running,
        Err(failure) => {
            report.notes.push(format!("how the running client stands is not known: {}", failure.reason));
            None
        }
    };
    if mark.is_none() && block::is_closed(&name) {
        report.notes.push("this host is closed: only what bears the client's mark gets out".to_owned());
    }
    let gateway = Arc::new(Gateway::new(&profile, mark)?);
    let found = look(&gateway, &profile, tunnel.as_ref()).await;
    (report.names, report.addresses) = (found.names, found.addresses);
    // Where the gateway is reached, no portal is in its way.
    if !report.is_reachable() {
        let told = || tunnel.as_ref().and_then(|status| status.portal.clone());
        report.portal = found.portal.map(|page| page.to_string()).or_else(told);
    }
    report.session = tunnel.map(|status| session(status, profile.esp.settings().is_some()));
    report.conclude(profile.port);
    if args.json {
        output::json(&report);
    } else {
        output::raw(&report.describe());
    }
    report.failure().map_or(Ok(()), Err)
}

/// The mark of the client's datagrams, if this user may set it.
fn mark(profile: &Profile, report: &mut Report) -> Option<u32> {
    let mark = profile.mark.value;
    match quic::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Some(mark)) {
        Ok(_) => report.marked = true,
        Err(error) => report.notes.push(format!(
            "the client's mark cannot be set ({error}), so this is the way that other programs take; {}",
            Capability::NetAdmin.next_step()
        )),
    }
    report.marked.then_some(mark)
}

fn session(status: Status, may_use_esp: bool) -> SessionReport {
    let stands = status.state == State::Connected.label();
    let esp = (stands && may_use_esp).then(|| status.carrier.as_deref() == Some("esp"));
    let Status { state, since_seconds, reason, carrier, carrier_seconds, remote, rtt_ms, .. } = status;
    SessionReport { state, since_seconds, reason, carrier, carrier_seconds, remote, rtt_ms, esp }
}

/// What was found of a gateway, and of a network that may be in its way.
struct Found {
    names: Vec<NameReport>,
    addresses: Vec<AddressReport>,
    portal: Option<PageAddress>,
}

/// Asks for the gateway's names, asks all addresses that are known or found, and looks for a captive portal meanwhile.
async fn look(gateway: &Arc<Gateway>, profile: &Profile, tunnel: Option<&Status>) -> Found {
    let places = profile.places();
    let (named, literal): (Vec<&Place>, Vec<&Place>) =
        places.iter().partition(|place| place.host.parse::<IpAddr>().is_err());
    let literals = literal.iter().filter_map(|place| Some(SocketAddr::new(place.host.parse().ok()?, place.port)));
    let known = gateway_addresses::remember(literals, &profile.addresses);
    let mut asked = JoinSet::new();
    let begin = |asked: &mut JoinSet<AddressReport>, address| {
        let gateway = Arc::clone(gateway);
        asked.spawn(async move { gateway.ask(address).await });
    };
    known.iter().for_each(|address| begin(&mut asked, *address));
    // What is found is asked beside it.
    let mut resolvers = LocalResolvers::default();
    resolvers.refresh(tunnel.map_or(&[][..], |tunnel| tunnel.dns.as_slice()));
    let own_way = gateway.mark.map(|mark| (resolvers, mark));
    let (names, found) = names::ask(&named, own_way.as_ref()).await;
    let mut all = gateway_addresses::remember(found, &[]);
    all.iter().filter(|address| !known.contains(address)).for_each(|address| begin(&mut asked, *address));
    all.extend(known);
    // The portal's own names are asked for as a client does: past a closed host, or a tunnel that takes the resolver.
    let is_shut_in = block::is_closed(&profile.name) || tunnel.is_some_and(|tunnel| !tunnel.dns.is_empty());
    let look = Look {
        probe: profile.captive_probe.clone(),
        hosts: places.iter().map(|place| place.host.clone()).collect(),
        addresses: gateway_addresses::remember(all.iter().copied(), &[]),
        own_way: own_way.filter(|_| is_shut_in),
        mark: gateway.mark,
    };
    let (portal, mut addresses) = tokio::join!(look.portal(), asked.join_all());
    addresses.sort_by_key(|report| all.iter().position(|address| *address == report.address));
    Found { names, addresses, portal }
}

/// The gateway as it is asked.
struct Gateway {
    host: String,
    port: u16,
    protocol: GatewayProtocol,
    mark: Option<u32>,
    tls: Arc<rustls::ClientConfig>,
    trusts: &'static str,
    known_past: Option<SystemTime>,
}

impl Gateway {
    fn new(profile: &Profile, mark: Option<u32>) -> Result<Self, Failure> {
        let access = GatewayAccess { credentials: Credentials::Login, ..profile.target(Candidates::default(), mark) };
        let endpoint = match profile.protocol {
            GatewayProtocol::ConnectIp => access.endpoint(),
            GatewayProtocol::AnyConnect => anyconnect::endpoint(&access),
        };
        let unusable = |error: ConnectError| {
            Failure::new(Exit::Usage, format!("profile {}", profile.name), error.to_string(), "mend it, or join again")
        };
        let Endpoint { tls, trusts, known_past, .. } = endpoint.map_err(unusable)?;
        let (host, port, protocol) = (profile.host.clone(), profile.port, profile.protocol);
        Ok(Self { host, port, protocol, mark, tls, trusts, known_past })
    }

    /// The gateway at one address alone.
    fn endpoint(&self, address: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Endpoint<'_> {
        let Self { host, port, mark, trusts, known_past, .. } = self;
        let addresses = vec![address].into();
        Endpoint { host, port: *port, addresses, mark: *mark, tls, trusts, known_past: *known_past }
    }

    async fn ask(&self, address: SocketAddr) -> AddressReport {
        let path = UdpPath::open(address, self.mark);
        let source = path.as_ref().ok().and_then(UdpPath::source);
        let link = source.and_then(link_with);
        let nat = source.filter(|source| is_private(*source) && !is_private(address.ip())).map(|_| true);
        let report =
            |quic, tls, path_mtu| AddressReport { address, source, link: link.clone(), nat, quic, tls, path_mtu };
        let path = match path {
            Ok(path) => path,
            Err(error) => {
                let answer = refused(&error);
                return report(answer.clone(), answer, None);
            }
        };
        if self.mark.is_none()
            && let Some(link) = link.as_deref().filter(|link| is_tunnel(link))
        {
            let detail = format!("the way there leads through the tunnel {link}; as root, it can be passed by");
            let answer = Answer::with(Outcome::NotAsked, detail);
            return report(answer.clone(), answer, None);
        }
        let ((quic, path_mtu), tls) = tokio::join!(self.ask_by_udp(&path, address), self.ask_by_tcp(address));
        report(quic, tls, path_mtu)
    }

    async fn ask_by_udp(&self, path: &UdpPath, address: SocketAddr) -> (Answer, Option<u16>) {
        if self.protocol == GatewayProtocol::AnyConnect {
            return (Answer::with(Outcome::NotAsked, "gateways of this kind have no QUIC"), None);
        }
        let endpoint = self.endpoint(address, Arc::clone(&self.tls));
        let shaking = connect_ip::answers(&endpoint, ADDRESSES);
        let (shaken, measured) = tokio::join!(shaking, path.measure(Instant::now() + ADDRESSES));
        let answer = match (shaken, &measured) {
            (Ok((rtt, _)), Ok(measured)) => Answer::answers(rtt.min(measured.rtt)),
            (Ok((rtt, _)), Err(_)) => Answer::answers(rtt),
            (Err(_), Err(NotMeasured::Refused(error))) => refused(error),
            (Err(error), _) => unanswered(&error),
        };
        // A stranger's path is no way to the gateway.
        let mtu = measured.ok().filter(|_| answer.is_answered()).map(|Measured { mtu, .. }| mtu);
        (answer, mtu)
    }

    async fn ask_by_tcp(&self, address: SocketAddr) -> Answer {
        let asking = async {
            let began = Instant::now();
            let socket = match stream::open(address, self.mark).await {
                Ok(socket) => socket,
                Err(error) => return refused(&error),
            };
            let rtt = began.elapsed();
            let tls = match self.protocol {
                GatewayProtocol::ConnectIp => tls::over_tcp(&self.tls),
                GatewayProtocol::AnyConnect => Arc::clone(&self.tls),
            };
            match connect_ip::answers_by_tls(&self.endpoint(address, tls), socket, address).await {
                Ok(()) => Answer::answers(rtt),
                Err(error) => unanswered(&error),
            }
        };
        timeout(ADDRESSES, asking).await.unwrap_or_else(|_elapsed| Answer::plain(Outcome::Silent))
    }
}

/// What the system's refusal to reach an address means.
fn refused(error: &io::Error) -> Answer {
    if leads_nowhere(error) {
        return Answer::plain(Outcome::NoRoute);
    }
    let kind = error.kind();
    if kind == io::ErrorKind::ConnectionRefused {
        Answer::plain(Outcome::Refused)
    } else if kind == io::ErrorKind::PermissionDenied {
        Answer::plain(Outcome::Firewall)
    } else if kind == io::ErrorKind::TimedOut {
        Answer::plain(Outcome::Silent)
    } else {
        Answer::with(Outcome::Failed, error)
    }
}

/// What an error of a handshake means.
fn unanswered(error: &ConnectError) -> Answer {
    match error {
        ConnectError::Unreachable(_) => Answer::plain(Outcome::Silent),
        ConnectError::NoRoute { .. } => Answer::plain(Outcome::NoRoute),
        ConnectError::Firewall(_) => Answer::plain(Outcome::Firewall),
        ConnectError::IdentityMismatch(_) => Answer::with(Outcome::Stranger, error),
        ConnectError::Clock(_)
        | ConnectError::BrokenOff(_)
        | ConnectError::Refused(_)
        | ConnectError::LoginNeeded(_)
        | ConnectError::OutOfDate
        | ConnectError::NarrowPath { .. }
        | ConnectError::Protocol(_)
        | ConnectError::Local(_)
        | ConnectError::Source(_)
        | ConnectError::Restarts(_)
        | ConnectError::Closed(_) => Answer::with(Outcome::Failed, error),
    }
}

/// Whether an IPv4 address is one that NATs translate (RFC 1918, RFC 6598).
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(_) => false,
    }
}

/// Whether a link is a TUN device, such as that of a client.
fn is_tunnel(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).join("tun_flags").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_those_that_nats_translate() {
        for (address, expected) in [
            ("10.0.0.1", true),
            ("172.31.0.1", true),
            ("192.168.1.7", true),
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("100.128.0.1", false),
            ("192.0.2.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_private(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn refusals_of_the_system_are_told_apart() {
        let outcome = |kind: io::ErrorKind| refused(&kind.into()).outcome;
        assert_eq!(outcome(io::ErrorKind::ConnectionRefused), Outcome::Refused);
        assert_eq!(outcome(io::ErrorKind::PermissionDenied), Outcome::Firewall);
        assert_eq!(outcome(io::ErrorKind::TimedOut), Outcome::Silent);
        assert_eq!(outcome(io::ErrorKind::AddrInUse), Outcome::Failed);
        assert_eq!(refused(&io::Error::from_raw_os_error(101)).outcome, Outcome::NoRoute, "ENETUNREACH");
    }
}
