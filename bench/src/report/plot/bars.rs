//! Horizontal bars, one row for each system.

use super::{Axis, FOOT, LINE, Markup, Px, WIDTH, classes, fitting, foot, image, label, stroke, width_of};

const ROW: f64 = 30.0;
const BAR: f64 = 16.0;
/// The most that names may take of the width, and what stands behind the bars.
const NAMES: f64 = 170.0;
const NOTES: f64 = 130.0;

/// One system's value of one round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// Whether something disturbed it; its dot is hollow then.
    pub(crate) disturbed: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bar {
    /// A bar up to the median, a line from the lowest to the highest value, and a dot for each.
    Spread { median: f64, samples: Vec<Sample> },
    /// Parts behind each other, each paler than the one before.
    Stack(Vec<f64>),
    /// Words in place of a bar.
    Absent,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Number of the system, for its colour.
    pub(crate) series: usize,
    /// What is drawn.
    pub(crate) bar: Bar,
    /// What is written: the value behind the bar, or why there is none.
    pub(crate) note: String,
    /// What a pointer that rests on the row is told.
    pub(crate) hint: String,
}

/// A plot of rows over one axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bars {
    /// What the plot is, for who cannot see it.
    pub(crate) title: String,
    /// Name and unit of the axis.
    pub(crate) axis: String,
    /// Names of the parts of stacked bars; none where bars have no parts.
    pub(crate) parts: Vec<String>,
    /// From top to bottom.
    pub(crate) rows: Vec<Row>,
}

impl Bars {
    pub(crate) fn draw(&self, markup: &mut Markup) {
        let names = self.rows.iter().map(|row| width_of(&row.name)).fold(0.0, f64::max).min(NAMES);
        let span @ (left, _) = (names + 10.0, WIDTH - NOTES);
        let top = if self.parts.is_empty() { 4.0 } else { LINE + 10.0 };
        let axis = Axis::linear(self.rows.iter().flat_map(|row| row.bar.values()), self.axis.as_str());
        #[expect(clippy::cast_precision_loss, reason = "systems are few")]
        let bottom = top + ROW * self.rows.len() as f64;
        image(markup, &self.title, bottom + FOOT, |markup| {
            self.legend(markup, left);
            foot(markup, &axis, span, (top, bottom));
            let mut middle = top + ROW / 2.0;
            for row in &self.rows {
                markup.element("g", &[], |markup| row.draw(markup, &axis, span, middle));
                middle += ROW;
            }
        });
    }

    /// Names the shades of stacked bars.
    fn legend(&self, markup: &mut Markup, left: f64) {
        let mut x = left;
        for (number, name) in self.parts.iter().enumerate() {
            let class = format!("ink p{number}");
            rectangle(markup, &class, (x, 4.0), (12.0, 12.0));
            label(markup, "tick", (x + 17.0, 14.0), "start", name);
            x += 17.0 + width_of(name) + 14.0;
        }
    }
}

impl Bar {
    /// What the axis must hold.
    fn values(&self) -> Vec<f64> {
        match self {
            Self::Spread { median, samples } => {
                samples.iter().map(|sample| sample.value).chain([*median]).filter(|value| value.is_finite()).collect()
            }
            Self::Stack(parts) => vec![parts.iter().sum()],
            Self::Absent => Vec::new(),
        }
    }
}

impl Row {
    fn draw(&self, markup: &mut Markup, axis: &Axis, (left, right): (f64, f64), middle: f64) {
        markup.words("title", &[], &self.hint);
        let baseline = middle + 4.5;
        label(markup, "name", (left - 8.0, baseline), "end", &fitting(&self.name, left - 8.0));
        let place = |value: f64| axis.place(value, left, right);
        let top = middle - BAR / 2.0;
        match &self.bar {
            Bar::Spread { median, samples } => {
                rectangle(markup, &classes("bar", self.series), (left, top), (place(*median) - left, BAR));
                spread(markup, samples, &place, middle);
            }
            Bar::Stack(parts) => {
                let mut sum = 0.0;
                for (number, part) in parts.iter().enumerate() {
                    let start = place(sum);
                    sum += part;
                    let class = format!("{} p{number}", classes("bar", self.series));
                    rectangle(markup, &class, (start, top), (place(sum) - start, BAR));
                }
            }
            Bar::Absent => {
                let note = fitting(&self.note, WIDTH - left - 6.0);
                return label(markup, "absent", (left + 6.0, baseline), "start", &note);
            }
        }
        label(markup, "value", (right + 10.0, baseline), "start", &fitting(&self.note, NOTES - 10.0));
    }
}

