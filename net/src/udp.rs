//! UDP sockets for ESP: many datagrams to and from the kernel in one call, by UDP_SEGMENT and UDP_GRO.
//!
//! On a gateway the sockets of a port form a group, [`bind_group`]: a main one, one per worker and perhaps one for
//! handshakes of DTLS, between which the kernel chooses by the first bytes of a datagram. A port for DTLS alone has a
//! group without a main one, [`bind_dtls_group`]. A client has one socket more, [`bind_any`].

mod arrivals;
mod bind;
mod control;
mod steering;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use adit_proto::queue::offload_pause::{FIRST_PAUSE, OffloadPause};
use socket2::{MaybeUninitSlice, MsgHdr, MsgHdrMut, SockAddr, Socket};

pub use arrivals::Arrivals;
pub use bind::{DtlsGroup, Group, bind_any, bind_dtls, bind_dtls_group, bind_group, connect_unfragmented};
pub(crate) use bind::{open, size_buffers};
use control::{Arrival, Control};
pub use steering::dtls_worker;

/// Most datagrams in one call (`UDP_MAX_SEGMENTS` of kernels before 6.9).
pub const MAX_SEGMENTS: usize = 64;
/// Most bytes in one call: the largest UDP payload of an IPv4 packet, on which the kernel insists for all segments
/// together.
pub const MAX_BYTES: usize = 65_507;

/// Where datagrams of the peers come from and go to: an [`EspSocket`], or something in its place. No call waits, and
/// any thread may send.
pub trait DatagramSocket {
    /// Sends datagrams of `segment` bytes, the last of which may be shorter, to one address. `local` is the source
    /// address if the socket is bound to a wildcard, `ecn` the two ECN bits.
    ///
    /// At most [`MAX_SEGMENTS`] and [`MAX_BYTES`]. If the kernel refuses to segment for this socket, the datagrams go
    /// one by one, now and for some time.
    ///
    /// The error in [`Sent`] is `WouldBlock` if the socket's buffer is full, `ENOBUFS` if the datagram is lost,
    /// `EMSGSIZE` if it is larger than the interface or the path takes, and else what the route says.
    fn send(&self, to: SocketAddr, local: Option<IpAddr>, datagrams: &[u8], segment: usize, ecn: u8) -> Sent;

    /// Takes what came from one remote address at once, up to 64 KiB.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; else what the system says.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Message>;

    /// The address the socket is bound to.
    ///
    /// # Errors
    /// What the system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A UDP socket that never fragments, with ECN and segmentation offload. Any number of threads may send.
pub struct EspSocket {
    socket: Socket,
    v6: bool,
    segmentation: OffloadPause,
}

/// What became of the datagrams of one call.
#[derive(Debug)]
pub struct Sent {
    /// How many the kernel took, from the first on.
    pub datagrams: usize,
    /// What it said to the next one, after which no more were offered.
    pub error: Option<io::Error>,
}

/// Datagrams of one remote address, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Bytes of all datagrams.
    pub len: usize,
    /// Bytes of each datagram but the last, which may be shorter; never more than `len`, 0 only if that is.
    pub segment: usize,
    /// Where they came from, never an IPv4-mapped address.
    pub from: SocketAddr,
    /// The address they were sent to, if the socket belongs to a group that is bound to a wildcard.
    pub local: Option<IpAddr>,
    /// The two ECN bits of their IP headers (RFC 3168 section 5).
    pub ecn: u8,
    /// How long they waited in the socket, by the system's clock; wrong if that was set meanwhile.
    pub waited: Duration,
    /// The buffer was too short, and the rest is lost.
    pub truncated: bool,
}

