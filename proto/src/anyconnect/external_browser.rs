//! How a browser tells the client on its own host that the user has logged in: the client listens there, and the end of
//! the login sends the browser to it, with a token that is sealed for a key which the client made for this.
//!
//! ```text
//! http://localhost:29786/api/sso/BLOB        and behind it, where the browser goes then: ?return=URL
//!
//! BLOB  = base64, with what has a meaning in URLs escaped, of:
//!         version (2), 1       then fields, each a number (2), a length (2) and a value:
//!         1  public key of the gateway, made for this token, as SubjectPublicKeyInfo (91)
//!         2  the first bytes of the tag (12)
//!         3  the token, sealed by AES-256-GCM
//!         4  nonce (12)
//! key   = HKDF-SHA-256 over the secret of ECDH on P-256, without salt, info "AC_ECIES" (32)
//! ```
//!
//! Only the process that has the client's private key can read the token. It posts it as the answer to the form.

use data_encoding::BASE64;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::sealing::aead::{Aead, CipherRefused, NONCE_LEN};
use crate::sealing::suite::Suite;

/// What a client says that it can do.
pub const CAPABILITY: &str = "single-sign-on-external-browser";
/// The header in which it says its key.
pub const KEY_HEADER: &str = "x-anyconnect-strap-dh-pubkey";
/// Bytes of a point on P-256 that is not compressed.
pub const POINT_LEN: usize = 65;

