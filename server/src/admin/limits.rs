//! The verbs that look at the limits of logins and forgive what they hold against a network or a user.

use std::net::IpAddr;
use std::sync::Arc;

use adit_program::foreign_text::printable;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Admin, AdminRefusal, bad_request};
use crate::accounts::UserName;
use crate::core::login::logins::Logins;

/// The networks from which no stranger may try to log in now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BansAnswer {
    /// Each of them.
    pub bans: Vec<BanInfo>,
}

/// A network from which no stranger may try to log in now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BanInfo {
    /// One address, or a network.
    pub network: String,
    /// Seconds until the next try.
    pub seconds: u64,
}

/// Asks to forget the failures from a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnbanRequest {
    /// An address or a network.
    pub network: String,
}

/// Asks to forget the failures of a user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlockRequest {
    /// The user's name, or another by which the user logs in.
    pub user: String,
}

/// What was forgiven.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgivenAnswer {
    /// The network or user, in canonical form.
    pub name: String,
    /// Whether there was anything.
    pub changed: bool,
}

impl Admin {
    pub(super) fn bans(&self) -> Result<BansAnswer, AdminRefusal> {
        let bans = self.logins()?.bans().into_iter();
        let info = bans.map(|ban| BanInfo { network: short(ban.network), seconds: ban.remaining.as_secs() + 1 });
        Ok(BansAnswer { bans: info.collect() })
    }

    pub(super) fn unban(&self, request: &UnbanRequest) -> Result<ForgivenAnswer, AdminRefusal> {
        let network = parse_network(&request.network)
            .ok_or_else(|| bad_request(format!("{:?} is neither an address nor a network", request.network)))?;
        let changed = self.logins()?.unban(network);
        tracing::info!(changed, "failed logins from a network are forgotten");
        Ok(ForgivenAnswer { name: short(network), changed })
    }

    pub(super) fn unlock(&self, request: &UnlockRequest) -> Result<ForgivenAnswer, AdminRefusal> {
        // Sources take names that nobody can have here.
        let name = UserName::parse(&request.user).map_or_else(|_| printable(&request.user), |user| user.to_string());
        let changed = self.logins()?.unlock(&request.user);
        tracing::info!(changed, "failed logins of a user are forgotten");
        Ok(ForgivenAnswer { name, changed })
    }

    /// Only a running gateway has them: they are nowhere but in its memory.
    fn logins(&self) -> Result<Arc<Logins>, AdminRefusal> {
        let none = || AdminRefusal { status: 409, message: "the gateway lets nobody log in".to_owned() };
        self.live()?.logins().ok_or_else(none)
    }
}

/// One address stands for itself, or for the /64 that it is in.
fn parse_network(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    address.or_else(|_| text.parse::<IpNet>().map(|network| network.trunc())).ok()
}

