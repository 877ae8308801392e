//! Notices that a gateway came to listen while a handshake with it is under way.
//!
//! A handshake is repeated at doubling intervals. One that began while the gateway was restarting would reach it
//! seconds after it is back.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use adit_program::random::random;
use adit_proto::path_check::version_question::{ID_LEN, LEAST, decode_answer, encode};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout_at};

use super::bind;

/// How long a handshake is given before anything is asked: most are through by then.
const BEGIN_AFTER: Duration = Duration::from_millis(200);
/// Pause between two questions, at least; up to half as much again is added, so that many clients do not knock in step.
/// So one is back within a second, and sends no more meanwhile than the handshake itself does.
const PAUSE: Duration = Duration::from_millis(400);
/// Longest answer that matters, in bytes.
const ANSWER_LEN: usize = 256;

/// Returns when a QUIC server listens at an address where none did at first. Where one listened from the start, or the
/// system does not let questions out, it never returns. `mark` is the SO_MARK of what it sends.
pub async fn came_up(address: SocketAddr, mark: Option<u32>) {
    if let Err(error) = ask_until_answered(address, mark).await {
        tracing::debug!(%error, "cannot ask whether the gateway listens");
        pending().await
    }
}

async fn ask_until_answered(address: SocketAddr, mark: Option<u32>) -> io::Result<()> {
    sleep(BEGIN_AFTER).await;
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::from_std(bind(SocketAddr::new(any, 0), mark)?)?;
    socket.connect(address).await?;
    let mut was_silent = false;
    loop {
        let id = numbers()?;
        // Nobody listens at the other end, or there is no way there now: both are silence.
        socket.send(&encode(id, LEAST)).await.ok();
        let pause = PAUSE + PAUSE.mul_f64(f64::from(numbers::<1>()?[0]) / 512.0);
        match (is_answered(&socket, id, Instant::now() + pause).await, was_silent) {
            (true, true) => return Ok(()),
            (true, false) => pending().await,
            (false, _) => was_silent = true,
        }
    }
}

/// Waits for the answer to a question until then.
async fn is_answered(socket: &UdpSocket, id: [u8; ID_LEN], until: Instant) -> bool {
    let mut answer = [0; ANSWER_LEN];
    while let Ok(received) = timeout_at(until, socket.recv(&mut answer)).await {
        match received {
            Ok(length) if decode_answer(&answer[..length]) == Some(id) => return true,
            Ok(_) => {}
            // What the system tells of questions that found nobody.
            Err(_) => tokio::task::yield_now().await,
        }
    }
    false
}

fn numbers<const N: usize>() -> io::Result<[u8; N]> {
    random().map_err(io::Error::other)
}
