//! ROUTE_ADVERTISEMENT (RFC 9484 section 4.7.3): the ranges the sender can reach.
//!
//! ```text
//! ip version (u8)  start address  end address (inclusive)  ip protocol (u8, 0 = any)      … repeated, in order
//! ```

pub use crate::range::RouteRange;

use super::value;
use crate::http::fault::Fault;
use crate::range::check_advertisement;

pub(super) fn decode(mut value: &[u8]) -> Result<Vec<RouteRange>, Fault> {
    let mut routes: Vec<RouteRange> = Vec::new();
    while !value.is_empty() {
        let version = value::byte(&mut value)?;
        let start = value::address(&mut value, version)?;
        let end = value::address(&mut value, version)?;
        routes.push(RouteRange { start, end, protocol: value::byte(&mut value)? });
    }
    check_advertisement(&routes).map_err(|_| Fault::Malformed("routes overlap, are reversed or not in order"))?;
    Ok(routes)
}

pub(super) fn encode(routes: &[RouteRange], out: &mut Vec<u8>) {
    for route in routes {
        value::put_version(route.start, out);
        value::put_address(route.start, out);
        value::put_address(route.end, out);
        out.push(route.protocol);
    }
}
