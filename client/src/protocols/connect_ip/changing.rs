//! A session's connection over whichever of QUIC and TLS the network passes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::either::EitherConnection;
use super::racing::{self, Won};
use crate::packet_source::Packets;
use crate::protocols::{ConnectError, ConnectionEvent, ConnectionStats, GatewayAccess, OpenConnection};

/// An open connection over QUIC where that passes, else over TLS; dropping it closes it.
pub struct ChangingConnection {
    current: EitherConnection,
    /// Why packets do not go over UDP, in words, if they do not.
    why: Option<String>,
}

impl ChangingConnection {
    /// As [`Connection::open`](super::Connection::open), over whichever answers first.
    pub(crate) async fn open(target: GatewayAccess, packets: Packets, timeout: Duration) -> Result<Self, ConnectError> {
        let Won { connection, why } = racing::race(Arc::new(target), packets, false, timeout).await?;
        Ok(Self { current: connection, why })
    }
}

impl OpenConnection for ChangingConnection {
    fn admit(&mut self, addresses: Vec<IpAddr>) {
        self.current.admit(addresses);
    }

    fn attach(&mut self) {
        self.current.attach();
    }

    async fn next_event(&mut self) -> ConnectionEvent {
        self.current.next_event().await
    }

    fn handle_wake(&mut self, slept: Duration) {
        self.current.handle_wake(slept);
    }

    fn outlives_moves(&self) -> bool {
        self.current.outlives_moves()
    }

    fn stats(&self) -> ConnectionStats {
        ConnectionStats { not_by_udp: self.why.clone(), ..self.current.stats() }
    }

    async fn close(self) {
        self.current.close().await;
    }
}
