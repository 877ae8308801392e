//! What the kernel remembers of connections (ctnetlink). An address that goes to another device must take none of its
//! former holder's along: their packets would reach the new one, and it could answer in the former one's name.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use adit_proto::mark::Mark;

use super::error::HostError;
use super::nft::{Attributes, FAMILY_IPV4, FAMILY_IPV6, Socket, find};

/// Subsystem number of ctnetlink within nfnetlink.
const SUBSYSTEM: u16 = 1;
const LIST: u16 = (SUBSYSTEM << 8) | 1;
const DELETE: u16 = (SUBSYSTEM << 8) | 2;
/// `IPCTNL_MSG_CT_NEW`, which changes a connection that is there.
const CHANGE: u16 = SUBSYSTEM << 8;
/// How often the table is looked at again until nothing is left. Nobody can open a connection from an address that
/// nobody holds, so what the first look missed is what the kernel was just adding.
const LOOKS: u32 = 4;
/// `CTA_IP_V4_SRC` and `CTA_IP_V6_SRC`.
const SOURCE_V4: u16 = 1;
const SOURCE_V6: u16 = 3;
const TUPLE_ADDRESSES: u16 = 1;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
const FILTER: u16 = 25;
/// Of a filter: only the source counts (`CTA_FILTER_F_CTA_IP_SRC`).
const FILTER_SOURCE: u32 = 1;

/// Which packets of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Those of whoever opened it.
    Original = 1,
    /// Those that answer.
    Reply = 2,
}

/// What names one connection to the kernel: attributes as it listed them.
#[derive(Debug, PartialEq, Eq)]
struct Connection(Attributes);

/// Ends the kernel's tracking of every connection that an address opened or answers in, masqueraded or not, and returns
/// how many there were. Blocks for the length of a few looks through the table.
///
/// # Errors
/// The kernel's refusal, or that connections are left. Then packets of such a connection may still pass.
pub fn forget_connections(address: IpAddr) -> Result<usize, HostError> {
    let failed = |source| HostError::system("end the tracked connections of an address", source);
    let socket = Socket::open().map_err(failed)?;
    let mut forgotten = 0;
    for _ in 0..LOOKS {
        let found = connections_of(&socket, address).map_err(failed)?;
        if found.is_empty() {
            return Ok(forgotten);
        }
        for connection in found {
            match socket.order(DELETE, family(address), &connection.0) {
                Ok(()) => forgotten += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Err(failed(io::Error::other("new ones keep coming")))
}

/// The addresses that the kernel tracks connections of, opened or answered in. Blocks for one look through the table.
///
/// # Errors
/// The kernel's refusal.
pub fn addresses_with_connections() -> Result<HashSet<IpAddr>, HostError> {
    let failed = |source| HostError::system("list the tracked connections", source);
    let socket = Socket::open().map_err(failed)?;
    let mut addresses = HashSet::new();
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        let both = |_, attributes: &[u8]| {
            Some([Direction::Original, Direction::Reply].map(|direction| source_of(attributes, direction)))
        };
        let found = socket.list(LIST, family, &Attributes::new(), both).map_err(failed)?;
        addresses.extend(found.into_iter().flatten().flatten());
    }
    Ok(addresses)
}

/// Takes a mark off all connections that have it, leaving alone the bits that do not count.
///
/// # Errors
/// The kernel's refusal. Then some may still have it.
pub(crate) fn clear_mark(mark: Mark) -> Result<(), HostError> {
    clear_mark_where(mark, |_| true)
}

/// Takes a mark off all connections that one of these addresses opened.
///
/// # Errors
/// The kernel's refusal. Then some may still have it.
pub(crate) fn clear_marks_of(mark: Mark, openers: &HashSet<IpAddr>) -> Result<(), HostError> {
    if openers.is_empty() {
        return Ok(());
    }
    clear_mark_where(mark, |attributes| {
        let opener = source_of(attributes, Direction::Original);
        opener.is_some_and(|opener| openers.contains(&opener))
    })
}

fn clear_mark_where(mark: Mark, pick: impl Fn(&[u8]) -> bool) -> Result<(), HostError> {
    let failed = |source| HostError::system("take a mark off the tracked connections", source);
    let socket = Socket::open().map_err(failed)?;
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        let found = |_, attributes: &[u8]| {
            let picked = mark.matches(mark_of(attributes)) && pick(attributes);
            picked.then(|| Connection::of(attributes))
        };
        let filter = Attributes::new().number(MARK, mark.value).number(MARK_MASK, mark.mask);
        for connection in socket.list(LIST, family, &filter, found).map_err(failed)? {
            unmark(&socket, family, connection, mark.mask).map_err(failed)?;
        }
    }
    Ok(())
}

fn unmark(socket: &Socket, family: u8, connection: Connection, bits: u32) -> io::Result<()> {
    let change = connection.0.number(MARK, 0).number(MARK_MASK, bits);
    match socket.order(CHANGE, family, &change) {
        // It has just ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn mark_of(attributes: &[u8]) -> u32 {
    let bytes = find(attributes, MARK).and_then(|value| value.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

fn connections_of(socket: &Socket, address: IpAddr) -> io::Result<Vec<Connection>> {
    let both = [Direction::Original, Direction::Reply];
    let filters = match address {
        // Kernels before 5.8 list everything all the same.
        IpAddr::V4(v4) => both.map(|direction| only_from(direction, v4)).to_vec(),
        // By an IPv6 address, the kernel (6.18) lists all connections but those that were asked for.
        IpAddr::V6(_) => vec![Attributes::new()],
    };
    let mut found = Vec::new();
    for filter in filters {
        let of_address = |_, attributes: &[u8]| {
            let ours = both.iter().any(|direction| source_of(attributes, *direction) == Some(address));
            ours.then(|| Connection::of(attributes))
        };
        found.extend(socket.list(LIST, family(address), &filter, of_address)?);
    }
    Ok(found)
}

fn only_from(direction: Direction, source: Ipv4Addr) -> Attributes {
    let addresses = Attributes::new().bytes(SOURCE_V4, &source.octets());
    Attributes::new()
        .nested(direction as u16, &Attributes::new().nested(TUPLE_ADDRESSES, &addresses))
        .nested(FILTER, &Attributes::new().bytes(direction as u16, &FILTER_SOURCE.to_ne_bytes()))
}

impl Connection {
    fn of(attributes: &[u8]) -> Self {
        let copy = |list: Attributes, kind| match find(attributes, kind) {
            Some(value) if kind == Direction::Original as u16 => list.list(kind, value),
            Some(value) => list.bytes(kind, value),
            None => list,
        };
        Self([Direction::Original as u16, ID, ZONE].into_iter().fold(Attributes::new(), copy))
    }
}

/// Who sends the packets of one direction.
fn source_of(attributes: &[u8], direction: Direction) -> Option<IpAddr> {
    let addresses = find(find(attributes, direction as u16)?, TUPLE_ADDRESSES)?;
    let v4 = find(addresses, SOURCE_V4).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
    let v6 = || find(addresses, SOURCE_V6).and_then(|octets| <[u8; 16]>::try_from(octets).ok());
    v4.map(IpAddr::from).or_else(|| v6().map(IpAddr::from))
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 }
}
