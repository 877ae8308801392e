//! Echo requests sent without a pause, to learn to the millisecond when a tunnel carries again.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::latency::{answered, request};
use super::{Service, readable};
use crate::Host;

/// Pause between two requests, and so the error of what is found.
const PAUSE: Duration = Duration::from_millis(2);
/// Larger than any answer.
const BUFFER: usize = 256;

/// A sender of echo requests in a lab host, all of them through one link; it stops on drop.
#[derive(Debug)]
pub struct Beacon {
    answered: Arc<Mutex<Vec<Echo>>>,
    _service: Service,
}

/// One request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Echo {
    sent: Instant,
    arrived: Instant,
}

impl Beacon {
    /// Starts to send from `host` to `target`, whether or not there is such a link yet, or still.
    ///
    /// No request takes another way where the link is missing.
    #[must_use]
    pub fn start(host: &Host, link: &str, target: Ipv4Addr) -> Self {
        let (stop, echoes) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<Echo>>>::default());
        let thread = host.start({
            let (stop, echoes, link) = (Arc::clone(&stop), Arc::clone(&echoes), link.to_owned());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // The link is not there, or went away: both are what is waited for.
                    drop(send(&link, target, &stop, &echoes));
                    thread::sleep(PAUSE);
                }
            }
        });
        Self { answered: echoes, _service: Service::new(stop, thread) }
    }

    /// When the first answer to a request sent after `since` came, if there was one until now.
    pub fn first_answer(&self, since: Instant) -> Option<Instant> {
        let echoes = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        first_answer(&echoes, since)
    }
}

fn first_answer(echoes: &[Echo], since: Instant) -> Option<Instant> {
    echoes.iter().filter(|echo| echo.sent >= since).map(|echo| echo.arrived).min()
}

/// Sends and receives until the link is gone.
fn send(link: &str, target: Ipv4Addr, stop: &AtomicBool, echoes: &Mutex<Vec<Echo>>) -> io::Result<()> {
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.bind_device(Some(link.as_bytes()))?;
    let target = SocketAddr::from((target, 0)).into();
    let mut sent_at = Vec::new();
    let mut buffer = [0; BUFFER];
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        socket.send_to(&request(u32::try_from(sent_at.len()).unwrap_or_default()), &target)?;
        sent_at.push(sent);
        while let Some(left) = PAUSE.checked_sub(sent.elapsed()).filter(|left| !left.is_zero()) {
            // A poll counts whole milliseconds.
            if !readable(&socket, left.max(Duration::from_millis(1)))? {
                break;
            }
            let arrived = Instant::now();
            let length = socket.read(&mut buffer)?;
            let number = answered(&buffer[..length]);
            if let Some(sent) = number.and_then(|number| sent_at.get(number)) {
                let echo = Echo { sent: *sent, arrived };
                echoes.lock().unwrap_or_else(PoisonError::into_inner).push(echo);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GATEWAY_V4, Lab, check_permission};
    use adit_testing::skip;

    #[test]
    fn only_answers_to_requests_after_the_moment_count() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let echo = |sent, arrived| Echo { sent: at(sent), arrived: at(arrived) };
        let echoes = [echo(0, 9), echo(4, 7), echo(6, 8)];
        assert_eq!(first_answer(&echoes, at(3)), Some(at(7)));
        assert_eq!(first_answer(&echoes, at(5)), Some(at(8)));
        assert_eq!(first_answer(&echoes, at(7)), None);
    }

    #[test]
    fn cable_that_is_plugged_again_is_noticed() {
        if let Err(failure) = check_permission() {
            return skip(failure);
        }
        let mut lab = Lab::pair(false).unwrap();
        let (client, gateway) = (lab.host("client").unwrap(), lab.host("gateway").unwrap());
        let beacon = Beacon::start(&client, "eth0", GATEWAY_V4);
        let until = |since: Instant| {
            while beacon.first_answer(since).is_none() {
                assert!(since.elapsed() < Duration::from_secs(20), "no answer");
                thread::sleep(PAUSE);
            }
        };
        until(Instant::now());
        gateway.set_link("eth0", false).unwrap();
        let pulled = Instant::now();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(beacon.first_answer(pulled), None);
        gateway.set_link("eth0", true).unwrap();
        until(Instant::now());
    }

    #[test]
    fn missing_link_lets_nothing_pass_by_another_way() {
        if let Err(failure) = check_permission() {
            return skip(failure);
        }
        let mut lab = Lab::pair(false).unwrap();
        let client = lab.host("client").unwrap();
        let (start, control) = (Instant::now(), Beacon::start(&client, "eth0", GATEWAY_V4));
        while control.first_answer(start).is_none() {
            assert!(start.elapsed() < Duration::from_secs(20), "the way that is there carries nothing");
            thread::sleep(PAUSE);
        }
        drop(control);
        let since = Instant::now();
        let beacon = Beacon::start(&client, "tun9", GATEWAY_V4);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(beacon.first_answer(since), None);
    }
}
