//! One rule, built from matches in reading order and ended by what is done with the packet.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use adit_proto::mark::Mark;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::attribute::Attributes;
use super::batch::ConnectionSet;
use super::expression::{Answer, Base, Comparison, Expression, Meta, Register, Verdict};
use super::set::Key;
use super::{FAMILY_IPV4, FAMILY_IPV6};

/// Bytes of a link name in the kernel, `IFNAMSIZ`.
const LINK_NAME: usize = 16;
/// `RTN_LOCAL`, the kind of an address of this host.
const LOCAL: u32 = 2;
/// Connection state bits.
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
const NEW: u32 = 8;
const UNTRACKED: u32 = 64;
const IGMP: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 2;
const SYN_RST: u8 = 6;
/// FIN, SYN, RST and ACK.
const OPENING: u8 = 0x17;
/// `IP_CT_DIR_ORIGINAL`.
const ORIGINAL: u8 = 0;
/// `IP_CT_DIR_REPLY`.
const REPLY: u8 = 1;

/// A rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) struct Rule {
    pub(super) chain: Cow<'static, str>,
    expressions: Vec<Expression>,
    comment: Option<Cow<'static, str>>,
}

/// Whether an address is looked at as the packet's source or destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

impl Rule {
    /// Starts a rule that matches all packets of a chain.
    pub(crate) fn new(chain: impl Into<Cow<'static, str>>) -> Self {
        Self { chain: chain.into(), expressions: Vec::new(), comment: None }
    }

    fn then(mut self, expression: Expression) -> Self {
        self.expressions.push(expression);
        self
    }

    fn equal(self, value: impl Into<Vec<u8>>) -> Self {
        self.then(Expression::Compare(Comparison::Equal, value.into()))
    }

    fn not_equal(self, value: impl Into<Vec<u8>>) -> Self {
        self.then(Expression::Compare(Comparison::NotEqual, value.into()))
    }

    /// Matches packets that came in by a link.
    pub(crate) fn input(self, link: &str) -> Self {
        self.then(Expression::Meta(Meta::InputName)).equal(link_name(link))
    }

    /// Matches packets that did not come in by a link.
    pub(crate) fn input_not(self, link: &str) -> Self {
        self.then(Expression::Meta(Meta::InputName)).not_equal(link_name(link))
    }

    /// Matches packets that leave by a link.
    pub(crate) fn output(self, link: &str) -> Self {
        self.then(Expression::Meta(Meta::OutputName)).equal(link_name(link))
    }

    /// Matches packets that do not leave by a link.
    pub(crate) fn output_not(self, link: &str) -> Self {
        self.then(Expression::Meta(Meta::OutputName)).not_equal(link_name(link))
    }

    /// Matches packets that came in by a link outside a group.
    pub(crate) fn input_not_in_group(self, group: u32) -> Self {
        self.then(Expression::Meta(Meta::InputGroup)).not_equal(group.to_ne_bytes())
    }

    /// Matches packets that leave by a link outside a group.
    pub(crate) fn output_not_in_group(self, group: u32) -> Self {
        self.then(Expression::Meta(Meta::OutputGroup)).not_equal(group.to_ne_bytes())
    }

    /// Matches packets of connections whose mark is this one.
    pub(crate) fn connection_mark(self, mark: Mark) -> Self {
        let rule = self.then(Expression::ConnectionMark).then(Expression::Mask(mark.mask.to_ne_bytes().to_vec()));
        rule.equal(mark.value.to_ne_bytes())
    }

    /// Marks the packet, leaving alone the bits that do not count.
    pub(crate) fn put_mark(self, mark: Mark) -> Self {
        self.then(Expression::Meta(Meta::Mark)).with_bits_of(mark).then(Expression::WriteMark)
    }

    /// Marks the packet's connection, leaving alone the bits that do not count.
    pub(crate) fn put_connection_mark(self, mark: Mark) -> Self {
        self.then(Expression::ConnectionMark).with_bits_of(mark).then(Expression::WriteConnectionMark)
    }

    /// Takes the mark off the packet's connection, leaving alone the bits that do not count.
    pub(crate) fn clear_connection_mark(self, mark: Mark) -> Self {
        self.put_connection_mark(Mark { value: 0, ..mark })
    }

