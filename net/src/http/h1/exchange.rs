//! Requests to gateways that others may have made, each on a connection of its own.
//!
//! Some of them compare the names of headers with their case. What is posted has the usual one; what needs another is
//! sent as it is written.

use std::io;

use adit_program::task::{self, Task};
use adit_proto::http::field::Field;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::fields;
use super::request::{MAX_HEAD, cause, invalid, put};
use super::shaken::Shaken;

/// Most bytes of the head of an answer to what is sent as it is written: gateways name their routes in it.
const MAX_LONG_HEAD: usize = 64 << 10;
/// Most fields of such a head.
const MAX_FIELDS: usize = 1024;

/// An answer with its body. It may hold secrets, so it has no `Debug`.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The fields that are text.
    pub fields: Vec<Field>,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// The head of an answer, and the connection after it.
pub struct Heard {
    /// The status.
    pub status: u16,
    /// The fields that are text, their names in lower case.
    pub fields: Vec<Field>,
    /// The connection.
    pub connection: (TcpStream, ClientConnection),
    /// What has been read of its stream.
    pub early: Bytes,
}

/// Posts a body, and waits for the whole answer, whose body has at most `limit` bytes.
///
/// # Errors
/// Why there is no answer. What TLS found wrong is a [`rustls::Error`] in it.
pub async fn post(
    stream: Shaken,
    path: &str,
    head: Vec<Field>,
    body: Zeroizing<String>,
    limit: usize,
) -> io::Result<Reply> {
    let request = Request::post(path).body(Full::new(Bytes::from_owner(body))).map_err(invalid)?;
    let (response, _connection) = ask(stream, request, head).await?;
    let (status, fields) = (response.status().as_u16(), fields(response.headers()));
    let body = Limited::new(response.into_body(), limit).collect().await;
    let body = body.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Reply { status, fields, body: Zeroizing::new(body.to_bytes().to_vec()) })
}

/// Asks for a page, and waits for the answer, of whose body `limit` bytes are read.
///
/// # Errors
/// Why there is no answer. What TLS found wrong is a [`rustls::Error`] in it.
pub async fn get<S>(stream: S, path: &str, head: Vec<Field>, limit: usize) -> io::Result<Reply>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::get(path).body(Full::default()).map_err(invalid)?;
    let (response, _connection) = ask(stream, request, head).await?;
    let (status, fields) = (response.status().as_u16(), fields(response.headers()));
    let (mut incoming, mut body) = (response.into_body(), Zeroizing::new(Vec::new()));
    while body.len() < limit
        && let Some(frame) = incoming.frame().await
    {
        let frame = frame.map_err(|error| cause(&error))?;
        let data = frame.data_ref().map_or(&[][..], |data| &data[..]);
        let room = limit - body.len();
        body.extend_from_slice(data.get(..room).unwrap_or(data));
    }
    Ok(Reply { status, fields, body })
}

/// Sends a request, and waits for the head of the answer, whose body comes while the connection is kept.
async fn ask<S>(
    stream: S,
    mut request: Request<Full<Bytes>>,
    head: Vec<Field>,
) -> io::Result<(Response<Incoming>, Task<hyper::Result<()>>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| cause(&error))?;
    let connection = task::spawn(connection);
    put(request.headers_mut(), head)?;
    let response = sender.send_request(request).await.map_err(|error| cause(&error))?;
    Ok((response, connection))
}

