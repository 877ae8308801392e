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

/// `NFT_SET_ELEM_INTERVAL_END`.
const RANGE_END: u32 = 1;

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
    /// Where among the chains of its hook it comes, for a base chain.
    pub(crate) priority: i32,
    /// Whether it is asked for the first packet of a connection only, and how to translate that.
    pub(crate) is_nat: bool,
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
    /// What it does, in order.
    pub(crate) expressions: Vec<ListedExpression>,
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

/// An expression as the kernel lists it: a match, something done, or a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedExpression {
    pub(crate) name: String,
    operands: Vec<u8>,
}

/// A verdict as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListedVerdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    GoTo(String),
    Other,
}

/// An element of a set or map as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedElement {
    pub(crate) key: Vec<u8>,
    /// The first key behind a range.
    pub(crate) ends: bool,
    /// What a map of verdicts has for the key.
    pub(crate) verdict: Option<ListedVerdict>,
}

impl ListedExpression {
    /// An operand as a number.
    pub(crate) fn number(&self, kind: u16) -> Option<u32> {
        number(find(&self.operands, kind)?)
    }

    /// An operand as a text; an absent one is empty.
    pub(crate) fn text(&self, kind: u16) -> String {
        find(&self.operands, kind).map(text).unwrap_or_default()
    }

    /// The bytes of an operand; an absent one has none.
    pub(crate) fn value(&self, kind: u16) -> &[u8] {
        find(&self.operands, kind).unwrap_or_default()
    }

    /// The bytes that an operand wraps.
    pub(crate) fn data(&self, kind: u16) -> Option<&[u8]> {
        find(find(&self.operands, kind)?, 1)
    }

    /// The verdict of an `immediate`, unless it loads something else.
    pub(crate) fn verdict(&self) -> Option<ListedVerdict> {
        verdict(find(&self.operands, 2)?)
    }
}

/// Reads the verdict that data hold, if they hold one.
fn verdict(data: &[u8]) -> Option<ListedVerdict> {
    let verdict = find(data, 2)?;
    let chain = || find(verdict, 2).map(text).unwrap_or_default();
    // `NF_…` and `NFT_…` of the kernel; the latter are negative.
    Some(match find(verdict, 1).and_then(number)?.cast_signed() {
        0 => ListedVerdict::Drop,
        1 => ListedVerdict::Accept,
        -3 => ListedVerdict::Jump(chain()),
        -4 => ListedVerdict::GoTo(chain()),
        -5 => ListedVerdict::Return,
        _ => ListedVerdict::Other,
    })
}

/// Reads the elements of a set from one message.
pub(super) fn elements(attributes: &[u8]) -> Vec<ListedElement> {
    let list = find(attributes, 3).unwrap_or_default();
    let element = |(_, element)| {
        let flags = find(element, 3).and_then(number).unwrap_or_default();
        Some(ListedElement {
            key: find(find(element, 1)?, 1)?.to_vec(),
            ends: flags & RANGE_END != 0,
            verdict: find(element, 2).and_then(verdict),
        })
    };
    split(list).filter_map(element).collect()
}

/// Reads a chain's attributes.
pub(super) fn chain(family: u8, attributes: &[u8]) -> Option<ListedChain> {
    Some(ListedChain {
        family,
        table: text(find(attributes, 1)?),
        name: text(find(attributes, 3)?),
        handle: find(attributes, 2).and_then(long).unwrap_or_default(),
        hook: find(attributes, 4).and_then(|hook| find(hook, 1)).and_then(number),
        priority: find(attributes, 4).and_then(|hook| find(hook, 2)).and_then(number).unwrap_or_default().cast_signed(),
        is_nat: find(attributes, 7).map(text).is_some_and(|kind| kind == "nat"),
        drops: find(attributes, 5).and_then(number) == Some(0),
    })
}

/// Reads a rule's attributes.
pub(super) fn rule(_family: u8, attributes: &[u8]) -> Option<ListedRule> {
    let elements = find(attributes, 4).unwrap_or_default();
    let expression = |(_, element)| {
        let operands = find(element, 2).unwrap_or_default().to_vec();
        Some(ListedExpression { name: text(find(element, 1)?), operands })
    };
    let expressions: Vec<_> = split(elements).filter_map(expression).collect();
    Some(ListedRule {
        table: text(find(attributes, 1)?),
        chain: text(find(attributes, 2)?),
        handle: find(attributes, 3).and_then(long).unwrap_or_default(),
        refuses: expressions
            .iter()
            .any(|expression| expression.name == "reject" || expression.verdict() == Some(ListedVerdict::Drop)),
        expressions,
    })
}

impl ListedRule {
    /// Whether the rule refuses every packet that reaches it.
    pub(crate) fn refuses_everything(&self) -> bool {
        let without_effect = ["counter", "log", "reject", "immediate"];
        self.refuses && self.expressions.iter().all(|expression| without_effect.contains(&expression.name.as_str()))
    }
}
