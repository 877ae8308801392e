//! Packets for the tests, built field by field, with checksums of their own: nothing here uses the code under test.

use super::virtio::{self, VirtioHeader};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// A TCP or UDP packet before it is laid out.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
    pub(crate) source_port: u16,
    pub(crate) tos: u8,
    pub(crate) flow_label: u32,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    /// IPv4 flags and fragment offset.
    pub(crate) fragment: u16,
    /// IPv4 options, or IPv6 destination options.
    pub(crate) ip_options: Vec<u8>,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) tcp_options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// The second and the third of the four flows, then the first and the fourth.
pub(crate) const ALL_KINDS: [(bool, bool); 4] = [(false, true), (true, true), (false, false), (true, false)];

impl Sample {
    pub(crate) fn new(v6: bool, tcp: bool, payload_len: usize) -> Self {
        Self {
            v6,
            tcp,
            source_port: 40_000,
            tos: 0,
            flow_label: 0x1_2345,
            ttl: 64,
            id: 0x1234,
            fragment: 0x4000,
            ip_options: Vec::new(),
            sequence: 1_000_000,
            acknowledgement: 77,
            flags: ACK,
            window: 501,
            tcp_options: Vec::new(),
            payload: (0..payload_len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect(),
        }
    }

    /// The packet that follows in the flow, with `payload_len` bytes.
    pub(crate) fn next(&self, payload_len: usize) -> Self {
        Self {
            sequence: self.sequence.wrapping_add(u32::try_from(self.payload.len()).unwrap()),
            id: self.id.wrapping_add(1),
            payload: vec![b'a'; payload_len],
            ..self.clone()
        }
    }

    pub(crate) fn ip_len(&self) -> usize {
        if self.v6 { 40 + self.ip_options.len() } else { 20 + self.ip_options.len() }
    }

    pub(crate) fn header_len(&self) -> usize {
        self.ip_len() + if self.tcp { 20 + self.tcp_options.len() } else { 8 }
    }

    pub(crate) fn csum_offset(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    /// The packet with all checksums computed.
    pub(crate) fn build(&self) -> Vec<u8> {
        self.lay_out(true)
    }

    /// The packet with its TCP or UDP checksum partial.
    pub(crate) fn build_partial(&self) -> Vec<u8> {
        self.lay_out(false)
    }

    /// The virtio-net header the kernel gives to this packet as a superpacket.
    pub(crate) fn virtio(&self, gso_size: usize) -> VirtioHeader {
        VirtioHeader {
            flags: virtio::NEEDS_CSUM,
            gso_type: match (self.tcp, self.v6) {
                (true, false) => virtio::GSO_TCPV4,
                (true, true) => virtio::GSO_TCPV6,
                (false, _) => virtio::GSO_UDP_L4,
            },
            hdr_len: u16::try_from(self.header_len()).unwrap(),
            gso_size: u16::try_from(gso_size).unwrap(),
            csum_start: u16::try_from(self.ip_len()).unwrap(),
            csum_offset: u16::try_from(self.csum_offset()).unwrap(),
        }
    }

    fn lay_out(&self, complete: bool) -> Vec<u8> {
        let protocol = if self.tcp { 6 } else { 17 };
        let upper = self.upper();
        let (mut ip, addresses) = self.ip(protocol, upper.len());
        let mut pseudo = addresses;
        pseudo.extend(u32::try_from(upper.len()).unwrap().to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        let sum = if complete { sum(&[pseudo, upper.clone()].concat()) } else { !sum(&pseudo) };
        let sum = if !self.tcp && complete && sum == 0xffff { 0 } else { sum };
        ip.extend(upper);
        let field = self.ip_len() + self.csum_offset();
        ip[field..field + 2].copy_from_slice(&(!sum).to_be_bytes());
        ip
    }

    fn upper(&self) -> Vec<u8> {
        let mut upper = Vec::new();
        upper.extend(self.source_port.to_be_bytes());
        upper.extend(443_u16.to_be_bytes());
        if self.tcp {
            upper.extend(self.sequence.to_be_bytes());
            upper.extend(self.acknowledgement.to_be_bytes());
            upper.extend([u8::try_from(5 + self.tcp_options.len() / 4).unwrap() << 4, self.flags]);
            upper.extend(self.window.to_be_bytes());
            upper.extend([0; 4]);
            upper.extend(&self.tcp_options);
        } else {
            upper.extend(u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
            upper.extend([0; 2]);
        }
        upper.extend(&self.payload);
        upper
    }

    fn ip(&self, protocol: u8, upper_len: usize) -> (Vec<u8>, Vec<u8>) {
        if self.v6 {
            let addresses = [[0xfd; 16], [0x20; 16]].concat();
            let first = 0x6000_0000 | u32::from(self.tos) << 20 | self.flow_label;
            let len = u16::try_from(self.ip_options.len() + upper_len).unwrap();
            let mut ip = first.to_be_bytes().to_vec();
            ip.extend(len.to_be_bytes());
            ip.extend([if self.ip_options.is_empty() { protocol } else { 60 }, self.ttl]);
            ip.extend(&addresses);
            let extension = ip.len();
            ip.extend(&self.ip_options);
            if !self.ip_options.is_empty() {
                ip[extension] = protocol;
            }
            return (ip, addresses);
        }
        let addresses = vec![10, 64, 0, 2, 192, 0, 2, 1];
        let mut ip = vec![0x40 | u8::try_from(5 + self.ip_options.len() / 4).unwrap(), self.tos];
        ip.extend(u16::try_from(self.ip_len() + upper_len).unwrap().to_be_bytes());
        ip.extend(self.id.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, protocol, 0, 0]);
        ip.extend(&addresses);
        ip.extend(&self.ip_options);
        let checksum = (!sum(&ip)).to_be_bytes();
        ip[10..12].copy_from_slice(&checksum);
        (ip, addresses)
    }
}

/// The ones' complement sum, word by word with an end-around carry at each step (RFC 1071 section 1).
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0_u16, |sum, pair| {
        let word = u16::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u16::from);
        let (total, carry) = sum.overflowing_add(word);
        total + u16::from(carry)
    })
}

/// Whether all checksums of a TCP or UDP packet are right.
pub(crate) fn is_valid(packet: &[u8], upper_layer: usize) -> bool {
    let v6 = packet[0] >> 4 == 6;
    let upper = &packet[upper_layer..];
    let (addresses, next) = if v6 { (&packet[8..40], 6) } else { (&packet[12..20], 9) };
    let protocol = if v6 && upper_layer > 40 { packet[40] } else { packet[next] };
    let len = u32::try_from(upper.len()).unwrap().to_be_bytes();
    let whole = [addresses, &len, &[0, 0, 0, protocol], upper].concat();
    sum(&whole) == 0xffff && (v6 || sum(&packet[..upper_layer]) == 0xffff)
}
