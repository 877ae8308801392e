//! A client's nftables tables `inet adit_answers_TUN` and `arp adit_answers_TUN`: what is opened from elsewhere is
//! answered there, and not into the tunnel.
//!
//! Whoever opens a connection to this host by another link than the tunnel's gets its answers by that link, whatever
//! the tunnel claims: such connections are marked where they come in, and their answers bear the mark of the client's
//! own datagrams, which the rules of the tunnel pass by. What the tunnel's other end opens reaches this host alone, not
//! the networks behind it. And nobody beside the tunnel gets an answer from the tunnel's address, be it by ARP.
//!
//! These tables make the kernel track connections. The packets of the tunnel itself are exempt where no other firewall
//! of the host asks for them.

mod exemption;

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use adit_proto::mark::Mark;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::changes::HostChanges;
use crate::error::HostError;
use crate::journal::Change;
use crate::nft::{Batch, Chain, ChainKind, FAMILY_ARP, FAMILY_INET, Hook, ListedChain, Rule, Socket, TableState};
use crate::sysctl::ports_of_programs;

use exemption::{RAW_OUTPUT, RAW_PREROUTING, RAW_PRIORITY};

/// What the names of these tables begin with; the TUN device's name follows.
const TABLE: &str = "adit_answers_";
const PREROUTING: &str = "prerouting";
const TUNNELLED: &str = "tunnelled";
const FORWARD: &str = "forward";
const OUTPUT: &str = "output";
/// After connection tracking and before destinations are translated (`NF_IP_PRI_MANGLE`).
const TRACKED_PRIORITY: i32 = -150;
/// After the chains at [`TRACKED_PRIORITY`] of all tables of this kind: for another tunnel this one is elsewhere.
const LATER_PRIORITY: i32 = TRACKED_PRIORITY + 1;
/// `NF_IP_PRI_FILTER`.
const FILTER_PRIORITY: i32 = 0;
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

/// What the tables of one tunnel are made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRules {
    /// Name of the TUN link.
    pub tun: String,
    /// This host's addresses in the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Links that lead to containers and virtual machines of this host.
    pub inner_links: Vec<String>,
    /// The mark of packets that pass the tunnel's rules by.
    pub mark: Mark,
}

impl AnswerRules {
    /// The batch that replaces the table by one with these rules.
    fn batch(&self, beside: Beside) -> Batch {
        let mut batch = Batch::new(&table_of(&self.tun));
        batch.delete_table();
        batch.create_table();
        let mut rules = exemption::rules(self, beside.tracking);
        rules.extend(self.rules(beside));
        for (name, kind, hook, priority) in [
            (RAW_PREROUTING, ChainKind::Filter, Hook::Prerouting, RAW_PRIORITY),
            (RAW_OUTPUT, ChainKind::Filter, Hook::Output, RAW_PRIORITY),
            (PREROUTING, ChainKind::Filter, Hook::Prerouting, TRACKED_PRIORITY),
            (TUNNELLED, ChainKind::Filter, Hook::Prerouting, LATER_PRIORITY),
            (FORWARD, ChainKind::Filter, Hook::Forward, FILTER_PRIORITY),
            (OUTPUT, ChainKind::Route, Hook::Output, TRACKED_PRIORITY),
        ] {
            // Every chain costs time for each packet.
            if rules.iter().any(|rule| rule.chain() == name) {
                batch.create_chain(Chain { name, kind, hook, priority });
            }
        }
        for rule in rules {
            batch.append_rule(&rule);
        }
        batch
    }

    fn rules(&self, beside: Beside) -> Vec<Rule> {
        let mut rules = self.arrival_rules();
        if beside.tunnels {
            // What is opened through this tunnel is answered through it, whatever another client on this host thinks.
            rules.push(Rule::new(TUNNELLED).input(&self.tun).by_opener().clear_connection_mark(self.mark));
        }
        rules.extend(self.inner_rules());
        rules.extend(self.departure_rules());
        rules
    }

    /// Starts a rule for packets that other hosts send beside the tunnel.
    fn elsewhere(&self, chain: &'static str) -> Rule {
        let rule = Rule::new(chain).input_not("lo").input_not(&self.tun);
        self.inner_links.iter().fold(rule, |rule, link| rule.input_not(link))
    }

