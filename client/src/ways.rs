//! By which ways the client's own datagrams leave this host: the addresses that the routes give them. Nothing is sent
//! to find that out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_net::quic;
use nix::errno::Errno;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};

/// The address the routes give to datagrams to `to`.
pub(crate) fn source_address(to: SocketAddr, mark: Option<u32>) -> io::Result<IpAddr> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = quic::bind(SocketAddr::new(any, 0), mark)?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

/// Whether an error says that this host has no way to an address. QUIC would wait for an answer that cannot come.
pub(crate) fn leads_nowhere(error: &io::Error) -> bool {
    const NOWHERE: [Errno; 4] = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|code| NOWHERE.contains(&Errno::from_raw(code)))
}

/// The link that has an address.
pub(crate) fn link_with(address: IpAddr) -> Option<String> {
    let found = getifaddrs().ok()?.find(|found| address_of(found) == Some(address));
    found.map(|found| found.interface_name)
}

fn address_of(found: &InterfaceAddress) -> Option<IpAddr> {
    let held = found.address.as_ref()?;
    let v4 = held.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| held.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}
