//! Asks one address by UDP how far it is, and how large a datagram may be.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_net::udp;
use adit_program::random::random;
use adit_proto::path_check::version_question::{ID_LEN, LEAST, decode_answer, encode};
use adit_proto::path_check::width::WidthSearch;
use nix::errno::Errno;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::protocols::udp_overhead;

/// Largest IP packet that is tried, in bytes.
const LARGEST_PACKET: u16 = 1500;
/// Times of one question: some are lost on a bad path.
const TIMES: u32 = 3;
/// How long the first question is repeated.
const PATIENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(500);
/// Shortest time between two questions of one size.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// A path to one address. Nothing proves who answers.
pub(super) struct UdpPath {
    socket: UdpSocket,
    to: SocketAddr,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) rtt: Duration,
    /// The largest IP packet that was answered, in bytes.
    pub(super) mtu: u16,
}

/// Why nothing was measured.
#[derive(Debug)]
pub(super) enum NotMeasured {
    /// No answer came.
    Silent,
    /// The system says why not.
    Refused(io::Error),
}

impl UdpPath {
    /// A socket of its own for the path, which sends nothing yet.
    pub(super) fn open(to: SocketAddr, mark: Option<u32>) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::from_std(udp::connect_unfragmented(to, mark)?)?, to })
    }

    /// This host's address on the path.
    pub(super) fn source(&self) -> Option<IpAddr> {
        self.socket.local_addr().ok().map(|local| local.ip().to_canonical())
    }

    /// Measures until `deadline`; the search for the width ends there, wherever it stands.
    pub(super) async fn measure(&self, deadline: Instant) -> Result<Measured, NotMeasured> {
        let rtt = self.distance(deadline.min(Instant::now() + PATIENCE)).await?;
        let overhead = udp_overhead(self.to);
        let mut search = WidthSearch::new(LEAST, LARGEST_PACKET.saturating_sub(overhead));
        let pause = (rtt * 2).max(SHORTEST_PAUSE);
        // What was found up to the deadline counts.
        let _cut_short = timeout_at(deadline, self.search(&mut search, pause)).await;
        Ok(Measured { rtt, mtu: search.width().saturating_add(overhead) })
    }

    /// Asks until there is an answer, and returns how long that took.
    async fn distance(&self, deadline: Instant) -> Result<Duration, NotMeasured> {
        let mut asked = HashMap::new();
        loop {
            let id = new_id().map_err(NotMeasured::Refused)?;
            asked.insert(id, Instant::now());
            match self.socket.send(&encode(id, LEAST)).await {
                Err(error) if !is_passing(&error) => return Err(NotMeasured::Refused(error)),
                Ok(_) | Err(_) => {}
            }
            let until = deadline.min(Instant::now() + AGAIN);
            while let Some(answer) = self.answer(until).await {
                let answered = answer.map_err(NotMeasured::Refused)?;
                if let Some(asked) = asked.get(&answered) {
                    return Ok(asked.elapsed());
                }
            }
            if Instant::now() >= deadline {
                return Err(NotMeasured::Silent);
            }
        }
    }

    /// Asks with all sizes of a round side by side, and again with those that are not answered after a `pause`.
    async fn search(&self, search: &mut WidthSearch, pause: Duration) {
        let mut sizes = HashMap::new();
        loop {
            let round = search.begin_round().to_vec();
            if round.is_empty() {
                return;
            }
            for _time in 0..TIMES {
                for &size in round.iter().filter(|&&size| size > search.width()) {
                    let Ok(id) = new_id() else { return };
                    sizes.insert(id, size);
                    // A link of this host's that is too narrow refuses it, which is an answer, too.
                    self.socket.send(&encode(id, size)).await.ok();
                }
                let until = Instant::now() + pause;
                while !search.is_round_over()
                    && let Some(answer) = self.answer(until).await
                {
                    if let Some(size) = answer.ok().and_then(|id| sizes.get(&id)) {
                        search.handle_answer(*size);
                    }
                }
                if search.is_round_over() {
                    break;
                }
            }
        }
    }

    /// The id of the next question that is answered; `None` if none is by then.
    async fn answer(&self, until: Instant) -> Option<io::Result<[u8; ID_LEN]>> {
        let mut datagram = [0; 128];
        loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => return None,
                received = self.socket.recv(&mut datagram) => match received {
                    Ok(length) => {
                        if let Some(id) = decode_answer(datagram.get(..length).unwrap_or_default()) {
                            return Some(Ok(id));
                        }
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}

/// Whether an error is about a datagram that was too large, and says nothing about others.
fn is_passing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMSGSIZE as i32)
}

fn new_id() -> io::Result<[u8; ID_LEN]> {
    random().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Server;
    use std::thread;

    use adit_testing::namespace::{in_namespace_async, ip, up};

    use super::*;

    /// Answers questions as QUIC servers do, but only those of at most `width` bytes, and not the first.
    fn serve(width: usize) -> SocketAddr {
        let server = Server::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || {
            let mut datagram = [0; 2048];
            let mut is_first = true;
            while let Ok((length, asker)) = server.recv_from(&mut datagram) {
                if length <= width && !std::mem::take(&mut is_first) {
                    let mut answer = vec![0xca, 0, 0, 0, 0];
                    answer.extend(&datagram[5..23]);
                    answer.extend([0, 0, 0, 1]);
                    server.send_to(&answer, asker).unwrap();
                }
            }
        });
        address
    }

    async fn measure(to: SocketAddr) -> Result<Measured, NotMeasured> {
        UdpPath::open(to, None).unwrap().measure(Instant::now() + Duration::from_secs(20)).await
    }

    #[test]
    fn width_of_a_path_is_found_past_a_lost_question() {
        in_namespace_async(|| async {
            up("lo");
            for width in [1200, 1299, 1472, 2000] {
                let measured = measure(serve(width)).await.unwrap();
                assert_eq!(usize::from(measured.mtu), width.min(1472) + 28);
            }
        });
    }

    #[test]
    fn narrow_link_of_this_host_is_found() {
        in_namespace_async(|| async {
            ip("link set lo mtu 1400");
            up("lo");
            assert_eq!(measure(serve(2000)).await.unwrap().mtu, 1400);
        });
    }

    #[test]
    fn nobody_and_nothing_are_told_apart() {
        in_namespace_async(|| async {
            up("lo");
            let silent = Server::bind("127.0.0.1:0").unwrap();
            let asked = measure(silent.local_addr().unwrap()).await;
            assert!(matches!(asked, Err(NotMeasured::Silent)), "{asked:?}");
            let nobody = measure("127.0.0.1:9".parse().unwrap()).await;
            let Err(NotMeasured::Refused(error)) = nobody else { panic!("{nobody:?}") };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert!(UdpPath::open("192.0.2.1:443".parse().unwrap(), None).is_err(), "there is no route");
        });
    }
}
