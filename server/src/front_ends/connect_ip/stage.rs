//! How long a connection may stay, and what it holds meanwhile.
//!
//! A stranger has ten seconds to log in or to enrol, whatever it asks, and ten more after each step of a login, but no
//! longer in all than a login may take. A device that has done so has ten seconds more for a tunnel or a renewal, and
//! again after each. A tunnel may stay for ever. Requests that nobody logged in for count for nothing, or a connection
//! without a tunnel could stay for ever, too.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_proto::http::h3::error::Code;
use tokio::sync::watch;
use tokio::time::Sleep;

use crate::core::admission::{Admission, Pending, Place};

/// How long a connection may go without a login, a login without a tunnel.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may go in all without somebody who has logged in: a login in a browser takes ten minutes at
/// most, and a source one more for its answer.
const LONGEST_LOGIN: Duration = Duration::from_secs(660);

/// What the requests of a connection have brought about so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stage {
    /// Whether a device has logged in or enrolled.
    known: bool,
    /// Logins and requests of a device that are being served, and not the tunnel yet.
    served: u32,
    /// Whether there is a tunnel.
    tunnel: bool,
}

/// A request of a device that has logged in, while it is served.
pub(super) struct Served(Arc<watch::Sender<Stage>>);

/// The tunnel of a connection, while it lasts.
pub(super) struct OpenTunnel(Arc<watch::Sender<Stage>>);

/// Somebody has logged in; the connection stays while the request is served.
pub(super) fn serve(stage: &Arc<watch::Sender<Stage>>) -> Served {
    stage.send_modify(|stage| (stage.known, stage.served) = (true, stage.served + 1));
    Served(Arc::clone(stage))
}

/// Somebody is logging in, and may yet be a stranger: the connection stays while that is served, but gives way to
/// others.
pub(super) fn attend(stage: &Arc<watch::Sender<Stage>>) -> Served {
    stage.send_modify(|stage| stage.served += 1);
    Served(Arc::clone(stage))
}

impl Served {
    /// The request has become the connection's tunnel.
    pub(super) fn open_tunnel(&self) -> OpenTunnel {
        self.0.send_modify(|stage| stage.tunnel = true);
        OpenTunnel(Arc::clone(&self.0))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.send_modify(|stage| stage.served -= 1);
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.send_modify(|stage| stage.tunnel = false);
    }
}

/// Why a connection may stay no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Nobody has logged in.
    Stranger,
    /// Somebody has been logging in for longer than that may take.
    Unfinished,
    /// A device has logged in and asks for nothing.
    Idle,
    /// Others need the place.
    Crowded,
}

impl Over {
    pub(super) fn code(self) -> Code {
        match self {
            Self::Stranger | Self::Unfinished | Self::Crowded => Code::EXCESSIVE_LOAD,
            Self::Idle => Code::NO_ERROR,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Stranger | Self::Idle => "nothing was asked for too long",
            Self::Unfinished => "the login took too long",
            Self::Crowded => "the gateway needs the place for others",
        }
    }
}

/// The right of one connection to stay.
pub(super) struct Stay {
    pending: Arc<Pending>,
    client: IpAddr,
    /// None while there is a tunnel.
    place: Option<Place>,
    stage: Stage,
    changes: watch::Receiver<Stage>,
    deadline: Pin<Box<Sleep>>,
    /// When a stranger has to be gone.
    end_of_login: Pin<Box<Sleep>>,
}

impl Stay {
    /// Begins with the place that the connection was admitted to.
    pub(super) fn new(pending: Arc<Pending>, client: IpAddr, place: Place, changes: watch::Receiver<Stage>) -> Self {
        let deadline = Box::pin(tokio::time::sleep(DEADLINE));
        let end_of_login = Box::pin(tokio::time::sleep(LONGEST_LOGIN));
        Self { pending, client, place: Some(place), stage: Stage::default(), changes, deadline, end_of_login }
    }

