//! ADDRESS_ASSIGN and ADDRESS_REQUEST (RFC 9484 sections 4.7.1 and 4.7.2), which share one layout.
//!
//! ```text
//! request id (varint)  ip version (u8: 4 or 6)  address (4 or 16 bytes)  prefix length (u8)      … repeated
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::value;
use crate::http::fault::Fault;
use crate::varint;

/// An address or prefix the sender assigns to the receiver (RFC 9484 section 4.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignedAddress {
    /// The request this answers; 0 if it was not asked for.
    pub request_id: u64,
    /// The address with its prefix; no host bits are set below the prefix.
    pub prefix: IpNet,
}

impl AssignedAddress {
    /// A refusal of a request: the all-zero address of the family, at full prefix length (RFC 9484 section 4.7.1).
    pub fn refusal(request: &RequestedAddress) -> Self {
        Self { request_id: request.request_id, prefix: any_address(request.prefix.addr().is_ipv4()) }
    }

    /// Says whether this is no address at all but the refusal of a request.
    pub fn is_refusal(&self) -> bool {
        self.prefix == any_address(self.prefix.addr().is_ipv4())
    }
}

/// An address or prefix the sender would like to have (RFC 9484 section 4.7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedAddress {
    /// Identifies the request; never 0 and never used again by its sender.
    pub request_id: u64,
    /// The wanted address, or the all-zero address for any of that family, with the wanted prefix length.
    pub prefix: IpNet,
}

impl RequestedAddress {
    /// Asks for any one IPv4 address.
    pub fn any_v4(request_id: u64) -> Self {
        Self { request_id, prefix: any_address(true) }
    }

    /// Asks for any one IPv6 address.
    pub fn any_v6(request_id: u64) -> Self {
        Self { request_id, prefix: any_address(false) }
    }
}

fn any_address(v4: bool) -> IpNet {
    if v4 { IpAddr::from(Ipv4Addr::UNSPECIFIED).into() } else { IpAddr::from(Ipv6Addr::UNSPECIFIED).into() }
}

pub(super) fn decode_assign(value: &[u8]) -> Result<Vec<AssignedAddress>, Fault> {
    let entry = |(request_id, prefix)| AssignedAddress { request_id, prefix };
    Ok(decode(value)?.into_iter().map(entry).collect())
}

/// > If an endpoint receives an ADDRESS_REQUEST capsule that contains zero Requested Addresses, it MUST abort the IP
/// > proxying request stream. (RFC 9484 section 4.7.2)
pub(super) fn decode_request(value: &[u8]) -> Result<Vec<RequestedAddress>, Fault> {
    let requested = decode(value)?;
    if requested.is_empty() {
        return Err(Fault::Malformed("ADDRESS_REQUEST without an address"));
    }
    if requested.iter().any(|(request_id, _)| *request_id == 0) {
        return Err(Fault::Malformed("ADDRESS_REQUEST with request id 0"));
    }
    Ok(requested.into_iter().map(|(request_id, prefix)| RequestedAddress { request_id, prefix }).collect())
}

fn decode(mut value: &[u8]) -> Result<Vec<(u64, IpNet)>, Fault> {
    let mut entries = Vec::new();
    while !value.is_empty() {
        entries.push((value::varint(&mut value)?, decode_prefix(&mut value)?));
    }
    Ok(entries)
}

fn decode_prefix(value: &mut &[u8]) -> Result<IpNet, Fault> {
    let version = value::byte(value)?;
    let address = value::address(value, version)?;
    let length = value::byte(value)?;
    let prefix = IpNet::new(address, length).map_err(|_too_long| Fault::Malformed("prefix longer than the address"))?;
    if prefix.trunc() != prefix {
        return Err(Fault::Malformed("address bits set below the prefix"));
    }
    Ok(prefix)
}

pub(super) fn encode_assign(assigned: &[AssignedAddress], out: &mut Vec<u8>) {
    for entry in assigned {
        encode_entry(entry.request_id, entry.prefix, out);
    }
}

pub(super) fn encode_request(requested: &[RequestedAddress], out: &mut Vec<u8>) {
    for entry in requested {
        encode_entry(entry.request_id, entry.prefix, out);
    }
}

fn encode_entry(request_id: u64, prefix: IpNet, out: &mut Vec<u8>) {
    varint::encode(request_id, out);
    value::put_version(prefix.addr(), out);
    value::put_address(prefix.network(), out);
    out.push(prefix.prefix_len());
}
