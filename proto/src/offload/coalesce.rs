//! Putting packets together again.
//!
//! The packets of one batch, that is, of what was received before anything is written, are handed in one by one where
//! they lie in the receive buffer. Neighbours in a flow that differ by nothing but what a split writes become one
//! *run*, and each run one write. The rules are those of the kernel's GRO (`inet_gro_receive`, `tcp_gro_receive`,
//! `udp_gro_receive`), but stricter where noted:
//!
//! - TCP or UDP, no fragment, no IPv4 options, no IPv6 extension headers (stricter), correct IPv4 header checksum;
//! - same addresses and ports, TOS or traffic class with its ECN bits, TTL or hop limit (stricter for IPv6), flow
//!   label, DF;
//! - IPv4 identifications that all grow by one, or all stay equal;
//! - TCP: no flags but ACK and PSH (stricter: CWR never begins a run), same acknowledgement number, window and options,
//!   and the sequence number that follows;
//! - each payload as long as the first, only the last may be shorter and only the last may have PSH; none is empty;
//! - at most [`MAX_SUPERPACKET_LEN`] bytes and as many segments as [`Limits`] says;
//! - a checksum that is vouched for or was verified.
//!
//! A packet that does not join the run of its flow ends that run, so a flow is never reordered. Runs come out in the
//! order of their first packets, all at the end of the batch: nothing waits for packets that have not arrived.

use std::ops::Range;

use self::candidate::{Candidate, Flow};
use self::patch::Lengths;
use super::virtio::{self, VirtioHeader};
use super::{Kind, MAX_SUPERPACKET_LEN};
use crate::drop_reason::DropReason;
use crate::packet::IpPacket;

mod candidate;
mod patch;
#[cfg(test)]
mod tests;

/// The flows whose runs are open at a time. When there are more, the run that was joined longest ago makes room if
/// 16 other packets came since; or else the packet that would begin one more run goes alone, so that many flows in
/// turn do not starve each other.
pub const MAX_OPEN_RUNS: usize = 8;

/// After so many packets of other flows a run counts as idle: two rounds of all open runs.
const IDLE_AFTER: usize = 2 * MAX_OPEN_RUNS;

/// The shortest TCP payload that begins a run: Linux takes no smaller `gso_size` for TCP (`TCP_MIN_GSO_SIZE`).
const MIN_TCP_GSO_SIZE: usize = 8;

/// What a batch and a run may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Packets in one batch. The default of 512 is eight messages of 64 datagrams, in about 80 KiB.
    pub packets: usize,
    /// Segments in one TCP run; 1 or 0 coalesces none. The default of 64 is what one message with `UDP_GRO` brings.
    pub tcp_segments: usize,
    /// Segments in one UDP run; 1 or 0 coalesces none, for a kernel before 6.2. The default of 64 is what kernels
    /// before 6.9 take (`UDP_MAX_SEGMENTS`), newer ones take 128.
    pub udp_segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { packets: 512, tcp_segments: 64, udp_segments: 64 }
    }
}

impl Limits {
    const fn segments(self, kind: Kind) -> usize {
        match kind {
            Kind::Tcp4 | Kind::Tcp6 => self.tcp_segments,
            Kind::Udp4 | Kind::Udp6 => self.udp_segments,
            Kind::Plain => 1,
        }
    }
}

/// One batch of packets on its way to the TUN device.
///
/// Call [`Coalescer::handle_packet`] for each packet, then [`Coalescer::poll_write`] until it has no more. All memory
/// is taken when it is made.
#[derive(Debug)]
pub struct Coalescer {
    limits: Limits,
    pieces: Vec<Piece>,
    runs: Vec<Run>,
    open: Vec<Open>,
    /// The next run to write.
    next_run: usize,
    /// The next piece of the run written last, if its packets go one by one.
    next_single: Option<usize>,
    /// Whether what was written last was such a piece.
    goes_singly: bool,
}

