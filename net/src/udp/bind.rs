//! Binds the sockets of the data path.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use adit_proto::esp::spi::WORKERS;
use adit_proto::queue::offload_pause::OffloadPause;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::EspSocket;
use super::steering::{steer, steer_dtls, steer_with_dtls};

/// The receive buffer and the send buffer of a socket, in bytes.
///
/// The kernel doubles this value, but it also charges up to 100 KB for a message of 64 KiB, so that its default would
/// hold only four. What has been received must not be lost while the reader pauses, which may last some milliseconds at
/// the throughput of a full core. The worker sees to it that so large a buffer does not fill and delay every packet.
/// `docs/benchmarks.md` has what a smaller one loses.
const BUFFER: usize = 4 * 1024 * 1024;

/// Options the `nix` crate does not name.
mod option {
    use nix::setsockopt_impl;
    use nix::sys::socket::sockopt::SetStruct;

    #[derive(Clone, Copy)]
    pub(super) struct MtuDiscovery;
    #[derive(Clone, Copy)]
    pub(super) struct MtuDiscoveryV6;
    setsockopt_impl!(MtuDiscovery, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int, SetStruct<libc::c_int>);
    setsockopt_impl!(MtuDiscoveryV6, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int, SetStruct<libc::c_int>);
}

/// The sockets of one address of a gateway, between which the kernel chooses by the first byte of a datagram.
///
/// They have to be closed together: when one closes, the kernel gives its number in the group to another.
pub struct Group {
    /// Gets every datagram that is not ESP, and ESP that names no worker of the group.
    pub main: UdpSocket,
    /// One socket per worker, in the order of the workers.
    pub esp: Vec<EspSocket>,
}

/// The sockets of one address of a gateway at which there is nothing but DTLS. They have to be closed together.
pub struct DtlsGroup {
    /// Gets what begins an association, records of epoch 0, and what is no record.
    pub door: EspSocket,
    /// One socket per worker, in the order of the workers.
    pub workers: Vec<EspSocket>,
}

/// Binds a group of sockets to one address: the main one and one per worker. An IPv6 wildcard takes IPv4 as well.
///
/// With `offload` the kernel segments what is sent and joins what is received.
///
/// # Errors
/// `AddrInUse` if any other socket has the address, another gateway's included; `InvalidInput` for more than 64
/// workers; else what the system refuses.
pub fn bind_group(address: SocketAddr, workers: usize, offload: bool) -> io::Result<Group> {
    let workers =
        u8::try_from(workers).ok().filter(|&workers| workers <= WORKERS).ok_or(io::ErrorKind::InvalidInput)?;
    let main = open(address, None)?;
    size_buffers(&main)?;
    main.set_reuse_port(true)?;
    // A program that is attached before the socket is bound makes a group of its own. The socket then joins no other
    // group, not even one of the same user, but finds the address in use. And no datagram comes before the program is
    // there.
    steer(&main, 0)?;
    main.bind(&address.into())?;
    let address = main.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    let mut esp = Vec::with_capacity(usize::from(workers));
    for bound in 1..=workers {
        esp.push(join(address, offload)?);
        // Only now may this worker be chosen.
        steer(&main, bound)?;
    }
    Ok(Group { main: main.into(), esp })
}

/// Adds a socket to a group. It gets what begins an association of DTLS, records of epoch 0; all other records of DTLS
/// go to the workers, each to that of [`super::dtls_worker`].
///
/// # Errors
/// `InvalidInput` if the group has no workers; else what the system refuses.
pub fn bind_dtls(group: &Group) -> io::Result<EspSocket> {
    let workers = u8::try_from(group.esp.len()).ok().filter(|&workers| workers > 0);
    let workers = workers.ok_or(io::ErrorKind::InvalidInput)?;
    let socket = join(group.main.local_addr()?, false)?;
    steer_with_dtls(&group.main, workers)?;
    Ok(socket)
}

