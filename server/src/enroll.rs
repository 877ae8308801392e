//! Enrolment and renewal of devices, as the gateway answers them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_program::random::NoRandomness;
use adit_proto::enrollment::{EnrollRequest, EnrollResponse, Refusal, RenewRequest, RenewResponse, SessionGrant};
use adit_proto::login::token::{Clocks, SessionToken};
use arc_swap::ArcSwap;
use data_encoding::BASE64URL_NOPAD;
use tokio::sync::Semaphore;

use crate::accounts::sqlite::{Clock, Store};
use crate::accounts::{Accounts as _, EnrollError, RenewError, TOO_MANY_DEVICES, UserName};
use crate::core::login::clocks;
use crate::core::login::logins::Logins;
use crate::identity::{Authority, DeviceCertificate, DeviceRequest, IdentityError};
use crate::off_runtime::off_runtime_or;
use crate::trail::TRAIL;

/// Requests that may wait for a disk at a time. Each keeps a thread; logins that read alone must find one meanwhile.
const WRITERS: usize = 64;

/// How long after a login it enrols a device.
const TICKET_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Who enrols devices and renews their certificates.
pub struct Enrollment {
    writers: Semaphore,
    store: Arc<Store>,
    authority: Arc<Authority>,
    certificate_lifetime: ArcSwap<Duration>,
    /// Whether devices may renew their certificates.
    renews: AtomicBool,
    logins: Option<Arc<Logins>>,
}

/// Why a device gets no certificate.
#[derive(Debug, Clone)]
pub struct EnrollRefusal {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Refusal,
}

impl Enrollment {
    /// Enrols into `store` the devices that `authority` certifies for `certificate_lifetime`.
    pub fn new(store: Arc<Store>, authority: Arc<Authority>, certificate_lifetime: Duration) -> Self {
        let certificate_lifetime = ArcSwap::from_pointee(certificate_lifetime);
        let renews = AtomicBool::new(true);
        Self { writers: Semaphore::new(WRITERS), store, authority, certificate_lifetime, renews, logins: None }
    }

    /// Renews certificates, as it does unless told otherwise, or refuses to.
    #[must_use]
    pub fn renewing(self, renews: bool) -> Self {
        Self { renews: AtomicBool::new(renews), ..self }
    }

    /// Enrols devices of users who have logged in, too.
    #[must_use]
    pub fn with_logins(self, logins: Arc<Logins>) -> Self {
        Self { logins: Some(logins), ..self }
    }

    /// Certificates that are issued from now on are valid for this time, and may be renewed or not.
    pub fn set_certificates(&self, lifetime: Duration, renews: bool) {
        self.certificate_lifetime.store(Arc::new(lifetime));
        self.renews.store(renews, Ordering::Relaxed);
    }

