//! Control messages of a UDP socket (cmsg(3)), laid out by hand in a buffer of fixed size.
//!
//! ```text
//!  length: usize   level: int   type: int   data…   padding up to a multiple of usize
//! ```

use std::net::IpAddr;
use std::time::Duration;

/// The header of a control message; the kernel's length is a `size_t` on every C library.
const HEADER: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();
/// Room for all messages that come with a datagram: two addresses, two traffic classes, a segment size and a time, each
/// at most 40 bytes.
const SPACE: usize = 256;

/// Control messages, one behind the other.
#[derive(Clone)]
pub(super) struct Control {
    bytes: [u8; SPACE],
    len: usize,
}

/// What the kernel tells of received datagrams.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Bytes of each datagram but the last, if there are several.
    pub(super) segment: Option<usize>,
    /// The address they were sent to, never IPv4-mapped.
    pub(super) local: Option<IpAddr>,
    /// Their ECN bits.
    pub(super) ecn: u8,
    /// When the kernel had them, joined as they are, since the epoch of the system's clock.
    pub(super) at: Option<Duration>,
}

impl Control {
    pub(super) const fn empty() -> Self {
        Self { bytes: [0; SPACE], len: 0 }
    }

    /// What goes with datagrams to `to`, from `local` if that is of the same family.
    pub(super) fn departure(to: IpAddr, local: Option<IpAddr>, ecn: u8) -> Self {
        let mut control = Self::empty();
        let class = libc::c_int::from(ecn & 3).to_ne_bytes();
        match (to, local) {
            (IpAddr::V4(_), Some(IpAddr::V4(local))) => {
                // `in_pktinfo`: interface, source, unused.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&local.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            (IpAddr::V6(_), Some(IpAddr::V6(local))) => {
                // `in6_pktinfo`: source, interface.
                let mut info = [0; 20];
                info[..16].copy_from_slice(&local.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => {}
        }
        if ecn & 3 != 0 {
            match to {
                IpAddr::V4(_) => control.push(libc::IPPROTO_IP, libc::IP_TOS, &class),
                IpAddr::V6(_) => control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class),
            }
        }
        control
    }

    /// Has the kernel cut the payload into datagrams of `segment` bytes.
    pub(super) fn with_segment(mut self, segment: u16) -> Self {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        self
    }

    /// What to send.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Where to receive.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Reads the first `len` bytes, as the kernel filled them in.
    pub(super) fn arrival(&self, len: usize) -> Arrival {
        let mut arrival = Arrival::default();
        let mut rest = self.bytes.get(..len).unwrap_or_default();
        while let Some((message, behind)) = split(rest) {
            arrival.note(message);
            rest = behind;
        }
        arrival
    }

    /// Appends a message. All that are sent fit together.
    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let length = (HEADER + data.len()).to_ne_bytes();
        let parts = [&length[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data];
        let mut place = self.len;
        for part in parts {
            if let Some(space) = self.bytes.get_mut(place..place + part.len()) {
                space.copy_from_slice(part);
            }
            place += part.len();
        }
        self.len = place.next_multiple_of(size_of::<usize>());
    }
}

struct ControlMessage<'a> {
    level: libc::c_int,
    kind: libc::c_int,
    data: &'a [u8],
}

/// Takes the first message off.
fn split(bytes: &[u8]) -> Option<(ControlMessage<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, _) = rest.split_first_chunk()?;
    let length = usize::from_ne_bytes(*length);
    let data = bytes.get(HEADER..length)?;
    let behind = bytes.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    Some((
        ControlMessage { level: libc::c_int::from_ne_bytes(*level), kind: libc::c_int::from_ne_bytes(*kind), data },
        behind,
    ))
}

impl Arrival {
    fn note(&mut self, message: ControlMessage<'_>) {
        let ControlMessage { level, kind, data } = message;
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                self.segment = int(data).and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0);
            }
            // `in_pktinfo`: interface, our address, destination.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                self.local = data.get(4..8).and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(IpAddr::from);
            }
            // `in6_pktinfo`: destination, interface. IPv4 through an IPv6 socket comes in this form as well.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = data.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical());
                self.local = address.or(self.local);
            }
            // One byte, whereas IPv6 has an int.
            (libc::IPPROTO_IP, libc::IP_TOS) => self.ecn = data.first().map_or(0, |tos| tos & 3),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                self.ecn = int(data).map_or(0, |class| (class & 3).to_le_bytes()[0]);
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => self.at = time(data),
            _ => {}
        }
    }
}

/// A `timespec`.
fn time(data: &[u8]) -> Option<Duration> {
    let (seconds, rest) = data.split_first_chunk()?;
    let seconds = u64::try_from(libc::time_t::from_ne_bytes(*seconds)).ok()?;
    let nanoseconds = u64::try_from(libc::c_long::from_ne_bytes(*rest.first_chunk()?)).ok()?;
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds)))
}

fn int(data: &[u8]) -> Option<libc::c_int> {
    data.first_chunk().map(|bytes| libc::c_int::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn received(messages: &[(libc::c_int, libc::c_int, &[u8])]) -> Arrival {
        let mut control = Control::empty();
        for (level, kind, data) in messages {
            control.push(*level, *kind, data);
        }
        control.arrival(control.len)
    }

    #[test]
    fn segment_size_goes_out_as_two_bytes() {
        let control = Control::empty().with_segment(1452);
        assert_eq!(control.bytes().len(), 24);
        assert_eq!(control.bytes()[..8], 18_usize.to_ne_bytes());
        assert_eq!(control.bytes()[16..18], 1452_u16.to_ne_bytes());
    }

    #[test]
    fn nothing_goes_out_that_was_not_asked_for() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert!(Control::departure(v4, None, 0).bytes().is_empty());
        assert!(Control::departure(v4, Some(v6), 4).bytes().is_empty(), "other family, bits beyond ECN");
        assert_eq!(Control::departure(v4, Some(v4), 2).bytes().len(), 32 + 24);
        assert_eq!(Control::departure(v6, Some(v6), 1).bytes().len(), 40 + 24);
    }

    #[test]
    fn everything_the_kernel_tells_is_read() {
        let mut v4 = [0; 12];
        v4[4..8].copy_from_slice(&[127, 0, 0, 2]);
        let arrival = received(&[
            (libc::IPPROTO_IP, libc::IP_PKTINFO, &v4),
            (libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[0; 16]),
            (libc::IPPROTO_IP, libc::IP_TOS, &[0x2a]),
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &[7_i64.to_ne_bytes(), 9_i64.to_ne_bytes()].concat()),
            (libc::SOL_UDP, libc::UDP_GRO, &1452_i32.to_ne_bytes()),
        ]);
        let local = Some("127.0.0.2".parse().unwrap());
        assert_eq!(arrival, Arrival { segment: Some(1452), local, ecn: 2, at: Some(Duration::new(7, 9)) });
        let mapped = "::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let arrival = received(&[
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[&mapped[..], &[0; 4]].concat()),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &0xb3_i32.to_ne_bytes()),
        ]);
        assert_eq!(arrival, Arrival { segment: None, local: Some("10.0.0.1".parse().unwrap()), ecn: 3, at: None });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..=SPACE)) {
            let mut control = Control::empty();
            control.space()[..bytes.len()].copy_from_slice(&bytes);
            control.arrival(bytes.len());
        }
    }
}
