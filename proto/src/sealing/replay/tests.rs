use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

/// The window as its definition says it, without any cleverness.
#[derive(Default, Clone)]
struct Model {
    seen: BTreeSet<u64>,
}

impl Model {
    fn newest(&self) -> u64 {
        self.seen.last().copied().unwrap_or(0)
    }

    fn commit(&mut self, sequence: u64, width: u64) -> Result<Arrival, DropReason> {
        let newest = self.newest();
        if sequence == 0 {
            return Err(DropReason::SequenceMismatch);
        }
        if u128::from(sequence) + u128::from(width) <= u128::from(newest) {
            return Err(DropReason::TooOld);
        }
        if !self.seen.insert(sequence) {
            return Err(DropReason::Replayed);
        }
        Ok(if sequence > newest { Arrival::Newest } else { Arrival::Late })
    }
}

/// Walks through every state that a window can reach around `start`, and checks every next number in each.
fn prove<const WORDS: usize, const BITS: u32>(start: u64, span: u64) {
    let width = Window::<WORDS, BITS>::WIDTH;
    let mut first = Window::<WORDS, BITS>::default();
    let mut model = Model::default();
    let first_number = start.max(1);
    assert_eq!(first.commit(first_number), model.commit(first_number, width));
    let mut open = vec![(first, model)];
    let mut known = HashSet::new();
    while let Some((window, model)) = open.pop() {
        if !known.insert((window.newest, window.words)) {
            continue;
        }
        let lowest = start.saturating_sub(2 * width);
        for sequence in lowest..=start.saturating_add(span) {
            let (mut window, mut model) = (window.clone(), model.clone());
            let checked = window.check(sequence);
            let committed = window.commit(sequence);
            assert_eq!(committed, model.commit(sequence, width), "{sequence} after {:?}", model.seen);
            assert_eq!(checked, committed.map(|_| ()), "the check foretells the commit");
            assert_eq!(window.newest(), model.newest());
            model.seen.retain(|&seen| window.newest() - seen < width);
            open.push((window, model));
        }
    }
    assert!(known.len() > 10);
}

#[test]
fn arithmetic_holds_in_every_state_of_small_windows() {
    for start in [1, 2, 5, (1 << 32) - 3, u64::MAX - 14] {
        prove::<1, 1>(start, 14);
        prove::<1, 3>(start, 14);
        prove::<3, 1>(start, 14);
        prove::<2, 2>(start, 14);
        prove::<1, 4>(start, 14);
        prove::<2, 3>(start, 14);
        prove::<3, 2>(start, 14);
    }
    prove::<4, 2>(9, 18);
}

#[test]
fn ten_million_random_steps_agree_with_a_table_of_all_numbers() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut window = ReplayWindow::default();
    let mut seen = vec![0_u64; 1 << 20];
    let last = seen.len() as u64 * 64 - 1;
    let mut newest = 0_u64;
    for _step in 0..10_000_000 {
        let distance = draw();
        let sequence = match distance % 32 {
            0 => newest.saturating_sub(WIDTH - 2 + distance / 32 % 5),
            1..=15 => newest.saturating_sub(distance / 32 % (WIDTH + 8)),
            16 if distance % 4096 == 16 => newest + WIDTH - 2 + distance / 4096 % 5,
            _ => newest + distance / 32 % 12,
        }
        .min(last);
        let (word, bit) = (&mut seen[usize::try_from(sequence / 64).unwrap()], 1 << (sequence % 64));
        let expected = if sequence == 0 {
            Err(DropReason::SequenceMismatch)
        } else if sequence + WIDTH <= newest {
            Err(DropReason::TooOld)
        } else if *word & bit != 0 {
            Err(DropReason::Replayed)
        } else {
            Ok(if sequence > newest { Arrival::Newest } else { Arrival::Late })
        };
        assert_eq!(window.commit(sequence), expected);
        if expected.is_ok() {
            *word |= bit;
            newest = newest.max(sequence);
        }
    }
    assert!(newest > 10_000_000, "the walk got somewhere: {newest}");
}

#[test]
fn window_spans_8192_numbers() {
    assert_eq!(ReplayWindow::WIDTH, WIDTH);
    let mut window = ReplayWindow::default();
    window.commit(WIDTH + 1).unwrap();
    assert_eq!(window.check(1), Err(DropReason::TooOld));
    assert_eq!(window.commit(2), Ok(Arrival::Late));
    assert_eq!(window.check(2), Err(DropReason::Replayed));
}

