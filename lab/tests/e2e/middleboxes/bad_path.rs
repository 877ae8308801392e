//! A path that loses a tenth of all frames in bursts, needs half a second for the way there and back, and mixes frames
//! up.
//!
//! Ends behind it use BBR: what they reach does not depend on loss, so that the test ends.

use std::time::Duration;

use adit_lab::traffic::{TcpServer, transfer};
use adit_netem::Profile;

use super::BOTH;
use crate::harness::{INTERNET, Options, Tunnel, sysctl};

const PATH: &str = "delay_ms = 250\nloss_percent = 10\nloss_burst_packets = 4\nreorder_percent = 5\nreorder_ms = 60";
const TRANSFER: u64 = 10 << 20;
/// The longest time in which nothing may arrive of a transfer.
const LONGEST: Duration = Duration::from_secs(10);

#[test]
fn everything_arrives_by_esp_over_a_bad_path() {
    let profile = Profile::parse("bad", PATH).unwrap();
    let Some(mut tunnel) = Tunnel::prepare_through(&profile, 15, Options::default()) else { return };
    for host in [tunnel.client().host(), &tunnel.internet] {
        sysctl(host, "net/ipv4/tcp_congestion_control", "bbr");
    }
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up_with(&["--carrier", "esp"], &[]).unwrap();
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    for direction in BOTH {
        let done = transfer(tunnel.client().host(), server.address(), direction, TRANSFER).unwrap();
        println!("{direction:?}: {:?}, longest silence {:?}", done.elapsed, done.silence);
        assert!(done.bytes == TRANSFER && done.is_intact(), "{direction:?}");
        assert!(done.silence < LONGEST, "{direction:?}: nothing arrived for {:?}", done.silence);
    }
    let lost: u64 = tunnel.lab.relayed().unwrap().iter().map(|counts| counts.lost).sum();
    assert!(lost > 0, "the path loses frames");
}
