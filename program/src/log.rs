//! The log of a program, on standard error.

use std::io;

use tracing_subscriber::filter::LevelFilter;

pub use tracing_subscriber::EnvFilter as Filter;

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines for people, with colours if `colours` is true.
    Text {
        /// Whether levels are coloured.
        colours: bool,
    },
    /// One JSON object a line.
    Json,
}

/// What to log, from text such as `info` or `adit_server=debug,info`.
///
/// # Errors
/// Why the text is no filter.
pub fn filter(text: &str) -> Result<Filter, String> {
    Filter::builder().parse(text).map_err(|error| error.to_string())
}

/// What to log according to `RUST_LOG`; INFO and above if it is not set. What is no filter in it is left out.
#[must_use]
pub fn filter_from_environment() -> Filter {
    Filter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy()
}

/// Starts the log of the process; under journald, which adds its own, lines for people have no times.
///
/// # Errors
/// There is a log already.
pub fn start(filter: Filter, form: Form) -> Result<(), String> {
    let colours = matches!(form, Form::Text { colours: true });
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).with_target(false);
    let under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = match form {
        Form::Json => builder.json().try_init(),
        Form::Text { .. } if under_journald => builder.without_time().try_init(),
        Form::Text { .. } => builder.try_init(),
    };
    started.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_is_a_level_or_directives_and_nonsense_is_refused() {
        assert_eq!(filter("info").unwrap().to_string(), "info");
        assert!(filter("adit_server=debug,info").is_ok());
        assert!(filter("adit_server=loud").is_err());
    }
}