    /// Marks the connections that others open to this host.
    ///
    /// TCP says which packet opens one. For the rest, and for TCP from before the tunnel, what others send to a port of
    /// programs may be an answer to what this host sent before it had the tunnel, which must not go on beside it.
    fn arrival_rules(&self) -> Vec<Rule> {
        let (low, high) = ports_of_programs();
        // The tunnel's packets, and the client's own datagrams, are nearly all there is: they are done with first.
        let mut rules = vec![Rule::new(PREROUTING).untracked().accept()];
        rules.push(Rule::new(PREROUTING).input(&self.tun).accept());
        rules.push(self.elsewhere(PREROUTING).by_answerer().accept());
        // Whether a packet is for this host takes a look at the routes, so it is asked last.
        let opened = || self.elsewhere(PREROUTING).by_opener();
        let mark = |rule: Rule| rule.for_this_host().put_connection_mark(self.mark);
        rules.push(mark(opened().opening_tcp()));
        for protocol in [Rule::tcp, Rule::udp] {
            let below = low.checked_sub(1).map(|port| protocol(opened()).destination_port_at_most(port));
            let above = high.checked_add(1).map(|port| protocol(opened()).destination_port_at_least(port));
            rules.extend([below, above].into_iter().flatten().map(mark));
        }
        rules.push(mark(opened().ipv4().icmp(ECHO_REQUEST_V4)));
        rules.push(mark(opened().ipv6().icmpv6(ECHO_REQUEST_V6)));
        rules
    }

    /// Ports of containers that are published beside the tunnel are answered beside it; through the tunnel nobody opens
    /// a connection to what is behind this host.
    fn inner_rules(&self) -> Vec<Rule> {
        let answer = |link: &String| {
            Rule::new(PREROUTING).input(link).by_answerer().connection_mark(self.mark).put_mark(self.mark)
        };
        let mut rules: Vec<Rule> = self.inner_links.iter().map(answer).collect();
        let through = Rule::new(FORWARD).input(&self.tun).output_not(&self.tun).by_opener();
        rules.push(through.drop("opened through the tunnel to a network behind this host"));
        rules
    }

    fn departure_rules(&self) -> Vec<Rule> {
        let mut rules = vec![Rule::new(OUTPUT).untracked().accept()];
        rules.push(Rule::new(OUTPUT).by_answerer().connection_mark(self.mark).put_mark(self.mark));
        // A packet of an older connection that took this host for its opener would make it so: the tunnel's other end
        // throws it away in any case. The next packet of the real opener sets it right.
        for everything in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
            let of_family = |address: &&IpAddr| address.is_ipv4() == everything.addr().is_ipv4();
            let rule = Rule::new(OUTPUT).output(&self.tun).source_in(everything).amid_tcp();
            let own = self.addresses.iter().filter(of_family).copied().map(IpNet::from);
            let rule = own.fold(rule, Rule::source_not_in);
            rules.push(rule.drop("of a connection from before the tunnel"));
        }
        rules
    }

    fn addresses_v4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().filter_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })
    }

    /// Neighbours on other links neither hear by ARP that this host has the tunnel's addresses, nor are they asked in
    /// the name of one.
    fn arp_batch(&self) -> Batch {
        /// What both rules are for.
        const SILENT: &str = "the tunnel's address on another link";
        let mut batch = Batch::new_arp(&table_of(&self.tun));
        batch.delete_table();
        batch.create_table();
        for (name, hook) in [("input", Hook::ARP_INPUT), ("output", Hook::ARP_OUTPUT)] {
            batch.create_chain(Chain { name, kind: ChainKind::Filter, hook, priority: FILTER_PRIORITY });
        }
        for address in self.addresses_v4() {
            batch.append_rule(&Rule::new("input").input_not(&self.tun).arp_target(address).drop(SILENT));
            batch.append_rule(&Rule::new("output").output_not(&self.tun).arp_sender(address).drop(SILENT));
        }
        batch
    }
}

impl HostChanges {
    /// Has connections that others open to this host beside a tunnel answered beside it, and what the tunnel's other
    /// end opens reach this host alone; called again, it replaces the earlier rules.
    ///
    /// # Errors
    /// The kernel's refusal, naming the rule; the earlier rules are then still in force.
    #[expect(clippy::unused_async, reason = "awaited like its siblings, whether or not the kernel answers at once")]
    pub async fn load_answers(&mut self, rules: &AnswerRules) -> Result<(), HostError> {
        let change = Change::Answers(rules.clone());
        if self.is_recorded(&change) {
            return Ok(());
        }
        let earlier = self.journal.live().iter().filter(|entry| matches!(entry.change, Change::Answers(_)));
        let earlier: Vec<u64> = earlier.map(|entry| entry.id).collect();
        let id = self.journal.record(change)?;
        match load(rules) {
            Ok(loaded) => self.answers = Some(loaded),
            Err(error) => return self.settle_if_failed(id, Err(error)),
        }
        earlier.into_iter().try_for_each(|id| self.journal.settle(id))
    }
}

fn table_of(tun: &str) -> String {
    format!("{TABLE}{tun}")
}

/// Which connections are tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tracking {
    /// Those of the tunnel, too.
    OfAll,
    /// All others.
    OfOthers,
}

/// What there is on the host beside one tunnel that its tables depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beside {
    /// What other firewalls ask for.
    tracking: Tracking,
    /// Whether there are tunnels of other clients.
    tunnels: bool,
}

