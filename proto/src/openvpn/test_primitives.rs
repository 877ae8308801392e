//! The trait over aws-lc-rs, for tests alone.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac::{Context, HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key};
use aws_lc_rs::iv::FixedLength;

use super::primitives::{AES_KEY_LEN, COUNTER_LEN, Primitives, SHA1_LEN};
use crate::sealing::aead::CipherRefused;

pub(crate) struct Aws;

impl Primitives for Aws {
    fn aes_256_ctr(key: &[u8; AES_KEY_LEN], counter: [u8; COUNTER_LEN], data: &mut [u8]) -> Result<(), CipherRefused> {
        let key = UnboundCipherKey::new(&AES_256, key).and_then(EncryptingKey::ctr).map_err(|_| CipherRefused)?;
        let context = EncryptionContext::Iv128(FixedLength::from(counter));
        key.less_safe_encrypt(data, context).map(|_| ()).map_err(|_| CipherRefused)
    }

    fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; SHA1_LEN] {
        let mut context = Context::with_key(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().try_into().unwrap()
    }
}
