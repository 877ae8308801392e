//! The way by a code that is typed at the provider.

use adit_proto::login::Verdict;
use adit_server::config::OidcConfig;
use adit_server::sources::{LinkAnswer, LinkSource as _, LinkWish};
use serde_json::json;

use super::provider::{self, GATEWAY, source};
use super::{Browser, not_permitted, settled, somewhere};

fn elsewhere() -> Browser {
    Browser::new(GATEWAY, ([127, 0, 0, 1], 1).into())
}

#[tokio::test]
async fn user_who_types_the_code_anywhere_is_known() {
    let Some(provider) = provider::start(&json!({})) else { return };
    provider.control(json!({"users": {"1001": {"preferred_username": "alice", "groups": ["staff"]}}})).await;
    // Without a way back, a redirect is no way, and a code stands in for it.
    let oidc = source(OidcConfig { listen: Vec::new(), ..provider.settings("adit-RS256") });
    let started = oidc.begin(LinkWish::Redirect, &somewhere()).await.unwrap();
    let code = started.user_code.clone().unwrap();
    assert!(started.url.starts_with(&provider.issuer) && started.url.contains(&code), "{}", started.url);
    assert_eq!((started.interval.as_secs(), started.lifetime.as_secs()), (5, 120));
    let before = provider.asked("/token").await;
    for _poll in 0..3 {
        assert!(matches!(oidc.poll(&started.state, None).await, LinkAnswer::Pending { .. }));
    }
    assert_eq!(provider.asked("/token").await, before, "a hasty client does not make the gateway one");
    tokio::time::sleep(started.interval).await;
    assert!(matches!(oidc.poll(&started.state, None).await, LinkAnswer::Pending { .. }), "nobody has typed it yet");
    assert_eq!(provider.asked("/token").await, before + 1);
    let page = elsewhere().log_in(&started.url, Some("1001")).await.ok().unwrap();
    assert_eq!(page.status, 200);
    let Verdict::Accepted(person) = settled(&oidc, &started).await else { panic!("not accepted") };
    assert_eq!((person.name.as_str(), person.groups), ("alice", vec!["staff".to_owned()]));
    assert_eq!(person.subject, format!("{} 1001", provider.issuer));
    let reason = not_permitted(oidc.poll(&started.state, None).await);
    assert!(reason.contains("not used in time"), "{reason}");
}

#[tokio::test]
async fn user_who_cancels_at_the_provider_is_refused() {
    let Some(provider) = provider::start(&json!({})) else { return };
    let oidc = provider.source("adit-RS256");
    let started = oidc.begin(LinkWish::DeviceCode, &somewhere()).await.unwrap();
    elsewhere().log_in(&started.url, None).await.ok().unwrap();
    let Verdict::Refused(cause) = settled(&oidc, &started).await else { panic!("not refused") };
    assert!(cause.to_string().contains("access_denied"), "{cause}");
}

#[tokio::test]
async fn state_that_nobody_was_given_is_no_login() {
    let Some(provider) = provider::start(&json!({})) else { return };
    let oidc = provider.source("adit-RS256");
    for state in [b"".as_slice(), b"x", &[0xff; 64]] {
        not_permitted(oidc.poll(state, None).await);
    }
    assert_eq!(provider.asked("/token").await, 0);
}