/// A network of one IPv4 address as the address.
fn short(network: IpNet) -> String {
    match network {
        IpNet::V4(v4) if v4.prefix_len() == 32 => v4.addr().to_string(),
        IpNet::V4(_) | IpNet::V6(_) => network.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::time::Duration;

    use adit_proto::login::{Person, Verdict};
    use serde_json::{Value, json};
    use zeroize::Zeroizing;

    use super::super::tests::{Recorder, admin, now, post};
    use super::*;
    use crate::admin::{GatewayStatus, LiveGateway, SessionInfo};
    use crate::core::login::logins::LoginWish;
    use crate::core::personal::PersonalTerms;
    use crate::core::sessions::Ending;
    use crate::identity::ServiceKey;
    use crate::reload::{ReloadAnswer, ReloadRefusal, ReloadRequest};
    use crate::sources::{Answering, LinkWish, Origin, Recheck, Source};

    /// A gateway that lets users log in.
    struct Open(Recorder, Arc<Logins>);

    impl LiveGateway for Open {
        fn sessions(&self) -> Vec<SessionInfo> {
            self.0.sessions()
        }

        fn status(&self) -> GatewayStatus {
            self.0.status()
        }

        fn close_device(&self, device: &str, why: Ending) -> usize {
            self.0.close_device(device, why)
        }

        fn personal_terms(&self) -> Arc<PersonalTerms> {
            self.0.personal_terms()
        }

        fn reload(&self, request: ReloadRequest) -> Result<ReloadAnswer, ReloadRefusal> {
            self.0.reload(request)
        }

        fn announce_restart(&self, back_in: Duration) {
            self.0.announce_restart(back_in);
        }

        fn logins(&self) -> Option<Arc<Logins>> {
            Some(Arc::clone(&self.1))
        }
    }

    async fn fail(logins: &Logins, number: u32) {
        let given = [("user", "alice".to_owned()), ("password", number.to_string())];
        let answers = given.into_iter().map(|(name, answer)| (name.to_owned(), answer.into())).collect();
        let origin = Origin { address: [192, 0, 2, 7].into(), device: None };
        logins.advance(LoginWish { handle: None, answers, link: LinkWish::DeviceCode, origin }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_forgiven_by_user_and_by_network() {
        let (_directory, offline) = admin();
        let key = ServiceKey::load_or_create(&offline.config.load().state_dir).unwrap();
        let source: Arc<dyn Source> = Arc::new(Nobody);
        let logins = Logins::new(vec![source], Arc::clone(&offline.store), &key, [1; 32], Duration::from_secs(60));
        let logins = Arc::new(logins);
        let live = Arc::new(Open(Recorder::default(), Arc::clone(&logins)));
        let admin = Admin::new(offline.store, offline.authority, offline.config, live);
        let bans = || admin.perform("GET", "/bans", &Value::Null, now()).unwrap()["bans"].clone();
        for number in 0..5 {
            fail(&logins, number).await;
        }
        assert_eq!(bans(), json!([]));
        let answer = json!({ "name": "alice", "changed": true });
        assert_eq!(post(&admin, "/unlock", json!({ "user": "Alice" })), Ok(answer));
        assert_eq!(post(&admin, "/unlock", json!({ "user": "alice" })).unwrap()["changed"], false);
        // Whoever lets somebody in again means it.
        post(&admin, "/user/add", json!({ "user": "alice", "lifetime_seconds": 60 })).unwrap();
        for verb in ["/user/disable", "/user/enable"] {
            fail(&logins, 0).await;
            post(&admin, verb, json!({ "user": "alice" })).unwrap();
            let forgotten = !logins.unlock("alice");
            assert_eq!(forgotten, verb == "/user/enable", "{verb}");
        }
        for number in 5..10 {
            fail(&logins, number).await;
        }
        assert_eq!(bans()[0]["network"], "192.0.2.7");
        assert_eq!(post(&admin, "/unban", json!({ "network": "198.51.100.0/24" })).unwrap()["changed"], false);
        assert_eq!(post(&admin, "/unban", json!({ "network": "192.0.2.7" })).unwrap()["changed"], true);
        assert_eq!(bans(), json!([]));
        assert_eq!(post(&admin, "/unban", json!({ "network": "nonsense" })), Err(400));
        let unknown = post(&admin, "/unlock", json!({ "user": "CORP\\\u{1b}" })).unwrap();
        assert_eq!(unknown, json!({ "name": "CORP\\\\u{1b}", "changed": false }), "it is safe to show");
    }

    #[test]
    fn stopped_gateway_holds_nothing_against_anybody() {
        let (_directory, admin) = admin();
        assert_eq!(admin.perform("GET", "/bans", &Value::Null, now()).unwrap_err().status, 409);
        assert_eq!(post(&admin, "/unlock", json!({ "user": "alice" })), Err(409));
        assert_eq!(post(&admin, "/unban", json!({ "network": "192.0.2.7" })), Err(409));
    }

    /// A source that knows nobody.
    struct Nobody;

    impl Source for Nobody {
        fn name(&self) -> &'static str {
            "local"
        }

        fn check<'a>(&'a self, _name: &'a str, _password: &'a Zeroizing<String>, _origin: &'a Origin) -> Answering<'a> {
            Box::pin(async { Verdict::Unknown })
        }

        fn answer<'a>(
            &'a self,
            _state: &'a [u8],
            _answer: &'a Zeroizing<String>,
            _origin: &'a Origin,
        ) -> Answering<'a> {
            Box::pin(async { Verdict::Unknown })
        }

        fn recheck<'a>(&'a self, _person: &'a Person) -> Pin<Box<dyn Future<Output = Recheck> + Send + 'a>> {
            Box::pin(async { Recheck::Unknown(String::new()) })
        }
    }
}