/// Sends the head of a request, letter by letter, and waits for the head of the answer.
///
/// # Errors
/// Why there is no answer. What TLS found wrong is a [`rustls::Error`] in it.
pub async fn ask_verbatim(mut stream: Shaken, head: &str) -> io::Result<Heard> {
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let mut received = BytesMut::new();
    loop {
        if let Some((length, status, fields)) = parse(&received)? {
            received.advance(length);
            return Ok(Heard { status, fields, connection: stream.into_inner(), early: received.freeze() });
        }
        if received.len() >= MAX_LONG_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the head of the answer is too long"));
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Length, status and fields of a head; `None` until it is whole.
fn parse(received: &[u8]) -> io::Result<Option<(usize, u16, Vec<Field>)>> {
    let mut headers = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(received).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let (httparse::Status::Complete(length), Some(status)) = (parsed, response.code) else { return Ok(None) };
    let text = response.headers.iter().filter_map(|header| {
        let value = str::from_utf8(header.value).ok()?;
        Some(Field::new(header.name.to_ascii_lowercase(), value.trim()))
    });
    Ok(Some((length, status, text.collect())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stream::{sealed_before_an_alert, shaken};

    /// What a gateway says that wants a login, and that sends an alert right behind it, as ocserv does.
    const REFUSED: &[u8] = b"HTTP/1.1 401 Cookie is not acceptable\r\nContent-Length: 0\r\n\r\n";

    #[tokio::test]
    async fn answer_is_heard_though_an_alert_comes_with_it() {
        let ((mut socket, mut tls), stream) = shaken().await;
        socket.write_all(&sealed_before_an_alert(&mut tls, REFUSED)).await.unwrap();
        let heard = ask_verbatim(stream, "CONNECT / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(heard.status, 401);

        let ((mut socket, mut tls), stream) = shaken().await;
        let head = b"HTTP/1.1 200 OK\r\n";
        socket.write_all(&sealed_before_an_alert(&mut tls, head)).await.unwrap();
        let fault = ask_verbatim(stream, "CONNECT / HTTP/1.1\r\n\r\n").await.err().unwrap();
        let tls = fault.get_ref().and_then(|fault| fault.downcast_ref::<rustls::Error>());
        assert!(matches!(tls, Some(rustls::Error::AlertReceived(_))), "half a head is none: {fault}");
    }

    #[tokio::test]
    async fn answer_to_what_was_posted_is_heard_though_an_alert_comes_with_it() {
        let ((mut socket, mut tls), stream) = shaken().await;
        let answering = task::spawn(async move {
            // Hyper takes no answer before it has asked.
            let mut asked = [0; 1];
            socket.read_exact(&mut asked).await.unwrap();
            socket.write_all(&sealed_before_an_alert(&mut tls, REFUSED)).await.unwrap();
            socket
        });
        let reply = post(stream, "/auth", Vec::new(), Zeroizing::new("alice".to_owned()), 100).await.unwrap();
        assert_eq!(reply.status, 401);
        drop(answering.await);
    }

    #[test]
    fn head_is_read_once_it_is_whole_and_what_follows_is_left() {
        let head = b"HTTP/1.1 200 CONNECTED\r\nX-CSTP-MTU: 1400 \r\nX-CSTP-DNS: 10.0.0.1\r\nX-CSTP-DNS: \xff\r\n\r\n";
        for cut in 0..head.len() {
            assert!(parse(&head[..cut]).unwrap().is_none(), "{cut}");
        }
        let (length, status, fields) = parse(&[&head[..], b"STF\x01"].concat()).unwrap().unwrap();
        let fields: Vec<_> = fields.iter().map(|field| (field.name.as_str(), field.value.as_str())).collect();
        assert_eq!((length, status), (head.len(), 200));
        assert_eq!(fields, [("x-cstp-mtu", "1400"), ("x-cstp-dns", "10.0.0.1")], "what is no text is left out");
    }

    #[test]
    fn head_that_is_none_or_has_too_many_fields_is_refused() {
        let with = |number: usize| parse(format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(number)).as_bytes());
        assert!(with(MAX_FIELDS).is_ok_and(|head| head.is_some()));
        for refused in [
            with(MAX_FIELDS + 1),
            parse(b"STF\x01"),
            parse(b"HTTP/1.1 99999 OK\r\n\r\n"),
            parse(b"HTTP/1.1 200 OK\r\nA\r\n\r\n"),
        ] {
            assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
        }
    }
}
