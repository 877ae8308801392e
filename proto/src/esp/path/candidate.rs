//! An address that may become the session's.

use std::net::SocketAddr;

use super::series::Series;

/// How many times the bytes that came from an address may go there before it is validated (RFC 9000 section 8.1).
const AMPLIFICATION: u64 = 3;

/// An address from which the newest packet came, and the probe that validates it.
pub(super) struct Candidate {
    pub(super) address: SocketAddr,
    pub(super) series: Series,
    received: u64,
    sent: u64,
}

impl Candidate {
    pub(super) fn new(address: SocketAddr, received: usize, series: Series) -> Self {
        Self { address, series, received: received as u64, sent: 0 }
    }

    pub(super) const fn handle_received(&mut self, len: usize) {
        self.received = self.received.saturating_add(len as u64);
    }

    /// Counts `len` bytes as sent, if they still may be.
    pub(super) fn spend(&mut self, len: u64) -> bool {
        let sent = self.sent.saturating_add(len);
        let permitted = sent <= self.received.saturating_mul(AMPLIFICATION);
        if permitted {
            self.sent = sent;
        }
        permitted
    }
}
