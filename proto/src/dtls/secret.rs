//! From what two ends share to the keys of both directions (RFC 5246 sections 5, 6.3 and 8.1, RFC 4279 section 2).
//!
//! ```text
//! premaster   = length (2)  zeros (length)  length (2)  pre-shared key
//! master      = PRF(premaster, "master secret", client random ‖ server random), 48 bytes
//! keys        = PRF(master, "key expansion", server random ‖ client random)
//!             = key of the client, key of the server, IV of the client, IV of the server
//! verify data = PRF(master, "client finished" or "server finished", hash of the transcript), 12 bytes
//! ```

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::suite::{CipherSuite, HashFunction};
use crate::role::Role;
use crate::sealing::aead::NONCE_LEN;
use crate::sealing::suite::MAX_KEY_LEN;

/// Bytes of a master secret.
pub const MASTER_LEN: usize = 48;

/// Bytes of what a Finished message holds.
pub const VERIFY_DATA_LEN: usize = 12;

/// Bytes of a hello's random.
pub const RANDOM_LEN: usize = 32;

/// The longest pre-shared key that is taken, in bytes; the exporter gives 32.
pub const MAX_PSK_LEN: usize = 64;

/// The key of one direction and its part of the nonces. Erased when dropped.
///
/// ```compile_fail
/// fn copy(keys: &adit_proto::dtls::secret::DirectionKeys) -> adit_proto::dtls::secret::DirectionKeys { keys.clone() }
/// ```
/// ```compile_fail
/// fn show(keys: &adit_proto::dtls::secret::DirectionKeys) -> String { format!("{keys:?}") }
/// ```
#[derive(ZeroizeOnDrop)]
pub struct DirectionKeys {
    #[zeroize(skip)]
    suite: CipherSuite,
    key: [u8; MAX_KEY_LEN],
    iv: [u8; NONCE_LEN],
}

impl DirectionKeys {
    fn new(suite: CipherSuite, key: &[u8], iv: &[u8]) -> Option<Self> {
        let mut keys = Self { suite, key: [0; MAX_KEY_LEN], iv: [0; NONCE_LEN] };
        keys.key.get_mut(..key.len())?.copy_from_slice(key);
        keys.iv.get_mut(..iv.len())?.copy_from_slice(iv);
        Some(keys)
    }

    /// The suite they are for.
    pub const fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// The key, as long as the cipher wants it.
    pub fn key(&self) -> &[u8] {
        self.key.get(..self.suite.aead().key_len()).expect("no key is longer than the longest")
    }

    /// The keys' part of each nonce; zeros behind [`CipherSuite::iv_len`].
    pub const fn iv(&self) -> [u8; NONCE_LEN] {
        self.iv
    }

    #[cfg(test)]
    pub(crate) fn for_test(suite: CipherSuite, seed: u8) -> Self {
        let iv = vec![seed; suite.iv_len()];
        Self::new(suite, &[seed; MAX_KEY_LEN], &iv).unwrap()
    }
}

/// The keys of both directions.
pub struct BothKeys {
    /// For what the client sends.
    pub client_to_server: DirectionKeys,
    /// For what the server sends.
    pub server_to_client: DirectionKeys,
}

/// The randoms of both hellos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Randoms {
    /// The client's.
    pub client: [u8; RANDOM_LEN],
    /// The server's.
    pub server: [u8; RANDOM_LEN],
}

/// A master secret. Erased when dropped.
///
/// ```compile_fail
/// fn show(secret: &adit_proto::dtls::secret::MasterSecret) -> String { format!("{secret:?}") }
/// ```
#[derive(ZeroizeOnDrop)]
pub struct MasterSecret([u8; MASTER_LEN]);

impl MasterSecret {
    /// Takes a secret that came over another channel.
    pub const fn new(secret: [u8; MASTER_LEN]) -> Self {
        Self(secret)
    }

    /// Makes it from a pre-shared key; `None` above [`MAX_PSK_LEN`] bytes.
    pub fn from_psk(hash: HashFunction, psk: &[u8], randoms: &Randoms) -> Option<Self> {
        let length = u16::try_from(psk.len()).ok().filter(|&length| usize::from(length) <= MAX_PSK_LEN)?;
        let length = length.to_be_bytes();
        let zeros = [0; MAX_PSK_LEN];
        let premaster = Zeroizing::new([&length, zeros.get(..psk.len())?, &length, psk].concat());
        let mut master = Self([0; MASTER_LEN]);
        prf(hash, &premaster, &[b"master secret", &randoms.client, &randoms.server], &mut master.0);
        Some(master)
    }

