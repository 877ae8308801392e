//! A small encoder for nftables' netlink messages: enough for Adit's own tables, without the `nft` binary or a C
//! library.
//!
//! [`Batch`] collects messages into one atomic transaction; [`Rule`] builds one rule from readable matches and a
//! verdict; [`Socket`] hands a batch to the kernel and lists chains and rules. Constants are those of the kernel's
//! `include/uapi/linux/netfilter/nf_tables.h`.

mod attribute;
mod batch;
mod expression;
mod listing;
mod rule;
mod set;
mod socket;
mod state;

pub(super) use attribute::{Attributes, find};
pub(super) use batch::{Batch, Chain, ChainKind, ConnectionSet, Hook, Protection};
pub(super) use listing::{ListedChain, ListedElement, ListedExpression, ListedRule, ListedTable, ListedVerdict};
pub(super) use rule::Rule;
pub(super) use set::{Element, Holds, Key, NumberSet, Numbers, Set};
pub(super) use socket::{Refusal, Socket};
pub(super) use state::TableState;

/// Record type of a comment in the user data of a table or rule (libnftnl's `NFTNL_UDATA_TABLE_COMMENT` and
/// `NFTNL_UDATA_RULE_COMMENT`).
const COMMENT: u8 = 0;
/// Subsystem number of nftables within nfnetlink.
const SUBSYSTEM: u16 = 10;
/// Address family of tables that see both IPv4 and IPv6.
pub(super) const FAMILY_INET: u8 = 1;
/// Address family of tables that see ARP.
pub(super) const FAMILY_ARP: u8 = 3;
/// Address family of IPv4-only tables, and the value of `meta nfproto` for IPv4.
pub(super) const FAMILY_IPV4: u8 = 2;
/// Address family of IPv6-only tables, and the value of `meta nfproto` for IPv6.
pub(super) const FAMILY_IPV6: u8 = 10;

/// nftables message types, below [`SUBSYSTEM`].
mod message {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const LIST_TABLES: u16 = 1;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const LIST_CHAINS: u16 = 4;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const LIST_RULES: u16 = 7;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const NEW_ELEMENTS: u16 = 12;
    pub(super) const LIST_ELEMENTS: u16 = 13;
    pub(super) const DELETE_ELEMENTS: u16 = 14;
    pub(super) const GENERATION: u16 = 15;
    pub(super) const GET_GENERATION: u16 = 16;
}
