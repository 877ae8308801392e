//! A gateway that is asked for something by single requests: to log a user in, to enrol a device.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_net::tls;
use adit_program::exit::{Exit, Failure};
use adit_proto::invite::{PIN_LEN, Place};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use tokio::time::timeout;

use crate::captive_portal::{self, CaptiveProbe, Look};
use crate::clock;
use crate::gateway_addresses::{self, Lookups};
use crate::obstacle::{self, join_failure};
use crate::profile::{GatewayProtocol, Profile};
use crate::protocols::anyconnect;
use crate::protocols::connect_ip::{self, Endpoint, PostReply};
use crate::protocols::{Candidates, ConnectError, authority};
use crate::state::Obstacle;

/// How long a gateway may take to answer a request for which it has to ask nobody else.
pub(crate) const PROMPTLY: Duration = Duration::from_secs(10);
/// How long a gateway is waited for that answers on TCP and may do so on UDP.
const QUIC_WITHIN: Duration = Duration::from_secs(5);
/// How long a gateway is tried again after somebody who is not the gateway has answered.
const STRANGER_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before the gateway is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// How long the gateway's name may take to resolve: the C library asks the second of two resolvers after 5 s, and gives
/// up a question after 10 to 20.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(20);

/// By what a gateway is known that no device of this host has joined yet.
#[derive(Clone)]
pub enum Trust {
    /// The SHA-256 of the SPKI of its certificate authority.
    Pin([u8; 32]),
    /// Certificate authorities that may vouch for its name.
    Roots {
        /// The authorities.
        roots: Arc<rustls::RootCertStore>,
        /// What they are called in messages, as in "not of …".
        called: &'static str,
    },
}

/// A gateway, how it is reached, and by what it is known.
pub struct GatewayContact {
    place: Place,
    lookups: Lookups,
    addresses: Candidates,
    tls: Arc<rustls::ClientConfig>,
    trusts: &'static str,
    known_past: Option<SystemTime>,
    mark: Option<u32>,
    captive_probe: CaptiveProbe,
}

impl GatewayContact {
    /// A gateway at these places, the first of which its certificate bears; waits for the first address.
    ///
    /// # Errors
    /// If none of the names can be resolved, or TLS does not take what the gateway is known by.
    pub async fn find(places: Vec<Place>, trust: &Trust) -> Result<Self, Failure> {
        let Some(place) = places.first().cloned() else { return Err(local("no place of the gateway is known")) };
        let mut lookups = Lookups::new(places, None);
        let addresses = lookups.candidates(&[], true);
        let (tls, trusts) = match trust {
            Trust::Pin(pin) => (tls::pinned_client_config(*pin), "the certificate authority of that fingerprint"),
            Trust::Roots { roots, called } => (tls::rooted_client_config((**roots).clone()), *called),
        };
        let tls = tls.map_err(|error| local(&error.to_string()))?;
        let known_past = clock::known_past(std::iter::empty());
        let captive_probe = CaptiveProbe::default();
        let mut found = Self { place, lookups, addresses, tls, trusts, known_past, mark: None, captive_probe };
        found.resolve().await?;
        Ok(found)
    }

    /// The gateway that a profile is for, which is shown the device's certificate if there is one. `mark` is that of
    /// the outer socket.
    ///
    /// # Errors
    /// As [`Self::find`], and if the profile's certificates or key cannot be used.
    pub async fn of(profile: &Profile, mark: Option<u32>) -> Result<Self, Failure> {
        let place = Place { host: profile.host.clone(), port: profile.port };
        let mut lookups = Lookups::new(profile.places(), mark);
        let addresses = lookups.candidates(&profile.addresses, true);
        let target = profile.target(Candidates::default(), mark);
        let endpoint = match profile.protocol {
            GatewayProtocol::ConnectIp => target.endpoint(),
            GatewayProtocol::AnyConnect => anyconnect::endpoint(&target),
        };
        let endpoint = endpoint.map_err(|error| local(&error.to_string()))?;
        let (tls, trusts, known_past) = (endpoint.tls, endpoint.trusts, endpoint.known_past);
        let captive_probe = profile.captive_probe.clone();
        let mut found = Self { place, lookups, addresses, tls, trusts, known_past, mark, captive_probe };
        found.resolve().await?;
        Ok(found)
    }

