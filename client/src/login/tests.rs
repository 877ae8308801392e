//! Logins, and what they are worth, at a double of a gateway.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::*;
use crate::gateway_contact::Trust;
use crate::gateway_double::{Answers, Authority, GatewayDouble};
use crate::join::join_by_login;
use crate::profile::ProfileStore;

/// Somebody who answers from a list.
#[derive(Default)]
struct Scripted {
    answers: Vec<(&'static str, &'static str)>,
    has_browser: bool,
    shown: Vec<String>,
    opened: Vec<Link>,
    waited: usize,
}

impl Person for Scripted {
    fn answer(&mut self, text: &str, fields: &[LoginField]) -> Result<BTreeMap<String, String>, Failure> {
        self.shown.push(text.to_owned());
        self.shown.extend(fields.iter().map(|field| field.label.clone()));
        let answer = |field: &LoginField| {
            let known = self.answers.iter().find(|(name, _)| *name == field.name);
            known.map(|(name, answer)| ((*name).to_owned(), (*answer).to_owned()))
        };
        Ok(fields.iter().filter_map(answer).collect())
    }

    fn open(&mut self, link: &Link) -> Result<(), Failure> {
        self.opened.push(link.clone());
        Ok(())
    }

    fn wait(&mut self) {
        self.waited += 1;
    }

    fn has_browser(&self) -> bool {
        self.has_browser
    }
}

fn alice() -> Scripted {
    let answers = vec![("user", "alice"), ("password", "wonderland"), ("code", "123456")];
    Scripted { answers, ..Scripted::default() }
}

fn ask(handle: &str, names: &[&str]) -> (u16, Value) {
    let field = |name: &&str| json!({ "name": name, "label": format!("{name}\u{1b}[2J"), "kind": "secret" });
    let fields: Vec<Value> = names.iter().map(field).collect();
    (200, json!({ "step": "ask", "handle": handle, "text": "Who are you?\u{7}", "fields": fields }))
}

fn done() -> (u16, Value) {
    (200, json!({ "step": "done", "user": "alice", "token": "t0ken", "ends_at": 1_900_000_000 }))
}

async fn log_in_at(gateway: &GatewayDouble, person: &mut Scripted) -> Result<Granted, Failure> {
    let trust = Trust::Pin(adit_net::tls::spki_sha256(&gateway.own.certificate).unwrap());
    let mut contact = GatewayContact::find(vec![gateway.place()], &trust).await.unwrap();
    log_in(&mut contact, person).await
}

/// A gateway that answers each request with the next of these.
fn gateway(answers: Vec<(u16, Value)>) -> GatewayDouble {
    let mut answers = answers.into_iter();
    GatewayDouble::start(None, Box::new(move |_, _| answers.next().unwrap_or((500, Value::Null))))
}

#[tokio::test]
async fn questions_are_answered_with_the_handle_they_came_with() {
    let gateway = gateway(vec![ask("h1", &["user", "password"]), ask("h2", &["code"]), done()]);
    let mut person = alice();
    let granted = log_in_at(&gateway, &mut person).await.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!((granted.user.as_str(), granted.token.as_str()), ("alice", "t0ken"));
    assert_eq!(granted.ends_at, Some(1_900_000_000));
    let asked: Vec<Value> = gateway.asked().into_iter().map(|(_, body)| body).collect();
    assert_eq!(
        asked,
        [
            json!({ "handle": null, "answers": {}, "browser": false }),
            json!({ "handle": "h1", "answers": { "user": "alice", "password": "wonderland" }, "browser": false }),
            json!({ "handle": "h2", "answers": { "code": "123456" }, "browser": false }),
        ]
    );
    assert!(person.shown.iter().all(|text| !text.contains(char::is_control)), "{:?}", person.shown);
}

#[tokio::test]
async fn link_is_shown_once_and_waited_for() {
    let open = json!({ "step": "open", "handle": "h1", "url": "https://idp.example/device", "code": "ABCD-EFGH",
                       "seconds": 600, "interval": 1 });
    let wait = json!({ "step": "wait", "handle": "h2", "seconds": 0 });
    let gateway = gateway(vec![(200, open), (200, wait), done()]);
    let mut person = alice();
    let granted = log_in_at(&gateway, &mut person).await;
    assert!(granted.is_ok());
    let link = Link {
        url: "https://idp.example/device".into(),
        code: Some("ABCD-EFGH".into()),
        lifetime: Duration::from_secs(600),
        on_this_host: false,
    };
    assert_eq!((person.opened, person.waited), (vec![link], 1));
    assert_eq!(gateway.asked()[2].1["handle"], "h2");
}

