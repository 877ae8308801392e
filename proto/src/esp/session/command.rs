//! What goes into an [`super::EspSession`] and what it wants done: plain data.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::esp::capsule::Group;
use crate::esp::field::Answer;
use crate::esp::keys::{DirectionKeys, SECRET_LEN};
use crate::esp::lifetime::RekeyPolicy;
use crate::esp::path::SEED_LEN;
use crate::esp::probe::Probe;
use crate::esp::sa::Acceptance;
use crate::esp::spi::Spi;
use crate::role::Role;

/// What both ends need to begin.
pub struct Setup<'a> {
    /// What was negotiated.
    pub negotiated: Answer,
    /// The secret of the connection, erased when taken.
    pub secret: &'a mut [u8; SECRET_LEN],
    /// When this end's keys are replaced.
    pub policy: RekeyPolicy,
    /// The largest packet that may be sent, whatever the path takes, in bytes.
    pub largest_packet: u16,
    /// Secret and random.
    pub seed: [u8; SEED_LEN],
}

/// What a worker tells of authenticated packets. `O` says where on this host they arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<O> {
    /// The epoch of the SA.
    pub epoch: u32,
    /// Where they came from.
    pub from: SocketAddr,
    /// Where they arrived.
    pub origin: O,
    /// Bytes of the datagrams.
    pub len: usize,
    /// Whether one of them has the highest sequence number so far.
    pub newest: bool,
    /// The probe in it.
    pub probe: Option<Probe>,
}

/// What the packet path wants the control side to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints {
    /// Packets were sent by ESP since the last proof of its path.
    pub sent: bool,
    /// Something hints that the path is broken.
    pub doubt: bool,
    /// The smallest datagram, in bytes, that the system refused as larger than the path takes.
    pub too_big: Option<u16>,
    /// An inbound SA refused so much that new keys are wanted.
    pub rekey: bool,
}

/// How packets are sent by ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<H, O> {
    /// What seals them.
    pub sa: H,
    /// The peer's validated address.
    pub to: SocketAddr,
    /// Where they leave this host: where packets from that address arrive. `None` if none came from there yet.
    pub origin: Option<O>,
    /// Largest packet that fits a datagram on this path, in bytes.
    pub mtu: u16,
    /// Whether the peer takes packets with partial checksums.
    pub vouched: bool,
    /// Whether datagrams bear the ECN marks of their packets.
    pub marked: bool,
}

/// What the owner has to do. `H` is its handle on an outbound SA, `O` its name for where a datagram leaves.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<H, O> {
    /// Choose an index and make a share of `group`, then call [`super::EspSession::handle_prepared`].
    Prepare {
        /// The key exchange, if the epoch has one.
        group: Option<Group>,
        /// The client's share, if this end is the server.
        peer_share: Option<Bytes>,
    },
    /// Finish the key exchange, hand its secret to [`super::EspSession::handle_secret`], make the SAs, give the inbound
    /// one to its worker, then call [`super::EspSession::handle_installed`].
    Install {
        /// The share of the peer.
        peer_share: Bytes,
    },
    /// Drop the inbound SA of this index, if there is one yet, and give the index back.
    Retire(Spi),
    /// Send packets so from now on; `None`: not by ESP.
    SetRoute(Option<Route<H, O>>),
    /// Send a datagram with a probe. If the system says that it is too large, call
    /// [`super::EspSession::handle_refused`].
    Send {
        /// Where to.
        to: SocketAddr,
        /// Where it leaves this host; `None` if no packet came from `to` yet.
        origin: Option<O>,
        /// The datagram.
        datagram: Vec<u8>,
        /// The ECN bits of its IP header.
        ecn: u8,
    },
    /// The path was proven: the next packet sent is worth a signal again.
    ListenForSent,
    /// Something changed that is worth telling.
    Tell(Change),
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Packets are sealed with the keys of this epoch from now on.
    NewKeys {
        /// The epoch.
        epoch: u32,
    },
    /// The path came up.
    Up(SocketAddr),
    /// The path leads to another address.
    Moved(SocketAddr),
    /// The path went down.
    Down,
    /// The path takes datagrams of so many bytes.
    Size(u16),
    /// The path takes no datagrams that are large enough.
    TooNarrow,
    /// The path passes ECN marks, or drops what bears them.
    Marks(bool),
}

/// What the SA of one direction is made from.
pub struct SaKeys {
    /// The index of who receives.
    pub spi: Spi,
    /// The keys.
    pub keys: DirectionKeys,
}

/// What the two SAs of an epoch are made from.
pub struct NewSas {
    /// The epoch.
    pub epoch: u32,
    /// What the client sends.
    pub client_to_server: SaKeys,
    /// What the server sends.
    pub server_to_client: SaKeys,
    /// What the inbound one accepts.
    pub accept: Acceptance,
    pub(super) role: Role,
}

impl NewSas {
    /// The keys of this end's inbound SA, then those of its outbound one.
    pub fn into_inbound_and_outbound(self) -> (SaKeys, SaKeys) {
        match self.role {
            Role::Client => (self.server_to_client, self.client_to_server),
            Role::Server => (self.client_to_server, self.server_to_client),
        }
    }
}
