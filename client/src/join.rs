//! Enrolment: turns an invite, or a login, into a profile. The device's key is made here and never leaves this host.

mod by_login;
mod kept_key;

use std::net::SocketAddr;

use adit_net::tls;
use adit_program::exit::{Exit, Failure};
use adit_program::foreign_text::printable;
use adit_proto::enrollment::{ENROLL_PATH, EnrollRequest, EnrollResponse, Refusal, SessionGrant};
use adit_proto::invite::{Invite, Place};
use adit_proto::mark::Mark;
use data_encoding::BASE64URL_NOPAD;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::captive_portal::CaptiveProbe;
use crate::device_key;
use crate::gateway_contact::{GatewayContact, PROMPTLY, Trust};
use crate::profile::{
    EspTable, GatewayProtocol, Identity, LanAccess, LoginTable, Profile, ProfileName, ProfileStore, WorkersTable,
};
use crate::protocols::ConnectError;
use crate::protocols::connect_ip::PostReply;
use kept_key::KeptKey;

pub use by_login::join_by_login;

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
    let mut gateway = GatewayContact::find(places, &Trust::Pin(invite.pin)).await?;
    let key = KeptKey::of(store, invite)?;
    let proof = Proof { code: Some(BASE64URL_NOPAD.encode(&invite.code)), pin: Some(invite.pin), ..Proof::default() };
    let profile = match enroll(&mut gateway, &proof, name, key.key()).await {
        Ok(enrolled) => enrolled.profile,
        Err(Unenrolled { failure, certified }) => {
            return Err(match certified {
                Certified::Unasked => {
                    key.forget_if_new();
                    failure
                }
                Certified::Unanswered => again(failure),
                Certified::Perhaps => failure,
                Certified::No => {
                    key.forget();
                    failure
                }
            });
        }
    };
    // They are of the device that had this name before, and not for the new one, whatever fails in between.
    let forgotten = store.forget_login(&profile.name).and_then(|()| store.forget_password(&profile.name));
    forgotten.and_then(|()| room.save(&profile)).map_err(|error| again(error.into()))?;
    key.forget();
    Ok(profile)
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
    /// It was asked and has not answered.
    Unanswered,
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
        Self { failure, certified: Certified::Unanswered }
    }

    fn answered(failure: Failure) -> Self {
        let certified = if failure.exit == Exit::AuthRefused { Certified::No } else { Certified::Perhaps };
        Self { failure, certified }
    }
}

/// What lets a device in.
#[derive(Default)]
struct Proof {
    /// The code of an invite.
    code: Option<String>,
    /// The ticket of a login.
    ticket: Option<Zeroizing<String>>,
    /// The authority that the gateway must have, if that is known.
    pin: Option<[u8; 32]>,
}

/// A device that the gateway knows from now on.
struct Enrolled {
    profile: Profile,
    /// What the login was worth, if it was by one.
    session: Option<SessionGrant>,
}

async fn enroll(
    gateway: &mut GatewayContact,
    proof: &Proof,
    name: ProfileName,
    key: &KeyPair,
) -> Result<Enrolled, Unenrolled> {
    let gateway_name = gateway.name();
    let request = EnrollRequest {
        code: proof.code.clone(),
        login: proof.ticket.as_ref().map(|ticket| ticket.to_string()),
        csr: device_key::certificate_request(key).map_err(|error| Unenrolled::unasked(local(error)))?,
        device_name: device_name(),
    };
    let body = Zeroizing::new(serde_json::to_vec(&request).map_err(|error| Unenrolled::unasked(local(error)))?);
    let answer = match gateway.post(ENROLL_PATH, &body, PROMPTLY).await {
        Ok(answer) => answer,
        Err(error) => {
            let failure = gateway.failure(&error).await;
            let was_asked =
                matches!(error, ConnectError::Closed(_) | ConnectError::Restarts(_) | ConnectError::Protocol(_));
            return Err(if was_asked { Unenrolled::unanswered(failure) } else { Unenrolled::unasked(failure) });
        }
    };
    let response = accept(&gateway_name, &answer).map_err(Unenrolled::answered)?;
    check(&gateway_name, proof.pin, &response, key).map_err(Unenrolled::answered)?;
    let session = response.session.clone();
    let profile = assemble(name, gateway.places(), response, key, gateway.addresses(answer.remote));
    Ok(Enrolled { profile, session })
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
            Err(Failure::new(Exit::AuthRefused, gateway, reason("it refused to enrol this device"), next))
        }
        _ => Err(Failure::new(Exit::Other, gateway, reason("it failed to enrol this device"), "try again later")),
    }
}

