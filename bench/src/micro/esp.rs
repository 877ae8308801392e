//! Sealing and opening with the ciphers that carry real packets.
//!
//! A single packet is sealed with a sequence number reserved for it alone, a batch with numbers reserved at once.
//! Opening has no such difference: each datagram of a message is opened by itself.

use std::hint::black_box;

use adit_net::cipher::Cipher;
use adit_proto::esp::capsule::{FLAG_EXTENDED_SEQUENCE, SaInit};
use adit_proto::esp::keys::{EpochKeys, KeyChain};
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};
use adit_proto::esp::sa::{Acceptance, Inbound, IvRule, Outbound};
use adit_proto::esp::spi::Spi;
use adit_proto::sealing::suite::Suite;
use bytes::Bytes;

use super::packets::{SIZES, udp};
use super::{Prepared, Repeated, SEGMENTS, Subject};

pub(super) fn subjects() -> Vec<Subject> {
    let pairs = || Suite::ALL.into_iter().flat_map(|suite| SIZES.map(move |size| (suite, size)));
    let seal = pairs().flat_map(|(suite, size)| [seal(suite, size, 1), seal(suite, size, SEGMENTS)]);
    seal.chain(pairs().map(|(suite, size)| open(suite, size))).collect()
}

/// Both ends of an SA: what seals, and what opens that.
pub(super) fn sas(suite: Suite) -> (Outbound<Cipher>, Inbound<Cipher>) {
    let [near, far] = [1, 2].map(|random| Spi::new(0, random).expect("there is a worker 0"));
    let accept = Acceptance { iv: IvRule::IsSequence, vouched: true };
    let keys = || keys(suite, near, far).client_to_server;
    let sealing = Outbound::new(far, keys()).expect("the key fits the suite");
    (sealing, Inbound::new(far, keys(), accept).expect("the key fits the suite"))
}

fn keys(suite: Suite, client: Spi, server: Spi) -> EpochKeys {
    let init =
        |spi| SaInit { epoch: 0, suite, flags: FLAG_EXTENDED_SEQUENCE, spi, group: None, share: Bytes::default() };
    KeyChain::new(&mut [7; 32]).advance(&init(client), &init(server), None).expect("both ends agree")
}

/// Slots one behind the other, each with a packet where it is sealed.
fn slots(packets: &[Vec<u8>]) -> Vec<u8> {
    let slot = |packet: &Vec<u8>| {
        let mut slot = vec![0; sealed_len(packet.len())];
        slot[PREFIX_LEN..PREFIX_LEN + packet.len()].copy_from_slice(packet);
        slot
    };
    packets.iter().flat_map(slot).collect()
}

/// Packets of one size and the slots they are sealed in.
pub(super) struct Batch {
    slots: Vec<u8>,
    /// The slots as they were before anything was sealed.
    plain: Vec<u8>,
    size: usize,
    next_header: NextHeader,
}

impl Batch {
    /// Takes packets of equal size.
    pub(super) fn new(packets: &[Vec<u8>], next_header: NextHeader) -> Self {
        let slots = slots(packets);
        Self { plain: slots.clone(), slots, size: packets.first().map_or(0, Vec::len), next_header }
    }

    /// Puts the packets into their slots again.
    pub(super) fn restore(&mut self) {
        self.slots.copy_from_slice(&self.plain);
    }

    /// Bytes of each datagram.
    pub(super) fn stride(&self) -> usize {
        sealed_len(self.size)
    }

    /// The datagrams, one behind the other.
    pub(super) fn datagrams(&self) -> &[u8] {
        &self.slots
    }

    /// Seals whatever lies in the slots, with so many numbers reserved at a time.
    pub(super) fn seal(&mut self, sa: &Outbound<Cipher>, at_once: usize) {
        let (stride, size) = (self.stride(), self.size);
        for some in self.slots.chunks_mut(stride * at_once) {
            let packets = u32::try_from(at_once).unwrap_or(u32::MAX);
            let mut numbers = sa.reserve(packets, size).expect("numbers last for longer than any measurement");
            for slot in some.chunks_mut(stride) {
                black_box(numbers.seal(slot, size, self.next_header)).expect("the slot is long enough");
            }
        }
    }

    /// Opens every datagram, after which the slots hold the packets again.
    fn open(&mut self, sa: &mut Inbound<Cipher>) {
        for datagram in self.slots.chunks_mut(sealed_len(self.size)) {
            black_box(sa.open(datagram)).expect("it was sealed for this end");
        }
    }
}

fn seal(suite: Suite, size: usize, at_once: usize) -> Subject {
    let how = if at_once == 1 { "single" } else { "batch" };
    Subject::new(format!("esp/seal/{suite}/{size}/{how}"), SEGMENTS, SEGMENTS * size, move || {
        let (sealing, _) = sas(suite);
        let mut batch = Batch::new(&vec![udp(size); SEGMENTS], NextHeader::Ipv4);
        Repeated(move || batch.seal(&sealing, at_once))
    })
}

fn open(suite: Suite, size: usize) -> Subject {
    Subject::new(format!("esp/open/{suite}/{size}"), SEGMENTS, SEGMENTS * size, move || {
        let (sealing, opening) = sas(suite);
        Prepared {
            state: (Batch::new(&vec![udp(size); SEGMENTS], NextHeader::Ipv4), opening),
            prepare: move |(batch, _): &mut (Batch, Inbound<Cipher>)| batch.seal(&sealing, SEGMENTS),
            run: |(batch, opening): &mut (Batch, Inbound<Cipher>)| batch.open(opening),
        }
    })
}
