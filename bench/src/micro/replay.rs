//! The window against replay.

use std::hint::black_box;

use adit_proto::sealing::replay::{ReplayWindow, WIDTH};

use super::{Repeated, Subject};

/// Numbers in one round.
const NUMBERS: u64 = 1024;
/// How far apart numbers may be from their place where paths differ.
const REORDERING: u64 = 64;
/// Steps through [`REORDERING`] numbers that visit each once: coprime to it.
const STRIDE: u64 = 37;

pub(super) fn subjects() -> Vec<Subject> {
    let subject = |name: &str, order: fn(u64) -> u64| {
        Subject::new(format!("replay/{name}"), usize::try_from(NUMBERS).unwrap_or_default(), 0, move || {
            let mut window = ReplayWindow::default();
            let mut first = 1;
            Repeated(move || {
                for number in 0..NUMBERS {
                    let sequence = black_box(first + order(number));
                    black_box(window.check(sequence)).and_then(|()| window.commit(sequence)).expect("it is new");
                }
                first += NUMBERS;
            })
        })
    };
    vec![subject("in-order", |number| number), subject("shuffled", shuffled), replayed()]
}

/// Every number once, in another order within each group of [`REORDERING`].
fn shuffled(number: u64) -> u64 {
    number - number % REORDERING + number * STRIDE % REORDERING
}

/// Copies of what came before, all within the window.
fn replayed() -> Subject {
    Subject::new("replay/replayed", usize::try_from(NUMBERS).unwrap_or_default(), 0, || {
        let mut window = ReplayWindow::default();
        for sequence in 1..=WIDTH {
            window.commit(sequence).expect("it is new");
        }
        Repeated(move || {
            for number in 0..NUMBERS {
                black_box(black_box(&window).check(1 + number)).expect_err("it came before");
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn shuffling_visits_every_number_once() {
        let seen: BTreeSet<u64> = (0..NUMBERS).map(shuffled).collect();
        assert_eq!(seen, (0..NUMBERS).collect());
        assert!((0..NUMBERS).all(|number| shuffled(number).abs_diff(number) < REORDERING));
    }
}