impl Beside {
    fn read(socket: &Socket, tun: &str) -> Self {
        let asked = exemption::others_ask_for_connections(socket);
        let table = table_of(tun);
        let is_of_another = |chain: &ListedChain| chain.table.starts_with(TABLE) && chain.table != table;
        Self {
            tracking: if asked { Tracking::OfAll } else { Tracking::OfOthers },
            // What cannot be read may be there.
            tunnels: socket.chains().map_or(true, |chains| chains.iter().any(is_of_another)),
        }
    }
}

/// The tables of one tunnel, as they were loaded.
#[derive(Debug)]
pub(crate) struct LoadedAnswers {
    rules: AnswerRules,
    beside: Beside,
    /// Whether the kernel can tell the client's datagrams from others, so that they can be exempt from tracking.
    can_exempt: bool,
    /// The ruleset's state in which others were looked at.
    generation: Option<u32>,
    as_loaded: Option<[Option<TableState>; 2]>,
}

impl LoadedAnswers {
    /// Whether nobody has touched the tables since they were loaded.
    pub(crate) fn are_intact(&self) -> Result<bool, HostError> {
        let now = states(&self.rules.tun)?;
        Ok(now[0].is_some() && Some(now) == self.as_loaded)
    }

    /// Loads the tables again.
    pub(crate) fn put_back(&mut self) -> Result<(), HostError> {
        *self = load(&self.rules)?;
        Ok(())
    }

    /// Whether other firewalls have begun, or ceased, to ask for connections, or another tunnel has come or gone, so
    /// that the tables must be other ones.
    pub(crate) fn are_outdated(&mut self) -> bool {
        let Ok(socket) = Socket::open() else { return false };
        let generation = socket.generation().ok();
        if generation.is_some() && generation == self.generation {
            return false;
        }
        let mut now = Beside::read(&socket, &self.rules.tun);
        if !self.can_exempt {
            now.tracking = Tracking::OfAll;
        }
        if self.beside == now {
            self.generation = generation;
        }
        self.beside != now
    }
}

/// Loads both tables, replacing earlier ones, each in one transaction. A kernel that has no tables for ARP goes
/// without: neighbours can find out the tunnel's address then.
pub(crate) fn load(rules: &AnswerRules) -> Result<LoadedAnswers, HostError> {
    let table = table_of(&rules.tun);
    let doing = format!("load the nftables table inet {table}");
    let socket = Socket::open().map_err(|source| HostError::system(&doing, source))?;
    let generation = socket.generation().ok();
    let mut beside = Beside::read(&socket, &rules.tun);
    let mut can_exempt = true;
    if beside.tracking == Tracking::OfOthers && apply(rules.batch(beside), &doing).is_err() {
        tracing::debug!("this kernel cannot exempt the tunnel's packets from connection tracking");
        (beside.tracking, can_exempt) = (Tracking::OfAll, false);
    }
    if beside.tracking == Tracking::OfAll {
        apply(rules.batch(beside), &doing)?;
    }
    match apply(rules.arp_batch(), &format!("load the nftables table arp {table}")) {
        Err(error) if lacks_family(&error) => {
            tracing::warn!("this kernel filters no ARP: the local network can find out the tunnel's IPv4 address");
        }
        done => done?,
    }
    // They hold by now, whatever the kernel lists; what it does not is found changed.
    let as_loaded = states(&rules.tun).ok();
    Ok(LoadedAnswers { rules: rules.clone(), beside, can_exempt, generation, as_loaded })
}

/// Both tables as they are.
fn states(tun: &str) -> Result<[Option<TableState>; 2], HostError> {
    let table = table_of(tun);
    let failed = |source| HostError::system("list the firewall's rules", source);
    let socket = Socket::open().map_err(failed)?;
    let inet = TableState::read(&socket, FAMILY_INET, &table).map_err(failed)?;
    let arp = TableState::read(&socket, FAMILY_ARP, &table);
    // A kernel without tables for ARP lists none.
    Ok([inet, arp.or_else(|error| if is_missing_family(&error) { Ok(None) } else { Err(failed(error)) })?])
}

/// Removes the tables of a TUN device if they are there.
pub(super) fn unload(tun: &str) -> Result<(), HostError> {
    let table = table_of(tun);
    for (mut batch, family) in [(Batch::new(&table), "inet"), (Batch::new_arp(&table), "arp")] {
        batch.delete_table();
        match apply(batch, &format!("remove the nftables table {family} {table}")) {
            Err(error) if !lacks_family(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether a refusal means that the kernel has no tables of this family.
fn lacks_family(error: &HostError) -> bool {
    matches!(error, HostError::System { source, .. } if is_missing_family(source))
}

fn is_missing_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

fn apply(batch: Batch, doing: &str) -> Result<(), HostError> {
    let socket = Socket::open().map_err(|source| HostError::system(doing, source))?;
    socket.apply(batch).map_err(|refusal| HostError::system(format!("{doing}: {}", refusal.step), refusal.source))
}

#[cfg(test)]
mod tests;
