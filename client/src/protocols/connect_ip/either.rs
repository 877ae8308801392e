//! A connection over QUIC or over TLS, whichever it came to be.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_net::http::h1::Shaken;
use adit_proto::carrier_choice::Transport;
use tokio::sync::watch;

use super::dial::Dialled;
use super::silence::Doubt;
use super::{Connection, TlsConnection, WhenNarrow};
use crate::packet_source::Packets;
use crate::protocols::{ConnectError, ConnectionEvent, ConnectionStats, GatewayAccess, OpenConnection};

/// A connection whose gateway has proven who it is, and was not asked for anything yet.
pub(super) enum Proven {
    Quic(Dialled),
    Tls(Box<(Shaken, SocketAddr)>),
}

impl Proven {
    /// Shakes hands over one of the two, and no more.
    pub(super) async fn dial(
        transport: Transport,
        target: &GatewayAccess,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let dialled = match transport {
            Transport::Quic => Connection::dial(target, timeout).await.map(Self::Quic),
            Transport::Tls => TlsConnection::dial(target, timeout).await.map(|dialled| Self::Tls(Box::new(dialled))),
        };
        dialled.map_err(|error| target.explain_dates(error))
    }

    /// Asks for the session.
    pub(super) async fn ask(self, target: &GatewayAccess, packets: Packets) -> Result<EitherConnection, ConnectError> {
        let asked = match self {
            Self::Quic(dialled) => {
                let asked = Connection::ask(dialled, target, packets, WhenNarrow::Doubt).await;
                asked.map(EitherConnection::Quic)
            }
            Self::Tls(dialled) => TlsConnection::ask(*dialled, target, packets).await.map(EitherConnection::Tls),
        };
        asked.map_err(|error| target.explain_dates(error))
    }
}

/// An open connection of either kind; dropping it closes it.
pub(super) enum EitherConnection {
    Quic(Connection),
    Tls(TlsConnection),
}

impl EitherConnection {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tls(_) => Transport::Tls,
        }
    }

    /// Takes no more packets. Those that it has are still sent, and those that come delivered.
    pub(super) fn stop_sending(&mut self) {
        match self {
            Self::Quic(connection) => connection.outward = None,
            Self::Tls(connection) => connection.stop_sending(),
        }
    }

    /// Whether QUIC is doubted; `None` where TCP knows better.
    pub(super) fn doubts(&self) -> Option<watch::Receiver<Option<Doubt>>> {
        match self {
            Self::Quic(connection) => Some(connection.doubts.clone()),
            Self::Tls(_) => None,
        }
    }
}

impl OpenConnection for EitherConnection {
    fn admit(&mut self, addresses: Vec<IpAddr>) {
        match self {
            Self::Quic(connection) => connection.admit(addresses),
            Self::Tls(connection) => connection.admit(addresses),
        }
    }

    fn attach(&mut self) {
        match self {
            Self::Quic(connection) => connection.attach(),
            Self::Tls(connection) => connection.attach(),
        }
    }

    async fn next_event(&mut self) -> ConnectionEvent {
        match self {
            Self::Quic(connection) => connection.next_event().await,
            Self::Tls(connection) => connection.next_event().await,
        }
    }

    fn handle_wake(&mut self, slept: Duration) {
        match self {
            Self::Quic(connection) => connection.handle_wake(slept),
            Self::Tls(connection) => connection.handle_wake(slept),
        }
    }

    fn outlives_moves(&self) -> bool {
        match self {
            Self::Quic(connection) => connection.outlives_moves(),
            Self::Tls(connection) => connection.outlives_moves(),
        }
    }

    fn stats(&self) -> ConnectionStats {
        match self {
            Self::Quic(connection) => connection.stats(),
            Self::Tls(connection) => connection.stats(),
        }
    }

    async fn close(self) {
        match self {
            Self::Quic(connection) => connection.close().await,
            Self::Tls(connection) => connection.close().await,
        }
    }
}
