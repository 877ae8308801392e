//! The expressions rules are made of, each one instruction of the kernel's nftables machine.

use std::borrow::Cow;

use super::attribute::Attributes;

/// A register of 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    First = 1,
    Second = 2,
}

/// What `meta` loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    /// The packet's mark.
    Mark = 3,
    /// Name of the link the packet came in by, padded to 16 bytes.
    InputName = 6,
    /// Name of the link the packet leaves by, padded to 16 bytes.
    OutputName = 7,
    /// User of the socket a packet comes from; nothing for one that comes from no program's socket.
    SocketUser = 10,
    /// Group of the socket a packet comes from; nothing for one that comes from no program's socket.
    SocketGroup = 11,
    /// Group of the link the packet came in by.
    InputGroup = 21,
    /// Group of the link the packet leaves by.
    OutputGroup = 22,
    /// `FAMILY_IPV4` or `FAMILY_IPV6`.
    Family = 15,
    /// Transport protocol number.
    Protocol = 16,
}

/// Which header `payload` counts its offset from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Network = 1,
    Transport = 2,
}

/// How `compare` compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal = 0,
    NotEqual = 1,
    /// Byte by byte from the first, so for numbers in network byte order.
    AtMost = 3,
    AtLeast = 5,
}

/// What ends the walk through a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    /// Goes on in another chain, and does not come back.
    GoTo(Cow<'static, str>),
    /// Goes on in another chain, and comes back from its end.
    Jump(&'static str),
}

/// How a refused packet is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A TCP segment with RST.
    Reset,
    /// ICMP or ICMPv6 "administratively prohibited".
    Prohibited,
}

/// One expression. Those that load or compare use the first register unless they name one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Meta(Meta),
    Payload {
        base: Base,
        offset: u32,
        length: u32,
    },
    /// Keeps the bits that are set in the mask.
    Mask(Vec<u8>),
    /// Keeps the bits of the first and turns those of the second.
    Change {
        keep: Vec<u8>,
        turn: Vec<u8>,
    },
    Compare(Comparison, Vec<u8>),
    Load(Register, Vec<u8>),
    ConnectionState,
    /// Loads 0 for a packet of the side that opened its connection, 1 for one of the other side.
    ConnectionDirection,
    /// Loads the connection's mark.
    ConnectionMark,
    /// Makes the first register the connection's mark.
    WriteConnectionMark,
    /// Makes the first register the packet's mark.
    WriteMark,
    /// Loads the mark of the socket that a packet is for; nothing for one that no program waits for.
    SocketMark,
    /// Loads the kind (`RTN_…`) of the destination address.
    DestinationKind,
    /// Loads the largest TCP segment that fits the route in both directions.
    RouteSegmentSize,
    /// Turns the first register's two bytes to network byte order.
    ToNetworkOrder,
    /// Lowers the TCP maximum-segment-size option to the first register.
    WriteSegmentSize,
    /// Adds the first register to a dynamic set and goes on if it has more than `limit` tracked connections.
    ConnectionsOver {
        set: &'static str,
        set_id: u32,
        limit: u32,
    },
    /// Source NAT to the outgoing link's address with a random port; with `ports`, one between the two registers'
    /// values.
    Masquerade {
        ports: bool,
    },
    /// Goes on if the set of this name has the first register.
    Lookup(String),
    NoTrack,
    Counter,
    /// Matches packets beyond so many in a second.
    Above {
        per_second: u32,
    },
    Reject(Answer),
    Verdict(Verdict),
}

