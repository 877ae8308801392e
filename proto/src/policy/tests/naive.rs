//! What a policy means, said once more in the plainest way: texts and numbers, no types of the evaluator.

use proptest::prelude::*;

pub(super) const NAMES: [&str; 2] = ["wiki.example.org", "git.example.org"];

#[derive(Debug, Clone)]
pub(super) struct RawPolicy {
    /// Members of each group, as texts.
    pub(super) groups: Vec<Vec<String>>,
    pub(super) rules: Vec<RawRule>,
}

#[derive(Debug, Clone)]
pub(super) struct RawRule {
    pub(super) everybody: bool,
    pub(super) groups: Vec<usize>,
    pub(super) users: Vec<String>,
    pub(super) allow: bool,
    pub(super) everywhere: bool,
    pub(super) nets: Vec<RawNet>,
    pub(super) names: Vec<usize>,
    pub(super) ports: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct RawNet {
    pub(super) v6: bool,
    pub(super) bits: u128,
    pub(super) len: u8,
}

#[derive(Debug, Clone)]
pub(super) struct RawPerson {
    pub(super) user: String,
    pub(super) source: String,
    pub(super) source_groups: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct RawFlow {
    pub(super) v6: bool,
    pub(super) bits: u128,
    pub(super) protocol: u8,
    pub(super) port: Option<u16>,
    /// The names that have its destination as an address.
    pub(super) names: Vec<usize>,
}

/// Whether the flow passes, and the number of the rule that said so.
pub(super) fn verdict(policy: &RawPolicy, person: &RawPerson, flow: &RawFlow) -> (bool, Option<usize>) {
    for (number, rule) in policy.rules.iter().enumerate() {
        let mut concerned = rule.everybody || rule.users.contains(&person.user);
        for group in &rule.groups {
            for member in &policy.groups[*group] {
                concerned |= *member == person.user;
                for said in &person.source_groups {
                    concerned |= *member == format!("{}:{said}", person.source);
                }
            }
        }
        if concerned && goes_there(rule, flow) && is_service(rule, flow) {
            return (rule.allow, Some(number));
        }
    }
    (policy.rules.is_empty(), None)
}

fn goes_there(rule: &RawRule, flow: &RawFlow) -> bool {
    if rule.everywhere || rule.names.iter().any(|name| flow.names.contains(name)) {
        return true;
    }
    rule.nets.iter().any(|net| {
        let width = if net.v6 { 128 } else { 32 };
        let differing = flow.bits ^ net.bits;
        let host_bits = width - u32::from(net.len);
        net.v6 == flow.v6 && differing.checked_shr(host_bits).unwrap_or(0) == 0
    })
}

fn is_service(rule: &RawRule, flow: &RawFlow) -> bool {
    if rule.ports.is_empty() {
        return true;
    }
    rule.ports.iter().any(|text| {
        if text == "icmp" {
            return flow.protocol == if flow.v6 { 58 } else { 1 };
        }
        let (protocol, ports) = text.split_once('/').unwrap_or((text, "0-65535"));
        if flow.protocol != if protocol == "tcp" { 6 } else { 17 } {
            return false;
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last): (u16, u16) = (first.parse().unwrap(), last.parse().unwrap());
        match flow.port {
            Some(port) => first <= port && port <= last,
            None => !rule.allow,
        }
    })
}

// Everything is drawn from a small world, so that rules meet flows.

fn users() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["alice", "bob", "carol"]).prop_map(str::to_owned)
}

fn members() -> impl Strategy<Value = String> {
    let texts = vec!["alice", "bob", "carol", "ldap:staff", "ldap:ops", "oidc:staff"];
    prop::sample::select(texts).prop_map(str::to_owned)
}

/// Addresses 10.0.a.b and fd00::a:b, where a and b are less than 4.
fn bits(v6: bool, a: u128, b: u128) -> u128 {
    if v6 { (0xfd00 << 112) | (a << 16) | b } else { 0x0a00_0000 | (a << 8) | b }
}

fn nets() -> impl Strategy<Value = RawNet> {
    let length = prop::sample::select(vec![0, 1, 2, 8, 9, 10, 31, 32, 1000]);
    (any::<bool>(), 0..4_u128, 0..4_u128, length).prop_map(|(v6, a, b, host_bits)| {
        let width = if v6 { 128 } else { 32 };
        RawNet { v6, bits: bits(v6, a, b), len: u8::try_from(width - host_bits.min(width)).unwrap() }
    })
}

fn ports() -> impl Strategy<Value = String> {
    let texts = vec!["tcp", "udp", "icmp", "tcp/80", "tcp/1-79", "tcp/80-443", "udp/53", "udp/53-80", "tcp/65535"];
    prop::sample::select(texts).prop_map(str::to_owned)
}

fn rule(groups: usize) -> impl Strategy<Value = RawRule> {
    (
        prop::bool::weighted(0.2),
        prop::collection::vec(0..groups, 0..3),
        prop::collection::vec(users(), 0..2),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::collection::vec(nets(), 0..4),
        prop::collection::vec(0..NAMES.len(), 0..2),
        prop::collection::vec(ports(), 0..4),
    )
        .prop_map(|(everybody, groups, users, allow, everywhere, nets, names, ports)| RawRule {
            everybody,
            groups,
            users,
            allow,
            everywhere,
            nets,
            names: if everywhere { Vec::new() } else { names },
            ports,
        })
}

pub(super) fn policy() -> impl Strategy<Value = RawPolicy> {
    let groups = prop::collection::vec(prop::collection::vec(members(), 0..3), 3);
    (groups, prop::collection::vec(rule(3), 0..8)).prop_map(|(groups, rules)| RawPolicy { groups, rules })
}

pub(super) fn person() -> impl Strategy<Value = RawPerson> {
    let sources = prop::sample::select(vec!["local", "ldap", "oidc"]);
    let said = prop::sample::subsequence(vec!["staff", "ops"], 0..=2);
    (users(), sources, said).prop_map(|(user, source, said)| RawPerson {
        user,
        source: source.to_owned(),
        source_groups: said.into_iter().map(str::to_owned).collect(),
    })
}

pub(super) fn flow() -> impl Strategy<Value = RawFlow> {
    let protocols = prop::sample::select(vec![1, 6, 6, 6, 17, 17, 47, 58]);
    let port =
        prop::sample::select(vec![None, Some(1), Some(53), Some(79), Some(80), Some(81), Some(443), Some(65_535)]);
    let names = prop::sample::subsequence(vec![0, 1], 0..=2);
    (any::<bool>(), 0..4_u128, 0..4_u128, protocols, port, names).prop_map(|(v6, a, b, protocol, port, names)| {
        let port = port.filter(|_| [6, 17].contains(&protocol));
        RawFlow { v6, bits: bits(v6, a, b), protocol, port, names }
    })
}