#[tokio::test]
async fn refusals_have_their_reason_and_exit_code() {
    let refused = |retry_after: Value| {
        (200, json!({ "step": "refused", "message": "no such\u{202e} user", "retry_after": retry_after }))
    };
    for (answer, exit, words) in [
        (refused(Value::Null), Exit::AuthRefused, "check what you typed"),
        (refused(json!(90)), Exit::AuthRefused, "try again in 1m 30s"),
        ((404, Value::Null), Exit::AuthRefused, "ask the gateway's administrator for an invite"),
        ((429, json!({ "code": "busy", "message": "too many" })), Exit::AuthRefused, "try again later"),
        ((503, Value::Null), Exit::Other, "try again later"),
        ((200, json!({ "step": "dance" })), Exit::Other, "version may differ"),
    ] {
        let failure = log_in_at(&gateway(vec![answer]), &mut alice()).await.err().unwrap();
        assert_eq!(failure.exit, exit, "{failure}");
        assert!(failure.next.contains(words) && !failure.reason.contains('\u{202e}'), "{failure}");
    }
}

#[tokio::test]
async fn what_no_honest_gateway_answers_ends_the_login() {
    let link = |url: &str| (200, json!({ "step": "open", "handle": "h", "url": url, "code": null, "seconds": 9 }));
    let token = |token: &str| (200, json!({ "step": "done", "user": "a", "token": token, "ends_at": null }));
    let long = "t".repeat(MAX_TOKEN + 1);
    for answer in [
        link("file:///etc/passwd"),
        link("http://idp.example/"),
        link("https://idp.example/\u{1b}[2J"),
        token(""),
        token("two words"),
        token("line\nend"),
        token(&long),
    ] {
        let failure = log_in_at(&gateway(vec![answer.clone()]), &mut alice()).await.err();
        assert_eq!(failure.map(|failure| failure.exit), Some(Exit::Other), "{answer:?}");
    }
    let endless = GatewayDouble::start(None, Box::new(|_, _| ask("h", &["code"])));
    assert!(log_in_at(&endless, &mut alice()).await.err().unwrap().reason.contains("without end"));
    assert!(log_in_at(&gateway(vec![token("t0ken")]), &mut alice()).await.is_ok(), "the honest one");
}

/// A gateway that logs anybody in and enrols them.
fn welcoming(public: Option<&Authority>) -> GatewayDouble {
    let own = Arc::new(std::sync::OnceLock::<Arc<Authority>>::new());
    let known = Arc::clone(&own);
    let answers: Answers = Box::new(move |path, body| match path {
        LOGIN_PATH => done(),
        _ => {
            let mut enrolled = GatewayDouble::enrolled(known.get().unwrap(), body);
            enrolled["session"] = json!({ "token": "s3ssion", "ends_at": 1_900_000_000 });
            (200, enrolled)
        }
    });
    let gateway = GatewayDouble::start(public, answers);
    own.set(Arc::clone(&gateway.own)).ok().unwrap();
    gateway
}

fn roots(authority: &Authority) -> Trust {
    Trust::Roots { roots: Arc::new(authority.roots()), called: "an authority of this test" }
}

#[tokio::test]
async fn device_joins_by_a_login_at_a_gateway_that_it_knows_by_its_public_certificate() {
    let public = Authority::new();
    let gateway = welcoming(Some(&public));
    let directory = tempfile::tempdir().unwrap();
    let store = ProfileStore::new(directory.path());
    let name = Some("work".parse().unwrap());
    let profile = join_by_login(gateway.place(), &roots(&public), &mut alice(), name, false, &store).await;
    let profile = profile.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!((profile.user.as_str(), profile.device.as_str()), ("alice", "d1"));
    assert_eq!(gateway.asked().last().unwrap().1["login"], "t0ken");
    let kept = store.login(&profile.name).unwrap();
    assert_eq!((kept.token.as_str(), kept.ends_at), ("s3ssion", Some(1_900_000_000)));
    assert!(kept.left(SystemTime::now()).is_some());

    // From now on the gateway is known by its own authority, and shows that.
    let mut contact = GatewayContact::of(&store.load(&profile.name).unwrap(), None).await.unwrap();
    assert!(log_in(&mut contact, &mut alice()).await.is_ok());
}

#[tokio::test]
async fn nobody_is_asked_for_a_password_by_a_gateway_that_is_not_vouched_for() {
    let (public, other) = (Authority::new(), Authority::new());
    let gateway = welcoming(Some(&public));
    let directory = tempfile::tempdir().unwrap();
    let store = ProfileStore::new(directory.path());
    let own_pin = adit_net::tls::spki_sha256(&gateway.own.certificate).unwrap();
    // The gateway's own authority is not the one of its public certificate, and no other vouches for either.
    for trust in [roots(&other), roots(&gateway.own), Trust::Pin([7; 32])] {
        let mut person = alice();
        let refused = join_by_login(gateway.place(), &trust, &mut person, None, false, &store).await.err().unwrap();
        assert_eq!(refused.exit, Exit::IdentityMismatch, "{refused}");
        assert!(person.shown.is_empty() && gateway.asked().is_empty());
        assert_eq!(store.names().unwrap(), [], "nothing stays behind");
    }
    let pinned = join_by_login(gateway.place(), &Trust::Pin(own_pin), &mut alice(), None, false, &store).await;
    assert!(pinned.is_ok(), "the right pin");
}