    fn with_bits_of(self, mark: Mark) -> Self {
        let (keep, turn) = ((!mark.mask).to_ne_bytes().to_vec(), mark.value.to_ne_bytes().to_vec());
        self.then(Expression::Change { keep, turn })
    }

    /// Matches what is asked for in an ARP packet for Ethernet and IPv4 (RFC 826).
    pub(crate) fn arp_target(self, address: Ipv4Addr) -> Self {
        self.then(Expression::Payload { base: Base::Network, offset: 24, length: 4 }).equal(address.octets())
    }

    /// Matches whose ARP packet for Ethernet and IPv4 it is.
    pub(crate) fn arp_sender(self, address: Ipv4Addr) -> Self {
        self.then(Expression::Payload { base: Base::Network, offset: 14, length: 4 }).equal(address.octets())
    }

    /// Matches packets that leave by a link whose name begins so.
    pub(crate) fn output_named(self, beginning: &str) -> Self {
        self.then(Expression::Meta(Meta::OutputName)).equal(beginning.as_bytes())
    }

    /// Matches packets with a mark.
    pub(crate) fn mark(self, mark: Mark) -> Self {
        let rule = self.then(Expression::Meta(Meta::Mark)).then(Expression::Mask(mark.mask.to_ne_bytes().to_vec()));
        rule.equal(mark.value.to_ne_bytes())
    }

    /// Matches packets for a socket that bears a mark.
    pub(crate) fn for_socket_with(self, mark: Mark) -> Self {
        let rule = self.then(Expression::SocketMark).then(Expression::Mask(mark.mask.to_ne_bytes().to_vec()));
        rule.equal(mark.value.to_ne_bytes())
    }

    /// Matches packets of programs that run as a user.
    pub(crate) fn sent_by(self, user: u32) -> Self {
        self.then(Expression::Meta(Meta::SocketUser)).equal(user.to_ne_bytes())
    }

    /// Matches packets of programs that run as one of the groups in a set.
    pub(crate) fn sent_by_group_in(self, set: &str) -> Self {
        self.then(Expression::Meta(Meta::SocketGroup)).then(Expression::Lookup(set.to_owned()))
    }

    /// Matches IPv4 packets.
    pub(crate) fn ipv4(self) -> Self {
        self.then(Expression::Meta(Meta::Family)).equal([FAMILY_IPV4])
    }

    /// Matches IPv6 packets.
    pub(crate) fn ipv6(self) -> Self {
        self.then(Expression::Meta(Meta::Family)).equal([FAMILY_IPV6])
    }

    /// Matches packets whose source is in a prefix.
    pub(crate) fn source_in(self, prefix: IpNet) -> Self {
        self.address(Side::Source, prefix, Comparison::Equal)
    }

    /// Matches packets of the prefix's family whose source is not in it.
    pub(crate) fn source_not_in(self, prefix: IpNet) -> Self {
        self.address(Side::Source, prefix, Comparison::NotEqual)
    }

    /// Matches packets whose destination is in a prefix.
    pub(crate) fn destination_in(self, prefix: IpNet) -> Self {
        self.address(Side::Destination, prefix, Comparison::Equal)
    }

    fn address(self, side: Side, prefix: IpNet, comparison: Comparison) -> Self {
        let rule = match prefix {
            IpNet::V4(_) => self.ipv4(),
            IpNet::V6(_) => self.ipv6(),
        };
        rule.address_of_family(side, prefix, comparison)
    }

    /// Matches packets whose destination is in a prefix, of those of the prefix's family.
    pub(crate) fn destination_of_family_in(self, prefix: IpNet) -> Self {
        self.address_of_family(Side::Destination, prefix, Comparison::Equal)
    }

    fn address_of_family(self, side: Side, prefix: IpNet, comparison: Comparison) -> Self {
        let mask = bytes(prefix.netmask());
        let rule = self.then(address_field(side, prefix));
        let rule = if mask.iter().all(|byte| *byte == 0xff) { rule } else { rule.then(Expression::Mask(mask)) };
        rule.then(Expression::Compare(comparison, bytes(prefix.network())))
    }

    /// Matches packets, of those with addresses of this kind, whose destination is in a set.
    pub(crate) fn destination_in_set(self, key: Key, set: &str) -> Self {
        self.then(address_of_key(Side::Destination, key)).then(Expression::Lookup(set.to_owned()))
    }

