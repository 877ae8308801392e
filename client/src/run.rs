//! Sessions: keeps one gateway connected for as long as wanted, with or without configuring the host.
//!
//! [`ClientSession`] is the library's front door. It works with any
//! [`PacketSource`](crate::packet_source::PacketSource), so a phone's VPN service or a test can embed it; such packets
//! are carried by `quic`, or by `tls`:
//!
//! ```no_run
//! use std::sync::Arc;
//! use adit_client::packet_source::{PacketSource, Packets};
//! use adit_client::profile::Profile;
//! use adit_client::run::{ClientSession, SessionConfig};
//!
//! # async fn example(profile: Profile, packets: Arc<dyn PacketSource>) -> Result<(), adit_program::exit::Failure> {
//! let session = ClientSession::start(SessionConfig {
//!     profile,
//!     packets: Packets::Embedder(packets),
//!     host: None,
//!     patience: None,
//!     mark: None,
//!     store: None,
//!     networks: None,
//! });
//! let mut snapshots = session.snapshots();
//! while snapshots.changed().await.is_ok() {
//!     let snapshot = snapshots.borrow_and_update().clone();
//!     println!("{}: {:?}", snapshot.state, snapshot.network);
//! }
//! session.wait().await
//! # }
//! ```

mod driver;
mod event;
mod protocol;
mod renewal;
mod status;
mod way_out;

use std::sync::Arc;
use std::time::Duration;

use adit_program::exit::{Exit, Failure};
use adit_program::task::{self, Task};
use adit_proto::packet::IPV6_MIN_MTU;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::host_plan::HostHooks;
use crate::network_memory::NetworkMemory;
use crate::packet_source::Packets;
use crate::profile::{GatewayProtocol, Profile, ProfileStore};
use crate::protocols::NetworkSettings;
use crate::state::State;
use driver::{Driver, SleepClock, since_boot};

pub use event::{Standing, StatusEvent};
pub use status::{Status, StatusCounters};

/// Commands that may wait for a session; senders wait when it is full.
const COMMAND_QUEUE: usize = 16;

/// What a session needs.
pub struct SessionConfig {
    /// The gateway and this device's proof.
    pub profile: Profile,
    /// Where inner packets come from and go to, and who moves them.
    pub packets: Packets,
    /// What configures the host; `None` leaves it as it is, and the embedder finds the settings in
    /// [`Snapshot::network`].
    pub host: Option<Box<dyn HostHooks>>,
    /// How long the first connection may take to come about; `None` tries for ever.
    pub patience: Option<Duration>,
    /// Mark (SO_MARK) of the outer sockets; needs CAP_NET_ADMIN. Use the value of the mark that
    /// [`ManagedHost`](crate::host_plan::managed::ManagedHost) knows.
    pub mark: Option<u32>,
    /// Where renewed certificates and working addresses are saved, and where the user's login is; `None` keeps them in
    /// memory, and does without a login.
    pub store: Option<ProfileStore>,
    /// What remembers which networks block UDP; `None` finds it out each time.
    pub networks: Option<Arc<dyn NetworkMemory>>,
}

/// What an embedder needs to know at each change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The state of the life cycle.
    pub state: State,
    /// What the gateway gave, from the first connection on.
    pub network: Option<NetworkSettings>,
    /// Largest packet the carrier takes, in bytes.
    pub mtu: u16,
}

/// A running session; dropping it aborts it without undoing host changes, so [`SessionHandle::stop`] it.
#[derive(Debug)]
pub struct ClientSession {
    handle: SessionHandle,
    snapshots: watch::Receiver<Snapshot>,
    task: Task<Result<(), Failure>>,
}

impl ClientSession {
    /// Starts to connect, over UDP where that passes, else over TLS and TCP. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(config: SessionConfig) -> Self {
        match config.profile.protocol {
            GatewayProtocol::ConnectIp => {
                let networks = config.networks.clone();
                Self::start_with(config, protocol::ConnectIp { networks })
            }
            GatewayProtocol::AnyConnect => Self::start_with(config, protocol::AnyConnect),
        }
    }

    /// As [`Self::start`], over UDP alone.
    #[must_use]
    pub fn start_over_udp(config: SessionConfig) -> Self {
        match config.profile.protocol {
            GatewayProtocol::ConnectIp => Self::start_with(config, protocol::ConnectIpOverUdp),
            GatewayProtocol::AnyConnect => Self::start_with(config, protocol::AnyConnect),
        }
    }

    /// As [`Self::start`], over TLS and TCP alone.
    #[must_use]
    pub fn start_over_tls(config: SessionConfig) -> Self {
        match config.profile.protocol {
            GatewayProtocol::ConnectIp => Self::start_with(config, protocol::ConnectIpOverTls),
            GatewayProtocol::AnyConnect => Self::start_with(config, protocol::AnyConnect),
        }
    }

    fn start_with<P: protocol::Protocol>(config: SessionConfig, protocol: P) -> Self {
        Self::start_by(config, protocol, Box::new(since_boot))
    }

    /// As [`Self::start_with`], by this clock.
    fn start_by<P: protocol::Protocol>(config: SessionConfig, protocol: P, clock: SleepClock) -> Self {
        let (commands, received) = mpsc::channel(COMMAND_QUEUE);
        let first = Snapshot { state: State::Disconnected, network: None, mtu: IPV6_MIN_MTU };
        let (publish, snapshots) = watch::channel(first);
        let task = task::spawn(Driver::new(config, protocol, received, publish, clock).run());
        Self { handle: SessionHandle { commands }, snapshots, task }
    }

    /// A handle for asking and stopping the session from elsewhere.
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }

    /// State, network settings and MTU, at each change. Closed when the session has ended.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// Waits for the session's end.
    ///
    /// # Errors
    /// Why the first connection could not be made, or what could not be undone on the host.
    pub async fn wait(self) -> Result<(), Failure> {
        self.task.await.unwrap_or_else(|error| {
            Err(Failure::new(Exit::Other, "session", error.to_string(), "this is a bug; please report it"))
        })
    }
}

/// Asks and stops a session.
#[derive(Debug, Clone)]
pub struct SessionHandle {
    commands: mpsc::Sender<Command>,
}

impl SessionHandle {
    /// Everything about the session now; `None` once it has ended.
    pub async fn status(&self) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Status(answer)).await.ok()?;
        answered.await.ok()
    }

    /// How the session stands now, and each change of that from now on; `None` once it has ended. After its last event,
    /// which has an exit code, the receiver is closed.
    pub async fn follow(&self) -> Option<(StatusEvent, broadcast::Receiver<StatusEvent>)> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Follow(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Says that a user has logged in, and that the store has the new login.
    pub async fn logged_in(&self) {
        // A session that has ended reads it when it starts again.
        self.commands.send(Command::LoggedIn).await.ok();
    }

    /// Says goodbye to the gateway and undoes host changes; [`ClientSession::wait`] returns when that is done.
    pub async fn stop(&self) {
        // A session that has ended needs no stop.
        self.commands.send(Command::Stop).await.ok();
    }
}

/// What a handle asks of a session.
#[derive(Debug)]
enum Command {
    Status(oneshot::Sender<Status>),
    Follow(oneshot::Sender<(StatusEvent, broadcast::Receiver<StatusEvent>)>),
    LoggedIn,
    Stop,
}
