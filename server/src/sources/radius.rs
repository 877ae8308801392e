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

/// Who tells RADIUS servers of sessions, if the configuration names servers for that.
///
/// # Errors
/// What is missing or wrong in the settings.
pub fn accounting(config: &Config) -> Result<Arc<dyn SessionObserver>, Problem> {
    if config.radius.accounting_servers.is_empty() {
        return Ok(Arc::new(Nobody));
    }
    #[cfg(feature = "radius")]
    return Ok(accounting::Accounting::start(&config.radius, &config.state_dir.radius_accounting())?);
    #[cfg(not(feature = "radius"))]
    return Err(super::not_built_with("radius"));
}

#[cfg(test)]
#[cfg(feature = "radius")]
mod tests;
