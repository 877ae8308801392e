//! A profile's lines, and the blocks between lines such as `<ca>` and `</ca>`.

use zeroize::Zeroizing;

use super::draft::{Draft, Line};
use crate::openvpn::words;

/// Reads all lines into `draft`.
pub(super) fn read(text: &str, draft: &mut Draft) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let Some(tag) = opening(line) else {
            read_line(number, line, draft);
            continue;
        };
        match tag {
            // Its lines are options.
            "connection" => draft.begin_connection(number),
            "/connection" => draft.end_connection(number),
            _ => {
                let closing = format!("</{tag}>");
                let mut block = Zeroizing::new(String::new());
                let is_closed = lines.by_ref().any(|(_, line)| {
                    let is_end = line.trim() == closing;
                    if !is_end {
                        block.push_str(line);
                        block.push('\n');
                    }
                    is_end
                });
                if is_closed {
                    draft.take(&Line { number, name: tag, values: &[], block: Some(&block) });
                } else {
                    draft.refuse(number, tag, "has no end: the line </…> is missing");
                }
            }
        }
    }
    draft.end_of_text();
}

/// The name in a line that begins a block.
fn opening(line: &str) -> Option<&str> {
    let tag = line.trim().strip_prefix('<')?.strip_suffix('>')?;
    let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '/');
    (!tag.is_empty() && tag.chars().all(is_name)).then_some(tag)
}

fn read_line(number: usize, line: &str, draft: &mut Draft) {
    let words = match words::split(line) {
        Ok(words) => words,
        Err(error) => return draft.refuse(number, "line", &error.to_string()),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let [name, values @ ..] = words.as_slice() {
        let name = name.strip_prefix("--").unwrap_or(name);
        draft.take(&Line { number, name, values, block: None });
    }
}
