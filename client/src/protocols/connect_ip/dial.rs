//! Reaches a gateway over QUIC, at whichever of its addresses answers first.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_net::quic;
use adit_net::tls::{self, OwnCertificate};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::explain::explain_unproven;
use super::{ConnectError, Credentials, GatewayAccess};
use crate::clock::{self, Validity};
use crate::gateway_addresses::Candidates;
use crate::obstacle::obstacle;
use crate::protocols::udp_overhead;
use crate::ways::{leads_nowhere, source_address};

/// How long an address is tried alone before the next one is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// How long an address may be silent before it is tried with the smallest datagrams, too.
const NARROW_AFTER: Duration = Duration::from_secs(1);
/// How long a handshake of usual size may come after one of the smallest, before the path counts as narrow.
const WIDER_WITHIN: Duration = Duration::from_millis(500);

/// What a client trusts that has joined.
const PROFILES_AUTHORITY: &str = "the certificate authority in the profile";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Requests, which pass every path.
    Requests,
    /// Packets, which need a path that takes those of 1280 bytes and what is around them.
    Packets,
}

/// A gateway, and how it is reached and recognised.
pub struct Endpoint<'a> {
    /// Host name or address; also the name its certificate must bear.
    pub host: &'a str,
    /// Port, for its name in a request.
    pub port: u16,
    /// Addresses to try, best first.
    pub addresses: Candidates,
    /// Mark of the outer socket (SO_MARK); `None` leaves it unmarked.
    pub mark: Option<u32>,
    /// Whom this client trusts, and what it shows.
    pub tls: Arc<rustls::ClientConfig>,
    /// What `tls` trusts, in words, as in "not of …".
    pub trusts: &'static str,
    /// A time that has passed whatever this host's clock says, if one is known.
    pub known_past: Option<SystemTime>,
}

/// An open QUIC connection and the endpoint it lives on.
pub(super) struct Dialled {
    pub(super) endpoint: quinn::Endpoint,
    pub(super) quic: quinn::Connection,
}

impl GatewayAccess {
    /// The gateway as it is dialled.
    pub(crate) fn endpoint(&self) -> Result<Endpoint<'_>, ConnectError> {
        let Self { host, port, addresses, mark, .. } = self;
        let known_past = clock::known_past(self.certificates());
        let (addresses, tls) = (addresses.clone(), self.tls()?);
        Ok(Endpoint { host, port: *port, addresses, mark: *mark, tls, trusts: PROFILES_AUTHORITY, known_past })
    }

    /// Says of a certificate that the gateway takes for out of date whether it is, or a clock is wrong.
    pub(super) fn explain_dates(&self, error: ConnectError) -> ConnectError {
        let Credentials::Certificate { chain_pem, .. } = &self.credentials else { return error };
        if !matches!(error, ConnectError::OutOfDate) {
            return error;
        }
        let disagreement =
            Validity::of(chain_pem).and_then(|validity| clock::disagreement(validity, SystemTime::now()));
        disagreement.map_or(error, ConnectError::Clock)
    }

    /// The certificates that this host was given when it joined, PEM.
    fn certificates(&self) -> impl Iterator<Item = &str> {
        let own = match &self.credentials {
            Credentials::Certificate { chain_pem, .. } => Some(chain_pem.as_str()),
            Credentials::Token(_) | Credentials::Login => None,
        };
        own.into_iter().chain([self.authority_pem.as_str()])
    }

    /// The TLS settings for this gateway and these credentials.
    pub(crate) fn tls(&self) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
        let authority = CertificateDer::from_pem_slice(self.authority_pem.as_bytes())
            .map_err(|error| unusable("the profile's authority certificate", &error))?;
        tls::client_config(&authority, self.own_certificate()?)
            .map_err(|error| unusable("the profile's certificate or key", &error))
    }

    /// The certificate that is shown to the gateway, if there is one.
    pub(in crate::protocols) fn own_certificate(&self) -> Result<Option<OwnCertificate>, ConnectError> {
        let Credentials::Certificate { chain_pem, key_pem } = &self.credentials else { return Ok(None) };
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable("the profile's certificate", &error))?;
        let key =
            PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| unusable("the profile's key", &error))?;
        Ok(Some((chain, key)))
    }
}

