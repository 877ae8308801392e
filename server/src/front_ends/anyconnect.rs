//! The front-end of AnyConnect and OpenConnect clients: a guest of the listener that leads them through the login of
//! the core, and turns a CONNECT into a session of it. Packets go over that connection, or in records of DTLS beside
//! it.

mod cisco;
mod connection;
mod dtls_door;
mod external_browser;
mod identity;
mod login;
mod records;
mod tunnel;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_net::http::h1::fields;
use adit_net::tls::ServerIdentity;
use adit_proto::anyconnect::cookie;
use adit_proto::anyconnect::tunnel::{TUNNEL_PATH, TunnelRequest};
use hyper::body::Incoming;
use hyper::header::{COOKIE, HeaderMap, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Method, Request};

use crate::core::Core;
use crate::core::router::Router;
use crate::listener::{Answer, Caller, Guest, Reply};

pub use dtls_door::DtlsDoor;

/// What the clients' names begin with. Their requests bear one of [`MARKS`] besides, unless they are very old.
const AGENTS: [&str; 4] = ["AnyConnect", "Cisco AnyConnect", "Open AnyConnect", "OpenConnect"];
/// When clients connect anew, in seconds, unless something else is set: once a day, as ocserv has them do at most.
const USUAL_REKEY: u64 = 24 * 60 * 60;
/// Headers that no browser sends.
const MARKS: [&str; 2] = ["x-transcend-version", "x-aggregate-auth"];

/// The front-end.
pub struct FrontEnd {
    core: Arc<dyn Core>,
    router: Arc<Router>,
    /// Most bytes of a packet.
    largest_packet: u16,
    /// If packets may go in records of DTLS.
    dtls: Option<Arc<DtlsDoor>>,
    /// When clients that connect now are to connect anew, in seconds.
    rekey_after: AtomicU64,
    /// The certificates that are shown, if Cisco's clients get what they ask for on top.
    cisco: Option<Arc<ServerIdentity>>,
}

impl FrontEnd {
    /// Makes the front-end of a gateway: `core` logs its users in and opens their sessions, whose packets go through
    /// `router` and have at most `largest_packet` bytes. Their associations of DTLS, if there are to be any, begin at
    /// `dtls`.
    pub fn new(core: Arc<dyn Core>, router: Arc<Router>, largest_packet: u16, dtls: Option<Arc<DtlsDoor>>) -> Self {
        Self { core, router, largest_packet, dtls, rekey_after: AtomicU64::new(USUAL_REKEY), cisco: None }
    }

    /// The same, of a gateway with these certificates, which gives Cisco's clients what they ask for on top.
    #[must_use]
    pub fn for_cisco(self, identity: Arc<ServerIdentity>) -> Self {
        Self { cisco: Some(identity), ..self }
    }

    /// Has clients that connect from now on connect anew after this time, which counts in whole seconds.
    pub fn set_rekey_after(&self, time: Duration) {
        self.rekey_after.store(time.as_secs(), Ordering::Relaxed);
    }

    /// What is at a path for Cisco's clients alone.
    fn file(&self, head: &Parts) -> Option<Answer> {
        self.cisco.as_ref().filter(|_| head.method == Method::GET).and_then(|_| cisco::file(head.uri.path()))
    }
}

impl Guest for FrontEnd {
    fn wants(&self, head: &Parts) -> bool {
        match head.method {
            Method::CONNECT => head.uri.path() == TUNNEL_PATH,
            Method::GET | Method::POST => is_of_a_client(&head.headers) || self.file(head).is_some(),
            _ => false,
        }
    }

    fn answer<'a>(
        &'a self,
        request: Request<Incoming>,
        caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async move {
            if request.method() == Method::CONNECT {
                return self.connect(TunnelRequest::of(&fields(request.headers())), caller).await;
            }
            let (head, body) = request.into_parts();
            Reply::Answer(match self.file(&head) {
                Some(file) => file,
                None => self.log_in(Request::from_parts(head, body), caller).await,
            })
        })
    }
}

fn is_of_a_client(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    MARKS.iter().any(|mark| headers.contains_key(*mark)) || AGENTS.iter().any(|known| agent.starts_with(known))
}

/// The session token in a request's cookies.
fn token(headers: &HeaderMap) -> Option<&str> {
    cookie::find(headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()), cookie::SESSION)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn clients_are_told_from_browsers() {
        for client in [
            headers(&[("user-agent", "Open AnyConnect VPN Agent v9.01-3")]),
            headers(&[("user-agent", "AnyConnect-compatible OpenConnect VPN Agent v9.21-5")]),
            headers(&[("user-agent", "anything"), ("x-transcend-version", "1")]),
            headers(&[("x-aggregate-auth", "1")]),
        ] {
            assert!(is_of_a_client(&client), "{client:?}");
        }
        for other in [headers(&[("user-agent", "Mozilla/5.0 (like AnyConnect)")]), headers(&[("accept", "*/*")])] {
            assert!(!is_of_a_client(&other), "{other:?}");
        }
    }

    #[test]
    fn token_is_the_cookie_of_a_session() {
        assert_eq!(token(&headers(&[("cookie", "webvpnc=x; webvpn=t0ken")])), Some("t0ken"));
        assert_eq!(token(&headers(&[("cookie", "webvpnc=x")])), None);
    }
}
