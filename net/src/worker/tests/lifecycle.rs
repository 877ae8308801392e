//! How workers end.

use std::sync::mpsc as channel;

use nix::sched::{CloneFlags, setns};

use super::*;

/// Fails if dropping does not come to an end.
fn stop(workers: Workers<Session>) {
    let (done, ended) = channel::sync_channel(1);
    thread::spawn(move || {
        drop(workers);
        done.send(()).unwrap();
    });
    ended.recv_timeout(PATIENCE).expect("the workers go on");
}

/// Sends both ways until the result is dropped.
fn load(peer: Peer) -> channel::SyncSender<()> {
    let (running, stopped) = channel::sync_channel(1);
    let home = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    thread::spawn(move || {
        setns(home, CloneFlags::CLONE_NEWNET).unwrap();
        let socket = local_v4();
        segment(&socket, 1000);
        let packets = flow(Udp::to(9, Checksums::Full), &vec![vec![1; 1000]; 40]);
        while stopped.try_recv() == Err(channel::TryRecvError::Empty) {
            // Without workers the device's queue fills up, or is gone.
            socket.send_to(&[1; 40_000], "10.9.0.2:53").ok();
            peer.send_packets(&packets, false);
        }
    });
    running
}

/// Waits until the worker that had a packet for a session sleeps: before, it holds the session of the last packet.
fn fall_asleep(session: &Arc<Session>) {
    let held = Arc::strong_count(session);
    let sent = || session.carriers.counters().traffic().tx_packets;
    let before = sent();
    local_v4().send_to(b"packet", "10.9.0.2:53").unwrap();
    eventually("packet", || sent() > before);
    eventually("sleep", || Arc::strong_count(session) <= held);
}

#[test]
fn idle_workers_stop() {
    in_namespace(|| {
        let world = World::new(2, true);
        fall_asleep(&world.session);
        stop(world.workers);
        assert_eq!(Arc::strong_count(&world.router), 1, "nothing is held any more");
    });
}

#[test]
fn busy_workers_stop() {
    in_namespace(|| {
        let World { workers, peer, session, tun: _tun, .. } = World::new(2, true);
        let running = load(peer);
        let traffic = || session.carriers.counters().traffic();
        eventually("load", || traffic().tx_packets > 2000 && traffic().rx_packets > 2000);
        stop(workers);
        drop(running);
    });
}

#[test]
fn deleted_device_is_a_failure() {
    for busy in [false, true] {
        in_namespace(move || {
            let World { mut workers, peer, session, tun: _tun, .. } = World::new(2, true);
            let running = busy.then(|| load(peer));
            if busy {
                eventually("load", || session.carriers.counters().traffic().tx_packets > 1000);
            } else {
                fall_asleep(&session);
            }
            ip(&format!("link delete {LINK}"));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let error = runtime.block_on(async {
                tokio::time::timeout(PATIENCE, workers.failed()).await.expect("the workers failed")
            });
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
            stop(workers);
            drop(running);
        });
    }
}

/// A table whose lookup is a bug.
struct Broken(Counters);

impl Routing for Broken {
    type Session = Session;

    fn session_of(&self, _: &IpPacket) -> Option<Arc<Session>> {
        panic!("a bug that a test made")
    }

    fn admit(&self, _: &Session, _: &IpPacket) -> Result<(), DropReason> {
        Ok(())
    }

    fn counters(&self) -> &Counters {
        &self.0
    }
}

#[test]
fn panic_of_one_worker_is_a_failure_of_all() {
    in_namespace(|| {
        let tun = device(2, 1);
        let broken = Arc::new(Broken(Counters::default()));
        let mut workers = Workers::start(&broken, tun.queues(), vec![vec![]; 2], Settings::default()).unwrap();
        local_v4().send_to(b"packet", "10.9.0.2:53").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async { tokio::time::timeout(PATIENCE, workers.failed()).await.unwrap() });
        assert_eq!(error.to_string(), "a worker panicked");
        stop(workers);
    });
}

#[test]
fn more_sockets_than_a_worker_waits_for_are_refused() {
    in_namespace(|| {
        let tun = device(1, 1);
        let router = Arc::new(Router { sessions: Vec::new(), counters: Counters::default() });
        let sockets = |count| vec![(0..count).map(|_| Arc::new(joined().0)).collect::<Vec<_>>()];
        let start = |count| Workers::start(&router, tun.queues(), sockets(count), Settings::default());
        assert_eq!(start(31).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
        for count in [0, 1, 30] {
            let workers = start(count).unwrap();
            assert_eq!(workers.handle().has_sockets(), count > 0);
            // Each is read after the worker has waited for all its sockets.
            for _ in 0..3 {
                let lost = drops(&router.counters, DropReason::NoRoute);
                local_v4().send_to(b"packet", "10.9.0.2:53").unwrap();
                eventually("packet", || drops(&router.counters, DropReason::NoRoute) > lost);
            }
            stop(workers);
        }
    });
}

#[test]
fn sleeping_worker_holds_no_session() {
    in_namespace(|| {
        fall_asleep(&World::new(1, true).session);
    });
}

#[test]
fn datagrams_of_the_control_side_reach_the_peer() {
    in_namespace(|| {
        let world = World::new(2, true);
        let handle = world.workers.handle();
        let to: SocketAddr = world.peer.address();
        assert_eq!(handle.origin(to), Origin::default());
        handle.send(handle.origin(to), to, b"\x80 probe", 0).unwrap();
        assert_eq!(datagrams(&world.peer.socket, 1).0, [b"\x80 probe"]);
        let elsewhere = Origin { socket: 7, local: None };
        assert_eq!(handle.send(elsewhere, to, b"probe", 0).unwrap_err().kind(), io::ErrorKind::NotConnected);
        ip("link set lo mtu 1500");
        let error = handle.send(Origin::default(), to, &[0x80; 1473], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    });
}
