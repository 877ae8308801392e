use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use aws_lc_rs::{hmac, rand};
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;

use super::*;

const ISSUER: &str = "https://provider.example";
const CLIENT: &str = "adit-gateway";
const NONCE: &str = "the-nonce";
/// The time of all these tests, in seconds of Unix time.
const NOW: u64 = 2_000_000_000;

struct World {
    key: Ed25519KeyPair,
    keys: CoreJsonWebKeySet,
}

impl World {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&rand::SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let public = BASE64URL_NOPAD.encode(key.public_key().as_ref());
        let keys = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "alg": "EdDSA", "x": public},
            {"kty": "a kind of the future", "kid": "two"},
        ]});
        Self { key, keys: serde_json::from_value(keys).unwrap() }
    }

    fn token(&self, header: &Value, payload: &Value) -> String {
        let signed = signed_part(header, payload);
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }

    fn believe(&self, token: &str) -> Result<Claims, Unbelieved> {
        self.believe_with(token, Some(&Nonce::new(NONCE.to_owned())))
    }

    fn believe_with(&self, token: &str, nonce: Option<&Nonce>) -> Result<Claims, Unbelieved> {
        let (issuer, client) = (IssuerUrl::new(ISSUER.to_owned()).unwrap(), ClientId::new(CLIENT.to_owned()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        believe(token, &self.keys, &Expected { issuer: &issuer, client: &client, nonce, now })
    }

    /// Whether a good payload with this change is still believed.
    fn takes(&self, change: impl FnOnce(&mut Map<String, Value>)) -> bool {
        let mut payload = payload();
        change(payload.as_object_mut().unwrap());
        self.believe(&self.token(&header(), &payload)).is_ok()
    }
}

fn header() -> Value {
    json!({"alg": "EdDSA", "kid": "one", "typ": "JWT"})
}

fn payload() -> Value {
    json!({
        "iss": ISSUER, "sub": "248289761001", "aud": CLIENT, "exp": NOW + 60, "iat": NOW, "nonce": NONCE,
        "preferred_username": "alice", "groups": ["staff", "ops"], "realm_access": {"roles": ["vpn"]},
    })
}

fn signed_part(header: &Value, payload: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(payload))
}

fn set(name: &str, value: Value) -> impl FnOnce(&mut Map<String, Value>) {
    let name = name.to_owned();
    move |payload| {
        payload.insert(name, value);
    }
}

#[test]
fn good_token_gives_all_its_claims() {
    let world = World::new();
    let claims = world.believe(&world.token(&header(), &payload())).unwrap();
    assert_eq!(claims.text("sub"), Some("248289761001"));
    assert_eq!(claims.text("preferred_username"), Some("alice"));
    assert_eq!(claims.groups("groups"), Ok(Some(vec!["staff".to_owned(), "ops".to_owned()])));
    assert_eq!(claims.groups("realm_access.roles"), Ok(Some(vec!["vpn".to_owned()])));
    assert_eq!(claims.groups("preferred_username"), Ok(Some(vec!["alice".to_owned()])));
    assert_eq!(claims.groups("none"), Ok(None));
    assert_eq!(claims.groups("realm_access.none"), Ok(None));
    assert!(claims.groups("exp").is_err() && claims.groups("realm_access").is_err());
}

#[test]
fn token_of_another_issuer_or_for_another_client_is_refused() {
    let world = World::new();
    assert!(world.takes(|_| {}));
    for issuer in ["https://provider.example/", "https://PROVIDER.example", "https://other.example"] {
        assert!(!world.takes(set("iss", json!(issuer))), "{issuer}");
    }
    assert!(!world.takes(set("aud", json!("another"))));
    assert!(!world.takes(set("aud", json!([]))));
    assert!(!world.takes(set("aud", json!([CLIENT, "another"]))), "nobody says for which of the two");
    assert!(world.takes(|payload| {
        payload.insert("aud".to_owned(), json!([CLIENT, "another"]));
        payload.insert("azp".to_owned(), json!(CLIENT));
    }));
    assert!(!world.takes(set("azp", json!("another"))));
    assert!(world.takes(set("azp", json!(CLIENT))));
}

