//! Texts of a policy that have not the form they should have.

/// Why a text of a policy is refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {next}")]
pub struct FormError {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub next: &'static str,
}

impl FormError {
    /// Makes an error of its two parts.
    pub(super) fn new(reason: impl Into<String>, next: &'static str) -> Self {
        Self { reason: reason.into(), next }
    }
}
