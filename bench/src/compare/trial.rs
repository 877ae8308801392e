//! The turns of a comparison: which build runs when.
//!
//! A round is A B B A, so that what changes steadily over its four turns meets both builds alike; the next one goes on
//! the same way. Rounds in which B is A once more come first, and show what equal builds differ by.

use anyhow::Result;

use crate::measure::turns::Turns;

/// Names of the three that take part: the first build, the same once more, and the second build.
pub(super) const NAMES: [&str; 3] = [BASE, TWIN, HEAD];
pub(super) const BASE: &str = "base";
/// The first build under another name.
pub(super) const TWIN: &str = "base-again";
pub(super) const HEAD: &str = "head";
pub(super) const TURNS: u32 = 4;

/// Which two a round compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// The first build and itself.
    Noise,
    Builds,
}

impl Round {
    /// Who runs, by name, in order.
    pub(super) fn order(self) -> [&'static str; TURNS as usize] {
        let other = match self {
            Self::Noise => TWIN,
            Self::Builds => HEAD,
        };
        [BASE, other, other, BASE]
    }
}

/// The rounds that were made.
pub(super) struct Trial<'a> {
    /// Their turns, whose systems bear the names of [`NAMES`].
    pub(super) turns: Turns<'a>,
    rounds: u32,
}

impl<'a> Trial<'a> {
    /// Begins.
    pub(super) fn begin(turns: Turns<'a>) -> Self {
        Self { turns, rounds: 0 }
    }

    /// Lets the progress know that so many rounds will come.
    pub(super) fn expect(&mut self, rounds: u32) {
        self.turns.expect(rounds * TURNS);
    }

    /// Makes rounds of one kind; they are counted on from those before.
    ///
    /// # Errors
    /// Fails when interrupted, and where a build fails again and again.
    pub(super) fn rounds(&mut self, kind: Round, number: u32) -> Result<()> {
        for _ in 0..number {
            self.rounds += 1;
            for name in kind.order() {
                if let Some(failure) = self.turns.take(name, self.rounds)? {
                    return Err(failure.into());
                }
            }
        }
        self.turns.pause();
        self.turns.report.rounds = self.rounds;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_alternate_so_that_drift_meets_both() {
        let turns: Vec<&str> = [Round::Builds, Round::Builds].into_iter().flat_map(Round::order).collect();
        assert_eq!(turns, [BASE, HEAD, HEAD, BASE, BASE, HEAD, HEAD, BASE]);
        assert_eq!(Round::Noise.order(), [BASE, TWIN, TWIN, BASE]);
    }
}
