//! A worker between ends that are neither a TUN device nor a UDP socket, as an embedder of this crate may have them.

use std::io::{IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_proto::offload::virtio;
use nix::sys::uio::{readv, writev};

use super::*;
use crate::udp::{Message, Sent};

const PEER: &str = "192.0.2.9:4500";
/// Packets each way.
const PACKETS: u8 = 100;

/// One end of a pair of Unix sockets, which keeps the boundaries of what is written.
struct Pipe {
    end: UnixDatagram,
    /// Reads that found nothing.
    in_vain: AtomicUsize,
}

impl Pipe {
    /// A worker's end, and the end of the test.
    fn pair() -> (Arc<Self>, UnixDatagram) {
        let (inside, outside) = UnixDatagram::pair().unwrap();
        inside.set_nonblocking(true).unwrap();
        outside.set_read_timeout(Some(PATIENCE)).unwrap();
        (Arc::new(Self { end: inside, in_vain: AtomicUsize::new(0) }), outside)
    }

    fn note_in_vain(&self) {
        self.in_vain.fetch_add(1, Ordering::Relaxed);
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl PacketQueue for Pipe {
    fn read_vectored(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(readv(self, pieces).inspect_err(|_| self.note_in_vain())?)
    }

    fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(writev(self, pieces)?)
    }

    fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> usize {
        let header = [0; virtio::LEN];
        let give = |packet: &P| self.write_vectored(&[IoSlice::new(&header), IoSlice::new(packet.as_ref())]);
        packets.iter().take_while(|packet| give(packet).is_ok()).count()
    }
}

impl DatagramSocket for Pipe {
    fn send(&self, to: SocketAddr, _: Option<IpAddr>, datagrams: &[u8], segment: usize, _: u8) -> Sent {
        assert_eq!(to, PEER.parse().unwrap());
        let mut sent = Sent { datagrams: 0, error: None };
        for datagram in datagrams.chunks(segment) {
            if let Err(error) = self.end.send(datagram) {
                sent.error = Some(error);
                break;
            }
            sent.datagrams += 1;
        }
        sent
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Message> {
        let len = self.end.recv(buffer).inspect_err(|_| self.note_in_vain())?;
        let (from, waited) = (PEER.parse().unwrap(), Duration::ZERO);
        Ok(Message { len, segment: len, from, local: None, ecn: 0, waited, truncated: false })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok("192.0.2.1:4500".parse().unwrap())
    }
}

#[test]
fn packets_pass_both_ways_between_ends_of_an_embedder() {
    let ((queue, host), (socket, peer)) = (Pipe::pair(), Pipe::pair());
    let (session, _keeper) = session();
    let addresses = ["10.9.0.1", "10.9.0.2"].map(|address| address.parse().unwrap());
    let sessions = addresses.map(|address| (address, Arc::clone(&session))).into();
    let router = Arc::new(Router { sessions, counters: Counters::default() });
    let ends = [Arc::clone(&queue), Arc::clone(&socket)];
    let workers = Workers::start(&router, &[queue], vec![vec![socket]], Settings::default()).unwrap();
    let handle = workers.handle();
    let near = handle.claim_spi(None).unwrap();
    let Sas { near: (sealing, opening), far: (peer_sealing, mut peer_opening) } =
        sas(near, Spi::new(0, 1).unwrap(), false);
    session.carriers.set_route(Some(route(sealing, PEER.parse().unwrap(), false)));
    let (reports, mut heard) = mpsc::channel(1);
    handle.install(Installation { sa: opening, epoch: 0, session: Arc::clone(&session), reports });

    let mut buffer = vec![0; 65_536];
    for number in 0..PACKETS {
        let packet = Udp::to(53, Checksums::Full).build(&[number; 100]);
        // To the peer. The worker sleeps before, since nothing else has come.
        host.send(&[&[0; virtio::LEN][..], &packet].concat()).unwrap();
        let len = peer.recv(&mut buffer).unwrap();
        let opened = peer_opening.open(&mut buffer[..len]).unwrap();
        assert_eq!(buffer[opened.range()], packet);
        // And from the peer.
        peer.send(&seal(&peer_sealing, &packet, NextHeader::Ipv4)).unwrap();
        let len = host.recv(&mut buffer).unwrap();
        assert_eq!(buffer[virtio::LEN..len], packet);
    }
    for end in ends {
        let in_vain = end.in_vain.load(Ordering::Relaxed);
        assert!(in_vain < usize::from(PACKETS) / 2, "{in_vain} reads found nothing");
    }
    assert!(heard.try_recv().is_ok(), "the control side hears of the first packet");

    // What the control side sends goes out by the same socket.
    let origin = handle.origin(PEER.parse().unwrap());
    handle.send(origin, PEER.parse().unwrap(), b"probe", 0).unwrap();
    assert_eq!(peer.recv(&mut buffer).unwrap(), 5);
    let nowhere = handle.origin("[2001:db8::9]:4500".parse().unwrap());
    let refused = handle.send(nowhere, PEER.parse().unwrap(), b"probe", 0).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NotConnected, "no socket has an IPv6 address");

    drop(workers);
    let traffic = session.carriers.counters().traffic();
    assert_eq!((traffic.tx_packets, traffic.rx_packets, traffic.drops), (PACKETS.into(), PACKETS.into(), vec![]));
}
