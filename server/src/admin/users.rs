//! The verbs about users of the gateway itself: their passwords, second factors, and whether they may connect.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Admin, AdminRefusal, MAX_INVITE_LIFETIME, bad_request, store_refusal, user_name};
use crate::accounts::sqlite::{Clock, StoreError};
use crate::accounts::{Accounts as _, FirstPassword, OidcSubject, UserError, UserName};
use crate::config::{SourceName, is_issuer};
use crate::core::sessions::Ending;
use crate::identity::{IdentityError, ServiceKey};
use crate::sources::local::recovery::{self, Code};
use crate::sources::local::totp::Secret;
use crate::sources::local::{FACTORS, passwords};

/// Names a user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    /// The user.
    pub user: String,
}

/// Asks to make a user, or to give one a new password. A hash of the password is in it, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    /// The user.
    pub user: String,
    /// The password's hash (PHC string); when absent, a one-time code is made by which the user chooses a password.
    pub password_hash: Option<String>,
    /// How long the code is good; the lifetime of invites when absent.
    pub lifetime_seconds: Option<u64>,
}

/// A user with a new password, or a code to choose one. The code is a secret, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct PasswordAnswer {
    /// The user, in canonical form.
    pub user: String,
    /// The one-time code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// End of the code, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// Asks to let somebody of another source log in as a user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRequest {
    /// The user.
    pub user: String,
    /// The source: `radius`, `ldap` or `oidc`.
    pub source: String,
    /// What the source knows them by; of `oidc` what their provider does.
    pub subject: String,
    /// The provider, for `oidc`; that of the configuration when absent.
    pub issuer: Option<String>,
}

/// What disabling, enabling or linking a user did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StandingAnswer {
    /// The user, in canonical form.
    pub user: String,
    /// Whether that was anything new.
    pub changed: bool,
    /// Sessions that were ended.
    pub sessions: usize,
}

/// The secret of an app that shows codes, which counts only once a code of it was told. It has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct FactorOffer {
    /// The user, in canonical form.
    pub user: String,
    /// The secret, in base 32.
    pub secret: String,
    /// The same as a link, for a QR code.
    pub link: String,
}

/// Confirms an app by a code of it. Its secret is in it, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactorRequest {
    /// The user.
    pub user: String,
    /// The secret that was offered.
    pub secret: String,
    /// The code that the app shows.
    pub code: String,
}

/// Recovery codes, shown only now. They are secrets, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct FactorAnswer {
    /// The user, in canonical form.
    pub user: String,
    /// The codes.
    pub recovery_codes: Vec<String>,
}

/// What a user is to get first: a password, or a code for some time.
struct Gift {
    first: FirstPassword,
    code: Option<(Zeroizing<String>, Duration)>,
}

impl Admin {
    pub(super) fn add_user(
        &self,
        request: &PasswordRequest,
        clock: impl Clock,
    ) -> Result<PasswordAnswer, AdminRefusal> {
        let (user, gift) = (user_name(&request.user)?, self.gift(request)?);
        self.store.add_user(&user, &gift.first, clock).map_err(refusal)?;
        tracing::info!("a user was added");
        Ok(gift.answer(&user, clock.read()))
    }

    /// Resets in one step: nobody is left with the old factor and no password, or with half of each.
    pub(super) fn reset_user(
        &self,
        request: &PasswordRequest,
        clock: impl Clock,
    ) -> Result<PasswordAnswer, AdminRefusal> {
        let (user, gift) = (user_name(&request.user)?, self.gift(request)?);
        self.store.reset_user(&user, &gift.first, clock).map_err(refusal)?;
        self.end_logins(&user)?;
        self.forget_failures(&user);
        tracing::info!("password and second factor of a user were reset");
        Ok(gift.answer(&user, clock.read()))
    }

    /// Shuts a user out in the accounts first: a session that ends cannot come back.
    pub(super) fn set_disabled(
        &self,
        request: &UserRequest,
        disabled: bool,
        now: SystemTime,
    ) -> Result<StandingAnswer, AdminRefusal> {
        let user = user_name(&request.user)?;
        let changed = self.store.set_disabled(&user, disabled, now).map_err(refusal)?;
        let sessions = if disabled { self.end_sessions(&user)? } else { 0 };
        if !disabled {
            self.forget_failures(&user);
        }
        tracing::info!(disabled, changed, sessions, "a user was disabled or enabled");
        Ok(StandingAnswer { user: user.to_string(), changed, sessions })
    }

