//! The gateway's nftables table, `inet adit` for the link `adit0`: address translation, isolation and protection of the
//! gateway itself.
//!
//! The user-space packet path checks sources and destinations too; these rules hold even if it errs. Every drop is
//! counted and says why: see `nft list table inet adit`.

mod foreign;
mod other_links;
mod reach;
mod stateful;
mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::nft::{Batch, Chain, ChainKind, ConnectionSet, Hook, Rule};
pub(crate) use foreign::ForeignChains;
pub use other_links::ForwardedBefore;
pub(crate) use other_links::GATEWAY_LINKS;
pub(crate) use reach::ANSWERS;
pub use reach::LocalService;
use reach::{CLIENT_TO_CLIENT, FORBIDDEN};
pub(crate) use stateful::Tracking;
pub use stateful::{TrackedPort, tracked_ports};
pub(crate) use table::{Table, TableRecord, remove, remove_nameless};

const RAW_PREROUTING: &str = "raw_prerouting";
const RAW_OUTPUT: &str = "raw_output";
const BEFORE_NAT: &str = "before_nat";
const INPUT: &str = "input";
const FORWARD: &str = "forward";
const POSTROUTING: &str = "postrouting";
/// Packets come here from the chains of hooks, never to return.
const REFUSED: &str = "refused";
/// Before connection tracking (`NF_IP_PRI_RAW`).
const RAW_PRIORITY: i32 = -300;
/// Right after connection tracking (`NF_IP_PRI_CONNTRACK`), so before whatever may change a destination.
const BEFORE_NAT_PRIORITY: i32 = -199;
/// `NF_IP_PRI_FILTER`.
const FILTER_PRIORITY: i32 = 0;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT_PRIORITY: i32 = 100;

/// Connections that strangers may open at a tracked port in a second. Each leaves its entry in the kernel's table for
/// half a minute, so these are a quarter of what the table holds on a small host.
const NEWCOMERS: u32 = 500;

/// Lowest port masqueraded TCP and UDP leave from: never the gateway's own below it, so that a client cannot occupy or
/// shadow one (CVE-2021-3773).
const LOWEST_MASQUERADE_PORT: u16 = 1024;
/// ICMP redirect (RFC 792) and its IPv6 twin (RFC 4861 section 4.5).
const REDIRECT_V4: u8 = 5;
const REDIRECT_V6: u8 = 137;

/// What the gateway's firewall table is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRules {
    /// Name of the TUN link; it need not exist yet.
    pub tun: String,
    /// IPv4 pool of the clients.
    pub pool_v4: Option<Ipv4Net>,
    /// IPv6 pool of the clients.
    pub pool_v6: Option<Ipv6Net>,
    /// The gateway's own IPv4 address in the tunnel.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The gateway's own IPv6 address in the tunnel.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Whether clients' packets leave with the gateway's address. If not, other networks can open connections to
    /// clients.
    pub masquerade: bool,
    /// Whether clients reach each other.
    pub client_to_client: bool,
    /// Most tracked connections of one inner source address; further ones are dropped. 0 means no limit.
    pub connections_per_client: u32,
    /// Resolvers that clients are told of; those on the gateway's own host are let in.
    pub resolvers: Vec<IpAddr>,
    /// Services on the gateway's own host that clients reach, at all its addresses.
    pub local_services: Vec<LocalService>,
    /// UDP ports the gateway listens on, exempt from connection tracking but for those in `tracked_ports`.
    pub listen_ports: Vec<u16>,
    /// Those of them that another firewall of the host admits only if they are tracked.
    pub tracked_ports: Vec<u16>,
    /// From which other links IPv4 packets were forwarded before.
    pub forwarded_before_v4: ForwardedBefore,
    /// From which other links IPv6 packets were forwarded before.
    pub forwarded_before_v6: ForwardedBefore,
}

