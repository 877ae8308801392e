//! Users that RADIUS servers know: the password goes to them hidden, and they accept, refuse, or ask one more question.
//!
//! What a packet looks like and which reply is believed is in [`adit_proto::radius`]; here are the sockets.

#[cfg(feature = "radius")]
mod accounting;
#[cfg(feature = "radius")]
mod challenge;
#[cfg(feature = "radius")]
mod client;
#[cfg(feature = "radius")]
mod groups;
pub mod settings;
#[cfg(feature = "radius")]
mod source;

use std::sync::Arc;

use crate::config::{Config, Problem};
use crate::core::observer::{Nobody, SessionObserver};
use crate::sources::Source;
use crate::sources::status::ServerStatus;

#[cfg(feature = "radius")]
pub use source::Radius;

/// Asks each server whether it answers.
///
/// # Errors
/// What is missing or wrong in the settings.
#[cfg(feature = "radius")]
pub(super) async fn status(config: &Config) -> Result<Vec<ServerStatus>, Problem> {
    Ok(Radius::new(&config.radius)?.status().await)
}

/// As a program with this source.
///
/// # Errors
/// Always.
#[cfg(not(feature = "radius"))]
pub(super) fn status(_config: &Config) -> std::future::Ready<Result<Vec<ServerStatus>, Problem>> {
    std::future::ready(Err(super::not_built_with("radius")))
}

/// The source as it is configured; none of its servers is asked.
///
/// # Errors
/// What is missing or wrong in the settings.
#[cfg_attr(
    not(feature = "radius"),
    expect(unused_variables, reason = "a program without this source reads no settings")
)]
pub fn source(config: &Config) -> Result<Arc<dyn Source>, Problem> {
    #[cfg(feature = "radius")]
    return Ok(Arc::new(Radius::new(&config.radius)?));
    #[cfg(not(feature = "radius"))]
    return Err(super::not_built_with("radius"));
}

/// Tells RADIUS servers of sessions, where the configuration names servers for that.
#[derive(Clone)]
pub struct SessionAccounting {
    #[cfg(feature = "radius")]
    accounting: Option<Arc<accounting::Accounting>>,
}

impl SessionAccounting {
    /// Begins to.
    ///
    /// # Errors
    /// What is missing or wrong in the settings.
    pub fn start(config: &Config) -> Result<Self, Problem> {
        #[cfg(feature = "radius")]
        {
            let start = || accounting::Accounting::start(&config.radius, &config.state_dir.radius_accounting());
            let accounting = (!config.radius.accounting_servers.is_empty()).then(start).transpose()?;
            Ok(Self { accounting })
        }
        #[cfg(not(feature = "radius"))]
        if config.radius.accounting_servers.is_empty() { Ok(Self {}) } else { Err(super::not_built_with("radius")) }
    }

    /// Who is to be told of sessions.
    #[must_use]
    pub fn observer(&self) -> Arc<dyn SessionObserver> {
        #[cfg(feature = "radius")]
        if let Some(accounting) = &self.accounting {
            return Arc::<accounting::Accounting>::clone(accounting);
        }
        Arc::new(Nobody)
    }

    /// Makes what tells servers by other settings, from when what is returned is called. Which servers are told stays.
    ///
    /// # Errors
    /// What is missing or wrong in the settings.
    #[cfg_attr(
        not(feature = "radius"),
        expect(unused_variables, reason = "a program without this source tells nobody")
    )]
    pub fn prepare(&self, config: &Config) -> Result<Box<dyn FnOnce() + Send>, Problem> {
        #[cfg(feature = "radius")]
        if let Some(accounting) = self.accounting.clone() {
            let client = accounting::Accounting::client(&config.radius)?;
            return Ok(Box::new(move || accounting.follow(client)));
        }
        Ok(Box::new(|| {}))
    }
}

#[cfg(test)]
#[cfg(feature = "radius")]
mod tests;