    async fn resolve(&mut self) -> Result<(), Failure> {
        if timeout(RESOLVE_TIMEOUT, self.addresses.is_ready()).await.unwrap_or_default() {
            return Ok(());
        }
        let next = "check the gateway's name and this host's network";
        let unresolved = || Failure::new(Exit::Unreachable, self.name(), "its name cannot be resolved", next);
        Err(self.at_portal().await.unwrap_or_else(unresolved))
    }

    /// Host and port as in a URL.
    #[must_use]
    pub fn name(&self) -> String {
        authority(&self.place.host, self.place.port)
    }

    /// The gateway as its certificate and requests name it.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// As [`Self::place`], and where else the gateway is reached.
    pub(crate) fn places(&self) -> (&Place, &[Place]) {
        (&self.place, self.lookups.others())
    }

    /// The gateway as it is reached with this TLS, which trusts what these words say.
    pub(crate) fn endpoint(&self, tls: Arc<rustls::ClientConfig>, trusts: &'static str) -> Endpoint<'_> {
        Endpoint {
            host: &self.place.host,
            port: self.place.port,
            addresses: self.addresses.clone(),
            mark: self.mark,
            tls,
            trusts,
            known_past: self.known_past,
        }
    }

    /// Addresses to remember: the one that answered, then those of its names.
    pub(crate) fn addresses(&self, answered: SocketAddr) -> Vec<SocketAddr> {
        gateway_addresses::remember([self.lookups.original(answered)].into_iter().chain(self.lookups.resolved()), &[])
    }

    /// Posts until the gateway itself answers, or `within` is over. A stranger's answer shortens the time, so that
    /// whoever waits learns of it, but does not end it.
    ///
    /// # Errors
    /// Why there is no answer; the most telling of several reasons.
    pub async fn post(&mut self, path: &str, body: &[u8], within: Duration) -> Result<PostReply, ConnectError> {
        let ask = async |endpoint: &Endpoint<'_>, timeout: Duration| {
            connect_ip::post(endpoint, path, body, timeout).await.map(|reply| {
                let remote = reply.remote;
                (reply, remote)
            })
        };
        self.reach(within, ask).await
    }

