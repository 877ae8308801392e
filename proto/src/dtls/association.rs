//! One end of an association: from the first hello to the last alert.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Handshaking
//!     Handshaking --> Established: both Finished are right
//!     Handshaking --> Closed: refused, or silence for PATIENCE
//!     Established --> Closed: an alert, or closed by this end
//! ```
//!
//! While a handshake goes on, [`Association`] opens and seals by itself. Once it is established, the halves can go to
//! the workers: [`Association::outbound`] is shared, [`Association::take_inbound`] moves. A worker then hands in what
//! it opened that is no data, by [`Association::handle_opened`]; the association answers a repeated Finished, a wish to
//! renegotiate, and the end.
//!
//! A network may deliver records of epoch 1 before the messages that prove their sender. A few of them wait until those
//! have come; what they hold is told after [`Event::Established`].

use std::collections::VecDeque;
use std::mem;
use std::ops::Deref;
use std::time::{Duration, Instant};

use super::alert::{Alert, CLOSE_NOTIFY, Refusal};
use super::flight::{Flight, SMALLEST_DATAGRAM};
use super::greeting::Introduction;
use super::handshake::{Handshake, Setup, Step};
use super::message::{Fragment, Kind};
use super::reassembly::{Fate, Reassembly};
use super::record::{ContentType, DTLS_1_2, HEADER_LEN, Header, plain, split_first};
use super::sa::{EPOCH, Inbound, Outbound};
use super::secret::BothKeys;
use super::suite::CipherSuite;
use crate::drop_reason::DropReason;
use crate::role::Role;
use crate::sealing::aead::Aead;

/// How long a handshake may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Most records of epoch 1 that wait for the end of the handshake, and the longest of them, in bytes. The oldest gives
/// way: garbage that was sent first keeps nothing out.
const EARLY: usize = 8;
const LONGEST_EARLY: usize = 2048;

/// A shared [`Outbound`]: `Arc<Outbound<A>>`, or `Rc` in tests.
pub trait SharedOutbound<A>: Clone + From<Outbound<A>> + Deref<Target = Outbound<A>> {}

impl<A, H: Clone + From<Outbound<A>> + Deref<Target = Outbound<A>>> SharedOutbound<A> for H {}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Data can be sent and received.
    Established,
    /// Data came, and no worker has the inbound half.
    Data(Vec<u8>),
    /// It is over; nothing follows.
    Closed(Ending),
}

/// Why it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// This end closed it.
    Ours,
    /// The peer closed it.
    Theirs,
    /// The peer told of this fault (RFC 5246 section 7.2.2).
    Alerted(u8),
    /// The handshake could not go on.
    Refused(Refusal),
    /// The handshake was not answered in time.
    Silence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshaking { give_up: Instant },
    Established,
    Closed,
}

