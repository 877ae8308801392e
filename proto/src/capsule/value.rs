//! Pieces that the values of capsules are made of. Whatever is cut short makes the message malformed (RFC 9297 section
//! 3.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::http::fault::Fault;
use crate::varint;

const TOO_SHORT: Fault = Fault::Malformed("capsule value ends inside a field");

/// Takes a variable-length integer off the value.
pub(super) fn varint(value: &mut &[u8]) -> Result<u64, Fault> {
    varint::take(value).ok_or(TOO_SHORT)
}

/// Takes one byte off the value.
pub(super) fn byte(value: &mut &[u8]) -> Result<u8, Fault> {
    let [byte] = array(value)?;
    Ok(byte)
}

/// Takes `N` bytes off the value.
pub(super) fn array<const N: usize>(value: &mut &[u8]) -> Result<[u8; N], Fault> {
    let (head, rest) = value.split_first_chunk().ok_or(TOO_SHORT)?;
    *value = rest;
    Ok(*head)
}

/// Takes a length as variable-length integer, and that many bytes, off the value.
pub(super) fn bytes<'a>(value: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let length = usize::try_from(varint(value)?).map_err(|_too_long| TOO_SHORT)?;
    let (head, rest) = value.split_at_checked(length).ok_or(TOO_SHORT)?;
    *value = rest;
    Ok(head)
}

/// Takes an address of the given IP version off the value.
pub(super) fn address(value: &mut &[u8], version: u8) -> Result<IpAddr, Fault> {
    match version {
        4 => Ok(Ipv4Addr::from(array::<4>(value)?).into()),
        6 => Ok(Ipv6Addr::from(array::<16>(value)?).into()),
        _ => Err(Fault::Malformed("IP version is neither 4 nor 6")),
    }
}

/// Appends the IP version of an address.
pub(super) fn put_version(address: IpAddr, out: &mut Vec<u8>) {
    out.push(if address.is_ipv4() { 4 } else { 6 });
}

/// Appends the bytes of an address.
pub(super) fn put_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
}

/// Appends the length of `bytes` and `bytes`.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    varint::encode(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
