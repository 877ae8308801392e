//! Plots as SVG that stands in a page: its colours are classes (`c0` to `c7`) of the page's style sheet.
//!
//! Nothing here reads a report; values come in as they are drawn, and whatever they are, the plot is a valid one.

mod axis;
mod bars;
mod lines;

use std::fmt::{self, Display};

use super::markup::{Attributes, Markup};

pub(crate) use axis::Axis;
pub(crate) use bars::{Bar, Bars, Row, Sample};
pub(crate) use lines::{Labels, Line, Lines};

/// Number of colours; system 8 has that of system 0, and another dash.
pub(crate) const COLOURS: usize = 8;

/// Width of a plot in its own units; the page scales it.
const WIDTH: f64 = 560.0;
/// Height of a line of text.
const LINE: f64 = 17.0;
/// Room below a plot for the numbers and the name of its axis.
const FOOT: f64 = 42.0;

/// A length or place, to a tenth of a unit.
struct Px(f64);

impl Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10.0).round() / 10.0;
        if tenths.fract() == 0.0 { write!(f, "{tenths:.0}") } else { write!(f, "{tenths:.1}") }
    }
}

/// About how wide a text is: the fonts are the reader's.
fn width_of(text: &str) -> f64 {
    text.chars().map(|character| if character < '\u{2e80}' { 7.6 } else { 13.0 }).sum()
}

/// As much of a text as fits, with an ellipsis where that is not all.
fn fitting(text: &str, width: f64) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for character in text.chars() {
        if width_of(&short) + 2.0 * width_of("…") > width {
            break;
        }
        short.push(character);
    }
    short.push('…');
    short
}

/// The classes of what belongs to one system: its colour, and its dash for lines.
fn classes(kind: &str, series: usize) -> String {
    format!("{kind} c{} d{}", series % COLOURS, series / COLOURS)
}

/// The frame of a plot: an image with a name.
fn image(markup: &mut Markup, title: &str, height: f64, inside: impl FnOnce(&mut Markup)) {
    let view = format!("0 0 {} {}", Px(WIDTH), Px(height));
    markup.element("svg", &[("viewBox", &view), ("role", &"img"), ("aria-label", &title)], inside);
    markup.line();
}

/// A text at a place; `anchor` says which end of it.
fn label(markup: &mut Markup, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
    markup.words("text", &[("class", &class), ("x", &Px(x)), ("y", &Px(y)), ("text-anchor", &anchor)], text);
}

fn stroke(markup: &mut Markup, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let ends: Attributes<'_> = &[("class", &class), ("x1", &Px(x1)), ("y1", &Px(y1)), ("x2", &Px(x2)), ("y2", &Px(y2))];
    markup.empty("line", ends);
}

/// What a horizontal axis has below: grid lines, numbers, and its name with the unit.
fn foot(markup: &mut Markup, axis: &Axis, (left, right): (f64, f64), (top, bottom): (f64, f64)) {
    for (value, text) in axis.ticks() {
        let x = axis.place(*value, left, right);
        stroke(markup, "grid", (x, top), (x, bottom));
        label(markup, "tick", (x, bottom + 16.0), "middle", text);
    }
    stroke(markup, "axis", (left, bottom), (right, bottom));
    label(markup, "tick", (f64::midpoint(left, right), bottom + 34.0), "middle", axis.title());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_shortened_to_what_fits() {
        assert_eq!(fitting("wireguard-go", 100.0), "wireguard-go");
        let short = fitting(&"x".repeat(300), 100.0);
        assert!(short.ends_with("x…") && width_of(&short) <= 100.0, "{short}");
        assert_eq!(fitting("漢字漢字漢字", 45.0).chars().count(), 4);
        assert_eq!(fitting("abc", 0.0), "…");
    }

    #[test]
    fn places_have_a_tenth_of_a_unit() {
        assert_eq!([12.0, 12.34, -0.04, 560.95].map(|place| Px(place).to_string()), ["12", "12.3", "-0", "561"]);
    }

    #[test]
    fn ninth_system_has_the_first_colour_and_another_dash() {
        assert_eq!((classes("line", 0), classes("line", 9)), ("line c0 d0".to_owned(), "line c1 d1".to_owned()));
    }
}
