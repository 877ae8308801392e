//! One connection, from the handshake to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::quic::Datagrams;
use adit_net::http::h3::{H3Connection, close};
use adit_program::task;
use adit_proto::http::h3::error::Code;
use adit_proto::restart;
use adit_proto::role::Role;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::FrontEnd;
use super::asker::Asker;
use super::inbound::Inbound;
use super::request::Context;
use super::stage::{Stage, Stay};
use crate::core::admission::Place;
use crate::core::callers::Caller;
use crate::core::sessions::{About, Closing, Connection, Ending};
use crate::front_ends::peer::Peer;

/// A connection must have finished its handshake after this time.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Serves a connection; `place` is given back while it carries a tunnel.
pub(super) async fn serve(front_end: Arc<FrontEnd>, incoming: quinn::Incoming, place: Place) {
    let remote = incoming.remote_address();
    let shaken = tokio::select! {
        shaken = shake_hands(incoming, remote) => shaken,
        () = place.given_way() => return tracing::debug!(%remote, "handshake gave way to another"),
    };
    let Some(quic) = shaken else { return };
    if !place.prove(Instant::now()) {
        return close(&quic, Code::EXCESSIVE_LOAD, "too many connections come from this network");
    }
    let peer = Arc::new(Peer::of(&quic));
    let caller = Arc::new(Caller::new(Arc::new(quic.clone())));
    let http = Arc::new(H3Connection::start(quic, Role::Server));
    let inbound = Arc::new(Inbound::default());
    // Reads from the start, so that nothing a stranger sends piles up.
    let router = Arc::clone(&front_end.router);
    let _receiving = task::spawn(Arc::clone(&inbound).receive(http.quic().clone(), router));
    let (stage, changes) = watch::channel(Stage::default());
    let stay = Stay::new(Arc::clone(&front_end.pending), remote.ip(), place, changes);
    let asker = Asker { front_end, peer, caller };
    let context = Context { asker, http: Arc::clone(&http), inbound, stage: Arc::new(stage) };
    let mut requests = JoinSet::new();
    take_requests(&http, &context, stay, &mut requests).await;
    // Sessions end with their connection: let their tasks see it and give back their addresses.
    while requests.join_next().await.is_some() {}
}

async fn shake_hands(incoming: quinn::Incoming, remote: SocketAddr) -> Option<quinn::Connection> {
    let handshake = async { incoming.accept()?.await };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await {
        Ok(Ok(quic)) => return Some(quic),
        Ok(Err(error)) => tracing::debug!(%remote, %error, "handshake failed"),
        Err(_elapsed) => tracing::debug!(%remote, "handshake took too long"),
    }
    None
}

/// Takes requests until the connection ends, or may stay no longer.
async fn take_requests(http: &H3Connection, context: &Context, mut stay: Stay, requests: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            accepted = http.accept_request() => match accepted {
                Ok(stream) => { requests.spawn(Context::clone(context).handle(stream.into())); }
                Err(_connection_ended) => return,
            },
            Some(_) = requests.join_next() => {}
            over = stay.over() => return close(http.quic(), over.code(), over.reason()),
        }
    }
}

impl Connection for Datagrams {
    fn remote(&self) -> SocketAddr {
        // A socket that takes both families maps IPv4 addresses into IPv6.
        let remote = self.quic().remote_address();
        SocketAddr::new(remote.ip().to_canonical(), remote.port())
    }

    fn about(&self) -> About<'_> {
        About { front_end: "connect-ip", cipher: None, client: None }
    }
}

impl Closing for Datagrams {
    fn close(&self, ending: Ending) {
        end(self.quic(), ending);
    }
}

impl Closing for quinn::Connection {
    fn close(&self, ending: Ending) {
        end(self, ending);
    }
}

/// Ends a QUIC connection for a reason of the core.
fn end(quic: &quinn::Connection, ending: Ending) {
    let code = quinn::VarInt::from_u64(code(ending)).expect("error codes fit a varint");
    quic.close(code, ending.reason().as_bytes());
}

/// The error code that a reason of the core has.
fn code(ending: Ending) -> u64 {
    match ending {
        // Tells the client that trying again at once is useless.
        Ending::Revoked
        | Ending::Disabled
        | Ending::Crowded
        | Ending::Idle
        | Ending::OutsideHours
        | Ending::CertificateOver => Code::REQUEST_REJECTED.value(),
        Ending::Replaced | Ending::LoginOver | Ending::Shutdown => Code::NO_ERROR.value(),
        Ending::Restart(seconds) => restart::close_code(Duration::from_secs(seconds.into())),
    }
}
