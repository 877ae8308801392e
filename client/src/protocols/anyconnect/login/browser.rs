//! A login in a browser of this host, as stock clients have it: the gateway's last page sends the browser on to a port
//! of this host, with a token that is sealed for this client alone.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use adit_net::cipher::Cipher;
use adit_program::exit::{Exit, Failure};
use adit_proto::anyconnect::external_browser::{AgreementKey, PATH, PORT, SealedToken};
use adit_proto::anyconnect::form_body;
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::login::{Link, Person, is_safe_link};

/// How long somebody may take for a login in a browser.
const WITHIN: Duration = Duration::from_secs(15 * 60);
/// How long a browser may take for its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Most connections at once. The oldest gives way: a browser needs its own for a moment, whoever else holds theirs.
const MOST_VISITORS: usize = 64;
/// The pause after a connection could not be accepted, as when this process has too many files open.
const PAUSE: Duration = Duration::from_millis(100);
/// How often whoever waits hears so.
const SIGN_EVERY: Duration = Duration::from_secs(5);
/// Most bytes of a request.
const MAX_REQUEST: usize = 16 << 10;

/// The key of one login in a browser.
#[derive(Clone)]
pub(super) struct BrowserKey(Arc<PrivateKey>);

impl BrowserKey {
    pub(super) fn generate() -> Result<Self, Failure> {
        let key = PrivateKey::generate(&ECDH_P256).map_err(|_| unusable("no key can be made for it"))?;
        Ok(Self(Arc::new(key)))
    }

    /// What the gateway seals tokens for.
    pub(super) fn public(&self) -> Result<String, Failure> {
        let public = self.0.compute_public_key().ok().and_then(|key| AgreementKey::of_point(key.as_ref()));
        public.map(|key| key.header()).ok_or_else(|| unusable("no key can be made for it"))
    }

    /// Has somebody log in in a browser, and returns the token that it brings.
    pub(super) async fn log_in(&self, url: &str, person: &mut dyn Person) -> Result<Zeroizing<String>, Failure> {
        if !is_safe_link(url) {
            return Err(unusable("the link that the gateway gave is none that a browser should open"));
        }
        let listeners = listen().await?;
        person.open(&Link { url: url.to_owned(), code: None, lifetime: WITHIN, on_this_host: true })?;
        let mut token = pin!(self.await_token(&listeners));
        let deadline = Instant::now() + WITHIN;
        while Instant::now() < deadline {
            tokio::select! {
                token = &mut token => return token,
                () = sleep(SIGN_EVERY) => person.wait(),
            }
        }
        let reason = "nobody finished the login in the browser in time";
        Err(Failure::new(Exit::TimedOut, "login in a browser", reason, "begin it again"))
    }

    /// Answers browsers until one brings the token. Any program of this host may connect, so none is waited for.
    async fn await_token(&self, listeners: &[TcpListener]) -> Result<Zeroizing<String>, Failure> {
        let (mut visitors, mut handles) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
        loop {
            tokio::select! {
                accepted = accept(listeners) => match accepted? {
                    Some(stream) => {
                        handles.retain(|handle| !handle.is_finished());
                        if handles.len() >= MOST_VISITORS
                            && let Some(oldest) = handles.pop_front()
                        {
                            oldest.abort();
                        }
                        handles.push_back(visitors.spawn(timeout(REQUEST_WITHIN, self.clone().answer(stream))));
                    }
                    None => sleep(PAUSE).await,
                },
                Some(answered) = visitors.join_next() => {
                    if let Ok(Ok(Ok(Some(token)))) = answered {
                        return Ok(token);
                    }
                }
            }
        }
    }