    /// Waits until the connection may stay no longer. Cancel-safe.
    pub(super) async fn over(&mut self) -> Over {
        loop {
            let given_way = async {
                match &self.place {
                    Some(place) => place.given_way().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = given_way => return Over::Crowded,
                Ok(()) = self.changes.changed() => {
                    let stage = *self.changes.borrow_and_update();
                    if !self.follow(stage, Instant::now()) {
                        return Over::Crowded;
                    }
                }
                () = &mut self.end_of_login, if !self.stage.known && !self.stage.tunnel => return Over::Unfinished,
                () = &mut self.deadline, if self.stage.served == 0 && !self.stage.tunnel => {
                    return if self.stage.known { Over::Idle } else { Over::Stranger };
                }
            }
        }
    }

    /// Takes note of what requests have brought about. False if there is no room for what the connection is now.
    fn follow(&mut self, stage: Stage, now: Instant) -> bool {
        self.stage = stage;
        self.deadline.as_mut().reset(tokio::time::Instant::now() + DEADLINE);
        if stage.tunnel {
            self.place = None;
            return true;
        }
        if self.place.is_none() {
            let Admission::Place(place) = self.pending.admit(self.client, true, now) else { return false };
            self.place = Some(place);
        }
        match &self.place {
            Some(place) if stage.known => {
                place.know(now);
                place.set_busy(stage.served > 0, now);
            }
            Some(place) => place.touch(now),
            None => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn place(pending: &Arc<Pending>) -> Option<Place> {
        match pending.admit(CLIENT, true, Instant::now()) {
            Admission::Place(place) => Some(place),
            Admission::ProveAddress | Admission::Full => None,
        }
    }

    fn connection(pending: &Arc<Pending>) -> (Arc<watch::Sender<Stage>>, Stay) {
        let (stage, changes) = watch::channel(Stage::default());
        (Arc::new(stage), Stay::new(Arc::clone(pending), CLIENT, place(pending).unwrap(), changes))
    }

    /// How long the connection stays from now on, at most an hour, and why no longer.
    async fn stays(stay: &mut Stay) -> Option<(u64, Over)> {
        let since = tokio::time::Instant::now();
        let over = tokio::time::timeout(Duration::from_secs(3600), stay.over()).await.ok()?;
        Some((since.elapsed().as_secs(), over))
    }

    #[tokio::test(start_paused = true)]
    async fn stranger_stays_for_ten_seconds_and_a_device_for_ten_more_after_what_it_asked() {
        let pending = Pending::new(10);
        let (_stage, mut stranger) = connection(&pending);
        assert_eq!(stays(&mut stranger).await, Some((10, Over::Stranger)));

        let (stage, mut device) = connection(&pending);
        let served = serve(&stage);
        assert_eq!(stays(&mut device).await, None, "a login that waits for the store");
        drop(served);
        assert_eq!(stays(&mut device).await, Some((10, Over::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn login_that_is_served_keeps_a_stranger_who_gives_way_to_others() {
        let pending = Pending::new(1);
        let (stage, mut stay) = connection(&pending);
        let login = attend(&stage);
        let waiting = tokio::time::timeout(Duration::from_secs(120), stay.over()).await;
        assert!(waiting.is_err(), "a source takes its time");
        let other = pending.admit(CLIENT, true, Instant::now() + DEADLINE);
        assert!(matches!(other, Admission::Place(_)), "it is not held busy");
        drop((login, other));
        let (stage, mut stay) = connection(&pending);
        drop(attend(&stage));
        assert_eq!(stays(&mut stay).await, Some((10, Over::Stranger)), "as anybody who has not logged in");
    }

    /// How long a connection stays that begins one request of a login every five seconds, the next before the last is
    /// served if they overlap.
    async fn stays_with_requests(
        connection: (Arc<watch::Sender<Stage>>, Stay),
        overlapping: bool,
        begin: fn(&Arc<watch::Sender<Stage>>) -> Served,
    ) -> Option<(u64, Over)> {
        let (stage, mut stay) = connection;
        let asking = async {
            let mut before = None;
            loop {
                let request = Some(begin(&stage));
                drop(before.take());
                before = request.filter(|_| overlapping);
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        tokio::select! {
            over = stays(&mut stay) => over,
            () = asking => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stranger_who_logs_in_without_end_stays_for_as_long_as_a_login_takes() {
        let pending = Pending::new(10);
        for overlapping in [false, true] {
            let over = stays_with_requests(connection(&pending), overlapping, attend).await;
            assert_eq!(over, Some((660, Over::Unfinished)), "overlapping: {overlapping}");
            let device = stays_with_requests(connection(&pending), overlapping, serve).await;
            assert_eq!(device, None, "the positive control: a device that logs in anew, overlapping: {overlapping}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tunnel_needs_no_place_and_a_connection_without_one_again() {
        let pending = Pending::new(1);
        let (stage, mut stay) = connection(&pending);
        assert!(place(&pending).is_none());
        let tunnel = serve(&stage).open_tunnel();
        assert_eq!(stays(&mut stay).await, None);
        let other = place(&pending);
        assert!(other.is_some());
        drop(tunnel);
        assert_eq!(stays(&mut stay).await, Some((0, Over::Crowded)));

        drop(other);
        let (stage, mut stay) = connection(&pending);
        let tunnel = serve(&stage).open_tunnel();
        assert_eq!(stays(&mut stay).await, None);
        drop(tunnel);
        assert_eq!(stays(&mut stay).await, Some((10, Over::Idle)));
        assert!(place(&pending).is_none(), "it holds its place until it is gone");
    }
}