impl GatewayRules {
    /// Fills a table that the batch has just made.
    fn fill(&self, batch: &mut Batch) {
        batch.create_set(ConnectionSet::V4);
        batch.create_set(ConnectionSet::V6);
        for (name, kind, hook, priority) in [
            (RAW_PREROUTING, ChainKind::Filter, Hook::Prerouting, RAW_PRIORITY),
            (RAW_OUTPUT, ChainKind::Filter, Hook::Output, RAW_PRIORITY),
            (BEFORE_NAT, ChainKind::Filter, Hook::Prerouting, BEFORE_NAT_PRIORITY),
            (INPUT, ChainKind::Filter, Hook::Input, FILTER_PRIORITY),
            (FORWARD, ChainKind::Filter, Hook::Forward, FILTER_PRIORITY),
            (POSTROUTING, ChainKind::Nat, Hook::Postrouting, SOURCE_NAT_PRIORITY),
        ] {
            batch.create_chain(Chain { name, kind, hook, priority });
        }
        batch.create_inner_chain(REFUSED);
        for rule in self.rules() {
            batch.append_rule(&rule);
        }
    }

    fn rules(&self) -> Vec<Rule> {
        let mut rules = self.spoofing_rules();
        rules.extend(self.tracking_rules());
        rules.extend(self.redirect_rules());
        rules.extend(self.tracked_port_rules());
        rules.extend(self.before_nat_rules());
        rules.extend(self.input_rules());
        rules.extend(self.other_links_rules());
        rules.extend(self.forward_rules());
        rules.extend(self.masquerade_rules());
        rules.extend(Self::refusal_rules());
        rules
    }

    fn pools(&self) -> impl Iterator<Item = IpNet> {
        self.pool_v4.map(IpNet::V4).into_iter().chain(self.pool_v6.map(IpNet::V6))
    }

    fn gateway_addresses(&self) -> impl Iterator<Item = IpNet> {
        self.gateway_v4.map(IpAddr::V4).into_iter().chain(self.gateway_v6.map(IpAddr::V6)).map(IpNet::from)
    }

    /// Only pool addresses come out of the TUN, and they come from nowhere else (loopback carries the gateway's own).
    fn spoofing_rules(&self) -> Vec<Rule> {
        let from_tun = || Rule::new(RAW_PREROUTING).input(&self.tun);
        let mut rules = vec![
            match self.pool_v4 {
                Some(pool) => from_tun().source_not_in(pool.into()).drop("source outside the IPv4 pool"),
                None => from_tun().ipv4().drop("no IPv4 pool"),
            },
            match self.pool_v6 {
                Some(pool) => from_tun().source_not_in(pool.into()).drop("source outside the IPv6 pool"),
                None => from_tun().ipv6().drop("no IPv6 pool"),
            },
        ];
        for address in self.gateway_addresses() {
            rules.push(from_tun().source_in(address).drop("the gateway's own source"));
        }
        for pool in self.pools() {
            let elsewhere = Rule::new(RAW_PREROUTING).input_not(&self.tun).input_not("lo");
            rules.push(elsewhere.source_in(pool).drop("pool source from outside the tunnel"));
        }
        rules
    }

    /// The gateway's own datagrams are not tracked: they cannot exhaust the connection table, nor be taken over through
    /// it.
    fn tracking_rules(&self) -> Vec<Rule> {
        let for_port = |port: &u16| {
            let rule = Rule::new(RAW_PREROUTING).input_not(&self.tun).for_this_host().udp();
            let input = rule.destination_port(*port).no_track();
            let output = Rule::new(RAW_OUTPUT).output_not(&self.tun).udp().source_port(*port).no_track();
            [input, output]
        };
        self.listen_ports.iter().filter(|port| !self.tracked_ports.contains(port)).flat_map(for_port).collect()
    }

    /// Where they have to be tracked, strangers fill the table no faster than this.
    fn tracked_port_rules(&self) -> Vec<Rule> {
        let for_port = |port: &u16| {
            let rule = Rule::new(BEFORE_NAT).input_not(&self.tun).for_this_host().udp().destination_port(*port);
            rule.opens().more_than(NEWCOMERS).drop("too many newcomers at the gateway's port")
        };
        self.tracked_ports.iter().map(for_port).collect()
    }

