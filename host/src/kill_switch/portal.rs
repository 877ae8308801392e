//! The way past a closed kill switch that one program gets to a captive portal.
//!
//! The program runs as a group that no other has. Which group that is, and what it may reach, stands in sets of the
//! kill switch's table, whose elements go after a time, whoever is left to take them out. A table beside it leads the
//! program's packets past a tunnel that is out of use: the routes lead into that, and the addresses are the tunnel's.
//! That table has such a set as well, since its mark lets root's packets out whatever the kill switch's sets say.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use adit_proto::mark::Mark;
use ipnet::IpNet;

use super::{DNS_PORT, OUTPUT, apply, table_of};
use crate::error::HostError;
use crate::nft::{Batch, Chain, ChainKind, Element, Holds, Hook, Key, NumberSet, Numbers, Rule, Set};

/// What the names of the tables beside the kill switches begin with; the profile's name follows.
const TABLE: &str = "adit_portal_";
const POSTROUTING: &str = "postrouting";
/// Before the routes are asked again (`NF_IP_PRI_MANGLE`).
const MARKING_PRIORITY: i32 = -150;
/// `NF_IP_PRI_NAT_SRC`.
const NAT_PRIORITY: i32 = 100;

/// The group that is let out; the ports of its pages; the resolvers that it asks, by family.
const GROUPS: NumberSet = NumberSet { name: "portal_groups", numbers: Numbers::Groups };
const PORTS: NumberSet = NumberSet { name: "portal_ports", numbers: Numbers::Ports };
const RESOLVERS: [(Key, &str); 2] = [(Key::V4, "portal_resolvers_v4"), (Key::V6, "portal_resolvers_v6")];

/// What one program may reach past a closed kill switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalWay {
    /// Name of the profile whose kill switch is closed.
    pub profile: String,
    /// The group that the program alone runs as.
    pub group: u32,
    /// Mark of the packets that the tunnel's routes leave alone.
    pub mark: Mark,
    /// Ports of TCP that it may reach, at any address.
    pub ports: BTreeSet<u16>,
    /// The resolvers that it may ask, at port 53.
    pub resolvers: BTreeSet<IpAddr>,
}

impl PortalWay {
    /// Opens the way for this time from now on, whether or not it is open already, and closes any other.
    ///
    /// # Errors
    /// The kernel's refusal, also where the kill switch is not closed (`ENOENT`).
    pub fn open(&self, time: Duration) -> Result<(), HostError> {
        let mut batch = Batch::new(&table_of(&self.profile));
        empty_sets(&mut batch);
        batch.add_elements(GROUPS.name, [Element::group(self.group).lasting(time)]);
        batch.add_elements(PORTS.name, self.ports.iter().map(|port| Element::port(*port).lasting(time)));
        for (key, set) in RESOLVERS {
            let of_family = self.resolvers.iter().filter(|resolver| Key::of(**resolver) == key);
            batch.add_elements(set, of_family.map(|resolver| Element::address(*resolver).lasting(time)));
        }
        apply(batch, "open the way to a captive portal")?;
        self.lead_on(time)
    }

    /// Leads the program's packets past a tunnel, as far as they may leave the host, for this time from now on, or for
    /// as long as [`Self::open`] says later.
    ///
    /// # Errors
    /// The kernel's refusal. Without a tunnel the way needs none of this.
    pub fn lead_past_tunnel(&self, time: Duration) -> Result<(), HostError> {
        let mut batch = Batch::new(&beside(&self.profile));
        batch.delete_table();
        batch.create_table();
        batch.create_number_set(GROUPS);
        batch.add_elements(GROUPS.name, [Element::group(self.group).lasting(time)]);
        for (name, kind, hook, priority) in [
            (OUTPUT, ChainKind::Route, Hook::Output, MARKING_PRIORITY),
            (POSTROUTING, ChainKind::Nat, Hook::Postrouting, NAT_PRIORITY),
        ] {
            batch.create_chain(Chain { name, kind, hook, priority });
        }
        for rule in self.leading_rules() {
            batch.append_rule(&rule);
        }
        apply(batch, "lead a program past the tunnel")
    }

    /// Goes on to lead the program's packets past a tunnel, if that was begun.
    fn lead_on(&self, time: Duration) -> Result<(), HostError> {
        let mut batch = Batch::new(&beside(&self.profile));
        batch.empty_set(GROUPS.name);
        batch.add_elements(GROUPS.name, [Element::group(self.group).lasting(time)]);
        match apply(batch, "lead a program past the tunnel") {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            led => led,
        }
    }

    /// What is marked leaves by the host's usual routes, and what leaves by them gets the address of its link.
    fn leading_rules(&self) -> Vec<Rule> {
        let sent = || Rule::new(OUTPUT).sent_by_group_in(GROUPS.name);
        let pages = self.ports.iter().map(|port| sent().tcp().destination_port(*port).put_mark(self.mark));
        let mut rules: Vec<Rule> = pages.collect();
        for resolver in &self.resolvers {
            let asked = || sent().destination_in(IpNet::from(*resolver));
            rules.push(asked().udp().destination_port(DNS_PORT).put_mark(self.mark));
            rules.push(asked().tcp().destination_port(DNS_PORT).put_mark(self.mark));
        }
        rules.push(Rule::new(POSTROUTING).sent_by_group_in(GROUPS.name).output_not("lo").masquerade());
        rules
    }
}

/// The sets, which are empty while nobody is let out.
pub(super) fn create_sets(batch: &mut Batch) {
    batch.create_number_set(GROUPS);
    batch.create_number_set(PORTS);
    for (key, name) in RESOLVERS {
        batch.create_named_set(&Set { name: name.to_owned(), key, holds: Holds::PassingAddresses });
    }
}

fn empty_sets(batch: &mut Batch) {
    for set in [GROUPS.name, PORTS.name].into_iter().chain(RESOLVERS.map(|(_, name)| name)) {
        batch.empty_set(set);
    }
}

/// What whoever is let out may send: pages are asked for at any address, names of the resolvers alone.
pub(super) fn rules(chain: &'static str) -> Vec<Rule> {
    let sent = || Rule::new(chain).sent_by_group_in(GROUPS.name);
    let mut rules = vec![sent().tcp().destination_port_in(PORTS.name).accept()];
    for (key, resolvers) in RESOLVERS {
        let asked = || {
            let of_family = if key == Key::V4 { sent().ipv4() } else { sent().ipv6() };
            of_family.destination_in_set(key, resolvers)
        };
        rules.push(asked().udp().destination_port(DNS_PORT).accept());
        rules.push(asked().tcp().destination_port(DNS_PORT).accept());
    }
    rules
}

/// Closes the way past a profile's kill switch, if one is open; does nothing if the kill switch is not closed.
///
/// # Errors
/// The kernel's refusal; the way closes by itself then, after its time.
pub fn close_portal_way(profile: &str) -> Result<(), HostError> {
    let mut batch = Batch::new(&table_of(profile));
    empty_sets(&mut batch);
    let emptied = apply(batch, "close the way to a captive portal");
    let unloaded = unload(profile);
    match emptied {
        Err(error) if error.errno() == Some(libc::ENOENT) => unloaded,
        emptied => emptied.and(unloaded),
    }
}

/// Removes the table beside a profile's kill switch if it is there.
pub(super) fn unload(profile: &str) -> Result<(), HostError> {
    let table = beside(profile);
    let mut batch = Batch::new(&table);
    batch.delete_table();
    apply(batch, &format!("remove the nftables table inet {table}"))
}

fn beside(profile: &str) -> String {
    format!("{TABLE}{profile}")
}