impl DatagramSocket for EspSocket {
    fn send(&self, to: SocketAddr, local: Option<IpAddr>, datagrams: &[u8], segment: usize, ecn: u8) -> Sent {
        debug_assert!(datagrams.len() <= MAX_BYTES.min(MAX_SEGMENTS * segment), "more than one call takes");
        let segment = segment.max(1);
        let to = SocketAddr::new(to.ip().to_canonical(), to.port()).with_scope_of(to);
        let call = SendCall {
            socket: self,
            address: self.address(to).into(),
            control: Control::departure(to.ip(), local.map(|local| local.to_canonical()), ecn),
        };
        if datagrams.len() <= segment || !self.segmentation.is_due(Instant::now) {
            return call.one_by_one(datagrams, segment);
        }
        match call.together(datagrams, segment) {
            Ok(()) => {
                if self.segmentation.handle_success() {
                    tracing::info!("the kernel segments UDP again");
                }
                Sent { datagrams: datagrams.len().div_ceil(segment), error: None }
            }
            Err(error) if refuses_to_segment(&error) => {
                let sent = call.one_by_one(datagrams, segment);
                // If the first one was refused as well, segmentation was not the reason.
                if sent.datagrams > 0 {
                    let pause = self.segmentation.handle_refusal(Instant::now());
                    if pause == FIRST_PAUSE {
                        tracing::warn!(
                            ?pause,
                            "the kernel refuses to segment UDP; datagrams go one by one for a while"
                        );
                    }
                    tracing::debug!(%error, ?pause, "the kernel refused to segment UDP");
                }
                sent
            }
            Err(error) => Sent { datagrams: 0, error: Some(error) },
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Message> {
        let mut from = SockAddr::from(SocketAddr::new(self.any(), 0));
        let mut control = Control::empty();
        let mut buffers = [MaybeUninitSlice::new(uninitialised(buffer))];
        let (len, control_len, truncated) = {
            let mut header = MsgHdrMut::new()
                .with_addr(&mut from)
                .with_buffers(&mut buffers)
                .with_control(uninitialised(control.space()));
            let len = self.socket.recvmsg(&mut header, 0)?;
            (len, header.control_len(), header.flags().is_truncated())
        };
        let from = from.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        let Arrival { segment, local, ecn, at } = control.arrival(control_len);
        let segment = segment.map_or(len, |segment| segment.min(len));
        let from = SocketAddr::new(from.ip().to_canonical(), from.port()).with_scope_of(from);
        Ok(Message { len, segment, from, local, ecn, waited: at.map_or(Duration::ZERO, age), truncated })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl EspSocket {
    /// An address as this socket's family writes it.
    fn address(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.v6 => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            SocketAddr::V4(_) | SocketAddr::V6(_) => to,
        }
    }

    fn any(&self) -> IpAddr {
        if self.v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }
}

impl AsFd for EspSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One call of [`DatagramSocket::send`].
struct SendCall<'a> {
    socket: &'a EspSocket,
    address: SockAddr,
    control: Control,
}

impl SendCall<'_> {
    fn together(&self, datagrams: &[u8], segment: usize) -> io::Result<()> {
        let segment = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
        let control = self.control.clone().with_segment(segment);
        self.send(datagrams, &control)
    }

    fn one_by_one(&self, datagrams: &[u8], segment: usize) -> Sent {
        let mut taken = 0;
        for datagram in datagrams.chunks(segment) {
            if let Err(error) = self.send(datagram, &self.control) {
                return Sent { datagrams: taken, error: Some(error) };
            }
            taken += 1;
        }
        Sent { datagrams: taken, error: None }
    }

    fn send(&self, payload: &[u8], control: &Control) -> io::Result<()> {
        let buffers = [IoSlice::new(payload)];
        let header = MsgHdr::new().with_addr(&self.address).with_buffers(&buffers).with_control(control.bytes());
        loop {
            match self.socket.socket.sendmsg(&header, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// How long ago a time was, which is given since the epoch of the system's clock.
fn age(at: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(Duration::ZERO, |now| now.saturating_sub(at))
}

/// Whether the kernel may have meant the segmentation rather than the datagrams: no checksum offload before Linux 6.11,
/// or IPsec of its own on the route.
fn refuses_to_segment(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| code == libc::EIO || code == libc::EINVAL)
}

trait WithScope {
    /// Keeps the interface of a link-local address.
    fn with_scope_of(self, other: SocketAddr) -> Self;
}

impl WithScope for SocketAddr {
    fn with_scope_of(self, other: SocketAddr) -> Self {
        match (self, other) {
            (Self::V6(to), Self::V6(other)) => SocketAddrV6::new(*to.ip(), to.port(), 0, other.scope_id()).into(),
            (Self::V4(_) | Self::V6(_), _) => self,
        }
    }
}

/// The same bytes as the socket crate wants them to receive into.
fn uninitialised(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    let (start, len) = (bytes.as_mut_ptr().cast::<MaybeUninit<u8>>(), bytes.len());
    // SAFETY: same place, size, alignment and lifetime as `bytes`, which nothing else reaches meanwhile; receiving only
    // writes initialised bytes, so that they stay initialised.
    #[expect(unsafe_code, reason = "the crate's messages have no form for initialised buffers")]
    unsafe {
        std::slice::from_raw_parts_mut(start, len)
    }
}

#[cfg(test)]
mod tests;
