//! Policy rules.

use adit_proto::mark::Mark;
use futures::TryStreamExt;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use serde::{Deserialize, Serialize};

use super::{Family, Netlink, refused};
use crate::error::HostError;

/// A policy rule: packets *without* a firewall mark look up a table (`not fwmark V/M lookup T pref P`).
///
/// It bears the protocol `kernel`: systemd-networkd removes all rules but its own and the kernel's whenever it
/// configures a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The address family the rule is for.
    pub family: Family,
    /// Packets with this mark pass the rule by.
    #[serde(flatten)]
    pub unless: Mark,
    /// The table to look up.
    pub table: u32,
    /// Place among the rules, lower first; `main` is at 32766.
    pub priority: u32,
}

impl Netlink {
    /// Adds a policy rule.
    ///
    /// # Errors
    /// The kernel's refusal (`AlreadyExists` when there is the same rule).
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), HostError> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = message(rule);
        request.execute().await.map_err(|error| refused(format!("add {}", describe(rule)), error))
    }

    /// Removes a policy rule.
    ///
    /// # Errors
    /// The kernel's refusal (`NotFound` when there is no such rule).
    pub async fn remove_rule(&self, rule: &Rule) -> Result<(), HostError> {
        let removed = self.handle.rule().del(message(rule)).execute().await;
        removed.map_err(|error| refused(format!("remove {}", describe(rule)), error))
    }

    /// Lists a family's policy rules that are of this kind.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn rules(&self, family: Family) -> Result<Vec<Rule>, HostError> {
        let version = match family {
            Family::V4 => IpVersion::V4,
            Family::V6 => IpVersion::V6,
        };
        let listed: Vec<RuleMessage> = self
            .handle
            .rule()
            .get(version)
            .execute()
            .try_collect()
            .await
            .map_err(|error| refused("list policy rules", error))?;
        Ok(listed.iter().filter_map(|message| rule_of(message, family)).collect())
    }
}

fn describe(rule: &Rule) -> String {
    format!("{:?} rule {} to table {}", rule.family, rule.priority, rule.table)
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.header.flags = RuleFlags::Invert;
    message.attributes = vec![
        RuleAttribute::Protocol(RouteProtocol::Kernel),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.unless.value),
        RuleAttribute::FwMask(rule.unless.mask),
    ];
    message
}

fn rule_of(message: &RuleMessage, family: Family) -> Option<Rule> {
    let header = &message.header;
    let narrower = header.dst_len != 0 || header.src_len != 0 || header.tos != 0;
    if narrower || !header.flags.contains(RuleFlags::Invert) || header.action != RuleAction::ToTable {
        return None;
    }
    if message.attributes.iter().any(says_more_than_a_rule) {
        return None;
    }
    let find = |read: fn(&RuleAttribute) -> Option<u32>| message.attributes.iter().find_map(read);
    let table = find(|attribute| if let RuleAttribute::Table(table) = attribute { Some(*table) } else { None });
    let value = find(|attribute| if let RuleAttribute::FwMark(mark) = attribute { Some(*mark) } else { None })?;
    let mask = find(|attribute| if let RuleAttribute::FwMask(mask) = attribute { Some(*mask) } else { None })?;
    Some(Rule {
        family,
        unless: Mark { value, mask },
        table: table.unwrap_or_else(|| u32::from(message.header.table)),
        priority: find(|attribute| if let RuleAttribute::Priority(place) = attribute { Some(*place) } else { None })?,
    })
}

/// Whether a [`Rule`] cannot express an attribute: the rule then applies to other packets than it seems.
fn says_more_than_a_rule(attribute: &RuleAttribute) -> bool {
    // The kernel lists the suppressors of every rule; all ones switch them off.
    !matches!(
        attribute,
        RuleAttribute::Table(_)
            | RuleAttribute::Priority(_)
            | RuleAttribute::FwMark(_)
            | RuleAttribute::FwMask(_)
            | RuleAttribute::Protocol(_)
            | RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_testing::namespace::{in_namespace_async, ip};

    #[test]
    fn rule_of_an_older_journal_is_read() {
        let older = r#"{"family":"v4","unless_mark":44311,"table":44311,"priority":5300}"#;
        let rule: Rule = serde_json::from_str(older).unwrap();
        assert_eq!((rule.unless, rule.priority), ("44311".parse().unwrap(), 5300));
        assert_eq!(serde_json::from_str::<Rule>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
    }

    #[test]
    fn rules_of_both_families_come_and_go() {
        in_namespace_async(|| async {
            let netlink = Netlink::open().unwrap();
            for family in [Family::V4, Family::V6] {
                let rule = Rule { family, unless: Mark::CLIENT, table: 51_820, priority: 5_000 };
                netlink.add_rule(&rule).await.unwrap();
                assert_eq!(netlink.rules(family).await.unwrap(), [rule]);
                assert!(netlink.add_rule(&rule).await.is_err());
                netlink.remove_rule(&rule).await.unwrap();
                assert_eq!(netlink.rules(family).await.unwrap(), []);
            }
        });
    }

    #[test]
    fn a_rule_for_fewer_packets_is_another_rule() {
        in_namespace_async(|| async {
            let netlink = Netlink::open().unwrap();
            let rules = "rule add not fwmark 0xad17 lookup 51820 pref";
            for narrower in ["5001 from 10.0.0.0/8", "5002 iif lo", "5003 uidrange 7-7", "5004 suppress_prefixlength 0"]
            {
                ip(&format!("{rules} {narrower}"));
            }
            assert_eq!(netlink.rules(Family::V4).await.unwrap(), []);
            ip(&format!("{rules} 5005"));
            assert_eq!(netlink.rules(Family::V4).await.unwrap().len(), 1);
        });
    }

    #[test]
    fn the_same_rule_of_somebody_else_is_not_removed() {
        in_namespace_async(|| async {
            let netlink = Netlink::open().unwrap();
            ip("rule add not fwmark 0xad17 lookup 51820 pref 5000 protocol static");
            let rule = Rule { family: Family::V4, unless: "0xad17".parse().unwrap(), table: 51_820, priority: 5_000 };
            assert_eq!(netlink.remove_rule(&rule).await.unwrap_err().errno(), Some(libc::ENOENT));
            assert_eq!(netlink.rules(Family::V4).await.unwrap(), [rule]);
        });
    }
}