/// A line over all samples, and a dot for each.
fn spread(markup: &mut Markup, samples: &[Sample], place: &impl Fn(f64) -> f64, middle: f64) {
    let values = || samples.iter().map(|sample| place(sample.value));
    if samples.len() > 1 {
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        stroke(markup, "spread", (low, middle), (high, middle));
    }
    for sample in samples {
        let class = if sample.disturbed { "dot disturbed" } else { "dot" };
        let x = place(sample.value);
        markup.empty("circle", &[("class", &class), ("cx", &Px(x)), ("cy", &Px(middle)), ("r", &3)]);
    }
}

fn rectangle(markup: &mut Markup, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
    let (width, height) = (Px(width.max(0.0)), Px(height));
    let place: [(&str, &dyn std::fmt::Display); 5] =
        [("class", &class), ("x", &Px(x)), ("y", &Px(y)), ("width", &width), ("height", &height)];
    markup.empty("rect", &place);
}

#[cfg(test)]
mod tests {
    use super::super::super::markup::tests::assert_well_formed;
    use super::*;

    fn drawn(parts: &[&str], bars: Vec<(&str, Bar)>) -> String {
        let row = |(series, (name, bar)): (usize, (&str, Bar))| {
            let (note, hint) = (format!("note {series}"), format!("hint {series}"));
            Row { name: name.to_owned(), series, bar, note, hint }
        };
        let rows = bars.into_iter().enumerate().map(row).collect();
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        let mut markup = Markup::default();
        Bars { title: "tcp-up <rate>".to_owned(), axis: "rate [Gbit/s]".to_owned(), parts, rows }.draw(&mut markup);
        let svg = markup.finish();
        assert_well_formed(&svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        svg
    }

    fn spread_of(values: &[f64]) -> Bar {
        let samples = values.iter().map(|value| Sample { value: *value, disturbed: *value > 8.0 }).collect();
        Bar::Spread { median: values[values.len() / 2], samples }
    }

    #[test]
    fn every_sample_is_a_dot_and_disturbed_ones_are_hollow() {
        let svg = drawn(&[], vec![("plain", spread_of(&[6.0, 7.0, 9.0])), ("adit", spread_of(&[4.0]))]);
        assert_eq!((svg.matches(r#"class="dot""#).count(), svg.matches(r#"class="dot disturbed""#).count()), (3, 1));
        assert_eq!(svg.matches(r#"class="spread""#).count(), 1, "one value has no spread");
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains(r#"<rect class="bar c0 d0" x="48" y="11" width="267.4" height="16"/>"#), "{svg}");
        assert!(svg.contains(r#"aria-label="tcp-up &lt;rate&gt;""#) && svg.contains(">rate [Gbit/s]<"), "{svg}");
        assert!(svg.contains(">note 1<") && svg.contains("<title>hint 1</title>"), "{svg}");
    }

    #[test]
    fn parts_follow_each_other_and_are_named() {
        let svg = drawn(&["user", "system"], vec![("adit", Bar::Stack(vec![0.5, 0.5]))]);
        let bars = [
            r#"<rect class="bar c0 d0 p0" x="40.4" y="34" width="194.8" height="16"/>"#,
            r#"<rect class="bar c0 d0 p1" x="235.2" y="34" width="194.8" height="16"/>"#,
        ];
        assert!(bars.iter().all(|bar| svg.contains(bar)) && svg.contains(">system<"), "{svg}");
    }

    #[test]
    fn absent_system_is_named_with_its_reason() {
        let svg = drawn(&[], vec![("quincy", Bar::Absent)]);
        assert!(svg.contains(r#"class="absent""#) && svg.contains(">quincy<") && svg.contains(">note 0<"), "{svg}");
    }

    #[test]
    fn hostile_names_and_values_make_a_valid_plot() {
        let name = "</text><script>alert(1)</script>\"'&";
        let strange = [f64::NAN, f64::INFINITY, -5.0, 1e300];
        let svg = drawn(&[], vec![(name, spread_of(&strange)), (&"w".repeat(500), Bar::Stack(strange.to_vec()))]);
        assert!(!svg.contains("<script") && svg.contains("&lt;/text&gt;"), "{svg}");
    }
}
