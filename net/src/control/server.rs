//! The serving end of the control socket.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adit_program::task::{self, Task};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::Uid;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::events::Lines;
use super::{Handler, MAX_BODY, MAX_FOLLOWERS, Request, Response};

/// Most connections at once; further ones wait in the socket's queue.
const MAX_CONNECTIONS: usize = 64;
/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which means that descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long followers may take to read what they were told last.
const FAREWELL: Duration = Duration::from_secs(1);

/// A control socket being served; dropping it ends all its connections and removes the socket.
#[derive(Debug)]
pub struct ControlServer {
    _accepting: Task,
    path: PathBuf,
    /// Device and inode of our socket; another process may have put its own in the same place.
    identity: (u64, u64),
    followers: Arc<Semaphore>,
}

impl ControlServer {
    /// Waits until all followers have read to the end of their events, but no longer than a second. For whoever has
    /// told the last one and is about to drop the server.
    pub async fn followers_gone(&self) {
        let _slow_ones_are_cut_off = timeout(FAREWELL, self.followers.acquire_many(MAX_FOLLOWERS.into())).await;
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        let is_ours = identity(&self.path).is_ok_and(|identity| identity == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket stays behind");
        }
    }
}

/// Serves a control socket (mode 0600) to root and to the user this process runs as, on the current tokio runtime.
///
/// A socket left by a dead process is replaced.
///
/// # Errors
/// Fails with `AddrInUse` when another process listens there, with `AlreadyExists` when the path is not a socket, or as
/// the file system has it.
pub fn serve(path: &Path, handler: Arc<dyn Handler>) -> io::Result<ControlServer> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    // Until this is done, peer credentials alone keep other users out.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let identity = identity(path)?;
    let followers = Arc::new(Semaphore::new(MAX_FOLLOWERS.into()));
    let serving = Serving { handler, followers: Arc::clone(&followers) };
    Ok(ControlServer { _accepting: task::spawn(accept(listener, serving)), path: path.to_owned(), identity, followers })
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
        }
        Ok(_) => {}
    }
    match BlockingUnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// What all connections share.
#[derive(Clone)]
struct Serving {
    handler: Arc<dyn Handler>,
    /// A permit for each follower there may be.
    followers: Arc<Semaphore>,
}

async fn accept(listener: UnixListener, serving: Serving) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => { connections.spawn(connection(stream, serving.clone())); }
                Err(error) => {
                    tracing::warn!(%error, "accepting on the control socket failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: UnixStream, serving: Serving) {
    let peer_uid = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(error) => {
            tracing::debug!(%error, "a control connection has no credentials");
            return;
        }
    };
    let caller = Caller { peer_uid, cut: Arc::new(Notify::new()), place: OnceLock::new() };
    let (serving, caller) = (&serving, &caller);
    let service = service_fn(move |request| async move {
        Ok::<_, Infallible>(match answer(serving, caller, request).await {
            Answer::Whole(response) => encode(response),
            Answer::Lines(lines) => encode_lines(lines),
        })
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = caller.cut.notified() => tracing::debug!("a follower of the control socket does not read"),
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "a control connection failed");
        },
    }
}

/// Who is at the other end of a connection.
struct Caller {
    peer_uid: u32,
    /// Told when a follower does not read.
    cut: Arc<Notify>,
    /// A follower's place among all of them. It has that for as long as the connection: its last line is written by
    /// then, and not only handed over for that.
    place: OnceLock<OwnedSemaphorePermit>,
}

/// What a request is answered with.
enum Answer {
    Whole(Response),
    Lines(Lines),
}

/// A body that is there, or that comes line by line.
type Body = Either<Full<Bytes>, StreamBody<Lines>>;

async fn answer(serving: &Serving, caller: &Caller, request: hyper::Request<Incoming>) -> Answer {
    let request = match read(caller.peer_uid, request).await {
        Ok(request) => request,
        Err(refusal) => return Answer::Whole(refusal),
    };
    let Some(subscribing) = serving.handler.follow(&request) else {
        return Answer::Whole(serving.handler.handle(request).await);
    };
    let events = match subscribing.await {
        Ok(events) => events,
        Err(refusal) => return Answer::Whole(refusal),
    };
    // Asked for last: while the server ends it gives no more places, and whoever subscribes has heard why.
    let Ok(place) = Arc::clone(&serving.followers).try_acquire_owned() else {
        return Answer::Whole(Response::refused(503, format!("there are {MAX_FOLLOWERS} followers already")));
    };
    // A second one is not asked for on the same connection, which is closed after the first.
    caller.place.set(place).ok();
    Answer::Lines(events.into_lines(Arc::clone(&caller.cut)))
}

/// Reads a request of somebody who may make one.
async fn read(peer_uid: u32, request: hyper::Request<Incoming>) -> Result<Request, Response> {
    if !is_allowed(peer_uid, Uid::effective().as_raw()) {
        return Err(Response::refused(403, "only root and the user this process runs as may use the control socket"));
    }
    let (parts, body) = request.into_parts();
    let bytes = match timeout(REQUEST_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(Response::refused(413, format!("the request is larger than {MAX_BODY} bytes")));
        }
        Ok(Err(error)) => return Err(Response::refused(400, format!("the request broke off: {error}"))),
        Err(_) => return Err(Response::refused(408, "the request did not arrive in time")),
    };
    let body = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
    let body = body.map_err(|error| Response::refused(400, format!("the request is not JSON: {error}")))?;
    Ok(Request { method: parts.method.as_str().to_owned(), path: parts.uri.path().to_owned(), body, peer_uid })
}

fn is_allowed(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

fn encode_lines(lines: Lines) -> hyper::Response<Body> {
    let mut encoded = hyper::Response::new(Either::Right(StreamBody::new(lines)));
    encoded.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    encoded
}

fn encode(response: Response) -> hyper::Response<Body> {
    let body = Either::Left(Full::new(Bytes::from(response.body.to_string())));
    let mut encoded = hyper::Response::new(body);
    *encoded.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    encoded.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user_are_allowed() {
        assert!(is_allowed(0, 1000));
        assert!(is_allowed(1000, 1000));
        assert!(!is_allowed(1001, 1000));
        assert!(!is_allowed(1000, 0));
    }
}
