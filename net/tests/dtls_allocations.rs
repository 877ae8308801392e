//! Sealing and opening records of DTLS allocates nothing: counted in the whole process, in which nothing else runs.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use adit_net::cipher::Cipher;
use adit_proto::dtls::record::ContentType;
use adit_proto::dtls::sa::{Inbound, Outbound};
use adit_proto::dtls::secret::{MasterSecret, Randoms};
use adit_proto::dtls::suite::CipherSuite;
use adit_testing::counting_allocator::{CountingAllocator, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Bytes of plaintext in a record, records in one buffer, and how often the buffer is filled.
const PLAINTEXT: usize = 1400;
const AT_ONCE: usize = 40;
const ROUNDS: usize = 250;

#[test]
fn records_cost_no_allocation() {
    for suite in CipherSuite::PSK {
        let randoms = Randoms { client: [1; 32], server: [2; 32] };
        let keys = || MasterSecret::new([3; 48]).keys(suite, &randoms).unwrap().client_to_server;
        let outbound = Outbound::<Cipher>::new(keys()).unwrap();
        let mut inbound = Inbound::<Cipher>::new(keys()).unwrap();
        let sealed = suite.sealed_len(PLAINTEXT);
        let mut buffer = vec![0x45; AT_ONCE * sealed];
        let before = allocations();
        for _ in 0..ROUNDS {
            let mut numbers = outbound.reserve(u32::try_from(AT_ONCE).unwrap(), PLAINTEXT).unwrap();
            for slot in buffer.chunks_exact_mut(sealed) {
                assert_eq!(numbers.seal(slot, PLAINTEXT, ContentType::ApplicationData), Ok(sealed));
            }
            for record in buffer.chunks_exact_mut(sealed) {
                assert_eq!(inbound.open(record).map(|opened| opened.range.len()), Ok(PLAINTEXT));
            }
        }
        assert_eq!(allocations() - before, 0, "{}", suite.name());
        assert_eq!(inbound.counters().opened, (AT_ONCE * ROUNDS) as u64);
    }
}
