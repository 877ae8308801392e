//! Renews the device certificate at two thirds of its life.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_program::foreign_text::printable;
use adit_proto::enrollment::{RENEW_PATH, Refusal, RenewRequest, RenewResponse};
use rcgen::KeyPair;

use crate::clock::Validity;
use crate::device_key;
use crate::profile::{GatewayProtocol, Identity, Profile, ProfileError, ProfileStore};
use crate::protocols::ConnectError;
use crate::protocols::connect_ip;

/// Longest time between two looks at the certificate.
const CHECK_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest time between two attempts to renew.
pub(super) const SHORTEST_RETRY: Duration = Duration::from_secs(5);
/// How long the exchange with the gateway may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a certificate was not renewed. The old one stays in use; the next check tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewalError {
    #[error("the profile holds no certificate")]
    NoCertificate,
    #[error("the profile's key cannot be used")]
    Key(#[source] rcgen::Error),
    #[error("the request cannot be written")]
    Encode(#[source] serde_json::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the gateway refused: {0}")]
    Refused(String),
    #[error("the gateway's answer cannot be read")]
    Answer,
    #[error("the new certificate is not for this device's key")]
    ForeignKey,
}

/// When to renew a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RenewalPlan {
    /// Now; look again after this time, in case it fails.
    Renew(Duration),
    /// Not yet; look again after this time.
    Wait(Duration),
}

impl RenewalPlan {
    /// Time until the next look.
    pub(super) fn wait(&self) -> Duration {
        match self {
            Self::Renew(wait) | Self::Wait(wait) => *wait,
        }
    }
}

/// When to renew the certificate of a profile; `None` if there is none, or none that its gateway has made for it.
pub(super) fn plan_for(profile: &Profile, now: SystemTime) -> Option<RenewalPlan> {
    match (&profile.identity, profile.protocol) {
        (Identity::Certificate { chain_pem, .. }, GatewayProtocol::ConnectIp) => Some(plan(chain_pem, now)),
        (Identity::Certificate { .. }, GatewayProtocol::AnyConnect) | (Identity::Token(_) | Identity::Login, _) => None,
    }
}

/// Decides by the dates in a certificate: renewal is due after two thirds of its life.
pub(super) fn plan(chain_pem: &str, now: SystemTime) -> RenewalPlan {
    let Some(Validity { begins, ends }) = Validity::of(chain_pem) else { return RenewalPlan::Wait(CHECK_EVERY) };
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let [now, begins, ends] = [now, begins, ends].map(seconds);
    let life = ends.saturating_sub(begins);
    let due = begins.saturating_add(life / 3 * 2);
    // One that is not valid yet was made while a clock was wrong, and may not be accepted everywhere.
    if now >= due || now < begins {
        // A certificate dated back against wrong clocks can be due when it is new, so what is left counts too.
        let wait = (life / 12).min(ends.saturating_sub(now) / 3);
        RenewalPlan::Renew(Duration::from_secs(wait).clamp(SHORTEST_RETRY, CHECK_EVERY))
    } else {
        RenewalPlan::Wait(Duration::from_secs(due - now).min(CHECK_EVERY))
    }
}

/// Asks the gateway for a fresh certificate for the same key; returns the certificate, PEM.
pub(super) async fn renew(
    profile: Profile,
    addresses: Vec<SocketAddr>,
    mark: Option<u32>,
) -> Result<String, RenewalError> {
    let Identity::Certificate { key_pem, .. } = &profile.identity else { return Err(RenewalError::NoCertificate) };
    let key = KeyPair::from_pem(key_pem).map_err(RenewalError::Key)?;
    let csr = device_key::certificate_request(&key).map_err(RenewalError::Key)?;
    let body = serde_json::to_vec(&RenewRequest { csr }).map_err(RenewalError::Encode)?;
    let target = profile.target(addresses.into(), mark);
    let gateway = target.endpoint()?;
    let answer = connect_ip::post(&gateway, RENEW_PATH, &body, TIMEOUT).await?;
    if !(200..300).contains(&answer.status) {
        let refusal = serde_json::from_slice::<Refusal>(&answer.body);
        let reason =
            refusal.map_or_else(|_| format!("status {}", answer.status), |refusal| printable(&refusal.message));
        return Err(RenewalError::Refused(reason));
    }
    let response: RenewResponse = serde_json::from_slice(&answer.body).map_err(|_| RenewalError::Answer)?;
    if device_key::carries_key(&response.certificate, &key) {
        Ok(response.certificate)
    } else {
        Err(RenewalError::ForeignKey)
    }
}

