//! What makes a field section well-formed (RFC 9114 sections 4.2 and 4.3).

use super::super::field::{Field, value};
use super::error::Error;

/// Bytes each field counts for besides its name and value (RFC 9114 section 4.2.2).
pub(crate) const FIELD_OVERHEAD: usize = 32;

/// Fields that belong to one HTTP/1.1 connection and have no place in HTTP/3 (RFC 9114 section 4.2).
const CONNECTION_SPECIFIC: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// What a field section is for, which says the pseudo-header fields it may have (RFC 9114 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The header section of a request.
    Request,
    /// The header section of a response.
    Response,
    /// Fields after the content.
    Trailers,
}

impl Section {
    const fn pseudo_fields(self) -> &'static [&'static str] {
        match self {
            Self::Request => &[":method", ":scheme", ":authority", ":path", ":protocol"],
            Self::Response => &[":status"],
            Self::Trailers => &[],
        }
    }

    /// Checks a section against the rules that hold for every message.
    ///
    /// # Errors
    /// H3_MESSAGE_ERROR on the stream for names that are empty, in upper case or hold other forbidden characters,
    /// values with forbidden characters, connection-specific fields (RFC 9114 section 4.2), and pseudo-header fields
    /// that are unknown, repeated, misplaced or missing (section 4.3).
    pub fn check(self, fields: &[Field]) -> Result<(), Error> {
        let pseudo_count = fields.iter().take_while(|field| field.name.starts_with(':')).count();
        let (pseudo, regular) = fields.split_at(pseudo_count);
        self.check_pseudo(pseudo)?;
        fields.iter().try_for_each(check_value)?;
        regular.iter().try_for_each(check_regular)
    }

    fn check_pseudo(self, pseudo: &[Field]) -> Result<(), Error> {
        for (index, field) in pseudo.iter().enumerate() {
            if !self.pseudo_fields().contains(&field.name.as_str()) {
                return Err(Error::malformed("pseudo-header field that does not belong here"));
            }
            if pseudo.iter().take(index).any(|earlier| earlier.name == field.name) {
                return Err(Error::malformed("pseudo-header field given twice"));
            }
        }
        let required = match self {
            Self::Request => ":method",
            Self::Response => ":status",
            Self::Trailers => return Ok(()),
        };
        match value(pseudo, required) {
            Some(_) => Ok(()),
            None => Err(Error::malformed("request without :method or response without :status")),
        }
    }
}

/// Refuses NUL, CR and LF, and white space at the ends (RFC 9110 section 5.5).
fn check_value(field: &Field) -> Result<(), Error> {
    if field.value.contains(['\0', '\r', '\n']) {
        return Err(Error::malformed("forbidden character in a field value"));
    }
    if field.value.starts_with([' ', '\t']) || field.value.ends_with([' ', '\t']) {
        return Err(Error::malformed("white space around a field value"));
    }
    Ok(())
}

fn check_regular(field: &Field) -> Result<(), Error> {
    if field.name.starts_with(':') {
        return Err(Error::malformed("pseudo-header field after a regular field"));
    }
    if field.name.is_empty() || !field.name.bytes().all(is_name_byte) {
        return Err(Error::malformed("forbidden character in a field name"));
    }
    if CONNECTION_SPECIFIC.contains(&field.name.as_str()) {
        return Err(Error::malformed("connection-specific field"));
    }
    if field.name == "te" && field.value != "trailers" {
        return Err(Error::malformed("te field other than trailers"));
    }
    Ok(())
}

/// A `token` character (RFC 9110 section 5.6.2) that is not an upper-case letter (RFC 9114 section 4.2).
const fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::super::error::Code;
    use super::*;

    fn section(pairs: &[(&str, &str)]) -> Vec<Field> {
        pairs.iter().map(|(name, value)| Field::new(*name, *value)).collect()
    }

    fn reason(section_kind: Section, pairs: &[(&str, &str)]) -> &'static str {
        let error = section_kind.check(&section(pairs)).unwrap_err();
        assert_eq!(error, Error::stream(Code::MESSAGE_ERROR, error.reason()));
        error.reason()
    }

    #[test]
    fn well_formed_sections_pass() {
        let request =
            [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"), ("te", "trailers")];
        assert_eq!(Section::Request.check(&section(&request)), Ok(()));
        assert_eq!(Section::Response.check(&section(&[(":status", "200"), ("x-1", "a b")])), Ok(()));
        assert_eq!(Section::Trailers.check(&section(&[("checksum", "1")])), Ok(()));
    }

    #[test]
    fn field_names_must_be_lower_case_tokens() {
        for name in ["X-Upper", "", "a b", "a:b", "é", "a\n"] {
            assert_eq!(reason(Section::Trailers, &[(name, "1")]), "forbidden character in a field name");
        }
    }

    #[test]
    fn field_values_must_not_hold_control_characters_or_edge_space() {
        for value in ["a\0", "a\rb", "\n"] {
            assert_eq!(reason(Section::Trailers, &[("a", value)]), "forbidden character in a field value");
        }
        for value in [" a", "a\t"] {
            assert_eq!(reason(Section::Trailers, &[("a", value)]), "white space around a field value");
        }
        assert_eq!(reason(Section::Request, &[(":method", "GET\n")]), "forbidden character in a field value");
    }

    #[test]
    fn connection_specific_fields_are_malformed() {
        for name in CONNECTION_SPECIFIC {
            assert_eq!(reason(Section::Response, &[(":status", "200"), (name, "x")]), "connection-specific field");
        }
        assert_eq!(reason(Section::Request, &[(":method", "GET"), ("te", "gzip")]), "te field other than trailers");
    }

    #[test]
    fn pseudo_header_fields_must_be_known_single_first_and_present() {
        let unknown = "pseudo-header field that does not belong here";
        assert_eq!(reason(Section::Request, &[(":method", "GET"), (":status", "200")]), unknown);
        assert_eq!(reason(Section::Response, &[(":status", "200"), (":path", "/")]), unknown);
        assert_eq!(reason(Section::Trailers, &[(":status", "200")]), unknown);
        assert_eq!(reason(Section::Request, &[(":method", "GET"), (":unknown", "1")]), unknown);
        let twice = [(":method", "GET"), (":method", "GET")];
        assert_eq!(reason(Section::Request, &twice), "pseudo-header field given twice");
        let late = [(":method", "GET"), ("a", "1"), (":path", "/")];
        assert_eq!(reason(Section::Request, &late), "pseudo-header field after a regular field");
        let missing = "request without :method or response without :status";
        assert_eq!(reason(Section::Request, &[(":path", "/")]), missing);
        assert_eq!(reason(Section::Response, &[("a", "1")]), missing);
    }
}
