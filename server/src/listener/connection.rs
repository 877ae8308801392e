//! One connection, from the moment it is accepted until it ends, or until a guest that took it over is done with it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{self, OnUpgrade};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::quiet::{Hush, Quiet};
use super::{Answer, Caller, CallerStream, Challenges, Guests, Reply, TakeOver};
use crate::core::admission::{Admission, Place};

/// How long a TLS handshake may take, and the head of a request.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may ask.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long its last answer may then still take: a login waits for somebody to confirm it, or for a slow source.
const LAST_ANSWER: Duration = Duration::from_secs(60);
/// Most bytes of a request's head. What a provider has a browser bring back is far below it.
pub(super) const MAX_HEAD: usize = 16 << 10;

/// A connection that is to be a guest's as soon as HTTP lets go of it.
type Taken = Mutex<Option<(OnUpgrade, TakeOver)>>;

/// Serves a connection while it has a place and time. Once a guest has taken it over, it needs neither.
pub(super) async fn admit(stream: TcpStream, address: SocketAddr, tls: Option<TlsAcceptor>, guests: Arc<Guests>) {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let Ok(local) = stream.local_addr() else { return };
    let caller = Caller { address, local, certificate: None, protocol: None, suite: None, place: None };
    let Some(tls) = tls else {
        // All clients of a reverse proxy share its address, so it has no place that others could take from it.
        exchange(TokioIo::new(stream), &caller, &guests).await;
        return;
    };
    let Admission::Place(place) = guests.pending.admit(address.ip(), true, Instant::now()) else { return };
    let caller = Caller { place: Some(place), ..caller };
    let Some((stream, caller)) = shake_hands(stream, &tls, &guests.challenges, caller).await else { return };
    let taken = tokio::select! {
        () = given_way(&caller) => None,
        taken = exchange(TokioIo::new(stream), &caller, &guests) => taken,
    };
    drop(caller);
    if let Some((upgrade, take_over)) = taken {
        hand_over(upgrade, take_over).await;
    }
}

async fn given_way(caller: &Caller) {
    match &caller.place {
        Some(place) => place.given_way().await,
        None => std::future::pending().await,
    }
}

/// Shakes hands with a caller that does not give way meanwhile. With an authority's question all is said by that.
async fn shake_hands(
    stream: TcpStream,
    tls: &TlsAcceptor,
    challenges: &Challenges,
    caller: Caller,
) -> Option<(CallerStream, Caller)> {
    let stream = tokio::select! {
        () = given_way(&caller) => return None,
        shaken = timeout(PATIENCE, accept(stream, tls, challenges)) => match shaken {
            Ok(Ok(stream)) => stream?,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                return None;
            }
            Err(_elapsed) => {
                tracing::debug!("a TLS handshake took too long");
                return None;
            }
        },
    };
    // Whoever has come so far goes after those that have not.
    if !caller.place.as_ref().is_some_and(|place: &Place| place.prove(Instant::now())) {
        return None;
    }
    let (_, session) = stream.get_ref();
    let caller = Caller {
        certificate: session.peer_certificates().and_then(<[_]>::first).map(|shown| shown.clone().into_owned()),
        protocol: session.protocol_version(),
        suite: session.negotiated_cipher_suite().map(|suite| suite.suite()),
        ..caller
    };
    Some((stream, caller))
}

/// Shakes hands as the caller's hello asks for. One that is the question of an authority is answered by that, and the
/// connection is over.
async fn accept(stream: TcpStream, tls: &TlsAcceptor, challenges: &Challenges) -> io::Result<Option<CallerStream>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let answer = challenges.answer_to(&hello.client_hello());
    let Some(answer) = answer else { return Ok(Some(hello.into_stream(Arc::clone(tls.config())).await?)) };
    let mut stream = hello.into_stream(answer).await?;
    stream.shutdown().await?;
    tracing::debug!("an authority has its answer");
    Ok(None)
}

/// Answers requests until the connection ends; gives the guest that takes it over, if one does.
async fn exchange<S>(stream: S, caller: &Caller, guests: &Guests) -> Option<(OnUpgrade, TakeOver)>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let (taken, hush) = (Arc::<Taken>::default(), Hush::default());
    let stream = hush.over(stream);
    let service = service_fn(|request| {
        let (taken, hush) = (Arc::clone(&taken), hush.clone());
        async move { Ok::<_, Infallible>(answer(request, caller, guests, &taken, &hush).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        // As old clients know them.
        .title_case_headers(true)
        .serve_connection(stream, service)
        .with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = sleep(LIFETIME) => {
            served.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
    taken.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Has the guest answer whose the request is.
async fn answer(
    mut request: Request<Incoming>,
    caller: &Caller,
    guests: &Guests,
    taken: &Taken,
    hush: &Hush,
) -> Answer {
    caller.touch();
    let upgrade = upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let Some(guest) = guests.guests.iter().find(|guest| guest.wants(&head)) else { return nobodys() };
    match guest.answer(Request::from_parts(head, body), caller).await {
        Reply::Answer(answer) => answer,
        Reply::TakeOver(answer, take_over) => {
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, take_over));
            answer
        }
        Reply::Connect(take_over) => {
            hush.hush();
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, take_over));
            // Nobody hears it; HTTP lets go of the connection after it.
            Answer::default()
        }
    }
}

fn nobodys() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}

/// Has a guest do what it wants with the connection, until it is done.
async fn hand_over(upgrade: OnUpgrade, take_over: TakeOver) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, "a connection ended before it was taken over"),
    };
    match upgraded.downcast::<Quiet<TokioIo<CallerStream>>>() {
        Ok(parts) => take_over(parts.io.stream.into_inner(), parts.read_buf).await,
        Err(_without_tls) => tracing::debug!("a connection without TLS is not taken over"),
    }
}
