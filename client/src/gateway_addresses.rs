//! Finds the gateway's addresses, beside the attempts to reach it.
//!
//! What is known is tried at once. Each name is asked for once in each address family, and an answer is tried as soon
//! as it comes: a resolver that is slow, or that never answers for one family, holds nothing up. Where the host has
//! moved meanwhile, everything is asked anew.
//!
//! In a network of IPv6 alone, addresses of the gateway are also tried under the prefix by which the network's
//! translator shows hosts of IPv4 (NAT64). The network's routers may announce it (RFC 8781), and its resolver is asked
//! for it beside all other questions (RFC 7050).

mod candidates;
mod found;
mod questions;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use adit_net::resolve::resolve;
use adit_net::router_prefixes::RouterPrefixes;
use adit_program::task::{self, Task};
use adit_proto::invite::Place;
use tokio::sync::Semaphore;

use crate::own_question::LocalResolvers;
use crate::ways::Here;
use found::{Found, Telling, distinct, told};
use questions::{Askable, SystemResolver, look_up};

pub use candidates::Candidates;

/// Most addresses remembered: more would not all be begun in an attempt's time.
const MOST_REMEMBERED: usize = 8;
/// Most addresses taken of the names, so that a resolver that lies cannot crowd out all that are known to work.
const MOST_RESOLVED: usize = 6;
/// Most prefixes of translators that are taken of resolvers, and of routers: hardly any network has two.
const MOST_PREFIXES: usize = 2;
/// Most questions that this host's resolver has open at a time. Each keeps a thread, for half a minute where nobody
/// answers; one that is too much is not asked before the next attempt.
const MOST_OPEN: usize = 64;

/// Looks up where a gateway is.
#[derive(Debug)]
pub(crate) struct Lookups {
    places: Vec<Place>,
    mark: Option<u32>,
    found: Found,
    system: SystemResolver,
    /// Whom the client asks itself, and the mark of its questions.
    own_way: Option<(LocalResolvers, u32)>,
    /// Where this host was when it was asked last.
    here: Option<Here>,
    asking_names: Option<Task>,
    asking_prefixes: Option<Task>,
    _routers: RouterPrefixes,
}

impl Lookups {
    /// Of a gateway at these places, which is reached by datagrams with this mark. Nothing is asked yet; addresses
    /// among them need no question. Must be called inside a tokio runtime.
    pub(crate) fn new(places: Vec<Place>, mark: Option<u32>) -> Self {
        let routers = RouterPrefixes::listen();
        let found = Found {
            names: told(literals(&places), MOST_RESOLVED),
            prefixes: told(Vec::new(), MOST_PREFIXES),
            announced: routers.known(),
            known: Vec::new(),
            is_translated: false,
        };
        Self {
            places,
            mark,
            found,
            system: SystemResolver { resolve, places: Arc::new(Semaphore::new(MOST_OPEN)) },
            own_way: None,
            here: None,
            asking_names: None,
            asking_prefixes: None,
            _routers: routers,
        }
    }

    /// All places but the first.
    pub(crate) fn others(&self) -> &[Place] {
        self.places.get(1..).unwrap_or_default()
    }

    /// Has names asked for by the client itself as well, or no more: past a host that is closed.
    pub(crate) fn ask_alone(&mut self, own_way: Option<(LocalResolvers, u32)>) {
        self.own_way = own_way;
    }

    /// The addresses to try now, those `known` first. If names `may_be_asked`, what they resolve to follows. Where this
    /// host still is as it was, a question that is open from an earlier call is not asked twice; it keeps no other
    /// question from being asked.
    pub(crate) fn candidates(&mut self, known: &[SocketAddr], may_be_asked: bool) -> Candidates {
        let here = Here::look(self.mark);
        let has_moved = self.here.replace(here) != Some(here);
        self.found.known = known.to_vec();
        self.found.is_translated = here.has_ipv6_alone;
        if has_moved {
            self.asking_prefixes = None;
            self.found.prefixes = told(Vec::new(), MOST_PREFIXES);
        }
        let system = may_be_asked.then(|| self.system.clone());
        let askable = Askable { system, own_way: self.own_way.clone() };
        if askable.is_anybody() {
            if has_moved || self.found.names.borrow().is_complete {
                self.ask_names(&askable);
            }
            if here.has_ipv6_alone && self.found.prefixes.borrow().is_complete {
                self.ask_prefixes(&askable);
            }
        }
        Candidates::new(known, self.found.clone())
    }

    /// What the places resolved to so far, the newest answers; as it is good in other networks, too.
    pub(crate) fn resolved(&self) -> Vec<SocketAddr> {
        let addresses = self.found.addresses().into_iter();
        distinct(addresses.map(|address| self.found.original(address)), MOST_RESOLVED)
    }

    /// What an address that was reached is good for in other networks: see [`Found::original`].
    pub(crate) fn original(&self, address: SocketAddr) -> SocketAddr {
        self.found.original(address)
    }

    fn ask_names(&mut self, askable: &Askable) {
        let (telling, names) = Telling::begin(literals(&self.places), MOST_RESOLVED);
        self.found.names = names;
        let names = self.places.iter().filter(|place| literal(place).is_none());
        self.asking_names = Some(task::spawn(look_up(askable.ask_names(names), telling)));
    }

    fn ask_prefixes(&mut self, askable: &Askable) {
        let (telling, prefixes) = Telling::begin(Vec::new(), MOST_PREFIXES);
        self.found.prefixes = prefixes;
        self.asking_prefixes = Some(task::spawn(look_up(askable.ask_prefixes(), telling)));
    }
}

