//! The way from a browser to the client on its own host.

use std::sync::Arc;

use adit_net::cipher::Cipher;
use adit_proto::anyconnect::external_browser::{AgreementKey, location};
use adit_proto::sealing::aead::CipherRefused;
use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use data_encoding::HEXLOWER;
use hyper::header::HeaderValue;
use zeroize::Zeroizing;

use super::dtls_door::random;
use crate::sources::{ClientOfBrowser, LinkWish, WayToClient};

/// A client that opens a browser itself and tells this key for it.
struct Opener(HeaderValue);

impl ClientOfBrowser for Opener {
    fn way(&self) -> Option<WayToClient> {
        way_to(&AgreementKey::of_header(self.0.to_str().ok()?)?)
    }
}

/// Which link suits a client that tells this key; the usual one without a key.
pub(super) fn link(key: Option<HeaderValue>) -> LinkWish {
    key.map_or(LinkWish::DeviceCode, |key| LinkWish::ToClient(Arc::new(Opener(key))))
}

/// Makes a proof and seals it for the client with this key. `None` if its point is not on the curve.
fn way_to(clients: &AgreementKey) -> Option<WayToClient> {
    let proof = Zeroizing::new(HEXLOWER.encode(Zeroizing::new(random::<32>()).as_slice()));
    let private = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).ok()?;
    let ours = AgreementKey::of_point(private.compute_public_key().ok()?.as_ref())?;
    let theirs = UnparsedPublicKey::new(&ECDH_P256, clients.point());
    let seal = |secret: &[u8]| location::<Cipher>(&proof, secret, &ours, random());
    let location = agree_ephemeral(private, theirs, CipherRefused, seal).ok()?;
    Some(WayToClient { location, proof })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement::{PrivateKey, agree};
    use data_encoding::BASE64;

    use super::*;

    const SPKI_HEAD: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

    /// A point as clients write it.
    fn header(point: &[u8]) -> HeaderValue {
        let spki = [&HEXLOWER.decode(SPKI_HEAD.as_bytes()).unwrap(), point].concat();
        HeaderValue::try_from(BASE64.encode(&spki)).unwrap()
    }

    fn way(point: &[u8]) -> Option<WayToClient> {
        way_with(header(point))
    }

    fn way_with(key: HeaderValue) -> Option<WayToClient> {
        match link(Some(key)) {
            LinkWish::ToClient(client) => client.way(),
            LinkWish::Redirect | LinkWish::DeviceCode => panic!("it has a key"),
        }
    }

    /// What a client with this key reads in a URL: the part that is the gateway's key, and the nonce.
    fn parts(location: &str) -> (AgreementKey, [u8; 12]) {
        let blob = location.strip_prefix("http://localhost:29786/api/sso/").unwrap();
        let blob = blob.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
        let blob = BASE64.decode(blob.as_bytes()).unwrap();
        let point = &blob[6 + 26..6 + 91];
        (AgreementKey::of_point(point).unwrap(), blob[blob.len() - 12..].try_into().unwrap())
    }

    #[test]
    fn proof_is_for_the_client_whose_key_it_was_and_new_each_time() {
        let [mine, other] = [(); 2].map(|()| PrivateKey::generate(&ECDH_P256).unwrap());
        let point = mine.compute_public_key().unwrap();
        let [way, again] = [(); 2].map(|()| way(point.as_ref()).unwrap());
        assert!(way.proof.len() == 64 && way.proof.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert!(way.proof != again.proof && !way.location.contains(way.proof.as_str()));
        let (ours, nonce) = parts(&way.location);
        let sealed_for = |key: &PrivateKey| {
            let theirs = UnparsedPublicKey::new(&ECDH_P256, ours.point());
            agree(key, theirs, CipherRefused, |secret| location::<Cipher>(&way.proof, secret, &ours, nonce)).unwrap()
        };
        assert_eq!(sealed_for(&mine), way.location);
        assert_ne!(sealed_for(&other), way.location);
    }

    #[test]
    fn key_that_is_none_leads_nowhere() {
        let point = PrivateKey::generate(&ECDH_P256).unwrap().compute_public_key().unwrap();
        assert!(way(point.as_ref()).is_some(), "the positive control");
        let mut beside = point.as_ref().to_vec();
        beside[64] ^= 1;
        assert!(way(&beside).is_none(), "it is not on the curve");
        assert!(way(&[&[4][..], &[0; 64]].concat()).is_none());
        assert!(way_with(HeaderValue::from_static("garbage")).is_none());
        assert!(way_with(HeaderValue::from_bytes(b"\xff").unwrap()).is_none());
        assert!(matches!(link(None), LinkWish::DeviceCode), "without a key it is as with every client");
    }
}