/// How each address is dialled.
struct Dialler {
    host: String,
    usual: quinn::ClientConfig,
    narrow: quinn::ClientConfig,
    mark: Option<u32>,
    trusts: &'static str,
    known_past: Option<SystemTime>,
    needs: Needs,
}

/// Tries the addresses, best first, until one answers as the gateway: each starts [`HEAD_START`] after the one before
/// it, or as soon as that has failed (RFC 8305), and those that become known meanwhile join in. All of it takes at most
/// `timeout`. The error is the most telling one.
pub(super) async fn dial(gateway: &Endpoint<'_>, needs: Needs, timeout: Duration) -> Result<Dialled, ConnectError> {
    let &Endpoint { host, mark, ref tls, trusts, known_past, .. } = gateway;
    let dialler = Arc::new(Dialler {
        host: host.to_owned(),
        usual: quic::client_config(Arc::clone(tls)).map_err(ConnectError::Local)?,
        narrow: quic::narrow_client_config(Arc::clone(tls)).map_err(ConnectError::Local)?,
        mark,
        trusts,
        known_past,
        needs,
    });
    race(host, &gateway.addresses, timeout, |address| {
        let dialler = Arc::clone(&dialler);
        async move { dialler.dial(address).await }
    })
    .await
}

/// Has `dial` try the addresses, best first, until one answers as [`dial`] says.
pub(in crate::protocols) async fn race<T, F>(
    host: &str,
    addresses: &Candidates,
    timeout: Duration,
    dial: impl Fn(SocketAddr) -> F,
) -> Result<T, ConnectError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ConnectError>> + Send + 'static,
{
    let mut addresses = addresses.clone();
    let deadline = Instant::now() + timeout;
    let mut worst = ConnectError::Unreachable(format!("{host} (no address known)"));
    let mut dialling = JoinSet::new();
    let mut next_start = Instant::now();
    let mut all_started = false;
    loop {
        if all_started && dialling.is_empty() {
            return Err(worst);
        }
        tokio::select! {
            biased;
            Some(joined) = dialling.join_next() => {
                let error = match joined {
                    Ok(Ok(dialled)) => return Ok(dialled),
                    Ok(Err(error)) => error,
                    Err(error) => ConnectError::Protocol(error.to_string()),
                };
                worst = more_telling(worst, error);
                next_start = Instant::now();
            }
            next = next_address(&mut addresses, next_start), if !all_started => match next {
                Some(address) => {
                    next_start = Instant::now() + HEAD_START;
                    dialling.spawn(dial(address));
                }
                None => all_started = true,
            },
            () = sleep_until(deadline) => {
                let addresses: Vec<String> = addresses.given().iter().map(ToString::to_string).collect();
                return Err(more_telling(worst, ConnectError::Unreachable(addresses.join(", "))));
            }
        }
    }
}

/// The next address to try, not before its time. Cancel-safe.
async fn next_address(addresses: &mut Candidates, not_before: Instant) -> Option<SocketAddr> {
    sleep_until(not_before).await;
    addresses.next().await
}

/// Which of two errors tells more; the later one of two that tell as much.
pub(crate) fn more_telling(earlier: ConnectError, later: ConnectError) -> ConnectError {
    if obstacle(&later).weight() >= obstacle(&earlier).weight() { later } else { earlier }
}

