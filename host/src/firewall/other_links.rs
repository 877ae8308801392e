//! Packets between two links of which neither is the tunnel: switching on forwarding opens nothing to them.

use super::{FORWARD, GatewayRules, Rule};
use crate::netlink::Family;

/// The group that the links of all gateways on a host are in: what one gateway's clients send through another link is
/// none of the other gateway's business. Any number will do that nobody else uses.
pub(crate) const GATEWAY_LINKS: u32 = 0xad17;

/// From which links a host forwarded packets of a family before Adit made it forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardedBefore {
    /// From all, to come or there; also where Adit does not change it.
    FromAll,
    /// From these alone.
    FromOnly(Vec<String>),
    /// From all but these.
    FromAllBut(Vec<String>),
}

impl GatewayRules {
    /// What the host did not forward before, it does not forward now.
    pub(super) fn other_links_rules(&self) -> Vec<Rule> {
        [(Family::V4, &self.forwarded_before_v4), (Family::V6, &self.forwarded_before_v6)]
            .into_iter()
            .flat_map(|(family, before)| self.closed_rules(family, before))
            .collect()
    }

    fn closed_rules(&self, family: Family, before: &ForwardedBefore) -> Vec<Rule> {
        let between_others = |rule: Rule| match family {
            Family::V4 => rule.input_not(&self.tun).output_not(&self.tun).ipv4(),
            Family::V6 => rule.input_not(&self.tun).output_not(&self.tun).ipv6(),
        };
        let rule = || Rule::new(FORWARD);
        let drop = |rule: Rule| {
            let of_no_gateway = rule.input_not_in_group(GATEWAY_LINKS).output_not_in_group(GATEWAY_LINKS);
            of_no_gateway.drop("between links that were not forwarded between before")
        };
        match before {
            ForwardedBefore::FromAll => Vec::new(),
            ForwardedBefore::FromOnly(open) => {
                let open = open.iter().map(|link| between_others(rule().input(link)).accept());
                open.chain([drop(between_others(rule()))]).collect()
            }
            ForwardedBefore::FromAllBut(closed) => {
                closed.iter().map(|link| drop(between_others(rule().input(link)))).collect()
            }
        }
    }
}
