//! Policy rules.

use adit_proto::mark::Mark;
use futures::TryStreamExt;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use serde::{Deserialize, Serialize};

use super::{Family, Netlink, refused};
use crate::error::HostError;

/// A policy rule: packets *without* a firewall mark look up a table (`not fwmark V/M lookup T pref P`).
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
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.unless.value),
        RuleAttribute::FwMask(rule.unless.mask),
    ];
    message
}

fn rule_of(message: &RuleMessage, family: Family) -> Option<Rule> {
    if !message.header.flags.contains(RuleFlags::Invert) || message.header.action != RuleAction::ToTable {
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

#[cfg(test)]
mod tests {
    use super::*;
    use adit_testing::namespace::in_namespace_async;

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
}