impl Dialler {
    /// Dials one address: with datagrams as a tunnel needs them, and after a silence with the smallest as well.
    async fn dial(&self, address: SocketAddr) -> Result<Dialled, ConnectError> {
        if source_address(address, self.mark).is_err_and(|error| leads_nowhere(&error)) {
            return Err(no_route(address));
        }
        let mut usual = pin!(self.dial_usual(address));
        let narrow = async {
            sleep(NARROW_AFTER).await;
            self.handshake(address, quic::narrow_client_endpoint, &self.narrow).await
        };
        let narrow = tokio::select! {
            biased;
            dialled = &mut usual => return dialled,
            Ok(dialled) = narrow => dialled,
        };
        match self.needs {
            Needs::Requests => Ok(narrow),
            // An answer of usual size may just be late. Meanwhile QUIC finds out what the path takes.
            Needs::Packets => tokio::time::timeout(WIDER_WITHIN, usual).await.unwrap_or_else(|_| {
                let carries = narrow.quic.stats().path.current_mtu + udp_overhead(address);
                Err(ConnectError::NarrowPath { address, carries })
            }),
        }
    }

    /// A handshake with datagrams as a tunnel needs them, and a second one if the gateway comes to listen meanwhile.
    async fn dial_usual(&self, address: SocketAddr) -> Result<Dialled, ConnectError> {
        let mut first = pin!(self.handshake(address, quic::client_endpoint, &self.usual));
        tokio::select! {
            biased;
            dialled = &mut first => return dialled,
            () = quic::came_up(address, self.mark) => {}
        }
        let second = self.handshake(address, quic::client_endpoint, &self.usual);
        tokio::select! {
            dialled = first => dialled,
            dialled = second => dialled,
        }
    }

    async fn handshake(
        &self,
        address: SocketAddr,
        open: fn(UdpSocket) -> io::Result<quinn::Endpoint>,
        config: &quinn::ClientConfig,
    ) -> Result<Dialled, ConnectError> {
        let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = quic::bind(SocketAddr::new(any, 0), self.mark).map_err(ConnectError::Local)?;
        let endpoint = open(socket).map_err(ConnectError::Local)?;
        let connecting = endpoint
            .connect_with(config.clone(), address, &self.host)
            .map_err(|error| ConnectError::Unreachable(format!("{address} ({error})")))?;
        let quic = connecting.await.map_err(|error| explain_unproven(&error, address, self.trusts, self.known_past))?;
        Ok(Dialled { endpoint, quic })
    }
}

pub(in crate::protocols) fn no_route(address: SocketAddr) -> ConnectError {
    ConnectError::NoRoute { address, family: if address.is_ipv4() { "IPv4" } else { "IPv6" } }
}

/// The error of something that the profile holds and that is of no use.
pub(in crate::protocols) fn unusable(what: &str, error: &dyn std::fmt::Display) -> ConnectError {
    ConnectError::Local(io::Error::new(io::ErrorKind::InvalidInput, format!("{what} cannot be used: {error}")))
}

#[cfg(test)]
pub(super) mod tests {
    use adit_net::testing::forgery::{Forger, Forgery};
    use adit_testing::namespace::in_namespace_async;

    use super::*;

