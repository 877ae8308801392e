//! Enrolment: turns an invite into a profile. The device's key is made here and never leaves this host.

mod kept_key;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_net::tls;
use adit_program::exit::{Exit, Failure};
use adit_program::foreign_text::printable;
use adit_proto::enrollment::{ENROLL_PATH, EnrollRequest, EnrollResponse, Refusal};
use adit_proto::invite::{Invite, Place};
use adit_proto::mark::Mark;
use data_encoding::BASE64URL_NOPAD;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::clock;
use crate::device_key;
use crate::gateway_addresses::{self, Lookups};
use crate::obstacle;
use crate::profile::{EspTable, Identity, LanAccess, Profile, ProfileName, ProfileStore, WorkersTable};
use crate::protocols::connect_ip::{self, Endpoint, PostReply};
use crate::protocols::{Candidates, ConnectError, authority};
use kept_key::KeptKey;

/// How long the whole exchange with the gateway may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a gateway is tried again after somebody who is not the gateway has answered.
const STRANGER_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before the gateway is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// How long the gateway's name may take to resolve: the C library asks the second of two resolvers after 5 s, and gives
/// up a question after 10 to 20.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Enrols this device with an invite and saves the profile, under `name` or the gateway's host name.
///
/// Nothing is asked of the gateway, so that the invite stays unused, before there is room for the profile. The key is
/// kept until the profile is saved, so that the same invite works again if something fails in between.
///
/// # Errors
/// A [`Failure`] with the exit code and next step of the design: wrong pin 4, refused code 3, no answer 5.
pub async fn join(
    invite: &Invite,
    name: Option<ProfileName>,
    replace: bool,
    store: &ProfileStore,
) -> Result<Profile, Failure> {
    let name = match name {
        Some(name) => name,
        None => ProfileName::from_host(&invite.host)?,
    };
    let room = store.prepare(&name, replace)?;
    let mut places = vec![Place { host: invite.host.clone(), port: invite.port }];
    places.extend(invite.others.iter().cloned());
    let mut lookups = Lookups::new(places);
    let addresses = resolve(&mut lookups, &authority(&invite.host, invite.port)).await?;
    let key = KeptKey::of(store, invite)?;
    let profile = match enroll(invite, name, addresses, &lookups, key.key()).await {
        Ok(profile) => profile,
        Err(Unenrolled { failure, certified }) => {
            match certified {
                Certified::Unasked => key.forget_if_new(),
                Certified::Perhaps => {}
                Certified::No => key.forget(),
            }
            return Err(failure);
        }
    };
    room.save(&profile).map_err(|error| again(error.into()))?;
    key.forget();
    Ok(profile)
}

/// Waits for the first address of the gateway.
async fn resolve(lookups: &mut Lookups, gateway: &str) -> Result<Candidates, Failure> {
    let mut addresses = lookups.candidates(&[], true);
    if timeout(RESOLVE_TIMEOUT, addresses.is_ready()).await.unwrap_or_default() {
        return Ok(addresses);
    }
    let next = "check the name in the invite and this host's network";
    Err(Failure::new(Exit::Unreachable, gateway, "its name cannot be resolved", next))
}

/// A failure after which the gateway may have used up the invite, for this device alone.
fn again(failure: Failure) -> Failure {
    let next =
        "once that is mended, run the same `join` again on this device: the invite stays good for it for ten minutes";
    Failure { next: next.to_owned(), ..failure }
}

/// Why there is no profile.
struct Unenrolled {
    failure: Failure,
    certified: Certified,
}

/// Whether the gateway has certified the key, so that the invite works with this key alone.
enum Certified {
    /// It was not asked, this time.
    Unasked,
    /// It may have done so.
    Perhaps,
    /// It refuses to.
    No,
}

impl Unenrolled {
    fn unasked(failure: Failure) -> Self {
        Self { failure, certified: Certified::Unasked }
    }

    fn unanswered(failure: Failure) -> Self {
        Self { failure, certified: Certified::Perhaps }
    }

    fn answered(failure: Failure) -> Self {
        let certified = if failure.exit == Exit::AuthRefused { Certified::No } else { Certified::Perhaps };
        Self { failure, certified }
    }
}

