//! Certificates that the gateway gets itself, from an authority that speaks ACME (RFC 8555), and renews.
//!
//! The authority sees that a name is the gateway's by asking on TCP 443 ([`Challenges`](crate::listener::Challenges)).
//! What it gives is written to the state directory before anybody is shown it, and is shown as long as there is nothing
//! better: a failure takes no certificate away and stops no gateway.

#[cfg(feature = "acme")]
mod account;
#[cfg(feature = "acme")]
mod authority;
#[cfg(feature = "acme")]
pub mod backoff;
#[cfg(feature = "acme")]
mod fault;
#[cfg(feature = "acme")]
mod files;
mod kept;
#[cfg(feature = "acme")]
mod order;
pub mod schedule;

use std::time::SystemTime;

use adit_program::exit::Failure;

use crate::config::{AcmeConfig, Config, Problem, TlsConfig};

#[cfg(feature = "acme")]
pub use authority::Authority;
#[cfg(feature = "acme")]
pub use fault::Refusal;
pub use kept::Kept;

/// What keeps the gateway from getting certificates, if it is to get some. The authority is not asked.
pub(crate) fn problems(config: &Config) -> Vec<Problem> {
    if config.acme.names.is_empty() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if config.tls != TlsConfig::default() {
        let next = "take acme.names out, or tls.certificate and tls.key";
        problems.push(Problem::new("acme.names", "the table tls names a certificate already", next));
    }
    if !config.listen_tcp {
        let next = "set listen_tcp = true, or name files in tls.certificate and tls.key";
        problems.push(Problem::new("acme.names", "the authority asks on TCP, and listen_tcp = false", next));
    }
    if !config.acme.accept_terms {
        let next = "read the terms of service that the authority's directory names, then set acme.accept_terms = true";
        problems.push(Problem::new("acme.accept_terms", "is not true, and no authority issues without", next));
    }
    problems.extend(of_authority(&config.acme));
    problems
}

#[cfg(feature = "acme")]
fn of_authority(acme: &AcmeConfig) -> Vec<Problem> {
    let next = "write the URL of the authority's directory";
    let directory = crate::web_client::check(&acme.directory).err();
    let directory = directory.map(|reason| Problem::new("acme.directory", reason, next));
    let tls = crate::trust::tls("acme.authority", acme.authority.as_deref()).err();
    directory.into_iter().chain(tls).collect()
}

#[cfg(not(feature = "acme"))]
fn of_authority(_acme: &AcmeConfig) -> Vec<Problem> {
    vec![crate::sources::not_built_with("acme")]
}

/// What an administrator should know of the certificates of a gateway that does not run.
pub(crate) fn warnings(config: &Config, clock: SystemTime) -> Vec<String> {
    let warning = |name: &String| match Kept::read(&config.state_dir, name) {
        Ok(Some(kept)) if kept.life.is_nearly_over(clock) => {
            let ends = humantime::format_rfc3339_seconds(kept.life.ends);
            Some(format!("the certificate of {name} ends at {ends}; the gateway renews it while it runs"))
        }
        Ok(Some(_)) => None,
        Ok(None) => Some(format!("{name} has no certificate yet; the gateway gets one while it runs")),
        Err(Failure { what, reason, next, .. }) => Some(format!("the certificate of {name}: {what}: {reason}; {next}")),
    };
    config.acme.names.iter().filter_map(warning).collect()
}
