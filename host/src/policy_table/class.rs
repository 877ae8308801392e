//! The chains of a class: its rules in order, for one address family.

use std::borrow::Cow;
use std::net::IpAddr;

use adit_proto::policy::{CompiledRule, PortMatch};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::PolicyClass;
use super::content::{ALLOWED, REFUSED};
use crate::nft::{Batch, Element, Holds, Key, Rule, Set};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The sets with the addresses of a name, by their number: one for each address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameSets(pub(super) usize);

impl NameSets {
    /// The name of the set with addresses of this kind.
    pub(super) fn of(self, key: Key) -> String {
        format!("name{}_{}", self.0, word(key))
    }
}

/// The name of the set with the members of a class that have addresses of this kind.
pub(super) fn members(class: u32, key: Key) -> String {
    format!("class{class}_{}_members", word(key))
}

/// The names in the rules of a class.
pub(super) fn names(class: &PolicyClass) -> impl Iterator<Item = &str> {
    class.rules.rules.iter().flat_map(|rule| &rule.names).map(String::as_str)
}

/// Makes the chain of a class for addresses of this kind, and returns its name. The sets of its names have to be there.
pub(super) fn fill(
    class: &PolicyClass,
    key: Key,
    sets_of: impl Fn(&str) -> Option<NameSets>,
    batch: &mut Batch,
) -> String {
    let chain = format!("class{}_{}", class.number, word(key));
    batch.create_inner_chain(&chain);
    for (number, run) in runs(&class.rules.rules).enumerate() {
        let set = format!("{chain}_{number}");
        let mut places = Vec::new();
        match networks(run, key) {
            Networks::None => {}
            Networks::All => places.push(Place::Everywhere),
            Networks::One(net) => places.push(Place::Net(net)),
            Networks::Ranges(ranges) => {
                batch.create_named_set(&Set { name: set.clone(), key, holds: Holds::Ranges });
                batch.add_elements(&set, ranges.into_iter().flat_map(|(first, last)| Element::range(first, last)));
                places.push(Place::Set(set));
            }
        }
        let names = run.iter().flat_map(|rule| &rule.names).filter_map(|name| sets_of(name));
        places.extend(names.map(|sets| Place::Set(sets.of(key))));
        for rule in rules(class, &chain, run, key, &places) {
            batch.append_rule(&rule);
        }
    }
    batch.append_rule(&Rule::new(chain.clone()).go_to(REFUSED, format!("class {}: no rule", class.number)));
    chain
}

/// Where packets go that a rule matches.
enum Place {
    Everywhere,
    Net(IpNet),
    Set(String),
}

/// Neighbours that say the same of the same services: to the kernel they are one rule.
fn runs(rules: &[CompiledRule]) -> impl Iterator<Item = &[CompiledRule]> {
    rules.chunk_by(|one, next| one.allow == next.allow && one.ports == next.ports)
}

fn rules(class: &PolicyClass, chain: &str, run: &[CompiledRule], key: Key, places: &[Place]) -> Vec<Rule> {
    let Some(first) = run.first() else { return Vec::new() };
    let start = || Rule::new(Cow::Owned(chain.to_owned()));
    let services: Vec<Rule> = match &first.ports[..] {
        [] => vec![start()],
        ports => ports.iter().map(|service| to_service(start(), service, key)).collect(),
    };
    let verdict = |rule: Rule| match first.allow {
        true => rule.go_on_in(ALLOWED),
        false => rule.go_to(REFUSED, format!("class {}: denied", class.number)),
    };
    let all = services.iter().flat_map(|service| places.iter().map(|place| to_place(service.clone(), place, key)));
    all.map(verdict).collect()
}

fn to_service(rule: Rule, service: &PortMatch, key: Key) -> Rule {
    match service {
        PortMatch::Icmp => rule.protocol(if key == Key::V6 { ICMPV6 } else { ICMP }),
        PortMatch::Ports { transport, ports } => {
            let rule = rule.protocol(transport.number());
            match (*ports.start(), *ports.end()) {
                (0, u16::MAX) => rule,
                (low, high) => rule.destination_ports(low, high),
            }
        }
    }
}

fn to_place(rule: Rule, place: &Place, key: Key) -> Rule {
    match place {
        Place::Everywhere => rule,
        Place::Net(net) => rule.destination_of_family_in(*net),
        Place::Set(set) => rule.destination_in_set(key, set),
    }
}

/// The networks of one address family to which some rules are about.
enum Networks {
    None,
    All,
    One(IpNet),
    /// From one address to another, in order, with others between any two.
    Ranges(Vec<(IpAddr, IpAddr)>),
}

fn networks(run: &[CompiledRule], key: Key) -> Networks {
    let nets: Vec<IpNet> = match key {
        Key::V4 => {
            let all: Vec<Ipv4Net> = run.iter().flat_map(|rule| rule.v4.iter().copied()).collect();
            Ipv4Net::aggregate(&all).into_iter().map(IpNet::V4).collect()
        }
        Key::V6 => {
            let all: Vec<Ipv6Net> = run.iter().flat_map(|rule| rule.v6.iter().copied()).collect();
            Ipv6Net::aggregate(&all).into_iter().map(IpNet::V6).collect()
        }
    };
    match nets[..] {
        [] => Networks::None,
        [net] if net.prefix_len() == 0 => Networks::All,
        [net] => Networks::One(net),
        _ => Networks::Ranges(ranges(nets)),
    }
}

/// Networks that do not overlap as ranges; neighbours become one.
fn ranges(mut nets: Vec<IpNet>) -> Vec<(IpAddr, IpAddr)> {
    nets.sort_unstable();
    let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::new();
    for net in nets {
        match ranges.last_mut() {
            Some((_, last)) if next(*last) == Some(net.network()) => *last = net.broadcast(),
            Some(_) | None => ranges.push((net.network(), net.broadcast())),
        }
    }
    ranges
}

/// The address behind another, if there is one.
fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn word(key: Key) -> &'static str {
    match key {
        Key::V4 => "v4",
        Key::V6 => "v6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_networks_become_one_range() {
        let nets = ["10.1.2.0/24", "10.1.3.0/24", "10.0.0.0/30", "10.0.0.8/29", "10.1.1.0/24"];
        let expected = [("10.0.0.0", "10.0.0.3"), ("10.0.0.8", "10.0.0.15"), ("10.1.1.0", "10.1.3.255")];
        let expected = expected.map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap()));
        assert_eq!(ranges(nets.map(|net| net.parse().unwrap()).to_vec()), expected);
    }
}