    /// Matches packets, of those with addresses of this kind, whose source is in a set.
    pub(crate) fn source_in_set(self, key: Key, set: &str) -> Self {
        self.then(address_of_key(Side::Source, key)).then(Expression::Lookup(set.to_owned()))
    }

    /// Matches a protocol above IP.
    pub(crate) fn protocol(self, number: u8) -> Self {
        self.then(Expression::Meta(Meta::Protocol)).equal([number])
    }

    /// Matches TCP.
    pub(crate) fn tcp(self) -> Self {
        self.protocol(TCP)
    }

    /// Matches UDP.
    pub(crate) fn udp(self) -> Self {
        self.protocol(UDP)
    }

    /// Matches an ICMP type (with [`Self::ipv4`] before it).
    pub(crate) fn icmp(self, kind: u8) -> Self {
        self.protocol(1).transport(0, 1).equal([kind])
    }

    /// Matches an ICMPv6 type (with [`Self::ipv6`] before it).
    pub(crate) fn icmpv6(self, kind: u8) -> Self {
        self.protocol(58).transport(0, 1).equal([kind])
    }

    /// Matches ICMP (with [`Self::ipv4`] before it).
    pub(crate) fn any_icmp(self) -> Self {
        self.protocol(1)
    }

    /// Matches ICMPv6 (with [`Self::ipv6`] before it).
    pub(crate) fn any_icmpv6(self) -> Self {
        self.protocol(58)
    }

    fn transport(self, offset: u32, length: u32) -> Self {
        self.then(Expression::Payload { base: Base::Transport, offset, length })
    }

    /// Matches a TCP or UDP source port.
    pub(crate) fn source_port(self, port: u16) -> Self {
        self.transport(0, 2).equal(port.to_be_bytes())
    }

    /// Matches a TCP or UDP destination port.
    pub(crate) fn destination_port(self, port: u16) -> Self {
        self.transport(2, 2).equal(port.to_be_bytes())
    }

    /// Matches TCP, UDP or what else has its ports there, to a port from `low` to `high`.
    pub(crate) fn destination_ports(self, low: u16, high: u16) -> Self {
        let at_least = Expression::Compare(Comparison::AtLeast, low.to_be_bytes().to_vec());
        let at_most = Expression::Compare(Comparison::AtMost, high.to_be_bytes().to_vec());
        if low == high { self.destination_port(low) } else { self.transport(2, 2).then(at_least).then(at_most) }
    }

    /// Matches TCP or UDP to a port in a set.
    pub(crate) fn destination_port_in(self, set: &str) -> Self {
        self.transport(2, 2).then(Expression::Lookup(set.to_owned()))
    }

    /// Matches TCP or UDP to a port up to this one.
    pub(crate) fn destination_port_at_most(self, port: u16) -> Self {
        self.transport(2, 2).then(Expression::Compare(Comparison::AtMost, port.to_be_bytes().to_vec()))
    }

    /// Matches TCP or UDP to this port or a higher one.
    pub(crate) fn destination_port_at_least(self, port: u16) -> Self {
        self.transport(2, 2).then(Expression::Compare(Comparison::AtLeast, port.to_be_bytes().to_vec()))
    }

    /// Matches TCP or UDP from a port up to this one.
    pub(crate) fn source_port_at_most(self, port: u16) -> Self {
        self.transport(0, 2).then(Expression::Compare(Comparison::AtMost, port.to_be_bytes().to_vec()))
    }

    /// Matches TCP or UDP from this port or a higher one.
    pub(crate) fn source_port_at_least(self, port: u16) -> Self {
        self.transport(0, 2).then(Expression::Compare(Comparison::AtLeast, port.to_be_bytes().to_vec()))
    }

    /// Matches IGMP (RFC 3376), by which a host tells its link which groups it listens to.
    pub(crate) fn igmp(self) -> Self {
        self.protocol(IGMP)
    }

    /// Matches packets to an address of this host.
    pub(crate) fn for_this_host(self) -> Self {
        self.then(Expression::DestinationKind).equal(LOCAL.to_ne_bytes())
    }

    fn state(self, bits: u32) -> Self {
        self.then(Expression::ConnectionState)
            .then(Expression::Mask(bits.to_ne_bytes().to_vec()))
            .not_equal(0u32.to_ne_bytes())
    }

