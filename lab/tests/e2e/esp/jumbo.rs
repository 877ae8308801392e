//! Where the outer network takes jumbo frames, so does the tunnel, if both ends are configured to.

use adit_lab::programs::TUN;
use adit_lab::traffic::{Direction, NumberedPlan, TcpServer, numbered, transfer};
use adit_testing::eventually;

use super::observe::{CABLE, Wire, extend_profile, stands};
use crate::harness::{INTERNET, Options, Tunnel, answers};

/// Of the outer network, and of the tunnel.
const OUTER: u32 = 9_000;
const INNER: u16 = 8_900;
/// The gateway's other link, and the one of the host behind it.
const OUTSIDE: &str = "eth1";

/// MTUs as both ends know them, and as the client's kernel has it.
fn mtus(tunnel: &Tunnel) -> [u16; 3] {
    let status = tunnel.client().status().unwrap();
    let session = tunnel.session_of(status.addresses[0].addr()).unwrap();
    let tun = tunnel.client().host().mtu(TUN).unwrap();
    [status.mtu.unwrap_or_default(), session.mtu, tun.try_into().unwrap()]
}

fn set_outer(tunnel: &Tunnel, mtu: u32) {
    for host in [tunnel.client().host(), tunnel.gateway.host()] {
        host.set_mtu(CABLE, mtu).unwrap();
    }
}

/// Everything that was sent arrives, whatever its size.
fn assert_passes(tunnel: &Tunnel) {
    let client = tunnel.client().host();
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let what = format!("{direction:?} with {address}");
            assert!(transfer(client, server.address(), direction, 16 << 20).unwrap().is_intact(), "{what}");
            let sizes = vec![1, 1_400, 1_500, usize::from(INNER) - 48, 30_000];
            let plan = NumberedPlan { direction, flows: 1, sizes, packets: 50, rate: 500 };
            let report = numbered(client, &tunnel.internet, address, &plan).unwrap();
            assert!(report.is_flawless(), "{what}: {report:?}");
        }
    }
}

#[test]
fn tunnel_takes_jumbo_frames_where_its_path_does() {
    let Some(mut tunnel) = Tunnel::prepare(Options { settings: &[("tun.mtu", "8900")], ..Options::default() }) else {
        return;
    };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    extend_profile(tunnel.client(), "[esp]\nmtu = 8900");
    set_outer(&tunnel, OUTER);
    tunnel.gateway.host().set_mtu(OUTSIDE, OUTER).unwrap();
    tunnel.internet.set_mtu(CABLE, OUTER).unwrap();
    let wire = Wire::start(tunnel.client().host());
    tunnel.clients[0].up().unwrap();
    stands(&tunnel, 0, "esp");
    eventually("both ends know that the path is wide", || (mtus(&tunnel) == [INNER; 3]).then_some(()));
    assert_passes(&tunnel);
    assert_eq!(wire.fragments(), [], "no datagram of the tunnel is fragmented");

    // The network becomes an ordinary one.
    set_outer(&tunnel, 1_500);
    eventually("both ends know that the path is narrow", || {
        // Only a path in use is looked at.
        answers(tunnel.client().host(), INTERNET[0]);
        let mtus = mtus(&tunnel);
        mtus.iter().all(|mtu| (1_400..=1_438).contains(mtu)).then(|| println!("{mtus:?}"))
    });
    stands(&tunnel, 0, "esp");
    assert_passes(&tunnel);
    assert_eq!(wire.fragments(), [], "no datagram of the tunnel is fragmented");
}
