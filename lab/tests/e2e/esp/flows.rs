//! Many flows over several workers.

use std::collections::BTreeSet;
use std::thread;

use adit_lab::traffic::{Direction, NumberedPlan, numbered};
use adit_testing::alone;

use super::observe::{Wire, damage, stands, suspicious};
use crate::harness::{INTERNET, Options, Tunnel};

const CLIENTS: usize = 4;
const FLOWS: usize = 3;
const PACKETS: u32 = 450;
const RATE: u32 = 150;

#[test]
fn two_workers_keep_the_order_of_every_flow() {
    let _turn = alone();
    let settings = &[("workers.count", "2")];
    let Some(tunnel) = Tunnel::start(Options { clients: CLIENTS, settings }) else { return };
    for number in 0..CLIENTS {
        stands(&tunnel, number, "esp");
    }
    // The gateway has a cable to each client.
    let wires: Vec<_> = tunnel.clients.iter().map(|client| Wire::start(client.host())).collect();
    thread::scope(|scope| {
        for client in &tunnel.clients {
            for direction in [Direction::Upload, Direction::Download] {
                for address in INTERNET {
                    let (host, internet) = (client.host(), &tunnel.internet);
                    scope.spawn(move || {
                        let sizes = vec![1_200, 40, 300];
                        let plan = NumberedPlan { direction, flows: FLOWS, sizes, packets: PACKETS, rate: RATE };
                        let report = numbered(host, internet, address, &plan).unwrap();
                        assert!(report.is_flawless(), "{}, {direction:?}, {address}: {report:?}", host.name());
                    });
                }
            }
        }
    });
    let datagrams = wires.iter().flat_map(Wire::datagrams).filter(|one| one.to_gateway && one.is_esp());
    let workers: BTreeSet<u8> = datagrams.map(|one| one.payload[0] & 0x3f).collect();
    assert_eq!(workers, BTreeSet::from([0, 1]), "both workers receive");
    for session in tunnel.gateway.sessions().unwrap() {
        // Datagrams may overtake each other where the kernel moves a thread to another core; flows are judged above.
        println!("{} of {} packets overtaken", session.reordered, session.rx_packets);
        assert_eq!(session.carrier, "esp", "{session:?}");
        assert_eq!(suspicious(&session.drops), [], "{session:?}");
    }
    for client in &tunnel.clients {
        let status = client.status().unwrap();
        assert_eq!(status.carrier.as_deref(), Some("esp"));
        assert_eq!(damage(client.host()), []);
    }
    assert_eq!(damage(&tunnel.internet), []);
}
