//! The page that a browser gets which comes to the gateway: its name, and how to connect.

use std::pin::Pin;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};

use super::page::{escaped, only_reading, page};
use super::{Caller, Guest, Reply};
use crate::config::PublicAddress;

/// Where the page is.
const PAGE_PATH: &str = "/";
/// Where its style sheet is; the policy of the pages forbids styles inside them.
const STYLE_PATH: &str = "/style.css";
const STYLE: &str = include_str!("portal.css");
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// The page. It says what whoever asks knows already, and nothing of who or what is behind it.
pub struct Portal {
    page: String,
}

impl Portal {
    /// The page of a gateway that clients reach as `public`; `openconnect` says whether those of that kind are served.
    #[must_use]
    pub fn new(public: &PublicAddress, openconnect: bool) -> Self {
        let host = if public.host.contains(':') { format!("[{}]", public.host) } else { public.host.clone() };
        let at = if public.port == 443 { host } else { format!("{host}:{}", public.port) };
        let at = escaped(&at);
        let stock = if openconnect {
            format!("<h2>Any system, with OpenConnect and a user name</h2><pre>sudo openconnect {at}</pre>")
        } else {
            String::new()
        };
        let page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{at}</title><link rel=\"stylesheet\" href=\"{STYLE_PATH}\"></head>\
             <body><h1>{at}</h1><p>This is a VPN gateway. Whoever has an invite, or a user name here, can connect.</p>\
             <h2>Linux, with an invite</h2><pre>sudo adit-client join -\nsudo adit-client up</pre>\
             <p>Paste the link that you were given, then Enter and Ctrl-D.</p>\
             <h2>Linux, with a user name</h2><pre>sudo adit-client join --up {at}</pre>{stock}\
             <h2>Other systems</h2><p>Any client of CONNECT-IP (RFC 9484) will do, with a token that the administrator \
             of this gateway gives out:</p><pre>https://{at}/.well-known/masque/ip/*/*/</pre>\
             <p>Whoever has neither asks the administrator.</p></body></html>\n"
        );
        Self { page }
    }
}

impl Guest for Portal {
    fn wants(&self, head: &Parts) -> bool {
        [PAGE_PATH, STYLE_PATH].contains(&head.uri.path()) && head.method != Method::CONNECT
    }

    fn answer<'a>(
        &'a self,
        request: Request<Incoming>,
        _caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, STYLE_PATH) => page(StatusCode::OK, CSS, STYLE),
            (&Method::GET | &Method::HEAD, _) => page(StatusCode::OK, HTML, self.page.clone()),
            _ => only_reading(),
        };
        Box::pin(std::future::ready(Reply::Answer(answer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_names_the_gateway_as_clients_reach_it() {
        for (host, port, at) in [
            ("vpn.example.org", 443, "vpn.example.org"),
            ("vpn.example.org", 8443, "vpn.example.org:8443"),
            ("2001:db8::1", 443, "[2001:db8::1]"),
        ] {
            let page = |openconnect| Portal::new(&PublicAddress { host: host.to_owned(), port }, openconnect).page;
            assert!(page(true).contains(&format!("sudo openconnect {at}<")) && !page(false).contains("openconnect"));
            let portal = Portal { page: page(true) };
            assert!(portal.page.contains(&format!("<h1>{at}</h1>")), "{}", portal.page);
            assert!(portal.page.contains(&format!("join --up {at}<")), "{}", portal.page);
        }
    }
}
