//! Finds the gateway's addresses, beside the attempts to reach it.
//!
//! What is known is tried at once. Each name is asked for once in each address family, and an answer is tried as soon
//! as it comes: a resolver that is slow, or that never answers for one family, holds nothing up.
//!
//! In a network of IPv6 alone the resolver is also asked for the prefix under which the network's translator shows
//! hosts of IPv4 (NAT64, RFC 7050), and addresses of the gateway are tried under it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use adit_net::resolve::{AddressFamily, resolve};
use adit_program::task::{self, Task};
use adit_proto::invite::Place;
use adit_proto::nat64::{self, Nat64Prefix};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::own_question::LocalResolvers;
use crate::ways::has_ipv6_alone;

/// Most addresses remembered: more would not all be begun in an attempt's time.
const MOST_REMEMBERED: usize = 8;
/// Most addresses taken of the names, so that a resolver that lies cannot crowd out all that are known to work.
const MOST_RESOLVED: usize = 6;
/// Most prefixes of translators: hardly any network has two.
const MOST_PREFIXES: usize = 2;

/// What is known so far of where the gateway is.
#[derive(Debug, Clone, Default)]
struct Found {
    /// What its names resolved to, and addresses among its places.
    addresses: Vec<SocketAddr>,
    /// Addresses that were known before.
    known: Vec<SocketAddr>,
    /// Under which prefixes the local network shows hosts of IPv4.
    prefixes: Vec<Nat64Prefix>,
    is_complete: bool,
}

/// What is told of a name.
enum Answer {
    Addresses(Vec<SocketAddr>),
    Prefixes(Vec<Nat64Prefix>),
}

impl Found {
    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Addresses(addresses) => {
                self.addresses = distinct(self.addresses.drain(..).chain(addresses), MOST_RESOLVED);
            }
            Answer::Prefixes(prefixes) => {
                let fresh: Vec<_> = prefixes.into_iter().filter(|prefix| !self.prefixes.contains(prefix)).collect();
                self.prefixes.extend(fresh);
                self.prefixes.truncate(MOST_PREFIXES);
            }
        }
    }

    /// The gateway's addresses of IPv4 as the local network shows them, each with what it stands for.
    fn translated(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let hosts = distinct(self.addresses.iter().chain(&self.known).copied(), MOST_RESOLVED);
        let shown = |prefix: &Nat64Prefix, host: &SocketAddr| match host.ip() {
            IpAddr::V4(v4) => Some((SocketAddr::new(prefix.embed(v4).into(), host.port()), *host)),
            IpAddr::V6(_) => None,
        };
        self.prefixes.iter().flat_map(|prefix| hosts.iter().filter_map(move |host| shown(prefix, host))).collect()
    }

    /// What an address is good for elsewhere: it stands for itself, or for one of IPv4 that the local network shows.
    fn original(&self, address: SocketAddr) -> SocketAddr {
        let IpAddr::V6(shown) = address.ip() else { return address };
        let host = self.prefixes.iter().find_map(|prefix| prefix.extract(shown));
        host.map_or(address, |host| SocketAddr::new(host.into(), address.port()))
    }

    /// All addresses to try, those first that are the same everywhere.
    fn all(&self) -> Vec<SocketAddr> {
        let shown = self.translated().into_iter().map(|(shown, _)| shown);
        distinct(self.addresses.iter().copied().chain(shown), 2 * MOST_RESOLVED)
    }
}

/// Looks up where a gateway is.
#[derive(Debug)]
pub(crate) struct Lookups {
    places: Vec<Place>,
    mark: Option<u32>,
    found: watch::Receiver<Found>,
    /// Whom the client asks itself, and the mark of its questions.
    own_way: Option<(LocalResolvers, u32)>,
    _running: Option<Task>,
}

impl Lookups {
    /// Of a gateway at these places, which is reached by datagrams with this mark. Nothing is asked yet; addresses
    /// among them need no question.
    pub(crate) fn new(places: Vec<Place>, mark: Option<u32>) -> Self {
        let (_, found) = watch::channel(Found { addresses: literals(&places), is_complete: true, ..Found::default() });
        Self { places, mark, found, own_way: None, _running: None }
    }

    /// All places but the first.
    pub(crate) fn others(&self) -> &[Place] {
        self.places.get(1..).unwrap_or_default()
    }

