//! Problems of a configuration, as the program finds them and as their author reads them.

use std::fmt;

use toml::Value;

use super::Complaint;

/// One problem of a configuration, as its author reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key or file, and where its value came from if that is not the configuration file.
    pub what: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub next: String,
}

impl Problem {
    /// Makes a problem of its three parts.
    pub fn new(what: impl Into<String>, reason: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.into(), reason: reason.into(), next: next.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.reason, self.next)
    }
}

/// One problem of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The key, or what was taken for one.
    pub key: String,
    /// Where its value comes from.
    pub origin: Origin,
    /// What is wrong with it.
    pub fault: Fault,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file, counted from 1.
    Line(usize),
    /// An environment variable.
    Variable(String),
    /// A `--set` flag.
    Flag,
    /// Nobody gave one.
    Nowhere,
}

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// There is no such key.
    Unknown {
        /// A known key or table that looks like it.
        closest: Option<&'static str>,
        /// Where people find all keys.
        listed: &'static str,
    },
    /// It is a table of keys, but was given this value.
    NotTable(Value),
    /// Nobody gave it, and it has no default.
    Missing {
        /// A TOML literal that shows the form of its value.
        example: &'static str,
    },
    /// Its value is refused.
    Refused(Complaint),
}

impl Finding {
    /// Whether a value is lacking because of it: what was read is not complete.
    #[must_use]
    pub fn leaves_a_gap(&self) -> bool {
        match self.fault {
            Fault::Missing { .. } | Fault::Refused(_) => true,
            Fault::Unknown { .. } | Fault::NotTable(_) => false,
        }
    }
}

impl From<Finding> for Problem {
    fn from(Finding { key, origin, fault }: Finding) -> Self {
        let (reason, next) = match fault {
            Fault::Unknown { closest, listed } => {
                let next =
                    closest.map_or_else(|| format!("remove it; {listed}"), |key| format!("did you mean `{key}`?"));
                ("unknown key".to_owned(), next)
            }
            Fault::NotTable(value) => {
                (format!("{value} is not a table"), format!("write [{key}] and its keys below it"))
            }
            Fault::Missing { example } => ("missing".to_owned(), format!("add {key} = {example}")),
            Fault::Refused(complaint) => (complaint.reason, complaint.next),
        };
        let what = match origin {
            Origin::Line(_) | Origin::Nowhere => key,
            Origin::Variable(variable) => format!("{key} ({variable})"),
            Origin::Flag => format!("{key} (--set)"),
        };
        Self { what, reason, next }
    }
}