/// Where the client listens.
const CLIENT: &str = "http://localhost:29786/api/sso/";
/// What stands in front of an uncompressed point on P-256 in a SubjectPublicKeyInfo (RFC 5480 section 2).
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The first byte of such a point (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;
const VERSION: u16 = 1;
const KEY_INFO: &[u8] = b"AC_ECIES";
/// Bytes of a tag that are sent.
const SENT_TAG: usize = 12;

/// A public key for agreeing on a secret. That its point is on the curve is for whoever does that to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgreementKey([u8; POINT_LEN]);

impl AgreementKey {
    /// Reads the value of [`KEY_HEADER`]; `None` if it is no key for P-256 in the form that clients write.
    pub fn of_header(value: &str) -> Option<Self> {
        // Base64 of those bytes, and not of a body that somebody would have us decode.
        let longest = (SPKI_HEAD.len() + POINT_LEN).div_ceil(3) * 4;
        let spki = BASE64.decode(Some(value).filter(|value| value.len() <= longest)?.as_bytes()).ok()?;
        Self::of_point(spki.strip_prefix(&SPKI_HEAD)?)
    }

    /// Takes a point; `None` if it is not an uncompressed one.
    pub fn of_point(point: &[u8]) -> Option<Self> {
        let point: [u8; POINT_LEN] = point.try_into().ok()?;
        (point.first() == Some(&UNCOMPRESSED)).then_some(Self(point))
    }

    /// The point.
    pub const fn point(&self) -> &[u8; POINT_LEN] {
        &self.0
    }
}

/// The URL that gives a token to a client. `secret` is what its key and the private half of `ours` agree on; both that
/// key pair and the secret are for this token alone, so any nonce is new. Clients take letters and digits as a token.
///
/// # Errors
/// The cipher does not do it.
pub fn location<A: Aead>(
    token: &str,
    secret: &[u8],
    ours: &AgreementKey,
    nonce: [u8; NONCE_LEN],
) -> Result<String, CipherRefused> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, secret).expand(KEY_INFO, key.as_mut_slice()).map_err(|_too_long| CipherRefused)?;
    let mut sealed = token.as_bytes().to_vec();
    let tag = A::new(Suite::Aes256Gcm, key.as_slice())?.seal(nonce, &[], &mut sealed)?;
    let (tag, _unsent) = tag.split_first_chunk::<SENT_TAG>().ok_or(CipherRefused)?;
    let spki = [SPKI_HEAD.as_slice(), &ours.0].concat();
    let fields: [(u16, &[u8]); 4] = [(1, &spki), (2, tag), (3, &sealed), (4, &nonce)];
    let mut blob = VERSION.to_be_bytes().to_vec();
    for (number, value) in fields {
        let len = u16::try_from(value.len()).map_err(|_too_long| CipherRefused)?;
        blob.extend([number.to_be_bytes(), len.to_be_bytes()].concat());
        blob.extend(value);
    }
    let blob = BASE64.encode(&blob).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    Ok(format!("{CLIENT}{blob}"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;
    use crate::sealing::test_cipher::AwsCipher;

    /// A key of openconnect 9.01, and a token sealed for it by another implementation, which that client has opened.
    const CLIENTS_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4n0QQOuOv3PZaUi08xFjXnOFY8nP9Z9WO/A0gV+oqDvX+WAw\
        GNOJ7vg10Wx1nvgK5+hFYf9NVZGxu8BHuofccw==";
    const OURS: &str = "97c91d5ec23a7662e27201d0243cb46c6fcd5dfd953f3ade0364e815e2fc3e51";
    const NONCE: &str = "c4e0c0c4d1b037e2c2ddddb7";
    const TOKEN: &str = "Abc123Xyz";
    const BLOB: &str = "AAEAAQBbMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEwyEayaWqY3IunkSjX6Uufk5xOLv5JoOZdq/wC7y\
        2mNb6G+BG//tCC5G1odim26oT7UVzJaF6jHSex4PIXidFwACAAwe4TksUzmNF+wlmb0AAwAJhfus/mgqwKW7\
        AAQADMTgwMTRsDfiwt3dtw==";

    #[test]
    fn token_is_sealed_as_a_stock_client_opens_it() {
        let clients = AgreementKey::of_header(CLIENTS_KEY).unwrap();
        let ours = PrivateKey::from_private_key(&ECDH_P256, &HEXLOWER.decode(OURS.as_bytes()).unwrap()).unwrap();
        let public = AgreementKey::of_point(ours.compute_public_key().unwrap().as_ref()).unwrap();
        let nonce = HEXLOWER.decode(NONCE.as_bytes()).unwrap().try_into().unwrap();
        let theirs = UnparsedPublicKey::new(&ECDH_P256, clients.point());
        let seal = |secret: &[u8]| location::<AwsCipher>(TOKEN, secret, &public, nonce);
        let location = agree(&ours, theirs, CipherRefused, seal).unwrap();
        let blob = location.strip_prefix(CLIENT).unwrap();
        assert!(blob.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'%'), "it may stand in a URL: {blob}");
        assert_eq!(blob.replace("%2B", "+").replace("%2F", "/").replace("%3D", "="), BLOB);
    }

    #[test]
    fn key_is_one_of_p_256_in_the_one_form_that_clients_write() {
        assert!(AgreementKey::of_header(CLIENTS_KEY).is_some(), "the positive control");
        let spki = BASE64.decode(CLIENTS_KEY.as_bytes()).unwrap();
        let written = |spki: &[u8]| AgreementKey::of_header(&BASE64.encode(spki));
        assert!(written(&spki).is_some());
        let changed = |at: usize, to: u8| {
            let mut spki = spki.clone();
            spki[at] = to;
            written(&spki)
        };
        assert_eq!(changed(22, 8), None, "another curve");
        assert_eq!(changed(26, 2), None, "a compressed point");
        assert_eq!(written(&spki[..90]), None);
        assert_eq!(written(&[&spki[..], &[0]].concat()), None);
        for garbage in ["", "!", "AAAA", &CLIENTS_KEY[1..], &CLIENTS_KEY.replace('w', "-"), &"A".repeat(100_000)] {
            assert_eq!(AgreementKey::of_header(garbage), None, "{garbage:.40}");
        }
    }

    proptest! {
        #[test]
        fn nothing_disturbs_the_reader_of_keys(value in "\\PC{0,140}") {
            AgreementKey::of_header(&value);
        }
    }
}