    /// Has names asked for by the client itself as well, or no more: past a host that is closed.
    pub(crate) fn ask_alone(&mut self, own_way: Option<(LocalResolvers, u32)>) {
        self.own_way = own_way;
    }

    /// The addresses to try now, those `known` first. If names `may_be_asked`, what they resolve to follows; questions
    /// that are still open from an earlier call are not asked twice.
    pub(crate) fn candidates(&mut self, known: &[SocketAddr], may_be_asked: bool) -> Candidates {
        if (may_be_asked || self.own_way.is_some()) && self.found.borrow().is_complete {
            self.ask(known, may_be_asked);
        }
        Candidates { waiting: known.iter().copied().collect(), given: Vec::new(), found: Some(self.found.clone()) }
    }

    /// What the places resolved to so far, the newest answers; as it is good in other networks, too.
    pub(crate) fn resolved(&self) -> Vec<SocketAddr> {
        let found = self.found.borrow();
        distinct(found.addresses.iter().map(|address| found.original(*address)), MOST_RESOLVED)
    }

    /// What an address that was reached is good for in other networks: see [`Found::original`].
    pub(crate) fn original(&self, address: SocketAddr) -> SocketAddr {
        self.found.borrow().original(address)
    }

    fn ask(&mut self, known: &[SocketAddr], may_be_asked: bool) {
        let names: Vec<Place> = self.places.iter().filter(|place| literal(place).is_none()).cloned().collect();
        let is_translated = has_ipv6_alone(self.mark);
        let (addresses, known) = (literals(&self.places), known.to_vec());
        let is_complete = names.is_empty() && !is_translated;
        let (tell, found) = watch::channel(Found { addresses, known, is_complete, ..Found::default() });
        self.found = found;
        let asked = Asked { names, is_translated, may_be_asked, own_way: self.own_way.clone() };
        self._running = (!is_complete).then(|| task::spawn(look_up(asked, tell)));
    }
}

/// What is asked, and of whom.
struct Asked {
    names: Vec<Place>,
    /// Whether hosts of IPv4 can only be reached as the local network shows them.
    is_translated: bool,
    may_be_asked: bool,
    own_way: Option<(LocalResolvers, u32)>,
}

impl Asked {
    /// Asks everybody who may be asked for the addresses of a name.
    fn ask(
        &self,
        questions: &mut JoinSet<Answer>,
        name: &str,
        families: &[AddressFamily],
        answer: impl Fn(Vec<IpAddr>) -> Answer + Copy + Send + Sync + 'static,
    ) {
        if let Some((resolvers, mark)) = self.own_way.clone() {
            let name = name.to_owned();
            questions.spawn(async move { answer(resolvers.ask(&name, mark).await) });
        }
        for family in families.iter().copied().filter(|_| self.may_be_asked) {
            let name = name.to_owned();
            // A name may well have no address of one family.
            questions.spawn_blocking(move || answer(resolve(&name, family).unwrap_or_default()));
        }
    }
}

