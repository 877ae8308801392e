//! Who comes from which address, and how many connections a flood has.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

use super::flood;
use super::options::Options;
use super::site::{FROM_HOME, WITH_DEVICE};

/// The addresses for benchmarks (RFC 2544 appendix C.2.2), of which the first is a host's own.
pub(super) const ALL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 1), 15);
/// Where one user logged in before.
pub(super) const HOME: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 9);
/// Where the user with a device is, and where strangers are, while nobody floods.
pub(super) const ON_THE_WAY: Ipv4Addr = Ipv4Addr::new(198, 19, 254, 9);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 19, 253, 9);
/// Networks from which a flood from many addresses comes.
const NETWORKS: u8 = 32;
/// Phases of a round.
pub(super) const ROUND: [Flooders; 4] = [Flooders::Nobody, Flooders::One, Flooders::Nobody, Flooders::Many];

/// Where a flood comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Flooders {
    /// There is none.
    Nobody,
    /// One address.
    One,
    /// Many addresses of many networks.
    Many,
}

impl Flooders {
    /// For whoever watches.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Nobody => "nobody floods the gateway",
            Self::One => "one address floods the gateway",
            Self::Many => "many addresses flood the gateway",
        }
    }
}

/// One part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Its round, from 0 on.
    pub(super) round: u8,
    /// Its place in the round.
    pub(super) place: u8,
    pub(super) flooders: Flooders,
}

/// All parts of a run, in order.
pub(super) fn parts(rounds: u8) -> impl Iterator<Item = Part> {
    (0..rounds).flat_map(|round| (0_u8..).zip(ROUND).map(move |(place, flooders)| Part { round, place, flooders }))
}

/// Connections of a flood from one address at this rate. Each carries four requests at a time, and a refusal takes a
/// second; two where a hash is waited for, as in floods from many addresses.
pub(super) fn connections(rate: u32) -> usize {
    (rate * 2 / 5) as usize
}

impl Part {
    /// The flood of this part, if there is one.
    pub(super) fn flood(self, rate: u32) -> Option<flood::Plan> {
        let (addresses, connections) = match self.flooders {
            Flooders::Nobody => return None,
            Flooders::One => (vec![Ipv4Addr::new(198, 19, self.round, 7)], connections(rate)),
            Flooders::Many => {
                let all = (1..=u8::MAX).flat_map(|host| {
                    (0..NETWORKS).map(move |network| Ipv4Addr::new(198, 18, self.round * NETWORKS + network, host))
                });
                (all.take(rate as usize / 2).collect(), rate as usize)
            }
        };
        let users = [WITH_DEVICE, FROM_HOME].map(str::to_owned).to_vec();
        Some(flood::Plan { addresses, connections, rate, users, mark: format!("{} {}", self.round, self.place) })
    }

    /// Where the user with a device is: where the flood comes from, if there is one.
    pub(super) fn of_device(self, rate: u32) -> Ipv4Addr {
        self.flooded(rate).unwrap_or(ON_THE_WAY)
    }

    /// Where strangers are: where the flood comes from, if there is one.
    pub(super) fn of_strangers(self, rate: u32) -> Ipv4Addr {
        self.flooded(rate).unwrap_or(ELSEWHERE)
    }

    fn flooded(self, rate: u32) -> Option<Ipv4Addr> {
        self.flood(rate)?.addresses.first().copied()
    }

    /// The strangers of this part, each of whom logs in once: afterwards their network is known.
    pub(super) fn strangers(self, options: &Options) -> Vec<String> {
        let each = strangers_of_a_part(options);
        let part = u64::from(self.round) * ROUND.len() as u64 + u64::from(self.place);
        (part * each..(part + 1) * each).map(stranger).collect()
    }
}

/// The strangers of all parts.
pub(super) fn strangers(options: &Options) -> impl Iterator<Item = String> {
    (0..u64::from(options.rounds()) * ROUND.len() as u64 * strangers_of_a_part(options)).map(stranger)
}

/// One a second.
fn strangers_of_a_part(options: &Options) -> u64 {
    options.duration().as_secs() + 1
}

fn stranger(number: u64) -> String {
    format!("guest{number}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::options::MOST_ROUNDS;
    use super::super::options::tests::parsed;
    use super::*;

    #[test]
    fn floods_share_no_address_with_each_other_or_with_users_who_are_known() {
        let floods = parts(MOST_ROUNDS).filter_map(|part| part.flood(1_600));
        let all: Vec<Ipv4Addr> = floods.flat_map(|plan| plan.addresses).collect();
        let different: BTreeSet<Ipv4Addr> = all.iter().copied().collect();
        assert_eq!(all.len(), different.len());
        assert!(different.iter().all(|address| ALL.contains(address)), "{different:?}");
        let network = |address: Ipv4Addr| Ipv4Net::new_assert(address, 24).trunc();
        for user in [HOME, ON_THE_WAY, ELSEWHERE] {
            assert!(different.iter().all(|address| network(*address) != network(user)), "{user}");
        }
    }

    #[test]
    fn flood_has_room_for_its_rate() {
        for rate in [10, 100, 1_000, 1_600] {
            for plan in parts(1).filter_map(|part| part.flood(rate)) {
                assert!(plan.connections * 4 >= rate as usize, "{rate}: {}", plan.connections);
            }
        }
    }

    #[test]
    fn every_stranger_comes_once() {
        let options = parsed(&["--rounds", "2", "--duration", "4s"]);
        let of_parts: Vec<String> = parts(2).flat_map(|part| part.strangers(&options)).collect();
        assert_eq!(of_parts, strangers(&options).collect::<Vec<_>>());
        assert_eq!(of_parts.len(), 2 * 4 * 5);
    }
}
