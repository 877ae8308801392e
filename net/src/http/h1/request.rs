//! The client's part before a tunnel: TLS over TCP, and the request for the upgrade.

use std::error::Error;
use std::io;
use std::sync::Arc;

use adit_program::task;
use adit_proto::http::field::Field;
use adit_proto::http::h1::{tunnel_response, upgrade_request};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, upgrade};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::fields;
use super::shaken::Shaken;

/// Most bytes of an answer's head.
pub(super) const MAX_HEAD: usize = 16 << 10;

/// A gateway's answer to a request for a tunnel, in the form of HTTP/3.
pub struct Answered {
    /// Its status and fields.
    pub fields: Vec<Field>,
    /// If it is the upgrade: the connection, and what has been read of its stream.
    pub upgraded: Option<((TcpStream, ClientConnection), Bytes)>,
}

/// Shakes hands over TCP. `host` is the name or address that the certificate must bear.
///
/// # Errors
/// Why it failed; what TLS found wrong is a [`rustls::Error`] in it.
pub async fn connect(socket: TcpStream, config: Arc<ClientConfig>, host: &str) -> io::Result<Shaken> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the name is no host name"))?;
    Ok(TlsConnector::from(config).connect(name, socket).await?.into())
}

/// Asks for the tunnel that `request` asks for in the form of HTTP/3.
///
/// # Errors
/// Why there is no answer, or none that HTTP/1.1 permits. What TLS found wrong is a [`rustls::Error`] in it.
pub async fn request_tunnel(stream: Shaken, request: &[Field]) -> io::Result<Answered> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| cause(&error))?;
    let connection = task::spawn(connection.with_upgrades());
    let response = sender.send_request(head(request)?).await.map_err(|error| cause(&error))?;
    let status = response.status().as_u16();
    let fields = tunnel_response(status, fields(response.headers()))
        .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.reason()))?;
    if status != 101 {
        return Ok(Answered { fields, upgraded: None });
    }
    let upgraded = upgrade::on(response).await.map_err(|error| cause(&error))?;
    drop(connection);
    let parts = upgraded
        .downcast::<TokioIo<Shaken>>()
        .map_err(|_| io::Error::other("the connection is not the one that was asked on"))?;
    Ok(Answered { fields, upgraded: Some((parts.io.into_inner().into_inner(), parts.read_buf)) })
}

fn head(request: &[Field]) -> io::Result<Request<Empty<Bytes>>> {
    let (path, fields) = upgrade_request(request);
    let mut head = Request::get(path).body(Empty::new()).map_err(invalid)?;
    put(head.headers_mut(), fields)?;
    Ok(head)
}

/// Adds fields to the headers of a request.
pub(super) fn put(headers: &mut HeaderMap, fields: Vec<Field>) -> io::Result<()> {
    for field in fields {
        let name = HeaderName::try_from(field.name).map_err(invalid)?;
        let mut value = HeaderValue::try_from(field.value).map_err(invalid)?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(())
}

pub(super) fn invalid(error: impl Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// What lies behind an error of HTTP: of TLS or of the socket, if it is one of those.
pub(super) fn cause(error: &hyper::Error) -> io::Error {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            return match tls {
                Some(tls) => io::Error::new(error.kind(), tls.clone()),
                None => io::Error::new(error.kind(), error.to_string()),
            };
        }
        source = error.source();
    }
    // A request is cancelled if the connection ends before it is sent.
    let has_ended = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    let kind = if has_ended { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
    io::Error::new(kind, error.to_string())
}