/// Saves what a session learned, unless the profile on disk was replaced by another enrolment meanwhile.
pub(super) fn save(store: &ProfileStore, learned: &Profile) -> Result<(), ProfileError> {
    let on_disk = store.load(&learned.name)?;
    if !is_same_device(&on_disk, learned) {
        return Ok(());
    }
    let Profile { identity, addresses, full_tunnel, .. } = learned.clone();
    // Whatever else stands there may have been edited meanwhile.
    store.save(&Profile { identity, addresses, full_tunnel, ..on_disk }, true)
}

fn is_same_device(one: &Profile, other: &Profile) -> bool {
    let same_proof = match (&one.identity, &other.identity) {
        (Identity::Certificate { key_pem: one, .. }, Identity::Certificate { key_pem: other, .. }) => one == other,
        (Identity::Token(one), Identity::Token(other)) => one == other,
        (Identity::Login, Identity::Login) => one.user == other.user,
        (Identity::Certificate { .. } | Identity::Token(_) | Identity::Login, _) => false,
    };
    let same_gateway = one.host == other.host && one.port == other.port && one.protocol == other.protocol;
    same_proof && same_gateway && one.authority_pem == other.authority_pem && one.pin == other.pin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::profile;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn certificate(days: i64) -> (String, SystemTime) {
        let begins = time::OffsetDateTime::now_utc();
        let mut params = rcgen::CertificateParams::new(vec!["device".into()]).unwrap();
        params.not_before = begins;
        params.not_after = begins + time::Duration::days(days);
        (params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem(), begins.into())
    }

    #[test]
    fn renewal_is_due_at_two_thirds_of_life() {
        let (pem, begins) = certificate(90);
        assert_eq!(plan(&pem, begins), RenewalPlan::Wait(DAY));
        assert!(matches!(plan(&pem, begins + DAY * 59 + DAY / 2), RenewalPlan::Wait(wait) if wait <= DAY / 2));
        assert_eq!(plan(&pem, begins + DAY * 60), RenewalPlan::Renew(DAY));
        assert_eq!(plan(&pem, begins + DAY * 1000), RenewalPlan::Renew(SHORTEST_RETRY));
        assert_eq!(plan("no certificate", begins), RenewalPlan::Wait(DAY));
    }

    #[test]
    fn certificate_of_a_user_at_an_anyconnect_gateway_is_left_to_the_user() {
        let (now, native) = (SystemTime::now(), profile("home"));
        assert!(plan_for(&native, now).is_some(), "the positive control");
        assert_eq!(plan_for(&Profile { protocol: GatewayProtocol::AnyConnect, ..native.clone() }, now), None);
        assert_eq!(plan_for(&Profile { identity: Identity::Login, ..native }, now), None);
    }

    #[test]
    fn certificate_that_is_not_valid_yet_is_renewed_now_and_then() {
        let (pem, begins) = certificate(90);
        assert_eq!(plan(&pem, begins - DAY), RenewalPlan::Renew(DAY));
    }

    #[test]
    fn short_certificate_dated_back_is_renewed_in_time_but_not_in_a_loop() {
        let (pem, begins) = certificate(1);
        let a_minute_before_the_end = begins + DAY - Duration::from_secs(60);
        let wait = plan(&pem, a_minute_before_the_end).wait();
        assert!(wait >= SHORTEST_RETRY && wait <= Duration::from_secs(20), "{wait:?}");
    }

    #[test]
    fn profile_replaced_meanwhile_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let store = ProfileStore::new(directory.path());
        let mut learned = profile("home");
        store.save(&learned, false).unwrap();
        learned.addresses.clear();
        save(&store, &learned).unwrap();
        assert!(store.load(&learned.name).unwrap().addresses.is_empty());
        let edited = Profile { kill_switch: Some(false), ..store.load(&learned.name).unwrap() };
        store.save(&edited, true).unwrap();
        learned.full_tunnel = true;
        save(&store, &learned).unwrap();
        let kept = store.load(&learned.name).unwrap();
        assert_eq!((kept.kill_switch, kept.full_tunnel), (Some(false), true), "an edit is lost");

        let mut other = profile("home");
        other.user = "bob".into();
        store.save(&other, true).unwrap();
        save(&store, &learned).unwrap();
        assert_eq!(store.load(&learned.name).unwrap().user, "bob");
    }
}
