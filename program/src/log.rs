//! The log of a program, on standard error.

use std::io;

use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::{FormatEvent, FormatFields, MakeWriter, SubscriberBuilder};

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

/// A log that was started.
pub struct Log(Box<dyn Fn(Filter) -> Result<(), String> + Send + Sync>);

impl Log {
    /// From now on logs what this filter says.
    ///
    /// # Errors
    /// The log is none any more.
    pub fn change(&self, filter: Filter) -> Result<(), String> {
        (self.0)(filter)
    }
}

/// Starts the log of the process; under journald, which adds its own, lines for people have no times.
///
/// # Errors
/// There is a log already.
pub fn start(filter: Filter, form: Form) -> Result<Log, String> {
    let colours = matches!(form, Form::Text { colours: true });
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).with_target(false);
    let under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
    match form {
        Form::Json => begin(builder.json()),
        Form::Text { .. } if under_journald => begin(builder.without_time()),
        Form::Text { .. } => begin(builder),
    }
}

fn begin<N, E, W>(builder: SubscriberBuilder<N, E, Filter, W>) -> Result<Log, String>
where
    N: for<'writer> FormatFields<'writer> + Send + Sync + 'static,
    E: FormatEvent<Registry, N> + Send + Sync + 'static,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let builder = builder.with_filter_reloading();
    let filter = builder.reload_handle();
    builder.try_init().map_err(|error| error.to_string())?;
    Ok(Log(Box::new(move |newer| filter.reload(newer).map_err(|error| error.to_string()))))
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
    #[test]
    fn log_takes_another_filter_as_it_goes_on() {
        let log = start(filter("warn").unwrap(), Form::Text { colours: false }).unwrap();
        let levels = || [tracing::enabled!(tracing::Level::WARN), tracing::enabled!(tracing::Level::DEBUG)];
        assert_eq!(levels(), [true, false]);
        log.change(filter("adit_program=debug").unwrap()).unwrap();
        assert_eq!(levels(), [true, true]);
        log.change(filter("off").unwrap()).unwrap();
        assert_eq!(levels(), [false, false]);
    }
}
