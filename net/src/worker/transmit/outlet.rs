//! Where a worker's datagrams leave: its sockets, and how long it waits for one that is full.

use std::sync::Arc;
use std::time::Instant;

use adit_proto::queue::patience::Patience;

use crate::udp::DatagramSocket;

/// The sockets of one worker together with its patience for those that are full.
pub(in crate::worker) struct Outlet<D> {
    pub(in crate::worker) sockets: Vec<Arc<D>>,
    pub(in crate::worker) patience: Patience,
    /// What says how long a full socket was waited for; read only where one is full.
    pub(in crate::worker) clock: fn() -> Instant,
}

/// What became of datagrams, or of a packet, that were to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(in crate::worker) enum SendOutcome {
    /// Nothing of them is left: the kernel took them, or they are lost and were counted as dropped.
    Finished,
    /// A socket is full. What it did not take is where it was, and is sent again later.
    SocketFull,
}

impl<D: DatagramSocket> Outlet<D> {
    pub(in crate::worker) fn new(sockets: Vec<Arc<D>>) -> Self {
        Self { sockets, patience: Patience::default(), clock: Instant::now }
    }
}
