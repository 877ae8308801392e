//! What a session needs of a protocol, so that one is as good as another, and tests bring their own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::network_memory::NetworkMemory;
use crate::packet_source::Packets;
use crate::protocols::anyconnect::ChannelConnection;
use crate::protocols::connect_ip::{ChangingConnection, Connection, TlsConnection};
use crate::protocols::{ConnectError, GatewayAccess, OpenConnection};

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

/// CONNECT-IP over QUIC where that passes, else over TLS.
#[derive(Clone)]
pub(super) struct ConnectIp {
    pub(super) networks: Option<Arc<dyn NetworkMemory>>,
}

impl Protocol for ConnectIp {
    type Connection = ChangingConnection;

    async fn connect(
        &self,
        target: GatewayAccess,
        packets: Packets,
        timeout: Duration,
    ) -> Result<ChangingConnection, ConnectError> {
        ChangingConnection::open(target, packets, self.networks.clone(), timeout).await
    }
}

/// CONNECT-IP over HTTP/3.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectIpOverUdp;

impl Protocol for ConnectIpOverUdp {
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

/// The protocol of the AnyConnect family.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnyConnect;

impl Protocol for AnyConnect {
    type Connection = ChannelConnection;

    async fn connect(
        &self,
        target: GatewayAccess,
        packets: Packets,
        timeout: Duration,
    ) -> Result<ChannelConnection, ConnectError> {
        ChannelConnection::open(&target, packets, timeout).await
    }
}
