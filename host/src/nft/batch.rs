//! A batch: messages the kernel applies all together or not at all.

use super::attribute::Attributes;
use super::rule::Rule;
use super::set::{Element, NumberSet, Set, encode_all_elements, encode_elements};
use super::{FAMILY_ARP, FAMILY_INET, SUBSYSTEM, message};

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
const ACKNOWLEDGE: u8 = 4;
/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
const APPEND: u16 = 0x800;
/// `NFNL_MSG_BATCH_BEGIN`.
const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
const BATCH_END: u16 = 0x11;
/// Policy "accept", `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// Length of a netlink header.
const HEADER: usize = 16;
/// Where in it the lower byte of the flags stands.
const FLAGS_AT: usize = if cfg!(target_endian = "little") { 6 } else { 7 };
/// Most inner addresses a connection set holds: a v4 pool of /16, or as many v6 sources.
const SET_SIZE: u32 = 65_535;
/// What the numbers of named sets in a batch begin with, after those of [`ConnectionSet`].
const FIRST_SET: u32 = 16;
/// `NFT_SET_EVAL`: packets add elements.
const SET_DYNAMIC: u32 = 0x20;

/// The step in which an older kernel refuses a [`Protection`] it does not know.
pub(super) const CREATE_PROTECTED: &str = "create the protected table";

/// Where a base chain hooks into the packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

impl Hook {
    /// What a host receives by ARP (`NF_ARP_IN`).
    pub(crate) const ARP_INPUT: Self = Self::Prerouting;
    /// What it says by ARP (`NF_ARP_OUT`).
    pub(crate) const ARP_OUTPUT: Self = Self::Input;
}

/// From whom the kernel keeps a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Only the socket that made the table changes or removes it, and after the end of its process it stays, for
    /// anybody to remove (`NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST`, since Linux 6.9).
    OwnerAndPersistent = 6,
    /// Only the socket that made the table changes or removes it, and with its process it goes (`NFT_TABLE_F_OWNER`,
    /// since Linux 5.12).
    Owner = 2,
    /// Every privileged program changes and removes it.
    None = 0,
}

impl Protection {
    /// All of them, the strongest first.
    pub(crate) const ALL: [Self; 3] = [Self::OwnerAndPersistent, Self::Owner, Self::None];
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
    /// Packets are routed anew whose mark a rule changed.
    Route,
}

/// A base chain whose policy is to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
}

/// A set of source addresses, each with a count of its tracked connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionSet {
    V4,
    V6,
}

impl ConnectionSet {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "connections_v4",
            Self::V6 => "connections_v6",
        }
    }

    /// Number by which rules of the same batch name the set.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    fn encode(self, table: &str) -> Attributes {
        // The key type is for `nft list` only; 7 is its ipv4_addr, 8 its ipv6_addr.
        let (key_type, key_length) = match self {
            Self::V4 => (7, 4),
            Self::V6 => (8, 16),
        };
        Attributes::new()
            .text(1, table)
            .text(2, self.name())
            .number(3, SET_DYNAMIC)
            .number(4, key_type)
            .number(5, key_length)
            .nested(9, &Attributes::new().number(1, SET_SIZE))
            .number(10, self.id())
    }
}

/// Messages for one table, applied atomically.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    family: u8,
    table: String,
    bytes: Vec<u8>,
    /// Where the last message begins in `bytes`.
    last: usize,
    /// What each message does; a message's sequence number is its place here.
    steps: Vec<String>,
}

impl Batch {
    /// Starts a batch about a table that sees IPv4 and IPv6.
    pub(crate) fn new(table: &str) -> Self {
        Self::of_family(FAMILY_INET, table)
    }

    /// Starts a batch about a table that sees ARP.
    pub(crate) fn new_arp(table: &str) -> Self {
        Self::of_family(FAMILY_ARP, table)
    }

    fn of_family(family: u8, table: &str) -> Self {
        let mut batch = Self { family, table: table.to_owned(), bytes: Vec::new(), last: 0, steps: Vec::new() };
        batch.push_bare(BATCH_BEGIN, "begin the batch");
        batch
    }

    /// Deletes the table with all that is in it, whether or not it is there.
    pub(crate) fn delete_table(&mut self) {
        self.create_table();
        self.delete_existing_table();
    }

    /// Deletes the table with all that is in it; the batch is refused if it is not there.
    pub(crate) fn delete_existing_table(&mut self) {
        let table = Attributes::new().text(1, &self.table);
        self.push(message::DELETE_TABLE, 0, &table, format!("delete table {}", self.table));
    }

    /// Creates the table if it is not there.
    pub(crate) fn create_table(&mut self) {
        let table = Attributes::new().text(1, &self.table);
        self.push(message::NEW_TABLE, CREATE, &table, format!("create table {}", self.table));
    }

    /// Creates the table with a comment that says whose it is (kept since Linux 5.10).
    pub(crate) fn create_table_of(&mut self, comment: &str, protection: Protection) {
        let table = Attributes::new().text(1, &self.table).number(2, protection as u32).comment(6, comment);
        self.push(message::NEW_TABLE, CREATE, &table, format!("{CREATE_PROTECTED} {}", self.table));
    }

