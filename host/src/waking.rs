//! Says that the host is about to sleep or has woken, where logind puts it to sleep.
//!
//! Whoever looks at its clocks finds out without that, but only with the next look, up to a second later.

use std::future::pending;
use std::time::Duration;

use futures::StreamExt;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream};

use crate::changes::HostChanges;
use crate::dns::{SystemBus, connect};
use crate::guard::Signal;

const LOGIND: &str = "org.freedesktop.login1";
const OBJECT: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
/// Comes before the host sleeps, and once it woke.
const SLEEPS: &str = "PrepareForSleep";
/// Pause before a bus is tried again that cannot be heard.
const RETRY: Duration = Duration::from_secs(5);

impl HostChanges {
    /// From now on [`Self::changed`] returns, too, when logind says that the host woke.
    pub fn listen_for_waking(&mut self) {
        let following = follow_logind(self.options.bus.clone(), self.watch.signal());
        self.watch.add(following);
    }
}

async fn follow_logind(bus: SystemBus, signal: Signal) {
    if bus == SystemBus::Absent {
        return pending().await;
    }
    loop {
        if let Some(connection) = connect(&bus).await
            && let Err(error) = follow_bus(&connection, &signal).await
        {
            tracing::debug!(%error, "logind cannot be heard");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Returns when the connection ends.
async fn follow_bus(connection: &Connection, signal: &Signal) -> zbus::Result<()> {
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(LOGIND);
    let rule = rule.path(OBJECT).interface(MANAGER).member(SLEEPS).build()?;
    let mut sleeps = MessageStream::for_match_rule(rule, connection, None).await?;
    while let Some(message) = sleeps.next().await {
        drop(message?);
        signal.raise();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use adit_testing::PATIENCE;
    use tokio::time::timeout;
    use zbus::conn;

    use super::*;
    use crate::guard::HostWatch;
    use crate::test_bus::FakeResolved;

    /// Longer than any test waits.
    const NEVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn waking_is_heard_from_logind_and_from_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let Some(bus) = FakeResolved::start(directory.path()).await else { return };
        let [logind, stranger] = [connected(&bus.address).await, connected(&bus.address).await];
        logind.request_name(LOGIND).await.unwrap();
        // The kernel's own events would be heard, too.
        let mut watch = HostWatch::deaf();
        watch.add(follow_logind(SystemBus::Address(bus.address.clone()), watch.signal()));
        let woke = async |from: &Connection| from.emit_signal(None::<&str>, OBJECT, MANAGER, SLEEPS, &false).await;
        // It is not heard before the watch has its match on the bus.
        let heard = async {
            while timeout(Duration::from_millis(500), watch.changed(NEVER)).await.is_err() {
                woke(&logind).await.unwrap();
            }
        };
        timeout(PATIENCE, heard).await.unwrap();
        while timeout(Duration::from_millis(500), watch.changed(NEVER)).await.is_ok() {}
        woke(&stranger).await.unwrap();
        assert!(timeout(Duration::from_secs(1), watch.changed(NEVER)).await.is_err(), "it is no word of logind");
        woke(&logind).await.unwrap();
        timeout(PATIENCE, watch.changed(NEVER)).await.unwrap();
    }

    async fn connected(address: &str) -> Connection {
        conn::Builder::address(address).build().await.unwrap()
    }
}
