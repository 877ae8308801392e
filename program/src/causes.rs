//! Errors in one line.

use std::error::Error;

/// An error and its causes in one line, each said once.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Refused {
        #[error("add route 10.0.0.0/8")]
        Silent(#[source] io::Error),
        #[error("add route 10.0.0.0/8: {0}")]
        Quoting(#[source] io::Error),
        #[error(transparent)]
        Passed(Box<Refused>),
    }

    fn denied() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    #[test]
    fn each_cause_is_said_once() {
        let said = "add route 10.0.0.0/8: permission denied";
        for error in
            [Refused::Silent(denied()), Refused::Quoting(denied()), Refused::Passed(Refused::Silent(denied()).into())]
        {
            assert_eq!(with_causes(&error), said, "{error:?}");
        }
    }

    #[test]
    fn error_without_a_cause_speaks_for_itself() {
        assert_eq!(with_causes(&denied()), "permission denied");
    }
}
