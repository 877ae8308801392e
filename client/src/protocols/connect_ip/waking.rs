//! Asks the gateway, after this host slept, whether it still knows the connection.

use std::future::pending;
use std::time::{Duration, Instant};

use adit_net::quic::IDLE_TIMEOUT;
use adit_proto::waking::{Awakening, WakeEvent};
use tokio::sync::mpsc;

/// The sleeps of one connection's host, and what they lead to.
pub(super) struct Sleeps {
    machine: Awakening,
    sleeps: mpsc::Receiver<Duration>,
}

impl Sleeps {
    /// Hears of each sleep how long it lasted.
    pub(super) const fn new(sleeps: mpsc::Receiver<Duration>) -> Self {
        Self { machine: Awakening::new(IDLE_TIMEOUT), sleeps }
    }

    /// Waits until there is something to do about a connection. Cancel-safe.
    pub(super) async fn next_event(&mut self, quic: &quinn::Connection) -> WakeEvent {
        loop {
            if let Some(event) = self.machine.poll_event() {
                return event;
            }
            let due = self.machine.poll_timeout();
            tokio::select! {
                Some(slept) = self.sleeps.recv() => self.machine.handle_wake(slept, quic.rtt(), now()),
                () = until(due) => self.machine.handle_timeout(quic.stats().udp_rx.datagrams, now()),
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => pending().await,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
