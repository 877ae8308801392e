//! The address pools of a new gateway.

use std::net::Ipv4Addr;

use adit_program::exit::{Exit, Failure};
use adit_program::random::random;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::{HostAddress, overlap};
use crate::identity::IdentityError;

/// The pools of a new gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewPools {
    pub(super) v4: Ipv4Net,
    pub(super) v6: Ipv6Net,
}

/// Chooses a random private /24 and a random unique local /64 (RFC 4193 section 3.2.2), neither of them in use on this
/// host.
pub(super) fn choose_pools(in_use: &[HostAddress]) -> Result<NewPools, Failure> {
    /// A range of which little is in use is hit far more often than not.
    const TRIES: usize = 64;
    let is_free = |net: IpNet| !in_use.iter().any(|address| overlap(address.net, net));
    let mut v4 = None;
    for range in PRIVATE_RANGES.into_iter().flat_map(|range| std::iter::repeat_n(range, TRIES)) {
        let net = random_v4(range)?;
        if is_free(net.into()) {
            v4 = Some(net);
            break;
        }
    }
    // There are 2^40 unique local prefixes: one that is in use is chosen about never, so one try is enough.
    let v6 = Some(random_v6()?).filter(|net| is_free((*net).into()));
    v4.zip(v6).map(|(v4, v6)| NewPools { v4, v6 }).ok_or_else(|| {
        let next = "make room in 10.64.0.0/10, 172.16.0.0/12 or 192.168.0.0/16 on this host";
        Failure::new(Exit::Other, "address pools", "every private network is in use on this host", next)
    })
}

/// Where IPv4 pools are taken from, first choice first: the upper parts of private networks (RFC 1918), which are used
/// least.
const PRIVATE_RANGES: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// A random /24 inside a range.
fn random_v4(range: Ipv4Net) -> Result<Ipv4Net, Failure> {
    let random = u32::from_be_bytes(random().map_err(|error| IdentityError::from(error).into_failure())?);
    let address = Ipv4Addr::from_bits(range.network().to_bits() | (random & range.hostmask().to_bits()));
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
            let NewPools { v4, .. } = choose_pools(&[]).unwrap();
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
        let NewPools { v4, .. } = choose_pools(&attached(&["10.1.2.3/8"])).unwrap();
        assert!("172.16.0.0/12".parse::<Ipv4Net>().unwrap().contains(&v4), "{v4}");
        let NewPools { v4, .. } = choose_pools(&attached(&["10.1.2.3/8", "172.17.0.1/11"])).unwrap();
        assert!("192.168.0.0/16".parse::<Ipv4Net>().unwrap().contains(&v4), "{v4}");
        assert!(choose_pools(&attached(&["10.1.2.3/8", "172.17.0.1/11", "192.168.1.1/16"])).is_err());
    }
}
