//! The associations of one session, one after the other, at either end.
//!
//! A client that reconnects, or that came to another address, begins a new association while the present one still
//! carries its packets (RFC 6347 section 4.2.8). The present one goes on until the new one is established, which takes
//! its place; a new one that comes to nothing changes nothing.
//!
//! Each association leaves this host where it began: whoever sends a copy of a hello to another address of this host
//! would otherwise have the answers come from there, where the peer does not expect them. While a handshake goes on,
//! that is where its last message came; the last message of all proves the sender, and nothing changes it after that.

use std::net::SocketAddr;
use std::time::Instant;

use super::association::{Association, Ending, Event, SharedOutbound};
use super::greeting::Introduction;
use super::handshake::Setup;
use super::record::{ContentType, HEADER_LEN};
use super::sa::{EPOCH, Inbound};
use super::secret::RANDOM_LEN;
use crate::drop_reason::DropReason;
use crate::sealing::aead::Aead;

/// An association, and how it is known.
struct Member<A, H, O> {
    peer: SocketAddr,
    /// From where this host sends its datagrams.
    origin: O,
    /// The client's random, by which a repeated hello is known.
    random: [u8; RANDOM_LEN],
    association: Association<A, H>,
}

/// What happened to a session's associations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Data goes to this address from now on, by [`Succession::outbound`]; [`Succession::take_inbound`] has the other
    /// half.
    Established(SocketAddr),
    /// Data came, and no worker has the inbound half.
    Data(Vec<u8>),
    /// There is no association any more.
    Closed(Ending),
}

/// The present association of a session and the one in the making. `O` is what the shell calls the place that datagrams
/// leave from, if it has several.
pub struct Succession<A, H, O = ()> {
    present: Option<Member<A, H, O>>,
    next: Option<Member<A, H, O>>,
}

impl<A, H, O> Default for Succession<A, H, O> {
    fn default() -> Self {
        Self { present: None, next: None }
    }
}

impl<A: Aead, H: SharedOutbound<A>, O: Copy> Succession<A, H, O> {
    /// Begins an association as the client, in place of one in the making.
    pub fn begin(&mut self, peer: SocketAddr, origin: O, setup: Setup, now: Instant) {
        let random = setup.random;
        self.next = Some(Member { peer, origin, random, association: Association::client(setup, now) });
    }

    /// Whether an association is in the making.
    pub const fn is_beginning(&self) -> bool {
        self.next.is_some()
    }

    /// Takes the hello of a client that the greeter introduced as this session's, and that came to `origin`. A repeated
    /// one is known by its random; any other begins an association, in place of one in the making, with what `setup`
    /// makes.
    ///
    /// # Errors
    /// Why the datagram was dropped.
    pub fn handle_hello(
        &mut self,
        introduction: &Introduction,
        from: SocketAddr,
        origin: O,
        datagram: &mut [u8],
        setup: impl FnOnce() -> Setup,
        now: Instant,
    ) -> Result<(), DropReason> {
        let is_known = |member: &Option<Member<A, H, O>>| {
            member.as_ref().is_some_and(|member| member.random == introduction.random && member.peer == from)
        };
        if is_known(&self.present) {
            // It came late: the association that it began is long established.
            return Err(DropReason::UnknownEpoch);
        }
        if !is_known(&self.next) {
            let association = Association::server(setup(), introduction, now);
            self.next = Some(Member { peer: from, origin, random: introduction.random, association });
        }
        self.handle_datagram(datagram, from, origin, now)
    }

