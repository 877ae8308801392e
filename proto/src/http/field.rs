//! Header and trailer fields of a message (RFC 9110 section 5).
//!
//! A request's method and target and a response's status are fields, too: HTTP/3's pseudo-header fields (RFC 9114
//! section 4.3), whose names begin with a colon.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::fmt;

use super::fault::Fault;
use crate::login::message::LOGIN_FIELD;

/// One header or trailer field. Names are lower case; those that begin with a colon are pseudo-header fields.
///
/// `Debug` does not show the value of `authorization` and of other secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    /// The name, such as `:status` or `content-type`.
    pub name: String,
    /// The value, without surrounding white space.
    pub value: String,
}

impl Field {
    /// Makes a field.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// Says whether the value is a secret.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(self.name.as_str(), "authorization" | "proxy-authorization" | "cookie" | LOGIN_FIELD)
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.is_secret() { "…" } else { &self.value };
        write!(f, "{}: {value}", self.name)
    }
}

/// The value of the first field of this name.
pub fn value<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
    fields.iter().find(|field| field.name == name).map(|field| field.value.as_str())
}

/// The length that `content-length` declares (RFC 9110 section 8.6); `None` without such a field.
///
/// # Errors
/// [`Fault::Malformed`] for a value that is not a decimal number, or for two fields that differ.
pub fn content_length(fields: &[Field]) -> Result<Option<u64>, Fault> {
    let mut declared = None;
    for field in fields.iter().filter(|field| field.name == "content-length") {
        let number = decimal(&field.value).ok_or(Fault::Malformed("content-length is not a number"))?;
        if declared.is_some_and(|earlier| earlier != number) {
            return Err(Fault::Malformed("two different content-length fields"));
        }
        declared = Some(number);
    }
    Ok(declared)
}

fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The status code of a response: three digits (RFC 9110 section 15), 100 to 599.
///
/// # Errors
/// [`Fault::Malformed`] if it is missing or is not such a number (RFC 9114 section 4.3.2).
pub fn status(fields: &[Field]) -> Result<u16, Fault> {
    let text = value(fields, ":status").ok_or(Fault::Malformed("response without :status"))?;
    let status = if text.len() == 3 { decimal(text) } else { None };
    match status.and_then(|status| u16::try_from(status).ok()) {
        Some(status @ 100..=599) => Ok(status),
        Some(_) | None => Err(Fault::Malformed(":status is not a status code")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(pairs: &[(&str, &str)]) -> Vec<Field> {
        pairs.iter().map(|(name, value)| Field::new(*name, *value)).collect()
    }

    fn is_malformed<T>(outcome: Result<T, Fault>) -> bool {
        matches!(outcome, Err(Fault::Malformed(_)))
    }

    #[test]
    fn content_length_must_be_one_number() {
        assert_eq!(content_length(&section(&[("content-length", "12"), ("content-length", "12")])), Ok(Some(12)));
        assert_eq!(content_length(&[]), Ok(None));
        for bad in ["", "-1", "+1", "0x10", "1,1", "99999999999999999999"] {
            assert!(is_malformed(content_length(&section(&[("content-length", bad)]))));
        }
        let differing = section(&[("content-length", "1"), ("content-length", "2")]);
        assert!(is_malformed(content_length(&differing)));
    }

    #[test]
    fn status_must_be_three_digits() {
        assert_eq!(status(&section(&[(":status", "204")])), Ok(204));
        for bad in ["", "20", "0200", "2xx", "+20", "099", "600"] {
            assert!(is_malformed(status(&section(&[(":status", bad)]))));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", section(&[("authorization", "Bearer hunter2"), ("a", "b")]));
        assert_eq!(shown, "[authorization: …, a: b]");
    }
}
