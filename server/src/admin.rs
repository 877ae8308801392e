//! The verbs of administration, once: the admin socket of a running gateway and the command line of a stopped one both
//! come here.
//!
//! | method | path | body | answer |
//! | --- | --- | --- | --- |
//! | GET | `/users` | | `{"users": […]}` |
//! | GET | `/devices` | | `{"devices": […]}` |
//! | GET | `/sessions` | | `{"sessions": […]}` |
//! | GET | `/status` | | [`GatewayStatus`] |
//! | POST | `/invite` | [`InviteRequest`] | [`InviteAnswer`] |
//! | POST | `/token` | [`TokenRequest`] | [`TokenAnswer`] |
//! | POST | `/revoke` | [`RevokeRequest`] | [`RevokeAnswer`] |
//! | POST | `/reload` | [`ReloadRequest`](crate::reload::ReloadRequest) | [`ReloadAnswer`](crate::reload::ReloadAnswer) |
//! | POST | `/announce` | [`AnnounceRequest`] | [`AnnounceRequest`] |
//! | POST | `/explain` | [`ExplainRequest`] | [`Explanation`](crate::policy::explain::Explanation) |
//! | GET | `/bans` | | [`BansAnswer`] |
//! | POST | `/unban` | [`UnbanRequest`] | [`ForgivenAnswer`] |
//! | POST | `/unlock` | [`UnlockRequest`] | [`ForgivenAnswer`] |
//! | POST | `/user/add` | [`PasswordRequest`] | [`PasswordAnswer`] |
//! | POST | `/user/reset` | [`PasswordRequest`] | [`PasswordAnswer`] |
//! | POST | `/user/disable`, `/user/enable` | [`UserRequest`] | [`StandingAnswer`] |
//! | POST | `/user/link` | [`LinkRequest`] | [`StandingAnswer`] |
//! | POST | `/user/totp/offer` | [`UserRequest`] | [`FactorOffer`] |
//! | POST | `/user/totp` | [`FactorRequest`] | [`FactorAnswer`] |

mod announce;
mod explain;
mod invites;
mod limits;
mod live;
mod revoke;
mod users;

use std::sync::Arc;

use adit_net::control::{Handler, Handling, Request, Response};
use adit_program::foreign_text::printable;
use arc_swap::ArcSwap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::accounts::UserName;
use crate::accounts::sqlite::{Clock, HostClock, Store, StoreError};
use crate::config::Config;
use crate::identity::Authority;
use crate::trail::TRAIL;

pub use announce::AnnounceRequest;
pub use explain::ExplainRequest;
pub use invites::{InviteAnswer, InviteRequest, MAX_INVITE_LIFETIME, TokenAnswer, TokenRequest};
pub use limits::{BanInfo, BansAnswer, ForgivenAnswer, UnbanRequest, UnlockRequest};
pub use live::{CertificateReport, GatewayStatus, GatewayView, LiveGateway, SessionInfo};
pub use revoke::{RevokeAnswer, RevokeRequest};
pub use users::{
    FactorAnswer, FactorOffer, FactorRequest, LinkRequest, PasswordAnswer, PasswordRequest, StandingAnswer, UserRequest,
};

/// A refusal: an HTTP status and the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRefusal {
    /// 400 for a bad request, 403 for a wrong code, 404 for what does not exist, 409 when only a running gateway can
    /// answer, 503 when the store failed.
    pub status: u16,
    /// The reason.
    pub message: String,
}

/// The administration of one gateway, running or stopped.
#[derive(Clone)]
pub struct Admin {
    store: Arc<Store>,
    authority: Arc<Authority>,
    config: Arc<ArcSwap<Config>>,
    live: Option<Arc<dyn LiveGateway>>,
}

