//! The login of the core, in the documents of these clients.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::anyconnect::cookie::{self, SessionCookie};
use adit_proto::anyconnect::external_browser::KEY_HEADER;
use adit_proto::anyconnect::login::{
    BrowserPage, Dialect, Groups, MAX_BODY, Page, Posted, complete, complete_for_cisco, refusal,
};
use adit_proto::login::Kind;
use adit_proto::login::flow::{Answers, Asked, Form};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, SET_COOKIE};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::identity::Holder;
use super::{FrontEnd, MARKS, cisco, external_browser, token};
use crate::core::NOT_IN_GROUP;
use crate::core::login::logins::{LoginStep, LoginWish};
use crate::listener::{Answer, Caller};
use crate::sources::{LinkWish, Origin};

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where a client is logged out that posts no document for it.
const LOG_OUT_PATH: &str = "/logout";

/// Who logs in.
struct Visitor<'a> {
    caller: &'a Caller,
    /// The device whose certificate it shows.
    device: Option<String>,
    /// Which link suits its client, if its user logs in in a browser.
    link: LinkWish,
    look: Look,
}

/// How a client is answered.
struct Look {
    dialect: Dialect,
    /// The groups that its user may choose from in the first form.
    offered: Vec<String>,
    /// The group that was chosen: in that form, or by the path of a request.
    chosen: Option<String>,
    /// The fingerprint of the gateway's certificate, if Cisco's clients are told it.
    fingerprint: Option<String>,
}

impl FrontEnd {
    /// Takes a login one step further, or ends what came of one.
    pub(super) async fn log_in(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let headers = request.headers();
        let dialect = if headers.contains_key(MARKS[1]) { Dialect::Aggregate } else { Dialect::Plain };
        let session = token(headers).map(SessionCookie::decode);
        let key = headers.get(KEY_HEADER).filter(|_| dialect == Dialect::Aggregate).cloned();
        let asked = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let path = request.uri().path().to_owned();
        let posted = match (request.method() == Method::GET, path == LOG_OUT_PATH) {
            (true, true) => Some(Posted::LogOut),
            (true, false) => Some(Posted::Begin { group: None, opens_browser: false }),
            (false, _) => read(request.into_body()).await,
        };
        let (handle, answers, group, opens_browser) = match posted {
            None => return malformed(),
            Some(Posted::Begin { group, opens_browser }) => (None, Answers::new(), group, opens_browser),
            Some(Posted::Answer { handle, answers, group, opens_browser }) => (handle, answers, group, opens_browser),
            Some(Posted::LogOut) => return self.log_out(session, dialect).await,
        };
        let link = external_browser::link(key.filter(|_| opens_browser));
        let asked = asked.as_ref().map(Authority::host);
        let shown = self.cisco.as_ref().and_then(|identity| identity.shown_to_public(asked));
        let fingerprint = shown.map(|certificate| cisco::fingerprint(&certificate));
        let look = Look { fingerprint, ..Look::new(dialect, self.core.offered_groups(), group, &path) };
        match self.device_of(caller).await {
            Ok(Some(holder)) if !holder.needs_login => self.let_in(&holder, &look).await,
            Ok(holder) => {
                let device = holder.map(|holder| holder.device);
                self.lead(handle, answers, Visitor { caller, device, link, look }).await
            }
            Err(refused) => document(refusal(refused.reason, dialect)),
        }
    }

    /// Makes the token of a session worthless, if there is one.
    async fn log_out(&self, session: Option<SessionCookie>, dialect: Dialect) -> Answer {
        if let Some(SessionCookie { token, .. }) = session {
            Arc::clone(&self.core).log_out(token).await;
        }
        document(complete("", dialect))
    }

    /// Lets a device in that needs no more than its certificate.
    async fn let_in(&self, holder: &Holder, look: &Look) -> Answer {
        if self.may_have(&holder.user, look).await {
            logged_in(cookie::CERTIFICATE, look)
        } else {
            document(refusal(NOT_IN_GROUP, look.dialect))
        }
    }

    /// Asks the core how it goes on, and says so.
    async fn lead(&self, handle: Option<String>, answers: Answers, visitor: Visitor<'_>) -> Answer {
        let (first, look) = (handle.is_none() && answers.is_empty(), &visitor.look);
        let step = self.step(handle, answers, &visitor).await;
        if let LoginStep::Done { user, token, .. } = &step
            && self.may_have(user, look).await
        {
            visitor.caller.know();
            return logged_in(token, look);
        }
        let message = match step {
            LoginStep::Done { .. } => NOT_IN_GROUP,
            LoginStep::Refused { message, .. } if !first => message,
            step @ (LoginStep::Ask { .. }
            | LoginStep::Open { .. }
            | LoginStep::Wait { .. }
            | LoginStep::Refused { .. }) => return look.show(&step, None, first),
        };
        // A client that reads why it was refused wants to be asked anew, or it gives up.
        match self.step(None, Answers::new(), &visitor).await {
            LoginStep::Done { .. } | LoginStep::Refused { .. } => document(refusal(message, look.dialect)),
            asked @ (LoginStep::Ask { .. } | LoginStep::Open { .. } | LoginStep::Wait { .. }) => {
                look.show(&asked, Some(message), true)
            }
        }
    }

