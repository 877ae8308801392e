//! The parts of the packet path, each alone and all together, in process: what they cost per packet.
//!
//! One catalogue serves three readers. `cargo bench` gives nanoseconds and allocations, a test holds allocations to
//! none, and [`crate::instructions`] counts instructions, which no noise moves. Nothing here makes a system call while
//! it is counted.
//!
//! A round is the smallest piece of work: so many packets, lookups or capsules that reading a clock around it costs
//! nothing beside it. Only a capsule is a round of its own.

use std::hint::black_box;

mod checksum;
mod codecs;
mod esp;
mod offload;
mod packets;
mod pipeline;
mod policy;
mod replay;
mod routes;

/// Segments of one superpacket: what 64 KiB hold of packets of 1,420 bytes.
const SEGMENTS: usize = 45;

/// Rounds after which every buffer has the size it needs and every cache holds what it can.
const WARM_UP: usize = 4;

/// Something that can be done again and again.
pub trait Work {
    /// Makes ready for one round; not counted.
    fn prepare(&mut self) {}

    /// Does one round.
    fn run(&mut self);
}

/// One row of the catalogue.
pub struct Subject {
    name: String,
    elements: u64,
    bytes: u64,
    allocates: bool,
    make: Box<dyn Fn() -> Box<dyn Work>>,
}

impl Subject {
    /// Names what `make` makes, which handles `elements` packets, lookups or capsules of `bytes` bytes in all in a
    /// round.
    fn new<W: Work + 'static>(
        name: impl Into<String>,
        elements: usize,
        bytes: usize,
        make: impl Fn() -> W + 'static,
    ) -> Self {
        let make = Box::new(move || Box::new(make()) as Box<dyn Work>);
        Self { name: name.into(), elements: elements as u64, bytes: bytes as u64, allocates: false, make }
    }

    /// It is no part of the path that packets take by ESP, and may allocate.
    fn allocating(self) -> Self {
        Self { allocates: true, ..self }
    }

    /// The name, such as `esp/seal/aes-256-gcm/1420/batch`: what it belongs to, what is done, to what.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Packets, lookups or capsules in one round.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Bytes in one round: of packets without what a carrier adds, or of capsules. 0 where bytes do not count.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it allocates in every round. All others allocate in none, once they are warm.
    pub fn allocates(&self) -> bool {
        self.allocates
    }

    /// Makes it, and does a few rounds of it.
    pub fn warm(&self) -> Box<dyn Work> {
        let mut work = (self.make)();
        for _ in 0..WARM_UP {
            work.prepare();
            work.run();
        }
        work
    }
}

/// Everything that is measured, in the order in which it is shown.
pub fn catalogue() -> Vec<Subject> {
    let groups = [
        checksum::subjects(),
        codecs::subjects(),
        esp::subjects(),
        offload::subjects(),
        pipeline::subjects(),
        policy::subjects(),
        replay::subjects(),
        routes::subjects(),
    ];
    groups.into_iter().flatten().collect()
}

/// Work that needs no preparation.
struct Repeated<F>(F);

impl<F: FnMut()> Work for Repeated<F> {
    fn run(&mut self) {
        (self.0)();
    }
}

/// Work on something that has to be made ready again before each round.
struct Prepared<S, P, R> {
    state: S,
    prepare: P,
    run: R,
}

impl<S, P: FnMut(&mut S), R: FnMut(&mut S)> Work for Prepared<S, P, R> {
    fn prepare(&mut self) {
        (self.prepare)(black_box(&mut self.state));
    }

    fn run(&mut self) {
        (self.run)(black_box(&mut self.state));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_subject_can_be_done_again_and_again() {
        for subject in catalogue() {
            let mut work = subject.warm();
            work.prepare();
            work.run();
            assert!(subject.elements() > 0, "{}", subject.name());
        }
    }

    #[test]
    fn names_are_distinct_and_say_where_they_belong() {
        let subjects = catalogue();
        let names: BTreeSet<&str> = subjects.iter().map(Subject::name).collect();
        assert_eq!(names.len(), subjects.len());
        assert!(names.iter().all(|name| name.contains('/') && !name.contains(char::is_whitespace)), "{names:?}");
    }
}
