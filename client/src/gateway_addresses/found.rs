//! What is known so far of where the gateway is.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};

use adit_proto::nat64::{AnnouncedPrefixes, Nat64Prefix};
use tokio::sync::watch;

use super::{MOST_PREFIXES, MOST_RESOLVED};

/// What answers to a question have told so far.
#[derive(Debug, Clone)]
pub(super) struct Told<T> {
    answers: Vec<T>,
    /// Whether nothing more will come.
    pub(super) is_complete: bool,
}

/// The answering end of a question. Once it is dropped, nothing more will come.
#[derive(Debug)]
pub(super) struct Telling<T> {
    tell: watch::Sender<Told<T>>,
    most: usize,
}

impl<T> Telling<T> {
    /// Begins with what is known without an answer; `most` answers are taken.
    pub(super) fn begin(answers: Vec<T>, most: usize) -> (Self, watch::Receiver<Told<T>>) {
        let (tell, told) = watch::channel(Told { answers, is_complete: false });
        (Self { tell, most }, told)
    }
}

impl<T: PartialEq> Telling<T> {
    pub(super) fn tell(&self, answers: Vec<T>) {
        let known = |told: &mut Told<T>| told.answers = distinct(told.answers.drain(..).chain(answers), self.most);
        self.tell.send_modify(known);
    }
}

impl<T> Drop for Telling<T> {
    fn drop(&mut self) {
        self.tell.send_modify(|told| told.is_complete = true);
    }
}

/// What nobody has to be asked for.
pub(super) fn told<T>(answers: Vec<T>, most: usize) -> watch::Receiver<Told<T>> {
    Telling::begin(answers, most).1
}

/// What is known so far, and what will be.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// What the gateway's names resolved to, and addresses among its places.
    pub(super) names: watch::Receiver<Told<SocketAddr>>,
    /// Under which prefixes the local network shows hosts of IPv4, as its resolver says.
    pub(super) prefixes: watch::Receiver<Told<Nat64Prefix>>,
    /// The same, as its routers say.
    pub(super) announced: watch::Receiver<AnnouncedPrefixes>,
    /// Addresses that were known before.
    pub(super) known: Vec<SocketAddr>,
    /// Whether hosts of IPv4 can only be reached as the local network shows them.
    pub(super) is_translated: bool,
}

impl Found {
    /// What the names resolved to so far.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.names.borrow().answers.clone()
    }

    /// All addresses to try, those first that are the same everywhere.
    pub(super) fn all(&self) -> Vec<SocketAddr> {
        let shown = self.translated().into_iter().map(|(shown, _)| shown);
        distinct(self.addresses().into_iter().chain(shown), 2 * MOST_RESOLVED)
    }

    /// As [`Self::all`], and whether nothing more will come; [`Self::changed`] tells of what comes after this.
    pub(super) fn look(&mut self) -> (Vec<SocketAddr>, bool) {
        self.announced.mark_unchanged();
        let is_complete = self.names.borrow_and_update().is_complete;
        let is_complete = self.prefixes.borrow_and_update().is_complete && is_complete;
        (self.all(), is_complete)
    }

    /// Waits until something was found that was not there at the last look. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let Self { names, prefixes, announced, .. } = self;
        tokio::select! {
            () = news(names) => {}
            () = news(prefixes) => {}
            () = news(announced) => {}
        }
    }

    /// What an address is good for elsewhere: it stands for itself, or for one of the gateway's addresses of IPv4 that
    /// the local network shows. Others under the network's prefix are genuine ones: a network may have hosts there.
    pub(super) fn original(&self, address: SocketAddr) -> SocketAddr {
        let host = self.translated().into_iter().find(|(shown, _)| *shown == address);
        host.map_or(address, |(_, host)| host)
    }

    /// The gateway's addresses of IPv4 as the local network shows them, each with what it stands for.
    fn translated(&self) -> Vec<(SocketAddr, SocketAddr)> {
        if !self.is_translated {
            return Vec::new();
        }
        let now = tokio::time::Instant::now().into_std();
        let announced = self.announced.borrow().prefixes(now).into_iter().take(MOST_PREFIXES);
        let prefixes = announced.chain(self.prefixes.borrow().answers.iter().copied()).collect::<Vec<_>>();
        let hosts = self.addresses().into_iter().chain(self.known.iter().copied()).filter(SocketAddr::is_ipv4);
        let hosts = distinct(hosts, MOST_RESOLVED);
        let shown = |prefix: &Nat64Prefix, host: &SocketAddr| match host.ip() {
            IpAddr::V4(v4) => Some((SocketAddr::new(prefix.embed(v4).into(), host.port()), *host)),
            IpAddr::V6(_) => None,
        };
        prefixes.iter().flat_map(|prefix| hosts.iter().filter_map(move |host| shown(prefix, host))).collect()
    }
}