    /// Whether a user may have the group that was chosen, if one was.
    async fn may_have(&self, user: &str, look: &Look) -> bool {
        match look.chosen.clone() {
            Some(group) => Arc::clone(&self.core).may_choose(user.to_owned(), group).await,
            None => true,
        }
    }

    async fn step(&self, handle: Option<String>, answers: Answers, visitor: &Visitor<'_>) -> LoginStep {
        let origin = Origin { address: visitor.caller.address.ip().to_canonical(), device: visitor.device.clone() };
        Arc::clone(&self.core).login(LoginWish { handle, answers, link: visitor.link.clone(), origin }).await
    }
}

impl Look {
    /// How a client is answered that has chosen a group in a list, or comes to a path. What is not offered counts for
    /// nothing: the path may be anything.
    fn new(dialect: Dialect, offered: Vec<String>, listed: Option<String>, path: &str) -> Self {
        let is_offered = |group: &String| offered.contains(group);
        let of_path = Some(path.trim_matches('/').to_owned()).filter(is_offered);
        let chosen = of_path.clone().or_else(|| listed.filter(is_offered));
        // Whoever names a group by the path is not asked for one.
        let offered = if of_path.is_some() { Vec::new() } else { offered };
        Self { dialect, offered, chosen, fingerprint: None }
    }

    /// Shows what the core asks for. Only the `first` form has a choice of groups.
    fn show(&self, step: &LoginStep, error: Option<&str>, first: bool) -> Answer {
        let groups = Groups { offered: if first { &self.offered } else { &[] }, chosen: self.chosen.as_deref() };
        let page = |handle: &str, form: &Form| document(Page { form, handle, error, groups }.document(self.dialect));
        match step {
            LoginStep::Ask { handle, form } => page(handle, form),
            LoginStep::Open { handle, url, user_code, returns: true, .. } => {
                let code = user_code.as_ref().map(|code| format!(", which shows the code {code}")).unwrap_or_default();
                let text = format!("Log in in the browser{code}. If none opens, open {url} on this host.");
                document(BrowserPage { text: &text, url, handle, error, groups }.document())
            }
            LoginStep::Open { handle, url, user_code, .. } => {
                let code = user_code.as_ref().map(|code| format!(" and type {code}")).unwrap_or_default();
                let text = format!("Open {url} in a browser{code}. When you have logged in there, go on here.");
                page(handle, &going_on(text))
            }
            LoginStep::Wait { handle, .. } => {
                let text = "The login in the browser is not complete yet. Go on here when it is.";
                page(handle, &going_on(text.to_owned()))
            }
            LoginStep::Refused { message, .. } => document(refusal(message, self.dialect)),
            LoginStep::Done { token, .. } => logged_in(token, self),
        }
    }
}

/// Reads what was posted, XML or fields.
async fn read<B: Body<Error: Into<Box<dyn Error + Send + Sync>>>>(body: B) -> Option<Posted> {
    let collected = timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await.ok()?.ok()?;
    let body = Zeroizing::new(collected.to_bytes().to_vec());
    let is_xml = body.trim_ascii_start().starts_with(b"<");
    if is_xml { Posted::of_xml(&body).ok() } else { Posted::of_form(&body) }
}

/// A form in which nothing is asked but to go on: clients give up on forms without a field.
fn going_on(text: String) -> Form {
    Form { text, fields: vec![Asked { name: "text", label: "Press Enter", kind: Kind::Text, echo: true }] }
}

