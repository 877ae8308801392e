//! Loss in bursts: the model of Gilbert (1960), in which Elliott's bad state loses every frame and the good state none.

use super::random::Random;

/// Which frames are lost.
#[derive(Debug, Clone)]
pub(super) struct Bursts {
    random: Random,
    lossy: bool,
    begin: f64,
    end: f64,
}

impl Bursts {
    /// Loses `share` of all frames (0 to 1, 1 excluded) in bursts of `mean` frames; without `mean` each by itself.
    pub(super) fn new(mut random: Random, share: f64, mean: Option<f64>) -> Self {
        // Lost frames that know nothing of each other also come in runs, of this mean length.
        let end = mean.map_or(1.0 - share, |mean| 1.0 / mean);
        let begin = share * end / (1.0 - share);
        let lossy = random.chance(share);
        Self { random, lossy, begin, end }
    }

    /// The shortest mean burst that reaches `share`: shorter ones would need a loss in each pause between two.
    pub(super) fn shortest(share: f64) -> f64 {
        (share / (1.0 - share)).max(1.0)
    }

    /// Whether the next frame is lost.
    pub(super) fn next(&mut self) -> bool {
        let lost = self.lossy;
        let turn = if lost { self.end } else { self.begin };
        self.lossy ^= self.random.chance(turn);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: u32 = 1_000_000;

    /// Share of lost frames and mean length of a burst.
    fn observe(share: f64, mean: Option<f64>) -> (f64, f64) {
        let mut bursts = Bursts::new(Random::new(3, "loss"), share, mean);
        let (mut lost, mut begun, mut last) = (0_u32, 0_u32, false);
        for _ in 0..FRAMES {
            let now = bursts.next();
            lost += u32::from(now);
            begun += u32::from(now && !last);
            last = now;
        }
        (f64::from(lost) / f64::from(FRAMES), f64::from(lost) / f64::from(begun.max(1)))
    }

    fn close(value: f64, wanted: f64) -> bool {
        (value / wanted - 1.0).abs() < 0.05
    }

    #[test]
    fn loss_and_bursts_are_as_wanted() {
        for (share, mean) in [(0.03, 5.0), (0.2, 2.0), (0.5, 1.0), (0.01, 20.0)] {
            let (lost, length) = observe(share, Some(mean));
            assert!(close(lost, share) && close(length, mean), "{share} {mean}: {lost} {length}");
        }
    }

    #[test]
    fn independent_losses_have_the_runs_of_chance() {
        let (lost, length) = observe(0.2, None);
        assert!(close(lost, 0.2) && close(length, 1.25), "{lost} {length}");
        assert!(observe(0.0, None).0.abs() < f64::EPSILON);
    }
}
