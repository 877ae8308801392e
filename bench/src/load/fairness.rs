//! Whether every client got the same.

use serde::Serialize;

/// How evenly echoes were answered. All clients of one phase offer the same rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Fairness {
    /// Clients that sent anything.
    pub(super) clients: usize,
    /// Jain's index (RFC 5166 section 2.3) of what was delivered: 1 where all clients got the same share of their
    /// echoes answered, 1 / clients where one got all.
    pub(super) jain: f64,
    /// Answers of the client with the smallest share of them.
    pub(super) lowest_answered: u32,
    /// That share.
    pub(super) lowest: f64,
    /// Answers of the client with the largest share.
    pub(super) highest_answered: u32,
    /// That share.
    pub(super) highest: f64,
}

impl Fairness {
    /// From requests and answers of each client; `None` if no client sent anything.
    pub(super) fn of(clients: &[(u32, u32)]) -> Option<Self> {
        let share = |(sent, answered): (u32, u32)| f64::from(answered) / f64::from(sent);
        let sending: Vec<(u32, u32)> = clients.iter().copied().filter(|(sent, _)| *sent > 0).collect();
        let order = |a: &&(u32, u32), b: &&(u32, u32)| share(**a).total_cmp(&share(**b));
        let (lowest, highest) = (*sending.iter().min_by(order)?, *sending.iter().max_by(order)?);
        Some(Self {
            clients: sending.len(),
            jain: jain(&sending.iter().map(|client| share(*client)).collect::<Vec<_>>()),
            lowest_answered: lowest.1,
            lowest: share(lowest),
            highest_answered: highest.1,
            highest: share(highest),
        })
    }
}

/// The square of the sum by the sum of squares, times their number; 1 where all are 0, which is even, too.
fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value));
    #[expect(clippy::cast_precision_loss, reason = "clients are few")]
    let count = values.len() as f64;
    if squares > 0.0 { sum * sum / (count * squares) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_falls_from_all_alike_to_one_alone() {
        assert!((jain(&[3.0; 10]) - 1.0).abs() < 1e-12);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-12);
        assert!((jain(&[0.0; 3]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn one_echo_more_in_the_last_turn_is_not_unfair() {
        let fairness = Fairness::of(&[(3, 3), (2, 2), (0, 0)]).unwrap();
        assert_eq!((fairness.clients, fairness.lowest, fairness.highest), (2, 1.0, 1.0));
        assert!((fairness.jain - 1.0).abs() < 1e-12);
    }

    #[test]
    fn lowest_and_highest_are_those_of_clients() {
        let fairness = Fairness::of(&[(10, 9), (10, 2), (10, 10)]).unwrap();
        assert_eq!((fairness.lowest_answered, fairness.lowest), (2, 0.2));
        assert_eq!((fairness.highest_answered, fairness.highest), (10, 1.0));
        assert!(fairness.jain < 0.9);
        assert_eq!(Fairness::of(&[(0, 0)]), None);
    }
}
