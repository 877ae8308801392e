//! The netlink socket to nftables, and to what else speaks nfnetlink. The kernel answers within the system call, so
//! nothing here waits.

use std::io;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SndBufForce;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket as NetlinkSocket, SocketAddr};

use super::attribute::{Attributes, find, number, text};
use super::batch::{Batch, CREATE_PROTECTED, encode};
use super::listing::{self, ListedChain, ListedElement, ListedRule, ListedTable};
use super::{SUBSYSTEM, message};

/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_ACK: u16 = 1 | 4;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 1 | 0x300;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// Length of batches that fit into a socket as it is (`net.core.wmem_default` is 212,992 as a rule), in bytes.
const USUAL_ROOM: usize = 65_536;
/// Length of a netlink header.
const HEADER: usize = 16;

/// Why nftables refused a batch or a listing.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub(crate) struct Refusal {
    /// The message that was refused.
    pub(crate) step: String,
    /// The kernel's reason.
    #[source]
    pub(crate) source: io::Error,
}

impl Refusal {
    /// Whether the kernel is too old for the protection of a table.
    pub(crate) fn is_of_protection(&self) -> bool {
        let unknown = matches!(self.source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL));
        unknown && self.step.starts_with(CREATE_PROTECTED)
    }
}

/// A socket to nftables, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    netlink: NetlinkSocket,
    port: u32,
}

