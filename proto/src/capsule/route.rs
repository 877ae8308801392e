//! ROUTE_ADVERTISEMENT (RFC 9484 section 4.7.3): the ranges the sender can reach.
//!
//! ```text
//! ip version (u8)  start address  end address (inclusive)  ip protocol (u8, 0 = any)      … repeated, in order
//! ```

pub use crate::range::RouteRange;

use super::value;
use crate::h3::error::Error;

pub(super) fn decode(mut value: &[u8]) -> Result<Vec<RouteRange>, Error> {
    let mut routes: Vec<RouteRange> = Vec::new();
    while !value.is_empty() {
        let version = value::byte(&mut value)?;
        let start = value::address(&mut value, version)?;
        let end = value::address(&mut value, version)?;
        let route = RouteRange { start, end, protocol: value::byte(&mut value)? };
        check_order(routes.last(), &route)?;
        routes.push(route);
    }
    Ok(routes)
}

/// Checks a range against the one before it.
///
/// > 1. The IP Version of A MUST be less than or equal to the IP Version of B.
/// > 2. If the IP Version of A and B are equal, the IP Protocol of A MUST be less than or equal to the IP Protocol of B.
/// > 3. If the IP Version and IP Protocol of A and B are both equal, the End IP Address of A MUST be strictly less than the
/// >    Start IP Address of B. (RFC 9484 section 4.7.3)
fn check_order(previous: Option<&RouteRange>, route: &RouteRange) -> Result<(), Error> {
    if route.start > route.end {
        return Err(Error::malformed("route ends before it starts"));
    }
    let Some(previous) = previous else { return Ok(()) };
    let key = |route: &RouteRange| (route.start.is_ipv6(), route.protocol);
    if key(previous) > key(route) {
        return Err(Error::malformed("routes are not in order"));
    }
    if key(previous) == key(route) && previous.end >= route.start {
        return Err(Error::malformed("routes overlap or are not in order"));
    }
    Ok(())
}

pub(super) fn encode(routes: &[RouteRange], out: &mut Vec<u8>) {
    for route in routes {
        value::put_version(route.start, out);
        value::put_address(route.start, out);
        value::put_address(route.end, out);
        out.push(route.protocol);
    }
}
