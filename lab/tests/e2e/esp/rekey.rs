//! Keys are replaced under load, and nobody notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::traffic::{Direction, NumberedPlan, TcpServer, numbered, transfer};
use adit_testing::{PATIENCE, alone};

use super::observe::{extend_profile, full_queues, stands, suspicious};
use crate::harness::{INTERNET, Options, Tunnel};

const LASTING: Duration = Duration::from_secs(8);
const RATE: u32 = 500;
const CHUNK: u64 = 1 << 20;
/// Rekeys that the packets live through.
const REKEYS: u32 = 6;
/// A pause that leaves room for the numbered packets in the queues of the kernel.
const PAUSE: Duration = Duration::from_millis(50);

#[test]
fn nothing_is_lost_while_keys_are_replaced_every_second() {
    let _turn = alone();
    let settings = &[("esp.rekey_after", "1s")];
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 1, settings }) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    extend_profile(tunnel.client(), "[esp]\nrekey_after = \"1s\"");
    tunnel.clients[0].up().unwrap();
    stands(&tunnel, 0, "esp");

    let (client, internet) = (tunnel.client().host(), &tunnel.internet);
    let hosts = [client, tunnel.gateway.host(), internet];
    let full = full_queues(&hosts);
    let (over, packets) = (AtomicBool::new(false), RATE * u32::try_from(LASTING.as_secs()).unwrap());
    let (bytes, reports) = thread::scope(|scope| {
        let over = &over;
        let (mut moving, mut counting) = (Vec::new(), Vec::new());
        for (direction, address) in [(Direction::Upload, INTERNET[0]), (Direction::Download, INTERNET[1])] {
            moving.push(scope.spawn(move || {
                let server = TcpServer::start(internet, address).unwrap();
                let mut moved = 0;
                while moved == 0 || !over.load(Ordering::Relaxed) {
                    let done = transfer(client, server.address(), direction, CHUNK).unwrap();
                    assert!(done.is_intact(), "{direction:?}");
                    moved += done.bytes;
                    thread::sleep(PAUSE);
                }
                moved
            }));
            counting.push(scope.spawn(move || {
                let plan = NumberedPlan { direction, flows: 1, sizes: vec![1_200, 64], packets, rate: RATE };
                numbered(client, internet, address, &plan).unwrap()
            }));
        }
        let reports: Vec<_> = counting.into_iter().map(|thread| thread.join().unwrap()).collect();
        // On a slow machine the packets may be through before the keys are.
        let deadline = Instant::now() + PATIENCE;
        while tunnel.client().status().unwrap().rekeys < REKEYS && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
        over.store(true, Ordering::Relaxed);
        let bytes: Vec<u64> = moving.into_iter().map(|thread| thread.join().unwrap()).collect();
        (bytes, reports)
    });
    let full = full_queues(&hosts) - full;
    println!("{full} packets found a queue of the kernel full; {reports:?}");
    for report in reports {
        assert_eq!((report.reordered, report.duplicated, report.damaged), (0, 0, 0), "{report:?}");
        assert!(report.sent - report.received <= full, "lost, and not by the kernel: {report:?}");
    }

    let status = tunnel.client().status().unwrap();
    println!("{bytes:?} bytes of TCP, {} rekeys, drops {:?}", status.rekeys, status.drops);
    assert!(bytes.iter().all(|bytes| *bytes >= CHUNK), "TCP moves as well: {bytes:?} bytes");
    assert_eq!(status.carrier.as_deref(), Some("esp"));
    assert!(status.rekeys >= REKEYS, "{} rekeys", status.rekeys);
    let session = tunnel.session_of(status.addresses[0].addr()).unwrap();
    assert_eq!(session.carrier, "esp");
    let gateway = tunnel.gateway.admin_json(&["status"]).unwrap();
    let homeless = serde_json::from_value(gateway["drops"].clone()).unwrap();
    for drops in [&status.drops, &session.drops, &homeless] {
        assert_eq!(suspicious(drops), []);
    }
}
