//! A value that was given for a key, and the ways to read it.

use std::fmt;
use std::time::Duration;

use toml::Value;

use super::Kind;

/// Why a value is refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub next: String,
    /// How many lines below the first one of the value the fault is, where the value has no form that the key takes;
    /// `None` where it has, but says something that cannot be.
    pub malformed_at: Option<usize>,
}

impl Complaint {
    /// The value has another form than the key takes.
    pub fn malformed(reason: impl Into<String>, next: impl Into<String>) -> Self {
        Self { reason: reason.into(), next: next.into(), malformed_at: Some(0) }
    }

    /// The value has the right form, but cannot be.
    pub fn unfit(reason: impl Into<String>, next: impl Into<String>) -> Self {
        Self { reason: reason.into(), next: next.into(), malformed_at: None }
    }
}

/// Puts what was read where it belongs.
///
/// # Errors
/// What reading it complained of.
pub fn put<T>(place: &mut T, read: Result<T, Complaint>) -> Result<(), Complaint> {
    *place = read?;
    Ok(())
}

/// A value that was given for a key, or an item of a list.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    value: &'a Value,
    literal: &'a str,
    kind: Kind,
}

impl<'a> Given<'a> {
    pub(super) fn new(value: &'a Value, literal: &'a str, kind: Kind) -> Self {
        Self { value, literal, kind }
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// The whole value of the key as it was written: a TOML literal.
    #[must_use]
    pub fn literal(&self) -> &'a str {
        self.literal
    }

    /// The kind of the key.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A text.
    ///
    /// # Errors
    /// It is none.
    pub fn text(&self) -> Result<&'a str, Complaint> {
        let reason = || format!("{self} is not a text");
        self.value.as_str().ok_or_else(|| Complaint::malformed(reason(), "put it in quotes"))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// It is neither.
    pub fn boolean(&self) -> Result<bool, Complaint> {
        let reason = || format!("{self} is neither true nor false");
        self.value.as_bool().ok_or_else(|| Complaint::malformed(reason(), "write true or false"))
    }

    /// A number within the bounds of the key.
    ///
    /// # Errors
    /// It is none, or out of bounds.
    ///
    /// # Panics
    /// The key is of another kind.
    pub fn integer<T: TryFrom<u64>>(&self) -> Result<T, Complaint> {
        let Kind::Integer { least, most } = self.kind else { panic!("the row says which numbers the key takes") };
        let number = self.value.as_integer().and_then(|number| u64::try_from(number).ok());
        let number =
            number.filter(|number| (least..=most).contains(number)).and_then(|number| T::try_from(number).ok());
        let next = || format!("write a number from {least} to {most}");
        number.ok_or_else(|| Complaint::unfit(format!("{self} is not in range"), next()))
    }

    /// A length of time such as `"24h"`, within the bounds of the key.
    ///
    /// # Errors
    /// It is none, or out of bounds.
    ///
    /// # Panics
    /// The key is of another kind.
    pub fn duration(&self) -> Result<Duration, Complaint> {
        let (least, most) = self.kind.durations().expect("the row says which lengths of time the key takes");
        let Some(duration) = self.value.as_str().and_then(|text| humantime::parse_duration(text).ok()) else {
            return Err(Complaint::malformed(
                format!("{self} is not a length of time"),
                "write a number with its unit in quotes, such as \"90s\", \"15m\", \"24h\" or \"30d\"",
            ));
        };
        if (least..=most).contains(&duration) {
            return Ok(duration);
        }
        let [least, most] = [least, most].map(humantime::format_duration);
        Err(Complaint::unfit(format!("{self} is not in range"), format!("write {least} to {most}")))
    }

    /// A list; a complaint is about its first bad item.
    ///
    /// # Errors
    /// It is none, or an item is refused.
    pub fn list<T>(&self, item: impl Fn(&Given<'a>) -> Result<T, Complaint>) -> Result<Vec<T>, Complaint> {
        let Some(items) = self.value.as_array() else {
            return Err(Complaint::malformed(format!("{self} is not a list"), format!("write [{self}]")));
        };
        items.iter().map(|value| item(&Given { value, ..*self })).collect()
    }

    /// A list with at least one item.
    ///
    /// # Errors
    /// As [`Self::list`], or it is empty.
    pub fn items<T>(&self, item: impl Fn(&Given<'a>) -> Result<T, Complaint>) -> Result<Vec<T>, Complaint> {
        let list = self.list(item)?;
        if list.is_empty() { Err(Complaint::unfit("the list is empty", "name at least one")) } else { Ok(list) }
    }
}

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl Kind {
    /// The bounds of a length of time; `None` for every other kind.
    ///
    /// # Panics
    /// A row has a bound that is no length of time.
    #[must_use]
    pub fn durations(&self) -> Option<(Duration, Duration)> {
        let Self::Duration { least, most } = self else { return None };
        let parse = |text| humantime::parse_duration(text).expect("the bounds of a row are lengths of time");
        Some((parse(least), parse(most)))
    }
}