async fn enroll(
    invite: &Invite,
    name: ProfileName,
    addresses: Candidates,
    lookups: &Lookups,
    key: &KeyPair,
) -> Result<Profile, Unenrolled> {
    let gateway = authority(&invite.host, invite.port);
    let request = EnrollRequest {
        code: Some(BASE64URL_NOPAD.encode(&invite.code)),
        login: None,
        csr: device_key::certificate_request(key).map_err(|error| Unenrolled::unasked(local(error)))?,
        device_name: device_name(),
    };
    let body = Zeroizing::new(serde_json::to_vec(&request).map_err(|error| Unenrolled::unasked(local(error)))?);
    let tls = tls::pinned_client_config(invite.pin).map_err(|error| Unenrolled::unasked(local(error)))?;
    let known_past = clock::known_past(std::iter::empty());
    let endpoint = Endpoint { host: &invite.host, port: invite.port, addresses, mark: None, tls, known_past };
    let answer = ask(&endpoint, &body).await.map_err(|error| {
        let failure = obstacle::join_failure(&gateway, &error);
        let was_asked = matches!(error, ConnectError::Closed(_) | ConnectError::Protocol(_));
        if was_asked { Unenrolled::unanswered(again(failure)) } else { Unenrolled::unasked(failure) }
    })?;
    let response = accept(&gateway, &answer).map_err(Unenrolled::answered)?;
    check(&gateway, invite, &response, key).map_err(Unenrolled::answered)?;
    let addresses = gateway_addresses::remember([answer.remote].into_iter().chain(lookups.resolved()), &[]);
    Ok(assemble(name, invite, response, key, addresses))
}

/// Asks until the gateway itself answers, or its time is up. A stranger's answer shortens the time, so that whoever
/// waits learns of it, but does not end it.
async fn ask(gateway: &Endpoint<'_>, body: &[u8]) -> Result<PostReply, ConnectError> {
    let mut deadline = Instant::now() + TIMEOUT;
    let mut worst: Option<ConnectError> = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match connect_ip::post(gateway, ENROLL_PATH, body, left).await {
            Ok(reply) => return Ok(reply),
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

/// The gateway's answer, if it is one of success.
fn accept(gateway: &str, answer: &PostReply) -> Result<EnrollResponse, Failure> {
    let reason = |otherwise: &str| {
        let refusal = serde_json::from_slice::<Refusal>(&answer.body);
        refusal
            .map_or_else(|_| format!("{otherwise} (status {})", answer.status), |refusal| printable(&refusal.message))
    };
    match answer.status {
        200..=299 => serde_json::from_slice(&answer.body).map_err(|_| strange(gateway, "its answer cannot be read")),
        400..=499 => {
            let next = "ask the gateway's administrator for a new invite";
            Err(Failure::new(Exit::AuthRefused, gateway, reason("it refused the invite"), next))
        }
        _ => Err(Failure::new(Exit::Other, gateway, reason("it failed to enrol this device"), "try again later")),
    }
}

/// Checks that the certificate is for our key, and that the authority is the one the invite pins.
fn check(gateway: &str, invite: &Invite, response: &EnrollResponse, key: &KeyPair) -> Result<(), Failure> {
    let authority = CertificateDer::from_pem_slice(response.authority.as_bytes()).ok();
    if authority.and_then(|authority| tls::spki_sha256(&authority)) != Some(invite.pin) {
        let next = "do not go on; ask the gateway's administrator for a new invite";
        let reason = "the certificate authority it gave is not the one of the invite";
        return Err(Failure::new(Exit::IdentityMismatch, gateway, reason, next));
    }
    if !device_key::carries_key(&response.certificate, key) {
        return Err(strange(gateway, "the certificate it gave is not for this device's key"));
    }
    Ok(())
}

fn assemble(
    name: ProfileName,
    invite: &Invite,
    response: EnrollResponse,
    key: &KeyPair,
    addresses: Vec<SocketAddr>,
) -> Profile {
    Profile {
        name,
        host: invite.host.clone(),
        port: invite.port,
        user: printable(&response.user),
        device: printable(&response.device),
        addresses,
        kill_switch: None,
        lan: LanAccess::default(),
        full_tunnel: false,
        authority_pem: response.authority,
        identity: Identity::Certificate {
            chain_pem: response.certificate,
            key_pem: Zeroizing::new(key.serialize_pem()),
        },
        esp: EspTable::default(),
        workers: WorkersTable::default(),
        mark: Mark::default(),
    }
}

/// What this host calls itself, for the administrator's list of devices.
fn device_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".to_owned())
}

fn local(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Other, "enrolment", error.to_string(), "")
}

