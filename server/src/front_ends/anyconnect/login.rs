//! The login of the core, in the documents of these clients.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::anyconnect::cookie;
use adit_proto::anyconnect::login::{Dialect, MAX_BODY, Page, Posted, complete, refusal};
use adit_proto::login::Kind;
use adit_proto::login::flow::{Answers, Asked, Form};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::identity::Holder;
use super::{FrontEnd, MARKS, token};
use crate::core::login::logins::{LoginStep, LoginWish};
use crate::listener::{Answer, Caller};
use crate::sources::Origin;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where a client is logged out that posts no document for it.
const LOG_OUT_PATH: &str = "/logout";

/// Who logs in, and how it is answered.
struct Visitor<'a> {
    caller: &'a Caller,
    /// The device whose certificate it shows.
    device: Option<String>,
    dialect: Dialect,
}

impl FrontEnd {
    /// Takes a login one step further, or ends what came of one.
    pub(super) async fn log_in(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let headers = request.headers();
        let dialect = if headers.contains_key(MARKS[1]) { Dialect::Aggregate } else { Dialect::Plain };
        let session = token(headers).map(|token| Zeroizing::new(token.to_owned()));
        let (is_get, is_end) = (request.method() == Method::GET, request.uri().path() == LOG_OUT_PATH);
        let posted = match (is_get, is_end) {
            (true, true) => Some(Posted::LogOut),
            (true, false) => Some(Posted::Begin),
            (false, _) => read(request.into_body()).await,
        };
        let (handle, answers) = match posted {
            None => return malformed(),
            Some(Posted::Begin) => (None, Answers::new()),
            Some(Posted::Answer { handle, answers }) => (handle, answers),
            Some(Posted::LogOut) => {
                if let Some(session) = session {
                    Arc::clone(&self.core).log_out(session).await;
                }
                return document(complete("", dialect));
            }
        };
        match self.device_of(caller).await {
            Ok(Some(Holder { needs_login: false, .. })) => logged_in(cookie::CERTIFICATE, dialect),
            Ok(holder) => {
                let device = holder.map(|holder| holder.device);
                self.lead(handle, answers, Visitor { caller, device, dialect }).await
            }
            Err(refused) => document(refusal(refused.reason, dialect)),
        }
    }

    /// Asks the core how it goes on, and says so.
    async fn lead(&self, handle: Option<String>, answers: Answers, visitor: Visitor<'_>) -> Answer {
        let (first, dialect) = (handle.is_none() && answers.is_empty(), visitor.dialect);
        match self.step(handle, answers, &visitor).await {
            LoginStep::Done { token, .. } => {
                visitor.caller.know();
                logged_in(&token, dialect)
            }
            // A client that reads why it was refused wants to be asked anew, or it gives up.
            LoginStep::Refused { message, .. } if !first => match self.step(None, Answers::new(), &visitor).await {
                LoginStep::Done { .. } | LoginStep::Refused { .. } => document(refusal(message, dialect)),
                asked @ (LoginStep::Ask { .. } | LoginStep::Open { .. } | LoginStep::Wait { .. }) => {
                    show(&asked, Some(message), dialect)
                }
            },
            step @ (LoginStep::Ask { .. }
            | LoginStep::Open { .. }
            | LoginStep::Wait { .. }
            | LoginStep::Refused { .. }) => show(&step, None, dialect),
        }
    }

    async fn step(&self, handle: Option<String>, answers: Answers, visitor: &Visitor<'_>) -> LoginStep {
        let origin = Origin { address: visitor.caller.address.ip().to_canonical(), device: visitor.device.clone() };
        Arc::clone(&self.core).login(LoginWish { handle, answers, browser: false, origin }).await
    }
}

/// Reads what was posted, XML or fields.
async fn read<B: Body<Error: Into<Box<dyn Error + Send + Sync>>>>(body: B) -> Option<Posted> {
    let collected = timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await.ok()?.ok()?;
    let body = Zeroizing::new(collected.to_bytes().to_vec());
    let is_xml = body.trim_ascii_start().starts_with(b"<");
    if is_xml { Posted::of_xml(&body).ok() } else { Posted::of_form(&body) }
}

/// Shows what the core asks for.
fn show(step: &LoginStep, error: Option<&str>, dialect: Dialect) -> Answer {
    let page = |handle: &str, form: &Form, error| document(Page { form, handle, error }.document(dialect));
    match step {
        LoginStep::Ask { handle, form } => page(handle, form, error),
        LoginStep::Open { handle, url, user_code, .. } => {
            let code = user_code.as_ref().map(|code| format!(" and type {code}")).unwrap_or_default();
            let text = format!("Open {url} in a browser{code}. When you have logged in there, go on here.");
            page(handle, &going_on(text), error)
        }
        LoginStep::Wait { handle, .. } => {
            let text = "The login in the browser is not complete yet. Go on here when it is.";
            page(handle, &going_on(text.to_owned()), error)
        }
        LoginStep::Refused { message, .. } => document(refusal(message, dialect)),
        LoginStep::Done { token, .. } => logged_in(token, dialect),
    }
}

/// A form in which nothing is asked but to go on: clients give up on forms without a field.
fn going_on(text: String) -> Form {
    Form { text, fields: vec![Asked { name: "text", label: "Press Enter", kind: Kind::Text, echo: true }] }
}

fn logged_in(token: &str, dialect: Dialect) -> Answer {
    let mut answer = document(complete(token, dialect));
    let cookie = format!("{}={token}; Path=/; Secure; HttpOnly", cookie::SESSION);
    match HeaderValue::try_from(cookie) {
        Ok(mut cookie) => {
            cookie.set_sensitive(true);
            answer.headers_mut().insert(SET_COOKIE, cookie);
            answer
        }
        Err(_unsendable) => malformed(),
    }
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

    #[tokio::test]
    async fn token_comes_as_a_cookie_and_in_the_document() {
        let answer = logged_in("t0k-en_", Dialect::Aggregate);
        let cookie = answer.headers().get(SET_COOKIE).unwrap();
        assert!(cookie.is_sensitive() && cookie.to_str().unwrap().starts_with("webvpn=t0k-en_; "));
        assert!(shown(answer).await.contains("<session-token>t0k-en_<"));
    }

    #[tokio::test]
    async fn login_in_a_browser_is_a_page_to_go_on_from() {
        let open = LoginStep::Open {
            handle: "h".to_owned(),
            url: "https://provider.test/device".to_owned(),
            user_code: Some("AB-CD".to_owned()),
            lifetime: Duration::from_secs(60),
            again_in: Duration::from_secs(5),
        };
        let page = shown(show(&open, Some("not yet"), Dialect::Aggregate)).await;
        assert!(page.contains("Open https://provider.test/device in a browser and type AB-CD."), "{page}");
        assert!(page.contains("value=\"h\"") && page.contains("name=\"text\""), "it can be answered: {page}");
        assert!(page.contains("<error>not yet</error>"), "{page}");
        let wait = LoginStep::Wait { handle: "h".to_owned(), again_in: Duration::from_secs(5) };
        assert!(shown(show(&wait, None, Dialect::Plain)).await.contains("not complete yet"));
    }
}
