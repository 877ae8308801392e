//! The way by redirect: authorization code, PKCE, state, nonce.

use std::sync::Arc;

use adit_program::durable_file;
use adit_proto::login::{Method, Verdict};
use adit_server::config::{OidcConfig, SecretPlace};
use adit_server::sources::{ClientOfBrowser, LinkAnswer, LinkSource as _, LinkWish, Source as _, WayToClient};
use serde_json::json;

use super::provider::{self, GATEWAY, Provider, source};
use super::{Begun, Browser, accepted, not_permitted, serve, somewhere};

fn good() -> Option<Provider> {
    provider::start(&json!({}))
}

#[tokio::test]
async fn user_who_logs_in_at_the_provider_is_known_with_name_and_groups() {
    let Some(provider) = good() else { return };
    provider.control(json!({"users": {"1001": {"preferred_username": "alice", "groups": ["staff", "ops"]}}})).await;
    let mut login = Begun::new(provider.source("adit-RS256")).await;
    assert!(matches!(login.poll().await, LinkAnswer::Pending { .. }));
    let (page, answer) = login.log_in("1001").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("You are alice"), "{}", page.body);
    let person = accepted(answer);
    assert_eq!(person.subject, format!("{} 1001", provider.issuer));
    assert_eq!((person.source.as_str(), person.name.as_str()), ("oidc", "alice"));
    assert_eq!(person.groups, ["staff", "ops"]);
    assert_eq!(person.methods, [Method::Browser]);
    assert!(matches!(login.poll().await, LinkAnswer::Settled(Verdict::Refused(_))), "it is told once");
}

#[tokio::test]
async fn each_permitted_signature_is_taken_and_others_are_not() {
    let Some(provider) = good() else { return };
    for (client, taken) in [
        ("adit-RS256", true),
        ("adit-PS256", true),
        ("adit-ES256", true),
        ("adit-EdDSA", true),
        ("adit-ES384", false),
        ("adit-HS256", false),
    ] {
        let (_, answer) = Begun::new(provider.source(client)).await.log_in("alice").await;
        if taken {
            assert_eq!(accepted(answer).name, "alice", "{client}");
        } else {
            assert!(not_permitted(answer).contains("algorithm"), "{client}");
        }
    }
}

#[tokio::test]
async fn client_proves_itself_in_the_body_or_not_at_all_as_it_is_registered() {
    let Some(provider) = good() else { return };
    let (_, answer) = Begun::new(provider.source("adit-public")).await.log_in("alice").await;
    assert_eq!(accepted(answer).name, "alice");
}

#[tokio::test]
async fn wrong_client_secret_is_the_gateways_fault_and_not_the_users() {
    let Some(provider) = good() else { return };
    let mut settings = provider.settings("adit-RS256");
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("secret");
    durable_file::create(&wrong, b"another\n", 0o600).unwrap();
    settings.client_secret = Some(SecretPlace::File(wrong));
    let (page, answer) = Begun::new(source(settings)).await.log_in("alice").await;
    assert_eq!(page.status, 503);
    let LinkAnswer::Settled(Verdict::Unavailable(reason)) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("oidc.client_secret_file") && reason.contains("invalid_client"), "{reason}");
}

#[tokio::test]
async fn way_back_with_another_state_or_from_another_browser_changes_nothing() {
    let Some(provider) = good() else { return };
    let mut login = Begun::new(provider.source("adit-RS256")).await;
    let callback = login.callback(Some("alice")).await;
    let other_state = callback.replace("state=", "state=x");
    assert_eq!(login.browser.get(&other_state).await.status, 410);
    let cookies = std::mem::take(&mut login.browser.cookies);
    assert_eq!(login.browser.get(&callback).await.status, 403);
    assert!(matches!(login.poll().await, LinkAnswer::Pending { .. }));
    login.browser.cookies = cookies;
    assert_eq!(login.browser.get(&callback).await.status, 200);
    assert_eq!(login.browser.get(&callback).await.status, 410, "each way back is good once");
    assert_eq!(accepted(login.poll().await).name, "alice");
}

