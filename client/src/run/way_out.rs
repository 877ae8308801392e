//! By which link the client's own datagrams leave this host. One that is a tunnel itself, and above all the client's
//! own, may carry them round in a circle: what each tunnel takes in, the other takes out.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_net::quic;
use nix::ifaddrs::getifaddrs;

/// The kind of links that carry packets without a header of their own (`ARPHRD_NONE`): TUN devices and WireGuard.
const BARE: u16 = 0xfffe;

/// What is wrong with the way of datagrams with `mark` to a gateway, in words for the user; `None` if nothing is, or if
/// there is no way at all. `device` is the session's own.
pub(super) fn fault(gateway: SocketAddr, mark: Option<u32>, device: Option<&str>) -> Option<String> {
    let link = Links::look().ok()?.of(source_address(gateway, mark).ok()?)?;
    let gateway = gateway.ip().to_canonical();
    let look = match mark {
        Some(mark) => format!("`ip route get {gateway} mark {mark:#x}` shows the way"),
        None => format!("`ip route get {gateway}` shows the way"),
    };
    if Some(link.name.as_str()) == device {
        let name = link.name;
        return Some(format!(
            "the client's own datagrams to {gateway} are routed into its tunnel ({name}), so that none leaves this host; \
             take away the route or rule that leads them there: {look}"
        ));
    }
    link.is_tunnel.then(|| {
        format!(
            "the client's own datagrams to {gateway} go through {}, which is a tunnel itself; if that one's go through \
             this one, none leaves this host: {look}",
            link.name
        )
    })
}

/// The address the routes give to datagrams to `to`. Sends nothing.
fn source_address(to: SocketAddr, mark: Option<u32>) -> io::Result<IpAddr> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = quic::bind(SocketAddr::new(any, 0), mark)?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

/// A link of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: String,
    is_tunnel: bool,
}

/// The links of this host that have addresses.
struct Links {
    addresses: Vec<(IpAddr, String)>,
    kinds: HashMap<String, u16>,
}

impl Links {
    fn look() -> io::Result<Self> {
        let mut links = Self { addresses: Vec::new(), kinds: HashMap::new() };
        for found in getifaddrs()? {
            let Some(address) = found.address else { continue };
            if let Some(v4) = address.as_sockaddr_in() {
                links.addresses.push((v4.ip().into(), found.interface_name));
            } else if let Some(v6) = address.as_sockaddr_in6() {
                links.addresses.push((v6.ip().into(), found.interface_name));
            } else if let Some(link) = address.as_link_addr() {
                links.kinds.insert(found.interface_name, link.hatype());
            }
        }
        Ok(links)
    }

    /// The link that has an address.
    fn of(&self, address: IpAddr) -> Option<Link> {
        let (_, name) = self.addresses.iter().find(|(held, _)| *held == address)?;
        Some(Link { name: name.clone(), is_tunnel: self.kinds.get(name) == Some(&BARE) })
    }
}

#[cfg(test)]
mod tests {
    use adit_net::tun::Tun;
    use adit_testing::namespace::{in_namespace_async, ip};

    use super::*;

    #[test]
    fn way_through_a_tunnel_is_told_and_one_through_a_cable_is_not() {
        in_namespace_async(|| async {
            let gateway = "203.0.113.1:443".parse().unwrap();
            let way = || fault(gateway, Some(0x16), Some("adit0"));
            ip("link add eth0 type veth peer name router0");
            ip("address add 192.0.2.9/24 dev eth0");
            ip("link set eth0 up");
            assert_eq!(way(), None, "there is no way yet");
            ip("route add default via 192.0.2.1");
            assert_eq!(way(), None);

            let _own = Tun::create("adit0", 1, true).unwrap();
            let _other = Tun::create("wg0", 1, true).unwrap();
            ip("link set adit0 up");
            ip("link set wg0 up");
            ip("address add 10.64.3.2/32 dev adit0");
            ip("address add 10.8.0.2/32 dev wg0");
            ip("route add 203.0.113.0/24 dev wg0 src 10.8.0.2");
            let nested = way().unwrap();
            assert!(nested.contains("go through wg0, which is a tunnel itself"), "{nested}");
            ip("route add 203.0.113.1/32 dev adit0 src 10.64.3.2");
            let circle = way().unwrap();
            assert!(circle.contains("into its tunnel (adit0)") && circle.contains("mark 0x16"), "{circle}");
        });
    }
}
