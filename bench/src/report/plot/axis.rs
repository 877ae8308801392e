//! Axes: from values to places, and the numbers beside them.

/// Values of this size and above are drawn as if they were it: no figure is, and places stay finite.
const LARGEST: f64 = 1e15;
/// What a logarithmic axis takes for zero and less.
const SMALLEST: f64 = 1e-9;
/// Decades up to which a logarithmic axis has numbers between its powers of ten.
const FEW_DECADES: f64 = 2.4;

/// One axis of a plot, with its name and unit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
    title: String,
}

impl Axis {
    /// From 0 to a round number at or above the highest of `values`.
    pub(crate) fn linear(values: impl IntoIterator<Item = f64>, title: impl Into<String>) -> Self {
        const INTERVALS: f64 = 5.0;
        let highest = values.into_iter().map(sane).fold(0.0, f64::max);
        let highest = if highest >= SMALLEST { highest } else { 1.0 };
        let step = round_up(highest / INTERVALS);
        let count = (highest / step - 1e-9).ceil();
        let mut ticks = Vec::new();
        let mut index = 0.0;
        while index <= count {
            ticks.push((index * step, compact(index * step, step)));
            index += 1.0;
        }
        Self { from: 0.0, to: count * step, logarithmic: false, ticks, title: title.into() }
    }

    /// Logarithmic, from a round number at or below the lowest of `values` to one at or above the highest.
    pub(crate) fn logarithmic(values: impl IntoIterator<Item = f64>, title: impl Into<String>) -> Self {
        let (mut lowest, mut highest) = (LARGEST, SMALLEST);
        for value in values.into_iter().map(sane).filter(|value| *value >= SMALLEST) {
            (lowest, highest) = (lowest.min(value), highest.max(value));
        }
        if lowest > highest {
            (lowest, highest) = (1.0, 10.0);
        }
        let from = round_down(lowest);
        let to = round_up(highest).max(from * 10.0);
        let few = (to / from).log10() <= FEW_DECADES;
        let mut ticks = Vec::new();
        let mut value = from;
        while value <= to * 1.001 {
            if few || value.log10().fract().abs() < 1e-6 {
                ticks.push((value, compact(value, value)));
            }
            value = round_up(value * 1.01);
        }
        Self { from, to, logarithmic: true, ticks, title: title.into() }
    }

    /// For shares that are missing to 1, so that the last thousandth is as wide as the first nine tenths.
    pub(crate) fn tail(title: impl Into<String>) -> Self {
        let ticks = [(1.0, "0 %"), (0.5, "50 %"), (0.1, "90 %"), (0.01, "99 %"), (0.001, "99.9 %")];
        let ticks = ticks.map(|(missing, text)| (missing, text.to_owned())).to_vec();
        Self { from: 1.0, to: 0.001, logarithmic: true, ticks, title: title.into() }
    }

    /// Where `value` lies between `start` and `end`; what is beyond the axis lies at its end.
    pub(crate) fn place(&self, value: f64, start: f64, end: f64) -> f64 {
        let share = if self.logarithmic {
            (sane(value).max(SMALLEST) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (sane(value) - self.from) / (self.to - self.from)
        };
        start + (end - start) * share.clamp(0.0, 1.0)
    }

    /// The numbers beside it, by value.
    pub(crate) fn ticks(&self) -> &[(f64, String)] {
        &self.ticks
    }

    pub(crate) fn title(&self) -> &str {
        &self.title
    }
}

/// A value that can be drawn.
fn sane(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(-LARGEST, LARGEST) }
}

/// The next of …, 1, 2, 5, 10, 20, … at or above a positive value.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let next = [1.0, 2.0, 5.0, 10.0].into_iter().find(|mantissa| mantissa * power >= value * (1.0 - 1e-9));
    next.unwrap_or(10.0) * power
}

/// The last of …, 1, 2, 5, 10, 20, … at or below a positive value.
fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf((value.log10() + 1e-9).floor());
    let last = [5.0, 2.0, 1.0].into_iter().find(|mantissa| mantissa * power <= value * (1.0 + 1e-9));
    last.unwrap_or(1.0) * power
}

/// A number for an axis whose numbers are `step` apart.
fn compact(value: f64, step: f64) -> String {
    let (value, step, suffix) = match value {
        value if value >= 1e9 => (value / 1e9, step / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, step / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, step / 1e3, "k"),
        value => (value, step, ""),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 9")]
    let decimals = if value == 0.0 { 0 } else { (-step.log10() - 1e-9).ceil().clamp(0.0, 9.0) as usize };
    format!("{value:.decimals$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks().iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn linear_axis_begins_at_zero_and_ends_at_a_round_number() {
        assert_eq!(texts(&Axis::linear([3.0, 9.3], "")), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(texts(&Axis::linear([0.43], "")), ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
        assert_eq!(texts(&Axis::linear([1_230_000.0], "")), ["0", "500k", "1.0M", "1.5M"]);
        assert_eq!(texts(&Axis::linear([10.0], "")).last(), Some(&"10"));
        let axis = Axis::linear([8.0], "rate [Gbit/s]");
        assert_eq!((axis.place(4.0, 100.0, 300.0), axis.place(99.0, 100.0, 300.0)), (200.0, 300.0));
        assert_eq!(axis.title(), "rate [Gbit/s]");
    }

    #[test]
    fn logarithmic_axis_has_numbers_between_few_powers_of_ten_only() {
        assert_eq!(texts(&Axis::logarithmic([60.0, 900.0], "")), ["50", "100", "200", "500", "1000"]);
        assert_eq!(texts(&Axis::logarithmic([60.0, 90_000.0], "")), ["100", "1000", "10k", "100k"]);
        let axis = Axis::logarithmic([10.0, 1_000.0], "");
        assert!((axis.place(100.0, 0.0, 50.0) - 25.0).abs() < 1e-9);
        assert_eq!(texts(&Axis::logarithmic([100.0], "")), ["100", "200", "500", "1000"]);
    }

    #[test]
    fn tail_widens_towards_its_end() {
        let axis = Axis::tail("share");
        let places = [1.0, 0.1, 0.01, 0.001, 0.0].map(|missing| axis.place(missing, 300.0, 0.0).round());
        assert_eq!(places, [300.0, 200.0, 100.0, 0.0, 0.0]);
    }

    #[test]
    fn strange_values_make_a_valid_axis() {
        for values in [vec![], vec![0.0], vec![f64::NAN, -3.0], vec![f64::INFINITY], vec![1e300, 1e-300], vec![5e-324]]
        {
            for axis in [Axis::linear(values.clone(), ""), Axis::logarithmic(values.clone(), "")] {
                assert!((1..=30).contains(&axis.ticks().len()), "{values:?}: {axis:?}");
                for value in values.iter().chain(&[f64::NEG_INFINITY, 0.0, 1.0]) {
                    let place = axis.place(*value, 10.0, 20.0);
                    assert!((10.0..=20.0).contains(&place), "{values:?}: {value} at {place}");
                }
            }
        }
    }
}
