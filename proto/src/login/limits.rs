//! How often somebody may try to log in.
//!
//! Every try takes a token out of some buckets, which fill up again with time, and gets it back unless it fails:
//!
//! | bucket | tokens | one more |
//! | --- | --- | --- |
//! | a stranger's address (IPv6: its /64) | 10 | each minute |
//! | the network around it (/24, IPv6: /56) | 50 | each 12 s |
//! | the /48 around that, of IPv6 | 200 | each 3 s |
//! | an account from one stranger's address | 5 | each minute |
//! | an account from all strangers together | 20 | each 3 min; with none left, tries come up to 60 s apart |
//! | an account from one place that it is known to log in from | 10 | each 30 s |
//! | codes of an account, from strangers, from known places | 10 | each 6 min |
//! | links for a browser, by address | 60 | each 2 s |
//! | links, by the network around it, and by its /48 | 120, 240 | each second |
//! | links of a device that shows its certificate | 20 | each 30 s |
//!
//! Whoever comes from a place that the account is known to log in from meets the buckets of known places alone. A place
//! is a device of the account, and then nothing that anybody else does keeps them out; or a network, and then nothing
//! that is done from any other network does, nor what is tried on other accounts from the same one.
//!
//! The same password counts once in five minutes. If it is wrong, it is refused for as long without being tried again:
//! that spares a directory's own limits a program with an old password. If it failed for a reason that may pass, such
//! as a disabled user or an unknown name, it is tried again after 15 seconds. Memory is bounded: where there is no
//! room, those are forgotten who have failed least, and so have least to gain.

mod bucket;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use bucket::{Buckets, Key, Rate};

/// Most buckets at a time. With some 120 bytes for each that is 32 MB at most.
const ROOM: usize = 1 << 18;
/// How long a password that failed is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);

/// One try to log in.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The account it is for, whether that exists or not. Upper and lower case are one; whoever asks makes other
    /// spellings of one name one.
    pub account: &'a str,
    /// The client's outer address.
    pub address: IpAddr,
    /// The place it comes from, if the account is known to log in from there: its network, or the id of a device of the
    /// account whose certificate was checked.
    pub known: Option<&'a str>,
    /// What is tried.
    pub secret: Secret<'a>,
}

/// What is tried.
#[derive(Clone, Copy)]
pub enum Secret<'a> {
    /// A password.
    Password(&'a str),
    /// A code, or the answer to another question.
    Code,
    /// Nothing yet: a link for a browser is asked for. It has no account, and its token never comes back. With a known
    /// place, which is a device then, it meets the bucket of that device alone.
    Link,
}

/// Whether a try may go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may. How it ends is for [`LoginLimits::settle`].
    Go(Ticket),
    /// This very password failed a moment ago: it is refused without being tried.
    FailedBefore,
    /// Not before this time has passed.
    Wait(Duration),
}

/// What a try has taken that goes on.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a try whose outcome nobody tells counts as a failed one"]
pub struct Ticket {
    taken: Vec<(Key, Rate)>,
    /// The fingerprint of the password, and the bucket in which it is remembered if it fails.
    password: Option<(Key, u64)>,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was right, and the login is complete.
    LoggedIn,
    /// The password or code was wrong.
    Wrong,
    /// There is no such account, or it may not log in: whatever was tried may be right.
    Failed,
    /// Nobody could tell, or more is asked for.
    Open,
}

/// A network from which no stranger may try, for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// The network: one address, or the network around it.
    pub network: IpNet,
    /// How long it lasts yet.
    pub remaining: Duration,
}

/// The buckets of all tries.
pub struct LoginLimits {
    secret: [u8; 32],
    buckets: Buckets,
}

impl LoginLimits {
    /// Limits that nobody has met yet. What is remembered of accounts and passwords is hashed with `secret`, which is
    /// random and kept nowhere else.
    pub fn new(secret: [u8; 32]) -> Self {
        Self::with_room(secret, ROOM)
    }

    fn with_room(secret: [u8; 32], room: usize) -> Self {
        Self { secret, buckets: Buckets::new(room) }
    }

    /// Asks whether a try may go on now. One that may has taken its tokens: of many at once, no more get through than
    /// one after the other.
    pub fn admit(&mut self, attempt: &Attempt<'_>, now: Instant) -> Admission {
        let wanted = self.wanted(attempt);
        let password = match (attempt.secret, wanted.first()) {
            (Secret::Password(password), Some((key, _))) => {
                Some((*key, self.hash(&attempt.account.to_lowercase(), password)))
            }
            (Secret::Password(_) | Secret::Code | Secret::Link, _) => None,
        };
        if password.is_some_and(|(key, print)| self.buckets.is_refused(&key, print, now, REMEMBERED)) {
            return Admission::FailedBefore;
        }
        let wait = wanted.iter().map(|(key, rate)| self.buckets.wait(key, rate, now)).max().unwrap_or_default();
        if !wait.is_zero() {
            return Admission::Wait(wait);
        }
        for (key, rate) in &wanted {
            self.buckets.take(*key, rate, now);
        }
        Admission::Go(Ticket { taken: wanted, password })
    }

