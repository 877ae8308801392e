//! The log of the running gateway.

use adit_program::log::{self, Form, Log};
use clap::{Args, ValueEnum};

use crate::config::{Config, Source};

/// How to log.
#[derive(Debug, Args)]
pub(super) struct LogFlags {
    /// What to log, whatever `log` says in the configuration: error, warn, info, debug, trace, or directives such as
    /// adit_server=debug,info
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
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
    /// A source of the configuration, with what the flags say on top.
    pub(super) fn on_top_of(&self, mut source: Source) -> Source {
        source.overrides.flags.extend(self.log.clone().map(|filter| ("log".to_owned(), filter)));
        source
    }

    /// Starts the log that a configuration and the flags want.
    pub(super) fn start(&self, config: &Config) -> Result<Log, String> {
        let form = match self.log_format {
            Format::Text => Form::Text { colours: false },
            Format::Json => Form::Json,
        };
        log::start(log::filter(&config.log)?, form)
    }
}
