//! A profile as its file says it.

use std::net::SocketAddr;

use serde::Serialize;

use super::{EspTable, Identity, Profile, WorkersTable};

/// The keys of a file, in the order they are written. Optional tables that say nothing new are left out.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    host: &'a str,
    port: u16,
    user: &'a str,
    device: &'a str,
    addresses: &'a [SocketAddr],
    authority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "is_default")]
    esp: &'a EspTable,
    #[serde(skip_serializing_if = "is_default")]
    workers: &'a WorkersTable,
}

impl<'a> Written<'a> {
    pub(super) fn of(profile: &'a Profile) -> Self {
        let (certificate, key, token) = match &profile.identity {
            Identity::Certificate { chain_pem, key_pem } => (Some(chain_pem.as_str()), Some(key_pem.as_str()), None),
            Identity::Token(token) => (None, None, Some(token.as_str())),
        };
        Self {
            host: &profile.host,
            port: profile.port,
            user: &profile.user,
            device: &profile.device,
            addresses: &profile.addresses,
            authority: &profile.authority_pem,
            certificate,
            key,
            token,
            esp: &profile.esp,
            workers: &profile.workers,
        }
    }
}

/// Whether a table says nothing that its default does not.
fn is_default<T: Default + PartialEq>(table: &&T) -> bool {
    **table == T::default()
}