    /// The keys of a suite; never `None`, as the room for them is large enough for any.
    pub fn keys(&self, suite: CipherSuite, randoms: &Randoms) -> Option<BothKeys> {
        let (key, iv) = (suite.aead().key_len(), suite.iv_len());
        let mut block = Zeroizing::new([0; 2 * (MAX_KEY_LEN + NONCE_LEN)]);
        let block = block.get_mut(..key.checked_add(iv)?.checked_mul(2)?)?;
        prf(suite.hash(), &self.0, &[b"key expansion", &randoms.server, &randoms.client], block);
        let (client_key, rest) = block.split_at_checked(key)?;
        let (server_key, rest) = rest.split_at_checked(key)?;
        let (client_iv, server_iv) = rest.split_at_checked(iv)?;
        Some(BothKeys {
            client_to_server: DirectionKeys::new(suite, client_key, client_iv)?,
            server_to_client: DirectionKeys::new(suite, server_key, server_iv)?,
        })
    }

    /// What the Finished message of `sender` says about a transcript.
    pub fn verify_data(&self, hash: HashFunction, sender: Role, transcript: &[u8]) -> [u8; VERIFY_DATA_LEN] {
        let label: &[u8] = match sender {
            Role::Client => b"client finished",
            Role::Server => b"server finished",
        };
        let mut verify_data = [0; VERIFY_DATA_LEN];
        let seed = match hash {
            HashFunction::Sha256 => Sha256::digest(transcript).to_vec(),
            HashFunction::Sha384 => Sha384::digest(transcript).to_vec(),
        };
        prf(hash, &self.0, &[label, &seed], &mut verify_data);
        verify_data
    }
}

/// The pseudo-random function (RFC 5246 section 5); `seed` is in parts, the label first.
fn prf(hash: HashFunction, secret: &[u8], seed: &[&[u8]], out: &mut [u8]) {
    match hash {
        HashFunction::Sha256 => expand::<Hmac<Sha256>>(secret, seed, out),
        HashFunction::Sha384 => expand::<Hmac<Sha384>>(secret, seed, out),
    }
}

fn expand<M: Mac + KeyInit>(secret: &[u8], seed: &[&[u8]], out: &mut [u8]) {
    let keyed = || <M as KeyInit>::new_from_slice(secret).expect("HMAC takes keys of any length");
    let mac = |first: &[u8], rest: &[&[u8]]| {
        let mut mac = keyed();
        mac.update(first);
        rest.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes()
    };
    let mut a = mac(&[], seed);
    for piece in out.chunks_mut(M::output_size().max(1)) {
        let mut block = mac(&a, seed);
        piece.iter_mut().zip(block.iter()).for_each(|(byte, value)| *byte = *value);
        block.as_mut_slice().zeroize();
        a = mac(&a, &[]);
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER_PERMISSIVE;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap()
    }

    /// The vectors that the TLS working group published for the functions of TLS 1.2.
    #[test]
    fn pseudo_random_function_gives_the_published_bytes() {
        let mut out = [0; 100];
        let secret = hex("9bbe436ba940f017b17652849a71db35");
        let seed = hex("a0ba9f936cda311827a6f796ffd5198c");
        prf(HashFunction::Sha256, &secret, &[b"test label", &seed], &mut out);
        assert_eq!(
            out[..],
            hex("e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af\
                 0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701\
                 87347b66")
        );
        let mut out = [0; 148];
        let secret = hex("b80b733d6ceefcdc71566ea48e5567df");
        let seed = hex("cd665cf6a8447dd6ff8b27555edb7465");
        prf(HashFunction::Sha384, &secret, &[b"test label", &seed], &mut out);
        assert_eq!(
            out[..],
            hex("7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0\
                 e534cb400fed2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d918425\
                 9b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e099070\
                 3d73e56f")
        );
    }

    #[test]
    fn pre_shared_key_that_is_too_long_gives_no_secret() {
        let randoms = Randoms { client: [1; RANDOM_LEN], server: [2; RANDOM_LEN] };
        assert!(MasterSecret::from_psk(HashFunction::Sha256, &[3; MAX_PSK_LEN], &randoms).is_some());
        assert!(MasterSecret::from_psk(HashFunction::Sha256, &[3; MAX_PSK_LEN + 1], &randoms).is_none());
    }

    #[test]
    fn directions_and_ends_have_keys_of_their_own() {
        let randoms = Randoms { client: [1; RANDOM_LEN], server: [2; RANDOM_LEN] };
        for suite in CipherSuite::PSK.into_iter().chain(CipherSuite::RESUMED) {
            let master = MasterSecret::from_psk(suite.hash(), &[3; 32], &randoms).unwrap();
            let BothKeys { client_to_server, server_to_client } = master.keys(suite, &randoms).unwrap();
            assert_eq!(client_to_server.key().len(), suite.aead().key_len());
            assert_ne!(client_to_server.key(), server_to_client.key());
            assert_ne!(client_to_server.iv(), server_to_client.iv());
            assert!(client_to_server.iv()[suite.iv_len()..].iter().all(|&byte| byte == 0));
            let [of_client, of_server] =
                [Role::Client, Role::Server].map(|sender| master.verify_data(suite.hash(), sender, b"transcript"));
            assert_ne!(of_client, of_server);
        }
    }
}
