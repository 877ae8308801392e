//! Requests to servers that an administrator has named: bounded in time and size, over TLS, and never redirected.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_program::causes::with_causes;
use adit_program::task;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::InvalidUri;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Largest body of an answer, in bytes: hundreds of groups, keys or certificates are far below it.
const MAX_BODY: usize = 1 << 20;
/// Most bytes of an answer's head.
const MAX_HEAD: usize = 64 << 10;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    /// The address is not one that may be asked.
    #[error("{0}")]
    Address(String),
    /// Nothing came in time.
    #[error("{host} did not answer within {} s", patience.as_secs())]
    Late {
        /// Whom it was for.
        host: String,
        /// How long was waited.
        patience: Duration,
    },
    /// The answer is larger than any honest one.
    #[error("{host} answered with more than {MAX_BODY} bytes")]
    Long {
        /// Who answered.
        host: String,
    },
    /// No connection, or it broke.
    #[error("{host} cannot be reached: {reason}")]
    Broken {
        /// Whom it was for.
        host: String,
        /// The reason in words.
        reason: String,
    },
}

/// What requests are made with.
pub(crate) struct WebClient {
    tls: TlsConnector,
    patience: Duration,
}

impl WebClient {
    /// Believes the servers that `tls` believes. A request may take so long, from looking up the name to the last byte
    /// of the answer.
    pub(crate) fn new(tls: Arc<ClientConfig>, patience: Duration) -> Self {
        Self { tls: TlsConnector::from(tls), patience }
    }

    /// Makes one request on a connection of its own.
    pub(crate) async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, WebError> {
        let uri = check(&request.uri().to_string()).map_err(WebError::Address)?;
        let answered = timeout(self.patience, self.exchange(&uri, request)).await;
        let late = || WebError::Late { host: host_of(&uri).to_owned(), patience: self.patience };
        answered.unwrap_or_else(|_elapsed| Err(late()))
    }

    async fn exchange(&self, uri: &Uri, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, WebError> {
        let host = host_of(uri);
        let broken = |reason: String| WebError::Broken { host: host.to_owned(), reason };
        let bare = without_brackets(host);
        let is_plain = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| broken(error.to_string()))?;
        if is_plain {
            return over(stream, uri, request).await;
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| broken(error.to_string()))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| broken(error.to_string()))?;
        over(stream, uri, request).await
    }
}

async fn over<S>(stream: S, uri: &Uri, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, WebError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = || host_of(uri).to_owned();
    let broken = |error: hyper::Error| WebError::Broken { host: host(), reason: with_causes(&error) };
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let _driver = task::spawn(connection);
    let answer = sender.send_request(in_origin_form(uri, request)?).await.map_err(broken)?;
    let (parts, body) = answer.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(WebError::Long { host: host() }),
        Err(error) => return Err(WebError::Broken { host: host(), reason: error.to_string() }),
    };
    Ok(Response::from_parts(parts, body.into()))
}

/// The request as a server reads it (RFC 9112 section 3.2.1), instead of as a proxy does.
fn in_origin_form(uri: &Uri, request: Request<Vec<u8>>) -> Result<Request<Full<Bytes>>, WebError> {
    let unfit = |error: String| WebError::Address(format!("{uri}: {error}"));
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let host = uri.port().map_or_else(|| host_of(uri).to_owned(), |port| format!("{}:{port}", host_of(uri)));
    let (mut parts, body) = request.into_parts();
    parts.uri = target.parse().map_err(|error: InvalidUri| unfit(error.to_string()))?;
    let host = HeaderValue::try_from(host).map_err(|error| unfit(error.to_string()))?;
    parts.headers.insert(HOST, host);
    Ok(Request::from_parts(parts, Full::new(Bytes::from(body))))
}

/// A URL that may be asked: https, or http at this host itself.
pub(crate) fn check(text: &str) -> Result<Uri, String> {
    let uri = text.parse::<Uri>().map_err(|error| format!("{text:?} is no URL: {error}"))?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| format!("{text:?} names no host"))?;
    let is_loopback =
        host == "localhost" || without_brackets(host).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && is_loopback) {
        return Ok(uri);
    }
    Err(format!("{text:?} is not https, and plain http is for loopback addresses alone"))
}

fn host_of(uri: &Uri) -> &str {
    uri.host().unwrap_or_default()
}

/// The host of a URL as an address or a name: there, IPv6 addresses stand in brackets.
fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::trust;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// Answers one request with these bytes and gives its URL.
    async fn answering(answer: Vec<u8>) -> (String, task::Task<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a?b=c", listener.local_addr().unwrap());
        let serving = task::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 4096];
            let length = stream.read(&mut heard).await.unwrap();
            let _gone = stream.write_all(&answer).await;
            String::from_utf8_lossy(&heard[..length]).into_owned()
        });
        (url, serving)
    }

    async fn get(url: &str) -> Result<Response<Vec<u8>>, WebError> {
        client().send(Request::builder().uri(url).body(Vec::new()).unwrap()).await
    }

    fn client() -> WebClient {
        let authority = rcgen::generate_simple_self_signed(["provider.test".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authority.pem");
        adit_program::durable_file::create(&file, authority.cert.pem().as_bytes(), 0o644).unwrap();
        WebClient::new(trust::tls("oidc.authority", Some(&file)).unwrap(), PATIENCE)
    }

    #[test]
    fn only_https_and_this_host_itself_are_asked() {
        for good in ["https://a.example/x", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost:8080/realm"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["http://a.example/", "http://192.0.2.1/", "http://localhost.a.example/", "ftp://127.0.0.1/", "x"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn request_names_path_and_host_and_its_answer_comes_whole() {
        let (url, serving) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec()).await;
        let answer = get(&url).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().as_slice()), (200, b"hi".as_slice()));
        let heard = serving.await.unwrap();
        assert!(heard.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{heard}");
        assert!(heard.to_lowercase().contains("host: 127.0.0.1:"), "{heard}");
    }

    #[tokio::test]
    async fn redirect_is_an_answer_like_any_other() {
        let (url, _serving) =
            answering(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec())
                .await;
        assert_eq!(get(&url).await.unwrap().status().as_u16(), 302);
    }

    #[tokio::test]
    async fn endless_body_is_cut_off() {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.resize(answer.len() + MAX_BODY + 1, b'a');
        let (url, _serving) = answering(answer).await;
        assert!(matches!(get(&url).await, Err(WebError::Long { .. })));
    }

    #[tokio::test]
    async fn silence_ends_after_five_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        // Only now: with time paused, tokio would not wait for the operating system.
        tokio::time::pause();
        assert!(matches!(get(&url).await, Err(WebError::Late { .. })));
    }

    #[tokio::test]
    async fn provider_with_a_strangers_certificate_is_not_believed() {
        let strange = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(strange.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(adit_net::tls::crypto_provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![strange.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let _serving = task::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.map(drop)
        });
        let error = get(&url).await.unwrap_err().to_string();
        assert!(error.contains("localhost cannot be reached") && error.contains("certificate"), "{error}");
    }
}
