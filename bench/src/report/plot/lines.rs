//! Lines over two axes, each with the name of its system at its end.

use std::fmt::Write as _;

use super::{Axis, FOOT, LINE, Markup, Px, WIDTH, classes, fitting, foot, image, label, stroke, width_of};

const FIELD: f64 = 230.0;
/// The most a name may take of the width.
const NAMES: f64 = 150.0;
/// Points closer than this to the one before are left out.
const FINE: f64 = 0.4;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// Who, written at its end; a faint line has no name.
    pub(crate) name: Option<String>,
    /// Number of the system, for colour and dash.
    pub(crate) series: usize,
    /// From left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Labels {
    /// Above the field, for lines that end at its upper edge.
    Above,
    /// Right of the field, for lines that end there.
    Right,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lines {
    /// What the plot is, for who cannot see it.
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) labels: Labels,
    /// The lines; later ones lie over earlier ones.
    pub(crate) lines: Vec<Line>,
}

struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// A name, and the end of the line it belongs to.
struct Tag<'a> {
    name: &'a str,
    series: usize,
    end: (f64, f64),
}

impl Lines {
    pub(crate) fn draw(&self, markup: &mut Markup) {
        let names = self.lines.iter().filter_map(|line| line.name.as_deref());
        let widest = names.map(width_of).fold(0.0, f64::max).min(NAMES);
        let numbers = self.y.ticks().iter().map(|(_, text)| width_of(text)).fold(0.0, f64::max);
        let (left, right) = (numbers + 12.0, WIDTH - widest - 16.0);
        // The name of the vertical axis stands above it.
        let mut frame = Frame { left, right, top: LINE + 8.0, bottom: LINE + 8.0 + FIELD };
        let rows = if self.labels == Labels::Above { rows_above(&self.tags(&frame)) } else { Vec::new() };
        let above = rows.iter().map(|row| (row + 1.0) * LINE + 4.0).fold(0.0, f64::max);
        (frame.top, frame.bottom) = (frame.top + above, frame.bottom + above);
        image(markup, &self.title, frame.bottom + FOOT, |markup| {
            label(markup, "tick", (2.0, 13.0), "start", self.y.title());
            foot(markup, &self.x, (frame.left, frame.right), (frame.top, frame.bottom));
            for (value, text) in self.y.ticks() {
                let y = self.y.place(*value, frame.bottom, frame.top);
                stroke(markup, "grid", (frame.left, y), (frame.right, y));
                label(markup, "tick", (frame.left - 7.0, y + 4.5), "end", text);
            }
            for line in &self.lines {
                let class = if line.name.is_some() { "line" } else { "line faint" };
                let path = path(&self.places(line, &frame));
                markup.empty("path", &[("class", &classes(class, line.series)), ("d", &path)]);
            }
            match self.labels {
                Labels::Above => label_above(markup, &self.tags(&frame), &rows, &frame),
                Labels::Right => label_right(markup, self.tags(&frame), &frame),
            }
        });
    }

    fn places(&self, line: &Line, frame: &Frame) -> Vec<(f64, f64)> {
        let x = |value| self.x.place(value, frame.left, frame.right);
        let y = |value| self.y.place(value, frame.bottom, frame.top);
        line.points.iter().map(|point| (x(point.0), y(point.1))).collect()
    }

    /// The names of all lines that have one and are anywhere.
    fn tags(&self, frame: &Frame) -> Vec<Tag<'_>> {
        let tags = self.lines.iter().filter_map(|line| {
            let Line { name, series, .. } = line;
            Some(Tag { name: name.as_deref()?, series: *series, end: *self.places(line, frame).last()? })
        });
        tags.collect()
    }
}

