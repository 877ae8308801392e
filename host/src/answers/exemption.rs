//! What is decided before the kernel tracks connections, and which packets it need not track.
//!
//! Tracking costs time for every packet, and nearly all packets of a host in a tunnel are the tunnel's own: those
//! between this host's addresses in it and its other end, and the client's datagrams. Nobody wants to know of which
//! connection they are, unless another firewall of this host does: by a state, by translating addresses, or in a way
//! that is not understood.

use std::fs;
use std::io;

use ipnet::IpNet;

use super::{AnswerRules, TABLE, Tracking};
use crate::kill_switch;
use crate::nft::{ListedChain, Rule, Socket};

pub(super) const RAW_PREROUTING: &str = "raw_prerouting";
pub(super) const RAW_OUTPUT: &str = "raw_output";
/// Before connection tracking (`NF_IP_PRI_RAW`).
pub(super) const RAW_PRIORITY: i32 = -300;

/// Expressions of rules that ask for connections, or may: rules of iptables keep what they do to themselves.
const ASK_FOR_CONNECTIONS: [&str; 11] =
    ["connlimit", "ct", "dynset", "flow_offload", "masq", "match", "nat", "objref", "redir", "synproxy", "target"];
/// Tables of the iptables that has no nftables beneath it; absent where there are none.
const OLD_TABLES: [&str; 2] = ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// The rules before connection tracking: they exempt packets as `tracking` says, and keep from the tunnel's addresses
/// what comes beside it.
pub(super) fn rules(tunnel: &AnswerRules, tracking: Tracking) -> Vec<Rule> {
    let exempt = |rule: Rule| rule.no_track().accept();
    let own = || tunnel.addresses.iter().copied().map(IpNet::from);
    let from_tunnel = own().map(|own| Rule::new(RAW_PREROUTING).input(&tunnel.tun).destination_in(own));
    let into_tunnel = own().map(|own| Rule::new(RAW_OUTPUT).output(&tunnel.tun).source_in(own));
    let to_client = Rule::new(RAW_PREROUTING).input_not(&tunnel.tun).udp().for_socket_with(tunnel.mark);
    let of_client = Rule::new(RAW_OUTPUT).mark(tunnel.mark).udp();
    let beside = own().map(|own| {
        let rule = tunnel.elsewhere(RAW_PREROUTING).destination_in(own);
        rule.drop("to the tunnel's address from another link")
    });
    match tracking {
        Tracking::OfAll => beside.collect(),
        Tracking::OfOthers => {
            let of_tunnel = from_tunnel.chain(into_tunnel).map(exempt);
            // The mark is looked at with the least effort, so that it comes first.
            [exempt(of_client)].into_iter().chain(of_tunnel).chain(beside).chain([exempt(to_client)]).collect()
        }
    }
}

/// Whether another firewall of this host asks for connections. What cannot be read may do so.
pub(super) fn others_ask_for_connections(socket: &Socket) -> bool {
    OLD_TABLES.iter().any(|path| fs::read_to_string(path).is_ok_and(|tables| !tables.trim().is_empty()))
        || some_rule_asks(socket).unwrap_or(true)
}

fn some_rule_asks(socket: &Socket) -> io::Result<bool> {
    let mut chains = socket.chains()?;
    chains.retain(|chain| !is_of_a_client(chain));
    if chains.iter().any(|chain| chain.is_nat) {
        return Ok(true);
    }
    for chain in chains {
        let rules = socket.rules(chain.family, &chain.table, &chain.name)?;
        let mut expressions = rules.iter().flat_map(|rule| &rule.expressions);
        if expressions.any(|expression| ASK_FOR_CONNECTIONS.contains(&expression.name.as_str())) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_of_a_client(chain: &ListedChain) -> bool {
    [TABLE, kill_switch::TABLE].iter().any(|beginning| chain.table.starts_with(beginning))
}
