//! Random policies and random packets: the kernel says of each what the evaluator says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use adit_net::tun::Tun;
use adit_proto::policy::{Flow, PortMatch, Transport};
use adit_testing::eventually;

use super::*;
use crate::test_packets::{ICMP, ICMPV6, checksum, read};

/// Policies, and packets under each.
const POLICIES: usize = 60;
const PACKETS: usize = 200;
/// Users, each with a class of its own.
const USERS: [&str; 3] = ["alice", "bob", "carol"];
/// Whose packets always pass, and come after all others.
const LAST: [u8; 4] = [10, 64, 3, 99];

const FRAGMENT_HEADER: u8 = 44;

/// Numbers that look random (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// A network of few, so that rules overlap, lie in each other and lie beside each other.
    fn network(&mut self) -> ipnet::IpNet {
        let low = u8::try_from(self.below(8)).unwrap();
        match self.below(12) {
            0 => "0.0.0.0/0".parse().unwrap(),
            1 => "::/0".parse().unwrap(),
            2..=7 => {
                let length = self.pick(&[15, 23, 24, 29, 30, 31, 32]);
                ipnet::Ipv4Net::new(Ipv4Addr::new(10, 1, low / 2, low * 8 + low), length).unwrap().trunc().into()
            }
            _ => {
                let length = self.pick(&[47, 63, 64, 125, 127, 128]);
                let address = Ipv6Addr::new(0x2001, 0xdb8, 0x13, u16::from(low / 2), 0, 0, 0, u16::from(low));
                ipnet::Ipv6Net::new(address, length).unwrap().trunc().into()
            }
        }
    }

    fn service(&mut self) -> PortMatch {
        let transport = self.pick(&[Transport::Tcp, Transport::Udp]);
        let port = u16::try_from(self.below(6)).unwrap() + 50;
        let ports = match self.below(8) {
            0 => return PortMatch::Icmp,
            1 => 0..=u16::MAX,
            2 => port..=u16::MAX,
            3 => 1..=port,
            4 | 5 => port..=port + 2,
            _ => port..=port,
        };
        PortMatch::Ports { transport, ports }
    }

    fn rule(&mut self) -> PolicyRule {
        let who = match self.below(4) {
            0 => Who::Listed { groups: Vec::new(), users: vec![self.pick(&USERS).to_owned()] },
            _ => Who::Everybody,
        };
        let networks: Vec<_> = (0..=self.below(4)).map(|_| self.network()).collect();
        let ports = if self.one_in(3) { Vec::new() } else { (0..=self.below(3)).map(|_| self.service()).collect() };
        let action = self.pick(&[Action::Allow, Action::Allow, Action::Deny]);
        PolicyRule { who, action, to: Destinations::new(&networks, Vec::new()), ports, line: 1 }
    }

    fn document(&mut self) -> PolicyDocument {
        let rules = (0..=self.below(12)).map(|_| self.rule()).collect();
        PolicyDocument::new(Vec::new(), rules, Vec::new()).unwrap()
    }

    fn packet(&mut self, number: u16) -> Packet {
        let destination: IpAddr = match self.network() {
            ipnet::IpNet::V4(net) if net.prefix_len() == 0 => INTERNET.into(),
            ipnet::IpNet::V6(net) if net.prefix_len() == 0 => v6::INTERNET.parse().unwrap(),
            // The edges of networks, and what is just behind.
            ipnet::IpNet::V4(net) => {
                let behind = Ipv4Addr::from_bits(net.broadcast().to_bits() + 1);
                self.pick(&[net.network(), net.broadcast(), behind]).into()
            }
            ipnet::IpNet::V6(net) => {
                let behind = Ipv6Addr::from_bits(net.broadcast().to_bits() + 1);
                self.pick(&[net.network(), net.broadcast(), behind]).into()
            }
        };
        let icmp = if destination.is_ipv4() { ICMP } else { ICMPV6 };
        let protocol = self.pick(&[TCP, UDP, TCP, UDP, icmp]);
        let port = (protocol != icmp).then(|| u16::try_from(self.below(9)).unwrap() + 49);
        let is_fragmented = protocol == UDP && self.one_in(4);
        Packet { user: self.below(USERS.len()), flow: Flow { protocol, destination, port }, is_fragmented, number }
    }
}

