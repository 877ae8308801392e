//! CONNECT-IP (RFC 9484): IP packets through an HTTP request, for both ends, without I/O.
//!
//! [`request`] tells a gateway what a request wants, [`server::Server`] runs an accepted tunnel, [`client::Client`]
//! asks for one and runs it. The shell puts what `poll_transmit` gives into DATA frames, and packets into QUIC
//! datagrams ([`crate::datagram`]).

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

pub mod client;
pub mod request;
pub mod server;
pub mod template;

use crate::esp::field::NAME as ESP;
use crate::http::fault::Fault;
use crate::http::field::{self, Field};

/// The value of `:protocol` (RFC 9484 section 4.4).
pub const PROTOCOL: &str = "connect-ip";

/// Names the private extensions its sender understands, as a list; each is used only after both sides named it.
pub const CAPABILITIES: &str = "adit-caps";

/// The capability of receiving or sending DNS_ASSIGN capsules.
pub const DNS_CAPABILITY: &str = "dns";

/// The field that says the content is capsules (RFC 9297 section 3.4).
fn capsule_protocol() -> Field {
    Field::new("capsule-protocol", "?1")
}

fn dns_capability() -> Field {
    Field::new(CAPABILITIES, DNS_CAPABILITY)
}

/// Says whether a message names the DNS capability.
fn names_dns(fields: &[Field]) -> bool {
    let lists = fields.iter().filter(|field| field.name == CAPABILITIES);
    lists.flat_map(|field| field.value.split(',')).any(|capability| capability.trim() == DNS_CAPABILITY)
}

fn esp_field(value: &impl std::fmt::Display) -> Field {
    Field::new(ESP, value.to_string())
}

/// What a message says about the ESP carrier, its lines joined (RFC 9651 section 4.2); empty if it says nothing.
fn esp_value(message: &[Field]) -> String {
    let lines = message.iter().filter(|field| field.name == ESP).map(|field| field.value.as_str());
    lines.collect::<Vec<_>>().join(", ")
}

/// > The Capsule Protocol MUST NOT be used with messages that contain Content-Length, Content-Type, or
/// > Transfer-Encoding header fields. (RFC 9297 section 3.2)
fn check_capsule_message(message: &[Field]) -> Result<(), Fault> {
    let forbidden = ["content-length", "content-type", "transfer-encoding"];
    match forbidden.into_iter().any(|name| field::value(message, name).is_some()) {
        true => Err(Fault::Malformed("field that is forbidden with capsules")),
        false => Ok(()),
    }
}