    /// Takes any other datagram that no worker opens, and that came to `origin`.
    ///
    /// # Errors
    /// Why it was dropped; [`DropReason::NotConnected`] if this session has no association with its sender.
    pub fn handle_datagram(
        &mut self,
        datagram: &mut [u8],
        from: SocketAddr,
        origin: O,
        now: Instant,
    ) -> Result<(), DropReason> {
        let [present, next] =
            [&mut self.present, &mut self.next].map(|member| member.as_mut().filter(|member| member.peer == from));
        match (present, next) {
            (None, None) => Err(DropReason::NotConnected),
            (Some(present), None) => present.association.handle_datagram(datagram, now),
            (None, Some(next)) => next.handle_handshake(datagram, origin, now),
            // A client that begins anew from the same address, or at the same gateway: what is sealed is of either.
            (Some(present), Some(next)) => {
                let mut copy = datagram.to_vec();
                if is_sealed(datagram) && present.association.handle_datagram(&mut copy, now).is_ok() {
                    return Ok(());
                }
                next.handle_handshake(datagram, origin, now)
            }
        }
    }

    /// Takes what a worker opened of the present association and is no data.
    ///
    /// # Errors
    /// As [`Association::handle_opened`].
    pub fn handle_opened(&mut self, content: ContentType, body: &[u8], now: Instant) -> Result<(), DropReason> {
        let present = self.present.as_mut().ok_or(DropReason::NotConnected)?;
        present.association.handle_opened(content, body, now)
    }

    /// Closes what there is.
    pub fn handle_close(&mut self) {
        self.members().for_each(|member| member.association.handle_close());
    }

    /// Sends again what was not answered, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.members().for_each(|member| member.association.handle_timeout(now));
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let members = [&self.present, &self.next].into_iter().flatten();
        members.filter_map(|member| member.association.poll_timeout()).min()
    }

    /// The next datagram, where it goes, and from where.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, O, Vec<u8>)> {
        self.members().find_map(|member| Some((member.peer, member.origin, member.association.poll_transmit()?)))
    }

    /// What happened next. To be called when [`Self::poll_transmit`] has nothing more.
    pub fn poll_change(&mut self) -> Option<Change> {
        if let Some(next) = &mut self.next {
            match next.association.poll_event() {
                Some(Event::Established) => {
                    let peer = next.peer;
                    self.present = self.next.take();
                    return Some(Change::Established(peer));
                }
                Some(Event::Closed(ending)) => {
                    self.next = None;
                    if self.present.is_none() {
                        return Some(Change::Closed(ending));
                    }
                }
                // Before it is established it has no data.
                Some(Event::Data(_)) | None => {}
            }
        }
        match self.present.as_mut()?.association.poll_event()? {
            Event::Data(data) => Some(Change::Data(data)),
            Event::Closed(ending) => {
                self.present = None;
                Some(Change::Closed(ending))
            }
            Event::Established => None,
        }
    }

    /// From where data for the peer leaves.
    pub fn origin(&self) -> Option<O> {
        self.present.as_ref().map(|present| present.origin)
    }

    /// What seals data for the peer.
    pub fn outbound(&self) -> Option<&H> {
        self.present.as_ref()?.association.outbound()
    }

    /// Moves the half that opens data to its worker.
    pub fn take_inbound(&mut self) -> Option<Inbound<A>> {
        self.present.as_mut()?.association.take_inbound()
    }

    fn members(&mut self) -> impl Iterator<Item = &mut Member<A, H, O>> {
        [&mut self.present, &mut self.next].into_iter().flatten()
    }
}

impl<A: Aead, H: SharedOutbound<A>, O> Member<A, H, O> {
    /// Takes a datagram of a handshake; what follows leaves from where it came.
    fn handle_handshake(&mut self, datagram: &mut [u8], origin: O, now: Instant) -> Result<(), DropReason> {
        self.association.handle_datagram(datagram, now)?;
        self.origin = origin;
        Ok(())
    }
}

/// Whether the first record of a datagram is of epoch 1.
fn is_sealed(datagram: &[u8]) -> bool {
    let epoch = datagram.first_chunk::<HEADER_LEN>().map(|[_, _, _, high, low, ..]| u16::from_be_bytes([*high, *low]));
    epoch == Some(EPOCH)
}

#[cfg(test)]
mod tests;
