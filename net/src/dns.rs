//! Asks a resolver of one's choice for the addresses of a name.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use adit_proto::dns::question::{Answer, Question};
use tokio::net::UdpSocket;

use crate::quic;

/// After how long a question is asked again: it or its answer may be lost.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest answer read, in bytes: more than any without an extension (RFC 1035 section 2.3.4).
const LONGEST_ANSWER: usize = 1232;

/// Asks a resolver over UDP, from a socket with this firewall mark, and again every second; waits for as long as nobody
/// answers the question. Answers to other questions are passed by.
///
/// # Errors
/// `InvalidInput` for what is no domain name; the system's refusal.
pub async fn ask(resolver: SocketAddr, question: &Question, mark: Option<u32>) -> io::Result<Answer> {
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = quic::bind(SocketAddr::new(any, 0), mark)?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(resolver).await?;
    let message = question.encode().ok_or(io::ErrorKind::InvalidInput)?;
    let mut answer = [0; LONGEST_ANSWER];
    let mut again = tokio::time::interval(AGAIN);
    loop {
        let length = tokio::select! {
            _ = again.tick() => {
                socket.send(&message).await?;
                continue;
            }
            received = socket.recv(&mut answer) => received?,
        };
        if let Some(answer) = question.answer(answer.get(..length).unwrap_or_default()) {
            return Ok(answer);
        }
    }
}