    /// Answers one browser; the token, if it brought one.
    async fn answer(self, mut stream: TcpStream) -> io::Result<Option<Zeroizing<String>>> {
        let request = read_head(&mut stream).await?;
        let (token, next) = request.as_deref().map(|request| self.brought(request)).unwrap_or_default();
        let answer = match (&token, next) {
            (None, _) => "HTTP/1.1 404 Not Found\r\n".to_owned(),
            (Some(_), Some(next)) => format!("HTTP/1.1 302 Found\r\nLocation: {next}\r\n"),
            (Some(_), None) => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        let body = if token.is_some() { "You are logged in. This page may be closed.\n" } else { "" };
        let length = body.len();
        let head = format!("{answer}Content-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let answered = async {
            stream.write_all(format!("{head}{body}").as_bytes()).await?;
            stream.shutdown().await
        };
        match answered.await {
            // A browser that hung up has brought what it had to.
            Err(error) if token.is_none() => Err(error),
            Ok(()) | Err(_) => Ok(token),
        }
    }

    /// The token that a request brings, and the page that the browser is sent on to.
    fn brought(&self, head: &str) -> (Option<Zeroizing<String>>, Option<String>) {
        let target = head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let token = path.strip_prefix(PATH).and_then(|sealed| self.open(sealed));
        let fields = form_body::read(query.as_bytes()).unwrap_or_default();
        let next = fields.into_iter().find(|(name, _)| name == "return").map(|(_, next)| next.to_string());
        (token, next.filter(|next| next.starts_with("https://") && is_safe_link(next)))
    }

    /// The token that stands sealed in a path.
    fn open(&self, path: &str) -> Option<Zeroizing<String>> {
        let sealed = SealedToken::decode(path)?;
        let gateways = UnparsedPublicKey::new(&ECDH_P256, sealed.gateways_key().point());
        let text = agree(&self.0, gateways, (), |secret| sealed.open::<Cipher>(secret).ok_or(())).ok()?;
        let token = str::from_utf8(&text).ok()?;
        let is_plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_plain.then(|| Zeroizing::new(token.to_owned()))
    }
}

/// Listens where browsers are sent to, on the loopback addresses that this host has.
async fn listen() -> Result<Vec<TcpListener>, Failure> {
    let (mut listeners, mut refused) = (Vec::new(), None);
    for address in [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)] {
        match TcpListener::bind((address, PORT)).await {
            Ok(listener) => listeners.push(listener),
            // Whoever has one of them would get the sealed token, which is of no use to others, and we would not.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused = Some(error),
            Err(error) => tracing::debug!(%error, "not every loopback address can be listened at"),
        }
    }
    match refused {
        None => Ok(listeners),
        Some(error) => {
            let (what, next) =
                (format!("port {PORT} of this host"), "end the other login in a browser, and begin again");
            Err(Failure::new(Exit::Other, what, error.to_string(), next))
        }
    }
}

/// The next connection; `None` if it could not be accepted.
async fn accept(listeners: &[TcpListener]) -> Result<Option<TcpStream>, Failure> {
    let accepted = match listeners {
        [one, other] => tokio::select! {
            accepted = one.accept() => accepted,
            accepted = other.accept() => accepted,
        },
        [one] => one.accept().await,
        _ => return Err(unusable("this host has no loopback address")),
    };
    Ok(accepted.ok().map(|(stream, _)| stream))
}

/// The head of a request; `None` if it is none that a browser sends.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).await?;
        head.extend(piece.iter().take(length));
        if length == 0 || head.len() > MAX_REQUEST {
            return Ok(None);
        }
    }
    Ok(String::from_utf8(head).ok())
}