    /// Gives a user to another source, which keeps the password from then on. Certificates of devices stay good.
    pub(super) fn link_user(&self, request: &LinkRequest) -> Result<StandingAnswer, AdminRefusal> {
        let (user, source) = (user_name(&request.user)?, request.source.as_str());
        let subject = self.linked_subject(request)?;
        self.store.link_person(&user, source, &subject).map_err(refusal)?;
        let sessions = self.end_logins(&user)?;
        self.forget_failures(&user);
        tracing::info!(source, "a user was given to another source");
        Ok(StandingAnswer { user: user.to_string(), changed: true, sessions })
    }

    /// What the accounts know the person by who is to be linked.
    fn linked_subject(&self, request: &LinkRequest) -> Result<String, AdminRefusal> {
        let LinkRequest { source, subject, issuer, .. } = request;
        let others = [SourceName::Radius, SourceName::Ldap, SourceName::Oidc].map(SourceName::word);
        if !others.contains(&source.as_str()) || subject.is_empty() {
            return Err(bad_request(format!("name one of the sources {}, and a subject", others.join(", "))));
        }
        if source != SourceName::Oidc.word() {
            let alone = issuer.is_none().then(|| subject.clone());
            return alone.ok_or_else(|| bad_request("only the source oidc has an issuer; leave it out"));
        }
        if OidcSubject::parse(subject).is_some() {
            return Err(bad_request("this subject begins with an issuer; write the two apart"));
        }
        let config = self.config.load();
        let issuer = issuer.as_ref().or(config.oidc.issuer.as_ref());
        let issuer = issuer.ok_or_else(|| bad_request("name the issuer, since the configuration names none"))?;
        if !is_issuer(issuer) {
            return Err(bad_request("the issuer is a URL, exactly as the provider writes it"));
        }
        Ok(OidcSubject { issuer, subject }.to_string())
    }

    /// What was refused before may be right now.
    fn forget_failures(&self, user: &UserName) {
        if let Some(logins) = self.live.as_ref().and_then(|live| live.logins()) {
            logins.unlock(user.as_str());
        }
    }

    fn end_sessions(&self, user: &UserName) -> Result<usize, AdminRefusal> {
        self.close(user, Ending::Disabled, |_device| Ok(true))
    }

    /// Ends the sessions that go on a login of a user, since all of them are void now.
    fn end_logins(&self, user: &UserName) -> Result<usize, AdminRefusal> {
        self.close(user, Ending::LoginOver, |device| {
            self.store.needs_login(device).map_err(|error| refusal(UserError::Store(error)))
        })
    }

    /// Closes those devices of a user that are `concerned`; says how many sessions that ended.
    fn close(
        &self,
        user: &UserName,
        why: Ending,
        concerned: impl Fn(&str) -> Result<bool, AdminRefusal>,
    ) -> Result<usize, AdminRefusal> {
        let Some(live) = &self.live else { return Ok(0) };
        let devices = self.store.devices().map_err(store_refusal)?;
        let mut sessions = 0;
        for device in devices.iter().filter(|device| device.user == user.as_str()) {
            if concerned(&device.id)? {
                sessions += live.close_device(&device.id, why);
            }
        }
        Ok(sessions)
    }

    /// Offers a secret for an app. Nothing is kept of it until a code of the app has come back.
    pub(super) fn offer_factor(&self, request: &UserRequest) -> Result<FactorOffer, AdminRefusal> {
        let user = user_name(&request.user)?;
        self.store.require_local(&user).map_err(refusal)?;
        let secret = Secret::random().map_err(|error| store_refusal(error.into()))?;
        let (link, text) = (secret.link(user.as_str()), secret.text());
        Ok(FactorOffer { user: user.to_string(), secret: text.to_string(), link: link.to_string() })
    }

