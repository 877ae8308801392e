//! The driver's part that notices that the host slept, or that this program was stopped, and acts at once.

use std::sync::Arc;
use std::time::Duration;

use adit_program::task::{self, Task};
use adit_proto::waking::{LOOK_EVERY, SleepWatch};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, mpsc};

use super::{Driver, OpenConnection, Protocol, now};

/// The time since the boot of the host, by a clock that counts sleep.
pub(in crate::run) type SleepClock = Box<dyn Fn() -> Duration + Send>;

/// That of the system.
pub(in crate::run) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock since 2.6.39").into()
}

/// Looks for sleep, in a task of its own that nothing else holds up.
pub(super) struct SleepAlarm {
    looks: Arc<Notify>,
    woke: mpsc::Receiver<Duration>,
    _looking: Task,
}

impl SleepAlarm {
    pub(super) fn start(clock: SleepClock) -> Self {
        // One sleep may wait to be told; nobody needs to hear of a second one then.
        let (tell, woke) = mpsc::channel(1);
        let looks = Arc::new(Notify::new());
        let looking = look(clock, Arc::clone(&looks), tell);
        Self { looks, woke, _looking: task::spawn(looking) }
    }

    /// Has it look now: the system says that something happened.
    pub(super) fn look(&self) {
        self.looks.notify_one();
    }

    /// Waits until the host woke, and returns how long it slept. Cancel-safe.
    pub(super) async fn woke(&mut self) -> Duration {
        self.woke.recv().await.expect("the task that looks never ends")
    }
}

async fn look(clock: SleepClock, looks: Arc<Notify>, tell: mpsc::Sender<Duration>) {
    let mut watch = SleepWatch::new(clock());
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = looks.notified() => {}
        }
        if let Some(slept) = watch.handle_look(clock()) {
            // Where one waits already, the driver is about to act.
            tell.try_send(slept).ok();
        }
    }
}

impl<P: Protocol> Driver<P> {
    /// The host woke: what was waited for may be long over, by the clocks of everybody else.
    pub(super) fn handle_wake(&mut self, slept: Duration) {
        tracing::info!(seconds = slept.as_secs(), "this host slept, or this program was stopped");
        // Both go by the wall clock, which went on.
        self.look_at_login();
        self.next_renewal_check = self.next_renewal_check.map(|_| now());
        if let Some(connection) = &mut self.connection {
            connection.handle_wake(slept);
        }
        self.life.handle_wake(now());
    }
}
