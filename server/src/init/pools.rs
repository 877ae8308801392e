//! The address pools of a new gateway.

use std::net::Ipv4Addr;

use adit_program::exit::{Exit, Failure};
use adit_program::random::random;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::{HostAddress, overlap};
use crate::identity::IdentityError;

/// A random private /24 and a random unique local /64 (RFC 4193 section 3.2.2), neither of them in use on this host.
pub(super) fn choose_pools(in_use: &[HostAddress]) -> Result<(Ipv4Net, Ipv6Net), Failure> {
    /// A range of which little is in use is hit far more often than not.
    const TRIES: usize = 64;
    let free = |net: &IpNet| !in_use.iter().any(|address| overlap(address.net, *net));
    let mut v4 = Vec::new();
    for range in PRIVATE_RANGES {
        for _ in 0..TRIES {
            v4.push(random_v4(range)?);
        }
    }
    let v4 = v4.into_iter().find(|net| free(&IpNet::V4(*net)));
    let v6 = random_v6().map(|net| Some(net).filter(|net| free(&IpNet::V6(*net))))?;
    v4.zip(v6).ok_or_else(|| {
        let next = "make room in 10.64.0.0/10, 172.16.0.0/12 or 192.168.0.0/16 on this host";
        Failure::new(Exit::Other, "address pools", "every private network is in use on this host", next)
    })
}

/// Where IPv4 pools are taken from, first choice first: the upper parts of private networks (RFC 1918), which are used
/// least.
const PRIVATE_RANGES: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(10, 64, 0, 0), 10), (Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(192, 168, 0, 0), 16)];

fn random_v4((start, length): (Ipv4Addr, u8)) -> Result<Ipv4Net, Failure> {
    let random = u32::from_be_bytes(random().map_err(|error| IdentityError::from(error).into_failure())?);
    let host_bits = u32::MAX.checked_shr(u32::from(length)).expect("a private range is no single address");
    let address = Ipv4Addr::from_bits(start.to_bits() | (random & host_bits));
    Ok(Ipv4Net::new(address, 24).expect("24 is a prefix length of IPv4").trunc())
}

fn random_v6() -> Result<Ipv6Net, Failure> {
    let global: [u8; 7] = random().map_err(|error| IdentityError::from(error).into_failure())?;
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&global);
    Ok(Ipv6Net::new(octets.into(), 64).expect("64 is a prefix length of IPv6"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_pools_lie_where_nobody_else_is_likely_to_be() {
        for _ in 0..200 {
            let (v4, _) = choose_pools(&[]).unwrap();
            assert!("10.64.0.0/10".parse::<Ipv4Net>().unwrap().contains(&v4), "{v4}");
            assert_eq!((v4.prefix_len(), v4.addr()), (24, v4.network()));
            assert_eq!(random_v6().unwrap().network().octets()[0], 0xfd);
        }
    }

    #[test]
    fn pool_keeps_clear_of_the_hosts_networks() {
        let attached = |nets: &[&str]| -> Vec<HostAddress> {
            let address = |net: &&str| HostAddress { device: "eth0".into(), net: net.parse().unwrap() };
            nets.iter().map(address).collect()
        };
        let (v4, _) = choose_pools(&attached(&["10.1.2.3/8"])).unwrap();
        assert!("172.16.0.0/12".parse::<Ipv4Net>().unwrap().contains(&v4), "{v4}");
        let (v4, _) = choose_pools(&attached(&["10.1.2.3/8", "172.17.0.1/11"])).unwrap();
        assert!("192.168.0.0/16".parse::<Ipv4Net>().unwrap().contains(&v4), "{v4}");
        assert!(choose_pools(&attached(&["10.1.2.3/8", "172.17.0.1/11", "192.168.1.1/16"])).is_err());
    }
}