/// A client that opens a browser itself, and may have told a key for it that is one.
struct Opener {
    has_key: bool,
}

impl ClientOfBrowser for Opener {
    fn way(&self) -> Option<WayToClient> {
        let location = "http://localhost:29786/api/sso/sealed".to_owned();
        self.has_key.then(|| WayToClient { location, proof: "proof".to_owned().into() })
    }
}

#[tokio::test]
async fn client_whose_key_is_none_gets_the_link_of_those_that_tell_none() {
    let Some(provider) = good() else { return };
    let oidc = provider.source("adit-RS256");
    let begin = async |wish| oidc.begin(wish, &somewhere()).await.unwrap();
    let client = |has_key| LinkWish::ToClient(Arc::new(Opener { has_key }));
    let (with, without) = (begin(client(true)).await, begin(client(false)).await);
    assert!(with.returns && !without.returns, "the positive control, and no way");
    let usual = begin(LinkWish::DeviceCode).await;
    assert_eq!((without.user_code.is_some(), without.interval), (usual.user_code.is_some(), usual.interval));
}

#[tokio::test]
async fn browser_that_goes_on_to_its_client_brings_the_proof_without_which_nobody_is_let_in() {
    let Some(provider) = good() else { return };
    let way = || LinkWish::ToClient(Arc::new(Opener { has_key: true }));
    let mut login = Begun::with(provider.source("adit-RS256"), way()).await;
    assert!(login.started.returns);
    let callback = login.callback(Some("alice")).await;
    let sent = login.browser.get(&callback).await;
    assert_eq!(sent.status, 303, "{}", sent.body);
    let location = sent.headers["location"].to_str().unwrap();
    let end = location.strip_prefix("http://localhost:29786/api/sso/sealed?return=").unwrap();
    assert_eq!(end, "https%3A%2F%2Fgateway.test%2Flogin%2Fend");
    let end = login.browser.get(&format!("{GATEWAY}/login/end")).await;
    assert!(end.status == 200 && end.body.contains("can be closed"), "{}", end.body);
    assert!(matches!(login.poll().await, LinkAnswer::Pending { .. }), "nobody is let in without the proof");
    let state = &login.started.state;
    assert_eq!(accepted(login.oidc.poll(state, Some("proof")).await).name, "alice");
    assert!(not_permitted(login.oidc.poll(state, Some("proof")).await).contains("not used in time"), "it is good once");

    let mut other = Begun::with(provider.source("adit-RS256"), way()).await;
    let callback = other.callback(None).await;
    let seen = other.browser.get(&callback).await;
    assert_eq!(seen.status, 403, "who cancels is told so, and goes nowhere: {}", seen.body);
    let state = &other.started.state;
    assert!(not_permitted(other.oidc.poll(state, Some("proofs")).await).contains("another login"));
    assert!(not_permitted(other.oidc.poll(state, Some("proof")).await).contains("not used in time"));
}

#[tokio::test]
async fn code_of_another_login_is_refused_as_it_was_not_asked_for_with_this_verifier() {
    let Some(provider) = good() else { return };
    let mut stolen = Begun::new(provider.source("adit-RS256")).await;
    let mut login = Begun::new(provider.source("adit-RS256")).await;
    let code = |callback: &str| callback.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let theirs = code(&stolen.callback(Some("alice")).await);
    let callback = login.callback(Some("eve")).await;
    let injected = callback.replace(&code(&callback), &theirs);
    assert_eq!(login.browser.get(&injected).await.status, 403);
    assert!(not_permitted(login.poll().await).contains("invalid_grant"));
}

