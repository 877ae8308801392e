//! Follows one tunnel until it ends: what comes on its stream, what its machine has to send, and the ESP carrier beside
//! it.
//!
//! Gateway, client and load generator differ only in what they do with an event. [`Following`] is what they share.

#[cfg(test)]
mod tests;

use std::future::pending;
use std::time::{Duration, Instant};

use adit_proto::connect_ip::client::{Client, ClientEvent};
use adit_proto::connect_ip::server::{Server, ServerEvent};
use adit_proto::esp::capsule::EspCapsule;
use adit_proto::http::fault::Fault;
use adit_proto::http::h3::message::MessageEvent;
use tokio::time::{sleep_until, timeout_at};

use super::Carried;
use super::esp::{EspControl, EspError};
use crate::http::StreamError;
use crate::http::stream::TunnelStream;

/// One end of a tunnel without I/O: takes the content of the stream, and has capsules to send and events to tell.
pub trait TunnelMachine {
    /// What it tells its owner.
    type Event;

    /// Takes content of the peer's message.
    ///
    /// # Errors
    /// What is wrong with it; the tunnel ends.
    fn handle_data(&mut self, data: &[u8]) -> Result<(), Fault>;

    /// Takes the end of the peer's message.
    ///
    /// # Errors
    /// If it came too early.
    fn handle_end(&mut self) -> Result<(), Fault>;

    /// Tells the time, when [`Self::poll_timeout`] asked for it.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`Self::handle_timeout`] must be called.
    fn poll_timeout(&self) -> Option<Instant>;

    /// What the peer sent, in order.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// Content to send, in order.
    fn poll_transmit(&mut self) -> Option<Vec<u8>>;

    /// Queues a capsule of the ESP carrier for [`Self::poll_transmit`].
    fn send_esp(&mut self, capsule: EspCapsule);

    /// The capsule of the ESP carrier in an event.
    ///
    /// # Errors
    /// The event, if it is about something else.
    fn esp_capsule(event: Self::Event) -> Result<EspCapsule, Self::Event>;
}

impl TunnelMachine for Client {
    type Event = ClientEvent;

    fn handle_data(&mut self, data: &[u8]) -> Result<(), Fault> {
        Self::handle_data(self, data)
    }

    fn handle_end(&mut self) -> Result<(), Fault> {
        Self::handle_end(self)
    }

    fn handle_timeout(&mut self, now: Instant) {
        Self::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Self::poll_timeout(self)
    }

    fn poll_event(&mut self) -> Option<ClientEvent> {
        Self::poll_event(self)
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        Self::poll_transmit(self)
    }

    fn send_esp(&mut self, capsule: EspCapsule) {
        Self::send_esp(self, capsule);
    }

    fn esp_capsule(event: ClientEvent) -> Result<EspCapsule, ClientEvent> {
        if let ClientEvent::Esp(capsule) = event { Ok(capsule) } else { Err(event) }
    }
}

impl TunnelMachine for Server {
    type Event = ServerEvent;

    fn handle_data(&mut self, data: &[u8]) -> Result<(), Fault> {
        Self::handle_data(self, data)
    }

    fn handle_end(&mut self) -> Result<(), Fault> {
        Self::handle_end(self)
    }

    /// The gateway's end has no deadline of its own.
    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<ServerEvent> {
        Self::poll_event(self)
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        Self::poll_transmit(self)
    }

    fn send_esp(&mut self, capsule: EspCapsule) {
        Self::send_esp(self, capsule);
    }

    fn esp_capsule(event: ServerEvent) -> Result<EspCapsule, ServerEvent> {
        if let ServerEvent::Esp(capsule) = event { Ok(capsule) } else { Err(event) }
    }
}

/// What one step of a tunnel brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<E> {
    /// The peer sent something. Capsules of ESP are told only where there is no ESP carrier.
    Event(E),
    /// All events are told, and what ESP wanted is done; the next step sends what follows from them, and waits.
    Drained,
    /// The peer ended the tunnel. So does every further step.
    Ended,
}

/// Why a tunnel cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The stream failed, or the peer broke the protocol and the stream is closed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The two ends no longer agree about ESP; the stream is still open.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The peer left what it was told unread for too long; the stream is still open.
    #[error("the peer does not read what it is told")]
    Unread,
}

/// One tunnel, from the answer to its request to its end. Dropping it ends the ESP carrier, too.
pub struct Following<M, S: Carried> {
    stream: TunnelStream,
    machine: M,
    esp: Option<EspControl<S>>,
    /// How long the peer may take to read what it is told.
    unread_limit: Option<Duration>,
    /// Since when something waits to be read, whatever step was cancelled meanwhile.
    unread_since: Option<Instant>,
    /// Something happened that [`Step::Drained`] has not been told of.
    is_stirred: bool,
    has_ended: bool,
}

impl<M: TunnelMachine, S: Carried> Following<M, S> {
    /// Follows the tunnel on `stream`; `esp` is its ESP carrier, if one was negotiated.
    pub fn new(stream: TunnelStream, machine: M, esp: Option<EspControl<S>>) -> Self {
        Self { stream, machine, esp, unread_limit: None, unread_since: None, is_stirred: false, has_ended: false }
    }

