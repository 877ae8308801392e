//! Searches for the largest datagram that a path carries, with many questions at the same time: a path that is slow
//! answers few rounds in the time that somebody waits.
//!
//! Ask with each size of [`WidthSearch::begin_round`], tell those that were answered by
//! [`WidthSearch::handle_answer`], and begin the next round when no more answers are to be expected.

/// Most sizes in a round.
const SIZES: u16 = 12;

/// The search on one path.
#[derive(Debug, Clone)]
pub struct WidthSearch {
    /// The largest size that passed.
    passes: u16,
    /// The smallest size that did not.
    fails: u16,
    /// The sizes of this round, of which the smallest that stays unanswered is the next that fails.
    asked: Vec<u16>,
}

impl WidthSearch {
    /// Begins with a size that passed; looks for none above `most`.
    #[must_use]
    pub fn new(passed: u16, most: u16) -> Self {
        Self { passes: passed, fails: most.max(passed).saturating_add(1), asked: Vec::new() }
    }

    /// Takes what was not answered for too large, and gives out the sizes to ask with now; none if the search is over.
    pub fn begin_round(&mut self) -> &[u16] {
        let unanswered = self.asked.drain(..).filter(|&size| size > self.passes).min();
        self.fails = unanswered.map_or(self.fails, |size| size.min(self.fails));
        let between = self.fails.saturating_sub(self.passes).saturating_sub(1);
        let count = between.min(SIZES);
        let passes = self.passes;
        // The last of them is the largest that may pass: on most paths it does, and ends the search.
        let sizes = (1..=count).map(|number| {
            let above = u32::from(between).saturating_mul(number.into()).div_ceil(u32::from(count).max(1));
            passes.saturating_add(u16::try_from(above).unwrap_or(u16::MAX))
        });
        self.asked = sizes.collect();
        &self.asked
    }

    /// A question of this size was answered.
    pub fn handle_answer(&mut self, size: u16) {
        self.passes = self.passes.max(size);
    }

    /// Whether all questions of this round are answered, or a larger one is.
    #[must_use]
    pub fn is_round_over(&self) -> bool {
        self.asked.iter().all(|&size| size <= self.passes)
    }

    /// The largest size that passed.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches on a path of this width; returns what was found, and in how many rounds.
    fn search(width: u16, mut is_lost: impl FnMut(u16) -> bool) -> (u16, u32) {
        let mut search = WidthSearch::new(1200, 1472);
        let mut rounds = 0;
        loop {
            let sizes = search.begin_round().to_vec();
            if sizes.is_empty() {
                return (search.width(), rounds);
            }
            assert!(sizes.len() <= usize::from(SIZES) && sizes.is_sorted() && sizes.iter().all(|size| *size <= 1472));
            rounds += 1;
            for size in sizes.into_iter().filter(|size| *size <= width) {
                if !is_lost(size) {
                    search.handle_answer(size);
                }
            }
            assert_eq!(search.is_round_over(), search.width() >= *search.asked.last().unwrap());
        }
    }

    #[test]
    fn every_width_is_found_in_three_rounds_and_the_usual_one_in_the_first() {
        for width in 1200..=1472 {
            let (found, rounds) = search(width, |_| false);
            assert_eq!(found, width);
            assert!(rounds <= 3, "{width}: {rounds} rounds");
        }
        assert_eq!(search(9000, |_| false), (1472, 1));
        assert_eq!(search(1472, |_| false), (1472, 1));
    }

    #[test]
    fn lost_answers_never_make_a_path_wider_than_it_is() {
        for width in 1200..=1472 {
            let mut number = 0;
            let (found, _) = search(width, |_| {
                number += 1;
                number % 3 == 0
            });
            assert!((1200..=width).contains(&found), "{width}: {found}");
        }
    }
}
