//! Capsules (RFC 9297 section 3): typed messages in the content of a tunnel's request and response.
//!
//! ```text
//! type (varint)  length (varint)  value (length bytes)
//! ```
//!
//! Capsules are a byte stream of their own; the DATA frames that carry it may cut them anywhere.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

pub mod address;
pub mod dns;
pub mod packets;
pub mod route;
pub mod stream;
mod value;

use bytes::Bytes;

pub use address::{AssignedAddress, RequestedAddress};
pub use dns::{DnsAssign, DnsConfiguration, Nameserver};
pub use route::RouteRange;
pub use stream::CapsuleDecoder;

use crate::esp::capsule::EspCapsule;
use crate::varint;

/// An HTTP datagram where QUIC's are not available (RFC 9297 section 3.5).
const DATAGRAM: u64 = 0x00;
/// Addresses the receiver may use (RFC 9484 section 4.7.1).
const ADDRESS_ASSIGN: u64 = 0x01;
/// Addresses the sender would like (RFC 9484 section 4.7.2).
const ADDRESS_REQUEST: u64 = 0x02;
/// Ranges the sender can reach (RFC 9484 section 4.7.3).
const ROUTE_ADVERTISEMENT: u64 = 0x03;
/// Resolvers the receiver may use (draft-ietf-masque-connect-ip-dns, provisional number).
const DNS_ASSIGN: u64 = 0x1ace_79ec;

/// A capsule of a CONNECT-IP tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capsule {
    /// The payload of an HTTP datagram: context ID and packet (RFC 9297 section 3.5).
    Datagram(Bytes),
    /// The whole list of the receiver's addresses; replaces the former list (RFC 9484 section 4.7.1).
    AddressAssign(Vec<AssignedAddress>),
    /// A request for addresses; never empty (RFC 9484 section 4.7.2).
    AddressRequest(Vec<RequestedAddress>),
    /// The whole list of ranges reachable through the sender, in order; replaces the former list (RFC 9484 section
    /// 4.7.3).
    RouteAdvertisement(Vec<RouteRange>),
    /// The resolvers inside the tunnel; replaces the former ones (draft-ietf-masque-connect-ip-dns).
    DnsAssign(DnsAssign),
    /// Set-up of the ESP carrier, private and only for who negotiated it ([`CapsuleDecoder::expect_esp`]).
    Esp(EspCapsule),
}

impl Capsule {
    const fn kind(&self) -> u64 {
        match self {
            Self::Datagram(_) => DATAGRAM,
            Self::AddressAssign(_) => ADDRESS_ASSIGN,
            Self::AddressRequest(_) => ADDRESS_REQUEST,
            Self::RouteAdvertisement(_) => ROUTE_ADVERTISEMENT,
            Self::DnsAssign(_) => DNS_ASSIGN,
            Self::Esp(esp) => esp.kind(),
        }
    }
}

/// Appends a capsule to `out`.
///
/// The caller keeps the rules for what it sends: routes in order ([`crate::range::from_prefixes`] gives such), requests
/// not empty, at least one DNS configuration.
pub fn encode(capsule: &Capsule, out: &mut Vec<u8>) {
    let mut value = Vec::new();
    match capsule {
        Capsule::Datagram(payload) => value.extend_from_slice(payload),
        Capsule::AddressAssign(assigned) => address::encode_assign(assigned, &mut value),
        Capsule::AddressRequest(requested) => address::encode_request(requested, &mut value),
        Capsule::RouteAdvertisement(routes) => route::encode(routes, &mut value),
        Capsule::DnsAssign(assign) => dns::encode(assign, &mut value),
        Capsule::Esp(esp) => return esp.encode(out),
    }
    varint::encode(capsule.kind(), out);
    varint::encode(value.len() as u64, out);
    out.extend_from_slice(&value);
}

#[cfg(test)]
mod tests;
