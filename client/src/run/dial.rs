//! What the session's driver needs of a connection, so that tests can give it another.

use std::future::Future;
use std::time::Duration;

use crate::packet_source::Packets;
use crate::protocols::connect_ip::Connection;
use crate::protocols::{ConnectError, ConnectionEvent, ConnectionStats, Target};

/// Makes connections.
pub(super) trait Dial: Clone + Send + Sync + 'static {
    /// The connections it makes.
    type Line: Line;

    /// See [`Connection::open`].
    fn dial(
        &self,
        target: Target,
        packets: Packets,
        timeout: Duration,
    ) -> impl Future<Output = Result<Self::Line, ConnectError>> + Send;
}

/// An open connection.
pub(super) trait Line: Send + 'static {
    /// See [`Connection::attach`].
    fn attach(&mut self);
    /// See [`Connection::next_event`]; safe to drop and call again.
    fn next_event(&mut self) -> impl Future<Output = ConnectionEvent> + Send;
    /// See [`Connection::stats`].
    fn stats(&self) -> ConnectionStats;
    /// See [`Connection::close`].
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Real connections over QUIC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quic;

impl Dial for Quic {
    type Line = Connection;

    async fn dial(&self, target: Target, packets: Packets, timeout: Duration) -> Result<Connection, ConnectError> {
        Connection::open(&target, packets, timeout).await
    }
}

impl Line for Connection {
    fn attach(&mut self) {
        Self::attach(self);
    }

    async fn next_event(&mut self) -> ConnectionEvent {
        Self::next_event(self).await
    }

    fn stats(&self) -> ConnectionStats {
        Self::stats(self)
    }

    async fn close(self) {
        Self::close(self).await;
    }
}
