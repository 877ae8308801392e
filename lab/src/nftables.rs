//! A minimal dump of nftables over netlink (linux/netfilter/nf_tables.h), enough to tell two rule sets apart.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// `NFNL_SUBSYS_NFTABLES`, the high byte of a message type.
const SUBSYSTEM: u16 = 10 << 8;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct nfgenmsg`, whose last two bytes number the rule set's generation.
const GENERIC_HEADER: usize = 4;
/// What is dumped: `NFT_MSG_GETTABLE`, `GETCHAIN`, `GETRULE`, `GETSET`, `GETOBJ`, `GETFLOWTABLE`.
const KINDS: [(&str, u16); 6] =
    [("table", 1), ("chain", 4), ("rule", 7), ("set", 10), ("object", 19), ("flowtable", 23)];
/// Larger than any message of the kernel (it fills at most 32 KiB per read).
const BUFFER: usize = 64 * 1024;

/// One line for each table, chain, rule, set, object and flow table; empty where the kernel has no nftables.
pub(super) fn dump() -> Result<Vec<String>> {
    let descriptor =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
    let descriptor = match descriptor {
        Ok(descriptor) => descriptor,
        Err(Errno::EPROTONOSUPPORT) => return Ok(Vec::new()),
        Err(error) => return Err(error).context("open a netfilter socket"),
    };
    bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("bind a netfilter socket")?;
    setsockopt(&descriptor, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).context("set a time-out")?;
    let mut lines = Vec::new();
    for (label, kind) in KINDS {
        request(&descriptor, kind)?;
        receive(&descriptor, label, &mut lines).with_context(|| format!("list nftables {label}s"))?;
    }
    Ok(lines)
}

fn request(descriptor: &OwnedFd, kind: u16) -> Result<()> {
    let mut message = Vec::with_capacity(HEADER + GENERIC_HEADER);
    let length = u32::try_from(HEADER + GENERIC_HEADER).context("a header is short")?;
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&(SUBSYSTEM | kind).to_ne_bytes());
    message.extend_from_slice(&DUMP.to_ne_bytes());
    message.extend_from_slice(&[0; 8]); // sequence number and port, both unused
    message.extend_from_slice(&[0; GENERIC_HEADER]); // all families
    send(descriptor.as_raw_fd(), &message, MsgFlags::empty()).context("ask the kernel")?;
    Ok(())
}

fn receive(descriptor: &OwnedFd, label: &str, lines: &mut Vec<String>) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = recv(descriptor.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("hear from the kernel")?;
        let mut rest = &buffer[..length];
        while let Some((kind, payload, next)) = split(rest) {
            match kind {
                DONE => return Ok(()),
                ERROR => return refused(payload),
                _ => lines.push(format!("{label} {}", describe(payload))),
            }
            rest = next;
        }
    }
}

/// Type and payload of the first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(HEADER..length)?;
    Some((kind, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn refused(payload: &[u8]) -> Result<()> {
    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    let error = Errno::from_raw(-code);
    // A kernel without nftables, or without this kind of object.
    let unknown = matches!(error, Errno::EINVAL | Errno::EOPNOTSUPP);
    if unknown { Ok(()) } else { bail!(error) }
}

/// Family, then all attributes in hexadecimal with their printable characters.
fn describe(payload: &[u8]) -> String {
    let family = payload.first().copied().unwrap_or_default();
    let attributes = payload.get(GENERIC_HEADER..).unwrap_or_default();
    let hex: String = attributes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = attributes.iter().filter(|byte| byte.is_ascii_graphic());
    format!("family {family} {} {hex}", text.map(|byte| char::from(*byte)).collect::<String>())
}
