//! Says that something changed on the host.
//!
//! Each source is a task that waits for events of one kind and raises a signal: what happened is not looked at, because
//! what matters is how the host stands when somebody looks. Raised twice, the signal is still one.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit_program::task::{self, Task};
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Shortest time between two looks.
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// Route netlink's groups for what is guarded. "Netconf" are the forwarding and reverse-path sysctls.
const ROUTE_GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Ipv4Netconf,
    MulticastGroup::Ipv6Netconf,
];
/// Netfilter netlink's group for changes of nftables (`NFNLGRP_NFTABLES`).
const NFTABLES_GROUP: u32 = 7;

/// Waits for changes on the host, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct HostWatch {
    signal: Signal,
    sources: Vec<Task>,
    last: Option<Instant>,
}

/// Raised when something changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signal(Arc<Notify>);

impl Signal {
    /// Says that something changed.
    pub(crate) fn raise(&self) {
        self.0.notify_one();
    }
}

impl HostWatch {
    /// Listens to the kernel's events. What cannot be listened to is left to the poll.
    pub(crate) fn open() -> Self {
        let mut watch = Self { signal: Signal::default(), sources: Vec::new(), last: None };
        let netfilter = [NFTABLES_GROUP].as_slice();
        let route = ROUTE_GROUPS.map(|group| group as u32);
        for (protocol, groups) in [(NETLINK_ROUTE, route.as_slice()), (NETLINK_NETFILTER, netfilter)] {
            match listen(protocol, groups) {
                Ok(socket) => watch.add(follow(socket, watch.signal())),
                Err(error) => tracing::debug!(%error, protocol, "no events of this kind"),
            }
        }
        watch
    }

    /// One that hears nothing but what is added.
    #[cfg(test)]
    pub(crate) fn deaf() -> Self {
        Self { signal: Signal::default(), sources: Vec::new(), last: None }
    }

    /// What a further source of events raises.
    pub(crate) fn signal(&self) -> Signal {
        self.signal.clone()
    }

    /// Runs a further source of events for as long as this lives.
    pub(crate) fn add(&mut self, source: impl Future<Output = ()> + Send + 'static) {
        self.sources.push(task::spawn(source));
    }

    /// Waits for an event, but no longer than `poll` after it last returned.
    pub(crate) async fn changed(&mut self, poll: Duration) {
        let last = *self.last.get_or_insert_with(Instant::now);
        // An event in this pause stays until the next line asks for it.
        tokio::time::sleep_until(last + BETWEEN_LOOKS).await;
        tokio::select! {
            () = self.signal.0.notified() => {}
            () = tokio::time::sleep_until(last + poll) => {}
        }
        self.last = Some(Instant::now());
    }
}

/// Opens a netlink socket that gets the events of `groups`.
fn listen(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_ref().add_membership(*group)?;
    }
    Ok(socket)
}

/// Raises the signal for each event.
async fn follow(socket: TokioSocket, signal: Signal) {
    loop {
        // What does not fit is cut off: nobody reads it.
        let mut start = [0; 16];
        match socket.recv(&mut start.as_mut_slice()).await {
            Ok(()) => signal.raise(),
            // There were more events than fit into the socket; the signal stands for them all.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => signal.raise(),
            Err(error) => {
                tracing::warn!(%error, "changes of this host are heard late from now on");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_net::tun::Tun;
    use adit_testing::PATIENCE;
    use adit_testing::namespace::{in_namespace_async, ip};
    use tokio::time::timeout;

    use super::*;

    /// Longer than any test waits.
    const NEVER: Duration = Duration::from_secs(3600);

    /// A watch that has heard nothing for a while: the next event is the test's.
    async fn settled() -> HostWatch {
        let mut watch = HostWatch::open();
        while timeout(Duration::from_millis(500), watch.changed(NEVER)).await.is_ok() {}
        watch
    }

    #[test]
    fn every_kind_of_change_is_heard() {
        in_namespace_async(|| async {
            // A device without an address of its own, about which the kernel has nothing to tell later.
            let _device = Tun::create("adit-d", 1, true).unwrap();
            ip("link set adit-d addrgenmode none");
            for change in [
                "link set adit-d up",
                "address add 10.64.3.2/24 dev adit-d",
                "address add fd00::2/64 dev adit-d nodad",
                "route add 10.1.0.0/16 dev adit-d table 7",
                "route add fd01::/16 dev adit-d table 7",
                "rule add pref 7 lookup 7",
                "-6 rule add pref 7 lookup 7",
                "link set adit-d mtu 1400",
            ] {
                let mut watch = settled().await;
                ip(change);
                assert!(timeout(PATIENCE, watch.changed(NEVER)).await.is_ok(), "ip {change}");
            }
        });
    }

    #[test]
    fn sysctls_and_firewalls_are_heard() {
        in_namespace_async(|| async {
            for (key, value) in [("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.lo.rp_filter", "1")] {
                let mut watch = settled().await;
                crate::sysctl::write(key, value).unwrap();
                assert!(timeout(PATIENCE, watch.changed(NEVER)).await.is_ok(), "{key}");
            }
            let mut watch = settled().await;
            let made = std::process::Command::new("nft").args(["add", "table", "inet", "other"]).status().unwrap();
            assert!(made.success());
            assert!(timeout(PATIENCE, watch.changed(NEVER)).await.is_ok(), "nftables");
        });
    }

    #[test]
    fn without_events_the_poll_comes() {
        in_namespace_async(|| async {
            let mut watch = settled().await;
            timeout(PATIENCE, watch.changed(Duration::from_millis(300))).await.unwrap();
        });
    }

    #[test]
    fn a_storm_of_events_lets_time_pass_between_looks() {
        in_namespace_async(|| async {
            let mut watch = settled().await;
            let storm = |signal: Signal| async move {
                loop {
                    signal.raise();
                    tokio::task::yield_now().await;
                }
            };
            watch.add(storm(watch.signal()));
            watch.changed(NEVER).await;
            let start = Instant::now();
            for _ in 0..4 {
                timeout(PATIENCE, watch.changed(NEVER)).await.unwrap();
            }
            assert!(start.elapsed() >= 4 * BETWEEN_LOOKS, "{:?}", start.elapsed());
        });
    }
}
