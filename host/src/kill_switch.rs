//! The kill switch: a client's nftables table `inet adit_client_PROFILE`, which says what may leave a host whose
//! traffic belongs in a tunnel.
//!
//! The table has no owner, so it stays when its client dies; and it is replaced in one transaction, so there is no
//! moment without it. Every drop is counted and says why: see `nft list ruleset`.

mod portal;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_proto::mark::Mark;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::HostError;
use crate::nft::{Batch, Chain, ChainKind, FAMILY_INET, Hook, Rule, Socket, TableState};
use crate::sysctl::ports_of_programs;

pub use portal::{PortalWay, close_portal_way};

/// What the names of all these tables begin with; the profile's name follows.
pub(crate) const TABLE: &str = "adit_client_";
const RAW_PREROUTING: &str = "raw_prerouting";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const FORWARD: &str = "forward";
/// Before connection tracking (`NF_IP_PRI_RAW`).
const RAW_PRIORITY: i32 = -300;
/// After connection tracking (`NF_IP_PRI_MANGLE`).
const TRACKED_PRIORITY: i32 = -150;
/// After whatever other tables do with a packet: its link, its addresses and its mark are final.
const LAST_PRIORITY: i32 = 200;

/// What the devices of clients are called if nobody named them: other tunnels of this host may be used.
const DEVICES: &str = "adit";
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;
/// Router solicitation, neighbour solicitation and advertisement (RFC 4861), and reports of multicast listeners
/// (RFC 2710, RFC 3810), without which a switch may keep neighbour solicitations from this host.
const NEIGHBOURLY: [u8; 6] = [133, 135, 136, 131, 132, 143];
const DNS_PORT: u16 = 53;
/// DNS over TLS (RFC 7858) and over QUIC (RFC 9250).
const DNS_OVER_TLS_PORT: u16 = 853;

/// What a closed host lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillSwitch {
    /// Name of the profile whose tunnel this is for.
    pub profile: String,
    /// The user whose sockets are let out, if they bear the mark.
    pub user: u32,
    /// Mark of the client's outer sockets.
    pub mark: Mark,
    /// The tunnel, once there is one.
    pub tunnel: Option<ProtectedTunnel>,
    /// Networks beside the tunnel that may be used; for names they may not be asked.
    pub lan: Vec<LanNetwork>,
    /// Links that lead to containers and virtual machines of this host, not to other hosts.
    pub inner_links: Vec<String>,
}

/// A tunnel in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedTunnel {
    /// Its TUN device.
    pub link: String,
    /// The addresses of the device: they are used on no other link.
    pub addresses: Vec<IpAddr>,
}

/// A network that a link leads to without a router.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LanNetwork {
    /// The link's name.
    pub link: String,
    /// The addresses in it.
    pub prefix: IpNet,
}

impl KillSwitch {
    /// Name of the table.
    pub(crate) fn table(&self) -> String {
        table_of(&self.profile)
    }

    /// The batch that replaces the table by one with these rules.
    fn batch(&self) -> Batch {
        let mut batch = Batch::new(&self.table());
        batch.delete_table();
        batch.create_table();
        portal::create_sets(&mut batch);
        let rules = self.rules();
        for (name, hook, priority) in [
            (RAW_PREROUTING, Hook::Prerouting, RAW_PRIORITY),
            (PREROUTING, Hook::Prerouting, TRACKED_PRIORITY),
            (OUTPUT, Hook::Output, LAST_PRIORITY),
            (FORWARD, Hook::Forward, LAST_PRIORITY),
        ] {
            if rules.iter().any(|rule| rule.chain() == name) {
                batch.create_chain(Chain { name, kind: ChainKind::Filter, hook, priority });
            }
        }
        for rule in rules {
            batch.append_rule(&rule);
        }
        batch
    }

    /// Nearly all packets are the tunnel's, or the client's own datagrams: each chain is done with them first.
    fn rules(&self) -> Vec<Rule> {
        let ports = ports_of_programs();
        let mut rules = self.arrival_rules();
        rules.extend(self.unasked_rules(ports));
        rules.push(Rule::new(OUTPUT).mark(self.mark).sent_by(self.user).accept());
        rules.extend(self.tunnel().map(|tunnel| Rule::new(OUTPUT).output(tunnel).accept()));
        // Before the rule about the tunnel's address, which these packets may bear until the last moment.
        rules.extend(portal::rules(OUTPUT));
        rules.extend(self.passage_rules(OUTPUT));
        rules.extend(self.own_rules());
        rules.extend(self.departure_rules(OUTPUT, ports));
        rules.extend(self.tunnel().map(|tunnel| Rule::new(FORWARD).output(tunnel).accept()));
        rules.extend(self.passage_rules(FORWARD));
        rules.extend(self.departure_rules(FORWARD, ports));
        rules
    }