    /// A gateway's endpoint on the loopback, and its authority.
    pub(crate) fn gateway() -> (quinn::Endpoint, CertificateDer<'static>) {
        gateway_on(quic::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).unwrap())
    }

    /// A gateway's endpoint on a socket, and its authority.
    pub(crate) fn gateway_on(socket: UdpSocket) -> (quinn::Endpoint, CertificateDer<'static>) {
        gateway_valid_in(socket, 2000..4000)
    }

    /// As [`gateway_on`], with a certificate that is valid in these years.
    fn gateway_valid_in(socket: UdpSocket, years: std::ops::Range<i32>) -> (quinn::Endpoint, CertificateDer<'static>) {
        let (tls, authority) = gateway_tls(years);
        (serve_on(socket, tls), authority)
    }

    /// What a gateway shows, with a certificate that is valid in these years, and its authority.
    fn gateway_tls(years: std::ops::Range<i32>) -> (Arc<rustls::ServerConfig>, CertificateDer<'static>) {
        let (identity, authority) = gateway_identity(years);
        (tls::server_config(identity, &authority).unwrap(), authority)
    }

    /// What a gateway shows over TCP, and its authority.
    pub(crate) fn listener_tls() -> (Arc<rustls::ServerConfig>, CertificateDer<'static>) {
        let (identity, authority) = gateway_identity(2000..4000);
        (tls::listener_config(identity, &authority, false).unwrap(), authority)
    }

    fn gateway_identity(years: std::ops::Range<i32>) -> (Arc<tls::ServerIdentity>, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let authority: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
        let issuer = rcgen::Issuer::new(params, key);
        let leaf_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["gw.example".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let leaf = params.signed_by(&leaf_key, &issuer);
        let leaf_key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
        let identity = tls::ServerIdentity::new(vec![leaf.unwrap().into(), authority.clone()], leaf_key).unwrap();
        (Arc::new(identity), authority)
    }

    fn serve_on(socket: UdpSocket, tls: Arc<rustls::ServerConfig>) -> quinn::Endpoint {
        let keys = quic::EndpointKeys { reset: [1; 32], token: [2; 32], connection_id: 3 };
        quic::server_endpoint(socket, tls, &keys).unwrap()
    }

    /// Serves handshakes while `dialling` goes on.
    pub(crate) async fn served<T>(gateways: &[&quinn::Endpoint], dialling: impl Future<Output = T>) -> T {
        let _serving: Vec<_> = gateways
            .iter()
            .map(|gateway| {
                let gateway = (*gateway).clone();
                adit_program::task::spawn(async move {
                    let mut accepted = Vec::new();
                    while let Some(incoming) = gateway.accept().await {
                        accepted.push(incoming.await);
                    }
                })
            })
            .collect();
        dialling.await
    }

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// The gateway of these tests, at some addresses.
    pub(crate) fn endpoint(addresses: &[SocketAddr], tls: Arc<rustls::ClientConfig>) -> Endpoint<'static> {
        let addresses = addresses.to_vec().into();
        let trusts = PROFILES_AUTHORITY;
        Endpoint { host: "gw.example", port: 443, addresses, mark: None, tls, trusts, known_past: None }
    }

    #[tokio::test]
    async fn gateway_answers_behind_a_silent_address_and_a_strangers() {
        let ((right, authority), (stranger, _)) = (gateway(), gateway());
        let silent = quic::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).unwrap();
        let address = right.local_addr().unwrap();
        let addresses = [silent.local_addr().unwrap(), stranger.local_addr().unwrap(), address];
        let tls = tls::client_config(&authority, None).unwrap();
        let (began, timeout) = (Instant::now(), TIMEOUT * 6);
        let dialled = served(&[&right, &stranger], dial(&endpoint(&addresses, tls), Needs::Packets, timeout)).await;
        assert_eq!(dialled.unwrap_or_else(|error| panic!("{error}")).quic.remote_address(), address);
        assert!(began.elapsed() < timeout / 2, "the silent address held it up");
    }

    #[tokio::test]
    async fn stranger_is_told_apart_from_silence_and_in_words() {
        let ((stranger, _), (_, authority)) = (gateway(), gateway());
        let silent = quic::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).unwrap();
        let addresses = [stranger.local_addr().unwrap(), silent.local_addr().unwrap()];
        let profiles = tls::client_config(&authority, None).unwrap();
        let invites = tls::pinned_client_config([0; 32]).unwrap();
        for (tls, words) in
            [(profiles, "authority in the profile"), (invites, "does not match the fingerprint that was given")]
        {
            let timeout = Duration::from_secs(2);
            let refused = served(&[&stranger], dial(&endpoint(&addresses, tls), Needs::Packets, timeout)).await.err();
            let Some(ConnectError::IdentityMismatch(reason)) = refused else { panic!("{refused:?}") };
            assert!(reason.contains(words) && !reason.contains("error:"), "{reason}");
        }
    }

    #[tokio::test]
    async fn gateway_that_comes_up_while_it_is_dialled_is_neither_missed_nor_taken_for_a_narrow_path() {
        let socket = quic::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).unwrap();
        let address = [socket.local_addr().unwrap()];
        let (tls, authority) = gateway_tls(2000..4000);
        let coming_up = async {
            // Between the repetitions of both handshakes, the usual and the narrow one.
            sleep(Duration::from_millis(1200)).await;
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut [0; 2048]).is_ok() {}
            served(&[&serve_on(socket, tls)], std::future::pending::<()>()).await;
        };
        let endpoint = endpoint(&address, tls::client_config(&authority, None).unwrap());
        let dialled = tokio::select! {
            dialled = dial(&endpoint, Needs::Packets, TIMEOUT) => dialled,
            () = coming_up => unreachable!("it serves for ever"),
        };
        dialled.unwrap_or_else(|error| panic!("{error}"));
    }

    #[tokio::test]
    async fn forged_packets_prove_nothing_and_their_text_is_harmless() {
        let (forger, (_, authority)) = (Arc::new(Forger::default()), gateway());
        for forgery in Forgery::ALL {
            let stranger = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = [stranger.local_addr().unwrap()];
            let forger = Arc::clone(&forger);
            let _answering = adit_program::task::spawn(async move {
                let mut datagram = [0; 2048];
                loop {
                    let (length, client) = stranger.recv_from(&mut datagram).await.unwrap();
                    if let Some(forged) = forger.answer(&datagram[..length], forgery) {
                        stranger.send_to(&forged, client).await.unwrap();
                    }
                }
            });
            let error =
                dial(&endpoint(&address, tls::client_config(&authority, None).unwrap()), Needs::Packets, TIMEOUT)
                    .await
                    .err();
            let Some(ConnectError::BrokenOff(reason)) = error else { panic!("{forgery:?}: {error:?}") };
            assert!(!reason.contains(char::is_control) && !reason.contains('\u{202e}'), "{reason:?}");
        }
    }

    #[tokio::test]
    async fn dates_that_do_not_fit_are_told_as_a_matter_of_clocks() {
        for (years, words) in [(2000..2001, "has expired"), (3000..3001, "this host's clock is wrong")] {
            let socket = quic::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).unwrap();
            let (gateway, authority) = gateway_valid_in(socket, years);
            let addresses = [gateway.local_addr().unwrap()];
            let mut endpoint = endpoint(&addresses, tls::client_config(&authority, None).unwrap());
            endpoint.known_past = Some(SystemTime::now() + Duration::from_secs(1_000_000));
            let error = served(&[&gateway], dial(&endpoint, Needs::Packets, TIMEOUT)).await.err();
            let Some(ConnectError::Clock(reason)) = error else { panic!("{error:?}") };
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn network_without_an_address_family_is_told_as_such() {
        in_namespace_async(|| async {
            let tls = tls::pinned_client_config([0; 32]).unwrap();
            for (address, family) in [("192.0.2.1:443", "IPv4"), ("[2001:db8::1]:443", "IPv6")] {
                let error =
                    dial(&endpoint(&[address.parse().unwrap()], tls.clone()), Needs::Packets, TIMEOUT).await.err();
                let told = error.unwrap().to_string();
                assert!(told.contains(&format!("no {family}")) && told.contains(address), "{told}");
            }
        });
    }

    #[tokio::test]
    async fn without_an_address_nothing_is_reachable() {
        let tls = tls::pinned_client_config([0; 32]).unwrap();
        let error = dial(&endpoint(&[], tls), Needs::Packets, Duration::from_secs(1)).await.err();
        assert!(matches!(error, Some(ConnectError::Unreachable(_))), "{error:?}");
    }
}