    /// The most ports in a row that are not the gateway's own: what leaves by one of those could be taken for the
    /// gateway's.
    fn masquerade_ports(&self) -> (u16, u16) {
        let mut taken = self.listen_ports.clone();
        taken.retain(|port| *port >= LOWEST_MASQUERADE_PORT);
        taken.sort_unstable();
        let bounds: Vec<u32> = [u32::from(LOWEST_MASQUERADE_PORT) - 1]
            .into_iter()
            .chain(taken.into_iter().map(u32::from))
            .chain([u32::from(u16::MAX) + 1])
            .collect();
        let between = bounds.windows(2).map(|edges| (edges[0] + 1, edges[1].saturating_sub(1)));
        let widest = between.max_by_key(|(lowest, highest)| highest.saturating_sub(*lowest));
        let (lowest, highest) = widest.expect("there are two bounds at least");
        let port = |number| u16::try_from(number).expect("it lies between two ports");
        (port(lowest), port(highest))
    }

    /// Clients that reach each other through the gateway are not told to go another way: there is none.
    fn redirect_rules(&self) -> [Rule; 2] {
        let to_tun = || Rule::new(RAW_OUTPUT).output(&self.tun);
        [
            to_tun().ipv4().icmp(REDIRECT_V4).drop("redirect to a client"),
            to_tun().ipv6().icmpv6(REDIRECT_V6).drop("redirect to a client"),
        ]
    }

    /// New connections of a client that has its share, to the gateway and through it together.
    fn limit_rules(&self, rule: impl Fn() -> Rule) -> Vec<Rule> {
        if self.connections_per_client == 0 {
            return Vec::new();
        }
        let over =
            |set| rule().connections_over(set, self.connections_per_client).drop("too many connections of one client");
        [ConnectionSet::V4, ConnectionSet::V6].map(over).to_vec()
    }

    fn forward_rules(&self) -> Vec<Rule> {
        let rule = || Rule::new(FORWARD);
        let from_tun = || rule().input(&self.tun);
        let mut rules =
            vec![from_tun().clamp_segment_size(), rule().input_not(&self.tun).output(&self.tun).clamp_segment_size()];
        if !self.client_to_client {
            rules.push(from_tun().output(&self.tun).go_to(REFUSED, CLIENT_TO_CLIENT));
        }
        for prefix in forbidden_destinations() {
            rules.push(from_tun().destination_in(prefix).go_to(REFUSED, FORBIDDEN));
        }
        if self.masquerade {
            rules.push(from_tun().output_not(&self.tun).invalid().drop("packet of no connection"));
        }
        rules.push(rule().established().accept());
        rules.extend(self.limit_rules(from_tun));
        if self.masquerade {
            rules.push(rule().input_not(&self.tun).output(&self.tun).drop("not asked for by a client"));
        }
        rules
    }

    fn masquerade_rules(&self) -> Vec<Rule> {
        if !self.masquerade {
            return Vec::new();
        }
        let (lowest, highest) = self.masquerade_ports();
        let for_pool = |pool: IpNet| {
            let rule = || Rule::new(POSTROUTING).source_in(pool).output_not(&self.tun);
            [
                rule().tcp().masquerade_ports(lowest, highest),
                rule().udp().masquerade_ports(lowest, highest),
                rule().masquerade(),
            ]
        };
        self.pools().flat_map(for_pool).collect()
    }
}

/// Destinations no client reaches through the gateway: loopback, link-local (with most clouds' metadata services), and
/// the metadata services elsewhere: of Azure, Alibaba, Oracle, and of AWS over IPv6.
fn forbidden_destinations() -> [IpNet; 8] {
    [
        Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16).into(),
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)).into(),
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)).into(),
        IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)).into(),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into(),
        IpAddr::V6(Ipv6Addr::LOCALHOST).into(),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)).into(),
    ]
}

/// Whether the firewall lets no client reach this address through the gateway, whatever the rules are.
#[must_use]
pub fn is_forbidden_destination(address: IpAddr) -> bool {
    forbidden_destinations().iter().any(|prefix| prefix.contains(&address))
}

#[cfg(test)]
pub(crate) mod packet_tests;
#[cfg(test)]
mod tests;
