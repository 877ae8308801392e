//! Finds the gateway's addresses, beside the attempts to reach it.
//!
//! What is known is tried at once. Each name is asked for once in each address family, and an answer is tried as soon
//! as it comes: a resolver that is slow, or that never answers for one family, holds nothing up.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use adit_net::resolve::{AddressFamily, resolve};
use adit_program::task::{self, Task};
use adit_proto::invite::Place;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::own_question::LocalResolvers;

/// Most addresses remembered: more would not all be begun in an attempt's time.
const MOST_REMEMBERED: usize = 8;
/// Most addresses taken of the names, so that a resolver that lies cannot crowd out all that are known to work.
const MOST_RESOLVED: usize = 6;

/// What the gateway's names resolved to so far.
#[derive(Debug, Clone, Default)]
struct Found {
    addresses: Vec<SocketAddr>,
    is_complete: bool,
}

/// Looks up where a gateway is.
#[derive(Debug)]
pub(crate) struct Lookups {
    places: Vec<Place>,
    found: watch::Receiver<Found>,
    /// Whom the client asks itself, and the mark of its questions.
    own_way: Option<(LocalResolvers, u32)>,
    _running: Option<Task>,
}

impl Lookups {
    /// Of a gateway at these places. Nothing is asked yet; addresses among them need no question.
    pub(crate) fn new(places: Vec<Place>) -> Self {
        let (_, found) = watch::channel(Found { addresses: literals(&places), is_complete: true });
        Self { places, found, own_way: None, _running: None }
    }

    /// Has names asked for by the client itself as well, or no more: past a host that is closed.
    pub(crate) fn ask_alone(&mut self, own_way: Option<(LocalResolvers, u32)>) {
        self.own_way = own_way;
    }

    /// The addresses to try now, those `known` first. If names `may_be_asked`, what they resolve to follows; questions
    /// that are still open from an earlier call are not asked twice.
    pub(crate) fn candidates(&mut self, known: &[SocketAddr], may_be_asked: bool) -> Candidates {
        if (may_be_asked || self.own_way.is_some()) && self.found.borrow().is_complete {
            self.ask(may_be_asked);
        }
        Candidates { waiting: known.iter().copied().collect(), given: Vec::new(), found: Some(self.found.clone()) }
    }

    /// What the places resolved to so far, the newest answers.
    pub(crate) fn resolved(&self) -> Vec<SocketAddr> {
        self.found.borrow().addresses.clone()
    }

    fn ask(&mut self, may_be_asked: bool) {
        let names: Vec<Place> = self.places.iter().filter(|place| literal(place).is_none()).cloned().collect();
        if names.is_empty() {
            return;
        }
        let (tell, found) = watch::channel(Found { addresses: literals(&self.places), is_complete: false });
        self.found = found;
        self._running = Some(task::spawn(look_up(names, may_be_asked, self.own_way.clone(), tell)));
    }
}

/// Asks for all names in both families at once, and tells each answer as it comes.
async fn look_up(
    names: Vec<Place>,
    may_be_asked: bool,
    own_way: Option<(LocalResolvers, u32)>,
    tell: watch::Sender<Found>,
) {
    let mut questions = JoinSet::new();
    for Place { host, port } in names {
        if let Some((resolvers, mark)) = own_way.clone() {
            let host = host.clone();
            questions.spawn(async move { Ok((resolvers.ask(&host, mark).await, port)) });
        }
        for family in [AddressFamily::V6, AddressFamily::V4].into_iter().filter(|_| may_be_asked) {
            let host = host.clone();
            questions.spawn_blocking(move || resolve(&host, family).map(|addresses| (addresses, port)));
        }
    }
    while let Some(answered) = questions.join_next().await {
        // A name may well have no address of one family.
        if let Ok(Ok((addresses, port))) = answered {
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port));
            tell.send_modify(|found| {
                found.addresses = distinct(found.addresses.drain(..).chain(addresses), MOST_RESOLVED);
            });
        }
    }
    tell.send_modify(|found| found.is_complete = true);
}

/// Addresses to try, one after the other, as they become known.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    waiting: VecDeque<SocketAddr>,
    given: Vec<SocketAddr>,
    /// What is still to come.
    found: Option<watch::Receiver<Found>>,
}