    /// Gives up a peer that leaves what it is told unread for so long. Nothing else of the tunnel is looked after
    /// meanwhile, so that has to be short of what ESP needs to notice a broken path.
    #[must_use]
    pub fn with_unread_limit(self, limit: Duration) -> Self {
        Self { unread_limit: Some(limit), ..self }
    }

    /// This end of the tunnel. What it is made to say leaves with the next step.
    pub fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The stream it follows.
    pub fn stream(&mut self) -> &mut TunnelStream {
        &mut self.stream
    }

    /// Has the peer show that it knows the connection, with the next step: content of no bytes is acknowledged, or
    /// answered by a stateless reset if the peer restarted (RFC 9000 section 10.3). What waits to be sent does the
    /// same.
    pub fn ask(&mut self) {
        if self.stream.is_flushed() {
            self.stream.queue_data(&[]);
        }
    }

    /// Whether ESP, which is in use, left a probe unanswered since this was last asked.
    pub fn take_unanswered(&mut self) -> bool {
        self.esp.as_mut().is_some_and(EspControl::take_unanswered)
    }

    /// Whether ESP has found that the path takes no datagrams that carry the least packets, those of QUIC included.
    pub fn is_too_narrow(&self) -> bool {
        self.esp.as_ref().is_some_and(EspControl::is_too_narrow)
    }

    /// Tells ESP that this end's own address or network changed.
    pub fn handle_rebind(&mut self, now: Instant) {
        if let Some(esp) = &mut self.esp {
            esp.handle_rebind(now);
        }
    }

    /// Ends the ESP carrier, and its SAs with it.
    pub fn end_esp(&mut self) {
        self.esp = None;
    }

    /// Goes on until there is something for the owner. Cancel-safe: what was half sent or half told goes on with the
    /// next step.
    ///
    /// # Errors
    /// Why the tunnel cannot go on; it is to be dropped then.
    pub async fn step(&mut self) -> Result<Step<M::Event>, FollowError> {
        loop {
            if let Some(event) = self.poll_event()? {
                return Ok(Step::Event(event));
            }
            if std::mem::take(&mut self.is_stirred) {
                return Ok(Step::Drained);
            }
            if self.has_ended {
                return Ok(Step::Ended);
            }
            self.flush().await?;
            self.wait().await?;
        }
    }

    /// The next event for the owner; ESP takes its own.
    fn poll_event(&mut self) -> Result<Option<M::Event>, EspError> {
        while let Some(event) = self.machine.poll_event() {
            let Some(esp) = &mut self.esp else { return Ok(Some(event)) };
            match M::esp_capsule(event) {
                Ok(capsule) => esp.handle_capsule(capsule, now())?,
                Err(event) => return Ok(Some(event)),
            }
        }
        Ok(None)
    }

    /// Sends what machine and ESP have to say in one piece, so that the peer sees one change of its network, not three.
    async fn flush(&mut self) -> Result<(), FollowError> {
        while let Some(capsule) = self.esp.as_mut().and_then(EspControl::poll_capsule) {
            self.machine.send_esp(capsule);
        }
        let mut content = Vec::new();
        while let Some(capsules) = self.machine.poll_transmit() {
            content.extend(capsules);
        }
        if !content.is_empty() {
            self.stream.queue_data(&content);
        }
        let sending = self.stream.flush();
        match self.unread_limit {
            Some(limit) => {
                let due = *self.unread_since.get_or_insert_with(now) + limit;
                timeout_at(due.into(), sending).await.map_err(|_elapsed| FollowError::Unread)??;
                self.unread_since = None;
            }
            None => sending.await?,
        }
        Ok(())
    }

    /// Waits for the peer, for ESP or for the machine's deadline, and handles what happens.
    async fn wait(&mut self) -> Result<(), FollowError> {
        let due = self.machine.poll_timeout();
        tokio::select! {
            event = self.stream.next_event() => return self.handle(event?),
            driven = drive(&mut self.esp) => driven?,
            () = reached(due) => self.machine.handle_timeout(now()),
        }
        self.is_stirred = true;
        Ok(())
    }

    /// Takes a part of the peer's message.
    fn handle(&mut self, event: Option<MessageEvent>) -> Result<(), FollowError> {
        let handled = match event {
            Some(MessageEvent::Data(data)) => self.machine.handle_data(&data),
            Some(MessageEvent::Headers(_)) => Ok(()),
            Some(MessageEvent::End) | None => {
                self.has_ended = true;
                self.machine.handle_end()
            }
        };
        self.is_stirred = !self.has_ended;
        handled.map_err(|fault| self.stream.fail(fault).into())
    }
}

/// Lets ESP do what is due; for ever without ESP. Cancel-safe.
async fn drive<S: Carried>(esp: &mut Option<EspControl<S>>) -> Result<(), EspError> {
    match esp {
        Some(esp) => esp.drive().await,
        None => pending().await,
    }
}

/// Waits until a moment, for ever without one.
async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
