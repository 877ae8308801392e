//! The Internet checksum.

use std::hint::black_box;

use adit_proto::packet::checksum::Checksum;

use super::packets::SIZES;
use super::{Repeated, Subject};

/// Sums in one round.
const SUMS: usize = 64;

pub(super) fn subjects() -> Vec<Subject> {
    [20].into_iter().chain(SIZES).map(subject).collect()
}

fn subject(size: usize) -> Subject {
    Subject::new(format!("checksum/{size}"), SUMS, SUMS * size, move || {
        let bytes: Vec<u8> = (0..size).map(|at| at.to_le_bytes()[0]).collect();
        Repeated(move || {
            for _ in 0..SUMS {
                black_box(Checksum::new().with(black_box(&bytes)).finish());
            }
        })
    })
}
