//! The gateway's account at an authority: its key is made here, and written before the authority hears of it.

use std::io;
use std::path::Path;

use adit_program::durable_file;
use adit_program::exit::{Exit, Failure};
use adit_program::guarded_file::Readers;
use data_encoding::BASE64;
use instant_acme::{Account, AccountBuilder, Key};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::fault::Fault;
use super::files::{create_folder, unwritten};
use crate::config::{AcmeConfig, guard};
use crate::directories::StateDir;
use crate::off_runtime::off_runtime;

/// An account as it lies in the state directory.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The directory of the authority that it is for.
    directory: String,
    /// Its private key: PKCS#8 in Base64.
    key: String,
    /// Its address at the authority, once that has told it.
    id: Option<String>,
    /// The mail address that the authority knows.
    contact: Option<String>,
}

/// The account at the authority of `settings`; made where there is none yet, or one of another authority.
pub(super) async fn open(
    state_dir: &StateDir,
    settings: &AcmeConfig,
    builder: AccountBuilder,
) -> Result<Account, Fault> {
    let mut stored = match Stored::read(state_dir)? {
        Some(stored) if stored.directory == settings.directory => stored,
        Some(_) | None => Stored::new(&settings.directory)?.write(state_dir).await?,
    };
    let (key, directory) = (stored.key(state_dir)?, settings.directory.clone());
    let account = match stored.id.clone() {
        Some(id) => builder.from_parts(id, key, directory).await?,
        None => {
            let key = (Key::from_pkcs8_der(key.clone_key())?, PrivateKeyDer::Pkcs8(key));
            // The same key gets the same account, however often it is asked for.
            let (account, _same_key) = builder.create_from_key(key, directory).await?;
            stored.id = Some(account.id().to_owned());
            stored = stored.write(state_dir).await?;
            account
        }
    };
    if stored.contact != settings.contact {
        let contact = settings.contact.as_ref().map(|address| format!("mailto:{address}"));
        account.update_contacts(&contact.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        stored.contact.clone_from(&settings.contact);
        stored.write(state_dir).await?;
    }
    Ok(account)
}

/// Has the account be asked for again, by its key: the authority does not know the address that it told.
pub(super) async fn forget_address(state_dir: &StateDir) -> Result<(), Fault> {
    if let Some(mut stored) = Stored::read(state_dir)? {
        (stored.id, stored.contact) = (None, None);
        stored.write(state_dir).await?;
    }
    Ok(())
}

impl Stored {
    fn new(directory: &str) -> Result<Self, Fault> {
        let (_, key) = Key::generate_pkcs8()?;
        let key = BASE64.encode(key.secret_pkcs8_der());
        Ok(Self { directory: directory.to_owned(), key, id: None, contact: None })
    }

    fn read(state_dir: &StateDir) -> Result<Option<Self>, Failure> {
        let path = state_dir.acme_account();
        match guard().read(&path, Readers::Owner) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| unfit(&path, &error.to_string())),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes it, and gives it back.
    async fn write(self, state_dir: &StateDir) -> Result<Self, Failure> {
        let (folder, path) = (state_dir.acme(), state_dir.acme_account());
        let writing = move || -> io::Result<Self> {
            let text = Zeroizing::new(serde_json::to_vec(&self).map_err(io::Error::other)?);
            create_folder(&folder)?;
            durable_file::replace(&path, &text, 0o600)?;
            Ok(self)
        };
        off_runtime(writing).await.map_err(|error| unwritten(&state_dir.acme_account(), &error))
    }

    fn key(&self, state_dir: &StateDir) -> Result<PrivatePkcs8KeyDer<'static>, Failure> {
        let key = BASE64.decode(self.key.as_bytes());
        key.map(PrivatePkcs8KeyDer::from).map_err(|error| unfit(&state_dir.acme_account(), &error.to_string()))
    }
}

fn unfit(path: &Path, reason: &str) -> Failure {
    let reason = format!("it holds no account of ACME: {reason}");
    Failure::new(Exit::Usage, path.display().to_string(), reason, "remove it: the gateway makes another account")
}