/// The payload of one packet in the receive buffer, headers left out unless the packet is plain.
#[derive(Debug, Clone)]
struct Piece {
    payload: Range<usize>,
    /// The next piece of the same run.
    next: Option<usize>,
}

/// Packets of one flow, or one packet of any kind.
#[derive(Debug)]
struct Run {
    kind: Kind,
    first: usize,
    last: usize,
    segments: usize,
    csum_start: usize,
    /// The length of the headers of each packet, 0 for a plain packet.
    header_len: usize,
    gso_size: usize,
    /// The length of the superpacket so far.
    len: usize,
    /// The sequence number that has to follow.
    next_sequence: u32,
    /// The last identification and the step between two, once two are known.
    id: u16,
    id_step: Option<u16>,
    /// Whether the last packet has PSH.
    psh: bool,
    checksum: Trust,
}

/// A flow whose run takes more packets.
#[derive(Debug)]
struct Open {
    flow: Flow,
    run: usize,
}

/// What is known of a TCP or UDP checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Vouched,
    Verified,
    Unknown,
    Wrong,
}

/// One write to the TUN device: `header`, the bytes at `first`, then those at each of [`Gather::rest`].
///
/// When the ten bytes in front of `first` are free, as they are behind a tunnel header, the header may be put there,
/// and a single packet is then one piece.
#[derive(Debug)]
pub struct Gather<'a> {
    /// The virtio-net header, derived from the packets alone.
    pub header: VirtioHeader,
    /// Where the headers and the first payload are in the receive buffer.
    pub first: Range<usize>,
    /// The number of packets in it.
    pub segments: usize,
    /// The length of the packet or superpacket in bytes, without the virtio-net header.
    pub len: usize,
    pieces: &'a [Piece],
    next: Option<usize>,
}

impl Gather<'_> {
    /// Where the payloads after the first are in the receive buffer, in order.
    pub fn rest(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut next = self.next;
        std::iter::from_fn(move || {
            let piece = self.pieces.get(next?)?;
            next = piece.next;
            Some(piece.payload.clone())
        })
    }
}