    fn addresses(&self) -> impl Iterator<Item = IpNet> {
        self.tunnel.iter().flat_map(|tunnel| tunnel.addresses.iter().copied().map(IpNet::from))
    }

    fn tunnel(&self) -> Option<&str> {
        self.tunnel.as_ref().map(|tunnel| tunnel.link.as_str())
    }

    /// A neighbour must not find out which address this host has in the tunnel, nor meddle with connections in it
    /// (CVE-2019-14899).
    fn arrival_rules(&self) -> Vec<Rule> {
        let rule = || Rule::new(RAW_PREROUTING);
        let to =
            |address| rule().destination_in(address).input_not("lo").drop("to the tunnel's address from another link");
        let through = self.tunnel().map(|tunnel| rule().input(tunnel).accept());
        through.into_iter().chain(self.addresses().map(to)).collect()
    }

    /// Connections that this host had opened before are not taken for connections that others open, and nobody
    /// answers for a resolver that was asked through the tunnel.
    fn unasked_rules(&self, (low, high): (u16, u16)) -> Vec<Rule> {
        let rule = || Rule::new(PREROUTING);
        let elsewhere = || rule().input_not("lo");
        let amid = elsewhere().amid_tcp().destination_port_at_least(low).destination_port_at_most(high);
        let mut rules = vec![rule().untracked().accept()];
        rules.extend(self.tunnel().map(|tunnel| rule().input(tunnel).accept()));
        rules.extend([
            amid.drop("of a connection from before the tunnel"),
            elsewhere().udp().source_port(DNS_PORT).unknown().drop("name service that nobody asked"),
        ]);
        rules
    }

    /// What stays on this host, and what goes into another tunnel of this host.
    fn passage_rules(&self, chain: &'static str) -> Vec<Rule> {
        let mut rules = vec![Rule::new(chain).output("lo").accept()];
        let beside = |address| Rule::new(chain).source_in(address).drop("from the tunnel's address by another link");
        rules.extend(self.addresses().map(beside));
        rules.push(Rule::new(chain).output_named(DEVICES).accept());
        rules
    }

    /// What this host itself must say beside the tunnel to get and keep an address.
    fn own_rules(&self) -> Vec<Rule> {
        let rule = || Rule::new(OUTPUT);
        let mut rules = vec![rule().ipv4().udp().source_port(DHCP_CLIENT).destination_port(DHCP_SERVER).accept()];
        for link_scope in [link_local_v6(), link_multicast_v6()] {
            let rule = rule().destination_in(link_scope).udp();
            rules.push(rule.source_port(DHCPV6_CLIENT).destination_port(DHCPV6_SERVER).accept());
        }
        rules.extend(NEIGHBOURLY.map(|kind| rule().ipv6().icmpv6(kind).accept()));
        rules
    }

    /// Everything else that leaves beside the tunnel: answers, and what may be used there.
    fn departure_rules(&self, chain: &'static str, (low, high): (u16, u16)) -> Vec<Rule> {
        let rule = || Rule::new(chain);
        // Tracking takes any packet of other protocols, such as GRE and ESP, for one that opens a connection.
        let mut rules = vec![
            rule().tcp().answer().accept(),
            rule().ipv4().any_icmp().answer().accept(),
            rule().ipv6().any_icmpv6().answer().accept(),
        ];
        // UDP has no packet that opens a connection: what looks like an answer may be one that this host opened before.
        // Those come from the ports that programs get.
        rules.extend(low.checked_sub(1).map(|below| rule().udp().answer().source_port_at_most(below).accept()));
        rules.extend(high.checked_add(1).map(|above| rule().udp().answer().source_port_at_least(above).accept()));
        rules.extend(self.inner_links.iter().map(|link| rule().output(link).accept()));
        for port in [DNS_PORT, DNS_OVER_TLS_PORT] {
            rules.push(rule().udp().destination_port(port).reject("name service beside the tunnel"));
            rules.push(rule().tcp().destination_port(port).reject("name service beside the tunnel"));
        }
        rules.extend(self.lan.iter().map(|lan| rule().output(&lan.link).destination_in(lan.prefix).accept()));
        if chain == OUTPUT {
            rules.extend(self.lan_links().flat_map(discovery_rules));
        }
        rules.push(rule().reject("beside the tunnel"));
        rules
    }