    /// Whether the gateway speaks CONNECT-IP as Adit's do. It is asked over TCP, so this is for contacts of AnyConnect
    /// profiles, whose TLS is for that.
    ///
    /// # Errors
    /// A [`Failure`] with its exit code: another gateway 4, no answer 5.
    pub async fn speaks_connect_ip(&mut self) -> Result<bool, Failure> {
        let asked = self.reach(PROMPTLY, async |endpoint: &Endpoint<'_>, timeout: Duration| {
            connect_ip::speaks_connect_ip(endpoint, timeout).await
        });
        match asked.await {
            Ok(speaks) => Ok(speaks),
            Err(error) => Err(self.failure(&error).await),
        }
    }

    /// The failure of whoever has asked this gateway in vain; a captive portal tells more than a gateway that was not
    /// reached.
    pub(crate) async fn failure(&self, error: &ConnectError) -> Failure {
        self.held_up(error).await.unwrap_or_else(|| join_failure(&self.name(), error))
    }

    /// The failure of whoever a captive portal keeps from this gateway. It is looked for where nothing has proven that
    /// the gateway itself answered.
    pub(crate) async fn held_up(&self, error: &ConnectError) -> Option<Failure> {
        if error.is_unproven() { self.at_portal().await } else { None }
    }

    async fn at_portal(&self) -> Option<Failure> {
        let (first, others) = self.places();
        let look = Look {
            probe: self.captive_probe.clone(),
            hosts: std::iter::once(first).chain(others).map(|place| place.host.clone()).collect(),
            addresses: self.addresses.known(),
            own_way: None,
            mark: self.mark,
        };
        let page = look.portal().await?;
        Some(obstacle::failure(&self.name(), Obstacle::CaptivePortal, &captive_portal::in_words(page)))
    }

    /// Whether the gateway answers by QUIC, in time for somebody who waits.
    pub async fn answers_by_quic(&mut self) -> bool {
        let ask = async |endpoint: &Endpoint<'_>, timeout: Duration| connect_ip::answers(endpoint, timeout).await;
        self.reach(QUIC_WITHIN, ask).await.is_ok()
    }

    /// Has `ask` ask the gateway, as [`Self::post`] says; it returns the answer and the address that answered.
    pub(crate) async fn reach<T>(
        &mut self,
        within: Duration,
        ask: impl AsyncFn(&Endpoint<'_>, Duration) -> Result<(T, SocketAddr), ConnectError>,
    ) -> Result<T, ConnectError> {
        let mut deadline = Instant::now() + within;
        let mut worst: Option<ConnectError> = None;
        loop {
            let endpoint = self.endpoint(Arc::clone(&self.tls), self.trusts);
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match ask(&endpoint, left).await {
                Ok((answer, remote)) => {
                    self.prefer(remote);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            // What came after the handshake is the gateway's own word, and the request may have reached it.
            if !error.is_unproven() {
                return Err(error);
            }
            let error = match worst.take() {
                Some(earlier) => connect_ip::more_telling(earlier, error),
                None => {
                    deadline = deadline.min(Instant::now() + STRANGER_PATIENCE);
                    error
                }
            };
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(error);
            }
            worst = Some(error);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Tries the address that has answered before all others from now on.
    fn prefer(&mut self, answered: SocketAddr) {
        self.addresses = self.lookups.candidates(&[answered], false);
    }
}

fn local(reason: &str) -> Failure {
    Failure::new(Exit::Other, "the gateway's identity", reason, "")
}

/// A fingerprint, 64 hexadecimal digits or 43 characters of base64url.
pub(crate) fn parse_pin(text: &str) -> Result<[u8; PIN_LEN], String> {
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    let hex = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let bytes = hex.or_else(|| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
    let pin = bytes.and_then(|bytes| bytes.try_into().ok());
    pin.ok_or_else(|| "a fingerprint is 64 hexadecimal digits, or 43 characters of base64url".to_owned())
}

#[cfg(test)]
mod tests {
    use adit_testing::namespace::{in_namespace_async, ip};

    use super::*;
    use crate::captive_portal::tests::{PORTAL, answer, leads_to};

    #[test]
    fn fingerprint_is_taken_in_either_form_and_nothing_shorter() {
        let (hex, base64) = ("ab".repeat(32), BASE64URL_NOPAD.encode(&[0xab; 32]));
        for text in [hex.clone(), hex.to_uppercase(), format!("sha256:{hex}"), base64] {
            assert_eq!(parse_pin(&text), Ok([0xab; 32]), "{text}");
        }
        for text in ["", "abcd", &hex[1..], "nonsense"] {
            assert!(parse_pin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn gateway_that_is_not_reached_in_a_network_with_a_portal_fails_by_that() {
        in_namespace_async(|| async {
            ip("link set lo up");
            ip("address add 203.0.113.80/32 dev lo");
            let place = Place { host: "192.0.2.1".to_owned(), port: 443 };
            let contact = GatewayContact::find(vec![place], &Trust::Pin([0; PIN_LEN])).await.unwrap();
            let silent = ConnectError::Unreachable("192.0.2.1:443".to_owned());
            let plain = contact.failure(&silent).await;
            assert!(plain.exit == Exit::Unreachable && !plain.reason.contains("portal"), "{plain}");
            let _portal = answer("203.0.113.80:80", leads_to(PORTAL)).await;
            let stranger = ConnectError::IdentityMismatch("another certificate".to_owned());
            for error in [&silent, &stranger] {
                let failure = contact.failure(error).await;
                assert!(failure.exit == Exit::Unreachable && failure.reason.contains(PORTAL), "{failure}");
                assert!(failure.next.contains("open that page"), "{failure}");
            }
            let refused = contact.failure(&ConnectError::Refused("revoked".to_owned())).await;
            assert!(refused.exit == Exit::AuthRefused && refused.reason.ends_with("revoked"), "it said so: {refused}");
            let unknown = Place { host: "gw.invalid".to_owned(), port: 443 };
            let unresolved = GatewayContact::find(vec![unknown], &Trust::Pin([0; PIN_LEN])).await.err().unwrap();
            assert!(unresolved.reason.contains(PORTAL), "{unresolved}");
        });
    }
}
