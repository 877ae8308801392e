//! Says in the client's words why a connection could not be made, or ended.

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use adit_program::foreign_text::{printable, printable_bytes};
use adit_proto::http::h3::error::Code;
use adit_proto::restart;
use quinn::{ConnectionError, TransportErrorCode};

use super::ConnectError;
use crate::clock::{self, Misfit};

/// Alerts by which a gateway refuses a client certificate (RFC 8446 section 6.2), from bad_certificate to unknown_ca,
/// access_denied, decrypt_error (a signature of another authority of the same name) and certificate_required.
const REFUSED_CERTIFICATE: [u8; 10] = [42, 43, 44, CERTIFICATE_EXPIRED, 46, 48, 49, 51, 113, 116];

/// The alert for a certificate that has expired or is not valid yet.
const CERTIFICATE_EXPIRED: u8 = 45;

/// Puts the end of a handshake into the client's words. Nothing proves that the gateway had a part in it.
pub(super) fn explain_unproven(
    error: &ConnectionError,
    address: SocketAddr,
    trusts: &str,
    known_past: Option<SystemTime>,
) -> ConnectError {
    match error {
        // Our own TLS refused what it was shown.
        ConnectionError::TransportError(error) => refused_here(&error.reason, trusts, known_past)
            .unwrap_or_else(|| ConnectError::BrokenOff(printable(&error.to_string()))),
        ConnectionError::ApplicationClosed(close) => ConnectError::BrokenOff(printable_bytes(&close.reason)),
        ConnectionError::TimedOut => ConnectError::Unreachable(address.to_string()),
        ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::VersionMismatch
        | ConnectionError::CidsExhausted => ConnectError::BrokenOff(printable(&error.to_string())),
    }
}

/// Puts the end of a handshake over TCP, or of an attempt at one, into the client's words. Nothing proves that the
/// gateway had a part in it.
pub(in crate::protocols) fn explain_unproven_tcp(
    error: &io::Error,
    address: SocketAddr,
    trusts: &str,
    known_past: Option<SystemTime>,
) -> ConnectError {
    if let Some(tls) = of_tls(error) {
        let refused = refused_here(&tls.to_string(), trusts, known_past);
        return refused.unwrap_or_else(|| ConnectError::BrokenOff(printable(&tls.to_string())));
    }
    let kind = error.kind();
    if kind == io::ErrorKind::ConnectionRefused {
        ConnectError::Unreachable(format!("{address} (nothing listens on TCP)"))
    } else if kind == io::ErrorKind::TimedOut {
        ConnectError::Unreachable(address.to_string())
    } else if kind == io::ErrorKind::PermissionDenied {
        ConnectError::Firewall(format!("this host's firewall drops packets to {address}"))
    } else if kind == io::ErrorKind::ConnectionReset || kind == io::ErrorKind::UnexpectedEof {
        ConnectError::BrokenOff(printable(&error.to_string()))
    } else {
        ConnectError::Local(io::Error::new(kind, printable(&error.to_string())))
    }
}

/// Puts the end of a connection over TCP into the client's words, once the gateway has proven who it is.
pub(in crate::protocols) fn explain_tcp(error: &io::Error, remote: SocketAddr) -> ConnectError {
    if let Some(rustls::Error::AlertReceived(description)) = of_tls(error) {
        return match u8::from(*description) {
            CERTIFICATE_EXPIRED => ConnectError::OutOfDate,
            alert if REFUSED_CERTIFICATE.contains(&alert) => {
                ConnectError::Refused("it does not accept this device's certificate".to_owned())
            }
            _ => ConnectError::Closed(printable(&error.to_string())),
        };
    }
    if error.kind() == io::ErrorKind::TimedOut {
        ConnectError::Unreachable(remote.to_string())
    } else if error.kind() == io::ErrorKind::InvalidData {
        ConnectError::Protocol(printable(&error.to_string()))
    } else {
        ConnectError::Closed(printable(&error.to_string()))
    }
}

fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What our TLS found wrong with a certificate, by the text that is all that comes through QUIC; `None` if it was
/// something else that it did not like. `trusts` is what it believes, in words.
fn refused_here(reason: &str, trusts: &str, known_past: Option<SystemTime>) -> Option<ConnectError> {
    let mismatch = |reason: &str| Some(ConnectError::IdentityMismatch(printable(reason)));
    let misfit = |misfit| Some(ConnectError::Clock(clock::complaint(misfit, SystemTime::now(), known_past)));
    let Some(fault) = reason.strip_prefix("invalid peer certificate: ") else {
        // What the check of a pinned authority says.
        return mismatch(reason.strip_prefix("unexpected error: ")?);
    };
    match fault {
        "UnknownIssuer" | "BadSignature" => {
            mismatch(&format!("somebody answers with a certificate that is not of {trusts}"))
        }
        fault if fault.starts_with("certificate expired") => misfit(Misfit::TooLate),
        fault if fault.starts_with("certificate not valid yet") => misfit(Misfit::TooEarly),
        fault => mismatch(fault),
    }
}

/// Puts the end of a QUIC connection into the client's words, once the gateway has proven who it is.
pub(super) fn explain(error: &ConnectionError, remote: SocketAddr) -> ConnectError {
    match error {
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(CERTIFICATE_EXPIRED) => ConnectError::OutOfDate,
            Some(alert) if REFUSED_CERTIFICATE.contains(&alert) => {
                ConnectError::Refused("it does not accept this device's certificate".to_owned())
            }
            _ => ConnectError::Closed(printable(&close.to_string())),
        },
        ConnectionError::ApplicationClosed(close) => {
            let (code, reason) = (u64::from(close.error_code), printable_bytes(&close.reason));
            if code == Code::REQUEST_REJECTED.value() {
                ConnectError::Refused(reason)
            } else {
                restart::back_in(code).map_or(ConnectError::Closed(reason), ConnectError::Restarts)
            }
        }
        ConnectionError::TimedOut => ConnectError::Unreachable(remote.to_string()),
        ConnectionError::Reset => ConnectError::Closed("the gateway restarted".to_owned()),
        ConnectionError::LocallyClosed => ConnectError::Closed("closed by this client".to_owned()),
        ConnectionError::VersionMismatch | ConnectionError::TransportError(_) | ConnectionError::CidsExhausted => {
            ConnectError::Protocol(printable(&error.to_string()))
        }
    }
}

/// The TLS alert in a QUIC error code (RFC 9001 section 4.8: 0x0100 + alert).
fn alert(code: TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}
