//! Packets by hand, for tests that show the kernel's rules real ones: out of a TUN device, and into it.

use std::fs;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use adit_net::tun::{PacketQueue as _, Tun};
use adit_proto::offload::MAX_SUPERPACKET_LEN;
use adit_proto::offload::virtio;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;

/// Has a packet come out of a device.
pub(crate) fn give(tun: &Tun, packet: &[u8]) {
    assert_eq!(tun.queues()[0].send(&[packet]), 1);
}

/// The next packet that the kernel has sent into a device, if there is one.
pub(crate) fn read(tun: &Tun) -> Option<Vec<u8>> {
    let (mut header, mut packet) = ([0; virtio::LEN], vec![0; MAX_SUPERPACKET_LEN]);
    match tun.queues()[0].read_vectored(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(&mut packet)]) {
        Ok(length) => Some(packet[..length - virtio::LEN].to_vec()),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            None
        }
    }
}

/// Whether the kernel has found that every IPv6 address is this host's, which it does beside whoever adds it (the fifth
/// column of if_inet6 are its flags, `IFA_F_TENTATIVE` is 0x40).
pub(crate) fn has_no_tentative_address() -> bool {
    let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
    let flags = addresses.lines().filter_map(|line| line.split_whitespace().nth(4));
    flags.map(|flags| u32::from_str_radix(flags, 16).unwrap()).all(|flags| flags & 0x40 == 0)
}

/// A datagram that says "adit".
pub(crate) fn udp(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>) -> Vec<u8> {
    let (source, destination) = (source.into(), destination.into());
    let datagram = [&ports(source, destination)[..], &[0, 12, 0, 0], b"adit"].concat();
    transport(source.ip(), destination.ip(), UDP, datagram, 6)
}

/// A segment without data.
pub(crate) fn tcp(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>, flags: u8) -> Vec<u8> {
    segment(source.into(), destination.into(), flags, &[])
}

/// A segment that opens a connection and says how large those of the answers may be.
pub(crate) fn tcp_syn(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>, largest: u16) -> Vec<u8> {
    let [high, low] = largest.to_be_bytes();
    segment(source.into(), destination.into(), SYN, &[2, 4, high, low])
}

/// An echo request.
pub(crate) fn ping(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Vec<u8> {
    let (source, destination) = (source.into(), destination.into());
    let (protocol, kind) = if source.is_ipv4() { (ICMP, 8) } else { (ICMPV6, 128) };
    transport(source, destination, protocol, vec![kind, 0, 0, 0, 0, 1, 0, 1], 2)
}

fn segment(source: SocketAddr, destination: SocketAddr, flags: u8, options: &[u8]) -> Vec<u8> {
    // The length of the header counts words of four bytes, in the upper half of its byte.
    let length = u8::try_from((20 + options.len()) / 4 * 16).unwrap();
    let numbers = [0, 0, 0, 1, 0, 0, 0, 0];
    let rest = [length, flags, 0x40, 0, 0, 0, 0, 0];
    let header = [&ports(source, destination)[..], &numbers, &rest, options].concat();
    transport(source.ip(), destination.ip(), TCP, header, 16)
}

fn ports(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat()
}

/// A packet whose payload has its checksum at a place, over a pseudo header (RFC 768, RFC 8200 section 8.1) but for
/// ICMP of IPv4.
pub(crate) fn transport(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    mut payload: Vec<u8>,
    checksum_at: usize,
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let sum = match protocol {
        ICMP => checksum(&[&payload]),
        _ => checksum(&[&octets(source), &octets(destination), &length, &[0, protocol], &payload]),
    };
    payload[checksum_at..checksum_at + 2].copy_from_slice(&sum);
    packet(source, destination, protocol, &payload)
}

/// A packet with any payload.
pub(crate) fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let addresses = [octets(source), octets(destination)].concat();
    if source.is_ipv6() {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        return [&[0x60, 0, 0, 0][..], &length, &[protocol, 64], &addresses, payload].concat();
    }
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = [&[0x45, 0][..], &length, &[0, 0, 0x40, 0, 64, protocol, 0, 0], &addresses].concat();
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    [&header, payload].concat()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The internet checksum (RFC 1071) of what stands in parts of even length, but for the last.
pub(crate) fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}
