//! HTML and SVG whose tags are balanced and whose texts are escaped, whatever they hold.

use std::fmt::{self, Display, Write as _};

/// Attributes of an element: names, and values that are escaped when written.
pub(crate) type Attributes<'a> = &'a [(&'a str, &'a dyn Display)];

/// A growing document, well-formed as XML at any time.
#[derive(Debug, Default)]
pub(crate) struct Markup {
    written: String,
}

impl Markup {
    /// Adds an element with what `inside` writes.
    pub(crate) fn element(&mut self, name: &str, attributes: Attributes<'_>, inside: impl FnOnce(&mut Self)) {
        self.begin(name, attributes);
        self.written.push('>');
        inside(self);
        let _infallible = write!(self.written, "</{name}>");
    }

    /// Adds an element that holds text alone.
    pub(crate) fn words(&mut self, name: &str, attributes: Attributes<'_>, text: impl Display) {
        self.element(name, attributes, |markup| markup.text(text));
    }

    /// Adds an element that holds nothing.
    pub(crate) fn empty(&mut self, name: &str, attributes: Attributes<'_>) {
        self.begin(name, attributes);
        self.written.push_str("/>");
    }

    pub(crate) fn text(&mut self, text: impl Display) {
        let _infallible = write!(Escape(&mut self.written), "{text}");
    }

    /// Starts a new line, for whoever reads the source.
    pub(crate) fn line(&mut self) {
        self.written.push('\n');
    }

    /// Adds a style sheet, which must hold neither `<` nor `&`.
    pub(crate) fn style(&mut self, sheet: &str) {
        debug_assert!(!sheet.contains(['<', '&']), "a style sheet cannot be escaped");
        self.element("style", &[], |markup| markup.written.push_str(sheet));
    }

    pub(crate) fn finish(self) -> String {
        self.written
    }

    fn begin(&mut self, name: &str, attributes: Attributes<'_>) {
        let _infallible = write!(self.written, "<{name}");
        for (name, value) in attributes {
            let _infallible = write!(self.written, " {name}=\"");
            let _infallible = write!(Escape(&mut self.written), "{value}");
            self.written.push('"');
        }
    }
}

/// Replaces what has a meaning in markup, and what XML 1.0 (section 2.2) permits nowhere.
struct Escape<'a>(&'a mut String);

impl fmt::Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(character),
                '\u{fffe}' | '\u{ffff}' => self.0.push(char::REPLACEMENT_CHARACTER),
                // Nor may a name turn the direction of what follows it.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => self.0.push(char::REPLACEMENT_CHARACTER),
                control if control.is_control() => self.0.push(char::REPLACEMENT_CHARACTER),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Fails unless every tag of `document` is closed in order and nothing else is a tag.
    pub(crate) fn assert_well_formed(document: &str) {
        let body = document.strip_prefix("<!DOCTYPE html>").unwrap_or(document);
        let (mut open, mut rest) = (Vec::new(), body);
        while let Some(at) = rest.find('<') {
            let tag = rest[at + 1..].split('>').next().unwrap();
            assert!(!tag.contains('<'), "a bare < before {tag:?}");
            let name: String = tag.trim_start_matches('/').chars().take_while(|c| c.is_alphanumeric()).collect();
            assert!(!name.is_empty(), "a bare < in {tag:?}");
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes of {tag:?}");
            match tag {
                closing if closing.starts_with('/') => assert_eq!(open.pop(), Some(name), "{tag:?}"),
                empty if empty.ends_with('/') => {}
                _ => open.push(name),
            }
            rest = &rest[at + 1 + tag.len()..];
        }
        assert_eq!(open, [""; 0]);
        for entity in body.split('&').skip(1) {
            let name = entity.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&name), "&{name}");
        }
    }

    #[test]
    fn texts_and_attributes_are_escaped() {
        let mut markup = Markup::default();
        markup.element("p", &[("title", &"\"><script>"), ("data-n", &1.5)], |markup| {
            markup.text("a < b & 'c'\u{0}\u{202e}");
            markup.empty("br", &[]);
        });
        let document = markup.finish();
        let expected =
            "<p title=\"&quot;&gt;&lt;script&gt;\" data-n=\"1.5\">a &lt; b &amp; &#39;c&#39;\u{fffd}\u{fffd}<br/></p>";
        assert_eq!(document, expected);
        assert_well_formed(&document);
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn unbalanced_document_is_noticed() {
        assert_well_formed("<p><b></p></b>");
    }
}
