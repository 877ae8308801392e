//! Users of a directory: the gateway looks for the entry of a name, and tries the password there.
//!
//! Every connection is encrypted and the server's certificate checked before anything is said on it.

#[cfg(feature = "ldap")]
mod directory;
#[cfg(feature = "ldap")]
mod entry;
pub mod settings;
#[cfg(feature = "ldap")]
mod source;

use std::sync::Arc;

use crate::config::{Config, Problem};
use crate::sources::Source;
use crate::sources::status::ServerStatus;

#[cfg(feature = "ldap")]
pub use source::Ldap;

/// Asks each server whether it answers.
///
/// # Errors
/// What is missing or wrong in the settings.
#[cfg(feature = "ldap")]
pub(super) async fn status(config: &Config) -> Result<Vec<ServerStatus>, Problem> {
    Ok(Ldap::new(&config.ldap)?.status().await)
}

/// As a program with this source.
///
/// # Errors
/// Always.
#[cfg(not(feature = "ldap"))]
pub(super) fn status(_config: &Config) -> std::future::Ready<Result<Vec<ServerStatus>, Problem>> {
    std::future::ready(Err(super::not_built_with("ldap")))
}

/// The source as it is configured; none of its servers is asked.
///
/// # Errors
/// What is missing or wrong in the settings.
#[cfg_attr(not(feature = "ldap"), expect(unused_variables, reason = "a program without this source reads no settings"))]
pub fn source(config: &Config) -> Result<Arc<dyn Source>, Problem> {
    #[cfg(feature = "ldap")]
    return Ok(Arc::new(Ldap::new(&config.ldap)?));
    #[cfg(not(feature = "ldap"))]
    return Err(super::not_built_with("ldap"));
}

#[cfg(test)]
#[cfg(feature = "ldap")]
mod tests;
