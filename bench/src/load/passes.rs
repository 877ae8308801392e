//! What clients log in with: a device of its own for each of them.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_net::control;
use adit_program::random::random;
use adit_proto::login::Method;
use adit_proto::login::token::{Boot, SessionToken};
use adit_server::accounts::sqlite::Store;
use adit_server::accounts::{BegunLogin, FirstPassword, UserName};
use adit_server::core::login::sealed::Tokens;
use adit_server::directories::StateDir;
use adit_server::identity::{Authority, DeviceRequest, ServiceKey};
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

/// Lets a user log in for each client, in the files of a gateway that does not run, as the gateway itself would. What
/// clients keep of it is the session token.
///
/// # Errors
/// What the store refuses, or when `check` fails.
pub(super) fn logins(state: &StateDir, clients: u32, check: &dyn Fn() -> Result<()>) -> Result<Vec<Pass>> {
    let (tokens, store) = (Tokens::new(&ServiceKey::load_or_create(state)?), Store::open(&state.store())?);
    let now = SystemTime::now();
    let logged_in_at = now.duration_since(UNIX_EPOCH).context("the clock is past 1970")?.as_secs();
    let pass = |number| {
        check()?;
        let (user, login) = (user(number), random()?);
        let first = FirstPassword::Link { hash: random()?, seconds: LIFETIME.as_secs() };
        store.add_user(&UserName::parse(&user)?, &first, now)?;
        store.begin_login(&BegunLogin { id: &login, user: &user, generation: 0, lifetime: LIFETIME })?;
        let token = SessionToken {
            user,
            device: None,
            login,
            generation: 0,
            methods: vec![Method::Password],
            logged_in_at,
            ends_at: logged_in_at + LIFETIME.as_secs(),
            // As after a restart of the host: the clock alone decides.
            boot: Boot::UNTOLD,
            since_boot: 0,
        };
        tokens.seal(&token).map(Pass::Token).context("seal a session token")
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
