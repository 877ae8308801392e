//! One accepted tunnel: its session, its capsules and its datagrams, from the 200 to the end of the stream.

use std::sync::Arc;

use adit_net::datagrams::Datagrams;
use adit_net::h3::{RequestStream, StreamError};
use adit_proto::connect_ip::request::ConnectIpRequest;
use adit_proto::connect_ip::server::{Assignment, Server, ServerEvent};
use adit_proto::h3::message::MessageEvent;
use ipnet::IpNet;

use super::FrontEnd;
use super::request::{Context, Refused, refuse};
use crate::gateway::{Gateway, OpenError};
use crate::router::Router;
use crate::session::Session;
use crate::store::Device;

/// Gives a session's addresses back when the tunnel ends, however it ends.
struct Opened {
    gateway: Arc<Gateway>,
    session: Arc<Session>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.gateway.end_session(&self.session);
    }
}

/// Opens the session of an authenticated device and serves it until the stream or the connection ends.
pub(super) async fn run(
    context: &Context,
    stream: &mut RequestStream,
    request: &ConnectIpRequest,
    device: Device,
) -> Result<(), StreamError> {
    let front_end = &*context.front_end;
    let carrier = Arc::new(Datagrams::new(context.http.quic().clone(), stream.id()));
    let opened = match open(front_end, device, Arc::clone(&carrier)).await {
        Ok(session) => Opened { gateway: Arc::clone(&front_end.gateway), session },
        Err(error) => {
            tracing::warn!(%error, "session refused");
            return refuse(stream, request, &refusal(&error)).await;
        }
    };
    let session = &opened.session;
    let mut machine = Server::new(
        request,
        Assignment {
            addresses: session.addresses().map(IpNet::from).collect(),
            routes: front_end.offer.routes.clone(),
            dns: front_end.offer.dns.clone(),
        },
    );
    stream.send_headers(&machine.response()).await?;
    flush(&mut machine, stream).await?;
    context.inbound.open(carrier, Arc::clone(session));
    follow(&mut machine, stream, front_end.gateway.router(), session).await
}

fn refusal(error: &OpenError) -> Refused {
    match error {
        OpenError::Full => Refused { status: 503, reason: "the gateway has no room for another session" },
        OpenError::Revoked => Refused { status: 403, reason: "this device was revoked" },
        OpenError::NoAddress(_) => Refused { status: 503, reason: "the gateway has no free address" },
        OpenError::Store(_) => Refused { status: 503, reason: "the gateway's store failed" },
    }
}

async fn open(front_end: &FrontEnd, device: Device, carrier: Arc<Datagrams>) -> Result<Arc<Session>, OpenError> {
    let gateway = Arc::clone(&front_end.gateway);
    tokio::task::spawn_blocking(move || gateway.open_session(device, Box::new(carrier)))
        .await
        .unwrap_or(Err(OpenError::Full))
}

/// Follows the client's capsules until its stream ends.
async fn follow(
    machine: &mut Server,
    stream: &mut RequestStream,
    router: &Router,
    session: &Session,
) -> Result<(), StreamError> {
    loop {
        let handled = match stream.next_event().await? {
            Some(MessageEvent::Data(data)) => machine.handle_data(&data).map(|()| true),
            Some(MessageEvent::Headers(_)) => Ok(true),
            Some(MessageEvent::End) | None => machine.handle_end().map(|()| false),
        };
        let open = handled.map_err(|error| stream.fail(error))?;
        while let Some(event) = machine.poll_event() {
            let ServerEvent::Packet(packet) = event;
            router.from_client(session, &mut vec![packet]);
        }
        if !open {
            stream.finish();
            return Ok(());
        }
        flush(machine, stream).await?;
    }
}

/// Sends what the machine has to say in one piece, so that the client sees one change of its network, not three.
async fn flush(machine: &mut Server, stream: &mut RequestStream) -> Result<(), StreamError> {
    let mut capsules = Vec::new();
    while let Some(capsule) = machine.poll_transmit() {
        capsules.extend(capsule);
    }
    if capsules.is_empty() { Ok(()) } else { stream.send_data(&capsules).await }
}
