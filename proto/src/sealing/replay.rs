//! Sequence numbers on the receiving side: the window against replay and the high half that the wire leaves out.
//!
//! The window is a ring of bits (after RFC 6479): bit `sequence mod width`. When the newest number advances, only the
//! bits between the old and the new one are cleared, and those are exactly the bits of the numbers that leave the
//! window.

use crate::drop_reason::DropReason;

/// Numbers the window of an SA spans: enough for the reordering of several queues and of offloads, 1 KiB of state.
pub const WIDTH: u64 = 8192;

const WORDS: usize = 128;
const WORD_BITS: u32 = u64::BITS;

/// The window of an SA.
pub type ReplayWindow = Window<WORDS, WORD_BITS>;

/// How an accepted packet came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// With the highest sequence number so far.
    Newest,
    /// After one with a higher number.
    Late,
}

/// A window of `WORDS * BITS` numbers. `BITS` of each word are in use: 64, or fewer to prove the arithmetic on all
/// states.
#[derive(Debug, Clone)]
pub struct Window<const WORDS: usize, const BITS: u32> {
    newest: u64,
    words: [u64; WORDS],
}

impl<const WORDS: usize, const BITS: u32> Default for Window<WORDS, BITS> {
    fn default() -> Self {
        Self { newest: 0, words: [0; WORDS] }
    }
}

impl<const WORDS: usize, const BITS: u32> Window<WORDS, BITS> {
    /// Numbers the window spans, the newest included.
    pub const WIDTH: u64 = {
        assert!(WORDS > 0 && BITS > 0 && BITS <= u64::BITS);
        WORDS as u64 * BITS as u64
    };

    /// The highest number committed; 0 before the first.
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// Checks whether a packet with this number may be accepted; to be called before opening it, changes nothing.
    ///
    /// # Errors
    /// [`DropReason::SequenceMismatch`] for 0, which is never sent (RFC 4303 section 3.3.3), [`DropReason::TooOld`]
    /// below the window, [`DropReason::Replayed`] if it was accepted before (section 3.4.3).
    pub fn check(&self, sequence: u64) -> Result<(), DropReason> {
        if sequence == 0 {
            return Err(DropReason::SequenceMismatch);
        }
        if sequence > self.newest {
            return Ok(());
        }
        if self.newest.wrapping_sub(sequence) >= Self::WIDTH {
            return Err(DropReason::TooOld);
        }
        let (word, bit) = Self::place(sequence);
        match self.words.get(word) {
            Some(word) if word & bit == 0 => Ok(()),
            Some(_) | None => Err(DropReason::Replayed),
        }
    }

    /// Accepts the number of a packet that was authenticated.
    ///
    /// # Errors
    /// As [`Self::check`], which it repeats, so that two copies in one batch do not both pass; then nothing changes.
    pub fn commit(&mut self, sequence: u64) -> Result<Arrival, DropReason> {
        self.check(sequence)?;
        let arrival = if sequence > self.newest { Arrival::Newest } else { Arrival::Late };
        if arrival == Arrival::Newest {
            self.clear_up_to(sequence);
            self.newest = sequence;
        }
        let (word, bit) = Self::place(sequence);
        if let Some(word) = self.words.get_mut(word) {
            *word |= bit;
        }
        Ok(arrival)
    }

    /// Clears the bits of `newest + 1 ..= sequence`, which are those of the numbers that leave the window.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the divisors are constants above zero, and shifts stay below the bits of a word"
    )]
    fn clear_up_to(&mut self, sequence: u64) {
        let distance = sequence.wrapping_sub(self.newest);
        if distance >= Self::WIDTH {
            self.words.fill(0);
            return;
        }
        let mut at = self.newest;
        while at != sequence {
            let first = at.wrapping_add(1) % Self::WIDTH;
            let offset = first % u64::from(BITS);
            let run = u64::from(BITS).wrapping_sub(offset).min(sequence.wrapping_sub(at));
            let mask = (u64::MAX >> u64::from(u64::BITS).wrapping_sub(run)) << offset;
            if let Some(word) = usize::try_from(first / u64::from(BITS)).ok().and_then(|word| self.words.get_mut(word))
            {
                *word &= !mask;
            }
            at = at.wrapping_add(run);
        }
    }

    /// The word of a number and its bit in it.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the divisors are constants above zero, and shifts stay below the bits of a word"
    )]
    fn place(sequence: u64) -> (usize, u64) {
        let position = sequence % Self::WIDTH;
        let word = usize::try_from(position / u64::from(BITS)).unwrap_or(usize::MAX);
        (word, 1 << (position % u64::from(BITS)))
    }
}

/// Infers the whole number from its low half on the wire (RFC 4303 appendix A2.2): of all numbers with that low half,
/// the one in the window below `newest` or in the 2^32 - [`WIDTH`] above it. `None` if that would be negative or beyond
/// 64 bits.
///
/// A peer that is further ahead, after a loss of 2^32 packets, is not searched for: its packets fail, and a rekey mends
/// it.
pub const fn infer(low: u32, newest: u64) -> Option<u64> {
    infer_of::<32>(low as u64, newest, WIDTH)
}

/// The same for a low half of `HALF` bits and a window of `width`, at most 2^`HALF`.
const fn infer_of<const HALF: u32>(low: u64, newest: u64, width: u64) -> Option<u64> {
    let mask = u64::MAX >> u64::BITS.saturating_sub(HALF);
    let (newest_low, newest_high) = (newest & mask, newest >> HALF);
    let bottom = newest_low.wrapping_sub(width).wrapping_add(1) & mask;
    let high = if newest_low >= width.wrapping_sub(1) {
        // Case A: the window lies within one range of the low half.
        if low >= bottom { Some(newest_high) } else { newest_high.checked_add(1) }
    } else if low >= bottom {
        // Case B: it reaches back into the range before.
        newest_high.checked_sub(1)
    } else {
        Some(newest_high)
    };
    match high {
        Some(high) if high <= u64::MAX >> HALF => Some(high << HALF | low),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests;
