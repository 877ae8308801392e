//! Sockets that are full, because a destination takes nothing.

use std::sync::mpsc as channel;

use adit_proto::queue::patience::{PATIENCE as HELD, Patience};
use nix::sched::{CloneFlags, setns};

use super::super::transmit::batch::{Batches, Unsealed};
use super::super::transmit::outlet::{Outlet, SendOutcome};
use super::*;
use crate::carrier::DatagramRoute;
use crate::udp::{Group, bind_group};

/// On the link, and nobody: the kernel keeps what goes there while it asks for the hardware address, some seconds.
const NOWHERE: &str = "192.0.2.9:4500";
const ROUNDS: usize = 50;

/// A socket with a small buffer on a link where [`NOWHERE`] is.
fn narrow() -> Group {
    for command in [
        "link add outer0 type veth peer name outer1",
        "link set outer1 up",
        "address add 192.0.2.1/24 dev outer0",
        "link set outer0 up",
        "link set lo up",
    ] {
        ip(command);
    }
    let group = bind_group("192.0.2.1:0".parse().unwrap(), 1, true).unwrap();
    setsockopt(&group.esp[0], sockopt::SndBuf, &10_000).unwrap();
    group
}

fn route_to_nowhere(number: usize) -> DatagramRoute {
    let [near, far] = [11, 12].map(|random| Spi::new(0, random).unwrap());
    DatagramRoute {
        origin: Origin { socket: number, local: None },
        ..route(sas(near, far, true).near.0, NOWHERE.parse().unwrap(), true)
    }
}

/// Packets into the tunnel, 40 KB each half millisecond, until the result is dropped.
fn flood(to: &'static str) -> channel::SyncSender<()> {
    let (running, stopped) = channel::sync_channel(1);
    let home = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    thread::spawn(move || {
        setns(home, CloneFlags::CLONE_NEWNET).unwrap();
        let socket = local_v4();
        segment(&socket, 1000);
        while stopped.try_recv() == Err(channel::TryRecvError::Empty) {
            socket.send_to(&[1; 40_000], to).unwrap();
            thread::sleep(Duration::from_micros(500));
        }
    });
    running
}

#[test]
fn destination_that_takes_nothing_holds_up_neither_sessions_on_another_socket_nor_what_comes_in() {
    in_namespace(|| {
        let (narrow, wide) = (narrow(), bind_group("127.0.0.1:0".parse().unwrap(), 1, true).unwrap());
        let tun = device(1, 1);
        let ((stuck, _), (other, _)) = (session(), session());
        let sessions = [("10.9.0.3", &stuck), ("10.9.0.2", &other)];
        let sessions = sessions.map(|(address, session)| (address.parse().unwrap(), Arc::clone(session))).into();
        let router = Arc::new(Router { sessions, counters: Counters::default() });
        let to = wide.main.local_addr().unwrap();
        let sockets = [wide.esp, narrow.esp].into_iter().flatten().map(Arc::new).collect();
        let workers = Workers::start(&router, tun.queues(), vec![sockets], Settings::default()).unwrap();
        let near = workers.handle().claim_spi(None).unwrap();
        let sas = sas(near, Spi::new(0, 1).unwrap(), true);
        let mut peer = Peer::new(to, sas.far);
        other.carriers.set_route(Some(route(sas.near.0, peer.address(), true)));
        stuck.carriers.set_route(Some(route_to_nowhere(1)));
        let (reports, _) = mpsc::channel(1);
        workers.handle().install(Installation { sa: sas.near.1, epoch: 0, session: Arc::clone(&other), reports });

        let running = flood("10.9.0.3:53");
        eventually("full socket", || drops(stuck.carriers.counters(), DropReason::QueueFull) > 100);
        let local = local_v4();
        local.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = local.local_addr().unwrap().port();
        for _ in 0..ROUNDS {
            peer.send_packets(&[Udp::to(port, Checksums::Full).build(b"in")], false);
            assert_eq!(local.recv(&mut [0; 10]).unwrap(), 2);
            local.send_to(b"out", "10.9.0.2:53").unwrap();
            assert!(peer.next(PATIENCE).is_some());
        }
        let lost = drops(stuck.carriers.counters(), DropReason::QueueFull);
        eventually("the socket is still full", || drops(stuck.carriers.counters(), DropReason::QueueFull) > lost);
        drop(running);
        assert_eq!(other.carriers.counters().traffic().drops, []);
    });
}

