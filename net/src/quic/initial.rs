//! Deafness to Initial packets once the peer has proven who it is.
//!
//! The keys of Initial packets follow from what everybody on the way can read (RFC 9001 section 5.2), so anybody can
//! write one. A client discards these keys when its own part of the handshake leaves (section 4.9.1). What is forged
//! between that and the gateway's proof, which is when all of it arrives in one burst, would end a connection in the
//! gateway's name. Here the keys open nothing any more from the proof on.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::crypto::{
    ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

/// TLS whose sessions no longer hear Initial packets once the handshake is complete.
pub(super) struct DeafToInitials(pub(super) Arc<QuicClientConfig>);

impl ClientConfig for DeafToInitials {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        parameters: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let inner = Arc::clone(&self.0).start_session(version, server_name, parameters)?;
        Ok(Box::new(DeafSession { inner, is_proven: Arc::default() }))
    }
}

struct DeafSession {
    inner: Box<dyn Session>,
    is_proven: Arc<AtomicBool>,
}

impl Session for DeafSession {
    fn initial_keys(&self, destination: &ConnectionId, side: Side) -> Keys {
        let Keys { header, packet: KeyPair { local, remote } } = self.inner.initial_keys(destination, side);
        let remote = Box::new(DeafKey { inner: remote, is_proven: Arc::clone(&self.is_proven) });
        Keys { header, packet: KeyPair { local, remote } }
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let read = self.inner.read_handshake(bytes);
        self.is_proven.store(!self.inner.is_handshaking(), Ordering::Relaxed);
        read
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(bytes)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, destination: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(destination, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

/// The key that opens Initial packets, as long as they are heard.
struct DeafKey {
    inner: Box<dyn PacketKey>,
    is_proven: Arc<AtomicBool>,
}

impl PacketKey for DeafKey {
    fn encrypt(&self, packet: u64, buffer: &mut [u8], header_len: usize) {
        self.inner.encrypt(packet, buffer, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        if self.is_proven.load(Ordering::Relaxed) {
            return Err(CryptoError);
        }
        self.inner.decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.inner.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}

#[cfg(test)]
mod tests;