/// `NF_NAT_RANGE_PROTO_SPECIFIED`, without which the kernel passes over the ports.
const PORTS_SPECIFIED: u32 = 1 << 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const RANDOM_FULLY: u32 = 1 << 4;
/// `NFT_CT_DIRECTION`.
const CONNECTION_DIRECTION: u32 = 1;
/// `NFT_CT_MARK`.
const CONNECTION_MARK: u32 = 3;
/// `NFT_SOCKET_MARK`.
const SOCKET_MARK: u32 = 1;
/// `NFTA_FIB_F_DADDR`.
const FIB_DESTINATION: u32 = 1 << 1;
/// `NFT_FIB_RESULT_ADDRTYPE`.
const FIB_ADDRESS_TYPE: u32 = 3;
/// `NFT_RT_TCPMSS`.
const ROUTE_TCP_MSS: u32 = 3;
/// `NFT_EXTHDR_OP_TCPOPT`.
const TCP_OPTION: u32 = 1;
/// The TCP option "maximum segment size" (RFC 9293 section 3.2), whose two bytes of value start at offset 2.
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// `NFT_CONNLIMIT_F_INV`: match above the limit.
const ABOVE: u32 = 1;
/// `NFT_LIMIT_F_INV`: match above the rate.
const LIMIT_ABOVE: u32 = 1;
/// `NF_DROP`.
const DROP: u32 = 0;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// `NFT_JUMP`.
const JUMP: u32 = (-3i32).cast_unsigned();
/// `NFT_GOTO`.
const GOTO: u32 = (-4i32).cast_unsigned();
/// `NFT_REJECT_TCP_RST`.
const REJECT_TCP_RESET: u32 = 1;
/// `NFT_REJECT_ICMPX_UNREACH`: by ICMP or ICMPv6, as the packet is.
const REJECT_ICMP: u32 = 2;
/// `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
const ADMIN_PROHIBITED: u8 = 3;

impl Expression {
    /// The expression's name in the kernel.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Meta(_) | Self::WriteMark => "meta",
            Self::Payload { .. } => "payload",
            Self::Mask(_) | Self::Change { .. } => "bitwise",
            Self::Compare(..) => "cmp",
            Self::Load(..) | Self::Verdict(_) => "immediate",
            Self::ConnectionState | Self::ConnectionDirection | Self::ConnectionMark | Self::WriteConnectionMark => {
                "ct"
            }
            Self::SocketMark => "socket",
            Self::DestinationKind => "fib",
            Self::RouteSegmentSize => "rt",
            Self::ToNetworkOrder => "byteorder",
            Self::WriteSegmentSize => "exthdr",
            Self::ConnectionsOver { .. } => "dynset",
            Self::Masquerade { .. } => "masq",
            Self::Lookup(_) => "lookup",
            Self::NoTrack => "notrack",
            Self::Counter => "counter",
            Self::Above { .. } => "limit",
            Self::Reject(_) => "reject",
        }
    }

    /// Encodes name and operands, as the value of an `NFTA_LIST_ELEM`.
    pub(super) fn encode(&self) -> Attributes {
        Attributes::new().text(1, self.name()).nested(2, &self.operands())
    }

    fn operands(&self) -> Attributes {
        let list = Attributes::new();
        match self {
            Self::Meta(key) => list.number(1, register(Register::First)).number(2, *key as u32),
            Self::Payload { base, offset, length } => {
                list.number(1, register(Register::First)).number(2, *base as u32).number(3, *offset).number(4, *length)
            }
            Self::Mask(mask) => bitwise_operands(mask, &vec![0; mask.len()]),
            Self::Change { keep, turn } => bitwise_operands(keep, turn),
            Self::Compare(comparison, value) => {
                list.number(1, register(Register::First)).number(2, *comparison as u32).nested(3, &data(value))
            }
            Self::Load(target, value) => list.number(1, register(*target)).nested(2, &data(value)),
            Self::ConnectionState => list.number(1, register(Register::First)).number(2, 0),
            Self::ConnectionDirection => list.number(1, register(Register::First)).number(2, CONNECTION_DIRECTION),
            Self::ConnectionMark => list.number(1, register(Register::First)).number(2, CONNECTION_MARK),
            Self::WriteConnectionMark => list.number(2, CONNECTION_MARK).number(4, register(Register::First)),
            Self::WriteMark => list.number(2, Meta::Mark as u32).number(3, register(Register::First)),
            Self::SocketMark => list.number(1, SOCKET_MARK).number(2, register(Register::First)),
            Self::DestinationKind => {
                list.number(1, register(Register::First)).number(2, FIB_ADDRESS_TYPE).number(3, FIB_DESTINATION)
            }
            Self::RouteSegmentSize => list.number(1, register(Register::First)).number(2, ROUTE_TCP_MSS),
            Self::ToNetworkOrder => {
                let first = register(Register::First);
                list.number(1, first).number(2, first).number(3, 1).number(4, 2).number(5, 2)
            }
            Self::WriteSegmentSize => list
                .bytes(2, &[MAXIMUM_SEGMENT_SIZE])
                .number(3, 2)
                .number(4, 2)
                .number(6, TCP_OPTION)
                .number(7, register(Register::First)),
            Self::ConnectionsOver { set, set_id, limit } => connections_operands(set, *set_id, *limit),
            Self::Masquerade { ports: false } => list.number(1, RANDOM_FULLY),
            Self::Masquerade { ports: true } => list
                .number(1, RANDOM_FULLY | PORTS_SPECIFIED)
                .number(2, register(Register::First))
                .number(3, register(Register::Second)),
            Self::Lookup(set) => list.text(1, set).number(2, register(Register::First)),
            Self::NoTrack | Self::Counter => list,
            Self::Above { per_second } => {
                let (rate, second) = (u64::from(*per_second).to_be_bytes(), 1u64.to_be_bytes());
                list.bytes(1, &rate).bytes(2, &second).number(3, *per_second).number(5, LIMIT_ABOVE)
            }
            Self::Reject(Answer::Reset) => list.number(1, REJECT_TCP_RESET),
            Self::Reject(Answer::Prohibited) => list.number(1, REJECT_ICMP).bytes(2, &[ADMIN_PROHIBITED]),
            Self::Verdict(verdict) => list.number(1, 0).nested(2, &Attributes::new().nested(2, &verdict.encode())),
        }
    }
}

