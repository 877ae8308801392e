//! The log of the running gateway.

use adit_program::log::{self, Form};
use clap::{Args, ValueEnum};

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

impl LogFlags {
    /// Starts the log as the flags say.
    pub(super) fn start(&self) -> Result<(), String> {
        let form = match self.log_format {
            Format::Text => Form::Text { colours: false },
            Format::Json => Form::Json,
        };
        log::start(log::filter(&self.log)?, form)
    }
}