fn logged_in(token: &str, look: &Look) -> Answer {
    let session = SessionCookie { token: Zeroizing::new(token.to_owned()), group: look.chosen.clone() }.encode();
    let mut answer = document(match &look.fingerprint {
        Some(fingerprint) => complete_for_cisco(&session, fingerprint, look.dialect),
        None => complete(&session, look.dialect),
    });
    let description = look.fingerprint.as_deref().map(cisco::description);
    let cookie = format!("{}={}; Path=/; Secure; HttpOnly", cookie::SESSION, *session);
    for cookie in description.into_iter().chain([cookie]) {
        let Ok(mut cookie) = HeaderValue::try_from(cookie) else { return malformed() };
        cookie.set_sensitive(true);
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    answer
}

fn document(text: String) -> Answer {
    let mut answer = Answer::new(text.into());
    for (name, value) in [
        (CONTENT_TYPE, "text/xml; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        ("x-transcend-version".parse().expect("it is a name"), "1"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// To who posts what no client posts. The rest of the body may still be on its way.
fn malformed() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use bytes::Bytes;
    use hyper::body::Frame;
    use tokio::time::{Instant, Sleep, sleep};

    use super::*;

    /// A body of which a byte comes each second.
    struct DropByDrop(Pin<Box<Sleep>>);

    impl Body for DropByDrop {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            ready!(self.0.as_mut().poll(context));
            self.0 = Box::pin(sleep(Duration::from_secs(1)));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"a")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn body_that_comes_drop_by_drop_is_waited_for_no_longer() {
        let began = Instant::now();
        assert!(read(DropByDrop(Box::pin(sleep(Duration::ZERO)))).await.is_none());
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    }

    async fn shown(answer: Answer) -> String {
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    /// A gateway that offers two groups.
    fn look(listed: Option<&str>, path: &str) -> Look {
        let offered = vec!["staff".to_owned(), "full".to_owned()];
        Look::new(Dialect::Aggregate, offered, listed.map(str::to_owned), path)
    }

    #[test]
    fn group_is_chosen_in_a_list_or_by_the_path_if_it_is_offered() {
        for (listed, path, chosen, has_list) in [
            (None, "/", None, true),
            (Some("full"), "/", Some("full"), true),
            (Some("other"), "/", None, true),
            (None, "/staff", Some("staff"), false),
            (Some("full"), "/staff/", Some("staff"), false),
            (None, "/+CSCOE+/logon.html", None, true),
        ] {
            let look = look(listed, path);
            assert_eq!((look.chosen.as_deref(), !look.offered.is_empty()), (chosen, has_list), "{listed:?} {path}");
        }
    }

    #[tokio::test]
    async fn choice_of_a_group_is_in_the_first_form_alone() {
        let form = Form { text: String::new(), fields: Vec::new() };
        let ask = LoginStep::Ask { handle: "h".to_owned(), form };
        let look = look(Some("full"), "/");
        assert!(shown(look.show(&ask, None, true)).await.contains("group_list"));
        let later = shown(look.show(&ask, None, false)).await;
        assert!(!later.contains("group_list") && later.contains("action=\"/full\""), "{later}");
        let cookie = logged_in("t0k-en_", &look);
        assert!(cookie.headers()[SET_COOKIE].to_str().unwrap().starts_with("webvpn=t0k-en_.full; "));
    }

    #[tokio::test]
    async fn token_comes_as_a_cookie_and_in_the_document() {
        let answer = logged_in("t0k-en_", &look(None, "/"));
        let cookie = answer.headers().get(SET_COOKIE).unwrap();
        assert!(cookie.is_sensitive() && cookie.to_str().unwrap().starts_with("webvpn=t0k-en_; "));
        assert!(shown(answer).await.contains("<session-token>t0k-en_<"));
    }

    #[tokio::test]
    async fn cisco_s_clients_are_told_the_certificate_where_they_are_served() {
        let answer = logged_in("t", &Look { fingerprint: Some("AB12".to_owned()), ..look(None, "/") });
        let cookies: Vec<&str> =
            answer.headers().get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(cookies.len(), 2);
        assert!(cookies[0].starts_with("webvpnc=") && cookies[1].starts_with("webvpn=t; "), "{cookies:?}");
        assert!(shown(answer).await.contains("<server-cert-hash>AB12</server-cert-hash>"));
        let others = logged_in("t", &look(None, "/"));
        assert_eq!(others.headers().get_all(SET_COOKIE).iter().count(), 1);
        assert!(!shown(others).await.contains("server-cert-hash"));
    }

    #[tokio::test]
    async fn login_in_a_browser_is_a_page_to_go_on_from() {
        let open = LoginStep::Open {
            handle: "h".to_owned(),
            url: "https://provider.test/device".to_owned(),
            user_code: Some("AB-CD".to_owned()),
            lifetime: Duration::from_secs(60),
            again_in: Duration::from_secs(5),
            returns: false,
        };
        let page = shown(look(None, "/").show(&open, Some("not yet"), false)).await;
        assert!(page.contains("Open https://provider.test/device in a browser and type AB-CD."), "{page}");
        assert!(page.contains("value=\"h\"") && page.contains("name=\"text\""), "it can be answered: {page}");
        assert!(page.contains("<error>not yet</error>"), "{page}");
        let wait = LoginStep::Wait { handle: "h".to_owned(), again_in: Duration::from_secs(5) };
        assert!(shown(look(None, "/").show(&wait, None, false)).await.contains("not complete yet"));
    }

    #[tokio::test]
    async fn client_that_the_browser_comes_back_to_is_told_to_open_one() {
        let open = LoginStep::Open {
            handle: "h".to_owned(),
            url: "https://gateway.test/login/start?l".to_owned(),
            user_code: Some("AB-CD".to_owned()),
            lifetime: Duration::from_secs(60),
            again_in: Duration::from_secs(5),
            returns: true,
        };
        let page = shown(look(None, "/").show(&open, Some("not yet"), true)).await;
        assert!(page.contains("<sso-v2-login>https://gateway.test/login/start?l</sso-v2-login>"), "{page}");
        assert!(page.contains("type=\"sso\"") && page.contains("group_list"), "{page}");
        assert!(page.contains("which shows the code AB-CD.") && page.contains("<error>not yet</error>"), "{page}");
    }
}
