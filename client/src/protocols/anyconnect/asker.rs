//! The CONNECT, and what the gateway answers it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_net::http::h1::{Shaken, ask_verbatim};
use adit_program::foreign_text::printable;
use adit_proto::anyconnect::tunnel::Wish;
use adit_proto::anyconnect::tunnel::settings::TunnelSettings;
use adit_proto::http::field::{Field, value};
use bytes::Bytes;
use rustls::{ClientConfig, ClientConnection};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::records::Terms;
use super::{AGENT, endpoint};
use crate::join::device_name;
use crate::packet_source::Packets;
use crate::protocols::connect_ip::{self, Endpoint};
use crate::protocols::stream::{largest_packet, shake};
use crate::protocols::{Candidates, ConnectError, GatewayAccess};

/// How a tunnel is asked for: the first one of a session, and those that take its place. It has no `Debug`.
pub(super) struct Asker {
    host: String,
    port: u16,
    authority: String,
    mark: Option<u32>,
    tls: Arc<ClientConfig>,
    trusts: &'static str,
    known_past: Option<SystemTime>,
    token: Zeroizing<String>,
    /// The largest packet that the near end takes, in bytes.
    pub(super) largest: u16,
    takes_dtls: bool,
}

/// What the gateway gives.
pub(super) struct Granted {
    pub(super) settings: TunnelSettings,
    /// If packets may go in records.
    pub(super) terms: Option<Terms>,
    /// The connection that has become a channel, and what has been read of its stream.
    pub(super) connection: ((TcpStream, ClientConnection), Bytes),
}

impl Asker {
    pub(super) fn new(target: &GatewayAccess, packets: &Packets) -> Result<Self, ConnectError> {
        let Some(token) = target.login.clone() else {
            return Err(ConnectError::LoginNeeded("nobody has logged in yet".to_owned()));
        };
        let Endpoint { host, port, addresses: _, mark, tls, trusts, known_past } = endpoint(target)?;
        Ok(Self {
            host: host.to_owned(),
            port,
            authority: target.authority(),
            mark,
            tls,
            trusts,
            known_past,
            token,
            largest: largest_packet(packets),
            takes_dtls: packets.workers().is_some_and(|workers| workers.has_sockets()),
        })
    }

    /// Reaches the gateway at one of these addresses.
    pub(super) async fn shake(
        &self,
        addresses: Candidates,
        timeout: Duration,
    ) -> Result<(Shaken, SocketAddr), ConnectError> {
        let Self { host, port, mark, tls, trusts, known_past, .. } = self;
        let (tls, known_past) = (Arc::clone(tls), *known_past);
        shake(&Endpoint { host, port: *port, addresses, mark: *mark, tls, trusts, known_past }, timeout).await
    }

    /// Asks for the tunnel.
    pub(super) async fn ask(&self, stream: Shaken, remote: SocketAddr) -> Result<Granted, ConnectError> {
        let Self { authority, token, largest, takes_dtls, .. } = self;
        let (host_name, mtu, takes_dtls) = (device_name(), *largest, *takes_dtls);
        let wish = Wish { authority, agent: AGENT, host_name: &host_name, token, mtu, takes_dtls };
        let heard = ask_verbatim(stream, &wish.head()).await;
        let heard = heard.map_err(|error| connect_ip::explain_tcp(&error, remote))?;
        if heard.status != 200 {
            return Err(refusal(heard.status, &heard.fields));
        }
        let settings = TunnelSettings::of(&heard.fields).map_err(|fault| ConnectError::Protocol(fault.to_string()))?;
        let terms = settings.dtls.filter(|_| takes_dtls).and_then(|dtls| Terms::new(dtls, &heard.connection.1));
        Ok(Granted { settings, terms, connection: (heard.connection, heard.early) })
    }
}

/// Why a CONNECT gives no tunnel, by the answer to it.
fn refusal(status: u16, fields: &[Field]) -> ConnectError {
    let reason = value(fields, "x-reason").map(printable);
    match status {
        401 => ConnectError::LoginNeeded(reason.unwrap_or_else(|| "the last one is over".to_owned())),
        403 => ConnectError::Refused(reason.unwrap_or_else(|| "it does not say why".to_owned())),
        status => {
            let reason = reason.map(|reason| format!(", {reason}")).unwrap_or_default();
            ConnectError::Closed(format!("HTTP status {status}{reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_and_name_the_gateways_reason() {
        let reason = [Field::new("x-reason", "this device was \u{1b}revoked")];
        let said = |status, fields: &[Field]| refusal(status, fields).to_string();
        assert_eq!(said(401, &reason), "the gateway wants a login: this device was \\u{1b}revoked");
        assert!(matches!(refusal(401, &[]), ConnectError::LoginNeeded(reason) if reason.contains("over")));
        assert!(matches!(refusal(403, &[]), ConnectError::Refused(_)));
        assert_eq!(said(503, &[]), "the connection was closed: HTTP status 503");
    }
}
