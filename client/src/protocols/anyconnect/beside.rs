//! What happens beside the channel of a connection: packets in records, and new keys by another connection that takes
//! its place.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::Carrier as _;
use adit_net::carrier::cstp::{ChannelEnd, Cstp, FollowedChannel};
use adit_net::http::h1::Shaken;
use adit_program::task::{self, Task};
use adit_proto::anyconnect::tunnel::settings::TunnelSettings;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use super::asker::{Asker, Granted};
use super::records::{Records, Terms};
use crate::protocols::data::DataPath;
use crate::protocols::stream::{FORMER, Moving};
use crate::protocols::{ConnectError, ConnectionEvent};

/// How often it is looked whether the records of the connection before have served their time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take until the gateway has what is under way when another connection takes over.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// How long the handshake of such a connection may take, and then the answer to its request.
const RENEWAL: Duration = Duration::from_secs(10);
/// How soon after a handshake that failed the next one begins.
const NEXT_RENEWAL: Duration = Duration::from_secs(60);

/// Why a connection is over.
pub(super) enum Ended {
    /// The channel is.
    Channel(ChannelEnd),
    /// The connection that was to take its place did not.
    Failed(ConnectError),
}

/// What becomes of a connection next.
pub(super) enum Next {
    /// It is over.
    Over(Ended),
    /// Its keys have served their time: this connection, whose handshake is done, is to take its place.
    TakeOver(Box<Shaken>),
}

/// What is followed beside the channel.
pub(super) struct BesideChannel {
    asker: Arc<Asker>,
    /// The gateway's address.
    remote: SocketAddr,
    records: Option<Records>,
    /// Those of the connection before, and since when they are.
    former: Option<(Instant, Records)>,
    /// The largest packet as it was told last, in bytes.
    told_mtu: u16,
    renewal: Renewal,
}

impl BesideChannel {
    /// Begins with the first tunnel of a session, which `asker` got there.
    pub(super) fn new(
        asker: Asker,
        remote: SocketAddr,
        settings: &TunnelSettings,
        terms: Option<Terms>,
        data: &Arc<DataPath>,
    ) -> Self {
        Self {
            asker: Arc::new(asker),
            remote,
            records: terms.and_then(|terms| Records::new(terms, remote, data)),
            former: None,
            told_mtu: data.mtu(),
            renewal: Renewal { due: Renewal::due(settings), shaking: None },
        }
    }

    /// The largest packet as it was told last, in bytes.
    pub(super) const fn told_mtu(&self) -> u16 {
        self.told_mtu
    }

    /// Follows the connection until it is over. What happens beside the channel must not put off what that waits for.
    pub(super) async fn follow(
        &mut self,
        channel: &mut FollowedChannel,
        data: &DataPath,
        events: &mpsc::Sender<ConnectionEvent>,
    ) -> Next {
        let mut over = pin!(channel.over());
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told_carrier = data.carrier();
        loop {
            tokio::select! {
                end = &mut over => return Next::Over(Ended::Channel(end)),
                () = turn(&mut self.records) => {}
                stream = self.renewal.connection(&self.asker, self.remote) => return Next::TakeOver(stream),
                _ = looks.tick() => drop(self.former.take_if(|(since, _)| since.elapsed() >= FORMER)),
            }
            let mtu = data.mtu();
            if std::mem::replace(&mut self.told_mtu, mtu) != mtu {
                let _reader_gone = events.send(ConnectionEvent::Mtu(mtu)).await;
            }
            let carrier = data.carrier();
            if std::mem::replace(&mut told_carrier, carrier) != carrier {
                let _reader_gone = events.send(ConnectionEvent::Carrier).await;
            }
        }
    }

