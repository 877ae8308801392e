//! Writes what a coalescer put together, each run of packets in one call.

use std::io::{self, IoSlice};

use adit_proto::offload::coalesce::{Coalescer, Gather};
use adit_proto::offload::virtio;

/// The pieces of one write: headers with the first payload, and the payloads of the other segments.
const PIECES: usize = 64;

/// Packets that were not taken.
pub(crate) struct Lost<'a> {
    /// The buffer they are in.
    pub(crate) buffer: &'a [u8],
    /// Where the first of them begins.
    pub(crate) start: usize,
    /// How many packets there are.
    pub(crate) packets: usize,
}

/// Gives everything in `coalescer` to the kernel by `write`. Each packet lies in `buffer` behind at least
/// [`virtio::LEN`] bytes that nobody needs any more: the virtio-net header goes there, so that a single packet is one
/// piece.
///
/// If the kernel refuses a superpacket, it gets the packets of it one by one. Packets that are not taken in the end are
/// handed to `lost`.
///
/// Returns the error with which the kernel refused a superpacket if it then took a packet of it alone. Such a kernel
/// knows no superpackets, while a device that is down refuses single packets as well.
pub(crate) fn write_runs(
    coalescer: &mut Coalescer,
    buffer: &mut [u8],
    mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    mut lost: impl FnMut(Lost<'_>),
) -> Option<io::Error> {
    let (mut refused, mut single_only) = (None, None);
    while let Some(gather) = coalescer.poll_write(buffer) {
        let (packets, start) = (gather.segments, gather.first.start);
        let Err(error) = write_run(&gather, buffer, &mut write) else {
            if let Some(error) = refused.take_if(|_| packets == 1) {
                single_only = Some(error);
            }
            continue;
        };
        if packets > 1 && refuses_superpackets(&error) {
            refused = Some(error);
            coalescer.retry_singly();
        } else {
            lost(Lost { buffer, start, packets });
        }
    }
    single_only
}

fn write_run(
    gather: &Gather<'_>,
    buffer: &mut [u8],
    write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let start =
        gather.first.start.checked_sub(virtio::LEN).expect("there is room for a header in front of each packet");
    let whole = start..gather.first.end;
    let header = buffer.get_mut(whole.clone()).and_then(|whole| whole.first_chunk_mut());
    *header.expect("the packet is in the buffer") = gather.header.encode();

    let mut pieces = [IoSlice::new(&[]); PIECES];
    let mut count = 0;
    let found = std::iter::once(whole).chain(gather.rest()).filter_map(|at| buffer.get(at));
    for (place, piece) in pieces.iter_mut().zip(found) {
        *place = IoSlice::new(piece);
        count += 1;
    }
    write(&pieces[..count])
}

/// Whether the kernel may have refused the packet because it is a superpacket: some kernels refuse those that others
/// take.
fn refuses_superpackets(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| code == libc::EINVAL || code == libc::EIO)
}
