//! The pages of a login in a browser.

use std::pin::Pin;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};

use super::page::{only_reading, page};
use super::{Answer, Caller, Guest, Reply};
use crate::sources::oidc::{Oidc, PAGES, Page, Visit};

impl Guest for Oidc {
    fn wants(&self, head: &Parts) -> bool {
        head.uri.path().starts_with(PAGES)
    }

    fn answer<'a>(
        &'a self,
        request: Request<Incoming>,
        _caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async move {
            if request.method() != Method::GET {
                return Reply::Answer(only_reading());
            }
            let cookies = request.headers().get(header::COOKIE).and_then(|value| value.to_str().ok());
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            let visit = Visit { path, query, cookies: cookies.unwrap_or_default() };
            Reply::Answer(encode(self.visit(visit).await))
        })
    }
}

fn encode(shown: Page) -> Answer {
    let status = StatusCode::from_u16(shown.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = page(status, shown.media_type, shown.body);
    let cookie = shown.cookie.map(|cookie| {
        // Lax, as Strict ones do not come along on the way back from another site.
        HeaderValue::try_from(format!("{cookie}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"))
    });
    if let Some(Ok(cookie)) = cookie {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    if let Some(Ok(location)) = shown.location.map(HeaderValue::try_from) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}
