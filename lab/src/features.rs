//! Offloads of links, over generic netlink (linux/ethtool_netlink.h), in the calling thread's network namespace.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The name of an offload and whether it shall be on.
pub type Feature = (&'static str, bool);

/// What makes each packet be alone on a cable.
pub(super) const ALONE: [Feature; 7] = [
    ("tx-udp-segmentation", false),
    ("tx-tcp-segmentation", false),
    ("tx-tcp6-segmentation", false),
    ("tx-tcp-ecn-segmentation", false),
    ("tx-tcp-mangleid-segmentation", false),
    ("tx-generic-segmentation", false),
    ("tx-gso-list", false),
];

/// What makes the receiver merge packets that arrived alone.
pub(super) const MERGED: [Feature; 1] = [("rx-gro", true)];

/// What makes every checksum be computed before the packet is on the cable.
pub(super) const CHECKSUMMED: [Feature; 1] = [("tx-checksum-ip-generic", false)];

/// `GENL_ID_CTRL`, the family that knows the others, and `CTRL_CMD_GETFAMILY`.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `ETHTOOL_MSG_FEATURES_GET` and `_SET`.
const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
/// `ETHTOOL_A_FEATURES_…`.
const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
/// `ETHTOOL_A_HEADER_DEV_NAME`.
const HEADER_DEV_NAME: u16 = 2;
/// `ETHTOOL_A_BITSET_BITS`, `ETHTOOL_A_BITSET_BITS_BIT`, `ETHTOOL_A_BITSET_BIT_NAME` and `_VALUE`.
const BITSET_BITS: u16 = 3;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// `NLM_F_REQUEST | NLM_F_ACK`, so that every answer ends with an error message.
const REQUEST: u16 = 0x5;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLA_F_NESTED` and what remains of a type without such flags.
const NESTED: u16 = 0x8000;
const TYPE: u16 = 0x3fff;
/// Lengths of `struct nlmsghdr` and `struct genlmsghdr`.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
/// Larger than any answer of the kernel here.
const BUFFER: usize = 32 * 1024;

/// Switches offloads of a link; one that the kernel does not know or cannot change is an error.
pub(super) fn set(link: &str, wanted: &[Feature]) -> Result<()> {
    let channel = Channel::open()?;
    let bit = |&(name, on): &Feature| {
        let mut content = text(BIT_NAME, name);
        if on {
            content.extend(attribute(BIT_VALUE, &[]));
        }
        attribute(BITS_BIT | NESTED, &content)
    };
    let bits: Vec<u8> = wanted.iter().flat_map(bit).collect();
    let bitset = attribute(BITSET_BITS | NESTED, &bits);
    let body = [header(link), attribute(FEATURES_WANTED | NESTED, &bitset)].concat();
    channel.request(FEATURES_SET, &body).with_context(|| format!("switch offloads of {link}"))?;
    let active = active(link)?;
    for (name, on) in wanted {
        if active.iter().any(|other| other == name) != *on {
            bail!("the kernel did not switch {name} of {link} {}", if *on { "on" } else { "off" });
        }
    }
    Ok(())
}

/// The names of a link's offloads that are on.
pub(super) fn active(link: &str) -> Result<Vec<String>> {
    let channel = Channel::open()?;
    let answer = channel.request(FEATURES_GET, &header(link)).with_context(|| format!("read offloads of {link}"))?;
    let bits = find(&answer, FEATURES_ACTIVE).and_then(|bitset| find(bitset, BITSET_BITS)).unwrap_or_default();
    let names = attributes(bits).filter_map(|(_, bit)| find(bit, BIT_NAME));
    Ok(names.map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()).collect())
}

/// A socket for one family of generic netlink.
struct Channel {
    socket: OwnedFd,
    family: u16,
}

impl Channel {
    fn open() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkGeneric)
            .context("open a generic netlink socket")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("bind a generic netlink socket")?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).context("set a time-out")?;
        let mut channel = Self { socket, family: CONTROLLER };
        let answer = channel.request(GET_FAMILY, &text(FAMILY_NAME, "ethtool")).context("look for ethtool netlink")?;
        let id = find(&answer, FAMILY_ID).and_then(<[u8]>::first_chunk).context("ethtool netlink has a number")?;
        channel.family = u16::from_ne_bytes(*id);
        Ok(channel)
    }

    /// Sends one request and returns the attributes of its answer, none where there was only a receipt.
    fn request(&self, command: u8, body: &[u8]) -> Result<Vec<u8>> {
        let length = u32::try_from(HEADER + GENERIC_HEADER + body.len()).context("a request is short")?;
        let mut message = Vec::from(length.to_ne_bytes());
        message.extend(self.family.to_ne_bytes());
        message.extend(REQUEST.to_ne_bytes());
        message.extend([0; 8]); // sequence number and port, both unused
        message.extend([command, 1, 0, 0]);
        message.extend(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty()).context("ask the kernel")?;
        let (mut buffer, mut answer) = (vec![0; BUFFER], Vec::new());
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
            let length = length.context("hear from the kernel")?;
            let mut rest = &buffer[..length];
            while let Some((kind, payload, next)) = split(rest) {
                if kind == ERROR {
                    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return if code == 0 { Ok(answer) } else { Err(Errno::from_raw(-code).into()) };
                }
                payload.get(GENERIC_HEADER..).unwrap_or_default().clone_into(&mut answer);
                rest = next;
            }
        }
    }
}

/// The attribute that names the link.
fn header(link: &str) -> Vec<u8> {
    attribute(FEATURES_HEADER | NESTED, &text(HEADER_DEV_NAME, link))
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// An attribute: length, type, value, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("requests are made of a few names");
    let mut bytes = Vec::from(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Type and payload of the first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    Some((kind, bytes.get(HEADER..length)?, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Types and values of consecutive attributes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lab, check_permission};
    use adit_testing::skip;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let bytes = [text(7, "abc"), attribute(9 | NESTED, &[1, 2, 3, 4, 5])].concat();
        assert_eq!(bytes.len(), 8 + 12);
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(7, &b"abc\0"[..]), (9, &[1, 2, 3, 4, 5])]);
        assert_eq!(attributes(&[200, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn wire_switches_segmentation_off_and_merging_on() {
        if let Err(failure) = check_permission() {
            return skip(failure);
        }
        let has = |lab: &mut Lab, name: &str| {
            let active = lab.host("client").unwrap().features("eth0").unwrap();
            active.iter().any(|feature| feature == name)
        };
        let mut plain = Lab::pair(false).unwrap();
        assert!(has(&mut plain, "tx-udp-segmentation") && !has(&mut plain, "rx-gro"));
        let mut wire = Lab::pair(true).unwrap();
        assert!(!has(&mut wire, "tx-udp-segmentation") && has(&mut wire, "rx-gro"));
    }
}