/// Checks that the certificate is for our key, and that the authority is the pinned one, if one is.
fn check(gateway: &str, pin: Option<[u8; 32]>, response: &EnrollResponse, key: &KeyPair) -> Result<(), Failure> {
    let authority = CertificateDer::from_pem_slice(response.authority.as_bytes()).ok();
    let given = authority.and_then(|authority| tls::spki_sha256(&authority));
    if given.is_none() || pin.is_some_and(|pin| given != Some(pin)) {
        let next = "do not go on; ask the gateway's administrator for a new invite";
        let reason = "the certificate authority it gave is none, or not the one that was named before";
        return Err(Failure::new(Exit::IdentityMismatch, gateway, reason, next));
    }
    if !device_key::carries_key(&response.certificate, key) {
        return Err(strange(gateway, "the certificate it gave is not for this device's key"));
    }
    Ok(())
}

fn assemble(
    name: ProfileName,
    (place, others): (&Place, &[Place]),
    response: EnrollResponse,
    key: &KeyPair,
    addresses: Vec<SocketAddr>,
) -> Profile {
    Profile {
        name,
        host: place.host.clone(),
        port: place.port,
        others: others.to_vec(),
        user: printable(&response.user),
        device: printable(&response.device),
        addresses,
        kill_switch: None,
        lan: LanAccess::default(),
        captive_probe: CaptiveProbe::default(),
        full_tunnel: false,
        protocol: GatewayProtocol::ConnectIp,
        authority_pem: response.authority,
        pin: None,
        identity: Identity::Certificate {
            chain_pem: response.certificate,
            key_pem: Zeroizing::new(key.serialize_pem()),
        },
        login: LoginTable::default(),
        esp: EspTable::default(),
        workers: WorkersTable::default(),
        mark: Mark::default(),
    }
}

/// What this host calls itself, for an administrator's list of devices.
pub(crate) fn device_name() -> String {
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
        let pin = Some(invite(&authority).pin);
        check("gw:443", pin, &response(&own, &authority), &key).unwrap();
        check("gw:443", None, &response(&own, &authority), &key).unwrap();
    }

    #[test]
    fn other_authority_or_other_key_is_refused() {
        let (key, right) = (KeyPair::generate().unwrap(), authority());
        let own = rcgen::CertificateParams::new(vec!["d1".into()]).unwrap().self_signed(&key).unwrap();
        let wrong_authority = check("gw:443", Some(invite(&right).pin), &response(&own, &authority()), &key);
        assert_eq!(wrong_authority.err().unwrap().exit, Exit::IdentityMismatch);
        let wrong_key = check("gw:443", None, &response(&authority(), &right), &key);
        assert!(wrong_key.err().unwrap().reason.contains("not for this device's key"));
    }

    #[test]
    fn profile_has_the_name_of_the_host_and_the_key_made_here() {
        let (key, authority) = (KeyPair::generate().unwrap(), authority());
        let name = ProfileName::from_host("vpn.example.org").unwrap();
        let remote = vec!["192.0.2.1:443".parse().unwrap()];
        let place = Place { host: "vpn.example.org".into(), port: 443 };
        let profile = assemble(name, (&place, &[]), response(&authority, &authority), &key, remote);
        assert_eq!(profile.name.as_str(), "vpn.example.org");
        assert!(matches!(profile.identity, Identity::Certificate { key_pem, .. } if *key_pem == key.serialize_pem()));
    }
}