impl Verdict {
    fn encode(&self) -> Attributes {
        let list = Attributes::new();
        match self {
            Self::Drop => list.number(1, DROP),
            Self::Accept => list.number(1, ACCEPT),
            Self::GoTo(chain) => list.number(1, GOTO).text(2, chain),
            Self::Jump(chain) => list.number(1, JUMP).text(2, chain),
        }
    }
}

fn register(register: Register) -> u32 {
    register as u32
}

fn data(value: &[u8]) -> Attributes {
    Attributes::new().bytes(1, value)
}

fn bitwise_operands(keep: &[u8], turn: &[u8]) -> Attributes {
    let first = register(Register::First);
    let length = u32::try_from(keep.len()).expect("a mask fits a register");
    Attributes::new().number(1, first).number(2, first).number(3, length).nested(4, &data(keep)).nested(5, &data(turn))
}

fn connections_operands(set: &str, set_id: u32, limit: u32) -> Attributes {
    let limit = Attributes::new().number(1, limit).number(2, ABOVE);
    let expression = Attributes::new().text(1, "connlimit").nested(2, &limit);
    Attributes::new()
        .text(1, set)
        .number(2, set_id)
        .number(3, 0)
        .number(4, register(Register::First))
        .nested(7, &expression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_drop_has_the_kernels_bytes() {
        let expected = [
            &[14, 0, 1, 0][..],
            b"immediate\0\0\0",
            &[28, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0],
            &[16, 0, 2, 0x80, 12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(Expression::Verdict(Verdict::Drop).encode().as_bytes(), expected);
    }

    #[test]
    fn compare_puts_operation_and_data_after_the_register() {
        let expected = [
            &[8, 0, 1, 0][..],
            b"cmp\0",
            &[32, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 1],
            &[12, 0, 3, 0x80, 5, 0, 1, 0, 17, 0, 0, 0],
        ]
        .concat();
        assert_eq!(Expression::Compare(Comparison::NotEqual, vec![17]).encode().as_bytes(), expected);
    }

    #[test]
    fn counter_has_empty_operands() {
        assert_eq!(
            Expression::Counter.encode().as_bytes(),
            [&[12, 0, 1, 0][..], b"counter\0", &[4, 0, 2, 0x80]].concat()
        );
    }
}