    fn lan_links(&self) -> impl Iterator<Item = &str> {
        let mut links: Vec<&str> = self.lan.iter().map(|lan| lan.link.as_str()).collect();
        links.sort_unstable();
        links.dedup();
        links.into_iter()
    }
}

/// By what hosts of one network find each other: broadcast, and multicast that no router passes on.
fn discovery_rules(link: &str) -> Vec<Rule> {
    let rule = || Rule::new(OUTPUT).output(link);
    let groups = [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 24)),
        // SSDP (UPnP Device Architecture, section 1).
        IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)).into(),
        IpAddr::V4(Ipv4Addr::BROADCAST).into(),
        link_multicast_v6(),
    ];
    let mut rules = groups.map(|group| rule().destination_in(group).accept()).to_vec();
    rules.push(rule().igmp().accept());
    rules
}

fn link_local_v6() -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into()
}

fn link_multicast_v6() -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16).into()
}

fn table_of(profile: &str) -> String {
    format!("{TABLE}{profile}")
}

/// A kill switch that is closed.
#[derive(Debug)]
pub(crate) struct ClosedKillSwitch {
    switch: KillSwitch,
    as_loaded: Option<TableState>,
}

impl ClosedKillSwitch {
    /// Whether these are its rules.
    pub(crate) fn is_as(&self, switch: &KillSwitch) -> bool {
        self.switch == *switch
    }

    /// Whether nobody has touched the table since it was loaded.
    pub(crate) fn is_intact(&self) -> Result<bool, HostError> {
        let now = state(&self.switch)?;
        Ok(now.is_some() && now == self.as_loaded)
    }

    /// Closes the way to a captive portal, if there is one.
    pub(crate) fn close_portal_way(&self) -> Result<(), HostError> {
        close_portal_way(&self.switch.profile)
    }

    /// Loads the table again as it was.
    pub(crate) fn put_back(&mut self) -> Result<(), HostError> {
        self.as_loaded = load(&self.switch)?.as_loaded;
        Ok(())
    }
}

/// Loads the table, replacing an earlier one, in one transaction.
pub(crate) fn load(switch: &KillSwitch) -> Result<ClosedKillSwitch, HostError> {
    apply(switch.batch(), &format!("load the nftables table inet {}", switch.table()))?;
    // The host is closed by now, whatever the kernel lists; what it does not is found changed.
    let as_loaded = state(switch).ok().flatten();
    Ok(ClosedKillSwitch { switch: switch.clone(), as_loaded })
}

fn state(switch: &KillSwitch) -> Result<Option<TableState>, HostError> {
    Socket::open()
        .and_then(|socket| TableState::read(&socket, FAMILY_INET, &switch.table()))
        .map_err(|source| HostError::system("list the rules of the kill switch", source))
}

/// Removes a profile's table if it is there.
pub(crate) fn unload(profile: &str) -> Result<(), HostError> {
    let table = table_of(profile);
    let mut batch = Batch::new(&table);
    batch.delete_table();
    apply(batch, &format!("remove the nftables table inet {table}"))?;
    portal::unload(profile)
}

fn apply(batch: Batch, doing: &str) -> Result<(), HostError> {
    let socket = Socket::open().map_err(|source| HostError::system(doing, source))?;
    socket.apply(batch).map_err(|refusal| HostError::system(format!("{doing}: {}", refusal.step), refusal.source))
}

/// Names the profiles whose kill switch is closed in this network namespace, whether or not their clients run.
///
/// # Errors
/// Fails without `CAP_NET_ADMIN`, or when the kernel has no nftables.
pub fn closed_kill_switches() -> Result<Vec<String>, HostError> {
    let doing = |source: io::Error| HostError::system("list the firewall's chains", source);
    let chains = Socket::open().and_then(|socket| socket.chains()).map_err(doing)?;
    let ours = chains.iter().filter(|chain| chain.family == FAMILY_INET && chain.name == OUTPUT);
    Ok(ours.filter_map(|chain| chain.table.strip_prefix(TABLE)).map(str::to_owned).collect())
}

/// Opens a profile's kill switch that no journal knows of; does nothing if it is not closed.
///
/// # Errors
/// The kernel's refusal.
pub fn open_kill_switch(profile: &str) -> Result<(), HostError> {
    unload(profile)
}

#[cfg(test)]
mod tests;
