//! What is set and asked of the TCP sockets of stream carriers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use super::Acknowledged;

/// Bytes that may wait in the socket to be sent, beside those on their way: at 10 Mbit/s they pass in a tenth of a
/// second, and they are several times what one call sends.
const UNSENT: u32 = 128 * 1024;
/// After so long without anything from the other end the system asks whether it lives, and then every [`ASK_EVERY`].
const ASK_AFTER: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Questions without an answer, and how long what was sent may be unacknowledged, before the connection ends.
const QUESTIONS: u32 = 5;
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// Largest segment each way, in bytes: with the headers of IPv6 and TCP it fits a link of 1280 bytes. What is between
/// the two ends may be as narrow, and routers that say so are often not heard.
const SEGMENT: u32 = 1280 - 40 - 20;

/// Makes a socket one for packets: nothing waits to become more, little waits at all, and an end that is gone is
/// noticed.
pub(super) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    let keepalive = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY).with_retries(QUESTIONS);
    socket.set_tcp_keepalive(&keepalive)
}

/// Connects to an address, in segments that pass any path from 1280 bytes on. `mark` is the socket's SO_MARK, if it has
/// one, which routes may depend on.
///
/// # Errors
/// Why there is no connection.
pub async fn open(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    // Before the handshake, in which the other end is told.
    SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    socket.connect(address).await
}

/// What the other end's system says it has.
pub(super) fn acknowledged(socket: &TcpStream) -> Option<Acknowledged> {
    let info = info(socket)?;
    let rtt = Duration::from_micros(info.tcpi_rtt.into());
    Some(Acknowledged { bytes: info.tcpi_bytes_acked, is_all: info.tcpi_unacked == 0, rtt })
}

/// What the system knows of a connection.
#[expect(unsafe_code, reason = "a socket option that no crate wraps")]
fn info(socket: &TcpStream) -> Option<libc::tcp_info> {
    // SAFETY: all its fields are integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes at most `length` bytes to `info`.
    let refused = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    (refused == 0).then_some(info)
}