#[tokio::test]
async fn token_that_is_not_for_this_login_is_refused() {
    let Some(provider) = good() else { return };
    for (claims, named) in [
        (json!({"nonce": "another"}), "nonce"),
        (json!({"nonce": null}), "nonce"),
        (json!({"iss": "https://other.test"}), "https://other.test"),
        (json!({"aud": "another"}), "audience"),
        (json!({"aud": ["adit-RS256", "another"]}), "azp"),
        (json!({"exp": 1_000_000_000}), "expired"),
        (json!({"iat": 4_000_000_000_u64}), "future"),
        (json!({"sub": null}), "sub"),
    ] {
        provider.control(json!({ "claims": claims })).await;
        let (page, answer) = Begun::new(provider.source("adit-RS256")).await.log_in("alice").await;
        assert_eq!(page.status, 403, "{claims}");
        let reason = not_permitted(answer);
        assert!(reason.contains(named), "{claims}: {reason}");
    }
    provider.control(json!({"claims": {"exp": 4_000_000_000_u64}})).await;
    let (_, answer) = Begun::new(provider.source("adit-RS256")).await.log_in("alice").await;
    assert_eq!(accepted(answer).name, "alice", "changed tokens are well signed");
}

#[tokio::test]
async fn answer_that_names_no_issuer_or_another_is_refused() {
    let Some(provider) = good() else { return };
    for change in
        [|callback: &str| callback.replace("iss=http", "iss=https"), |callback: &str| callback.replace("iss=", "x=")]
    {
        let mut login = Begun::new(provider.source("adit-RS256")).await;
        let callback = login.callback(Some("alice")).await;
        assert!(callback.contains("iss=http"), "{callback}");
        assert_eq!(login.browser.get(&change(&callback)).await.status, 403);
        assert!(not_permitted(login.poll().await).contains("another provider"));
    }
}

#[tokio::test]
async fn user_who_cancels_is_refused_in_the_providers_words() {
    let Some(provider) = good() else { return };
    let mut login = Begun::new(provider.source("adit-RS256")).await;
    let callback = login.callback(None).await;
    assert_eq!(login.browser.get(&callback).await.status, 403);
    assert!(not_permitted(login.poll().await).contains("access_denied"));
}

#[tokio::test]
async fn claims_that_are_in_the_userinfo_alone_are_fetched() {
    let Some(provider) = provider::start(&json!({"userinfo": true})) else { return };
    provider.control(json!({"users": {"1001": {"preferred_username": "alice", "groups": ["staff"]}}})).await;
    let (_, answer) = Begun::new(provider.source("adit-RS256")).await.log_in("1001").await;
    let person = accepted(answer);
    assert_eq!((person.name.as_str(), person.groups), ("alice", vec!["staff".to_owned()]));
}

#[tokio::test]
async fn three_hundred_groups_come_through_and_groups_left_out_name_the_cure() {
    let Some(provider) = good() else { return };
    let groups: Vec<String> = (0..300).map(|number| format!("a group with a long name, number {number}")).collect();
    provider.control(json!({"users": {"alice": { "groups": groups }}})).await;
    let (_, answer) = Begun::new(provider.source("adit-RS256")).await.log_in("alice").await;
    assert_eq!(accepted(answer).groups, groups);
    provider.control(json!({"users": {"bob": {"_claim_names": {"groups": "src1"}}}})).await;
    let (_, answer) = Begun::new(provider.source("adit-RS256")).await.log_in("bob").await;
    let reason = not_permitted(answer);
    assert!(reason.contains("too many groups") && reason.contains("app roles"), "{reason}");
}

#[tokio::test]
async fn address_that_the_provider_has_not_verified_is_no_name() {
    let Some(provider) = good() else { return };
    let settings = || OidcConfig { name_claim: "email".to_owned(), ..provider.settings("adit-RS256") };
    let claims = |verified: bool| json!({"users": {"1001": {"email": "alice@corp.test", "email_verified": verified}}});
    provider.control(claims(false)).await;
    let (_, answer) = Begun::new(source(settings())).await.log_in("1001").await;
    assert!(not_permitted(answer).contains("e-mail"));
    provider.control(claims(true)).await;
    let (_, answer) = Begun::new(source(settings())).await.log_in("1001").await;
    assert_eq!(accepted(answer).name, "alice@corp.test");
}

#[tokio::test]
async fn claim_that_is_missing_is_told_with_its_key() {
    let Some(provider) = good() else { return };
    let settings = OidcConfig { name_claim: "upn".to_owned(), ..provider.settings("adit-RS256") };
    let (_, answer) = Begun::new(source(settings)).await.log_in("alice").await;
    let reason = not_permitted(answer);
    assert!(reason.contains("\"upn\"") && reason.contains("oidc.name_claim"), "{reason}");
}