impl Candidates {
    /// The next address; `None` if there is none, and none will come. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<SocketAddr> {
        loop {
            let is_complete = self.take_found();
            if let Some(address) = self.waiting.pop_front() {
                self.given.push(address);
                return Some(address);
            }
            if is_complete {
                return None;
            }
            let found = self.found.as_mut()?;
            if found.changed().await.is_err() {
                self.found = None;
            }
        }
    }

    /// Waits until there is an address to try; false if there will be none. Cancel-safe.
    pub(crate) async fn is_ready(&mut self) -> bool {
        let Some(first) = self.next().await else { return false };
        self.given.pop();
        self.waiting.push_front(first);
        true
    }

    /// All addresses that are known by now.
    pub(crate) fn known(&self) -> Vec<SocketAddr> {
        let found = self.found.as_ref().map(|found| found.borrow().addresses.clone());
        let known = self.given.iter().chain(&self.waiting).copied();
        distinct(known.chain(found.unwrap_or_default()), MOST_REMEMBERED + MOST_RESOLVED)
    }

    /// The addresses that were given out.
    pub(crate) fn given(&self) -> &[SocketAddr] {
        &self.given
    }

    /// Puts what was found meanwhile before what is only remembered; says whether nothing more will come.
    fn take_found(&mut self) -> bool {
        let Some(found) = &mut self.found else { return true };
        let Found { addresses, is_complete } = found.borrow_and_update().clone();
        let news: Vec<SocketAddr> = addresses.into_iter().filter(|address| !self.given.contains(address)).collect();
        // The first one remembered is the one that worked last: it keeps its place until it was tried.
        let last_working = if self.given.is_empty() { self.waiting.pop_front() } else { None };
        self.waiting.retain(|address| !news.contains(address));
        news.into_iter().rev().filter(|new| Some(*new) != last_working).for_each(|new| self.waiting.push_front(new));
        last_working.into_iter().for_each(|first| self.waiting.push_front(first));
        is_complete
    }
}

impl From<Vec<SocketAddr>> for Candidates {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self { waiting: addresses.into(), ..Self::default() }
    }
}

/// What to remember: the newest addresses first, then those known before, none twice.
pub(crate) fn remember(newest: impl IntoIterator<Item = SocketAddr>, known: &[SocketAddr]) -> Vec<SocketAddr> {
    distinct(newest.into_iter().chain(known.iter().copied()), MOST_REMEMBERED)
}

fn distinct(addresses: impl IntoIterator<Item = SocketAddr>, most: usize) -> Vec<SocketAddr> {
    let mut distinct: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if distinct.len() < most && !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    distinct
}

fn literals(places: &[Place]) -> Vec<SocketAddr> {
    distinct(places.iter().filter_map(literal), MOST_RESOLVED)
}

fn literal(place: &Place) -> Option<SocketAddr> {
    place.host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, place.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn place(host: &str) -> Place {
        Place { host: host.to_owned(), port: 443 }
    }

    /// Candidates of a gateway whose names are being asked for, and the answering end.
    fn asked(known: &[SocketAddr]) -> (Candidates, watch::Sender<Found>) {
        let (tell, found) = watch::channel(Found::default());
        (Candidates { waiting: known.iter().copied().collect(), given: Vec::new(), found: Some(found) }, tell)
    }

    async fn drain(candidates: &mut Candidates) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        while let Some(address) = candidates.next().await {
            all.push(address);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_does_not_wait_for_a_slow_resolver() {
        let (mut candidates, tell) = asked(&[address(9), address(8)]);
        assert!(candidates.is_ready().await);
        assert_eq!(candidates.next().await, Some(address(9)));
        tell.send_modify(|found| found.addresses = vec![address(1), address(9)]);
        assert_eq!(candidates.next().await, Some(address(1)), "what a name has now comes before what it had");
        assert_eq!(candidates.next().await, Some(address(8)));
        let late = task::spawn(async move { candidates.next().await });
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        tell.send_modify(|found| found.addresses.push(address(2)));
        assert_eq!(late.await.unwrap(), Some(address(2)), "an answer that is late is still tried");
    }

    #[tokio::test]
    async fn last_working_address_stays_first_and_nothing_comes_twice() {
        let (mut candidates, tell) = asked(&[address(9), address(2)]);
        tell.send_modify(|found| {
            *found = Found { addresses: vec![address(1), address(2), address(9)], is_complete: true };
        });
        assert_eq!(candidates.known(), [address(9), address(2), address(1)]);
        assert_eq!(drain(&mut candidates).await, [address(9), address(1), address(2)]);
        assert_eq!(candidates.given().len(), 3);
    }

    #[tokio::test]
    async fn addresses_among_the_places_need_no_resolver() {
        let mut lookups = Lookups::new(vec![place("::1"), place("192.0.2.1")]);
        let six = SocketAddr::new("::1".parse().unwrap(), 443);
        let mut candidates = lookups.candidates(&[], true);
        assert_eq!(drain(&mut candidates).await, [six, address(1)]);
        assert_eq!(lookups.resolved(), [six, address(1)]);
    }

    #[tokio::test]
    async fn names_are_asked_for_only_where_they_may_be() {
        let mut lookups = Lookups::new(vec![place("localhost")]);
        assert!(!lookups.candidates(&[], false).is_ready().await);
        let home = SocketAddr::from(([127, 0, 0, 1], 443));
        assert!(drain(&mut lookups.candidates(&[], true)).await.contains(&home));
        assert!(lookups.resolved().contains(&home));
    }

    #[test]
    fn number_of_addresses_is_bounded() {
        assert_eq!(remember((0..100).map(address), &[]).len(), MOST_REMEMBERED);
    }
}
