//! Text for people: names with values, tables, times.

use serde_json::Value;

/// Names and values, the values aligned.
pub(super) fn aligned(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = pairs.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    lines.join("\n")
}

/// A table with aligned columns and a line of headings.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for cells in std::iter::once(&headings.map(str::to_owned)).chain(rows) {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.pop();
    text
}

/// A time in seconds of Unix time, for people.
pub(super) fn time(seconds: &Value) -> String {
    let since = seconds.as_u64().map(std::time::Duration::from_secs);
    since.map_or_else(
        || "-".to_owned(),
        |since| humantime::format_rfc3339_seconds(std::time::SystemTime::UNIX_EPOCH + since).to_string(),
    )
}

/// A text inside an answer; empty when there is none.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let rows = [["alice".to_owned(), "2".to_owned()], ["bo".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "DEVICES"], &rows), "NAME   DEVICES\nalice  2\nbo");
        assert_eq!(aligned(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2");
    }
}
