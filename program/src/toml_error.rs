//! Where a TOML text is wrong, without showing the text: it may hold a secret.

/// A fault of a TOML text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TomlFault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it, in one line.
    pub reason: String,
}

impl TomlFault {
    /// The fault that a parser found in `text`.
    #[must_use]
    pub fn of(error: &toml::de::Error, text: &str) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count().saturating_add(1);
        Self { line, reason: error.message().replace('\n', " ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_told_and_its_text_is_not() {
        let text = "a = 1\ntoken = hunter2\n";
        let error = toml::from_str::<toml::Table>(text).unwrap_err();
        let fault = TomlFault::of(&error, text);
        assert_eq!(fault.line, 2);
        assert!(!fault.reason.contains("hunter2") && !fault.reason.contains('\n'), "{fault:?}");
    }
}
