//! Reaches a gateway over QUIC, and says in the client's words why it could not.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use adit_net::quic;
use adit_net::tls;
use adit_proto::h3::error::Code;
use quinn::{ConnectionError, TransportErrorCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{ConnectError, Credentials, Target};

/// Alerts by which a gateway refuses a client certificate (RFC 8446 section 6.2), from bad_certificate to unknown_ca,
/// access_denied, decrypt_error (a signature of another authority of the same name) and certificate_required.
const REFUSED_CERTIFICATE: [u8; 10] = [42, 43, 44, 45, 46, 48, 49, 51, 113, 116];

/// An open QUIC connection and the endpoint it lives on.
pub(super) struct Dialled {
    pub(super) endpoint: quinn::Endpoint,
    pub(super) quic: quinn::Connection,
}

impl Target {
    /// Host and port as in a URL (RFC 3986 section 3.2).
    pub(super) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// The TLS settings for this gateway and these credentials.
    pub(crate) fn tls(&self) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
        let authority = CertificateDer::from_pem_slice(self.authority_pem.as_bytes())
            .map_err(|error| unusable("the profile's authority certificate", &error))?;
        let certificate = match &self.credentials {
            Credentials::Token(_) => None,
            Credentials::Certificate { chain_pem, key_pem } => {
                let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| unusable("the profile's certificate", &error))?;
                let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
                    .map_err(|error| unusable("the profile's key", &error))?;
                Some((chain, key))
            }
        };
        tls::client_config(&authority, certificate)
            .map_err(|error| unusable("the profile's certificate or key", &error))
    }
}

/// Host and port as in a URL; an IPv6 address goes into brackets.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Tries the addresses in order until one answers; each gets an equal share of `timeout`.
pub(super) async fn dial(
    host: &str,
    addresses: &[SocketAddr],
    tls: Arc<rustls::ClientConfig>,
    mark: Option<u32>,
    timeout: Duration,
) -> Result<Dialled, ConnectError> {
    let config = quic::client_config(tls).map_err(ConnectError::Local)?;
    let share = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = ConnectError::Unreachable(format!("{host} (no address known)"));
    for address in addresses {
        match tokio::time::timeout(share, dial_one(host, *address, config.clone(), mark)).await {
            Ok(Ok(dialled)) => return Ok(dialled),
            Ok(Err(error @ (ConnectError::IdentityMismatch(_) | ConnectError::Refused(_)))) => return Err(error),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = ConnectError::Unreachable(address.to_string()),
        }
    }
    Err(last)
}

async fn dial_one(
    host: &str,
    address: SocketAddr,
    config: quinn::ClientConfig,
    mark: Option<u32>,
) -> Result<Dialled, ConnectError> {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = quic::bind(SocketAddr::new(any, 0), mark).map_err(ConnectError::Local)?;
    let endpoint = quic::client_endpoint(socket).map_err(ConnectError::Local)?;
    let connecting = endpoint
        .connect_with(config, address, host)
        .map_err(|error| ConnectError::Unreachable(format!("{address} ({error})")))?;
    let quic = connecting.await.map_err(|error| explain(&error, address))?;
    Ok(Dialled { endpoint, quic })
}

/// Puts the end of a QUIC connection into the client's words.
pub(super) fn explain(error: &ConnectionError, remote: SocketAddr) -> ConnectError {
    match error {
        // Our own TLS refused what the gateway showed.
        ConnectionError::TransportError(error) if alert(error.code).is_some() => {
            ConnectError::IdentityMismatch(error.reason.clone())
        }
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(alert) if REFUSED_CERTIFICATE.contains(&alert) => {
                ConnectError::Refused("it does not accept this device's certificate".to_owned())
            }
            _ => ConnectError::Closed(close.to_string()),
        },
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            if u64::from(close.error_code) == Code::REQUEST_REJECTED.value() {
                ConnectError::Refused(reason)
            } else {
                ConnectError::Closed(reason)
            }
        }
        ConnectionError::TimedOut => ConnectError::Unreachable(remote.to_string()),
        ConnectionError::Reset => ConnectError::Closed("the gateway restarted".to_owned()),
        ConnectionError::LocallyClosed => ConnectError::Closed("closed by this client".to_owned()),
        ConnectionError::VersionMismatch | ConnectionError::TransportError(_) | ConnectionError::CidsExhausted => {
            ConnectError::Protocol(error.to_string())
        }
    }
}

/// The TLS alert in a QUIC error code (RFC 9001 section 4.8: 0x0100 + alert).
fn alert(code: TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

fn unusable(what: &str, error: &dyn std::fmt::Display) -> ConnectError {
    ConnectError::Local(std::io::Error::new(
        std::io::ErrorKind::InvalidInput,
        format!("{what} cannot be used: {error}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_hosts_get_brackets() {
        assert_eq!(authority("2001:db8::1", 443), "[2001:db8::1]:443");
        assert_eq!(authority("gw.example", 8443), "gw.example:8443");
    }

    #[tokio::test]
    async fn without_an_address_nothing_is_reachable() {
        let tls = tls::pinned_client_config([0; 32]).unwrap();
        let error = dial("gw.example", &[], tls, None, Duration::from_secs(1)).await.err();
        assert!(matches!(error, Some(ConnectError::Unreachable(_))), "{error:?}");
    }
}
