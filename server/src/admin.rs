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

mod live;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_net::control::{Handler, Handling, Request, Response};
use adit_proto::invite::{Invite, MOST_PLACES, Place};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::accounts::sqlite::{Store, StoreError, Written};
use crate::accounts::{Revoked, UserName};
use crate::config::{Config, PublicAddress};
use crate::identity::Authority;

pub use live::{GatewayStatus, GatewayView, LiveGateway, SessionInfo};

/// Longest life of an invite, whoever asks.
pub const MAX_INVITE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a revocation that holds already may wait to be written, before its answer says that it is not.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// Asks for an invite.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// The user.
    pub user: String,
    /// Lifetime; the configured one when absent.
    pub lifetime_seconds: Option<u64>,
}

/// A new invite. Its link is a secret, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct InviteAnswer {
    /// The user, in canonical form.
    pub user: String,
    /// The link, which admits one device.
    pub link: String,
    /// End of the invite, RFC 3339.
    pub expires: String,
}

/// Asks for a bearer token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The user.
    pub user: String,
}

/// A new bearer token, which is a secret, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The user, in canonical form.
    pub user: String,
    /// The device the token stands for.
    pub device: String,
    /// The token.
    pub token: String,
}

/// Asks to shut out a device or a user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// A user's name or a device's id.
    pub name: String,
}

/// What was shut out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevokeAnswer {
    /// The devices that may not connect any longer.
    pub devices: Vec<String>,
    /// Unused invites withdrawn.
    pub invites: u32,
    /// Sessions that were ended.
    pub sessions: usize,
    /// Why it is not on disk yet, though it holds; absent once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritten: Option<String>,
}

/// A refusal: an HTTP status and the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRefusal {
    /// 400 for a bad request, 404 for what does not exist, 409 when only a running gateway can answer, 503 when the
    /// store failed.
    pub status: u16,
    /// The reason.
    pub message: String,
}

/// The administration of one gateway, running or stopped.
#[derive(Clone)]
pub struct Admin {
    store: Arc<Store>,
    authority: Arc<Authority>,
    config: Arc<Config>,
    live: Option<Arc<dyn LiveGateway>>,
}

impl Admin {
    /// The administration of a running gateway.
    #[must_use]
    pub fn new(store: Arc<Store>, authority: Arc<Authority>, config: Arc<Config>, live: Arc<dyn LiveGateway>) -> Self {
        Self { store, authority, config, live: Some(live) }
    }

    /// The administration of a stopped gateway.
    #[must_use]
    pub fn offline(store: Arc<Store>, authority: Arc<Authority>, config: Arc<Config>) -> Self {
        Self { store, authority, config, live: None }
    }