/// The row of each name above the field, 0 being the lowest. A name begins where its line ends and is drawn to the
/// right, so going from right to left it goes above whatever it would run into, and no name lies on another's leader.
fn rows_above(tags: &[Tag<'_>]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..tags.len()).collect();
    let end = |index: usize| tags.get(index).map_or(0.0, |tag| tag.end.0);
    order.sort_by(|a, b| end(*b).total_cmp(&end(*a)));
    let mut rows = vec![0.0; tags.len()];
    // The left edge of what each row holds already.
    let mut edges: Vec<f64> = Vec::new();
    for index in order {
        let Some(tag) = tags.get(index) else { continue };
        let reach = tag.end.0 + width_of(tag.name).min(NAMES) + 12.0;
        // Not below a row that is taken: its names' leaders would cross this one.
        let free = edges.iter().rposition(|edge| *edge < reach).map_or(0, |taken| taken + 1);
        edges.truncate(free);
        edges.push(tag.end.0);
        if let Some(row) = rows.get_mut(index) {
            #[expect(clippy::cast_precision_loss, reason = "systems are few")]
            let number = free as f64;
            *row = number;
        }
    }
    rows
}

fn label_above(markup: &mut Markup, tags: &[Tag<'_>], rows: &[f64], frame: &Frame) {
    for (tag, row) in tags.iter().zip(rows) {
        let (x, y) = tag.end;
        let baseline = frame.top - 8.0 - row * LINE;
        stroke(markup, &classes("leader", tag.series), (x, y), (x, baseline - 10.0));
        let name = fitting(tag.name, NAMES);
        label(markup, &classes("series", tag.series), (x + 5.0, baseline), "start", &name);
    }
}

fn label_right(markup: &mut Markup, mut tags: Vec<Tag<'_>>, frame: &Frame) {
    tags.sort_by(|a, b| a.end.1.total_cmp(&b.end.1));
    let wanted: Vec<f64> = tags.iter().map(|tag| tag.end.1).collect();
    for (tag, y) in tags.iter().zip(spaced(&wanted, LINE, frame.bottom)) {
        stroke(markup, &classes("leader", tag.series), tag.end, (frame.right + 10.0, y));
        let name = fitting(tag.name, NAMES);
        label(markup, &classes("series", tag.series), (frame.right + 13.0, y + 4.5), "start", &name);
    }
}

/// Places at least `gap` apart and not beyond `end`, as near as may be to the rising places that are wanted.
fn spaced(wanted: &[f64], gap: f64, end: f64) -> Vec<f64> {
    let mut places: Vec<f64> = Vec::with_capacity(wanted.len());
    for place in wanted {
        places.push(places.last().map_or(*place, |last| place.max(last + gap)));
    }
    let mut limit = end;
    for place in places.iter_mut().rev() {
        *place = place.min(limit);
        limit = *place - gap;
    }
    places
}

/// The path through all places, without those that nobody could tell from the one before.
fn path(places: &[(f64, f64)]) -> String {
    let mut path = String::new();
    let mut before: Option<(f64, f64)> = None;
    for (index, (x, y)) in places.iter().copied().enumerate() {
        let near = before.is_some_and(|(px, py)| (x - px).abs() < FINE && (y - py).abs() < FINE);
        if near && index + 1 < places.len() {
            continue;
        }
        let command = if before.is_none() { 'M' } else { 'L' };
        let _infallible = write!(path, "{command}{} {}", Px(x), Px(y));
        before = Some((x, y));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::super::super::markup::tests::assert_well_formed;
    use super::*;

    fn tag(name: &str, x: f64) -> Tag<'_> {
        Tag { name, series: 0, end: (x, 0.0) }
    }

    fn drawn(labels: Labels, lines: Vec<Line>) -> String {
        let (x, y) = (Axis::logarithmic([50.0, 5_000.0], "round-trip time [µs]"), Axis::tail("share of answers"));
        let mut markup = Markup::default();
        Lines { title: "rtt-idle".to_owned(), x, y, labels, lines }.draw(&mut markup);
        let svg = markup.finish();
        assert_well_formed(&svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        svg
    }

    #[test]
    fn line_has_its_name_at_its_end_and_faint_ones_have_none() {
        let line = |name: Option<&str>| Line {
            name: name.map(str::to_owned),
            series: 9,
            points: vec![(50.0, 1.0), (500.0, 0.1), (5_000.0, 0.001)],
        };
        for labels in [Labels::Above, Labels::Right] {
            let svg = drawn(labels, vec![line(None), line(Some("adit"))]);
            assert_eq!(svg.matches("<path").count(), 2);
            assert!(svg.contains(r#"class="line faint c1 d1""#) && svg.contains(r#"class="line c1 d1""#), "{svg}");
            assert_eq!(svg.matches(">adit<").count(), 1);
            assert!(svg.contains(">round-trip time [µs]<") && svg.contains(">share of answers<"), "{svg}");
        }
    }

    #[test]
    fn names_above_do_not_overlap() {
        let tags = [tag("adit", 100.0), tag("plain", 90.0), tag("wireguard-go", 120.0), tag("nebula", 300.0)];
        assert_eq!(rows_above(&tags), [1.0, 2.0, 0.0, 0.0]);
        assert_eq!(rows_above(&[tag("a", 10.0), tag("b", 200.0)]), [0.0, 0.0]);
    }

    #[test]
    fn names_at_the_right_keep_their_distance_and_stay_inside() {
        assert_eq!(spaced(&[10.0, 12.0, 100.0], 17.0, 200.0), [10.0, 27.0, 100.0]);
        assert_eq!(spaced(&[195.0, 196.0, 197.0], 17.0, 200.0), [166.0, 183.0, 200.0]);
        assert_eq!(spaced(&[], 17.0, 200.0), [0.0; 0]);
    }

    #[test]
    fn path_leaves_out_what_nobody_sees() {
        let dense: Vec<(f64, f64)> = (0..1_000).map(|n| (f64::from(n) / 100.0, 5.0)).collect();
        let path = path(&dense);
        assert!(path.starts_with("M0 5L") && path.ends_with("L10 5"), "{path}");
        assert!(path.matches('L').count() < 40, "{path}");
    }

    #[test]
    fn hostile_lines_make_a_valid_plot() {
        let points = vec![(f64::NAN, f64::INFINITY), (-1.0, 0.0), (1e300, -1e300)];
        let hostile = Line { name: Some("<b onload=\"x\">".repeat(40)), series: usize::MAX, points };
        let empty = Line { name: Some("nothing".to_owned()), series: 1, points: Vec::new() };
        for labels in [Labels::Above, Labels::Right] {
            let svg = drawn(labels, vec![hostile.clone(), empty.clone()]);
            assert!(!svg.contains("<b") && !svg.contains("nothing"), "{svg}");
        }
    }
}
