//! The log of the running gateway.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How to log.
#[derive(Debug, Args)]
pub(super) struct LogFlags {
    /// What to log: error, warn, info, debug, trace, or directives such as adit_server=debug,info
    #[arg(long, env = "ADIT_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// Form of the log
    #[arg(long, env = "ADIT_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging to standard error; under journald, which adds its own, without times.
pub(super) fn start(flags: &LogFlags) -> Result<(), String> {
    let filter = EnvFilter::builder().parse(&flags.log).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_span_events(FmtSpan::NONE);
    let under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = match (flags.log_format, under_journald) {
        (Format::Json, _) => builder.json().try_init(),
        (Format::Text, true) => builder.without_time().try_init(),
        (Format::Text, false) => builder.try_init(),
    };
    started.map_err(|error| error.to_string())
}