    /// Matches packets of known connections, and errors about them.
    pub(crate) fn established(self) -> Self {
        self.state(ESTABLISHED | RELATED)
    }

    /// Matches errors about packets of known connections.
    pub(crate) fn related(self) -> Self {
        self.state(RELATED)
    }

    /// Matches packets that open a connection.
    pub(crate) fn opens(self) -> Self {
        self.state(NEW)
    }

    /// Matches packets of no connection known before.
    pub(crate) fn unknown(self) -> Self {
        self.state(INVALID | NEW)
    }

    /// Matches packets that are exempt from connection tracking.
    pub(crate) fn untracked(self) -> Self {
        self.state(UNTRACKED)
    }

    /// Matches TCP that is of no connection known before and does not open one.
    pub(crate) fn amid_tcp(self) -> Self {
        let rule = self.tcp().unknown().transport(13, 1).then(Expression::Mask(vec![OPENING]));
        rule.not_equal([SYN])
    }

    /// Matches the packet that opens a TCP connection.
    pub(crate) fn opening_tcp(self) -> Self {
        self.tcp().transport(13, 1).then(Expression::Mask(vec![OPENING])).equal([SYN])
    }

    /// Matches packets of the side that opened their connection.
    pub(crate) fn by_opener(self) -> Self {
        self.then(Expression::ConnectionDirection).equal([ORIGINAL])
    }

    /// Matches packets of the side that did not open their connection.
    pub(crate) fn by_answerer(self) -> Self {
        self.then(Expression::ConnectionDirection).equal([REPLY])
    }

    /// Matches answers: packets of a connection that the other side opened, and errors about its packets.
    pub(crate) fn answer(self) -> Self {
        self.established().by_answerer()
    }

    /// Matches packets that no connection can be tracked for, which NAT therefore passes by.
    pub(crate) fn invalid(self) -> Self {
        self.state(INVALID)
    }

    /// Matches packets that open a connection while their source (of the set's family) has more than `limit` open.
    pub(crate) fn connections_over(self, set: ConnectionSet, limit: u32) -> Self {
        let rule = self.opens();
        let (rule, any) = match set {
            ConnectionSet::V4 => (rule.ipv4(), IpNet::V4(Ipv4Net::default())),
            ConnectionSet::V6 => (rule.ipv6(), IpNet::V6(Ipv6Net::default())),
        };
        rule.then(address_field(Side::Source, any)).then(Expression::ConnectionsOver {
            set: set.name(),
            set_id: set.id(),
            limit,
        })
    }

    /// Lowers the maximum segment size that a TCP handshake announces to what fits the route.
    pub(crate) fn clamp_segment_size(self) -> Self {
        self.tcp()
            .transport(13, 1)
            .then(Expression::Mask(vec![SYN_RST]))
            .equal([SYN])
            .then(Expression::RouteSegmentSize)
            .then(Expression::ToNetworkOrder)
            .then(Expression::WriteSegmentSize)
    }

    /// Masquerades.
    pub(crate) fn masquerade(self) -> Self {
        self.then(Expression::Masquerade { ports: false })
    }

    /// Masquerades TCP or UDP with a port from `low` to `high`.
    pub(crate) fn masquerade_ports(self, low: u16, high: u16) -> Self {
        self.then(Expression::Load(Register::First, low.to_be_bytes().to_vec()))
            .then(Expression::Load(Register::Second, high.to_be_bytes().to_vec()))
            .then(Expression::Masquerade { ports: true })
    }

    /// Exempts from connection tracking.
    pub(crate) fn no_track(self) -> Self {
        self.then(Expression::NoTrack)
    }

    /// Ends the walk through the chain.
    pub(crate) fn accept(self) -> Self {
        self.then(Expression::Verdict(Verdict::Accept))
    }

    /// Counts and drops; the comment says why, in `nft list table`.
    pub(crate) fn drop(self, comment: impl Into<Cow<'static, str>>) -> Self {
        self.counted(Verdict::Drop, comment)
    }

    /// Counts and goes on in a chain made by [`super::Batch::create_inner_chain`]; the comment says why.
    pub(crate) fn go_to(self, chain: impl Into<Cow<'static, str>>, comment: impl Into<Cow<'static, str>>) -> Self {
        self.counted(Verdict::GoTo(chain.into()), comment)
    }