impl Coalescer {
    /// Makes an empty batch.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            pieces: Vec::with_capacity(limits.packets),
            runs: Vec::with_capacity(limits.packets),
            open: Vec::with_capacity(MAX_OPEN_RUNS),
            next_run: 0,
            next_single: None,
            goes_singly: false,
        }
    }

    /// Changes how many segments a run may have from the next packet on, as after the kernel refused superpackets.
    pub const fn set_segments(&mut self, tcp: usize, udp: usize) {
        self.limits.tcp_segments = tcp;
        self.limits.udp_segments = udp;
    }

    /// Takes the packet at `at` of the receive buffer, which was parsed to `ip`. The buffer must not change there until
    /// the batch is written.
    ///
    /// # Errors
    /// The packet is not taken: [`DropReason::BadVouched`] if it is `vouched` for and neither TCP nor UDP, a fragment
    /// or malformed; [`DropReason::BadLength`] if `ip` does not fit; [`DropReason::QueueFull`] if the batch is full.
    pub fn handle_packet(
        &mut self,
        buffer: &[u8],
        at: Range<usize>,
        ip: &IpPacket,
        vouched: bool,
    ) -> Result<(), DropReason> {
        let packet = buffer.get(at.clone()).filter(|packet| packet.len() == ip.len).ok_or(DropReason::BadLength)?;
        if self.pieces.len() >= self.limits.packets {
            return Err(DropReason::QueueFull);
        }
        let candidate = Candidate::read(packet, ip, vouched);
        if vouched && candidate.kind == Kind::Plain {
            return Err(DropReason::BadVouched);
        }
        let Some(flow) = Flow::of(packet, ip) else {
            // Whose flow it is cannot be seen, as of a fragment: it must not overtake any between these hosts.
            self.open.retain(|open| !open.flow.is_between(ip));
            self.begin(&candidate, at);
            return Ok(());
        };
        if let Some(position) = self.open.iter().rposition(|open| open.flow == flow) {
            if let Some(is_closed) = self.join(position, buffer, &candidate, &at) {
                if is_closed {
                    self.open.remove(position);
                }
                return Ok(());
            }
            self.open.remove(position);
        }
        let run = self.begin(&candidate, at);
        if candidate.may_lead && self.limits.segments(candidate.kind) > 1 {
            self.open(flow, run);
        }
        Ok(())
    }

    /// The next write in order; `None` if the batch is written, and then empty again.
    ///
    /// `buffer` is the receive buffer, in which headers are patched: those of the first packet of a run, and the
    /// partial checksum of a single vouched packet. Packets that nobody vouches for and that stand alone are left as
    /// they are.
    pub fn poll_write(&mut self, buffer: &mut [u8]) -> Option<Gather<'_>> {
        self.open.clear();
        while !self.is_empty() {
            let Some((run, piece)) = self.step() else { break };
            let Some((header, first)) = self.prepare(run, piece, buffer) else { continue };
            let (segments, len, next) = match (self.runs.get(run), self.pieces.get(piece)) {
                (Some(run), Some(piece)) if !self.goes_singly => (run.segments, run.len, piece.next),
                _ => (1, first.len(), None),
            };
            return Some(Gather { header, first, segments, len, pieces: &self.pieces, next });
        }
        self.clear();
        None
    }

    /// Takes the last write back, which the kernel refused with `EINVAL` or `EIO`: its packets come next, one by one.
    pub fn retry_singly(&mut self) {
        let written = self.next_run.checked_sub(1).and_then(|run| self.runs.get(run));
        if let Some(run) = written.filter(|run| run.segments > 1 && !self.goes_singly) {
            self.next_single = Some(run.first);
        }
    }

    /// Drops what is left of the batch.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.runs.clear();
        self.open.clear();
        self.next_run = 0;
        self.next_single = None;
        self.goes_singly = false;
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.next_single.is_none() && self.next_run >= self.runs.len()
    }

    /// Begins a run with one packet.
    fn begin(&mut self, candidate: &Candidate, at: Range<usize>) -> usize {
        let piece = self.pieces.len();
        self.pieces.push(Piece { payload: at.start.saturating_add(candidate.header_len)..at.end, next: None });
        self.runs.push(Run {
            kind: candidate.kind,
            first: piece,
            last: piece,
            segments: 1,
            csum_start: candidate.csum_start,
            header_len: candidate.header_len,
            gso_size: candidate.payload_len,
            len: at.len(),
            next_sequence: candidate.next_sequence(),
            id: candidate.id,
            id_step: None,
            psh: candidate.psh,
            checksum: candidate.checksum,
        });
        self.runs.len().saturating_sub(1)
    }

    /// Lets a run take more packets, if there is room.
    fn open(&mut self, flow: Flow, run: usize) {
        if self.open.len() >= MAX_OPEN_RUNS {
            let last_of = |open: &Open| self.runs.get(open.run).map_or(0, |run| run.last);
            let oldest = self.open.iter().enumerate().min_by_key(|(_, open)| last_of(open));
            let Some((position, last)) = oldest.map(|(position, open)| (position, last_of(open))) else { return };
            if self.pieces.len().saturating_sub(last) <= IDLE_AFTER {
                return;
            }
            self.open.remove(position);
        }
        self.open.push(Open { flow, run });
    }

    /// Adds a packet to the open run at `position`; `None` if it does not fit there, or else whether the run takes no
    /// more.
    fn join(&mut self, position: usize, buffer: &[u8], candidate: &Candidate, at: &Range<usize>) -> Option<bool> {
        let limit = self.limits.segments(candidate.kind);
        let run = self.runs.get_mut(self.open.get(position)?.run)?;
        let first = self.pieces.get(run.first)?.payload.clone();
        let first = buffer.get(first.start.checked_sub(run.header_len)?..first.end)?;
        let packet = buffer.get(at.clone())?;
        let len = run.len.checked_add(candidate.payload_len)?;
        let id_step = candidate.id.wrapping_sub(run.id);
        let fits = candidate.may_follow
            && candidate.kind == run.kind
            && candidate.payload_len <= run.gso_size
            && len <= MAX_SUPERPACKET_LEN
            && run.segments < limit
            && (!candidate.kind.is_tcp() || candidate.sequence == run.next_sequence)
            && (candidate.kind.is_v6() || id_step <= 1 && run.id_step.is_none_or(|step| step == id_step))
            && candidate::headers_match(candidate, first, packet);
        if !fits {
            return None;
        }
        run.checksum = run.checksum.settle(run.kind, first, run.csum_start);
        let checksum = candidate.checksum.settle(candidate.kind, packet, candidate.csum_start);
        if run.checksum == Trust::Wrong || checksum == Trust::Wrong {
            return None;
        }
        let piece = self.pieces.len();
        self.pieces.push(Piece { payload: at.start.checked_add(candidate.header_len)?..at.end, next: None });
        self.pieces.get_mut(run.last)?.next = Some(piece);
        run.last = piece;
        run.segments = run.segments.saturating_add(1);
        run.len = len;
        run.next_sequence = candidate.next_sequence();
        (run.id, run.id_step) = (candidate.id, Some(id_step));
        run.psh = candidate.psh;
        Some(candidate.psh || candidate.payload_len < run.gso_size || run.segments >= limit)
    }

    /// Goes on to the next write: its run and its first piece.
    fn step(&mut self) -> Option<(usize, usize)> {
        self.goes_singly = self.next_single.is_some();
        if let Some(piece) = self.next_single {
            self.next_single = self.pieces.get(piece)?.next;
            return Some((self.next_run.checked_sub(1)?, piece));
        }
        let run = self.next_run;
        self.next_run = run.saturating_add(1);
        Some((run, self.runs.get(run)?.first))
    }

    /// Patches the headers of the packet with which a write begins, and says what goes before it and where it is.
    fn prepare(&self, run: usize, piece: usize, buffer: &mut [u8]) -> Option<(VirtioHeader, Range<usize>)> {
        let (run, piece) = (self.runs.get(run)?, self.pieces.get(piece)?);
        let first = piece.payload.start.checked_sub(run.header_len)?..piece.payload.end;
        let is_superpacket = run.segments > 1 && !self.goes_singly;
        if run.segments == 1 && run.checksum != Trust::Vouched {
            return Some((VirtioHeader::default(), first));
        }
        let total = if is_superpacket { run.len } else { first.len() };
        let packet = buffer.get_mut(first.clone())?;
        patch::lengths(run.kind, packet, Lengths { csum_start: run.csum_start, total })?;
        if run.segments > 1 {
            let is_last = is_superpacket || piece.next.is_none();
            patch::push(run.kind, packet, run.csum_start, is_last && run.psh)?;
        }
        Some((run.virtio_header(is_superpacket)?, first))
    }
}

impl Run {
    /// The header of the whole run, or of one packet whose checksum is partial.
    fn virtio_header(&self, is_superpacket: bool) -> Option<VirtioHeader> {
        Some(VirtioHeader {
            flags: virtio::NEEDS_CSUM,
            gso_type: if is_superpacket { self.kind.gso_type() } else { virtio::GSO_NONE },
            hdr_len: u16::try_from(self.header_len).ok()?,
            gso_size: if is_superpacket { u16::try_from(self.gso_size).ok()? } else { 0 },
            csum_start: u16::try_from(self.csum_start).ok()?,
            csum_offset: u16::try_from(self.kind.csum_offset()?).ok()?,
        })
    }
}
