//! Virtual time, which passes from one thing that happens to the next.

use std::time::{Duration, Instant};

use crate::promises::Kept;

/// What has moments.
pub(crate) trait Moments {
    /// The time.
    fn now(&mut self) -> &mut Instant;

    /// Everything that is due now.
    fn step(&mut self) -> Kept;

    /// When something happens next.
    fn next_event(&self) -> Option<Instant>;

    /// Lets time pass.
    fn run(&mut self, time: Duration) -> Kept {
        let end = *self.now() + time;
        loop {
            self.step()?;
            match self.next_event().filter(|at| *at <= end) {
                Some(at) => *self.now() = at,
                None => break,
            }
        }
        *self.now() = end;
        self.step()
    }
}
