//! What clients log in with: a device of its own for each of them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use adit_net::control;
use adit_server::accounts::UserName;
use adit_server::accounts::sqlite::Store;
use adit_server::directories::StateDir;
use adit_server::identity::{Authority, DeviceRequest};
use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

use super::plan::Pass;

/// A device certificate, with those up to the authority, and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Calls for tokens under way.
const CALLS: usize = 8;
/// How long invites and certificates are good: longer than any load.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Makes a device with a token for each client, over the socket that `adit-server token` uses, too.
///
/// # Errors
/// What the gateway says, or when `check` fails.
pub(super) fn tokens(socket: &Path, clients: u32, check: &dyn Fn() -> Result<()>) -> Result<Vec<Pass>> {
    let token = |number: u32| async move {
        check()?;
        let body = json!({ "user": user(number) });
        let answer = control::call(socket, "POST", "/token", &body).await?;
        let token = answer.get("token").and_then(|token| token.as_str()).context("a token in the answer")?;
        anyhow::Ok(Pass::Token(token.to_owned()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(stream::iter(0..clients).map(token).buffered(CALLS).try_collect())
}

/// Enrols a device for each client in the files of a gateway that does not run, as the gateway itself would.
///
/// # Errors
/// What authority or store refuse, or when `check` fails.
pub(super) fn certificates(state: &StateDir, clients: u32, check: &dyn Fn() -> Result<()>) -> Result<Vec<Pass>> {
    let authority = Authority::load(state)?;
    let store = Store::open(&state.store())?;
    let pass = |number| {
        check()?;
        let (chain, key) = certificate(&authority, &store, &user(number))?;
        Ok(Pass::Certificate { chain, key })
    };
    (0..clients).map(pass).collect()
}

/// Enrols a device of a user.
///
/// # Errors
/// What authority or store refuse.
pub(crate) fn certificate(authority: &Authority, store: &Store, user: &str) -> Result<Identity> {
    let now = SystemTime::now();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let request = CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
    let request = DeviceRequest::parse(&request)?;
    let code = store.invite(&UserName::parse(user)?, LIFETIME, now)?;
    let sign = |device: &str, user: &str| authority.issue_device(&request, device, user, LIFETIME, now);
    let enrolled = store.enroll(&code, &request.key_hash(), "load", now, sign)?;
    let certificate =
        CertificateDer::from_pem_slice(enrolled.certificate.pem.as_bytes()).context("read a certificate")?;
    Ok((vec![certificate], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))))
}

fn user(number: u32) -> String {
    format!("load{number}")
}
