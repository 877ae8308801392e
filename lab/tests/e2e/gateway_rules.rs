//! What the gateway's firewall lets through beside the tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_lab::{Host, LinkAddresses, OUTSIDE_V4, OUTSIDE_V6};

use crate::harness::{INTERNET, Options, Tunnel, answers, reach, sysctl};

/// A host in a network behind the gateway, which the gateway itself reaches.
const BEHIND_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const BEHIND_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
const BEHIND: [IpAddr; 2] = [IpAddr::V4(BEHIND_V4), IpAddr::V6(BEHIND_V6)];

/// Adds a network behind the gateway, to which the host `internet` finds the way.
fn network_behind(tunnel: &mut Tunnel) -> Host {
    let behind = tunnel.lab.host("behind").unwrap();
    let near = LinkAddresses::new((Ipv4Addr::new(10, 9, 0, 1), 24), ("fd09::1".parse().unwrap(), 64));
    let far = LinkAddresses::new((BEHIND_V4, 24), (BEHIND_V6, 64));
    tunnel.lab.link(tunnel.gateway.host(), near, &behind, far).unwrap();
    for (host, via) in [
        (&behind, [IpAddr::V4(near.v4.addr()), IpAddr::V6(near.v6.addr())]),
        (&tunnel.internet, [IpAddr::V4(OUTSIDE_V4), IpAddr::V6(OUTSIDE_V6)]),
    ] {
        for gateway in via {
            host.add_default_route(gateway).unwrap();
        }
    }
    behind
}

/// Asserts that packets pass, or do not, between two links of the gateway's host of which neither is the tunnel.
fn assert_routes_between_others(tunnel: &Tunnel, expected: bool) {
    for target in BEHIND {
        reach(tunnel.gateway.host(), target);
        if expected {
            reach(&tunnel.internet, target);
        } else {
            assert!(!answers(&tunnel.internet, target), "{target}");
        }
    }
}

#[test]
fn gateway_makes_no_router_of_its_host_but_leaves_one_that_is() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let _behind = network_behind(&mut tunnel);
    assert_routes_between_others(&tunnel, false);
    tunnel.gateway.start().unwrap();
    assert_routes_between_others(&tunnel, false);
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    for target in INTERNET.into_iter().chain(BEHIND) {
        reach(tunnel.client().host(), target);
    }
    tunnel.gateway.kill();
    assert_routes_between_others(&tunnel, false);
    tunnel.gateway.start().unwrap();
    assert_routes_between_others(&tunnel, false);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    assert_routes_between_others(&tunnel, false);
    for switch in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        sysctl(tunnel.gateway.host(), switch, "1");
    }
    assert_routes_between_others(&tunnel, true);
    tunnel.gateway.start().unwrap();
    assert_routes_between_others(&tunnel, true);
    tunnel.gateway.kill();
    tunnel.gateway.start().unwrap();
    assert_routes_between_others(&tunnel, true);
}
