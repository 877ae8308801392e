//! For which reasons packets of a session were refused: each is told once, however many packets come.

use std::sync::atomic::{AtomicU64, Ordering};

use adit_proto::drop_reason::DropReason;

const _: () = assert!(DropReason::COUNT <= u64::BITS as usize, "each reason has a bit");

/// The reasons so far, one bit each.
#[derive(Debug, Default)]
pub struct Denials(AtomicU64);

impl Denials {
    /// Notes a reason, and tells whether it is the first time. Takes no lock.
    pub fn is_first(&self, reason: DropReason) -> bool {
        let bit = 1_u64 << reason.index();
        // Most often it is not the first time, and nothing is written.
        self.0.load(Ordering::Relaxed) & bit == 0 && self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_first_once() {
        let denials = Denials::default();
        for round in 0..2 {
            for reason in DropReason::ALL {
                let first = denials.is_first(*reason);
                assert_eq!(first, round == 0, "{}", reason.label());
            }
        }
    }
}
