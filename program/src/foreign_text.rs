//! Text that somebody outside wrote, made fit to be shown.
//!
//! What a gateway, a stranger or a link says may hold line ends, terminal escapes, or marks that turn the direction of
//! writing, and may be of any length. It is made harmless where it enters the program; from there on it may stand in
//! messages, logs, status and JSON like text of our own.

/// Most characters that are shown of one foreign text.
pub const LONGEST: usize = 256;

/// Stands for what was cut off.
const CUT: char = '…';

/// The text with everything escaped that is not plainly visible, as Rust writes characters (`\u{1b}`), cut to
/// [`LONGEST`] characters.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = text.chars().flat_map(escaped);
    let mut printable: String = shown.by_ref().take(LONGEST).collect();
    if shown.next().is_some() {
        printable.pop();
        printable.push(CUT);
    }
    printable
}

/// As [`printable`], for bytes that should be UTF-8.
#[must_use]
pub fn printable_bytes(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes))
}

fn escaped(character: char) -> impl Iterator<Item = char> {
    // These do no harm: quotes stand in many an honest sentence, and backslashes in what was escaped before.
    let is_harmless = matches!(character, '\'' | '"' | '\\');
    let plain = is_harmless.then_some(character);
    let escape = (!is_harmless).then(|| character.escape_debug());
    plain.into_iter().chain(escape.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_text_is_shown_as_it_is() {
        for text in ["", "this device was revoked", "Gerät „Büro“ isn't known", "日本語 ✓"] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_or_begins_a_line() {
        let evil = "\x1b]0;owned\x07\r\nerror: all is well\u{9b}1m\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\0\\";
        let shown = printable(evil);
        assert!(shown.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{shown:?}");
        assert!(shown.starts_with("\\u{1b}]0;owned\\u{7}\\r\\nerror: all is well\\u{9b}1m\\u{202e}"), "{shown}");
    }

    #[test]
    fn long_text_is_cut_also_where_escapes_make_it_long() {
        assert_eq!(printable(&"a".repeat(LONGEST)).chars().count(), LONGEST);
        for text in ["a".repeat(LONGEST + 1), "\x1b".repeat(1_000_000)] {
            let shown = printable(&text);
            assert_eq!(shown.chars().count(), LONGEST);
            assert!(shown.ends_with(CUT), "{shown}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        assert_eq!(printable_bytes(b"caf\xe9\n"), "caf\u{fffd}\\n");
    }
}