fn unsealed(packet: &[u8]) -> Unsealed<'_> {
    Unsealed { packet, next_header: NextHeader::Ipv4 }
}

/// A batch that found its socket full, and how many packets were pushed.
fn refused(
    route: &Arc<DatagramRoute>,
    session: &Arc<Session>,
    outlet: &mut Outlet<EspSocket>,
) -> (Batches<Session>, u64) {
    let mut batches = Batches::default();
    let packet = Udp::to(53, Checksums::Full).build(&[1; 1000]);
    for pushed in 1..1000 {
        let outcome = batches.push(session, route, unsealed(&packet), outlet);
        assert_eq!(outcome, Ok(SendOutcome::Finished));
        if batches.flush_all(outlet) == SendOutcome::SocketFull {
            outlet.patience = Patience::default();
            return (batches, pushed);
        }
    }
    panic!("the socket is never full");
}

#[test]
fn what_a_full_socket_refused_goes_once_there_is_room() {
    in_namespace(|| {
        let mut outlet = Outlet::new(vec![Arc::new(narrow().esp.remove(0))]);
        let (route, session) = (Arc::new(route_to_nowhere(0)), session().0);
        let (mut batches, mut pushed) = refused(&route, &session, &mut outlet);
        let traffic = || session.carriers.counters().traffic();
        assert_eq!(batches.resume(&mut outlet), SendOutcome::SocketFull);
        outlet.patience.stop_waiting();
        let packet = Udp::to(53, Checksums::Full).build(&[2; 500]);
        let outcome = batches.push(&session, &route, unsealed(&packet), &mut outlet);
        assert_eq!(outcome, Ok(SendOutcome::SocketFull), "nothing overtakes what waits");
        assert_eq!((traffic().tx_packets, traffic().drops), (pushed - 1, vec![]));

        ip("neighbour replace 192.0.2.9 lladdr 02:00:00:00:00:09 dev outer0");
        outlet.patience.stop_waiting();
        for _ in 0..5 {
            let outcome = batches.push(&session, &route, unsealed(&packet), &mut outlet);
            assert_eq!(outcome, Ok(SendOutcome::Finished));
            pushed += 1;
        }
        assert_eq!(batches.flush_all(&mut outlet), SendOutcome::Finished);
        assert_eq!((traffic().tx_packets, traffic().drops), (pushed, vec![]));
    });
}

#[test]
fn what_a_full_socket_refuses_for_long_is_lost_and_counted() {
    in_namespace(|| {
        let mut outlet = Outlet::new(vec![Arc::new(narrow().esp.remove(0))]);
        let (route, session) = (Arc::new(route_to_nowhere(0)), session().0);
        let (mut batches, pushed) = refused(&route, &session, &mut outlet);
        assert_eq!(batches.resume(&mut outlet), SendOutcome::SocketFull);
        thread::sleep(HELD);
        assert_eq!(batches.resume(&mut outlet), SendOutcome::Finished);
        outlet.patience.stop_waiting();
        let lost = || drops(session.carriers.counters(), DropReason::QueueFull);
        assert_eq!((session.carriers.counters().traffic().tx_packets, lost()), (pushed - 1, 1));

        // From now on there is no waiting until the socket takes something.
        let packet = Udp::to(53, Checksums::Full).build(&[2; 500]);
        for more in 1..10 {
            let outcome = batches.push(&session, &route, unsealed(&packet), &mut outlet);
            assert_eq!(outcome, Ok(SendOutcome::Finished));
            assert_eq!(batches.flush_all(&mut outlet), SendOutcome::Finished);
            assert_eq!(lost(), 1 + more);
        }
    });
}
