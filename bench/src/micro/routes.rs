//! Finding the session of a destination.

use std::hint::black_box;
use std::net::Ipv4Addr;

use adit_proto::route_table::RouteTable;
use ipnet::Ipv4Net;

use super::{Repeated, Subject};

/// Lookups in one round.
const LOOKUPS: usize = 1024;
/// The golden ratio in 32 bits: successive multiples hit all parts of a table in turn.
const SPREAD: u32 = 0x9e37_79b9;

pub(super) fn subjects() -> Vec<Subject> {
    [10, 10_000, 100_000].map(subject).into()
}

fn subject(prefixes: u32) -> Subject {
    Subject::new(format!("route-lookup/{prefixes}"), LOOKUPS, 0, move || {
        let table = table(prefixes);
        let mut number = 0_u32;
        Repeated(move || {
            for _ in 0..LOOKUPS {
                number = number.wrapping_add(SPREAD);
                let found = black_box(&table).lookup(address(number % prefixes).into());
                black_box(found).expect("every network is in the table");
            }
        })
    })
}

/// Networks of 64 addresses, each as one of seven lengths.
fn table(prefixes: u32) -> RouteTable<u32> {
    let mut table = RouteTable::new();
    for number in 0..prefixes {
        let length = 26 + u8::try_from(number % 7).unwrap_or_default();
        table.insert(Ipv4Net::new_assert(address(number), length).into(), number);
    }
    table
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + (number << 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_is_found() {
        let table = table(10_000);
        assert!((0..10_000).all(|number| table.lookup(address(number).into()) == Some(&number)));
    }
}