    /// Creates a base chain.
    pub(crate) fn create_chain(&mut self, chain: Chain) {
        let hook = Attributes::new().number(1, chain.hook as u32).number(2, chain.priority.cast_unsigned());
        let kind = match chain.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        let attributes =
            Attributes::new().text(1, &self.table).text(3, chain.name).nested(4, &hook).number(5, ACCEPT).text(7, kind);
        self.push(message::NEW_CHAIN, CREATE, &attributes, format!("create chain {}", chain.name));
    }

    /// Creates a chain that packets come to from other chains only.
    pub(crate) fn create_inner_chain(&mut self, name: &str) {
        let attributes = Attributes::new().text(1, &self.table).text(3, name);
        self.push(message::NEW_CHAIN, CREATE, &attributes, format!("create chain {name}"));
    }

    /// Creates a set that counts connections per source.
    pub(crate) fn create_set(&mut self, set: ConnectionSet) {
        self.push(message::NEW_SET, CREATE, &set.encode(&self.table), format!("create set {}", set.name()));
    }

    /// Creates a set of addresses.
    pub(crate) fn create_named_set(&mut self, set: &Set) {
        let id = FIRST_SET + self.sequence();
        self.push(message::NEW_SET, CREATE, &set.encode(&self.table, id), format!("create set {}", set.name));
    }

    /// Creates a set of numbers.
    pub(crate) fn create_number_set(&mut self, set: NumberSet) {
        let id = FIRST_SET + self.sequence();
        self.push(message::NEW_SET, CREATE, &set.encode(&self.table, id), format!("create set {}", set.name));
    }

    /// Adds elements to a set.
    pub(crate) fn add_elements(&mut self, set: &str, elements: impl IntoIterator<Item = Element>) {
        for elements in encode_elements(&self.table, set, elements) {
            self.push(message::NEW_ELEMENTS, CREATE, &elements, format!("add elements to {set}"));
        }
    }

    /// Deletes elements of a set. One that is not there makes the kernel refuse the batch.
    pub(crate) fn delete_elements(&mut self, set: &str, elements: impl IntoIterator<Item = Element>) {
        for elements in encode_elements(&self.table, set, elements) {
            self.push(message::DELETE_ELEMENTS, 0, &elements, format!("delete elements of {set}"));
        }
    }

    /// Deletes all elements of a set.
    pub(crate) fn empty_set(&mut self, set: &str) {
        let all = encode_all_elements(&self.table, set);
        self.push(message::DELETE_ELEMENTS, 0, &all, format!("empty set {set}"));
    }

    /// Appends a rule to its chain.
    pub(crate) fn append_rule(&mut self, rule: &Rule) {
        let step = format!("append rule {} to chain {}", self.steps.len(), rule.chain);
        self.push(message::NEW_RULE, CREATE | APPEND, &rule.encode(&self.table), step);
    }

    /// Ends the batch; gives its bytes and what each message, by sequence number, does. The kernel tells of each
    /// message that it refuses, and of the last one before the commit in any case, once all is done: an acknowledgement
    /// of each would not fit into the socket.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<String>) {
        if let Some(flags) = self.bytes.get_mut(self.last + FLAGS_AT) {
            *flags |= ACKNOWLEDGE;
        }
        self.push_bare(BATCH_END, "commit the batch");
        (self.bytes, self.steps)
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: &Attributes, step: String) {
        let kind = (SUBSYSTEM << 8) | kind;
        self.last = self.bytes.len();
        self.bytes.extend(encode(kind, REQUEST | flags, self.sequence(), self.family, 0, attributes));
        self.steps.push(step);
    }

    fn push_bare(&mut self, kind: u16, step: &str) {
        self.bytes.extend(encode(kind, REQUEST, self.sequence(), 0, SUBSYSTEM, &Attributes::new()));
        self.steps.push(step.to_owned());
    }

    /// The number of the next message.
    fn sequence(&self) -> u32 {
        u32::try_from(self.steps.len()).expect("a batch has far fewer than 2^32 messages")
    }
}

/// Encodes one netlink message with its nfnetlink header.
pub(super) fn encode(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    attributes: &Attributes,
) -> Vec<u8> {
    let length = HEADER + 4 + attributes.as_bytes().len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).expect("a message is far below 4 GiB").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_framed_and_numbered() {
        let mut batch = Batch::new("adit");
        batch.create_table();
        let (bytes, steps) = batch.finish();
        let expected = [
            &[20, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10][..],
            &[32, 0, 0, 0, 0, 10, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            &[9, 0, 1, 0, b'a', b'd', b'i', b't', 0, 0, 0, 0],
            &[20, 0, 0, 0, 0x11, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(steps, ["begin the batch", "create table adit", "commit the batch"]);
    }

    #[test]
    fn chain_priority_may_be_negative() {
        let mut batch = Batch::new("adit");
        batch.create_chain(Chain { name: "raw", kind: ChainKind::Filter, hook: Hook::Prerouting, priority: -300 });
        let (bytes, _) = batch.finish();
        let hook = [20, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 0, 8, 0, 2, 0, 0xff, 0xff, 0xfe, 0xd4];
        assert!(bytes.windows(hook.len()).any(|window| window == hook));
    }
}
