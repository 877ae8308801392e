//! How options are written, in profiles and in what servers push: words with white space between them.
//!
//! A word may stand in quotes: then it begins and ends with them. Within double quotes and without any, a backslash
//! makes a double quote, a backslash or white space a part of the word; within single quotes nothing is special. `#`
//! and `;` begin a comment, but only as the first character of a word.

/// Most words of one option, its name included. openvpn takes 16.
pub const MAX_WORDS: usize = 32;

/// A line cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A quote is not closed.
    #[error("a quote is not closed")]
    Quote,
    /// A backslash stands before something that needs none.
    #[error("a backslash stands before a character that needs none; write it twice")]
    Backslash,
    /// There are more words than [`MAX_WORDS`].
    #[error("more words than any option has")]
    TooMany,
}

/// Where in a line one is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    Word,
    Quoted(char),
}

/// The words of a line.
///
/// # Errors
/// Why it cannot be read.
pub fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut place = Place::Between;
    let mut rest = line.chars();
    while let Some(char) = rest.next() {
        match (place, char) {
            (Place::Between, '#' | ';') => break,
            (Place::Between, char) if char.is_whitespace() => {}
            (Place::Word, char) if char.is_whitespace() => {
                words.push(std::mem::take(&mut word));
                place = Place::Between;
            }
            (Place::Between, quote @ ('"' | '\'')) => place = Place::Quoted(quote),
            (Place::Quoted(quote), char) if quote == char => {
                words.push(std::mem::take(&mut word));
                place = Place::Between;
            }
            (Place::Between | Place::Word | Place::Quoted('"'), '\\') => {
                let escaped = rest.next().filter(|char| matches!(char, '\\' | '"') || char.is_whitespace());
                word.push(escaped.ok_or(WordsError::Backslash)?);
                place = if place == Place::Between { Place::Word } else { place };
            }
            (Place::Between, char) => {
                word.push(char);
                place = Place::Word;
            }
            (Place::Word | Place::Quoted(_), char) => word.push(char),
        }
        if words.len() > MAX_WORDS {
            return Err(WordsError::TooMany);
        }
    }
    match place {
        Place::Quoted(_) => return Err(WordsError::Quote),
        Place::Word => words.push(word),
        Place::Between => {}
    }
    if words.len() > MAX_WORDS { Err(WordsError::TooMany) } else { Ok(words) }
}

/// A word so that it is read again as it is. One with a line break in it cannot be written.
pub fn quote(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_graphic() && !matches!(char, '"' | '\'' | '\\' | '#' | ';');
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_told_apart_as_openvpn_does() {
        let cases: [(&str, &[&str]); 10] = [
            ("remote vpn.example 1194 udp", &["remote", "vpn.example", "1194", "udp"]),
            ("  a\tb  ", &["a", "b"]),
            ("# all of it", &[]),
            ("a # the rest", &["a"]),
            ("a b#c;d", &["a", "b#c;d"]),
            ("verify-x509-name 'C=DE, O=\"Ada\"' subject", &["verify-x509-name", "C=DE, O=\"Ada\"", "subject"]),
            (r#"a "b \"c\" \\d" e\ f"#, &["a", r#"b "c" \d"#, "e f"]),
            (r"a 'b\c'", &["a", r"b\c"]),
            (r#"a "" '' c"#, &["a", "", "", "c"]),
            ("pre'quoted' 'a'b", &["pre'quoted'", "a", "b"]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn lines_that_cannot_be_read_say_why() {
        assert_eq!(split("a \"b"), Err(WordsError::Quote));
        assert_eq!(split("a 'b"), Err(WordsError::Quote));
        assert_eq!(split(r"ca C:\keys"), Err(WordsError::Backslash));
        assert_eq!(split(r"a b\"), Err(WordsError::Backslash));
        assert_eq!(split(&"a ".repeat(MAX_WORDS + 1)), Err(WordsError::TooMany));
        assert!(split(&"a ".repeat(MAX_WORDS)).is_ok());
    }

    proptest! {
        #[test]
        fn words_survive_being_quoted(words in proptest::collection::vec("[^\r\n\0]{0,12}", 0..8)) {
            let line: Vec<String> = words.iter().map(|word| quote(word)).collect();
            prop_assert_eq!(split(&line.join(" ")), Ok(words));
        }

        #[test]
        fn no_line_is_too_strange(line in ".{0,200}") {
            prop_assert!(split(&line).is_ok_and(|words| words.len() <= MAX_WORDS) || !line.is_empty());
        }
    }
}