/// One netlink message received.
struct Received<'a> {
    kind: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Socket {
    /// Opens a socket.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = NetlinkSocket::new(NETLINK_NETFILTER)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self { netlink: socket, port })
    }

    /// The port that tables which belong to this socket name as their owner.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Applies a batch; when anything in it is refused, nothing of it is applied.
    pub(crate) fn apply(&self, batch: Batch) -> Result<(), Refusal> {
        let (bytes, steps) = batch.finish();
        let refuse = |sequence: u32, source: io::Error| {
            let step =
                usize::try_from(sequence).ok().and_then(|place| steps.get(place)).map_or("apply the batch", |s| s);
            Refusal { step: step.to_owned(), source }
        };
        let of_batch = |source| refuse(u32::MAX, source);
        self.make_room(bytes.len());
        self.netlink.send(&bytes, 0).map_err(of_batch)?;
        // Refusals come in the order of the messages. The first counts; those after it may be its consequence. All
        // answers are there by now, and what is left of them would be taken for answers to the next batch.
        let (mut refusal, mut acknowledged) = (None, false);
        loop {
            let answer = match self.receive() {
                Ok(answer) => answer,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(of_batch(error)),
            };
            for message in messages(&answer).filter(|message| message.kind == ERROR) {
                match error_code(message.payload) {
                    Ok(()) => acknowledged = true,
                    Err(source) => drop(refusal.get_or_insert_with(|| refuse(message.sequence, source))),
                }
            }
        }
        match refusal {
            Some(refusal) => Err(refusal),
            // Between begin and commit.
            None if acknowledged || steps.len() == 2 => Ok(()),
            None => Err(of_batch(io::Error::other("the kernel did not answer"))),
        }
    }

    /// The number of the ruleset's present state; it changes with every change of it.
    pub(crate) fn generation(&self) -> io::Result<u32> {
        let request = encode((SUBSYSTEM << 8) | message::GET_GENERATION, 1, 0, 0, 0, &Attributes::new());
        self.netlink.send(&request, 0)?;
        let answer = self.receive()?;
        for message in messages(&answer) {
            if message.kind == ERROR {
                error_code(message.payload)?;
            } else if message.kind == (SUBSYSTEM << 8) | message::GENERATION {
                let number = message.payload.get(4..).and_then(|list| find(list, 1)).and_then(number);
                return number.ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Whether some rule of a table contains one of these byte sequences.
    pub(crate) fn some_rule_contains(&self, family: u8, table: &str, wanted: &[Vec<u8>]) -> io::Result<bool> {
        let contains = |rule: &[u8], wanted: &[u8]| rule.windows(wanted.len().max(1)).any(|window| window == wanted);
        let look = |_family, attributes: &[u8]| {
            let is_of_table = find(attributes, 1).map(text).as_deref() == Some(table);
            (is_of_table && wanted.iter().any(|wanted| contains(attributes, wanted))).then_some(())
        };
        let found = self.dump(message::LIST_RULES, family, &Attributes::new().text(1, table), look)?;
        Ok(!found.is_empty())
    }

    /// Finds a table.
    pub(crate) fn table(&self, family: u8, name: &str) -> io::Result<Option<ListedTable>> {
        let tables = self.dump(message::LIST_TABLES, family, &Attributes::new(), listing::table)?;
        Ok(tables.into_iter().find(|table| table.name == name))
    }

    /// Lists the rules of all chains of a table, in order.
    pub(crate) fn rules_of_table(&self, family: u8, table: &str) -> io::Result<Vec<ListedRule>> {
        let rules = self.dump(message::LIST_RULES, family, &Attributes::new().text(1, table), listing::rule)?;
        Ok(rules.into_iter().filter(|rule| rule.table == table).collect())
    }

    /// Lists the chains of a table.
    pub(crate) fn chains_of_table(&self, family: u8, table: &str) -> io::Result<Vec<ListedChain>> {
        let chains = self.dump(message::LIST_CHAINS, family, &Attributes::new(), listing::chain)?;
        Ok(chains.into_iter().filter(|chain| chain.table == table).collect())
    }

    /// Lists the chains of all tables.
    pub(crate) fn chains(&self) -> io::Result<Vec<ListedChain>> {
        self.dump(message::LIST_CHAINS, 0, &Attributes::new(), listing::chain)
    }

    /// Lists the rules of a chain, in order.
    pub(crate) fn rules(&self, family: u8, table: &str, chain: &str) -> io::Result<Vec<ListedRule>> {
        let filter = Attributes::new().text(1, table).text(2, chain);
        let rules = self.dump(message::LIST_RULES, family, &filter, listing::rule)?;
        // Kernels before 3.17 ignore the filter's chain; this costs nothing.
        Ok(rules.into_iter().filter(|rule| rule.table == table && rule.chain == chain).collect())
    }

    /// Lists the elements of a set or map.
    pub(crate) fn elements(&self, family: u8, table: &str, set: &str) -> io::Result<Vec<ListedElement>> {
        let filter = Attributes::new().text(1, table).text(2, set);
        let listed = self.dump(message::LIST_ELEMENTS, family, &filter, |_, found| Some(listing::elements(found)))?;
        Ok(listed.concat())
    }

    /// Lists what a message of nftables asks for.
    fn dump<T>(
        &self,
        message: u16,
        family: u8,
        filter: &Attributes,
        parse: impl Fn(u8, &[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.list((SUBSYSTEM << 8) | message, family, filter, parse)
    }

    /// Gives one order of any subsystem, and waits until it is obeyed or refused.
    pub(crate) fn order(&self, kind: u16, family: u8, attributes: &Attributes) -> io::Result<()> {
        self.netlink.send(&encode(kind, REQUEST_ACK, 0, family, 0, attributes), 0)?;
        loop {
            let answer = self.receive()?;
            if let Some(told) = messages(&answer).find(|message| message.kind == ERROR) {
                return error_code(told.payload);
            }
        }
    }

    /// Lists what a message of any subsystem asks for: of each answer what `parse` makes of its family and attributes.
    pub(crate) fn list<T>(
        &self,
        kind: u16,
        family: u8,
        filter: &Attributes,
        parse: impl Fn(u8, &[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.netlink.send(&encode(kind, DUMP, 0, family, 0, filter), 0)?;
        let mut listed = Vec::new();
        loop {
            let answer = self.receive()?;
            for message in messages(&answer) {
                match message.kind {
                    DONE => return Ok(listed),
                    ERROR => error_code(message.payload)?,
                    _ => {
                        if let Some(([family, ..], attributes)) = message.payload.split_first_chunk::<4>() {
                            listed.extend(parse(*family, attributes));
                        }
                    }
                }
            }
        }
    }

    /// Lets the socket take a large batch at once. Without the right to that, sending it tells.
    fn make_room(&self, length: usize) {
        if length > USUAL_ROOM {
            setsockopt(&self.netlink, SndBufForce, &(length * 2)).ok();
        }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        self.netlink.recv_from_full().map(|(bytes, _)| bytes)
    }
}

/// Splits what was received into messages.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received { kind: u16::from_ne_bytes([k0, k1]), sequence: u32::from_ne_bytes([s0, s1, s2, s3]), payload })
    })
}

/// Reads the code of an error message; zero is an acknowledgement.
fn error_code(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk::<4>().map_or(-libc::EBADMSG, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) }
}

#[cfg(test)]
mod tests {
    use adit_testing::namespace::in_namespace;

    use super::*;
    use crate::nft::{Chain, ChainKind, FAMILY_INET, Hook, Rule};

    /// More than acknowledgements, or their messages, fit into a socket.
    const MANY: usize = 5_000;

    /// A batch of as many rules, the last of which may be one that no chain takes.
    fn batch(last_is_wrong: bool) -> Batch {
        let mut batch = Batch::new("adit_test");
        batch.create_table();
        let (name, kind) = ("output", ChainKind::Filter);
        batch.create_chain(Chain { name, kind, hook: Hook::Output, priority: 0 });
        for _ in 1..MANY {
            batch.append_rule(&Rule::new("output").mark(adit_proto::mark::Mark::CLIENT).accept());
        }
        batch.append_rule(&Rule::new(if last_is_wrong { "nowhere" } else { "output" }).accept());
        batch
    }

    #[test]
    fn batch_of_thousands_of_messages_is_applied_or_refused_as_a_whole() {
        in_namespace(|| {
            let socket = Socket::open().unwrap();
            let refusal = socket.apply(batch(true)).unwrap_err();
            assert_eq!(refusal.step, format!("append rule {} to chain nowhere", MANY + 2));
            assert_eq!(refusal.source.raw_os_error(), Some(libc::ENOENT));
            assert_eq!(socket.table(FAMILY_INET, "adit_test").unwrap(), None);
            // What the kernel said of the refused batch is no answer to this one.
            assert!(socket.apply(batch(true)).is_err());
            socket.apply(batch(false)).unwrap();
            assert_eq!(socket.rules_of_table(FAMILY_INET, "adit_test").unwrap().len(), MANY);
        });
    }
}