/// One end of an association.
pub struct Association<A, H> {
    role: Role,
    stage: Stage,
    handshake: Handshake,
    reassembly: Reassembly,
    flight: Option<Flight>,
    outbound: Option<H>,
    inbound: Option<Inbound<A>>,
    /// Records that have overtaken what makes the keys, or what proves the peer.
    early: VecDeque<Vec<u8>>,
    /// The number of the next record of epoch 0.
    sequence: u64,
    largest_datagram: usize,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl<A: Aead, H: SharedOutbound<A>> Association<A, H> {
    /// Begins as the client.
    pub fn client(setup: Setup, now: Instant) -> Self {
        let largest_datagram = setup.largest_datagram;
        let mut association = Self::new(Role::Client, Handshake::client(setup), largest_datagram, now);
        let step = association.handshake.begin();
        association.take_steps(vec![step], now);
        association
    }

    /// Begins as the server, with a client that the greeter introduced and whose session is known. The datagram that it
    /// was introduced by comes next, by [`Self::handle_datagram`].
    pub fn server(setup: Setup, introduction: &Introduction, now: Instant) -> Self {
        let largest_datagram = setup.largest_datagram;
        let mut association = Self::new(Role::Server, Handshake::server(setup, introduction), largest_datagram, now);
        association.reassembly = Reassembly::new(introduction.number);
        // So that no number comes twice whatever the greeter sent (RFC 6347 section 4.2.1).
        association.sequence = introduction.sequence;
        association
    }

    fn new(role: Role, handshake: Handshake, largest_datagram: usize, now: Instant) -> Self {
        Self {
            role,
            stage: Stage::Handshaking { give_up: now.checked_add(PATIENCE).unwrap_or(now) },
            handshake,
            reassembly: Reassembly::new(0),
            flight: None,
            outbound: None,
            inbound: None,
            early: VecDeque::new(),
            sequence: 0,
            largest_datagram: largest_datagram.max(SMALLEST_DATAGRAM),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a datagram from the peer; its records are opened in place. Those that cannot be are dropped.
    ///
    /// # Errors
    /// Why the first of them was.
    pub fn handle_datagram(&mut self, datagram: &mut [u8], now: Instant) -> Result<(), DropReason> {
        let (mut rest, mut outcome) = (datagram, Ok(()));
        while !rest.is_empty() {
            let (header, record, after) = match split_first(rest) {
                Ok(split) => split,
                Err(reason) => return outcome.and(Err(reason)),
            };
            let handled = match header.epoch {
                0 => self.handle_plain(header.content, record.get(HEADER_LEN..).unwrap_or_default(), now),
                EPOCH => self.handle_sealed(record, now),
                _ => Err(DropReason::UnknownEpoch),
            };
            outcome = outcome.and(handled);
            rest = after;
        }
        self.handle_early(now);
        outcome
    }

    /// Takes the records that came early, as far as their time has come, data last. Those that are none of the peer's
    /// are no fault of the datagram that came last.
    fn handle_early(&mut self, now: Instant) {
        if self.inbound.is_none() || self.early.is_empty() {
            return;
        }
        let mut records: Vec<_> = mem::take(&mut self.early).into();
        records.sort_by_key(|record| is_data(record));
        for mut record in records {
            self.handle_sealed(&mut record, now).ok();
        }
    }

    /// Whether a record of epoch 1 came too early: before the keys, or data before its sender is proven.
    fn is_early(&self, record: &[u8]) -> bool {
        matches!(self.stage, Stage::Handshaking { .. }) && (self.inbound.is_none() || is_data(record))
    }

    /// Nothing in the clear ends anything: only the handshake as a whole is proven, by its Finished messages.
    fn handle_plain(&mut self, content: ContentType, body: &[u8], now: Instant) -> Result<(), DropReason> {
        match (self.stage, content) {
            (Stage::Handshaking { .. }, ContentType::Handshake) => self.handle_fragments(0, body, now),
            // The epoch of the next record says the same.
            (_, ContentType::ChangeCipherSpec) => Ok(()),
            _ => Err(DropReason::UnknownEpoch),
        }
    }

    fn handle_sealed(&mut self, record: &mut [u8], now: Instant) -> Result<(), DropReason> {
        if self.is_early(record) {
            if record.len() > LONGEST_EARLY {
                return Err(DropReason::NotConnected);
            }
            if self.early.len() >= EARLY {
                self.early.pop_front();
            }
            self.early.push_back(record.to_vec());
            return Ok(());
        }
        let opened = self.inbound.as_mut().ok_or(DropReason::UnknownEpoch)?.open(record)?;
        self.handle_opened(opened.content, record.get(opened.range).unwrap_or_default(), now)
    }

    /// Takes what a record of epoch 1 held.
    ///
    /// # Errors
    /// [`DropReason::NotConnected`] for data before the association is established or after its end,
    /// [`DropReason::BadRecord`] for what is malformed.
    pub fn handle_opened(&mut self, content: ContentType, body: &[u8], now: Instant) -> Result<(), DropReason> {
        match (self.stage, content) {
            (Stage::Closed, _) => Err(DropReason::NotConnected),
            (_, ContentType::ChangeCipherSpec) => Ok(()),
            (_, ContentType::Alert) => self.handle_alert(Alert::parse(body).ok_or(DropReason::BadRecord)?),
            (Stage::Handshaking { .. }, ContentType::Handshake) => self.handle_fragments(EPOCH, body, now),
            (Stage::Handshaking { .. }, ContentType::ApplicationData) => Err(DropReason::NotConnected),
            (Stage::Established, ContentType::Handshake) => self.handle_late_handshake(body, now),
            (Stage::Established, ContentType::ApplicationData) => {
                self.events.push_back(Event::Data(body.to_vec()));
                Ok(())
            }
        }
    }

    fn handle_alert(&mut self, alert: Alert) -> Result<(), DropReason> {
        match alert.description {
            CLOSE_NOTIFY => self.end(Ending::Theirs),
            description if alert.is_fatal => self.end(Ending::Alerted(description)),
            _ => {}
        }
        Ok(())
    }

    /// A peer that repeats its Finished has not got ours; anything else is a renegotiation, which is declined (RFC 5246
    /// section 7.2.2).
    fn handle_late_handshake(&mut self, body: &[u8], now: Instant) -> Result<(), DropReason> {
        let (fragment, _) = Fragment::split_first(body).ok_or(DropReason::BadRecord)?;
        if fragment.kind == Kind::Finished {
            self.handle_repeated(now);
        } else {
            self.transmit_alert(Alert::NO_RENEGOTIATION);
        }
        Ok(())
    }

    fn handle_fragments(&mut self, epoch: u16, mut body: &[u8], now: Instant) -> Result<(), DropReason> {
        let mut is_repeated = false;
        while !body.is_empty() {
            let (fragment, rest) = Fragment::split_first(body).ok_or(DropReason::BadRecord)?;
            // Finished is the one message that is sealed.
            if (fragment.kind == Kind::Finished) != (epoch == EPOCH) {
                return Err(DropReason::UnknownEpoch);
            }
            is_repeated |= self.reassembly.handle_fragment(epoch, &fragment) == Fate::Repeated;
            body = rest;
        }
        while let Stage::Handshaking { .. } = self.stage
            && let Some(message) = self.reassembly.poll_message()
        {
            match self.handshake.handle_message(&message) {
                Ok(steps) => self.take_steps(steps, now),
                Err(refusal) => self.refuse(refusal),
            }
        }
        if is_repeated {
            self.handle_repeated(now);
        }
        Ok(())
    }

    fn handle_repeated(&mut self, now: Instant) {
        if self.flight.as_mut().is_some_and(|flight| flight.handle_repeated(now)) {
            self.transmit_flight();
        }
    }

    fn take_steps(&mut self, steps: Vec<Step>, now: Instant) {
        let has_last_word = steps.iter().any(|step| matches!(step, Step::Send(_)));
        for step in steps {
            match step {
                Step::Keys(keys) => {
                    if self.install(keys).is_none() {
                        return self.refuse(Refusal::NoKeys);
                    }
                }
                Step::Send(items) => {
                    self.flight = Some(Flight::new(items, now));
                    self.transmit_flight();
                }
                Step::Established => self.establish(has_last_word),
            }
        }
    }

    fn install(&mut self, keys: BothKeys) -> Option<()> {
        let BothKeys { client_to_server, server_to_client } = keys;
        let (outbound, inbound) = match self.role {
            Role::Client => (client_to_server, server_to_client),
            Role::Server => (server_to_client, client_to_server),
        };
        self.outbound = Some(Outbound::new(outbound).ok()?.into());
        self.inbound = Some(Inbound::new(inbound).ok()?);
        Some(())
    }

    /// Nothing answers the last flight of a handshake, so it is kept for a peer that shows that it did not get it. The
    /// other end forgets its own, or both would go on repeating themselves.
    fn establish(&mut self, has_last_word: bool) {
        self.stage = Stage::Established;
        self.reassembly.clear();
        self.flight = self.flight.take().filter(|_| has_last_word);
        if let Some(flight) = &mut self.flight {
            flight.expect_nothing();
        }
        self.events.push_back(Event::Established);
    }

    fn transmit_flight(&mut self) {
        let Some(flight) = &self.flight else { return };
        let outbound = self.outbound.as_deref();
        match flight.datagrams(&mut self.sequence, outbound, self.largest_datagram) {
            Ok(datagrams) => self.transmits.extend(datagrams),
            Err(refusal) => self.end(Ending::Refused(refusal)),
        }
    }

    /// Under the keys if there are any. An alert that cannot be sealed is not sent.
    fn transmit_alert(&mut self, alert: Alert) {
        let record = match &self.outbound {
            Some(outbound) => outbound.record(ContentType::Alert, &alert.encode()).ok(),
            None => {
                let sequence = self.sequence;
                self.sequence = self.sequence.saturating_add(1);
                Some(plain(ContentType::Alert, DTLS_1_2, sequence, &alert.encode()))
            }
        };
        self.transmits.extend(record);
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.transmit_alert(refusal.alert());
        self.end(Ending::Refused(refusal));
    }

    /// Closes the association, and tells the peer so if it is established.
    pub fn handle_close(&mut self) {
        if self.stage == Stage::Established {
            self.transmit_alert(Alert::CLOSE);
        }
        self.end(Ending::Ours);
    }

    fn end(&mut self, ending: Ending) {
        if self.stage != Stage::Closed {
            self.stage = Stage::Closed;
            (self.flight, self.inbound) = (None, None);
            self.early.clear();
            self.reassembly.clear();
            self.events.push_back(Event::Closed(ending));
        }
    }

    /// Sends again what was not answered, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Stage::Handshaking { give_up } = self.stage
            && give_up <= now
        {
            self.end(Ending::Silence);
        }
        if self.flight.as_mut().is_some_and(|flight| flight.handle_timeout(now)) {
            self.transmit_flight();
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Stage::Handshaking { give_up } = self.stage else { return None };
        let again_at = self.flight.as_ref().and_then(Flight::poll_timeout);
        Some(again_at.map_or(give_up, |at| at.min(give_up)))
    }

    /// The next datagram for the peer.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The suite, once the association is established.
    pub fn suite(&self) -> Option<CipherSuite> {
        self.outbound().map(|outbound| outbound.suite())
    }

    /// What seals data, once the association is established.
    pub fn outbound(&self) -> Option<&H> {
        self.outbound.as_ref().filter(|_| self.stage == Stage::Established)
    }

    /// Moves the half that opens data to its worker, once the association is established.
    pub fn take_inbound(&mut self) -> Option<Inbound<A>> {
        self.inbound.take_if(|_| self.stage == Stage::Established)
    }
}

/// Whether a record says that it holds data. That is authenticated with the rest of it.
fn is_data(record: &[u8]) -> bool {
    Header::parse(record).is_ok_and(|header| header.content == ContentType::ApplicationData)
}

#[cfg(test)]
mod tests;
