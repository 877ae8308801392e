//! Packets with headers of our own making, sent over a link as they are.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::checksum;
use crate::Host;

/// `IPPROTO_RAW`: the sender brings the IP header.
const RAW: i32 = 255;
const UDP: u8 = 17;

/// Sends whole IP packets over `link` of `host`, whatever the routes and the source addresses say.
///
/// # Errors
/// Fails where the kernel refuses one.
pub fn inject(host: &Host, link: &str, packets: Vec<Vec<u8>>) -> Result<()> {
    inject_marked(host, link, 0, packets)
}

/// As [`inject`], with a mark (SO_MARK): the kill switch of a client lets nothing out but what bears the client's.
pub fn inject_marked(host: &Host, link: &str, mark: u32, packets: Vec<Vec<u8>>) -> Result<()> {
    let way = Way { link: link.to_owned(), mark };
    host.run(move || {
        let mut sockets: [Option<Socket>; 2] = [None, None];
        packets.iter().try_for_each(|packet| send(&mut sockets, &way, packet))
    })
}

/// How packets leave.
struct Way {
    link: String,
    mark: u32,
}

/// Sends by the socket of the packet's family, which is made at the first one.
fn send([v4, v6]: &mut [Option<Socket>; 2], way: &Way, packet: &[u8]) -> Result<()> {
    let Some((target, domain)) = destination(packet) else { bail!("a packet to inject has an IP header") };
    let slot = if domain == Domain::IPV4 { v4 } else { v6 };
    let socket = match slot {
        Some(socket) => socket,
        None => slot.insert(open(way, domain)?),
    };
    socket.send_to(packet, &SocketAddr::new(target, 0).into()).with_context(|| format!("send a packet to {target}"))?;
    Ok(())
}

fn open(way: &Way, domain: Domain) -> Result<Socket> {
    let Way { link, mark } = way;
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW))).context("open a raw socket")?;
    let included =
        if domain == Domain::IPV4 { socket.set_header_included_v4(true) } else { socket.set_header_included_v6(true) };
    included.context("bring the IP header")?;
    socket.bind_device(Some(link.as_bytes())).with_context(|| format!("use the link {link}"))?;
    socket.set_mark(*mark).context("mark a socket")?;
    Ok(socket)
}

fn destination(packet: &[u8]) -> Option<(IpAddr, Domain)> {
    match packet.first()? >> 4 {
        4 => Some((IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?), Domain::IPV4)),
        6 => Some((IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?), Domain::IPV6)),
        _ => None,
    }
}

/// A UDP packet (RFC 768) in IPv4 or IPv6, with valid checksums.
///
/// # Panics
/// Panics where the addresses are of different families or the payload does not fit into a packet.
pub fn udp_packet(source: SocketAddr, destination: SocketAddr, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("the payload fits into a packet");
    let mut udp = Vec::with_capacity(usize::from(length));
    udp.extend_from_slice(&source.port().to_be_bytes());
    udp.extend_from_slice(&destination.port().to_be_bytes());
    udp.extend_from_slice(&length.to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(payload);
    let mut packet = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4_header(from.octets(), to.octets(), ttl, length),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6_header(from.octets(), to.octets(), ttl, length),
        _ => panic!("both addresses of a packet are of one family"),
    };
    let addresses = packet.get(if source.is_ipv4() { 12 } else { 8 }..).unwrap_or_default();
    let pseudo = [&[0, UDP], &length.to_be_bytes()[..]].concat();
    let sum = checksum(&[addresses, &pseudo, &udp]);
    let sum = if sum == 0 { 0xffff } else { sum };
    if let Some(field) = udp.get_mut(6..8) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    packet.extend_from_slice(&udp);
    packet
}

fn ipv4_header(source: [u8; 4], destination: [u8; 4], ttl: u8, payload: u16) -> Vec<u8> {
    let [high, low] = (20 + payload).to_be_bytes();
    let mut header = vec![0x45, 0, high, low, 0, 1, 0x40, 0, ttl, UDP, 0, 0];
    header.extend_from_slice(&source);
    header.extend_from_slice(&destination);
    let sum = checksum(&[&header]);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    header
}

fn ipv6_header(source: [u8; 16], destination: [u8; 16], hop_limit: u8, payload: u16) -> Vec<u8> {
    let [high, low] = payload.to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, high, low, UDP, hop_limit];
    header.extend_from_slice(&source);
    header.extend_from_slice(&destination);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_both_families_have_valid_checksums() {
        let v4 = udp_packet("10.0.0.1:5".parse().unwrap(), "10.0.0.2:6".parse().unwrap(), 64, b"odd");
        assert_eq!(v4.len(), 31);
        assert_eq!(checksum(&[&v4[..20]]), 0);
        assert_eq!(checksum(&[&v4[12..20], &[0, UDP, 0, 11], &v4[20..]]), 0);
        let v6 = udp_packet("[2001:db8::1]:5".parse().unwrap(), "[2001:db8::2]:6".parse().unwrap(), 64, b"odd");
        assert_eq!(checksum(&[&v6[8..40], &[0, UDP, 0, 11], &v6[40..]]), 0);
    }

    #[test]
    fn destination_is_read_from_the_header() {
        let v4 = udp_packet("10.0.0.1:5".parse().unwrap(), "10.0.0.2:6".parse().unwrap(), 64, b"");
        assert_eq!(destination(&v4), Some(("10.0.0.2".parse().unwrap(), Domain::IPV4)));
        assert_eq!(destination(&[0x45, 0]), None);
        assert_eq!(destination(&[]), None);
    }
}
