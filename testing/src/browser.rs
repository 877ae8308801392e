//! A browser without a screen: cookies, redirects, and forms that it fills in. Its panics say what a test sees.

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What a browser was answered.
#[derive(Debug)]
pub struct Seen {
    /// What was asked for.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The page.
    pub body: String,
    /// The head.
    pub headers: HeaderMap,
}

/// One browser. It finds the pages of a gateway's public name at an address of this host.
#[derive(Debug)]
pub struct Browser {
    gateway: &'static str,
    address: SocketAddr,
    /// By host, then by name.
    pub cookies: HashMap<String, HashMap<String, String>>,
}

impl Browser {
    /// A browser that nobody has used, which finds `gateway`, such as `https://gateway.test`, at an address, without
    /// TLS.
    #[must_use]
    pub fn new(gateway: &'static str, address: SocketAddr) -> Self {
        Self { gateway, address, cookies: HashMap::new() }
    }

    /// Makes one request, without following a redirect.
    ///
    /// # Panics
    /// Nobody answers.
    pub async fn get(&mut self, url: &str) -> Seen {
        self.request("GET", url, String::new()).await
    }

    /// As [`Self::get`], with another method and the fields of a form.
    ///
    /// # Panics
    /// Nobody answers.
    pub async fn request(&mut self, method: &str, url: &str, form: String) -> Seen {
        let (origin, target) = split(url);
        let address =
            if origin == self.gateway { self.address.to_string() } else { origin["http://".len()..].to_owned() };
        let stream = TcpStream::connect(&address).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.unwrap_or_else(|error| panic!("{url}: {error}"));
        let jar = self.cookies.entry(origin.to_owned()).or_default();
        let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = hyper::Request::builder()
            .method(method)
            .uri(target)
            .header("host", address)
            .header("cookie", cookies.join("; "))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))
            .expect("a test asks for what can be asked for");
        let exchange = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
        };
        // The connection ends when the exchange has dropped its sender; how, does not matter then.
        let (exchanged, _ended) = tokio::join!(exchange, connection);
        let (head, body) = exchanged.unwrap_or_else(|error| panic!("{url}: {error}"));
        for cookie in head.headers.get_all("set-cookie") {
            let (name, rest) = cookie.to_str().ok().and_then(|text| text.split_once('=')).expect("a cookie has a name");
            jar.insert(name.to_owned(), rest.split(';').next().unwrap_or_default().to_owned());
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        Seen { url: url.to_owned(), status: head.status.as_u16(), body, headers: head.headers }
    }

    /// Follows redirects to the first page, or to a URL of the gateway, which is not visited.
    async fn follow(&mut self, mut seen: Seen) -> Result<Seen, String> {
        while let Some(location) = seen.headers.get("location") {
            let location = location.to_str().expect("a URL is ASCII");
            let url =
                if location.starts_with('/') { format!("{}{location}", split(&seen.url).0) } else { location.into() };
            if url.starts_with(self.gateway) {
                return Err(url);
            }
            seen = self.get(&url).await;
        }
        Ok(seen)
    }

    /// Logs in at a provider as a user, or cancels where there is nobody. Gives the last page, which only a login by a
    /// device code has.
    ///
    /// # Errors
    /// The gateway's URL that the provider sends the browser to: the end of every other login.
    ///
    /// # Panics
    /// The provider asks without end.
    pub async fn log_in(&mut self, url: &str, user: Option<&str>) -> Result<Seen, String> {
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
    let host = url.find("://").map_or(0, |at| at + 3);
    let path = url[host..].find('/').map_or(url.len(), |at| host + at);
    (&url[..path], if path == url.len() { "/" } else { &url[path..] })
}

/// Where the link of a gateway's page leads, by which somebody goes on to the provider.
///
/// # Panics
/// The page has none.
#[must_use]
pub fn way_on(page: &Seen) -> String {
    let link = page.body.split("class=\"go\" href=\"").nth(1).and_then(|rest| rest.split('"').next());
    link.unwrap_or_else(|| panic!("no way leads on: {}", page.body)).replace("&amp;", "&")
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
