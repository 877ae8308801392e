//! What the kernel lists: chains and rules of all tables, ours and others'.

use super::attribute::{comment, find, long, number, split, text};

/// A table as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedTable {
    pub(crate) name: String,
    pub(crate) flags: u32,
    /// The kernel's number for it; a table made anew has another.
    pub(crate) handle: u64,
    pub(crate) comment: Option<String>,
    /// The port of the netlink socket it belongs to, which is as a rule the number of a process.
    pub(crate) owner: Option<u32>,
}

/// A chain as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedChain {
    /// The address family of its table.
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    /// The kernel's number for it within its table; a chain made anew has another.
    pub(crate) handle: u64,
    /// The hook's number, for a base chain.
    pub(crate) hook: Option<u32>,
    /// Whether its policy is to drop.
    pub(crate) drops: bool,
}

/// A rule as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedRule {
    pub(crate) table: String,
    pub(crate) chain: String,
    /// The kernel's number for it within its table; a rule that is changed gets another.
    pub(crate) handle: u64,
    /// Names of its expressions, in order.
    pub(crate) expressions: Vec<String>,
    /// Whether one of its expressions is an unconditional "drop" or "reject".
    pub(crate) refuses: bool,
}

/// Reads a table's attributes.
pub(super) fn table(_family: u8, attributes: &[u8]) -> Option<ListedTable> {
    Some(ListedTable {
        name: text(find(attributes, 1)?),
        flags: find(attributes, 2).and_then(number).unwrap_or_default(),
        handle: find(attributes, 4).and_then(long).unwrap_or_default(),
        comment: find(attributes, 6).and_then(comment),
        owner: find(attributes, 7).and_then(number),
    })
}

/// Reads a chain's attributes.
pub(super) fn chain(family: u8, attributes: &[u8]) -> Option<ListedChain> {
    Some(ListedChain {
        family,
        table: text(find(attributes, 1)?),
        name: text(find(attributes, 3)?),
        handle: find(attributes, 2).and_then(long).unwrap_or_default(),
        hook: find(attributes, 4).and_then(|hook| find(hook, 1)).and_then(number),
        drops: find(attributes, 5).and_then(number) == Some(0),
    })
}

/// Reads a rule's attributes.
pub(super) fn rule(_family: u8, attributes: &[u8]) -> Option<ListedRule> {
    let elements = find(attributes, 4).unwrap_or_default();
    let expressions: Vec<_> = split(elements)
        .filter_map(|(_, element)| Some((text(find(element, 1)?), find(element, 2).unwrap_or_default())))
        .collect();
    Some(ListedRule {
        table: text(find(attributes, 1)?),
        chain: text(find(attributes, 2)?),
        handle: find(attributes, 3).and_then(long).unwrap_or_default(),
        refuses: expressions
            .iter()
            .any(|(name, operands)| name == "reject" || (name == "immediate" && drops(operands))),
        expressions: expressions.into_iter().map(|(name, _)| name).collect(),
    })
}

/// Whether an `immediate` expression's operands are the verdict "drop".
fn drops(operands: &[u8]) -> bool {
    find(operands, 2).and_then(|data| find(data, 2)).and_then(|verdict| find(verdict, 1)).and_then(number) == Some(0)
}

impl ListedRule {
    /// Whether the rule refuses every packet that reaches it.
    pub(crate) fn refuses_everything(&self) -> bool {
        let without_effect = ["counter", "log", "reject", "immediate"];
        self.refuses && self.expressions.iter().all(|name| without_effect.contains(&name.as_str()))
    }
}
