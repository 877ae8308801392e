//! What anybody on the way can forge: Initial packets, whose keys follow from what they show (RFC 9001 section 5.2).

use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{KeyPair, Keys, ServerConfig};
use quinn_proto::ConnectionId;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls;

/// A text that would do harm where it is shown as it is.
pub const EVIL_TEXT: &[u8] = b"\x1b]0;owned\x07\x1b[31mcall 555-0100\r\nerror: all is well\xc2\x9b1m\xe2\x80\xae";

/// What a forged packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgery {
    /// The gateway's refusal of a request, with an evil text (CONNECTION_CLOSE 0x1d, H3_REQUEST_REJECTED).
    ApplicationClose,
    /// The TLS alert `unknown_ca`, as for a device's certificate (CONNECTION_CLOSE 0x1c).
    Alert,
    /// A message that is no ServerHello, so that the client's own TLS raises an alert.
    BrokenHello,
}

impl Forgery {
    pub const ALL: [Self; 3] = [Self::ApplicationClose, Self::Alert, Self::BrokenHello];

    fn frame(self) -> Vec<u8> {
        let length = u8::try_from(EVIL_TEXT.len()).unwrap();
        match self {
            Self::ApplicationClose => [&[0x1d, 0x41, 0x0b, length], EVIL_TEXT].concat(),
            Self::Alert => vec![0x1c, 0x41, 0x30, 0, 0],
            Self::BrokenHello => vec![0x06, 0, 8, 2, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
        }
    }
}

/// Writes Initial packets in the name of gateways.
pub struct Forger {
    crypto: QuicServerConfig,
}

impl Default for Forger {
    fn default() -> Self {
        // Any certificate does: it is never shown.
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let certificate = CertificateDer::from(certificate);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let identity = tls::ServerIdentity::new(vec![certificate.clone()], key).unwrap();
        let tls = tls::server_config(identity.into(), &certificate).unwrap();
        Self { crypto: tls.try_into().unwrap() }
    }
}

impl Forger {
    /// The forged answer to a client's Initial datagram; `None` for any other datagram.
    pub fn answer(&self, datagram: &[u8], forgery: Forgery) -> Option<Vec<u8>> {
        let (source, destination) = connection_ids(datagram)?;
        let keys = self.crypto.initial_keys(1, &ConnectionId::new(destination)).ok()?;
        let Keys { header: KeyPair { local: header_key, .. }, packet: KeyPair { local: packet_key, .. } } = keys;
        // A long header (RFC 9000 section 17.2.2) with packet number 0 in one byte.
        let mut frames = forgery.frame();
        frames.resize(frames.len().max(64), 0);
        let sealed_len = u16::try_from(1 + frames.len() + packet_key.tag_len()).unwrap();
        let mut packet = vec![0xc0, 0, 0, 0, 1, u8::try_from(source.len()).unwrap()];
        packet.extend(source);
        packet.extend(b"\x08ATTACKER\0");
        packet.extend((0x4000 | sealed_len).to_be_bytes());
        let number_at = packet.len();
        packet.push(0);
        let header_len = packet.len();
        packet.extend(frames);
        packet.resize(packet.len() + packet_key.tag_len(), 0);
        packet_key.encrypt(0, &mut packet, header_len);
        header_key.encrypt(number_at, &mut packet);
        Some(packet)
    }
}

/// Source and destination connection ID of an Initial packet of a client.
fn connection_ids(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    if datagram.first()? & 0xf0 != 0xc0 {
        return None;
    }
    let (destination, rest) = prefixed(datagram.get(5..)?)?;
    let (source, _) = prefixed(rest)?;
    Some((source, destination))
}

fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}
