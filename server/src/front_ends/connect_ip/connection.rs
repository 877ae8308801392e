//! One connection, from the handshake to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_net::carrier::quic::Datagrams;
use adit_net::http::h3::{H3Connection, close};
use adit_program::task;
use adit_proto::http::h3::error::Code;
use adit_proto::role::Role;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::FrontEnd;
use super::inbound::Inbound;
use super::peer::Peer;
use super::request::Context;
use crate::core::admission::Place;
use crate::core::sessions::{Closing, Connection, Ending};

/// A connection must have finished its handshake after this time.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A connection must have logged in or enrolled after this time, and must not be without a request for longer.
const IDLE_DEADLINE: Duration = Duration::from_secs(10);

/// Serves a connection; `place` is given back once it has logged in or enrolled.
pub(super) async fn serve(front_end: Arc<FrontEnd>, incoming: quinn::Incoming, place: Place) {
    let remote = incoming.remote_address();
    let Some(quic) = shake_hands(incoming, remote).await else { return };
    let peer = Arc::new(Peer::of(&quic));
    let http = Arc::new(H3Connection::start(quic, Role::Server));
    let inbound = Arc::new(Inbound::default());
    // Reads from the start, so that nothing a stranger sends piles up.
    let router = Arc::clone(&front_end.router);
    let _receiving = task::spawn(Arc::clone(&inbound).receive(http.quic().clone(), router));
    let (logged_in, login) = mpsc::channel(1);
    let context = Context { front_end, peer, http: Arc::clone(&http), inbound, logged_in };
    let mut requests = JoinSet::new();
    take_requests(&http, &context, place, login, &mut requests).await;
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

/// Takes requests until the connection ends, or for too long nobody logs in or nothing is asked.
async fn take_requests(
    http: &H3Connection,
    context: &Context,
    place: Place,
    mut login: mpsc::Receiver<()>,
    requests: &mut JoinSet<()>,
) {
    let mut place = Some(place);
    let deadline = tokio::time::sleep(IDLE_DEADLINE);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            accepted = http.accept_request() => match accepted {
                Ok(stream) => { requests.spawn(Context::clone(context).handle(stream.into())); }
                Err(_connection_ended) => return,
            },
            Some(()) = login.recv(), if place.is_some() => place = None,
            // A stranger's deadline stays, whatever it asks.
            Some(_) = requests.join_next() => if place.is_none() {
                deadline.as_mut().reset(Instant::now() + IDLE_DEADLINE);
            },
            () = &mut deadline, if place.is_some() || requests.is_empty() => {
                let code = if place.is_some() { Code::EXCESSIVE_LOAD } else { Code::NO_ERROR };
                return close(http.quic(), code, "nothing was asked for too long");
            }
        }
    }
}

impl Connection for Datagrams {
    fn remote(&self) -> SocketAddr {
        // A socket that takes both families maps IPv4 addresses into IPv6.
        let remote = self.quic().remote_address();
        SocketAddr::new(remote.ip().to_canonical(), remote.port())
    }
}

impl Closing for Datagrams {
    fn close(&self, ending: Ending) {
        let code = match ending {
            // Tells the client that trying again is useless.
            Ending::Revoked => Code::REQUEST_REJECTED,
            Ending::Replaced | Ending::Shutdown => Code::NO_ERROR,
        };
        close(self.quic(), code, ending.reason());
    }
}
