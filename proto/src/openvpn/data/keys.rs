//! From the TLS session of a key id to the keys of both directions.
//!
//! ```text
//! exported = TLS exporter, label "EXPORTER-OpenVPN-datakeys", no context, 256 bytes
//!          = client to server: cipher (64)  MAC (64), server to client: cipher (64)  MAC (64)
//!
//! v2       key = the first bytes of cipher        IV = the first 8 bytes of MAC
//!
//! epoch    E_1     = the first 32 bytes of cipher
//!          E_(n+1) = Expand(E_n, "datakey upd", 32)
//!          key     = Expand(E_n, "data_key", bytes of a key)
//!          IV      = Expand(E_n, "data_iv", 12)
//!          Expand(secret, label, n) = HKDF-Expand(secret, n (2) ‖ length (1) ‖ "ovpn " ‖ label ‖ 0 (1), n)
//! ```
//!
//! HKDF is that of RFC 5869 with SHA-256. Versions before 2.6 made keys from the random bytes of the key method
//! messages; that is not done here.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::ZeroizeOnDrop;

use crate::openvpn::negotiation::Format;
use crate::role::Role;
use crate::sealing::aead::NONCE_LEN;
use crate::sealing::suite::{MAX_KEY_LEN, Suite};

/// The label for the TLS exporter; there is no context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-OpenVPN-datakeys";

/// Bytes to take from the exporter.
pub const EXPORTED_LEN: usize = 256;

/// Bytes for one cipher or MAC.
const PART_LEN: usize = 64;

/// Bytes of an IV of data v2.
pub(super) const V2_IV_LEN: usize = 8;

/// Bytes of an epoch's secret.
const SECRET_LEN: usize = 32;

/// The first epoch.
const FIRST_EPOCH: u16 = 1;

/// From this epoch on a session is to begin new keys, as openvpn 2.7 does: epochs must not run out.
pub const LATE_EPOCH: u16 = 0xf000;

/// What the TLS exporter gives for one key id. Erased when dropped.
#[derive(ZeroizeOnDrop)]
pub struct Exported([u8; EXPORTED_LEN]);

impl Exported {
    /// Takes it.
    pub const fn new(exported: [u8; EXPORTED_LEN]) -> Self {
        Self(exported)
    }

    /// The keys of what `sender` sends as data v2.
    pub fn v2(&self, suite: Suite, sender: Role) -> DirectionKeys {
        let (cipher, mac) = self.parts(sender);
        let mut keys = DirectionKeys::empty(suite, Format::V2, 0);
        keys.key.iter_mut().zip(cipher).for_each(|(place, byte)| *place = *byte);
        keys.iv.iter_mut().zip(mac).take(V2_IV_LEN).for_each(|(place, byte)| *place = *byte);
        keys
    }

    /// The secret of the first epoch of what `sender` sends.
    pub fn first_epoch(&self, suite: Suite, sender: Role) -> EpochSecret {
        let (cipher, _) = self.parts(sender);
        let secret = *cipher.first_chunk().expect("a secret is shorter than a part");
        EpochSecret { suite, epoch: FIRST_EPOCH, secret }
    }

    fn parts(&self, sender: Role) -> (&[u8; PART_LEN], &[u8; PART_LEN]) {
        let [client_cipher, client_mac, server_cipher, server_mac] = self.0.as_chunks::<PART_LEN>().0 else {
            unreachable!("there are four parts")
        };
        match sender {
            Role::Client => (client_cipher, client_mac),
            Role::Server => (server_cipher, server_mac),
        }
    }
}

/// The key of one direction, of one epoch if there are epochs, and its part of the nonces. Erased when dropped.
///
/// ```compile_fail
/// use adit_proto::openvpn::data::keys::DirectionKeys;
/// fn copy(keys: &DirectionKeys) -> DirectionKeys { keys.clone() }
/// ```
/// ```compile_fail
/// fn show(keys: &adit_proto::openvpn::data::keys::DirectionKeys) -> String { format!("{keys:?}") }
/// ```
#[derive(ZeroizeOnDrop)]
pub struct DirectionKeys {
    #[zeroize(skip)]
    pub(super) suite: Suite,
    #[zeroize(skip)]
    pub(super) format: Format,
    pub(super) epoch: u16,
    key: [u8; MAX_KEY_LEN],
    pub(super) iv: [u8; NONCE_LEN],
}

impl DirectionKeys {
    const fn empty(suite: Suite, format: Format, epoch: u16) -> Self {
        Self { suite, format, epoch, key: [0; MAX_KEY_LEN], iv: [0; NONCE_LEN] }
    }

    /// The key, as long as the cipher wants it.
    pub(super) fn key(&self) -> &[u8] {
        self.key.get(..self.suite.key_len()).expect("no key is longer than the longest")
    }
}

/// The secret of an epoch, from which its keys and those of all later epochs are made. Erased when dropped.
///
/// ```compile_fail
/// fn show(secret: &adit_proto::openvpn::data::keys::EpochSecret) -> String { format!("{secret:?}") }
/// ```
#[derive(ZeroizeOnDrop)]
pub struct EpochSecret {
    #[zeroize(skip)]
    suite: Suite,
    epoch: u16,
    secret: [u8; SECRET_LEN],
}

impl EpochSecret {
    /// The epoch's number.
    pub const fn epoch(&self) -> u16 {
        self.epoch
    }

    /// The keys of the epoch.
    pub fn keys(&self) -> DirectionKeys {
        let mut keys = DirectionKeys::empty(self.suite, Format::Epoch, self.epoch);
        let len = self.suite.key_len();
        expand(&self.secret, b"data_key", keys.key.get_mut(..len).expect("no key is longer than the longest"));
        expand(&self.secret, b"data_iv", &mut keys.iv);
        keys
    }

    /// That of the next epoch; `None` after the last.
    pub fn next(&self) -> Option<Self> {
        let mut next = Self { suite: self.suite, epoch: self.epoch.checked_add(1)?, secret: [0; SECRET_LEN] };
        expand(&self.secret, b"datakey upd", &mut next.secret);
        Some(next)
    }
}

fn expand(secret: &[u8; SECRET_LEN], label: &[u8], out: &mut [u8]) {
    const PREFIX: &[u8] = b"ovpn ";
    let len = u16::try_from(out.len()).expect("keys are short").to_be_bytes();
    let label_len = u8::try_from(PREFIX.len().saturating_add(label.len())).expect("labels are short");
    let hkdf = Hkdf::<Sha256>::from_prk(secret).expect("a secret is as long as a hash");
    let info = [&len[..], &[label_len], PREFIX, label, &[0]];
    hkdf.expand_multi_info(&info, out).expect("keys are shorter than what HKDF gives at most");
}