#[test]
fn check_changes_nothing() {
    let mut window = ReplayWindow::default();
    for sequence in [1, 5, WIDTH * 3] {
        assert_eq!((window.check(sequence), window.check(sequence)), (Ok(()), Ok(())));
    }
    assert_eq!(window.newest(), 0, "a number that was only checked does not move the window");
    assert_eq!(window.commit(1), Ok(Arrival::Newest));
}

#[test]
fn zero_is_never_accepted() {
    let mut window = ReplayWindow::default();
    assert_eq!(window.commit(0), Err(DropReason::SequenceMismatch));
    window.commit(3).unwrap();
    assert_eq!(window.commit(0), Err(DropReason::SequenceMismatch));
}

/// By its definition: the one number with that low half in `newest - width + 1 ..= newest - width + 2^half`.
fn inferred_by_search(half: u32, low: u64, newest: u64, width: u64) -> Option<u64> {
    let (newest, width) = (i128::from(newest), i128::from(width));
    let mut candidates = newest - width + 1..=newest - width + (1 << half);
    let found = candidates.find(|number| number.rem_euclid(1 << half) == i128::from(low));
    u64::try_from(found.expect("a range of all low halves holds each")).ok()
}

#[test]
fn inference_holds_for_every_number_of_small_halves() {
    for newest in (0..=255).chain(u64::MAX - 255..=u64::MAX) {
        for width in 1..=16 {
            for low in 0..16 {
                let expected = inferred_by_search(4, low, newest, width);
                assert_eq!(infer_of::<4>(low, newest, width), expected, "{low} after {newest}, width {width}");
            }
        }
    }
}

#[test]
fn high_half_follows_the_wrap_of_the_low_half_both_ways() {
    let wrap = 1_u64 << 32;
    assert_eq!(infer(1, 0), Some(1));
    assert_eq!(infer(0, wrap - 1), Some(wrap), "the next number");
    assert_eq!(infer(u32::MAX, wrap + 5), Some(wrap - 1), "a late one from before the wrap");
    assert_eq!(infer(u32::MAX, 5), None, "before the first of all");
    assert_eq!(infer(0, u64::MAX), None, "after the last of all");
}

#[test]
fn more_than_half_the_range_may_be_lost() {
    let newest = 10_000;
    let ahead = newest + (1 << 32) - WIDTH;
    assert_eq!(infer(ahead as u32, newest), Some(ahead));
    let too_far = ahead + 1;
    assert_ne!(infer(too_far as u32, newest), Some(too_far), "not searched for");
}

proptest! {
    #[test]
    fn window_agrees_with_a_set(
        start in prop_oneof![Just(0), 0..100_000_u64, Just(u64::MAX - 40_000)],
        steps in proptest::collection::vec((any::<bool>(), 0..20_000_u64, 0..4_u64), 1..300),
    ) {
        let (mut window, mut model) = (ReplayWindow::default(), Model::default());
        prop_assert_eq!(window.commit(start), model.commit(start, WIDTH));
        for (back, far, near) in steps {
            let newest = model.newest();
            let distance = if near == 0 { far } else { near };
            let sequence = if back { newest.saturating_sub(distance) } else { newest.saturating_add(distance) };
            prop_assert_eq!(window.check(sequence).err(), model.clone().commit(sequence, WIDTH).err());
            prop_assert_eq!(window.commit(sequence), model.commit(sequence, WIDTH));
            prop_assert_eq!(window.newest(), model.newest());
        }
    }

    #[test]
    fn inference_agrees_with_its_definition(low: u32, newest in prop_oneof![any::<u64>(), 0..100_000_u64]) {
        let base = (newest.saturating_sub(WIDTH - 1) & !0xffff_ffff) | u64::from(low);
        let floor = i128::from(newest) - i128::from(WIDTH) + 1;
        let expected = [i128::from(base) - (1 << 32), i128::from(base), i128::from(base) + (1 << 32)]
            .into_iter()
            .find(|&number| number >= floor)
            .and_then(|number| u64::try_from(number).ok());
        prop_assert_eq!(infer(low, newest), expected);
    }
}
