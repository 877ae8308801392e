//! The number of a policy, as connections' marks hold it.

use adit_proto::mark::Mark;

/// Where in [`Mark::POLICIES`] the lowest bit is.
const SHIFT: u32 = Mark::POLICIES.trailing_zeros();
/// The highest number.
const LAST: u32 = Mark::POLICIES >> SHIFT;

/// The number of a policy. Numbers come again after a few policies: before one is used, no connection may have it from
/// the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u32);

impl Generation {
    pub(super) const FIRST: Self = Self(1);

    /// All numbers. 0 is what connections have that no policy allowed.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (1..=LAST).map(Self)
    }

    pub(super) fn next(self) -> Self {
        Self(self.0 % LAST + 1)
    }

    /// The mark of connections that this policy allowed.
    pub(super) fn mark(self) -> Mark {
        Mark { value: self.0 << SHIFT, mask: Mark::POLICIES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_round_and_each_has_a_mark_within_the_mask() {
        let mut generation = Generation::FIRST;
        for expected in Generation::all().skip(1).chain([Generation::FIRST]) {
            generation = generation.next();
            assert_eq!(generation, expected);
            let Mark { value, mask } = generation.mark();
            assert!(value != 0 && value & mask == value, "{value:#x}");
        }
    }
}
