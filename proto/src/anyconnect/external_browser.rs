//! How a browser tells the client on its own host that the user has logged in: the client listens there, and the end of
//! the login sends the browser to it, with a token that is sealed for a key which the client made for this.
//!
//! ```text
//! http://localhost:29786/api/sso/TOKEN       and behind it, where the browser goes then: ?return=URL
//! ```
//!
//! Only the process that has the client's private key can read the token ([`SealedToken`]). It posts it as the answer
//! to the form.

mod sealed_token;

use data_encoding::BASE64;
pub use sealed_token::{MAX_TOKEN, SealedToken};

use crate::sealing::aead::{Aead, CipherRefused, NONCE_LEN};

/// What a client says that it can do.
pub const CAPABILITY: &str = "single-sign-on-external-browser";
/// The header in which it says its key.
pub const KEY_HEADER: &str = "x-anyconnect-strap-dh-pubkey";
/// Bytes of a point on P-256 that is not compressed.
pub const POINT_LEN: usize = 65;
/// The port of its own host at which the client listens.
pub const PORT: u16 = 29786;
/// What stands in front of the token in the path.
pub const PATH: &str = "/api/sso/";

/// What stands in front of an uncompressed point on P-256 in a SubjectPublicKeyInfo (RFC 5480 section 2).
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The first byte of such a point (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// A public key for agreeing on a secret. That its point is on the curve is for whoever does that to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgreementKey([u8; POINT_LEN]);

impl AgreementKey {
    /// Reads the value of [`KEY_HEADER`]; `None` if it is no key for P-256 in the form that clients write.
    pub fn of_header(value: &str) -> Option<Self> {
        // Base64 of those bytes, and not of a body that somebody would have us decode.
        let longest = (SPKI_HEAD.len() + POINT_LEN).div_ceil(3) * 4;
        let spki = BASE64.decode(Some(value).filter(|value| value.len() <= longest)?.as_bytes()).ok()?;
        Self::of_spki(&spki)
    }

    /// The value of [`KEY_HEADER`].
    pub fn header(&self) -> String {
        BASE64.encode(&self.spki())
    }

    fn of_spki(spki: &[u8]) -> Option<Self> {
        Self::of_point(spki.strip_prefix(&SPKI_HEAD)?)
    }

    fn spki(&self) -> Vec<u8> {
        [SPKI_HEAD.as_slice(), &self.0].concat()
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
/// The token is longer than [`MAX_TOKEN`], or the cipher does not do it.
pub fn location<A: Aead>(
    token: &str,
    secret: &[u8],
    ours: &AgreementKey,
    nonce: [u8; NONCE_LEN],
) -> Result<String, CipherRefused> {
    let token = SealedToken::seal::<A>(token, secret, ours, nonce)?.encode();
    Ok(format!("http://localhost:{PORT}{PATH}{token}"))
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
        let blob = location.strip_prefix("http://localhost:29786/api/sso/").unwrap();
        assert!(blob.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'%'), "it may stand in a URL: {blob}");
        assert_eq!(blob.replace("%2B", "+").replace("%2F", "/").replace("%3D", "="), BLOB);
    }

    #[test]
    fn client_opens_what_the_gateway_sends_its_browser_with() {
        let generate = || PrivateKey::generate(&ECDH_P256).unwrap();
        let public = |key: &PrivateKey| AgreementKey::of_point(key.compute_public_key().unwrap().as_ref()).unwrap();
        let (clients, gateways, other) = (generate(), generate(), generate());
        let heard = AgreementKey::of_header(&public(&clients).header()).unwrap();
        let theirs = UnparsedPublicKey::new(&ECDH_P256, heard.point());
        let seal = |secret: &[u8]| location::<AwsCipher>(TOKEN, secret, &public(&gateways), [7; NONCE_LEN]);
        let location = agree(&gateways, theirs, CipherRefused, seal).unwrap();
        let path = location.strip_prefix(&format!("http://localhost:{PORT}")).unwrap();
        let sealed = SealedToken::decode(path.strip_prefix(PATH).unwrap()).unwrap();
        let opened_by = |key: &PrivateKey| {
            let theirs = UnparsedPublicKey::new(&ECDH_P256, sealed.gateways_key().point());
            agree(key, theirs, (), |secret| sealed.open::<AwsCipher>(secret).ok_or(())).ok()
        };
        assert_eq!(opened_by(&clients).unwrap().as_slice(), TOKEN.as_bytes());
        assert!(opened_by(&other).is_none(), "it is for another client");
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
