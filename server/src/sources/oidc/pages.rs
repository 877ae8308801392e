//! What browsers are shown during a login: plain pages without scripts.

use adit_proto::login::{Cause, Verdict};
use openidconnect::url::Url;

use crate::listener::escaped;

/// Below which path all of them are.
pub const PAGES: &str = "/login/";
/// Where the style sheet is; the policy of the pages forbids styles inside them.
pub(super) const STYLE_PATH: &str = "/login/style.css";
const STYLE: &str = "body{font:1.1rem/1.6 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem;\
color:#222;background:#fff}.code{font:2rem ui-monospace,monospace;letter-spacing:.1em}\
a.go{display:inline-block;padding:.5rem 1rem;border-radius:.3rem;background:#0b57d0;color:#fff;text-decoration:none}\n";

/// An answer to a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub media_type: &'static str,
    /// The body.
    pub body: String,
    /// A cookie to set, as `NAME=VALUE`; it is for this host, for ten minutes, and for nothing but this login.
    pub cookie: Option<String>,
    /// Where the browser goes on by itself, if it does.
    pub location: Option<String>,
}

/// The page behind a link: which login it is, and the way on.
pub(super) fn begin(user_code: &str, authorization: &str, cookie: &str) -> Page {
    let provider = Url::parse(authorization).ok().and_then(|url| url.host_str().map(ToOwned::to_owned));
    let body = format!(
        "<p>Your VPN client shows this code:</p><p class=\"code\">{}</p>\
         <p>Go on only if it does, and if you began this login yourself. Whoever sent you this link would be \
         connected under your name.</p><p><a class=\"go\" href=\"{}\">Log in at {}</a></p>",
        escaped(user_code),
        escaped(authorization),
        escaped(&provider.unwrap_or_default()),
    );
    Page { cookie: Some(cookie.to_owned()), ..page(200, "Log in", &body) }
}

/// How the login ended.
pub(super) fn outcome(verdict: &Verdict) -> Page {
    match verdict {
        Verdict::Accepted(person) => {
            let body = format!(
                "<p>You are {}. Go back to your VPN client, which goes on by itself; this page can be closed.</p>",
                escaped(&person.name)
            );
            page(200, "Logged in", &body)
        }
        Verdict::Unavailable(_) | Verdict::Busy(_) => page(
            503,
            "Not logged in",
            "<p>The gateway could not ask the identity provider. Begin anew in your VPN client; if it happens again, tell \
             your administrator: the gateway's log has the reason.</p>",
        ),
        Verdict::Refused(Cause::NotPermitted(reason)) => {
            let body = format!("<p>You may not log in: {}.</p>", escaped(reason));
            page(403, "Not logged in", &body)
        }
        Verdict::Refused(_) | Verdict::Ask { .. } | Verdict::Unknown => {
            page(403, "Not logged in", "<p>You may not log in.</p>")
        }
    }
}

/// Sends the browser on to the client, which takes it from here.
pub(super) fn on_to(location: String) -> Page {
    let body = "<p>This browser goes on to your VPN client.</p>";
    Page { location: Some(location), ..page(303, "Logged in", body) }
}

/// What is shown when the client has taken what the browser brought.
pub(super) fn end() -> Page {
    page(200, "Logged in", "<p>Go back to your VPN client, which goes on by itself; this page can be closed.</p>")
}

pub(super) fn link_is_over() -> Page {
    page(
        410,
        "This link is over",
        "<p>It was used before, or not within ten minutes, or the gateway was restarted. Begin anew in your VPN \
         client.</p>",
    )
}

pub(super) fn other_browser() -> Page {
    page(
        403,
        "Not this browser",
        "<p>This login began in another browser, or this one keeps no cookies. Open the link of your VPN client in the \
         browser that you log in with.</p>",
    )
}

pub(super) fn not_found() -> Page {
    page(404, "Nothing here", "<p>There is no such page.</p>")
}

pub(super) fn style() -> Page {
    Page { status: 200, media_type: "text/css; charset=utf-8", body: STYLE.to_owned(), cookie: None, location: None }
}

fn page(status: u16, title: &str, body: &str) -> Page {
    let body = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><link rel=\"stylesheet\" href=\"{STYLE_PATH}\"></head>\
         <body><h1>{title}</h1>{body}</body></html>\n"
    );
    Page { status, media_type: "text/html; charset=utf-8", body, cookie: None, location: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let evil = "\"><script>alert('x')</script>&amp;";
        let pages = [
            begin(evil, &format!("https://a.example/?x={evil}"), "a=b"),
            outcome(&Verdict::Refused(Cause::NotPermitted(evil.to_owned()))),
        ];
        for page in pages {
            assert!(!page.body.contains("<script"), "{}", page.body);
            assert!(page.body.contains("&lt;script&gt;"), "{}", page.body);
        }
    }

    #[test]
    fn reason_why_a_provider_is_away_is_not_for_browsers() {
        let page = outcome(&Verdict::Unavailable("oidc: 10.1.2.3 refused".to_owned()));
        assert_eq!(page.status, 503);
        assert!(!page.body.contains("10.1.2.3"));
    }
}