/// A packet that begins a flow.
#[derive(Debug)]
struct Packet {
    user: usize,
    flow: Flow,
    is_fragmented: bool,
    /// Tells it from all others of its policy: its source port, or the number of its ping.
    number: u16,
}

fn address_v4(user: usize) -> [u8; 4] {
    [10, 64, 3, 10 + u8::try_from(user).unwrap()]
}

fn address_v6(user: usize) -> String {
    format!("fd12:3456:789a::{}", 10 + user)
}

impl Packet {
    fn payload(&self) -> Vec<u8> {
        let number = self.number.to_be_bytes();
        match (self.flow.protocol, self.flow.port.unwrap_or_default().to_be_bytes()) {
            (ICMP, _) => [&[8, 0, 0, 0][..], &number, &[0, 0]].concat(),
            (ICMPV6, _) => [&[128, 0, 0, 0][..], &number, &[0, 0]].concat(),
            (TCP, port) => [&number[..], &port, &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x40, 0, 0, 0, 0, 0]].concat(),
            (_, port) => [&number[..], &port, &[0, 32, 0, 0], &[0; 24]].concat(),
        }
    }

    /// The packet, or its fragments in the wrong order.
    fn bytes(&self) -> Vec<Vec<u8>> {
        let (protocol, payload) = (self.flow.protocol, self.payload());
        let checksum_at = match protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
        let destination = self.flow.destination;
        let source = match destination {
            IpAddr::V4(_) => v4(address_v4(self.user)),
            IpAddr::V6(_) => address_v6(self.user).parse().unwrap(),
        };
        let whole = transport(source, destination, protocol, payload, checksum_at);
        if !self.is_fragmented {
            return vec![whole];
        }
        let [first, last] = match destination {
            IpAddr::V4(_) => fragments_v4(&whole, self.number),
            IpAddr::V6(_) => fragments_v6(&whole, self.number),
        };
        vec![last, first]
    }
}

/// Splits an IPv4 packet after the first 8 bytes of its payload (RFC 791 section 3.2).
pub(super) fn fragments_v4(packet: &[u8], identification: u16) -> [Vec<u8>; 2] {
    let fragment = |payload: &[u8], offset: [u8; 2]| {
        let mut header = packet[..20].to_vec();
        header[2..4].copy_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
        header[4..6].copy_from_slice(&identification.to_be_bytes());
        header[6..8].copy_from_slice(&offset);
        header[10..12].fill(0);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum);
        [&header, payload].concat()
    };
    [fragment(&packet[20..28], [0x20, 0]), fragment(&packet[28..], [0, 1])]
}

/// Splits an IPv6 packet after the first 8 bytes of its payload (RFC 8200 section 4.5).
fn fragments_v6(packet: &[u8], identification: u16) -> [Vec<u8>; 2] {
    let fragment = |payload: &[u8], offset: [u8; 2]| {
        let mut header = packet[..40].to_vec();
        header[4..6].copy_from_slice(&u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
        let protocol = std::mem::replace(&mut header[6], FRAGMENT_HEADER);
        [&header, &[protocol, 0][..], &offset, &[0, 0], &identification.to_be_bytes(), payload].concat()
    };
    [fragment(&packet[40..48], [0, 1]), fragment(&packet[48..], [0, 8])]
}

/// The number of a packet that came out; `None` for a later fragment, and for what the kernel says of itself.
fn number_of(packet: &[u8]) -> Option<u16> {
    let (protocol, payload) = match packet[0] >> 4 {
        4 => (packet[9], (packet[6] & 0x1f == 0 && packet[7] == 0).then(|| &packet[20..])?),
        _ if packet[6] == FRAGMENT_HEADER => (packet[40], (packet[42..44] == [0, 1]).then(|| &packet[48..])?),
        _ => (packet[6], &packet[40..]),
    };
    let number = |at: usize| Some(u16::from_be_bytes([*payload.get(at)?, *payload.get(at + 1)?]));
    match protocol {
        TCP | UDP => number(0),
        ICMP if payload[0] == 8 => number(4),
        ICMPV6 if payload[0] == 128 => number(4),
        _ => None,
    }
}

/// Takes all packets that wait in a device.
fn take(tun: &Tun) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| read(tun)).collect()
}

