//! A connection to a gateway over TLS and TCP, for networks that pass no UDP: CONNECT-IP by an upgrade of HTTP/1.1.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::following::{FollowError, Following, Step};
use adit_net::carrier::tls::{CapsuleCarrier, Capsules};
use adit_net::http::h1::{self, Shaken, UpgradedStream};
use adit_net::http::stream::TunnelStream;
use adit_net::tls;
use adit_proto::connect_ip::client::Client;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::control::{News, machine, refusal};
use super::explain::explain_tcp;
use super::unacknowledged::AckWatch;
use super::{ConnectError, ConnectionEvent, Endpoint, GatewayAccess};
use crate::packet_source::{Packets, TunnelSession};
use crate::protocols::data::DataPath;
use crate::protocols::stream::{Moving, StreamConnection, largest_packet, shake};

/// An open connection over TLS; dropping it closes it.
pub type TlsConnection = StreamConnection<Capsules>;

impl StreamConnection<Capsules> {
    /// See [`Connection::open`](super::Connection::open).
    pub async fn open(target: &GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        let opened = tokio::time::timeout(timeout, Self::open_tunnel(target, packets, timeout)).await;
        let opened = opened.unwrap_or_else(|_elapsed| Err(ConnectError::Unreachable(target.authority())));
        opened.map_err(|error| target.explain_dates(error))
    }

    async fn open_tunnel(target: &GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        let dialled = Self::dial(target, timeout).await?;
        Self::ask(dialled, target, packets).await
    }

    /// Shakes hands, and no more; says with which address.
    pub(super) async fn dial(target: &GatewayAccess, timeout: Duration) -> Result<(Shaken, SocketAddr), ConnectError> {
        let gateway = target.endpoint()?;
        let over_tcp = Endpoint { tls: tls::over_tcp(&gateway.tls), ..gateway };
        shake(&over_tcp, timeout).await
    }

    /// Asks for the session.
    pub(super) async fn ask(
        (stream, remote): (Shaken, SocketAddr),
        target: &GatewayAccess,
        packets: Packets,
    ) -> Result<Self, ConnectError> {
        let mut machine = machine(target, None);
        let answered = h1::request_tunnel(stream, &machine.request()).await;
        let answered = answered.map_err(|error| explain_tcp(&error, remote))?;
        machine.handle_response(&answered.fields, Instant::now()).map_err(|error| refusal(error, &answered.fields))?;
        let Some(upgraded) = answered.upgraded else {
            return Err(ConnectError::Protocol("the gateway gives no tunnel, and does not say why".to_owned()));
        };
        let carrier = CapsuleCarrier::new(remote, largest_packet(&packets));
        let (moving, capsules) = Moving::start(carrier, Capsules::default(), upgraded, packets)?;
        let stream = TunnelStream::from(UpgradedStream::new(Arc::clone(&moving.carrier), capsules));
        let following = Following::new(stream, machine, None);
        // The end of the stream is all the farewell there is.
        Self::followed_by(moving, Bytes::new(), |moving, events| control(following, moving, events)).await
    }
}

/// Follows the tunnel until it ends; the last event is always `Closed`.
async fn control(
    mut following: Following<Client, TunnelSession>,
    moving: Moving<Capsules>,
    events: mpsc::Sender<ConnectionEvent>,
) {
    let acks = AckWatch::new(Arc::clone(&moving.carrier));
    let followed = follow(&mut following, acks, &moving.data, &events).await;
    let ended = moving.end().await;
    let error = match (followed, ended) {
        (Err(error), _) => ConnectError::Protocol(error.to_string()),
        (Ok(()), Some(error)) => error,
        (Ok(()), None) => ConnectError::Closed("the gateway ended the session".to_owned()),
    };
    tracing::debug!(%error, "tunnel ended");
    let _reader_gone = events.send(ConnectionEvent::Closed(error)).await;
}

async fn follow(
    following: &mut Following<Client, TunnelSession>,
    mut acks: AckWatch,
    data: &DataPath,
    events: &mpsc::Sender<ConnectionEvent>,
) -> Result<(), FollowError> {
    let mut news = News::default();
    loop {
        tokio::select! {
            step = following.step() => match step? {
                Step::Event(event) => news.take(event, data),
                Step::Drained => news.tell(data, events).await,
                Step::Ended => return Ok(()),
            },
            is_silent = acks.changed() => {
                let _reader_gone = events.send(ConnectionEvent::Silent(is_silent)).await;
            }
        }
    }
}