impl Admin {
    /// The administration of a running gateway.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        authority: Arc<Authority>,
        config: Arc<ArcSwap<Config>>,
        live: Arc<dyn LiveGateway>,
    ) -> Self {
        Self { store, authority, config, live: Some(live) }
    }

    /// The administration of a stopped gateway.
    #[must_use]
    pub fn offline(store: Arc<Store>, authority: Arc<Authority>, config: Arc<Config>) -> Self {
        Self { store, authority, config: Arc::new(ArcSwap::new(config)), live: None }
    }

    /// Does what one request asks. Blocks for the time of a store transaction.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn perform(&self, method: &str, path: &str, body: &Value, clock: impl Clock) -> Result<Value, AdminRefusal> {
        let now = || clock.read();
        match (method, path) {
            ("GET", "/users") => Ok(json!({ "users": self.store.users(now()).map_err(store_refusal)? })),
            ("GET", "/devices") => Ok(json!({ "devices": self.store.devices().map_err(store_refusal)? })),
            ("GET", "/sessions") => Ok(json!({ "sessions": self.live()?.sessions() })),
            ("GET", "/status") => {
                let mut status = self.live()?.status();
                status.warnings.extend(self.warnings());
                encode(status)
            }
            ("POST", "/invite") => encode(self.invite(&decode(body)?, clock)?),
            ("POST", "/token") => encode(self.token(&decode(body)?, now())?),
            ("POST", "/revoke") => encode(self.revoke(&decode(body)?, now())?),
            ("GET", "/bans") => encode(self.bans()?),
            ("POST", "/unban") => encode(self.unban(&decode(body)?)?),
            ("POST", "/unlock") => encode(self.unlock(&decode(body)?)?),
            ("POST", "/user/add") => encode(self.add_user(&decode(body)?, clock)?),
            ("POST", "/user/reset") => encode(self.reset_user(&decode(body)?, clock)?),
            ("POST", "/user/disable") => encode(self.set_disabled(&decode(body)?, true, now())?),
            ("POST", "/user/enable") => encode(self.set_disabled(&decode(body)?, false, now())?),
            ("POST", "/user/link") => encode(self.link_user(&decode(body)?)?),
            ("POST", "/user/totp/offer") => encode(self.offer_factor(&decode(body)?)?),
            ("POST", "/user/totp") => encode(self.confirm_factor(&decode(body)?, clock)?),
            ("POST", "/reload") => {
                encode(self.live()?.reload(decode(body)?).map_err(|refusal| bad_request(refusal.0))?)
            }
            ("POST", "/announce") => encode(self.announce(decode(body)?)?),
            ("POST", "/explain") => encode(self.explain(&decode(body)?)?),
            _ => Err(AdminRefusal { status: 404, message: format!("no such request: {method} {path}") }),
        }
    }

    fn live(&self) -> Result<&dyn LiveGateway, AdminRefusal> {
        let stopped = || AdminRefusal { status: 409, message: "the gateway is not running".to_owned() };
        self.live.as_deref().ok_or_else(stopped)
    }
}

impl Handler for Admin {
    fn handle(&self, request: Request) -> Handling<'_> {
        let admin = self.clone();
        Box::pin(async move {
            let line = Line::of(&request);
            let perform = move || admin.perform(&request.method, &request.path, &request.body, HostClock);
            let done = tokio::task::spawn_blocking(perform).await;
            if let Some(line) = line {
                line.write(matches!(done, Ok(Ok(_))));
            }
            match done {
                Ok(Ok(body)) => Response::ok(body),
                Ok(Err(refused)) => Response::refused(refused.status, refused.message),
                Err(_) => Response::refused(500, "the request failed inside the gateway"),
            }
        })
    }
}

/// What the log says of a request that changes something.
struct Line {
    uid: u32,
    verb: String,
    whom: String,
}

impl Line {
    fn of(request: &Request) -> Option<Self> {
        let changes = request.method == "POST" && request.path != "/explain";
        let named = ["user", "name", "network"].iter().find_map(|key| request.body.get(key)?.as_str());
        let (verb, whom) = (printable(&request.path), printable(named.unwrap_or_default()));
        changes.then_some(Self { uid: request.peer_uid, verb, whom })
    }

