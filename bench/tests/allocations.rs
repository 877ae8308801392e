//! No part of the packet path allocates once it is warm: counted in the whole process, in which nothing else runs.

use adit_bench::micro::{Subject, catalogue};
use adit_testing::counting_allocator::{self, CountingAllocator};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Rounds to count.
const ROUNDS: usize = 8;

fn allocations(subject: &Subject) -> usize {
    let mut work = subject.warm();
    let round = |_| {
        work.prepare();
        let before = counting_allocator::allocations();
        work.run();
        counting_allocator::allocations() - before
    };
    (0..ROUNDS).map(round).sum()
}

#[test]
fn no_part_of_the_packet_path_allocates() {
    let counted = catalogue().into_iter().map(|subject| (allocations(&subject), subject));
    let wrong: Vec<String> = counted
        .filter(|(counted, subject)| (*counted > 0) != subject.allocates())
        .map(|(counted, subject)| format!("{}: {counted} in {ROUNDS} rounds", subject.name()))
        .collect();
    assert!(wrong.is_empty(), "what allocates, or does no more, although the catalogue says otherwise: {wrong:#?}");
}