    /// Does the work, which blocks, where it keeps no thread of the runtime waiting.
    ///
    /// # Errors
    /// What `work` refuses, or 500 `internal` if it panics.
    pub async fn off_runtime<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, EnrollRefusal> + Send + 'static,
    ) -> Result<T, EnrollRefusal> {
        let _turn = self.writers.acquire().await.expect("it is never closed");
        let enrollment = Arc::clone(self);
        let broken = |_panicked| Err(refusal(500, "internal", "internal error"));
        off_runtime_or(broken, move || work(&enrollment)).await
    }

    /// Enrols a device: looks at the invite, checks the request, consumes the invite and issues the certificate. For
    /// ten minutes the same code and key get a certificate again.
    /// Whoever has no good invite costs the gateway one look-up. Blocks for transactions of the store.
    ///
    /// Refusals: 400 `bad_request`, 403 `invite_unknown`, 409 `too_many_devices`, 410 `invite_used` or
    /// `invite_expired`, 503 `unavailable`.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn enroll(&self, request: &EnrollRequest, clock: impl Clock) -> Result<EnrollResponse, EnrollRefusal> {
        let code = match (&request.code, &request.login) {
            (Some(code), None) => decode_code(code).ok_or_else(unknown_invite)?,
            (None, Some(ticket)) => return self.enroll_by_login(request, ticket, clock),
            (None, None) | (Some(_), Some(_)) => {
                return Err(refusal(
                    400,
                    "bad_request",
                    "the request wants either an invite's code or a login's ticket",
                ));
            }
        };
        self.store.check_invite(&code, clock.read()).map_err(|error| refuse_invite(&error))?;
        let csr = DeviceRequest::parse(&request.csr).map_err(|error| bad_request(&error))?;
        let sign = |device: &str, user: &str| self.sign(&csr, device, user, clock);
        let enrolled = self
            .store
            .enroll(&code, &csr.key_hash(), &request.device_name, clock, sign)
            .map_err(|error| refuse_invite(&error))?;
        tracing::info!("device enrolled");
        tracing::debug!(target: TRAIL, user = enrolled.device.user, device = enrolled.device.id, "device enrolled as");
        Ok(EnrollResponse {
            user: enrolled.device.user,
            device: enrolled.device.id,
            certificate: enrolled.certificate.pem,
            authority: self.authority.certificate_pem().to_owned(),
            session: None,
        })
    }

    /// Enrols a device of a user who has logged in lately, and gives it the session token of that login.
    fn enroll_by_login(
        &self,
        request: &EnrollRequest,
        ticket: &str,
        clock: impl Clock,
    ) -> Result<EnrollResponse, EnrollRefusal> {
        let logins = self.logins.as_ref().ok_or_else(unknown_login)?;
        let clocks = clocks::at(clock.read());
        let login = logins.tokens().open(ticket, None, &clocks).map_err(|_none| unknown_login())?;
        if !may_enroll(&login, &clocks) {
            return Err(unknown_login());
        }
        let known = self.store.person(&login.user).map_err(|error| unavailable(&error))?;
        let is_valid = known.is_some_and(|known| !known.is_disabled && known.generation == login.generation);
        let user = UserName::parse(&login.user).ok().filter(|_| is_valid).ok_or_else(unknown_login)?;
        let csr = DeviceRequest::parse(&request.csr).map_err(|error| bad_request(&error))?;
        let sign = |device: &str, user: &str| self.sign(&csr, device, user, clock);
        let enrolled = self
            .store
            .enroll_by_login((&user, &login.login), &csr.key_hash(), &request.device_name, clock, sign)
            .map_err(|error| refuse_invite(&error))?;
        let token = SessionToken { device: Some(enrolled.device.id.clone()), ..login };
        let ends_at = Some(token.ends_at);
        let token = logins.tokens().seal(&token).ok_or_else(|| unavailable(&NoRandomness))?;
        tracing::info!("device enrolled by a login");
        tracing::debug!(target: TRAIL, user = enrolled.device.user, device = enrolled.device.id, "device enrolled as");
        Ok(EnrollResponse {
            user: enrolled.device.user,
            device: enrolled.device.id,
            certificate: enrolled.certificate.pem,
            authority: self.authority.certificate_pem().to_owned(),
            session: Some(SessionGrant { token, ends_at }),
        })
    }

    /// Issues a fresh certificate to a device that has authenticated with its present one. Blocks for transactions of
    /// the store.
    ///
    /// Refusals: 400 `bad_request`, 403 `device_revoked` or `not_renewed`, 429 `renewed_too_often`, 503 `unavailable`.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn renew(
        &self,
        device: &str,
        request: &RenewRequest,
        clock: impl Clock,
    ) -> Result<RenewResponse, EnrollRefusal> {
        self.store.check_renewal(device, clock.read()).map_err(|error| refuse_renewal(&error))?;
        if !self.renews.load(Ordering::Relaxed) {
            let message = "this gateway renews no certificates; ask for a new invite, or join again, before it is over";
            return Err(refusal(403, "not_renewed", message));
        }
        let csr = DeviceRequest::parse(&request.csr).map_err(|error| bad_request(&error))?;
        let sign = |user: &str| self.sign(&csr, device, user, clock);
        let certificate = self.store.renew(device, clock, sign).map_err(|error| refuse_renewal(&error))?;
        Ok(RenewResponse { certificate: certificate.pem })
    }

    fn sign(
        &self,
        csr: &DeviceRequest,
        device: &str,
        user: &str,
        clock: impl Clock,
    ) -> Result<DeviceCertificate, IdentityError> {
        self.authority.issue_device(csr, device, user, **self.certificate_lifetime.load(), clock.read())
    }
}

