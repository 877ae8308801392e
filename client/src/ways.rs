//! By which ways the client's own datagrams leave this host: the addresses that the routes give them. Nothing is sent
//! to find that out.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_net::quic;
use nix::errno::Errno;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;

/// Addresses that stand for all others of their family. They belong to no host (RFC 7050 section 8.1), and what is
/// looked up here is never sent.
const ANYWHERE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 170);
const ANYWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc000, 0xaa);
/// The port makes no difference.
const ANY_PORT: u16 = 443;

/// From which address datagrams leave for each destination; `None` where there is no way. Where this host does not say,
/// the destination is left out.
pub(crate) type Ways = HashMap<SocketAddr, Option<IpAddr>>;

/// The ways of datagrams with `mark` to these destinations, and to anywhere. A link without a carrier is no way.
pub(crate) fn ways(destinations: impl IntoIterator<Item = SocketAddr>, mark: u32) -> Ways {
    let connected = connected_addresses();
    let anywhere = [SocketAddr::from((ANYWHERE_V4, ANY_PORT)), SocketAddr::from((ANYWHERE_V6, ANY_PORT))];
    let way = |to| match source_address(to, Some(mark)) {
        Ok(address) => Some((to, connected.contains(&address).then_some(address))),
        Err(error) => leads_nowhere(&error).then_some((to, None)),
    };
    destinations.into_iter().chain(anywhere).filter_map(way).collect()
}

/// Where a host is, as its datagrams with a certain mark see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Here {
    /// From where they leave for anywhere; `None` where there is no way.
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
    /// Whether this is a network of IPv6 alone.
    pub(crate) has_ipv6_alone: bool,
}

impl Here {
    /// Looks where this host is now.
    pub(crate) fn look(mark: Option<u32>) -> Self {
        let way = |to: IpAddr| source_address(SocketAddr::new(to, ANY_PORT), mark);
        let (v4, v6) = (way(ANYWHERE_V4.into()), way(ANYWHERE_V6.into()));
        let has_ipv6_alone = v4.as_ref().is_err_and(leads_nowhere) && v6.is_ok();
        Self { v4: v4.ok(), v6: v6.ok(), has_ipv6_alone }
    }
}

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

/// The addresses of links that are connected to something.
fn connected_addresses() -> Vec<IpAddr> {
    let all = getifaddrs().into_iter().flatten();
    all.filter(|found| found.flags.contains(InterfaceFlags::IFF_RUNNING))
        .filter_map(|found| address_of(&found))
        .collect()
}

fn address_of(found: &InterfaceAddress) -> Option<IpAddr> {
    let held = found.address.as_ref()?;
    let v4 = held.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| held.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}

#[cfg(test)]
mod tests {
    use adit_testing::eventually;
    use adit_testing::namespace::{in_namespace, ip};

    use super::*;

    #[test]
    fn way_follows_routes_and_cables() {
        in_namespace(|| {
            let gateway: SocketAddr = "203.0.113.1:443".parse().unwrap();
            let [v4, v6] = [SocketAddr::from((ANYWHERE_V4, ANY_PORT)), SocketAddr::from((ANYWHERE_V6, ANY_PORT))];
            let look = || {
                let ways = ways([gateway], 0x16);
                [gateway, v4, v6].map(|to| ways[&to])
            };
            let (home, home6): (IpAddr, IpAddr) = ("192.0.2.9".parse().unwrap(), "2001:db8::9".parse().unwrap());
            ip("link add eth0 type veth peer name router0");
            ip("address add 192.0.2.9/24 dev eth0");
            ip("link set router0 up");
            ip("link set eth0 up");
            assert_eq!(look(), [None; 3], "there is no route yet");
            ip("route add default via 192.0.2.1");
            eventually("there is a way", || (look() == [Some(home), Some(home), None]).then_some(()));
            assert!(!Here::look(Some(0x16)).has_ipv6_alone);
            ip("link set router0 down");
            eventually("the cable is cut", || (look() == [None; 3]).then_some(()));
            ip("link set router0 up");
            ip("address add 2001:db8::9/64 dev eth0 nodad");
            ip("-6 route add default via 2001:db8::1");
            eventually("there is a way again", || (look() == [Some(home), Some(home), Some(home6)]).then_some(()));
            assert!(!Here::look(Some(0x16)).has_ipv6_alone);
            ip("route del default");
            assert_eq!(look(), [None, None, Some(home6)]);
            assert!(Here::look(Some(0x16)).has_ipv6_alone);
        });
    }
}
