//! Says that this host's network changed: a link, an address or a route.
//!
//! What happened is not looked at: whoever waits looks for itself how the host stands. Every process may listen.

use std::future::pending;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::route_messages::listen;

/// Route netlink's groups of messages about links, and about addresses and routes of both families (rtnetlink(7)).
const GROUPS: [i32; 5] = [
    libc::RTMGRP_LINK,
    libc::RTMGRP_IPV4_IFADDR,
    libc::RTMGRP_IPV6_IFADDR,
    libc::RTMGRP_IPV4_ROUTE,
    libc::RTMGRP_IPV6_ROUTE,
];
/// Shortest time between two changes that are told: a network that flaps must not keep its host busy. The first one of
/// a while is told at once.
const BETWEEN_CHANGES: Duration = Duration::from_millis(100);

/// Waits for changes, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct NetworkWatch {
    /// `None` where the system lets nobody listen.
    socket: Option<AsyncFd<OwnedFd>>,
    not_before: Instant,
}

impl NetworkWatch {
    /// Listens from now on. Must be called inside a tokio runtime.
    #[must_use]
    pub fn open() -> Self {
        let groups = GROUPS.into_iter().fold(0, |groups, group| groups | group.unsigned_abs());
        let socket =
            listen(groups).inspect_err(|error| tracing::debug!(%error, "changes of the network are not heard"));
        Self { socket: socket.ok(), not_before: Instant::now() }
    }

    /// Waits until something changed since this last returned; for ever where nobody may listen. Cancel-safe.
    pub async fn changed(&mut self) {
        sleep_until(self.not_before).await;
        let Some(socket) = &self.socket else { return pending().await };
        let heard = match socket.readable().await {
            Ok(mut ready) => {
                let heard = drain(socket.get_ref());
                ready.clear_ready();
                heard
            }
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            tracing::debug!(%error, "changes of the network are no longer heard");
            self.socket = None;
        }
        self.not_before = Instant::now() + BETWEEN_CHANGES;
    }
}

/// Takes all messages there are. What does not fit is cut off: nobody reads it.
fn drain(socket: &OwnedFd) -> io::Result<()> {
    let mut start = [0; 16];
    loop {
        match recv(socket.as_raw_fd(), &mut start, MsgFlags::MSG_DONTWAIT) {
            // There may have been more than the socket holds.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_testing::PATIENCE;
    use adit_testing::namespace::{in_namespace_async, ip};
    use tokio::time::timeout;

    use super::*;

    /// A watch that has heard nothing for a while: the next change is the test's.
    async fn settled() -> NetworkWatch {
        let mut watch = NetworkWatch::open();
        while timeout(Duration::from_millis(500), watch.changed()).await.is_ok() {}
        watch
    }

    #[test]
    fn links_addresses_and_routes_are_heard_and_silence_is_not() {
        in_namespace_async(|| async {
            ip("link add near type veth peer name far");
            for change in [
                "link set near up",
                "link set far up",
                "address add 192.0.2.1/24 dev near",
                "address add 2001:db8::1/64 dev near nodad",
                "route add default via 192.0.2.2",
                "-6 route add default via 2001:db8::2",
                "link set far down",
            ] {
                let mut watch = settled().await;
                ip(change);
                assert!(timeout(PATIENCE, watch.changed()).await.is_ok(), "ip {change}");
            }
        });
    }

    #[test]
    fn what_changes_often_is_told_now_and_then() {
        in_namespace_async(|| async {
            ip("link add near type veth peer name far");
            let mut watch = settled().await;
            let began = Instant::now();
            for turn in 0..4 {
                ip(&format!("address add 192.0.2.{turn}/32 dev near"));
                timeout(PATIENCE, watch.changed()).await.unwrap();
            }
            assert!(began.elapsed() >= 3 * BETWEEN_CHANGES, "{:?}", began.elapsed());
        });
    }
}