/// Whether a login is so young that it enrols a device. Of one before the host's last start nobody can tell.
fn may_enroll(login: &SessionToken, clocks: &Clocks) -> bool {
    login.age(clocks).is_some_and(|age| age < TICKET_LIFETIME)
}

fn unknown_login() -> EnrollRefusal {
    refusal(403, "login_unknown", "this login is over, or was ended; log in again")
}

fn decode_code(text: &str) -> Option<[u8; 16]> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

fn refusal(status: u16, code: &str, message: impl Into<String>) -> EnrollRefusal {
    EnrollRefusal { status, body: Refusal { code: code.to_owned(), message: message.into() } }
}

fn bad_request(error: &IdentityError) -> EnrollRefusal {
    refusal(400, "bad_request", error.to_string())
}

fn unknown_invite() -> EnrollRefusal {
    refusal(403, "invite_unknown", "this gateway has no such invite; ask for a new one")
}

fn revoked_device() -> EnrollRefusal {
    refusal(403, "device_revoked", "this device may no longer connect; ask for a new invite")
}

fn refuse_renewal(error: &RenewError<IdentityError>) -> EnrollRefusal {
    match error {
        RenewError::Unknown | RenewError::Revoked => revoked_device(),
        RenewError::TooMany => {
            let message = "this device has several certificates that are still good; use the newest";
            refusal(429, "renewed_too_often", message)
        }
        RenewError::Sign(error) => unavailable(error),
        RenewError::Store(error) => unavailable(error),
    }
}

fn refuse_invite(error: &EnrollError<IdentityError>) -> EnrollRefusal {
    match error {
        EnrollError::UnknownCode => unknown_invite(),
        EnrollError::LoginOver => unknown_login(),
        EnrollError::UsedCode => refusal(410, "invite_used", "this invite was used before; ask for a new one"),
        EnrollError::ExpiredCode => refusal(410, "invite_expired", "this invite has expired; ask for a new one"),
        EnrollError::TooManyDevices(_) => refusal(409, "too_many_devices", TOO_MANY_DEVICES),
        EnrollError::Sign(error) => unavailable(error),
        EnrollError::Store(error) => unavailable(error),
    }
}