fn strange(gateway: &str, reason: &str) -> Failure {
    Failure::new(
        Exit::Other,
        gateway,
        reason,
        "ask the gateway's administrator; its version may differ from this client's",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> PostReply {
        PostReply { status, body: body.as_bytes().to_vec(), remote: "192.0.2.1:443".parse().unwrap() }
    }

    fn authority() -> rcgen::Certificate {
        let key = KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(vec!["authority".into()]).unwrap().self_signed(&key).unwrap()
    }

    fn response(certificate: &rcgen::Certificate, authority: &rcgen::Certificate) -> EnrollResponse {
        EnrollResponse {
            user: "alice".into(),
            device: "d1".into(),
            certificate: certificate.pem(),
            authority: authority.pem(),
            session: None,
        }
    }

    fn invite(authority: &rcgen::Certificate) -> Invite {
        let pin = tls::spki_sha256(authority.der()).unwrap();
        Invite { host: "vpn.example.org".into(), port: 443, others: Vec::new(), pin, code: [7; 16] }
    }

    #[test]
    fn refusal_carries_the_gateways_reason_and_exit_3() {
        let failure = accept("gw:443", &answer(403, r#"{"code":"invite_used","message":"the invite was used"}"#));
        let failure = failure.err().unwrap();
        assert_eq!((failure.exit, failure.reason.as_str()), (Exit::AuthRefused, "the invite was used"));
        let unreadable = accept("gw:443", &answer(410, "gone")).err().unwrap();
        assert!(unreadable.reason.contains("410"), "{unreadable}");
    }

    #[test]
    fn gateway_error_and_unreadable_answer_are_other_failures() {
        assert_eq!(accept("gw:443", &answer(503, "")).err().unwrap().exit, Exit::Other);
        assert_eq!(accept("gw:443", &answer(200, "{}")).err().unwrap().exit, Exit::Other);
    }

    #[test]
    fn certificate_for_our_key_from_the_pinned_authority_is_accepted() {
        let (key, authority) = (KeyPair::generate().unwrap(), authority());
        let own = rcgen::CertificateParams::new(vec!["d1".into()]).unwrap().self_signed(&key).unwrap();
        check("gw:443", &invite(&authority), &response(&own, &authority), &key).unwrap();
    }

    #[test]
    fn other_authority_or_other_key_is_refused() {
        let (key, right) = (KeyPair::generate().unwrap(), authority());
        let own = rcgen::CertificateParams::new(vec!["d1".into()]).unwrap().self_signed(&key).unwrap();
        let wrong_authority = check("gw:443", &invite(&right), &response(&own, &authority()), &key);
        assert_eq!(wrong_authority.err().unwrap().exit, Exit::IdentityMismatch);
        let wrong_key = check("gw:443", &invite(&right), &response(&authority(), &right), &key);
        assert!(wrong_key.err().unwrap().reason.contains("not for this device's key"));
    }

    #[test]
    fn profile_has_the_name_of_the_host_and_the_key_made_here() {
        let (key, authority) = (KeyPair::generate().unwrap(), authority());
        let name = ProfileName::from_host("vpn.example.org").unwrap();
        let remote = vec!["192.0.2.1:443".parse().unwrap()];
        let profile = assemble(name, &invite(&authority), response(&authority, &authority), &key, remote);
        assert_eq!(profile.name.as_str(), "vpn.example.org");
        assert!(matches!(profile.identity, Identity::Certificate { key_pem, .. } if *key_pem == key.serialize_pem()));
    }
}
