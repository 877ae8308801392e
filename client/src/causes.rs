//! Errors in one line.

use std::error::Error;

/// An error and its causes in one line, each said once.
pub(crate) fn with_causes(error: &dyn Error) -> String {
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

    use adit_host::HostError;

    use super::*;
    use crate::host::HostSetupError;

    #[test]
    fn each_cause_is_said_once() {
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = HostSetupError::Change(HostError::System { doing: "add route 10.0.0.0/8".into(), source: cause });
        assert_eq!(with_causes(&error), "add route 10.0.0.0/8: permission denied");
    }
}