    /// Does what one request asks. Blocks for the time of a store transaction.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn perform(&self, method: &str, path: &str, body: &Value, now: SystemTime) -> Result<Value, AdminRefusal> {
        match (method, path) {
            ("GET", "/users") => Ok(json!({ "users": self.store.users(now).map_err(store_refusal)? })),
            ("GET", "/devices") => Ok(json!({ "devices": self.store.devices().map_err(store_refusal)? })),
            ("GET", "/sessions") => Ok(json!({ "sessions": self.live()?.sessions() })),
            ("GET", "/status") => encode(GatewayStatus { warnings: self.warnings(), ..self.live()?.status() }),
            ("POST", "/invite") => encode(self.invite(&decode(body)?, now)?),
            ("POST", "/token") => encode(self.token(&decode(body)?, now)?),
            ("POST", "/revoke") => encode(self.revoke(&decode(body)?, now)?),
            _ => Err(AdminRefusal { status: 404, message: format!("no such request: {method} {path}") }),
        }
    }

    fn live(&self) -> Result<&dyn LiveGateway, AdminRefusal> {
        let stopped = || AdminRefusal { status: 409, message: "the gateway is not running".to_owned() };
        self.live.as_deref().ok_or_else(stopped)
    }

    fn invite(&self, request: &InviteRequest, now: SystemTime) -> Result<InviteAnswer, AdminRefusal> {
        let user = user_name(&request.user)?;
        let lifetime = request.lifetime_seconds.map_or(self.config.invite_lifetime, Duration::from_secs);
        if lifetime.is_zero() || lifetime > MAX_INVITE_LIFETIME {
            return Err(bad_request("an invite lives from 1s to 30d"));
        }
        let Some((public, others)) = self.config.public.split_first() else {
            return Err(bad_request("the configuration names no public address"));
        };
        let place = |other: &PublicAddress| Place { host: other.host.clone(), port: other.port };
        let others = others.iter().take(MOST_PLACES - 1).map(place).collect();
        let code = self.store.invite(&user, lifetime, now).map_err(store_refusal)?;
        let (host, port, pin) = (public.host.clone(), public.port, self.authority.pin());
        let invite = Invite { host, port, others, pin, code };
        let expires = humantime::format_rfc3339_seconds(now + lifetime).to_string();
        Ok(InviteAnswer { user: user.to_string(), link: invite.to_string(), expires })
    }

    fn token(&self, request: &TokenRequest, now: SystemTime) -> Result<TokenAnswer, AdminRefusal> {
        let user = user_name(&request.user)?;
        let (device, token) = self.store.token(&user, now).map_err(store_refusal)?;
        Ok(TokenAnswer { user: device.user, device: device.id, token })
    }

    /// Revokes in the accounts first: a session that ends cannot come back. A running gateway does so in memory, then
    /// ends the sessions, and waits for the disk last and not for long.
    fn revoke(&self, request: &RevokeRequest, now: SystemTime) -> Result<RevokeAnswer, AdminRefusal> {
        let Some(live) = &self.live else {
            let Revoked { devices, invites } = self.store.revoke(&request.name, now).map_err(store_refusal)?;
            return Ok(RevokeAnswer { devices, invites, sessions: 0, unwritten: None });
        };
        let Revoked { devices, invites } = self.store.shut_out(&request.name, now).map_err(store_refusal)?;
        let sessions = devices.iter().map(|device| live.close_device(device)).sum();
        tracing::info!(devices = devices.len(), sessions, "revoked");
        let unwritten = match self.store.wait_for_revocations(DISK_PATIENCE) {
            Written::All => None,
            Written::NotYet { reason } => Some(reason),
        };
        Ok(RevokeAnswer { devices, invites, sessions, unwritten })
    }

    /// What administrators should know of a gateway that runs.
    fn warnings(&self) -> Vec<String> {
        match self.store.revocations() {
            Written::All => Vec::new(),
            Written::NotYet { reason } => vec![format!(
                "revocations hold, but are not written yet and would be lost in a restart: {reason}; \
                 mend the disk of the state directory"
            )],
        }
    }
}

impl Handler for Admin {
    fn handle(&self, request: Request) -> Handling<'_> {
        let admin = self.clone();
        Box::pin(async move {
            let perform = move || admin.perform(&request.method, &request.path, &request.body, SystemTime::now());
            match tokio::task::spawn_blocking(perform).await {
                Ok(Ok(body)) => Response::ok(body),
                Ok(Err(refused)) => Response::refused(refused.status, refused.message),
                Err(_) => Response::refused(500, "the request failed inside the gateway"),
            }
        })
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

    use super::*;
    use crate::config::config_for_tests;
    use crate::directories::StateDir;

    #[derive(Default)]
    struct Recorder {
        closed: Mutex<Vec<String>>,
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
                guards: Vec::new(),
                warnings: Vec::new(),
            }
        }

        fn close_device(&self, device: &str) -> usize {
            self.closed.lock().unwrap().push(device.to_owned());
            1
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn admin() -> (tempfile::TempDir, Admin) {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
        let authority = Arc::new(Authority::create(&StateDir::new(directory.path()), now()).unwrap());
        let config = Arc::new(config_for_tests(Path::new("/nowhere")));
        (directory, Admin::offline(store, authority, config))
    }

    fn post(admin: &Admin, path: &str, body: Value) -> Result<Value, u16> {
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