    /// Has a connection take the place of the present one, of which these are the frames. Packets wait meanwhile, and
    /// those that are under way are not lost.
    pub(super) async fn take_over(
        &mut self,
        stream: Shaken,
        moving: &mut Moving<Cstp>,
        frames: mpsc::Receiver<Bytes>,
        known: &TunnelSettings,
    ) -> Result<(TunnelSettings, mpsc::Receiver<Bytes>), ConnectError> {
        let remote = self.remote;
        moving.carrier.pause();
        if let Some(records) = &mut self.records {
            records.pause(UNDER_WAY).await;
        }
        moving.carrier.delivered(UNDER_WAY).await;
        let asked = timeout(RENEWAL, self.asker.ask(stream, remote)).await;
        let silent = |_elapsed| Err(ConnectError::Unreachable(remote.to_string()));
        let Granted { settings, terms, connection } = asked.unwrap_or_else(silent)?;
        if is_another(&settings, known, self.asker.largest, moving.carrier.mtu()) {
            return Err(ConnectError::Closed("the gateway gives another tunnel than before".to_owned()));
        }
        let frames = moving.take_over(Cstp, connection, frames)?;
        tracing::debug!("new keys by a new connection");
        // What the old association still brings is opened until the new one takes its place.
        self.former = self.records.take().map(|records| (Instant::now(), records));
        self.records = terms.and_then(|terms| Records::new(terms, remote, &moving.data));
        self.renewal = Renewal { due: Renewal::due(&settings), shaking: None };
        Ok((settings, frames))
    }
}

/// When the next connection is made, and the one in the making.
struct Renewal {
    due: Option<Instant>,
    shaking: Option<Task<Result<(Shaken, SocketAddr), ConnectError>>>,
}

impl Renewal {
    /// Somewhat before the gateway wants it.
    fn due(settings: &TunnelSettings) -> Option<Instant> {
        settings.rekey.and_then(|rekey| Instant::now().checked_add(rekey - rekey / 10))
    }

    /// Makes the next connection when it is due, and returns it once its handshake is done. Cancel-safe.
    async fn connection(&mut self, asker: &Arc<Asker>, remote: SocketAddr) -> Box<Shaken> {
        loop {
            if let Some(shaking) = &mut self.shaking {
                let shaken = shaking.await;
                self.shaking = None;
                if let Ok(Ok((stream, _remote))) = shaken {
                    return Box::new(stream);
                }
                tracing::debug!("no new connection; the old keys are kept for now");
                self.due = Instant::now().checked_add(NEXT_RENEWAL);
            }
            let Some(due) = self.due else { return pending().await };
            sleep_until(due.into()).await;
            let asker = Arc::clone(asker);
            let shaking = async move { asker.shake(vec![remote].into(), RENEWAL).await };
            self.shaking = Some(task::spawn(shaking));
        }
    }
}

/// Whether a tunnel cannot take the place of one whose packets have `mtu` bytes at most. This end has packets of at
/// most `largest` bytes, so it does not matter by how much a gateway goes beyond that.
fn is_another(next: &TunnelSettings, known: &TunnelSettings, largest: u16, mtu: u16) -> bool {
    next.addresses() != known.addresses() || next.mtu.min(largest) < mtu
}

/// Does what is next in records, if there may be any.
async fn turn(records: &mut Option<Records>) {
    match records {
        Some(records) => records.turn().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::http::field::Field;

    use super::*;

    fn settings(address: &str, mtu: &str) -> TunnelSettings {
        TunnelSettings::of(&[Field::new("x-cstp-address", address), Field::new("x-cstp-mtu", mtu)]).unwrap()
    }

    #[test]
    fn tunnel_with_the_same_addresses_that_takes_as_large_packets_goes_on() {
        let known = settings("10.79.0.2", "1500");
        for (address, mtu, is_other) in [
            ("10.79.0.2", "1500", false),
            ("10.79.0.2", "1420", false),
            ("10.79.0.2", "1419", true),
            ("10.79.0.2", "9000", false),
            ("10.79.0.3", "1500", true),
        ] {
            assert_eq!(is_another(&settings(address, mtu), &known, 1420, 1420), is_other, "{address} {mtu}");
        }
    }
}
