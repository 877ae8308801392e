//! The key of an enrolment under way, kept beside the profiles: a gateway that has certified a key answers the same
//! invite with the same key again.

use std::fs;
use std::path::PathBuf;

use adit_program::durable_file;
use adit_program::exit::Failure;
use adit_program::guarded_file::{Guard, Readers};
use adit_proto::invite::Invite;
use data_encoding::HEXLOWER;
use rcgen::KeyPair;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::local;
use crate::device_key;
use crate::profile::{ProfileStore, file_failure};

/// Bytes of the invite's hash in the file's name: enough to tell invites apart, too few to guess a code by.
const NAME_LEN: usize = 8;

/// A device key in a file of its own.
pub(super) struct KeptKey {
    path: PathBuf,
    key: KeyPair,
    is_new: bool,
}

impl KeptKey {
    /// The key that is kept for this invite, or a new one, which is kept from now on.
    pub(super) fn of(store: &ProfileStore, invite: &Invite) -> Result<Self, Failure> {
        let hash = Sha256::digest(invite.code);
        let path = store.hidden(&format!("join-{}.key", HEXLOWER.encode(&hash[..NAME_LEN])));
        if let Some(key) = read(&path) {
            return Ok(Self { path, key, is_new: false });
        }
        let key = device_key::new_key().map_err(local)?;
        let pem = Zeroizing::new(key.serialize_pem());
        durable_file::replace(&path, pem.as_bytes(), 0o600)
            .map_err(|error| file_failure(&path.display().to_string(), &error))?;
        Ok(Self { path, key, is_new: true })
    }

    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    /// Removes the file of a key that nobody was asked to certify; an older one may be certified already.
    pub(super) fn forget_if_new(self) {
        if self.is_new {
            self.forget();
        }
    }

    /// Removes the file: the key is in a profile, or will never be of use.
    pub(super) fn forget(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the key of an enrolment stays behind");
        }
    }
}

/// What is kept, if it is a key and nobody else could have put it there.
fn read(path: &std::path::Path) -> Option<KeyPair> {
    let content = Zeroizing::new(Guard::default().read(path, Readers::Owner).ok()?);
    KeyPair::from_pem(str::from_utf8(&content).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn invite(code: u8) -> Invite {
        Invite { host: "gw".into(), port: 443, others: Vec::new(), pin: [1; 32], code: [code; 16] }
    }

    fn pem(kept: &KeptKey) -> String {
        kept.key().serialize_pem()
    }

    #[test]
    fn same_invite_has_the_same_key_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = ProfileStore::new(directory.path());
        let first = KeptKey::of(&store, &invite(1)).unwrap();
        let again = KeptKey::of(&store, &invite(1)).unwrap();
        let other = KeptKey::of(&store, &invite(2)).unwrap();
        assert_eq!(pem(&first), pem(&again));
        assert_ne!(pem(&first), pem(&other));
        assert_eq!(fs::metadata(&first.path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(store.names().unwrap(), [], "it is no profile");
        let before = pem(&first);
        KeptKey::of(&store, &invite(1)).unwrap().forget_if_new();
        assert_eq!(pem(&KeptKey::of(&store, &invite(1)).unwrap()), before, "it may be certified already");
        first.forget();
        assert_ne!(pem(&KeptKey::of(&store, &invite(1)).unwrap()), before);
    }

    #[test]
    fn key_that_others_could_have_read_or_that_is_none_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let store = ProfileStore::new(directory.path());
        let first = KeptKey::of(&store, &invite(1)).unwrap();
        fs::set_permissions(&first.path, fs::Permissions::from_mode(0o644)).unwrap();
        let second = KeptKey::of(&store, &invite(1)).unwrap();
        assert_ne!(pem(&first), pem(&second));
        fs::write(&second.path, "nonsense").unwrap();
        assert_ne!(pem(&second), pem(&KeptKey::of(&store, &invite(1)).unwrap()));
    }
}