    /// Tells how a try ended that was let through.
    pub fn settle(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        let Ticket { taken, password } = ticket;
        let counts = match (outcome, password) {
            (Outcome::LoggedIn | Outcome::Open, _) => false,
            // Of several tries with the same password, one counts, however they failed: strangers could tell otherwise.
            (Outcome::Wrong | Outcome::Failed, Some((key, print))) => {
                !self.buckets.remember(&key, print, outcome == Outcome::Wrong, now, REMEMBERED)
            }
            (Outcome::Wrong | Outcome::Failed, None) => true,
        };
        if !counts {
            for (key, rate) in &taken {
                self.buckets.give_back(key, rate);
            }
        }
        if let (Outcome::LoggedIn, Some((key, _))) = (outcome, password) {
            self.buckets.forget(&key);
        }
    }

    /// Forgets every failure of an account. False if there was none.
    pub fn unlock(&mut self, account: &str) -> bool {
        let account = self.account(account);
        self.buckets.retain(|key| key.account() != Some(account))
    }

    /// Forgets the failures from an address or a network, and from every network in it or around it. False if there
    /// were none.
    pub fn unban(&mut self, network: IpNet) -> bool {
        self.buckets.retain(|key| match key {
            Key::Network(other) | Key::Links(other) => !(network.contains(other) || other.contains(&network)),
            Key::LinksOf(_) | Key::Pair(..) | Key::Strangers(_) | Key::Known(..) | Key::Codes(..) => true,
        })
    }

    /// The networks from which no stranger may try now.
    pub fn bans(&self, now: Instant) -> Vec<Ban> {
        let networks = self.buckets.keys().filter_map(|key| match key {
            Key::Network(network) => Some((*network, self.buckets.wait(key, &rate_of(*network), now))),
            Key::Links(_) | Key::LinksOf(_) | Key::Pair(..) | Key::Strangers(_) | Key::Known(..) | Key::Codes(..) => {
                None
            }
        });
        networks.filter(|(_, wait)| !wait.is_zero()).map(|(network, remaining)| Ban { network, remaining }).collect()
    }

    /// The buckets that a try takes from. That of the account and the place is the first, where there is one.
    fn wanted(&self, attempt: &Attempt<'_>) -> Vec<(Key, Rate)> {
        let account = self.account(attempt.account);
        let networks = networks_of(attempt.address);
        let known = attempt.known.map(|place| self.hash(place, ""));
        let first = match (attempt.secret, known) {
            (Secret::Link, Some(device)) => return vec![(Key::LinksOf(device), Rate::LINKS_OF)],
            (Secret::Link, None) => return networks.map(Key::Links).zip(Rate::LINKS).collect(),
            (Secret::Password(_), Some(place)) => (Key::Known(account, place), Rate::KNOWN),
            (Secret::Password(_), None) => {
                let address = host_of(attempt.address).to_string();
                (Key::Pair(account, self.hash(&address, "")), Rate::PAIR)
            }
            (Secret::Code, _) => (Key::Codes(account, known.is_some()), Rate::CODES),
        };
        let mut wanted = vec![first];
        if known.is_none() {
            wanted.extend(networks.map(Key::Network).zip(Rate::FAILURES));
            if matches!(attempt.secret, Secret::Password(_)) {
                wanted.push((Key::Strangers(account), Rate::STRANGERS));
            }
        }
        wanted
    }

    fn account(&self, name: &str) -> u64 {
        self.hash("", &name.to_lowercase())
    }

    /// A fingerprint of two texts, that nobody can make without the secret.
    fn hash(&self, first: &str, second: &str) -> u64 {
        let mut digest = Sha256::new();
        digest.update(self.secret);
        digest.update(u64::try_from(first.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(first.as_bytes());
        digest.update(second.as_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        digest.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
    }
}

/// The network that stands for a place from which an account logs in: a /24, or a /48 of IPv6.
pub fn known_network(address: IpAddr) -> IpNet {
    around(address, 24, 48)
}

/// Sizes of networks whose tries count together, in prefix bits: as much as one host has, its neighbours, and the
/// largest that one site is usually given.
const SIZES_V4: [u8; 2] = [32, 24];
const SIZES_V6: [u8; 3] = [64, 56, 48];

/// The networks of an address of which tries count together, the smallest first.
fn networks_of(address: IpAddr) -> impl Iterator<Item = IpNet> {
    let is_v4 = address.to_canonical().is_ipv4();
    let sizes: &[u8] = if is_v4 { &SIZES_V4 } else { &SIZES_V6 };
    sizes.iter().map(move |bits| around(address, *bits, *bits))
}

/// As much as one host has.
fn host_of(address: IpAddr) -> IpNet {
    around(address, 32, 64)
}

fn around(address: IpAddr, v4: u8, v6: u8) -> IpNet {
    let address = address.to_canonical();
    let prefix = if address.is_ipv4() { v4 } else { v6 };
    IpNet::new_assert(address, prefix).trunc()
}

/// The rate of failures of one of the networks of [`networks_of`].
fn rate_of(network: IpNet) -> Rate {
    let [host, neighbours, site] = Rate::FAILURES;
    match network.prefix_len() {
        32 | 64 => host,
        24 | 56 => neighbours,
        _ => site,
    }
}
