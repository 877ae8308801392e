//! Sessions on a connection over TCP that a front-end has taken over: what the core knows of the connection, and what
//! moves its frames meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_net::carrier::Carrier;
use adit_net::carrier::counters::Counters;
use adit_net::carrier::stream::{Framing, Pump, StreamCarrier};
use adit_net::packet_buffer::PacketBuffer;
use adit_program::task::{self, Task};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use crate::core::sessions::{About, Closing, Connection, Ending};
use crate::listener::{Caller, CallerStream};

/// How long a client of a byte stream may leave unread what is no packet. A path that loses much keeps TCP waiting for
/// some seconds.
pub(super) const UNREAD: Duration = Duration::from_secs(15);
/// How long a client may leave the last words unread.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long what a client sent on a connection may be under way after it has left that.
const UNDER_WAY: Duration = Duration::from_secs(3);
/// Pieces of frames that may wait for the front-end, each as much as is read at a time.
const FRAMES: usize = 4;

/// What a front-end says on a stream.
pub(super) trait StreamProtocol: Framing {
    /// The front-end's name.
    const FRONT_END: &'static str;

    /// Whether clients leave a connection for another one of the same session.
    const IS_LEFT: bool = false;

    /// The last words to a client whose session the gateway ends for this reason, where the protocol has any.
    fn farewell(ending: Ending) -> Option<Bytes>;
}

/// The connection of one session.
pub(super) struct StreamConnection<F> {
    /// What carries its frames.
    pub(super) carrier: Arc<StreamCarrier<F>>,
    cipher: Option<&'static str>,
    client: Option<String>,
    group: Option<String>,
    is_closed: AtomicBool,
    /// Told when the client has left it for another one.
    retired: Notify,
}

impl<F: StreamProtocol> StreamConnection<F> {
    /// The connection of a caller that gets packets of at most `mtu` bytes.
    pub(super) fn new(caller: &Caller, mtu: u16) -> Self {
        let cipher = caller.suite.and_then(|suite| suite.as_str());
        let carrier = StreamCarrier::new(caller.address, mtu);
        let (is_closed, retired) = (AtomicBool::new(false), Notify::new());
        Self { carrier, cipher, client: None, group: None, is_closed, retired }
    }

    /// Waits until the client has left it for another one, and a little longer, for what is under way.
    pub(super) async fn left(&self) {
        self.retired.notified().await;
        sleep(UNDER_WAY).await;
    }

    /// The same, of a client that calls itself so, whose user has chosen this group.
    pub(super) fn of(self, client: Option<String>, group: Option<String>) -> Self {
        Self { client, group, ..self }
    }
}

impl<F: StreamProtocol> Carrier for StreamConnection<F> {
    fn name(&self) -> &'static str {
        self.carrier.name()
    }

    fn mtu(&self) -> u16 {
        self.carrier.mtu()
    }

    fn counters(&self) -> &Arc<Counters> {
        self.carrier.counters()
    }

    fn send(&self, packets: &mut Vec<PacketBuffer>) {
        self.carrier.send(packets);
    }
}

impl<F: StreamProtocol> Connection for StreamConnection<F> {
    fn remote(&self) -> SocketAddr {
        self.carrier.remote()
    }

    fn about(&self) -> About<'_> {
        About { front_end: F::FRONT_END, cipher: self.cipher, client: self.client.as_deref() }
    }

    fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    fn retire(&self, ending: Ending) {
        if F::IS_LEFT {
            self.retired.notify_one();
        } else {
            self.close(ending);
        }
    }
}

impl<F: StreamProtocol> Closing for StreamConnection<F> {
    fn close(&self, ending: Ending) {
        // The core may close it as a session and as a connection of its device; only the first reason is told.
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(words) = F::farewell(ending) {
            self.carrier.queue(&words);
        }
        self.carrier.close();
    }
}

/// Moves the frames of a connection; dropping it ends the connection.
pub(super) struct Running<F> {
    carrier: Arc<StreamCarrier<F>>,
    pump: Task<std::io::Result<()>>,
}

impl<F: StreamProtocol> Running<F> {
    /// Begins with what was read already. Packets go to `deliver`, which empties the vector; pieces of all else come
    /// out of the receiver, which ends with the connection. `None`, with a word in the log, if it cannot be set up.
    pub(super) fn start(
        connection: &StreamConnection<F>,
        framing: F,
        (stream, early): (CallerStream, Bytes),
        deliver: impl FnMut(&mut Vec<Bytes>) + Send + 'static,
    ) -> Option<(Self, mpsc::Receiver<Bytes>)> {
        let carrier = Arc::clone(&connection.carrier);
        let (others, frames) = mpsc::channel(FRAMES);
        match Pump::new(Arc::clone(&carrier), framing, stream.into_inner(), &early, deliver, others) {
            Ok(pump) => Some((Self { carrier, pump: task::spawn(pump.run()) }, frames)),
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be set up for packets");
                None
            }
        }
    }

    /// Ends the connection once the last words are sent.
    pub(super) fn close(&self) {
        self.carrier.close();
    }

    /// Waits until a connection that was closed is over, or its client has not read the last words for too long.
    pub(super) async fn over(self) {
        match timeout(FAREWELL, self.pump).await {
            Ok(Ok(Err(error))) => tracing::debug!(%error, "a connection failed"),
            Ok(_ended) => {}
            Err(_elapsed) => tracing::debug!("a client does not hear that its tunnel has ended"),
        }
    }
}