fn unusable(reason: &str) -> Failure {
    let next = "log in with a password, or with another client, or ask the gateway's administrator";
    Failure::new(Exit::Other, "login in a browser", reason, next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::net;
    use std::thread::{self, JoinHandle};

    use adit_proto::anyconnect::external_browser::location;
    use adit_proto::login::message::LoginField;
    use adit_proto::sealing::aead::CipherRefused;
    use data_encoding::BASE64;

    use super::*;

    /// A token that is sealed for whoever has this public key, as a gateway has it in a path.
    fn sealed_for(public: &str, token: &str) -> String {
        let own = PrivateKey::generate(&ECDH_P256).unwrap();
        let ours = AgreementKey::of_point(own.compute_public_key().unwrap().as_ref()).unwrap();
        let clients = AgreementKey::of_header(public).unwrap();
        let theirs = UnparsedPublicKey::new(&ECDH_P256, clients.point());
        let seal = |secret: &[u8]| location::<Cipher>(token, secret, &ours, [7; 12]);
        let location = agree(&own, theirs, CipherRefused, seal).unwrap();
        location.strip_prefix(&format!("http://localhost:{PORT}{PATH}")).unwrap().to_owned()
    }

    /// What a browser asks for that is sent on with a token.
    fn request(sealed: &str, query: &str) -> String {
        format!("GET {PATH}{sealed}{query} HTTP/1.1\r\nHost: localhost:{PORT}\r\n\r\n")
    }

    #[test]
    fn token_that_is_sealed_for_this_client_is_brought_with_the_next_page() {
        let key = BrowserKey::generate().unwrap_or_else(|failure| panic!("{failure}"));
        let sealed = sealed_for(&key.public().unwrap(), "t0ken");
        let (token, next) = key.brought(&request(&sealed, "?return=https%3A%2F%2Fgw.test%2Fdone"));
        assert_eq!((token.unwrap().as_str(), next.as_deref()), ("t0ken", Some("https://gw.test/done")));
        for next in ["http%3A%2F%2Fgw.test", "javascript%3Aalert(1)", "https%3A%2F%2Fgw.test%0D%0AX%3A+y"] {
            let (token, next) = key.brought(&request(&sealed, &format!("?return={next}")));
            assert!(token.is_some() && next.is_none(), "{next:?}");
        }
    }

    /// Somebody whose browser asks for these things, one after the other.
    struct Visitor {
        requests: Vec<String>,
        opened: Vec<Link>,
        browser: Option<JoinHandle<Vec<String>>>,
    }

    impl Person for Visitor {
        fn answer(&mut self, _text: &str, _fields: &[LoginField]) -> Result<BTreeMap<String, String>, Failure> {
            Ok(BTreeMap::new())
        }

        fn open(&mut self, link: &Link) -> Result<(), Failure> {
            self.opened.push(link.clone());
            let requests = std::mem::take(&mut self.requests);
            let ask = |request: String| {
                let mut socket = net::TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).unwrap();
                socket.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                socket.read_to_string(&mut answer).unwrap();
                answer
            };
            self.browser = Some(thread::spawn(move || requests.into_iter().map(ask).collect()));
            Ok(())
        }

        fn wait(&mut self) {}

        fn has_browser(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn browser_is_waited_for_that_brings_the_token_whoever_else_comes() {
        let key = BrowserKey::generate().unwrap();
        let right = sealed_for(&key.public().unwrap(), "t0ken");
        let forged = sealed_for(&BrowserKey::generate().unwrap().public().unwrap(), "f0rged");
        let requests = vec![
            "GET /favicon.ico HTTP/1.1\r\n\r\n".to_owned(),
            request(&forged, ""),
            request(&right, "?return=https%3A%2F%2Fgw.test%2Fdone"),
        ];
        let mut visitor = Visitor { requests, opened: Vec::new(), browser: None };
        for url in ["file:///etc/passwd", "http://gw.test/", "https://gw.test/\r\nX: y"] {
            assert!(key.log_in(url, &mut visitor).await.is_err() && visitor.opened.is_empty(), "{url}");
        }
        let token = key.log_in("https://gw.test/sso", &mut visitor).await.unwrap();
        let opened = Link { url: "https://gw.test/sso".to_owned(), code: None, lifetime: WITHIN, on_this_host: true };
        assert_eq!((token.as_str(), visitor.opened), ("t0ken", vec![opened]));
        let answers = visitor.browser.unwrap().join().unwrap();
        for (answer, begins) in answers.iter().zip(["HTTP/1.1 404", "HTTP/1.1 404", "HTTP/1.1 302"]) {
            assert!(answer.starts_with(begins), "{answer}");
        }
        assert!(answers[2].contains("Location: https://gw.test/done\r\n"), "{}", answers[2]);
    }

    #[tokio::test]
    async fn connections_that_say_nothing_hold_no_browser_up() {
        let key = BrowserKey::generate().unwrap();
        let right = sealed_for(&key.public().unwrap(), "t0ken");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let begun = Instant::now();
        let browser = async {
            let mut silent = Vec::new();
            for _ in 0..2 * MOST_VISITORS {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            let mut browser = TcpStream::connect(address).await.unwrap();
            browser.write_all(request(&right, "").as_bytes()).await.unwrap();
            let mut answer = String::new();
            browser.read_to_string(&mut answer).await.unwrap();
            let mut oldest = [0; 1];
            assert_eq!(silent[0].read(&mut oldest).await.ok(), Some(0), "it gave way");
            answer
        };
        let listeners = [listener];
        let (token, answer) = tokio::join!(key.await_token(&listeners), browser);
        assert_eq!(token.unwrap_or_else(|failure| panic!("{failure}")).as_str(), "t0ken");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(begun.elapsed() < REQUEST_WITHIN, "nobody waited for the silent ones");
    }

    #[test]
    fn token_of_anybody_else_is_none() {
        let (key, other) = (BrowserKey::generate().unwrap(), BrowserKey::generate().unwrap());
        let public = key.public().unwrap();
        let token = |sealed: &str| key.brought(&request(sealed, "")).0;
        let right = sealed_for(&public, "t0ken");
        assert!(token(&right).is_some(), "the positive control");
        assert!(token(&sealed_for(&other.public().unwrap(), "t0ken")).is_none(), "it is for another client");
        for text in ["", "to-ken", "t\u{f6}ken"] {
            assert!(token(&sealed_for(&public, text)).is_none(), "{text}");
        }
        // Version, numbers and lengths, the key, and each byte that is sealed or vouches for it.
        let right = right.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
        let right = BASE64.decode(right.as_bytes()).unwrap();
        assert!(token(&BASE64.encode(&right)).is_some(), "also without escapes");
        for position in 0..right.len() {
            let mut changed = right.clone();
            changed[position] ^= 1;
            assert!(token(&BASE64.encode(&changed)).is_none(), "{position}");
        }
        for other in
            ["GET / HTTP/1.1\r\n\r\n", "POST /api/sso/AAAA HTTP/1.1\r\n\r\n", "GET /api/sso/AAAA HTTP/1.1\r\n\r\n", ""]
        {
            assert_eq!(key.brought(other), (None, None), "{other}");
        }
    }
}