    /// Makes the app count that shows this code, in place of any other, with new recovery codes.
    pub(super) fn confirm_factor(
        &self,
        request: &FactorRequest,
        clock: impl Clock,
    ) -> Result<FactorAnswer, AdminRefusal> {
        let user = user_name(&request.user)?;
        let secret = Secret::parse(&request.secret).ok_or_else(|| bad_request("this is no secret of an app"))?;
        let code: String = request.code.chars().filter(|character| !character.is_whitespace()).collect();
        let wrong = || AdminRefusal {
            status: 403,
            message: "that is not the code that the app shows now; if it is, the clock of the app's device or of this \
                      host is wrong"
                .to_owned(),
        };
        let step = secret.step_of(&code, clock.read()).ok_or_else(wrong)?;
        let key = ServiceKey::load_or_create(&self.config.load().state_dir).map_err(|error| of_key(&error))?;
        let sealed = key.sealer(FACTORS).seal(secret.as_bytes(), user.as_str().as_bytes());
        let sealed = sealed.map_err(|error| store_refusal(error.into()))?;
        let codes: Result<Vec<Code>, _> = (0..recovery::COUNT).map(|_| Code::random()).collect();
        let codes = codes.map_err(|error| store_refusal(error.into()))?;
        let hashes: Vec<[u8; 32]> = codes.iter().map(Code::hash).collect();
        self.store.set_factor(&user, &sealed, step, &hashes, clock).map_err(refusal)?;
        tracing::info!("a user has a new second factor");
        let recovery_codes = codes.iter().map(|code| code.text().to_string()).collect();
        Ok(FactorAnswer { user: user.to_string(), recovery_codes })
    }

    fn gift(&self, request: &PasswordRequest) -> Result<Gift, AdminRefusal> {
        if let Some(hash) = &request.password_hash {
            if request.lifetime_seconds.is_some() || !passwords::is_hash(hash) {
                return Err(bad_request("write a hash of argon2id, or a lifetime for a one-time code"));
            }
            return Ok(Gift { first: FirstPassword::Hash(hash.clone()), code: None });
        }
        let lifetime = request.lifetime_seconds.map_or(self.config.load().invite_lifetime, Duration::from_secs);
        if lifetime.is_zero() || lifetime > MAX_INVITE_LIFETIME {
            return Err(bad_request("a one-time code lives from 1s to 30d"));
        }
        let code = Code::random().map_err(|error| store_refusal(error.into()))?;
        let first = FirstPassword::Link { hash: code.hash(), seconds: lifetime.as_secs() };
        Ok(Gift { first, code: Some((code.text(), lifetime)) })
    }
}

impl Gift {
    fn answer(self, user: &UserName, now: SystemTime) -> PasswordAnswer {
        let user = user.to_string();
        let Some((code, lifetime)) = self.code else { return PasswordAnswer { user, code: None, expires: None } };
        let expires = humantime::format_rfc3339_seconds(now + lifetime).to_string();
        PasswordAnswer { user, code: Some(code.to_string()), expires: Some(expires) }
    }
}

fn of_key(error: &IdentityError) -> AdminRefusal {
    AdminRefusal { status: 503, message: adit_program::causes::with_causes(error) }
}

