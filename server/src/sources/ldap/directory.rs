//! Connections to a directory.

use std::sync::Arc;
use std::time::Duration;

use adit_program::foreign_text::printable;
use adit_program::task::{self, Task};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope, SearchEntry};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::settings::LdapUrl;

/// The bind was done (RFC 4511 appendix A).
const SUCCESS: u32 = 0;
/// The server gave as many entries as it may.
const SIZE_LIMIT_EXCEEDED: u32 = 4;
/// There is no such entry.
const NO_SUCH_OBJECT: u32 = 32;
/// The entry has nothing that a password could be compared with.
const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
/// The name or the password is wrong.
const INVALID_CREDENTIALS: u32 = 49;
/// The entry may not bind.
const INSUFFICIENT_ACCESS: u32 = 50;
/// The server does not want to.
const UNWILLING: u32 = 53;

/// Why a server of a directory could not answer; names the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Away(String);

/// What came of an attempt to bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bound {
    /// The password is right.
    Yes,
    /// It is not, or the entry may not be used; in the server's words.
    No(String),
    /// The server does not let this entry bind at all.
    NotPermitted(String),
}

/// How servers are reached.
pub(super) struct Directory {
    tls: Arc<ClientConfig>,
    timeout: Duration,
}

impl Directory {
    pub(super) fn new(tls: Arc<ClientConfig>, timeout: Duration) -> Self {
        Self { tls, timeout }
    }

    /// Connects, and makes the connection safe: nothing was said on it before.
    ///
    /// # Errors
    /// The server cannot be reached, or is not who it should be.
    pub(super) async fn connect(&self, url: &LdapUrl) -> Result<Connection, Away> {
        let settings = LdapConnSettings::new()
            .set_conn_timeout(self.timeout)
            .set_config(Arc::clone(&self.tls))
            .set_starttls(!url.begins_with_tls);
        let text = url.to_string();
        let connecting = LdapConnAsync::with_settings(settings, &text);
        let connected = self.in_time(url, connecting).await?;
        let (driver, ldap) = connected.map_err(|error| Away(format!("{url} {}", connecting_failed(&error))))?;
        let driver = task::spawn(async move {
            // Whoever waits for an answer hears of the end of the connection.
            let _ended = driver.drive().await;
        });
        Ok(Connection { url: url.clone(), ldap, timeout: self.timeout, _driver: driver })
    }

    async fn in_time<T>(&self, url: &LdapUrl, step: impl Future<Output = T>) -> Result<T, Away> {
        timeout(self.timeout, step).await.map_err(|_elapsed| too_slow(url, self.timeout))
    }
}

/// A connection to one server; dropping it closes it.
pub(super) struct Connection {
    url: LdapUrl,
    ldap: Ldap,
    timeout: Duration,
    _driver: Task,
}

impl Connection {
    /// Tries a password. It is never empty: a server would take that for somebody who wants no name at all, and say
    /// yes (RFC 4513 section 5.1.2).
    ///
    /// # Errors
    /// The server could not tell.
    ///
    /// # Panics
    /// The password is empty.
    pub(super) async fn bind(&mut self, entry: &str, password: &str) -> Result<Bound, Away> {
        assert!(!password.is_empty() && !entry.is_empty(), "whoever asks has refused these");
        let binding = timeout(self.timeout, self.ldap.simple_bind(entry, password)).await;
        let LdapResult { rc, text, .. } = self.done(binding.map_err(|_elapsed| too_slow(&self.url, self.timeout))?)?;
        let text = printable(&text);
        match rc {
            SUCCESS => Ok(Bound::Yes),
            INVALID_CREDENTIALS => Ok(Bound::No(text)),
            INAPPROPRIATE_AUTHENTICATION | INSUFFICIENT_ACCESS | UNWILLING => Ok(Bound::NotPermitted(text)),
            _ => Err(Away(format!("{} does not take a password (code {rc}: {text})", self.url))),
        }
    }

    /// Finds entries, of which `most` are good and one more shows that there are too many.
    ///
    /// # Errors
    /// The server could not tell.
    pub(super) async fn search(
        &mut self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: Vec<String>,
        most: usize,
    ) -> Result<Vec<SearchEntry>, Away> {
        let slow = too_slow(&self.url, self.timeout);
        let searching = timeout(self.timeout, self.ldap.streaming_search(base, scope, filter, attributes)).await;
        let mut stream = searching.map_err(|_elapsed| slow.clone())?.map_err(|error| failed(&self.url, &error))?;
        let mut entries = Vec::new();
        loop {
            let next = timeout(self.timeout, stream.next()).await.map_err(|_elapsed| slow.clone())?;
            let Some(found) = next.map_err(|error| failed(&self.url, &error))? else { break };
            // Other servers that might know more are not asked.
            if found.is_ref() || found.is_intermediate() {
                continue;
            }
            entries.push(SearchEntry::construct(found));
            if entries.len() > most {
                return Ok(entries);
            }
        }
        let LdapResult { rc, text, .. } = stream.finish().await;
        let text = printable(&text);
        match rc {
            SUCCESS => Ok(entries),
            NO_SUCH_OBJECT => Err(Away(format!("{} has no entry {base}, or hides it from this gateway", self.url))),
            SIZE_LIMIT_EXCEEDED => {
                let found = entries.len();
                Err(Away(format!(
                    "{} gives no more than {found} entries: raise its size limit for this gateway",
                    self.url
                )))
            }
            _ => Err(Away(format!("{} finds nothing below {base} (code {rc}: {text})", self.url))),
        }
    }

    fn done<T>(&self, outcome: Result<T, LdapError>) -> Result<T, Away> {
        outcome.map_err(|error| failed(&self.url, &error))
    }
}

impl Away {
    /// A server that does not let the gateway look for users.
    pub(super) fn reader_refused(url: &LdapUrl, text: &str) -> Self {
        let next = "mend ldap.bind_dn and ldap.bind_password_file";
        Self(format!("{url} refuses the gateway's own name or password ({text}): {next}"))
    }

    /// An answer that cannot be used.
    pub(super) fn unusable(url: &LdapUrl, reason: &str) -> Self {
        Self(format!("{url} {reason}"))
    }
}

fn too_slow(url: &LdapUrl, limit: Duration) -> Away {
    Away(format!("{url} does not answer in {} s", limit.as_secs()))
}

fn failed(url: &LdapUrl, error: &LdapError) -> Away {
    Away(format!("{url} failed: {}", printable(&error.to_string())))
}

/// What went wrong before anything was said, with the cure where the fault is known.
fn connecting_failed(error: &LdapError) -> String {
    let shown = printable(&error.to_string());
    let LdapError::Io { source } = error else {
        return if matches!(error, LdapError::LdapResult { .. }) {
            format!("refuses StartTLS ({shown}): write ldaps:// if it has that")
        } else if matches!(error, LdapError::Timeout { .. }) {
            "does not answer: is the server up?".to_owned()
        } else {
            format!("cannot be used ({shown})")
        };
    };
    match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => format!(
            "has a certificate that is not trusted ({reason:?}): name who vouches for it in ldap.authority, and the \
             server as its certificate does in ldap.urls"
        ),
        Some(other) => format!("cannot agree on TLS ({other})"),
        None => format!("cannot be reached ({source}): is the server up?"),
    }
}