/// Asks for all names in both families at once, and for the prefix of a translator if there can be one; tells each
/// answer as it comes.
async fn look_up(asked: Asked, tell: watch::Sender<Found>) {
    let mut questions = JoinSet::new();
    for Place { host, port } in &asked.names {
        let port = *port;
        asked.ask(&mut questions, host, &[AddressFamily::V6, AddressFamily::V4], move |addresses| {
            Answer::Addresses(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
        });
    }
    if asked.is_translated {
        asked.ask(&mut questions, nat64::NAME, &[AddressFamily::V6], prefixes);
    }
    while let Some(answered) = questions.join_next().await {
        if let Ok(answer) = answered {
            tell.send_modify(|found| found.take(answer));
        }
    }
    tell.send_modify(|found| found.is_complete = true);
}

/// The prefixes that the addresses of [`nat64::NAME`] tell.
fn prefixes(addresses: Vec<IpAddr>) -> Answer {
    let v6 = |address| match address {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    };
    Answer::Prefixes(Nat64Prefix::learn(&addresses.into_iter().filter_map(v6).collect::<Vec<_>>()))
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
        let found = self.found.as_ref().map(|found| found.borrow().all());
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
        let (addresses, is_complete) = {
            let found = found.borrow_and_update();
            (found.all(), found.is_complete)
        };
        let news: Vec<SocketAddr> = addresses.into_iter().filter(|address| !self.given.contains(address)).collect();
        // The first one remembered is the one that worked last: it keeps its place until it was tried.
        let last_working = if self.given.is_empty() { self.waiting.pop_front() } else { None };
        self.waiting.retain(|address| !news.contains(address));
        news.into_iter().rev().filter(|new| Some(*new) != last_working).for_each(|new| self.waiting.push_front(new));
        let before = last_working.as_ref().or_else(|| self.given.last());
        self.waiting = in_turns(self.waiting.drain(..), before.is_none_or(SocketAddr::is_ipv4));
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

/// The addresses of both families in turns, each family in its own order: where one of them leads nowhere, the other is
/// tried soon (RFC 8305 section 4).
fn in_turns(addresses: impl Iterator<Item = SocketAddr>, begins_with_v6: bool) -> VecDeque<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.partition(SocketAddr::is_ipv6);
    let (first, second) = if begins_with_v6 { (v6, v4) } else { (v4, v6) };
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = VecDeque::new();
    loop {
        let turn = (first.next(), second.next());
        if turn == (None, None) {
            return turns;
        }
        turns.extend(turn.0.into_iter().chain(turn.1));
    }
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
            found.addresses = vec![address(1), address(2), address(9)];
            found.is_complete = true;
        });
        assert_eq!(candidates.known(), [address(9), address(2), address(1)]);
        assert_eq!(drain(&mut candidates).await, [address(9), address(1), address(2)]);
        assert_eq!(candidates.given().len(), 3);
    }

    #[tokio::test]
    async fn families_are_tried_in_turns_behind_the_address_that_worked_last() {
        let six = |last: u16| SocketAddr::new(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into(), 443);
        let (mut candidates, tell) = asked(&[address(9), address(8), six(8)]);
        tell.send_modify(|found| {
            found.addresses = vec![address(1), address(2), six(1), six(2)];
            found.is_complete = true;
        });
        let order = [address(9), six(1), address(1), six(2), address(2), six(8), address(8)];
        assert_eq!(drain(&mut candidates).await, order);
    }

    #[tokio::test]
    async fn addresses_among_the_places_need_no_resolver() {
        let mut lookups = Lookups::new(vec![place("::1"), place("192.0.2.1")], None);
        let six = SocketAddr::new("::1".parse().unwrap(), 443);
        let mut candidates = lookups.candidates(&[], true);
        assert_eq!(drain(&mut candidates).await, [six, address(1)]);
        assert_eq!(lookups.resolved(), [six, address(1)]);
    }

    #[tokio::test]
    async fn names_are_asked_for_only_where_they_may_be() {
        let mut lookups = Lookups::new(vec![place("localhost")], None);
        assert!(!lookups.candidates(&[], false).is_ready().await);
        let home = SocketAddr::from(([127, 0, 0, 1], 443));
        assert!(drain(&mut lookups.candidates(&[], true)).await.contains(&home));
        assert!(lookups.resolved().contains(&home));
    }

    #[tokio::test]
    async fn addresses_of_ipv4_are_tried_as_the_local_network_shows_them_and_remembered_as_they_are() {
        let six: SocketAddr = "[2001:db8::5]:443".parse().unwrap();
        let (mut candidates, tell) = asked(&[address(9)]);
        assert_eq!(candidates.next().await, Some(address(9)), "there may be a way to it after all");
        let answer = nat64::WELL_KNOWN.map(|host| IpAddr::from(host.to_ipv6_mapped()));
        tell.send_modify(|found| {
            found.known = vec![address(9)];
            found.addresses = vec![six, address(1)];
            found.take(prefixes(answer.to_vec()));
            found.is_complete = true;
        });
        // The prefix of mapped addresses is one as good as any for this.
        let shown = |last: u8| SocketAddr::new(std::net::Ipv4Addr::new(192, 0, 2, last).to_ipv6_mapped().into(), 443);
        assert_eq!(drain(&mut candidates).await, [six, address(1), shown(1), shown(9)]);
        let found = tell.borrow();
        assert_eq!([shown(1), six, address(1)].map(|tried| found.original(tried)), [address(1), six, address(1)]);
    }

    #[test]
    fn number_of_addresses_is_bounded() {
        assert_eq!(remember((0..100).map(address), &[]).len(), MOST_REMEMBERED);
    }
}