fn refusal(error: UserError) -> AdminRefusal {
    let status = match &error {
        UserError::NotFound(name) => return store_refusal(StoreError::NotFound(name.clone())),
        UserError::Exists(_) => {
            let message = format!("{error}; `adit-server user reset` gives a new password");
            return bad_request(message);
        }
        UserError::Linked(_) | UserError::NotLocal { .. } => 400,
        UserError::Store(_) => 503,
    };
    AdminRefusal { status, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{Recorder, admin, now, post};
    use super::*;
    use crate::config::Config;
    use crate::identity::DeviceCertificate;
    use crate::sources::local::totp::shown;
    use std::sync::Arc;

    const HASH: &str = "$argon2id$v=19$m=64,t=3,p=2$c29tZXNhbHRzb21lc2FsdA$1CPz4PuyeKkknCNTU5v52qlMt5LtwQsgM5BbeG7cH60";

    fn with_alice() -> (tempfile::TempDir, Admin) {
        let (directory, admin) = admin();
        post(&admin, "/user/add", json!({ "user": "Alice", "password_hash": HASH })).unwrap();
        (directory, admin)
    }

    fn listed(admin: &Admin) -> Value {
        admin.perform("GET", "/users", &Value::Null, now()).unwrap()["users"][0].clone()
    }

    #[test]
    fn user_is_added_once_with_a_password_or_a_code() {
        let (_directory, admin) = with_alice();
        assert_eq!(post(&admin, "/user/add", json!({ "user": "alice", "password_hash": HASH })).unwrap_err(), 400);
        let bob = post(&admin, "/user/add", json!({ "user": "bob", "lifetime_seconds": 60 })).unwrap();
        assert_eq!(bob["code"].as_str().unwrap().len(), 19);
        assert_eq!(bob["expires"], humantime::format_rfc3339_seconds(now() + Duration::from_secs(60)).to_string());
        let alice = listed(&admin);
        assert_eq!(
            (&alice["name"], &alice["has_password"], &alice["source"]),
            (&json!("alice"), &json!(true), &json!("local"))
        );
        for bad in [
            json!({ "user": "a b", "password_hash": HASH }),
            json!({ "user": "carol", "password_hash": "secret" }),
            json!({ "user": "carol", "password_hash": HASH, "lifetime_seconds": 60 }),
            json!({ "user": "carol", "lifetime_seconds": 0 }),
            json!({ "user": "carol", "lifetime_seconds": u64::MAX }),
            json!({ "user": "carol", "password": "secret" }),
        ] {
            assert_eq!(post(&admin, "/user/add", bad.clone()).unwrap_err(), 400, "{bad}");
        }
    }

    #[test]
    fn factor_counts_once_a_code_of_it_has_come_back() {
        let (_directory, admin) = with_alice();
        let offer = post(&admin, "/user/totp/offer", json!({ "user": "alice" })).unwrap();
        assert_eq!(listed(&admin)["has_factor"], false, "it is only offered");
        let secret = Secret::parse(offer["secret"].as_str().unwrap()).unwrap();
        let confirm = |code: &str| {
            post(&admin, "/user/totp", json!({ "user": "alice", "secret": offer["secret"], "code": code }))
        };
        let code = shown(&secret, now());
        let wrong = format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000);
        assert_eq!(confirm(&wrong).unwrap_err(), 403);
        assert_eq!(confirm("").unwrap_err(), 403);
        assert_eq!(listed(&admin)["has_factor"], false);
        let answer = confirm(&format!("{} {}", &code[..3], &code[3..])).unwrap();
        assert_eq!(answer["recovery_codes"].as_array().unwrap().len(), recovery::COUNT);
        assert_eq!((&listed(&admin)["has_factor"], &listed(&admin)["recovery_codes"]), (&json!(true), &json!(10)));
        let known = admin.store.local_user("alice").unwrap().unwrap();
        let used = admin.store.use_code("alice", &known.totp.unwrap(), secret.step_of(&code, now()).unwrap(), now());
        assert!(!used.unwrap(), "the code that confirmed it is used up");
        assert_eq!(post(&admin, "/user/totp/offer", json!({ "user": "nobody" })).unwrap_err(), 404);
        admin.store.link_person(&UserName::parse("alice").unwrap(), "ldap", "u-1").unwrap();
        assert_eq!(post(&admin, "/user/totp/offer", json!({ "user": "alice" })).unwrap_err(), 400, "another source's");
    }

    #[test]
    fn reset_takes_factor_and_password_together() {
        let (_directory, admin) = with_alice();
        let offer = post(&admin, "/user/totp/offer", json!({ "user": "alice" })).unwrap();
        let code = shown(&Secret::parse(offer["secret"].as_str().unwrap()).unwrap(), now());
        post(&admin, "/user/totp", json!({ "user": "alice", "secret": offer["secret"], "code": code })).unwrap();
        let reset = post(&admin, "/user/reset", json!({ "user": "alice" })).unwrap();
        assert!(reset["code"].is_string());
        let alice = listed(&admin);
        assert_eq!((&alice["has_factor"], &alice["has_password"]), (&json!(false), &json!(false)));
        assert_eq!(alice["recovery_codes"], 0);
        assert_eq!(post(&admin, "/user/reset", json!({ "user": "nobody" })).unwrap_err(), 404);
    }

    #[test]
    fn user_who_is_linked_belongs_to_the_other_source() {
        let (_directory, admin) = with_alice();
        let linked = |user: &str, source: &str, subject: &str| {
            post(&admin, "/user/link", json!({ "user": user, "source": source, "subject": subject }))
        };
        for (user, source, subject, status) in [
            ("nobody", "ldap", "u-1", 404),
            ("alice", "local", "alice", 400),
            ("alice", "pam", "u-1", 400),
            ("alice", "ldap", "", 400),
        ] {
            assert_eq!(linked(user, source, subject).unwrap_err(), status, "{user} {source} {subject}");
        }
        assert_eq!(listed(&admin)["has_password"], true, "nothing changed by that");
        linked("alice", "ldap", "u-1").unwrap();
        let alice = listed(&admin);
        assert_eq!((&alice["source"], &alice["has_password"]), (&json!("ldap"), &json!(false)));
        post(&admin, "/user/add", json!({ "user": "bob", "password_hash": HASH })).unwrap();
        assert_eq!(linked("bob", "ldap", "u-1").unwrap_err(), 400, "it is Alice");
    }

    #[test]
    fn user_of_a_provider_is_linked_by_issuer_and_subject() {
        let (_directory, admin) = with_alice();
        let link = |admin: &Admin, source: &str, subject: &str, issuer: Option<&str>| {
            let body = json!({ "user": "alice", "source": source, "subject": subject, "issuer": issuer });
            post(admin, "/user/link", body).map(|_| admin.store.person("alice").unwrap().unwrap().subject.unwrap())
        };
        let (ours, other) = ("https://login.example.org", "https://other.example.org/a");
        for (source, subject, issuer) in [
            ("oidc", "42", None),
            ("oidc", "", Some(ours)),
            ("oidc", "42", Some("login.example.org")),
            ("oidc", "42", Some("https://login.example.org 7")),
            ("oidc", "https://login.example.org 42", Some(ours)),
            ("ldap", "u-1", Some(ours)),
        ] {
            assert_eq!(link(&admin, source, subject, issuer), Err(400), "{source} {subject} {issuer:?}");
        }
        assert_eq!(listed(&admin)["has_password"], true, "nothing changed by that");
        assert_eq!(link(&admin, "oidc", "42", Some(other)).unwrap(), "https://other.example.org/a 42");
        let mut config = Config::clone(&admin.config.load());
        config.oidc.issuer = Some(ours.to_owned());
        admin.config.store(Arc::new(config));
        assert_eq!(link(&admin, "oidc", "42", None).unwrap(), "https://login.example.org 42");
        assert_eq!(link(&admin, "oidc", "42", Some(other)).unwrap(), "https://other.example.org/a 42");
    }

    #[test]
    fn reset_ends_the_sessions_that_go_on_a_login_and_no_others() {
        let (_directory, offline) = admin();
        let recorder = Arc::new(Recorder::default());
        let live = Arc::<Recorder>::clone(&recorder);
        let store = Arc::clone(&offline.store);
        let admin = Admin::new(offline.store, offline.authority, offline.config, live);
        let (alice, now) = (UserName::parse("alice").unwrap(), SystemTime::now());
        post(&admin, "/user/add", json!({ "user": "alice", "password_hash": HASH })).unwrap();
        post(&admin, "/token", json!({ "user": "alice" })).unwrap();
        let sign = |_: &str, _: &str| {
            let (serial, not_after) = ("01".to_owned(), now + Duration::from_secs(60));
            Ok::<_, std::convert::Infallible>(DeviceCertificate { pem: String::new(), serial, not_after })
        };
        store.begin_logins_of("alice", &[[1; 16]]);
        let by_login = store.enroll_by_login((&alice, &[1; 16]), &[2; 32], "laptop", now, sign).unwrap().device.id;
        post(&admin, "/user/reset", json!({ "user": "alice" })).unwrap();
        assert_eq!(*recorder.closed.lock().unwrap(), [by_login]);
    }

    #[test]
    fn disabling_ends_the_sessions_of_that_user_alone() {
        let (_directory, offline) = admin();
        let recorder = Arc::new(Recorder::default());
        let live = Arc::<Recorder>::clone(&recorder);
        let admin = Admin::new(offline.store, offline.authority, offline.config, live);
        let device = |user: &str| {
            let token = post(&admin, "/token", json!({ "user": user })).unwrap();
            token["device"].as_str().unwrap().to_owned()
        };
        let (alice, _bob) = (device("alice"), device("bob"));
        let disabled = post(&admin, "/user/disable", json!({ "user": "alice" })).unwrap();
        assert_eq!((&disabled["changed"], &disabled["sessions"]), (&json!(true), &json!(1)));
        assert_eq!(*recorder.closed.lock().unwrap(), [alice]);
        assert!(listed(&admin)["disabled_at"].is_number());
        let enabled = post(&admin, "/user/enable", json!({ "user": "alice" })).unwrap();
        assert_eq!((&enabled["changed"], &enabled["sessions"]), (&json!(true), &json!(0)));
        assert_eq!(post(&admin, "/user/enable", json!({ "user": "alice" })).unwrap()["changed"], false);
        assert_eq!(post(&admin, "/user/disable", json!({ "user": "nobody" })).unwrap_err(), 404);
    }
}
