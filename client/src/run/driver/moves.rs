//! The driver's part that follows where this host is: by another network, or another address, the gateway may be
//! reached at once that could not be, and a connection over TCP goes nowhere any more. Such a connection has another
//! one made beside it, and so has one over TCP on which nothing is answered.

use std::future::pending;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_net::network_watch::NetworkWatch;

use super::{Driver, OpenConnection, Protocol, now, until};
use crate::ways::{Ways, ways};

/// When another way is looked for again while the connection in use leads nowhere; the pause doubles each time. What a
/// network offers, such as its resolvers, is not all known when its routes are.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// By which ways this session's own datagrams leave its host.
pub(super) struct Whereabouts {
    /// Hears of changes, and the mark of the datagrams; `None` without a mark: what is looked up may lead through the
    /// tunnel then.
    watched: Option<(NetworkWatch, u32)>,
    ways: Ways,
    /// How they were when the last attempt began.
    attempted: Ways,
    /// Whether the connection in use leads nowhere from where this host is now.
    has_left: bool,
    /// Whether nothing is answered on it.
    is_silent: bool,
    /// While one of that holds, the pause before it is looked again, and when that is over.
    astray: Option<(Duration, Instant)>,
}

impl Whereabouts {
    /// Of datagrams with this mark. Must be called inside a tokio runtime.
    pub(super) fn new(mark: Option<u32>) -> Self {
        let watched = mark.map(|mark| (NetworkWatch::open(), mark));
        let (ways, attempted) = (Ways::new(), Ways::new());
        Self { watched, ways, attempted, has_left: false, is_silent: false, astray: None }
    }

    /// Waits until it is time to look. Cancel-safe.
    pub(super) async fn may_differ(&mut self) {
        let Self { watched, astray, .. } = self;
        let changed = async {
            match watched {
                Some((watch, _)) => watch.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = until(astray.map(|(_, at)| at)) => {}
        }
    }

    /// Looks by which ways datagrams leave now; returns how it was before.
    fn look(&mut self, destinations: impl IntoIterator<Item = SocketAddr>) -> Ways {
        let now = self.watched.as_ref().map_or_else(Ways::new, |(_, mark)| ways(destinations, *mark));
        std::mem::replace(&mut self.ways, now)
    }

    /// There is another connection, or none any more.
    fn forget_connection(&mut self) {
        (self.has_left, self.is_silent, self.astray) = (false, false, None);
    }

    /// Takes note of whether another connection is to be made beside the one in use. It is looked again after a while
    /// then, and at once where the host `has_changed`.
    fn note_astray(&mut self, has_changed: bool) {
        let pause = match self.astray {
            Some((pause, _)) if !has_changed => (pause * 2).min(LONGEST_PAUSE),
            Some(_) | None => FIRST_PAUSE,
        };
        self.astray = (self.has_left || self.is_silent).then(|| (pause, now() + pause));
    }
}

/// What a look at a connection's way found.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// It is as it was.
    Same,
    /// It begins elsewhere.
    Other,
    /// There is none.
    Gone,
}

/// What became of the way to a connection's gateway.
fn way(before: &Ways, now: &Ways, gateway: SocketAddr) -> Way {
    match (before.get(&gateway), now.get(&gateway)) {
        (_, Some(None)) => Way::Gone,
        (Some(before), Some(now)) if before != now => Way::Other,
        (_, Some(Some(_)) | None) => Way::Same,
    }
}

impl<P: Protocol> Driver<P> {
    /// Takes note of where this host is when an attempt begins.
    pub(super) fn note_whereabouts(&mut self) {
        let destinations = self.known_addresses();
        drop(self.whereabouts.look(destinations));
        self.whereabouts.attempted = self.whereabouts.ways.clone();
    }

    /// Takes note of a new connection, which may have been overtaken by a move already.
    pub(super) fn begin_way(&mut self) {
        self.whereabouts.forget_connection();
        self.whereabouts.ways = std::mem::take(&mut self.whereabouts.attempted);
        self.look_around();
    }

    /// On the connection in use nothing is answered, or something is again.
    pub(super) fn handle_silence(&mut self, is_silent: bool) {
        self.whereabouts.is_silent = is_silent;
        self.look_around();
    }

    /// Looks where this host is now, and has another connection made where that is of use.
    pub(super) fn look_around(&mut self) {
        let destinations = self.known_addresses();
        let before = self.whereabouts.look(destinations);
        let has_changed = before != self.whereabouts.ways;
        let Some(connection) = &self.connection else {
            self.whereabouts.forget_connection();
            if has_changed {
                self.life.handle_move(now());
            }
            return;
        };
        let Some(gateway) = connection.stats().remote else { return };
        let outlives = connection.outlives_moves();
        self.whereabouts.has_left = match way(&before, &self.whereabouts.ways, gateway) {
            Way::Gone => true,
            Way::Other => !outlives,
            Way::Same => self.whereabouts.has_left && !outlives,
        };
        let was_astray = self.whereabouts.astray.is_some();
        self.whereabouts.note_astray(has_changed);
        let is_astray = self.whereabouts.astray.is_some();
        match (is_astray, has_changed) {
            (true, true) => self.life.handle_move(now()),
            (true, false) => self.life.handle_astray(now()),
            (false, _) if was_astray => self.life.handle_way_back(now()),
            (false, _) => {}
        }
    }

    /// The gateway's addresses as far as they are known.
    fn known_addresses(&self) -> Vec<SocketAddr> {
        let in_use = self.connection.as_ref().and_then(|connection| connection.stats().remote);
        in_use.into_iter().chain(self.config.profile.addresses.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn way_to_the_gateway_counts_and_no_other() {
        let [gateway, other] = ["192.0.2.1:443", "[2001:db8::1]:443"].map(|text| text.parse().unwrap());
        let from = |address: Option<&str>| Ways::from([(gateway, address.map(|text| text.parse().unwrap()))]);
        let (home, away, nowhere) = (from(Some("192.0.2.9")), from(Some("198.51.100.9")), from(None));
        assert_eq!(way(&home, &home, gateway), Way::Same);
        assert_eq!(way(&home, &away, gateway), Way::Other);
        assert_eq!(way(&nowhere, &home, gateway), Way::Other, "what was under way meanwhile went nowhere");
        assert_eq!(way(&away, &nowhere, gateway), Way::Gone);
        assert_eq!(way(&Ways::new(), &home, gateway), Way::Same, "a gateway's new address is no move of this host");
        assert_eq!(way(&Ways::new(), &nowhere, gateway), Way::Gone);
        assert_eq!(way(&home, &away, other), Way::Same);
    }
}
