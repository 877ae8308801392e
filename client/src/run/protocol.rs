//! What a session needs of a protocol and of a connection that speaks it, so that one is as good as another, and tests
//! bring their own.

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use crate::packet_source::Packets;
use crate::protocols::connect_ip::{Connection, TlsConnection};
use crate::protocols::{ConnectError, ConnectionEvent, ConnectionStats, GatewayAccess};

/// Makes connections to gateways of one kind.
pub(super) trait Protocol: Clone + Send + Sync + 'static {
    /// The connections it makes.
    type Connection: OpenConnection;

    /// See [`Connection::open`].
    fn connect(
        &self,
        target: GatewayAccess,
        packets: Packets,
        timeout: Duration,
    ) -> impl Future<Output = Result<Self::Connection, ConnectError>> + Send;
}

/// A connection that has network settings, and moves packets once it is attached.
pub(super) trait OpenConnection: Send + 'static {
    /// See [`Connection::admit`].
    fn admit(&mut self, addresses: Vec<IpAddr>);
    /// See [`Connection::attach`].
    fn attach(&mut self);
    /// See [`Connection::next_event`]; safe to drop and call again.
    fn next_event(&mut self) -> impl Future<Output = ConnectionEvent> + Send;
    /// See [`Connection::stats`].
    fn stats(&self) -> ConnectionStats;
    /// See [`Connection::close`].
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// CONNECT-IP over HTTP/3.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectIp;

impl Protocol for ConnectIp {
    type Connection = Connection;

    async fn connect(
        &self,
        target: GatewayAccess,
        packets: Packets,
        timeout: Duration,
    ) -> Result<Connection, ConnectError> {
        Connection::open(&target, packets, timeout).await
    }
}

impl OpenConnection for Connection {
    fn admit(&mut self, addresses: Vec<IpAddr>) {
        Self::admit(self, addresses);
    }

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

/// CONNECT-IP over HTTP/1.1.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectIpOverTls;

impl Protocol for ConnectIpOverTls {
    type Connection = TlsConnection;

    async fn connect(
        &self,
        target: GatewayAccess,
        packets: Packets,
        timeout: Duration,
    ) -> Result<TlsConnection, ConnectError> {
        TlsConnection::open(&target, packets, timeout).await
    }
}

impl OpenConnection for TlsConnection {
    fn admit(&mut self, addresses: Vec<IpAddr>) {
        Self::admit(self, addresses);
    }

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
