//! What a worker moves packets between: descriptors of the system, or something in their place that costs nothing.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use crate::tun::Queue;
use crate::udp::{EspSocket, Message, Sent};

/// Where the packets of this host come from and go to. Nothing waits.
pub trait PacketQueue {
    /// Takes one packet or superpacket; see [`Queue::read_vectored`].
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    fn read_vectored(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Gives one packet or superpacket away; see [`Queue::write_vectored`].
    ///
    /// # Errors
    /// It was not taken.
    fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Gives packets away and returns how many were taken; see [`Queue::send`].
    fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> usize;
}

/// Where datagrams of the peers come from and go to. Nothing waits.
pub trait DatagramSocket {
    /// Sends datagrams to one address; see [`EspSocket::send`].
    fn send(&self, to: SocketAddr, local: Option<IpAddr>, datagrams: &[u8], segment: usize, ecn: u8) -> Sent;

    /// Takes what came from one address; see [`EspSocket::receive`].
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Message>;
}

impl PacketQueue for Queue {
    fn read_vectored(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Self::read_vectored(self, pieces)
    }

    fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::write_vectored(self, pieces)
    }

    fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> usize {
        Self::send(self, packets)
    }
}

impl DatagramSocket for EspSocket {
    fn send(&self, to: SocketAddr, local: Option<IpAddr>, datagrams: &[u8], segment: usize, ecn: u8) -> Sent {
        Self::send(self, to, local, datagrams, segment, ecn)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Message> {
        Self::receive(self, buffer)
    }
}
