//! Why a packet or datagram was dropped.
//!
//! A drop is a value, not an error: it is `Copy`, counts in a fixed array by [`DropReason::index`], and its
//! [`DropReason::label`] is the metric's label.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $name:ident = $label:literal,)+) => {
        /// The one reason for which a packet or datagram went no further.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])+ $name,)+
        }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The number of reasons, for an array of counters.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name of the reason, in snake case, as metrics and logs show it.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The packet ends before its header does.
    Truncated = "truncated",
    /// The version is neither 4 nor 6.
    BadVersion = "bad_version",
    /// The IPv4 header length is below 20 bytes or beyond the packet.
    BadHeaderLength = "bad_header_length",
    /// The length in the header differs from the length received.
    BadLength = "bad_length",
    /// IPv4 options or IPv6 extension headers are malformed, cut short or too many.
    BadExtensionHeader = "bad_extension_header",
    /// The packet carries its own route (IPv4 source route, IPv6 routing header), so its destination field is not
    /// final.
    SourceRouted = "source_routed",
    /// The TTL or hop limit is zero.
    HopLimitExceeded = "hop_limit_exceeded",
    /// What the kernel says of the packet's segments or checksum does not fit the packet.
    BadOffload = "bad_offload",
    /// The packet came as vouched for, but has no TCP or UDP checksum to vouch for.
    BadVouched = "bad_vouched",
    /// The source is not an address leased to the session (BCP 38).
    SourceNotLeased = "source_not_leased",
    /// The source is unspecified.
    SourceUnspecified = "source_unspecified",
    /// The source is a loopback address.
    SourceLoopback = "source_loopback",
    /// The source is a multicast or broadcast address.
    SourceMulticast = "source_multicast",
    /// The source is a link-local address.
    SourceLinkLocal = "source_link_local",
    /// The destination is another client, and clients are isolated.
    DestinationIsolated = "destination_isolated",
    /// The destination is unspecified.
    DestinationUnspecified = "destination_unspecified",
    /// The destination is a loopback address.
    DestinationLoopback = "destination_loopback",
    /// The destination is a multicast address.
    DestinationMulticast = "destination_multicast",
    /// The destination is a broadcast address.
    DestinationBroadcast = "destination_broadcast",
    /// The destination is a link-local address.
    DestinationLinkLocal = "destination_link_local",
    /// The destination is not an address of the session that received the packet.
    DestinationNotLeased = "destination_not_leased",
    /// No session or route leads to the destination.
    NoRoute = "no_route",
    /// The packet does not fit the path.
    TooBig = "too_big",
    /// The network, or the receiver for packets that queue up in front of it, marked congestion on a packet whose ends
    /// do not know ECN.
    CongestionExperienced = "congestion_experienced",
    /// A bounded queue was full, or held a packet for too long.
    QueueFull = "queue_full",
    /// The session or its connection is not, or no longer, there.
    NotConnected = "not_connected",
    /// The HTTP datagram belongs to no open request stream.
    UnknownStream = "unknown_stream",
    /// The HTTP datagram's context id is not in use.
    UnknownContext = "unknown_context",
    /// The datagram names no SA of this end.
    UnknownSpi = "unknown_spi",
    /// The record is of an epoch for which this end has no keys.
    UnknownEpoch = "unknown_epoch",
    /// The record is of no type that DTLS has, or not of version 1.2.
    BadRecord = "bad_record",
    /// The packet is of no kind that OpenVPN's control channel has, or breaks its form.
    BadControlPacket = "bad_control_packet",
    /// The SA saw so many forgeries that it opens nothing more.
    SaRetired = "sa_retired",
    /// The sequence number is zero, or not the one that the IV repeats.
    SequenceMismatch = "sequence_mismatch",
    /// The sequence number was accepted before.
    Replayed = "replayed",
    /// The sequence number is below the replay window.
    TooOld = "too_old",
    /// The datagram is not what the peer sealed.
    AuthenticationFailed = "authentication_failed",
    /// The padding of an authenticated packet breaks the rules.
    BadPadding = "bad_padding",
    /// The next header of an authenticated packet is unknown, or was not negotiated.
    UnknownNextHeader = "unknown_next_header",
    /// The key has protected as much as it may.
    SequenceExhausted = "sequence_exhausted",
    /// The cipher failed to seal.
    SealFailed = "seal_failed",
    /// The session moves more in this direction than its policy's rate allows.
    RateExceeded = "rate_exceeded",
    /// The user has used up a quota of the policy.
    QuotaUsedUp = "quota_used_up",
    /// The carrier refused to send.
    SendFailed = "send_failed",
    /// The TUN device refused the packet.
    TunWriteFailed = "tun_write_failed",
}

impl DropReason {
    /// The position of the reason in [`DropReason::ALL`], below [`DropReason::COUNT`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn index_is_the_position_in_all() {
        for (position, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
        }
    }

    #[test]
    fn labels_are_distinct_snake_case() {
        let labels: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), DropReason::COUNT);
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