    /// Goes on in a chain made by [`super::Batch::create_inner_chain`].
    pub(crate) fn go_on_in(self, chain: impl Into<Cow<'static, str>>) -> Self {
        self.then(Expression::Verdict(Verdict::GoTo(chain.into())))
    }

    /// Goes on in a chain made by [`super::Batch::create_inner_chain`], and here when that is at its end.
    pub(crate) fn jump(self, chain: &'static str) -> Self {
        self.then(Expression::Verdict(Verdict::Jump(chain)))
    }

    fn counted(self, verdict: Verdict, comment: impl Into<Cow<'static, str>>) -> Self {
        let rule = self.then(Expression::Counter).then(Expression::Verdict(verdict));
        Self { comment: Some(comment.into()), ..rule }
    }

    /// Matches packets beyond so many in a second.
    pub(crate) fn more_than(self, per_second: u32) -> Self {
        self.then(Expression::Above { per_second })
    }

    /// Drops, and answers TCP (matched before) with a reset.
    pub(crate) fn reset(self) -> Self {
        self.then(Expression::Reject(Answer::Reset))
    }

    /// Drops, and answers that this is administratively prohibited.
    pub(crate) fn prohibit(self) -> Self {
        self.then(Expression::Reject(Answer::Prohibited))
    }

    /// Counts and drops, and tells the sender; the comment says why, in `nft list table`.
    pub(crate) fn reject(self, comment: &'static str) -> Self {
        let rule = self.then(Expression::Counter).then(Expression::Reject(Answer::Prohibited));
        Self { comment: Some(comment.into()), ..rule }
    }

    /// The chain the rule is for.
    pub(crate) fn chain(&self) -> &str {
        &self.chain
    }

    /// Names of the expressions, as the kernel lists them.
    #[cfg(test)]
    pub(crate) fn expression_names(&self) -> Vec<&'static str> {
        self.expressions.iter().map(Expression::name).collect()
    }

    /// Encodes the rule's attributes for a table.
    pub(super) fn encode(&self, table: &str) -> Attributes {
        let expressions =
            self.expressions.iter().fold(Attributes::new(), |list, expression| list.nested(1, &expression.encode()));
        let list = Attributes::new().text(1, table).text(2, &self.chain).nested(4, &expressions);
        match &self.comment {
            Some(comment) => list.comment(7, comment),
            None => list,
        }
    }
}

fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(LINK_NAME, 0);
    bytes
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Offsets of RFC 791 section 3.1 and RFC 8200 section 3.
fn address_field(side: Side, family: IpNet) -> Expression {
    let (offset, length) = match (family, side) {
        (IpNet::V4(_), Side::Source) => (12, 4),
        (IpNet::V4(_), Side::Destination) => (16, 4),
        (IpNet::V6(_), Side::Source) => (8, 16),
        (IpNet::V6(_), Side::Destination) => (24, 16),
    };
    Expression::Payload { base: Base::Network, offset, length }
}

fn address_of_key(side: Side, key: Key) -> Expression {
    address_field(
        side,
        match key {
            Key::V4 => IpNet::V4(Ipv4Net::default()),
            Key::V6 => IpNet::V6(Ipv6Net::default()),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_match_checks_the_family_and_masks() {
        let rule = Rule::new("forward").source_in("10.64.3.0/24".parse().unwrap());
        assert_eq!(
            rule.expressions,
            [
                Expression::Meta(Meta::Family),
                Expression::Compare(Comparison::Equal, vec![2]),
                Expression::Payload { base: Base::Network, offset: 12, length: 4 },
                Expression::Mask(vec![255, 255, 255, 0]),
                Expression::Compare(Comparison::Equal, vec![10, 64, 3, 0]),
            ]
        );
    }

    #[test]
    fn a_host_match_needs_no_mask() {
        let rule = Rule::new("input").destination_in("fd00::1/128".parse().unwrap());
        assert_eq!(rule.expression_names(), ["meta", "cmp", "payload", "cmp"]);
    }

    #[test]
    fn drop_counts_and_is_commented() {
        let rule = Rule::new("forward").drop("why");
        assert_eq!(rule.expression_names(), ["counter", "immediate"]);
        let encoded = rule.encode("adit");
        assert!(encoded.as_bytes().ends_with(&[10, 0, 7, 0, 0, 4, b'w', b'h', b'y', 0, 0, 0]));
    }
}
