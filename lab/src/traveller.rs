//! A host that moves: it gets another address, its link is gone for a while, or it comes into a network of the other
//! address family. When and how far is chance, the same for each seed.

use std::thread;
use std::time::{Duration, Instant};

use adit_netem::random::Random;
use anyhow::Result;

use super::{GATEWAY_V4, GATEWAY_V6, Host};

/// The link to the gateway.
const LINK: &str = "eth0";
/// Longest pause before a move.
const PAUSE: Duration = Duration::from_millis(2_500);
/// Longest time without a link.
const OUTAGE: Duration = Duration::from_millis(1_500);
/// Addresses of the first client's network of IPv4 beside the gateway's: from this number on, so many.
const FIRST: u8 = 18;
const ADDRESSES: u8 = 13;

/// What becomes of a host's place in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It gets another address.
    Address,
    /// It gets another address, of the other family.
    Family,
    /// Its link is gone for a while, and it gets another address.
    Outage,
}

impl Move {
    /// All, in the order in which they take turns.
    pub const ALL: [Self; 3] = [Self::Address, Self::Family, Self::Outage];
}

/// A lab's first client, which moves.
#[derive(Debug)]
pub struct Traveller {
    host: Host,
    home: Home,
    random: Random,
}

impl Traveller {
    /// Takes the address of IPv6 from a host that has one of each family, so that it is at one place.
    ///
    /// # Errors
    /// Fails where the host is not as [`Lab::standard`](super::Lab::standard) made it.
    pub fn settle(host: &Host, seed: u64) -> Result<Self> {
        Home { is_v6: true, number: 2 }.go(host)?;
        Ok(Self { host: host.clone(), home: Home { is_v6: false, number: FIRST }, random: Random::new(seed, "moves") })
    }

    /// How long it stays where it is.
    pub fn stay(&mut self) -> Duration {
        PAUSE.mul_f64(self.random.unit())
    }

    /// The longest that it stays anywhere.
    pub fn longest_stay() -> Duration {
        PAUSE
    }

    /// Moves; says when the host had its link and an address again.
    ///
    /// # Errors
    /// Fails where ip is not installed.
    pub fn travel(&mut self, how: Move) -> Result<Instant> {
        let is_v6 = self.home.is_v6 != (how == Move::Family);
        let next = Home { is_v6, number: another(self.home.number, &mut self.random) };
        self.home.go(&self.host)?;
        if how == Move::Outage {
            self.host.set_link(LINK, false)?;
            thread::sleep(OUTAGE.mul_f64(self.random.unit()));
            self.host.set_link(LINK, true)?;
        }
        next.come(&self.host)?;
        self.home = next;
        Ok(Instant::now())
    }
}

/// An address that is not the one of before.
fn another(number: u8, random: &mut Random) -> u8 {
    let steps = 1 + u8::try_from(random.draw() % u64::from(ADDRESSES - 1)).expect("a few steps");
    FIRST + (number.saturating_sub(FIRST) + steps) % ADDRESSES
}

/// A host's only outer address: the last number of it, in one of the families.
#[derive(Debug, Clone, Copy)]
struct Home {
    is_v6: bool,
    number: u8,
}

impl Home {
    /// The command by which the address comes or goes.
    fn address(self, verb: &str) -> String {
        match self.is_v6 {
            false => format!("address {verb} 192.0.2.{}/28 dev {LINK}", self.number),
            true => format!("-6 address {verb} 2001:db8:0:1::{}/64 dev {LINK}", self.number),
        }
    }

    fn route(self, verb: &str) -> String {
        match self.is_v6 {
            false => format!("route {verb} default via {GATEWAY_V4} dev {LINK}"),
            true => format!("-6 route {verb} default via {GATEWAY_V6} dev {LINK}"),
        }
    }

    fn come(self, host: &Host) -> Result<()> {
        let usable_at_once = if self.is_v6 { " nodad" } else { "" };
        host.ip(&format!("{}{usable_at_once}", self.address("add")))?;
        host.ip(&self.route("add"))?;
        Ok(())
    }

    fn go(self, host: &Host) -> Result<()> {
        host.ip(&self.route("del"))?;
        host.ip(&self.address("del"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_address_is_another_one_of_the_network() {
        let mut random = Random::seeded(1);
        let mut number = FIRST;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let next = another(number, &mut random);
            assert!(next != number && (FIRST..FIRST + ADDRESSES).contains(&next), "{number} {next}");
            seen.insert(next);
            number = next;
        }
        assert_eq!(seen.len(), usize::from(ADDRESSES));
    }
}
