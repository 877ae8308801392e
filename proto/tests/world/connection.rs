//! The connection that a session lives on, QUIC or TLS: in order, without loss, as long as it is there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use adit_netem::LinkDirection;
use adit_proto::esp::capsule::EspCapsule;

use crate::network::{Network, way};

/// How long what goes over it is on its way.
const DELAY: Duration = Duration::from_millis(25);
/// How long an answer takes.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Packets that wait in one direction; newer ones are lost.
const MOST_PACKETS: usize = 64;
/// After how long in which nothing passes a client makes another connection.
const CLIENT_GIVES_UP: Duration = Duration::from_secs(8);
/// After how long a gateway gives a client up.
pub(crate) const GATEWAY_GIVES_UP: Duration = Duration::from_secs(60);
/// How long a client may not notice that its gateway knows nothing of it, if it has nothing to say.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What goes over it.
#[derive(Debug)]
pub(crate) enum Item {
    Capsule(EspCapsule),
    Packet(Vec<u8>),
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The client gives it up.
    AtClient,
    /// The gateway does; the client knows nothing of it yet.
    AtGateway,
}

/// One connection.
pub(crate) struct Connection {
    over_tcp: bool,
    items: [VecDeque<(Instant, Item)>; 2],
    stands_since: Option<Instant>,
    /// Since when the gateway knows nothing of it.
    forgotten: Option<Instant>,
    /// The client has something to say.
    pub(crate) speaks: bool,
}

impl Connection {
    pub(crate) fn new(over_tcp: bool) -> Self {
        Self { over_tcp, items: Default::default(), stands_since: None, forgotten: None, speaks: false }
    }

    /// The gateway forgets it.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.forgotten = Some(self.forgotten.unwrap_or(now));
        (self.items, self.speaks) = (Default::default(), false);
    }

    /// The client's host was asleep, which is nobody's fault.
    pub(crate) const fn wake(&mut self) {
        self.stands_since = None;
    }

    /// Whether a question to the gateway is answered. One that knows nothing of it says so.
    pub(crate) fn is_answered(&mut self, network: &Network) -> bool {
        self.speaks = true;
        self.passes(network) && self.forgotten.is_none()
    }

    /// Takes something to the other end; says whether there was room.
    pub(crate) fn send(&mut self, direction: LinkDirection, item: Item, now: Instant) -> bool {
        let items = &mut self.items[way(direction)];
        self.speaks |= direction == LinkDirection::Up;
        let has_room = !matches!(item, Item::Packet(_)) || items.len() < MOST_PACKETS;
        if has_room && self.forgotten.is_none() {
            items.push_back((now + DELAY, item));
        }
        has_room
    }

    /// What arrives now.
    pub(crate) fn poll(&mut self, network: &Network, is_asleep: bool, now: Instant) -> Option<(LinkDirection, Item)> {
        if !self.passes(network) || is_asleep {
            return None;
        }
        [LinkDirection::Up, LinkDirection::Down].into_iter().find_map(|direction| {
            let items = &mut self.items[way(direction)];
            let item = items.pop_front_if(|(at, _)| *at <= now);
            item.map(|(_, item)| (direction, item))
        })
    }

    /// Whether it ends now.
    pub(crate) fn handle_timeout(&mut self, network: &Network, is_asleep: bool, now: Instant) -> Option<Loss> {
        let stands = !self.passes(network) || is_asleep;
        self.stands_since = stands.then(|| self.stands_since.unwrap_or(now));
        let stood = self.stands_since.map_or(Duration::ZERO, |since| now - since);
        if let Some(since) = self.forgotten {
            let notices = !stands && (self.speaks || now - since >= KEEP_ALIVE);
            return (notices || stood >= CLIENT_GIVES_UP && !is_asleep).then_some(Loss::AtClient);
        }
        if stood >= GATEWAY_GIVES_UP {
            return Some(Loss::AtGateway);
        }
        (stood >= CLIENT_GIVES_UP && !is_asleep).then_some(Loss::AtClient)
    }

    /// When something is to be done.
    pub(crate) fn poll_timeout(&self, network: &Network, is_asleep: bool) -> Option<Instant> {
        let standing =
            self.stands_since.map(|since| since + if is_asleep { GATEWAY_GIVES_UP } else { CLIENT_GIVES_UP });
        let forgotten = self.forgotten.map(|since| since + KEEP_ALIVE);
        let items = self.items.iter().filter_map(|items| items.front()).map(|(at, _)| *at);
        let items = items.filter(|_| self.passes(network) && !is_asleep);
        items.chain(standing).chain(forgotten.filter(|_| self.passes(network) && !is_asleep)).min()
    }

    fn passes(&self, network: &Network) -> bool {
        !network.unplugged && (self.over_tcp || network.passes_udp())
    }
}