/// Puts a policy in force and returns what it says of each packet.
fn enforce(table: &PolicyTable, document: &PolicyDocument, packets: &[Packet]) -> BTreeMap<u16, Action> {
    let mut members = HashMap::from([(v4(LAST), class(99, vec![allow("0.0.0.0/0", "udp/9")]))]);
    let classes = USERS.map(|user| document.class_in(user, &[]));
    for (user, class) in classes.iter().enumerate() {
        let number = u32::try_from(user).unwrap();
        let class = Arc::new(PolicyClass { number, rules: document.compiled(class) });
        members.insert(v4(address_v4(user)), Arc::clone(&class));
        members.insert(address_v6(user).parse().unwrap(), class);
    }
    table.replace(members).unwrap();
    packets.iter().map(|packet| (packet.number, document.verdict(&classes[packet.user], &packet.flow).action)).collect()
}

/// The numbers of the packets that the kernel forwards, of which `wanted` have to come.
fn forwarded(router: &Router, packets: &[Packet], wanted: &BTreeSet<u16>) -> BTreeSet<u16> {
    let mut passed = BTreeSet::new();
    for some in packets.chunks(50) {
        some.iter().flat_map(Packet::bytes).for_each(|packet| give(&router.tunnel, &packet));
        passed.extend(take(&router.internet).iter().filter_map(|packet| number_of(packet)));
        take(&router.tunnel);
    }
    eventually("every allowed packet is forwarded", || {
        passed.extend(take(&router.internet).iter().filter_map(|packet| number_of(packet)));
        wanted.is_subset(&passed).then_some(())
    });
    give(&router.tunnel, &udp((LAST, 9), (INTERNET, 9)));
    eventually("the last packet is forwarded", || {
        let taken = take(&router.internet);
        let is_last = |packet: &Vec<u8>| packet[0] >> 4 == 4 && source(packet) == LAST;
        passed.extend(taken.iter().filter(|packet| !is_last(packet)).filter_map(|packet| number_of(packet)));
        taken.iter().any(is_last).then_some(())
    });
    passed
}

#[test]
fn kernel_and_evaluator_agree_on_random_packets() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| GatewayRules { masquerade: false, connections_per_client: 0, ..rules }).await;
        let table = load();
        let (mut dice, mut verdicts) = (Dice(0x005e_ed0f_ad17), BTreeMap::from([("allow", 0), ("deny", 0)]));
        for round in 0..POLICIES {
            let document = dice.document();
            let first = u16::try_from(1000 + round * PACKETS).unwrap();
            let packets: Vec<_> =
                (0..PACKETS).map(|packet| dice.packet(first + u16::try_from(packet).unwrap())).collect();
            let said = enforce(&table, &document, &packets);
            let wanted =
                said.iter().filter(|(_, action)| **action == Action::Allow).map(|(number, _)| *number).collect();
            let passed = forwarded(&router, &packets, &wanted);
            let differ: Vec<_> = packets
                .iter()
                .filter(|packet| passed.contains(&packet.number) != wanted.contains(&packet.number))
                .collect();
            assert!(differ.is_empty(), "policy {round}, {document:?}: {differ:?}");
            said.values().for_each(|action| *verdicts.get_mut(action.word()).unwrap() += 1);
        }
        assert!(verdicts.values().all(|count| *count >= 2_000), "{verdicts:?}");
        assert!(verdicts.values().sum::<usize>() >= 10_000, "{verdicts:?}");
    });
}