#[tokio::test]
async fn new_key_is_looked_for_once_a_minute() {
    let Some(provider) = good() else { return };
    let oidc = provider.source("adit-RS256");
    let (_, answer) = Begun::new(Arc::clone(&oidc)).await.log_in("alice").await;
    accepted(answer);
    assert_eq!(provider.asked("/jwks").await, 1);
    provider.control(json!({"rotate": "second"})).await;
    let (_, answer) = Begun::new(Arc::clone(&oidc)).await.log_in("alice").await;
    accepted(answer);
    assert_eq!(provider.asked("/jwks").await, 2);
    provider.control(json!({"rotate": "never shown", "published": false})).await;
    for _login in 0..2 {
        let (_, answer) = Begun::new(Arc::clone(&oidc)).await.log_in("alice").await;
        assert!(not_permitted(answer).contains("a key that the provider does not publish"));
    }
    assert_eq!(provider.asked("/jwks").await, 2);
}

#[tokio::test]
async fn provider_that_is_away_is_named_and_asked_again_later() {
    let Some(provider) = good() else { return };
    let issuer = provider.issuer.clone();
    let settings = provider.settings("adit-RS256");
    let (again, _port) = provider.restart();
    // Nothing is asked before it is needed: the source is made while the provider is away.
    let oidc = source(settings);
    let reason = oidc.begin(LinkWish::Redirect, &somewhere()).await.err().unwrap().to_string();
    assert!(reason.starts_with("oidc: 127.0.0.1 cannot be reached"), "{reason}");
    let _provider = again();
    let started = tokio::time::timeout(adit_testing::PATIENCE, async {
        loop {
            match oidc.begin(LinkWish::Redirect, &somewhere()).await {
                Ok(started) => break started,
                Err(_away) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    });
    assert!(started.await.unwrap().url.starts_with("https://gateway.test/login/start?"), "{issuer}");
}

#[tokio::test]
async fn configuration_of_another_issuer_is_not_taken() {
    let Some(provider) = good() else { return };
    let issuer = Some(provider.issuer.replace("127.0.0.1", "localhost"));
    let oidc = source(OidcConfig { issuer, ..provider.settings("adit-RS256") });
    let reason = oidc.begin(LinkWish::Redirect, &somewhere()).await.err().unwrap().to_string();
    assert!(reason.contains("write oidc.issuer exactly so"), "{reason}");
}

#[tokio::test]
async fn passwords_are_for_other_sources() {
    let Some(provider) = good() else { return };
    let oidc = provider.source("adit-RS256");
    let password = zeroize::Zeroizing::new("x".to_owned());
    assert_eq!(oidc.check("alice", &password, &somewhere()).await, Verdict::Unknown);
    assert_eq!(provider.asked("/.well-known/openid-configuration").await, 0);
}

#[tokio::test]
async fn pages_keep_scripts_frames_and_caches_out() {
    let Some(provider) = good() else { return };
    let oidc = provider.source("adit-RS256");
    let (address, _serving) = serve(&oidc, ([127, 0, 0, 1], 0).into());
    let started = oidc.begin(LinkWish::Redirect, &somewhere()).await.unwrap();
    let mut browser = Browser::new(GATEWAY, address);
    let page = browser.get(&started.url).await;
    let header = |name: &str| page.headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert!(header("content-security-policy").starts_with("default-src 'none'"));
    assert!(header("content-security-policy").contains("frame-ancestors 'none'"));
    assert_eq!((header("cache-control").as_str(), header("referrer-policy").as_str()), ("no-store", "no-referrer"));
    let cookie = header("set-cookie");
    for part in ["__Host-adit-", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(browser.get("https://gateway.test/login/start?x").await.status, 410);
    assert_eq!(browser.get("https://gateway.test/").await.status, 404);
    assert_eq!(browser.get("https://gateway.test/login/style.css").await.status, 200);
    let posted = browser.request("POST", &started.url, String::new()).await;
    assert_eq!((posted.status, posted.headers.contains_key("content-security-policy")), (405, true));
}
