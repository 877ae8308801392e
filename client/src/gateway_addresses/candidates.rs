//! The gateway's addresses in the order in which they are tried.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::found::{Found, distinct};
use super::{MOST_REMEMBERED, MOST_RESOLVED};

/// Addresses to try, one after the other, as they become known.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    waiting: VecDeque<SocketAddr>,
    given: Vec<SocketAddr>,
    /// What is still to come.
    found: Option<Found>,
}

impl Candidates {
    /// Those `known`, and what is found besides.
    pub(super) fn new(known: &[SocketAddr], found: Found) -> Self {
        Self { waiting: known.iter().copied().collect(), given: Vec::new(), found: Some(found) }
    }

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
            self.found.as_mut()?.changed().await;
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
        let found = self.found.as_ref().map(Found::all);
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
        let (addresses, is_complete) = found.look();
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

#[cfg(test)]
mod tests {
    use adit_program::task;
    use adit_proto::nat64::{AnnouncedPrefixes, Announcement, Nat64Prefix, PrefixLength};
    use tokio::sync::watch;
    use tokio::time::Instant;

    use super::super::found::{Telling, told};
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    /// Candidates of a gateway whose names are being asked for, and the answering end.
    fn asked(known: &[SocketAddr]) -> (Candidates, Telling<SocketAddr>) {
        let (telling, names) = Telling::begin(Vec::new(), MOST_RESOLVED);
        let (_, announced) = watch::channel(AnnouncedPrefixes::default());
        let prefixes = told(Vec::new(), 0);
        let found = Found { names, prefixes, announced, known: known.to_vec(), is_translated: false };
        (Candidates::new(known, found), telling)
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
        let (mut candidates, telling) = asked(&[address(9), address(8)]);
        assert!(candidates.is_ready().await);
        assert_eq!(candidates.next().await, Some(address(9)));
        telling.tell(vec![address(1), address(9)]);
        assert_eq!(candidates.next().await, Some(address(1)), "what a name has now comes before what it had");
        assert_eq!(candidates.next().await, Some(address(8)));
        let late = task::spawn(async move { candidates.next().await });
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        telling.tell(vec![address(2)]);
        assert_eq!(late.await.unwrap(), Some(address(2)), "an answer that is late is still tried");
    }

    #[tokio::test]
    async fn last_working_address_stays_first_and_nothing_comes_twice() {
        let (mut candidates, telling) = asked(&[address(9), address(2)]);
        telling.tell(vec![address(1), address(2), address(9)]);
        drop(telling);
        assert_eq!(candidates.known(), [address(9), address(2), address(1)]);
        assert_eq!(drain(&mut candidates).await, [address(9), address(1), address(2)]);
        assert_eq!(candidates.given().len(), 3);
    }

    #[tokio::test]
    async fn families_are_tried_in_turns_behind_the_address_that_worked_last() {
        let six = |last: u16| SocketAddr::new(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into(), 443);
        let (mut candidates, telling) = asked(&[address(9), address(8), six(8)]);
        telling.tell(vec![address(1), address(2), six(1), six(2)]);
        drop(telling);
        let order = [address(9), six(1), address(1), six(2), address(2), six(8), address(8)];
        assert_eq!(drain(&mut candidates).await, order);
    }

    #[tokio::test]
    async fn prefix_that_a_router_announces_is_used_at_once() {
        let prefix = Nat64Prefix::of("2001:db8:64::".parse().unwrap(), PrefixLength::Bits96);
        let (mut candidates, _telling) = asked(&[address(9)]);
        let (tell, announced) = watch::channel(AnnouncedPrefixes::default());
        candidates.found = candidates.found.map(|found| Found { announced, is_translated: true, ..found });
        assert_eq!(candidates.next().await, Some(address(9)));
        let waiting = task::spawn(async move { candidates.next().await });
        let heard = Announcement { prefix, lifetime: std::time::Duration::from_secs(1800) };
        tell.send_modify(|known| known.handle_announcement(2, heard, Instant::now().into_std()));
        let shown = SocketAddr::new(prefix.embed([192, 0, 2, 9].into()).into(), 443);
        assert_eq!(waiting.await.unwrap(), Some(shown), "no resolver has answered yet");
    }
}