/// The gateway cannot answer now; the cause is for its own log.
fn unavailable(error: &dyn std::error::Error) -> EnrollRefusal {
    tracing::warn!(error = error.to_string(), "enrolment failed");
    refusal(503, "unavailable", "the gateway cannot enrol devices now; try again later")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use adit_proto::login::token::Boot;
    use rcgen::{CertificateParams, KeyPair};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::accounts::{AuthError, BegunLogin};
    use crate::directories::StateDir;
    use crate::identity::{ServiceKey, device_identity};

    struct Gateway {
        _directory: tempfile::TempDir,
        store: Arc<Store>,
        enrollment: Enrollment,
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn gateway() -> Gateway {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
        let authority = Arc::new(Authority::create(&StateDir::new(directory.path()), now()).unwrap());
        let enrollment = Enrollment::new(Arc::clone(&store), authority, Duration::from_secs(3600));
        Gateway { _directory: directory, store, enrollment }
    }

    fn csr() -> String {
        CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    impl Gateway {
        fn invite(&self) -> String {
            let user = UserName::parse("alice").unwrap();
            BASE64URL_NOPAD.encode(&self.store.invite(&user, Duration::from_secs(60), now()).unwrap())
        }

        fn enroll(&self, code: &str, csr: &str, now: SystemTime) -> Result<EnrollResponse, String> {
            let request =
                EnrollRequest { code: Some(code.into()), login: None, csr: csr.into(), device_name: "laptop".into() };
            self.enrollment.enroll(&request, now).map_err(|refusal| format!("{} {}", refusal.status, refusal.body.code))
        }

        fn renew(&self, device: &str) -> Result<RenewResponse, String> {
            let request = RenewRequest { csr: csr() };
            self.enrollment
                .renew(device, &request, now())
                .map_err(|refusal| format!("{} {}", refusal.status, refusal.body.code))
        }
    }

    fn admitted(gateway: &Gateway, pem: &str) -> Result<String, AuthError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let identity = device_identity(&der).unwrap();
        gateway.store.authenticate_certificate(&identity.device, &identity.serial, now()).map(|device| device.user)
    }

    #[test]
    fn enrolled_device_is_admitted_renews_and_is_shut_out_when_revoked() {
        let gateway = gateway();
        let enrolled = gateway.enroll(&gateway.invite(), &csr(), now()).unwrap();
        assert_eq!(enrolled.user, "alice");
        assert_eq!(admitted(&gateway, &enrolled.certificate).unwrap(), "alice");
        let renewed = gateway.renew(&enrolled.device).unwrap();
        assert_eq!(admitted(&gateway, &renewed.certificate).unwrap(), "alice");
        gateway.store.revoke("alice", now()).unwrap();
        assert!(matches!(admitted(&gateway, &renewed.certificate), Err(AuthError::Revoked)));
        assert_eq!(gateway.renew(&enrolled.device).unwrap_err(), "403 device_revoked");
        assert_eq!(gateway.renew("dev-none").unwrap_err(), "403 device_revoked");
    }

    #[test]
    fn gateway_that_renews_nothing_says_so_and_tells_strangers_no_more_than_before() {
        let gateway = gateway();
        let enrolled = gateway.enroll(&gateway.invite(), &csr(), now()).unwrap();
        let gateway = Gateway { enrollment: gateway.enrollment.renewing(false), ..gateway };
        assert_eq!(gateway.renew(&enrolled.device).unwrap_err(), "403 not_renewed");
        assert_eq!(gateway.renew("dev-none").unwrap_err(), "403 device_revoked");
        assert_eq!(admitted(&gateway, &enrolled.certificate).unwrap(), "alice", "it is good until its end");
    }

    #[test]
    fn every_bad_invite_has_its_own_answer() {
        let gateway = gateway();
        let code = gateway.invite();
        gateway.enroll(&code, &csr(), now()).unwrap();
        let refused = |code: &str, now| gateway.enroll(code, &csr(), now).unwrap_err();
        assert_eq!(refused(&code, now()), "410 invite_used", "with another key");
        assert_eq!(refused(&gateway.invite(), now() + Duration::from_secs(60)), "410 invite_expired");
        for code in ["AAAAAAAAAAAAAAAAAAAAAA", "", "short", "!!!!", &"A".repeat(1000)] {
            assert_eq!(refused(code, now()), "403 invite_unknown", "{code:?}");
        }
    }

    #[test]
    fn answer_that_was_lost_is_given_again_for_the_same_key() {
        let gateway = gateway();
        let (code, csr) = (gateway.invite(), csr());
        let first = gateway.enroll(&code, &csr, now()).unwrap();
        let again = gateway.enroll(&code, &csr, now() + Duration::from_secs(599)).unwrap();
        assert_eq!(first.device, again.device);
        assert_eq!(admitted(&gateway, &again.certificate).unwrap(), "alice");
        assert_eq!(gateway.enroll(&code, &csr, now() + Duration::from_secs(600)).unwrap_err(), "410 invite_used");
    }

    #[test]
    fn certificate_request_is_looked_at_only_with_a_good_invite() {
        let gateway = gateway();
        assert_eq!(gateway.enroll("AAAAAAAAAAAAAAAAAAAAAA", "nonsense", now()).unwrap_err(), "403 invite_unknown");
        let late = now() + Duration::from_secs(60);
        assert_eq!(gateway.enroll(&gateway.invite(), "nonsense", late).unwrap_err(), "410 invite_expired");
    }

    #[test]
    fn device_that_renews_again_and_again_is_told_to_wait() {
        let gateway = gateway();
        let enrolled = gateway.enroll(&gateway.invite(), &csr(), now()).unwrap();
        let refused = (0..10).find_map(|_| gateway.renew(&enrolled.device).err());
        assert_eq!(refused.as_deref(), Some("429 renewed_too_often"));
        assert_eq!(admitted(&gateway, &enrolled.certificate).unwrap(), "alice", "it stays connected");
    }

    /// A gateway with logins, and what seals their tokens.
    fn with_logins() -> (Gateway, Arc<Logins>) {
        let gateway = gateway();
        let key = ServiceKey::load_or_create(&StateDir::new(gateway._directory.path())).unwrap();
        let lifetime = Duration::from_secs(3600);
        let logins = Arc::new(Logins::new(Vec::new(), Arc::clone(&gateway.store), &key, [7; 32], lifetime));
        let enrollment = gateway.enrollment.with_logins(Arc::clone(&logins));
        (Gateway { enrollment, ..gateway }, logins)
    }

    fn ticket(logins: &Logins, device: Option<&str>, generation: u64) -> String {
        logins.tokens().seal(&given(device, generation)).unwrap()
    }

    /// A token that was given just now.
    fn given(device: Option<&str>, generation: u64) -> SessionToken {
        let Clocks { unix, since_boot, boot } = clocks::at(now());
        SessionToken {
            user: "alice".into(),
            device: device.map(str::to_owned),
            login: [u8::try_from(generation).unwrap(); 16],
            generation,
            methods: vec![adit_proto::login::Method::Password],
            logged_in_at: unix,
            ends_at: unix + 3600,
            boot,
            since_boot,
        }
    }

    #[test]
    fn ticket_of_a_login_enrols_one_device_that_needs_its_login_from_then_on() {
        let (gateway, logins) = with_logins();
        // Alice is known.
        gateway.invite();
        gateway.store.begin_logins_of("alice", &[[0; 16]]);
        let enroll = |ticket: &str, csr: &str, now| {
            let (csr, device_name) = (csr.to_owned(), "laptop".to_owned());
            let request = EnrollRequest { code: None, login: Some(ticket.to_owned()), csr, device_name };
            gateway.enrollment.enroll(&request, now).map_err(|refusal| refusal.body.code)
        };
        let (good, own) = (ticket(&logins, None, 0), csr());
        let first = enroll(&good, &own, now()).unwrap();
        assert_eq!(admitted(&gateway, &first.certificate).unwrap(), "alice");
        assert!(gateway.store.needs_login(&first.device).unwrap());
        let session = first.session.unwrap();
        let token = logins.tokens().open(&session.token, Some(&first.device), &clocks::at(now())).unwrap();
        assert_eq!((token.user.as_str(), Some(token.ends_at)), ("alice", session.ends_at));

        assert_eq!(enroll(&good, &own, now()).unwrap().device, first.device, "an answer that was lost");
        assert_eq!(enroll(&good, &csr(), now()).unwrap_err(), "invite_used", "with another key");

        let invited = gateway.enroll(&gateway.invite(), &csr(), now()).unwrap();
        assert!(!gateway.store.needs_login(&invited.device).unwrap(), "an invite is enough");
    }

    #[test]
    fn login_enrols_for_ten_minutes_and_not_after_a_restart_of_the_host_whatever_its_clock_says() {
        let login = given(None, 0);
        let at = |unix, seconds| Clocks { unix, since_boot: login.since_boot + seconds, boot: login.boot };
        for unix in [0, login.logged_in_at, login.logged_in_at + 400 * 86_400] {
            assert!(may_enroll(&login, &at(unix, 599)), "the positive control: {unix}");
            assert!(!may_enroll(&login, &at(unix, 600)), "{unix}");
            assert!(!may_enroll(&login, &Clocks { boot: Boot::of([1; 16]), ..at(unix, 0) }), "{unix}");
        }
        let (gateway, logins) = with_logins();
        gateway.invite();
        gateway.store.begin_logins_of("alice", &[[0; 16]]);
        let enroll = |boot| {
            let login = logins.tokens().seal(&SessionToken { boot, ..login.clone() });
            let request = EnrollRequest { code: None, login, csr: csr(), device_name: "laptop".into() };
            gateway.enrollment.enroll(&request, now()).map_err(|refusal| refusal.body.code).map(drop)
        };
        assert_eq!(enroll(Boot::of([1; 16])).unwrap_err(), "login_unknown");
        assert_eq!(enroll(login.boot), Ok(()), "the positive control");
    }

    #[test]
    fn what_is_no_ticket_enrols_nobody() {
        let (gateway, logins) = with_logins();
        gateway.invite();
        gateway.store.begin_logins_of("alice", &[[0; 16]]);
        let enroll = |code: Option<&str>, login: Option<String>| {
            let code = code.map(str::to_owned);
            let request = EnrollRequest { code, login, csr: csr(), device_name: "laptop".into() };
            gateway.enrollment.enroll(&request, now()).map_err(|refusal| refusal.body.code).map(drop)
        };
        let good = ticket(&logins, None, 0);
        for refused in [ticket(&logins, Some("dev-a"), 0), ticket(&logins, None, 1), "nonsense".into(), String::new()] {
            assert_eq!(enroll(None, Some(refused)).unwrap_err(), "login_unknown");
        }
        assert_eq!(enroll(Some(&gateway.invite()), Some(good.clone())).unwrap_err(), "bad_request");
        assert_eq!(enroll(None, None).unwrap_err(), "bad_request");
        let alice = UserName::parse("alice").unwrap();
        gateway.store.set_disabled(&alice, true, now()).unwrap();
        assert_eq!(enroll(None, Some(good.clone())).unwrap_err(), "login_unknown", "disabled");
        gateway.store.set_disabled(&alice, false, now()).unwrap();
        assert_eq!(enroll(None, Some(good)).unwrap_err(), "login_unknown", "void for ever");
        let lifetime = Duration::from_secs(3600);
        let again = BegunLogin { id: &[1; 16], user: "alice", generation: 1, lifetime };
        gateway.store.begin_login(&again).unwrap();
        assert_eq!(enroll(None, Some(ticket(&logins, None, 1))), Ok(()));
    }

    #[test]
    fn user_with_too_many_devices_hears_what_to_do_and_keeps_the_invite() {
        let gateway = gateway();
        gateway.store.limit_devices(1);
        let first = gateway.enroll(&gateway.invite(), &csr(), now()).unwrap().device;
        let code = gateway.invite();
        assert_eq!(gateway.enroll(&code, &csr(), now()).unwrap_err(), "409 too_many_devices");
        gateway.store.revoke(&first, now()).unwrap();
        assert!(gateway.enroll(&code, &csr(), now()).is_ok());
    }

    #[test]
    fn bad_request_does_not_spend_the_invite() {
        let gateway = gateway();
        let code = gateway.invite();
        assert_eq!(gateway.enroll(&code, "nonsense", now()).unwrap_err(), "400 bad_request");
        assert!(gateway.enroll(&code, &csr(), now()).is_ok());
    }
}