/// What to remember: the newest addresses first, then those known before, none twice.
pub(crate) fn remember(newest: impl IntoIterator<Item = SocketAddr>, known: &[SocketAddr]) -> Vec<SocketAddr> {
    distinct(newest.into_iter().chain(known.iter().copied()), MOST_REMEMBERED)
}

fn literals(places: &[Place]) -> Vec<SocketAddr> {
    distinct(places.iter().filter_map(literal), MOST_RESOLVED)
}

fn literal(place: &Place) -> Option<SocketAddr> {
    place.host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, place.port))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::Ipv6Addr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use adit_net::resolve::AddressFamily;
    use adit_proto::nat64::{self, Nat64Prefix, PrefixLength};
    use adit_testing::PATIENCE;
    use adit_testing::namespace::{in_namespace_async, ip};
    use tokio::time::timeout;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn place(host: &str) -> Place {
        Place { host: host.to_owned(), port: 443 }
    }

    async fn drain(candidates: &mut Candidates) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        while let Some(address) = candidates.next().await {
            all.push(address);
        }
        all
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

    #[test]
    fn number_of_addresses_is_bounded() {
        assert_eq!(remember((0..100).map(address), &[]).len(), MOST_REMEMBERED);
    }

    /// The prefix of a network of IPv6 alone, and the address under which it shows one of IPv4.
    fn prefix() -> Nat64Prefix {
        Nat64Prefix::of(Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0), PrefixLength::Bits96)
    }

    fn shown(last: u8) -> SocketAddr {
        SocketAddr::new(prefix().embed([192, 0, 2, last].into()).into(), 443)
    }

    fn tells_the_prefix() -> io::Result<Vec<IpAddr>> {
        Ok(nat64::WELL_KNOWN.map(|host| prefix().embed(host).into()).to_vec())
    }

    /// Lets questions hang until the test is over, however it ends.
    struct Hanging(&'static AtomicBool);

    impl Drop for Hanging {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn hang(is_over: &AtomicBool) -> io::Result<Vec<IpAddr>> {
        while !is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::other("nobody answers"))
    }

    /// Brings this host into a network of IPv4.
    fn at_home() {
        ip("link add eth0 type veth peer name router0");
        ip("link set router0 up");
        ip("link set eth0 up");
        ip("address add 192.0.2.9/24 dev eth0");
        ip("route add default via 192.0.2.1");
    }

    /// Brings it into one of IPv6 alone.
    fn away() {
        ip("address add 2001:db8::9/64 dev eth0 nodad");
        ip("-6 route add default via 2001:db8::1");
        ip("route del default");
    }

    async fn next(candidates: &mut Candidates) -> Option<SocketAddr> {
        timeout(PATIENCE, candidates.next()).await.expect("it waits for no other answer")
    }

    #[test]
    fn prefix_is_asked_for_while_the_names_question_of_another_network_hangs() {
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        fn resolver(name: &str, _family: AddressFamily) -> io::Result<Vec<IpAddr>> {
            if name == nat64::NAME { tells_the_prefix() } else { hang(&IS_OVER) }
        }
        in_namespace_async(|| async {
            let _hanging = Hanging(&IS_OVER);
            let mut lookups = Lookups::new(vec![place("gw.example")], Some(0x16));
            lookups.system.resolve = resolver;
            at_home();
            let mut candidates = lookups.candidates(&[address(1)], true);
            assert_eq!(next(&mut candidates).await, Some(address(1)));
            away();
            let mut candidates = lookups.candidates(&[address(1)], true);
            assert_eq!(next(&mut candidates).await, Some(address(1)));
            assert_eq!(next(&mut candidates).await, Some(shown(1)));
            assert_eq!(lookups.original(shown(1)), address(1));
        });
    }

    /// As a resolver does that is not ready yet when its network is joined, and has no answer to some questions.
    #[test]
    fn question_that_failed_is_asked_again_while_another_one_hangs() {
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        static IS_READY: AtomicBool = AtomicBool::new(false);
        static NAMES_HANG: AtomicBool = AtomicBool::new(false);
        fn resolver(name: &str, _family: AddressFamily) -> io::Result<Vec<IpAddr>> {
            let is_name = name != nat64::NAME;
            if is_name == NAMES_HANG.load(Ordering::Relaxed) {
                return hang(&IS_OVER);
            }
            match (IS_READY.load(Ordering::Relaxed), is_name) {
                (false, _) => Err(io::Error::other("not yet")),
                (true, true) => Ok(vec![address(1).ip()]),
                (true, false) => tells_the_prefix(),
            }
        }
        for names_hang in [false, true] {
            IS_OVER.store(false, Ordering::Relaxed);
            IS_READY.store(false, Ordering::Relaxed);
            NAMES_HANG.store(names_hang, Ordering::Relaxed);
            in_namespace_async(move || async move {
                let _hanging = Hanging(&IS_OVER);
                let mut lookups = Lookups::new(vec![place("gw.example")], Some(0x16));
                lookups.system.resolve = resolver;
                at_home();
                away();
                drop(lookups.candidates(&[address(2)], true));
                let answered = async {
                    let found = &mut lookups.found;
                    match names_hang {
                        true => drop(found.prefixes.wait_for(|told| told.is_complete).await),
                        false => drop(found.names.wait_for(|told| told.is_complete).await),
                    }
                };
                timeout(PATIENCE, answered).await.expect("one question is answered");
                IS_READY.store(true, Ordering::Relaxed);
                let mut candidates = lookups.candidates(&[address(2)], true);
                assert_eq!(next(&mut candidates).await, Some(address(2)));
                let second = if names_hang { shown(2) } else { address(1) };
                assert_eq!(next(&mut candidates).await, Some(second));
            });
        }
    }
}
