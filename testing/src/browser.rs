//! A browser without a screen: cookies, redirects, and forms that it fills in.

use std::collections::HashMap;
use std::net::SocketAddr;

use adit_program::task;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::provider::GATEWAY;

/// What a browser was answered.
pub(super) struct Seen {
    pub(super) url: String,
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) headers: hyper::HeaderMap,
}

/// One browser. It finds the gateway's public name at an address of this host.
pub(super) struct Browser {
    gateway: SocketAddr,
    /// By host, then by name.
    pub(super) cookies: HashMap<String, HashMap<String, String>>,
}

impl Browser {
    pub(super) fn new(gateway: SocketAddr) -> Self {
        Self { gateway, cookies: HashMap::new() }
    }

    /// Makes one request, without following a redirect.
    pub(super) async fn get(&mut self, url: &str) -> Seen {
        self.request("GET", url, String::new()).await
    }

    pub(super) async fn request(&mut self, method: &str, url: &str, form: String) -> Seen {
        let (origin, target) = split(url);
        let address = if origin == GATEWAY { self.gateway.to_string() } else { origin["http://".len()..].to_owned() };
        let stream = TcpStream::connect(&address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let _driver = task::spawn(connection);
        let jar = self.cookies.entry(origin.to_owned()).or_default();
        let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = hyper::Request::builder()
            .method(method)
            .uri(target)
            .header("host", address)
            .header("cookie", cookies.join("; "))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))
            .unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        for cookie in head.headers.get_all("set-cookie") {
            let (name, rest) = cookie.to_str().unwrap().split_once('=').unwrap();
            jar.insert(name.to_owned(), rest.split(';').next().unwrap().to_owned());
        }
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
        Seen { url: url.to_owned(), status: head.status.as_u16(), body, headers: head.headers }
    }

    /// Follows redirects to the first page, or to a URL of the gateway, which is not visited.
    async fn follow(&mut self, mut seen: Seen) -> Result<Seen, String> {
        while let Some(location) = seen.headers.get("location") {
            let location = location.to_str().unwrap();
            let url =
                if location.starts_with('/') { format!("{}{location}", split(&seen.url).0) } else { location.into() };
            if url.starts_with(GATEWAY) {
                return Err(url);
            }
            seen = self.get(&url).await;
        }
        Ok(seen)
    }

    /// Logs in at the provider as a user, or cancels where there is nobody. Gives the gateway's URL that the provider
    /// sends the browser to; at the end of a device code, the last page.
    pub(super) async fn log_in(&mut self, url: &str, user: Option<&str>) -> Result<Seen, String> {
        let first = self.get(url).await;
        let mut seen = self.follow(first).await?;
        for _page in 0..10 {
            let cancel = seen.body.find("/abort\"").map(|end| &seen.body[..end + "/abort".len()]);
            let cancel = cancel.and_then(|text| text.rfind("href=\"").map(|from| text[from + 6..].to_owned()));
            if let (None, Some(cancel)) = (user, cancel) {
                let last = self.get(&cancel).await;
                return self.follow(last).await;
            }
            let Some((action, fields)) = form(&seen.body, user.unwrap_or_default()) else { return Ok(seen) };
            let next = self.request("POST", &action, fields).await;
            seen = self.follow(next).await?;
        }
        panic!("the provider asks without end: {}", seen.body);
    }
}

fn split(url: &str) -> (&str, &str) {
    let host = url.find("://").unwrap() + 3;
    let path = url[host..].find('/').map_or(url.len(), |at| host + at);
    (&url[..path], if path == url.len() { "/" } else { &url[path..] })
}

/// The first form of a page, filled in: where it goes, and its fields.
fn form(page: &str, user: &str) -> Option<(String, String)> {
    let page = &page[page.find("<form")?..];
    let form = &page[..page.find("</form>")?];
    let attribute = |tag: &str, name: &str| {
        let from = tag.find(&format!("{name}=\""))? + name.len() + 2;
        Some(tag[from..].split('"').next()?.to_owned())
    };
    let fields = form.split("<input").skip(1).filter_map(|tag| {
        let tag = tag.split('>').next()?;
        let name = attribute(tag, "name")?;
        let value =
            if name == "login" { user.to_owned() } else { attribute(tag, "value").unwrap_or_else(|| "x".to_owned()) };
        Some(format!("{name}={value}"))
    });
    Some((attribute(form, "action")?, fields.collect::<Vec<_>>().join("&")))
}