/// Waits for another value; for ever where none will come.
async fn news<T>(of: &mut watch::Receiver<T>) {
    if of.changed().await.is_err() {
        pending().await
    }
}

/// The first `most` different ones.
pub(super) fn distinct<T: PartialEq>(all: impl IntoIterator<Item = T>, most: usize) -> Vec<T> {
    let mut distinct: Vec<T> = Vec::new();
    for one in all {
        if distinct.len() < most && !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use adit_proto::nat64::{Announcement, PrefixLength};

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn prefix(text: &str) -> Nat64Prefix {
        Nat64Prefix::of(text.parse().unwrap(), PrefixLength::Bits96)
    }

    fn shown(prefix: Nat64Prefix, last: u8) -> SocketAddr {
        SocketAddr::new(prefix.embed([192, 0, 2, last].into()).into(), 443)
    }

    /// Of a gateway with these addresses, in a network whose resolver and router each tell a prefix.
    fn found(addresses: &[SocketAddr], known: &[SocketAddr], [resolver, router]: [Nat64Prefix; 2]) -> Found {
        let mut announced = AnnouncedPrefixes::default();
        let heard = Announcement { prefix: router, lifetime: Duration::from_secs(1800) };
        announced.handle_announcement(2, heard, tokio::time::Instant::now().into_std());
        Found {
            names: told(addresses.to_vec(), MOST_RESOLVED),
            prefixes: told(vec![resolver], MOST_PREFIXES),
            announced: watch::channel(announced).1,
            known: known.to_vec(),
            is_translated: true,
        }
    }

    #[test]
    fn addresses_of_ipv4_are_tried_as_the_network_shows_them_and_its_routers_word_comes_first() {
        let six: SocketAddr = "[2001:db8::5]:443".parse().unwrap();
        let [resolver, router] = ["2001:db8:64::", "64:ff9b::"].map(prefix);
        let mut found = found(&[six, address(1)], &[address(9)], [resolver, router]);
        let shown_ones = [shown(router, 1), shown(router, 9), shown(resolver, 1), shown(resolver, 9)];
        assert_eq!(found.all(), [&[six, address(1)][..], &shown_ones].concat());
        found.is_translated = false;
        assert_eq!(found.all(), [six, address(1)], "there is a way to hosts of IPv4");
    }

    #[test]
    fn only_what_the_network_made_of_the_gateways_addresses_is_turned_back() {
        let [resolver, router] = ["2001:db8:64::", "64:ff9b::"].map(prefix);
        let genuine: SocketAddr = "[2001:db8:64::5]:443".parse().unwrap();
        // The second one is the resolver's work, too: a name of IPv4 alone has no other address of IPv6 there (DNS64).
        let found = found(&[genuine, shown(resolver, 1), address(1)], &[address(9)], [resolver, router]);
        for (tried, original) in [
            (genuine, genuine),
            (shown(resolver, 1), address(1)),
            (shown(router, 9), address(9)),
            (shown(resolver, 7), shown(resolver, 7)),
            (address(1), address(1)),
        ] {
            assert_eq!(found.original(tried), original);
        }
    }
}
