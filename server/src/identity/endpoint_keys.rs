//! Keys of the QUIC endpoint that outlive a restart.

use std::path::Path;

use adit_net::quic::EndpointKeys;
use adit_program::durable_file;
use adit_program::random::random;
use zeroize::Zeroizing;

use super::IdentityError;
use crate::config::read_secret;

/// Length of the file: two keys of 32 bytes and one of 8.
const LENGTH: usize = 72;

/// Makes new keys and writes them to a file of mode 0600. They are persisted, since a restarted gateway can tell its
/// former clients so, and honour its tokens, only with the same keys.
///
/// # Errors
/// The file exists already or cannot be written.
pub fn create_endpoint_keys(path: &Path) -> Result<EndpointKeys, IdentityError> {
    let bytes = Zeroizing::new(random::<LENGTH>()?);
    durable_file::create(path, bytes.as_slice(), 0o600).map_err(|error| IdentityError::file(path, error))?;
    decode(bytes.as_slice()).ok_or(IdentityError::System("endpoint keys of another length"))
}

/// Loads the keys.
///
/// # Errors
/// The file is missing, unsafe, or of another length.
pub fn load_endpoint_keys(path: &Path) -> Result<EndpointKeys, IdentityError> {
    let bytes = read_secret(path)?;
    decode(&bytes).ok_or_else(|| IdentityError::Content {
        path: path.to_owned(),
        reason: "does not hold the endpoint's three keys",
    })
}

fn decode(bytes: &[u8]) -> Option<EndpointKeys> {
    let (reset, rest) = bytes.split_first_chunk::<32>()?;
    let (token, rest) = rest.split_first_chunk::<32>()?;
    let connection_id = u64::from_be_bytes(rest.try_into().ok()?);
    Some(EndpointKeys { reset: *reset, token: *token, connection_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_outlive_a_restart_and_differ_from_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoint.key");
        let made = create_endpoint_keys(&path).unwrap();
        let loaded = load_endpoint_keys(&path).unwrap();
        assert_eq!((made.reset, made.token, made.connection_id), (loaded.reset, loaded.token, loaded.connection_id));
        assert_ne!(made.reset, made.token);
    }

    #[test]
    fn file_of_another_length_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoint.key");
        durable_file::create(&path, &[0; 71], 0o600).unwrap();
        assert!(load_endpoint_keys(&path).is_err());
    }
}