#[test]
fn clocks_may_be_a_minute_apart() {
    let world = World::new();
    assert!(world.takes(set("exp", json!(NOW - 59))));
    assert!(!world.takes(set("exp", json!(NOW - 60))));
    assert!(world.takes(set("iat", json!(NOW + 60))));
    assert!(!world.takes(set("iat", json!(NOW + 61))));
    assert!(world.takes(set("nbf", json!(NOW + 60))));
    assert!(!world.takes(set("nbf", json!(NOW + 61))));
}

#[test]
fn login_takes_only_the_token_of_its_own_nonce() {
    let world = World::new();
    assert!(!world.takes(set("nonce", json!("another"))));
    assert!(!world.takes(|payload| {
        payload.remove("nonce");
    }));
    let mut without = payload();
    without.as_object_mut().unwrap().remove("nonce");
    assert!(world.believe_with(&world.token(&header(), &without), None).is_ok(), "device codes have none");
}

#[test]
fn token_of_an_unknown_key_is_told_from_a_forged_one() {
    let world = World::new();
    let other = json!({"alg": "EdDSA", "kid": "new", "typ": "JWT"});
    assert_eq!(world.believe(&world.token(&other, &payload())), Err(Unbelieved::UnknownKey));
    let forged = World::new().token(&header(), &payload());
    assert!(matches!(world.believe(&forged), Err(Unbelieved::Other(_))));
    let mut changed = world.token(&header(), &payload());
    let other_payload = signed_part(&header(), &json!({"sub": "eve"}));
    changed.replace_range(..changed.rfind('.').unwrap(), &other_payload);
    assert!(matches!(world.believe(&changed), Err(Unbelieved::Other(_))));
}

#[test]
fn token_without_a_signature_or_with_one_that_anybody_makes_is_refused() {
    let world = World::new();
    let unsigned = signed_part(&json!({"alg": "none"}), &payload());
    assert!(world.believe(&format!("{unsigned}.")).is_err());
    // The public key, or nothing, as the secret of a MAC.
    for secret in [world.key.public_key().as_ref(), b"".as_slice()] {
        let signed = signed_part(&json!({"alg": "HS256", "kid": "one"}), &payload());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        assert!(world.believe(&format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))).is_err());
    }
    for nonsense in ["", "a", "a.b", "a.b.c", "..", "é.é.é"] {
        assert!(world.believe(nonsense).is_err(), "{nonsense}");
    }
}

#[test]
fn groups_that_were_left_out_are_an_error_that_names_the_cure() {
    let claims = |extra: Value| {
        let mut claims = payload();
        claims.as_object_mut().unwrap().remove("groups");
        claims.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let Value::Object(claims) = claims else { unreachable!() };
        Claims(claims)
    };
    let left_out = claims(json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {}}}));
    let error = left_out.groups("groups").unwrap_err();
    assert!(error.contains("app roles"), "{error}");
    assert_eq!(claims(json!({"_claim_names": {"address": "src1"}})).groups("groups"), Ok(None));
}

#[test]
fn three_hundred_groups_are_taken_and_a_flood_is_not() {
    let of = |count: usize| {
        let groups: Vec<String> = (0..count).map(|number| format!("group-{number}")).collect();
        Claims(json!({ "groups": groups }).as_object().unwrap().clone()).groups("groups")
    };
    assert_eq!(of(300).unwrap().unwrap().len(), 300);
    assert!(of(MOST_GROUPS + 1).is_err());
}

#[test]
fn userinfo_fills_gaps_and_is_about_the_same_person() {
    let token = Claims(json!({"sub": "1", "groups": ["a"]}).as_object().unwrap().clone());
    let body = br#"{"sub": "1", "groups": ["b"], "preferred_username": "alice"}"#;
    let both = token.or(Claims::of_userinfo(body, "1").unwrap());
    assert_eq!(both.groups("groups"), Ok(Some(vec!["a".to_owned()])));
    assert_eq!(both.text("preferred_username"), Some("alice"));
    assert!(Claims::of_userinfo(body, "2").is_err());
    assert!(Claims::of_userinfo(b"{}", "1").is_err());
}