/// Binds a group of sockets for DTLS alone to one address. Records go where [`bind_dtls`] has them go.
///
/// # Errors
/// As [`bind_group`], and `InvalidInput` without workers.
pub fn bind_dtls_group(address: SocketAddr, workers: usize, offload: bool) -> io::Result<DtlsGroup> {
    let count = u8::try_from(workers).ok().filter(|count| (1..=WORKERS).contains(count));
    let count = count.ok_or(io::ErrorKind::InvalidInput)?;
    let door = open(address, None)?;
    door.set_reuse_port(true)?;
    // As in `bind_group`: a program before the address makes a group of its own.
    steer_dtls(&door, 0)?;
    door.bind(&address.into())?;
    let address = door.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    let workers = (0..count).map(|_| join(address, offload)).collect::<io::Result<_>>()?;
    steer_dtls(&door, count)?;
    if address.ip().is_unspecified() {
        tell_local_address(&door, address.is_ipv6())?;
    }
    Ok(DtlsGroup { door: prepare(door, address.is_ipv6(), false)?, workers })
}

/// Binds one more socket to the address of a group.
fn join(address: SocketAddr, offload: bool) -> io::Result<EspSocket> {
    let socket = open(address, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    if address.ip().is_unspecified() {
        tell_local_address(&socket, address.is_ipv6())?;
    }
    prepare(socket, address.is_ipv6(), offload)
}

/// Binds a client's socket to a port of the kernel's choice on all addresses, so that its source address follows the
/// routes. One for IPv6 takes IPv4 as well; `mark` sets SO_MARK, so that policy routing can tell it apart.
///
/// # Errors
/// What the system refuses, such as `EAFNOSUPPORT` for IPv6 on a host without.
pub fn bind_any(v6: bool, mark: Option<u32>, offload: bool) -> io::Result<EspSocket> {
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let address = SocketAddr::new(any, 0);
    let socket = open(address, mark)?;
    socket.bind(&address.into())?;
    // This socket does not learn to which address a datagram came. An answer from an address that the host has lost
    // meanwhile would be refused.
    prepare(socket, v6, offload)
}

/// A socket for datagrams to one address that are never fragmented, from a port of the kernel's choice; `mark` sets
/// SO_MARK. It never blocks, and reports what ICMP says of the way.
///
/// # Errors
/// What the system refuses, such as `NetworkUnreachable` where no route leads to the address.
pub fn connect_unfragmented(to: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let address = SocketAddr::new(any, 0);
    let socket = open(address, mark)?;
    socket.bind(&address.into())?;
    if to.is_ipv6() {
        setsockopt(&socket, option::MtuDiscoveryV6, &libc::IPV6_PMTUDISC_PROBE)?;
    } else {
        setsockopt(&socket, option::MtuDiscovery, &libc::IP_PMTUDISC_PROBE)?;
    }
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// A socket that never blocks, not bound yet. An IPv6 wildcard will take IPv4 as well.
pub(crate) fn open(address: SocketAddr, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Asks for large buffers; the kernel gives at most what the system's limit permits.
pub(crate) fn size_buffers(socket: &Socket) -> io::Result<()> {
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)
}

/// Sets large buffers beyond the system's limit, which takes CAP_NET_ADMIN; without it, as large as the limit permits.
fn force_buffers(socket: &Socket) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER).is_err() {
        socket.set_send_buffer_size(BUFFER)?;
    }
    Ok(())
}

/// Asks for the address that each datagram was sent to.
fn tell_local_address(socket: &Socket, v6: bool) -> io::Result<()> {
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

/// Sets what ESP needs: large buffers, no fragments, ECN bits, and times of arrival.
fn prepare(socket: Socket, v6: bool, offload: bool) -> io::Result<EspSocket> {
    force_buffers(&socket)?;
    // Those of IPv4 count on an IPv6 socket too, for the IPv4 it takes.
    setsockopt(&socket, option::MtuDiscovery, &libc::IP_PMTUDISC_PROBE)?;
    setsockopt(&socket, sockopt::IpRecvTos, &true)?;
    // This makes the kernel take the time of every packet that the host receives.
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    if v6 {
        setsockopt(&socket, option::MtuDiscoveryV6, &libc::IPV6_PMTUDISC_PROBE)?;
        setsockopt(&socket, sockopt::Ipv6RecvTClass, &true)?;
    }
    if offload && let Err(error) = setsockopt(&socket, sockopt::UdpGroSegment, &true) {
        tracing::debug!(%error, "datagrams come one by one");
    }
    Ok(EspSocket { socket, v6, segmentation: OffloadPause::new(offload, Instant::now()) })
}