    fn write(&self, done: bool) {
        let Self { uid, verb, whom } = self;
        tracing::info!(uid, verb, done, "administered");
        tracing::debug!(target: TRAIL, uid, verb, whom, done, "administered");
    }
}

fn user_name(text: &str) -> Result<UserName, AdminRefusal> {
    UserName::parse(text).map_err(|error| bad_request(error.to_string()))
}

fn bad_request(message: impl Into<String>) -> AdminRefusal {
    AdminRefusal { status: 400, message: message.into() }
}

fn store_refusal(error: StoreError) -> AdminRefusal {
    match error {
        StoreError::NotFound(name) => AdminRefusal { status: 404, message: format!("no such user or device: {name}") },
        other @ (StoreError::Sqlite(_)
        | StoreError::Unguarded(_)
        | StoreError::Create(_)
        | StoreError::Clock(_)
        | StoreError::TooNew { .. }
        | StoreError::Randomness(_)) => AdminRefusal { status: 503, message: other.to_string() },
    }
}

fn decode<T: DeserializeOwned>(body: &Value) -> Result<T, AdminRefusal> {
    T::deserialize(body).map_err(|error| bad_request(error.to_string()))
}

fn encode(answer: impl Serialize) -> Result<Value, AdminRefusal> {
    serde_json::to_value(answer).map_err(|error| AdminRefusal { status: 500, message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::{Duration, SystemTime};

    use adit_proto::packet::icmp::GatewayAddresses;

    use super::*;
    use crate::config::config_for_tests;
    use crate::core::personal::PersonalTerms;
    use crate::core::sessions::Ending;
    use crate::directories::StateDir;
    use crate::reload::{ReloadAnswer, ReloadRefusal, ReloadRequest};

    #[derive(Default)]
    pub(super) struct Recorder {
        pub(super) closed: Mutex<Vec<String>>,
        pub(super) announced: Mutex<Option<Duration>>,
    }

    impl LiveGateway for Recorder {
        fn sessions(&self) -> Vec<SessionInfo> {
            Vec::new()
        }

        fn status(&self) -> GatewayStatus {
            GatewayStatus {
                version: "0".into(),
                uptime_seconds: 1,
                listen: vec![],
                tun: "adit0".into(),
                workers: 1,
                sessions: 0,
                drops: std::collections::BTreeMap::default(),
                passwords: None,
                logins_turned_away: std::collections::BTreeMap::default(),
                guards: Vec::new(),
                certificates: Vec::new(),
                warnings: Vec::new(),
            }
        }

        fn personal_terms(&self) -> Arc<PersonalTerms> {
            Arc::new(PersonalTerms::new(&config_for_tests(Path::new("/nowhere")), GatewayAddresses::default(), None))
        }

        fn reload(&self, request: ReloadRequest) -> Result<ReloadAnswer, ReloadRefusal> {
            let applied = vec!["routes".to_owned()];
            let refusal = || ReloadRefusal("pool.v4: changed".to_owned());
            request.partial.then(|| ReloadAnswer { applied, ..ReloadAnswer::default() }).ok_or_else(refusal)
        }

        fn announce_restart(&self, back_in: Duration) {
            *self.announced.lock().unwrap() = Some(back_in);
        }

        fn close_device(&self, device: &str, _why: Ending) -> usize {
            self.closed.lock().unwrap().push(device.to_owned());
            1
        }
    }

    pub(super) fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    pub(super) fn admin() -> (tempfile::TempDir, Admin) {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
        let authority = Arc::new(Authority::create(&StateDir::new(directory.path()), now()).unwrap());
        let state_dir = StateDir::new(directory.path());
        let config = Arc::new(Config { state_dir, ..config_for_tests(Path::new("/nowhere")) });
        (directory, Admin::offline(store, authority, config))
    }

    pub(super) fn post(admin: &Admin, path: &str, body: Value) -> Result<Value, u16> {
        admin.perform("POST", path, &body, now()).map_err(|refused| refused.status)
    }

    #[test]
    fn invite_names_the_public_address_the_pin_and_its_end() {
        let (_directory, admin) = admin();
        let answer = post(&admin, "/invite", json!({ "user": "Alice", "lifetime_seconds": 60 })).unwrap();
        let answer: InviteAnswer = serde_json::from_value(answer).unwrap();
        assert_eq!(answer.user, "alice");
        assert!(answer.link.starts_with("adit://join/vpn.example.org:443#"));
        assert_eq!(answer.expires, humantime::format_rfc3339_seconds(now() + Duration::from_secs(60)).to_string());
    }

    #[test]
    fn bad_requests_are_refused() {
        let (_directory, admin) = admin();
        assert_eq!(post(&admin, "/invite", json!({ "user": "a b" })), Err(400));
        assert_eq!(post(&admin, "/invite", json!({ "user": "alice", "lifetime_seconds": 0 })), Err(400));
        assert_eq!(post(&admin, "/invite", json!({ "user": "alice", "lifetime_seconds": u64::MAX })), Err(400));
        assert_eq!(post(&admin, "/invite", json!({ "nobody": 1 })), Err(400));
        assert_eq!(post(&admin, "/invite", Value::Null), Err(400));
        assert_eq!(post(&admin, "/revoke", json!({ "name": "nobody" })), Err(404));
        assert_eq!(post(&admin, "/etc/passwd", Value::Null), Err(404));
        assert_eq!(post(&admin, "/users", Value::Null), Err(404));
    }

    #[test]
    fn stopped_gateway_lists_users_but_has_no_sessions() {
        let (_directory, admin) = admin();
        post(&admin, "/invite", json!({ "user": "alice" })).unwrap();
        let users = admin.perform("GET", "/users", &Value::Null, now()).unwrap();
        assert_eq!(users["users"][0]["name"], "alice");
        assert_eq!(admin.perform("GET", "/sessions", &Value::Null, now()).unwrap_err().status, 409);
        assert_eq!(admin.perform("GET", "/status", &Value::Null, now()).unwrap_err().status, 409);
    }

    #[test]
    fn reload_is_the_running_gateways() {
        let (_directory, offline) = admin();
        assert_eq!(post(&offline, "/reload", json!({})), Err(409));
        let live = Arc::<Recorder>::default();
        let admin = Admin::new(offline.store, offline.authority, offline.config, live);
        assert_eq!(post(&admin, "/reload", json!({})), Err(400));
        assert_eq!(post(&admin, "/reload", json!({ "partial": true })).unwrap()["applied"], json!(["routes"]));
    }

    #[test]
    fn revocation_ends_the_live_sessions_of_each_device() {
        let (_directory, offline) = admin();
        let recorder = Arc::new(Recorder::default());
        let live = Arc::<Recorder>::clone(&recorder);
        let admin = Admin::new(offline.store, offline.authority, offline.config, live);
        let token = post(&admin, "/token", json!({ "user": "alice" })).unwrap();
        // Nobody writes here: the answer comes all the same, and says so.
        let answer = post(&admin, "/revoke", json!({ "name": "alice" })).unwrap();
        assert_eq!(answer["sessions"], 1);
        assert!(answer["unwritten"].is_string(), "{answer}");
        let warnings =
            |admin: &Admin| admin.perform("GET", "/status", &Value::Null, now()).unwrap()["warnings"].clone();
        assert!(warnings(&admin)[0].as_str().unwrap().contains("not written"));
        admin.store.write_revocations().unwrap();
        assert_eq!(warnings(&admin), json!([]));
        assert_eq!(*recorder.closed.lock().unwrap(), [token["device"].as_str().unwrap()]);
    }

    #[tokio::test]
    async fn socket_requests_reach_the_same_verbs() {
        let (_directory, admin) = admin();
        let request =
            |method: &str, path: &str, body| Request { method: method.into(), path: path.into(), body, peer_uid: 0 };
        let made = admin.handle(request("POST", "/token", json!({ "user": "alice" }))).await;
        assert_eq!(made.status, 200);
        let refused = admin.handle(request("GET", "/sessions", Value::Null)).await;
        assert_eq!(refused.status, 409);
    }
}
