//! Whether somebody who logged in before still may.

use std::sync::Arc;

use adit_proto::login::{Cause, Person};
use adit_server::config::{OidcConfig, SecretPlace};
use adit_server::sources::oidc::Oidc;
use adit_server::sources::{Recheck, Source as _};
use serde_json::json;

use super::provider::{self, Provider, source};
use super::{Begun, accepted, not_permitted};

async fn logged_in(provider: &Provider) -> (Arc<Oidc>, Person) {
    provider.control(json!({"users": {"alice": {"groups": ["staff", "ops"]}}})).await;
    let oidc = provider.source("adit-RS256");
    let (_, answer) = Begun::new(Arc::clone(&oidc)).await.log_in("alice").await;
    (oidc, accepted(answer))
}

#[tokio::test]
async fn user_goes_on_with_the_groups_of_now_until_the_provider_knows_them_no_longer() {
    let Some(provider) = provider::start(&json!({})) else { return };
    let (oidc, person) = logged_in(&provider).await;
    let allowed = |groups: &[&str]| Recheck::Allowed(groups.iter().map(|group| (*group).to_owned()).collect());
    assert_eq!(oidc.recheck(&person).await, allowed(&["staff", "ops"]));
    provider.control(json!({"users": {"alice": {"groups": ["staff"]}}})).await;
    // Each answer brings a new refresh token, and the provider takes none twice.
    for _time in 0..3 {
        assert_eq!(oidc.recheck(&person).await, allowed(&["staff"]));
    }
    provider.control(json!({"users": {"alice": null}})).await;
    assert_eq!(oidc.recheck(&person).await, Recheck::Ended(Cause::Disabled));
}

#[tokio::test]
async fn two_sessions_of_one_user_are_asked_about_in_turn() {
    let Some(provider) = provider::start(&json!({})) else { return };
    let (oidc, person) = logged_in(&provider).await;
    let (first, second) = tokio::join!(oidc.recheck(&person), oidc.recheck(&person));
    assert!(matches!((first, second), (Recheck::Allowed(_), Recheck::Allowed(_))));
}

#[tokio::test]
async fn provider_that_is_away_ends_nobodys_session() {
    let Some(provider) = provider::start(&json!({})) else { return };
    let (oidc, person) = logged_in(&provider).await;
    drop(provider);
    let Recheck::Unknown(reason) = oidc.recheck(&person).await else { panic!("not unknown") };
    assert!(reason.contains("cannot be reached"), "{reason}");
}

#[tokio::test]
async fn user_of_a_provider_that_was_replaced_is_not_asked_about_at_the_new_one() {
    let Some(provider) = provider::start(&json!({})) else { return };
    let (oidc, person) = logged_in(&provider).await;
    let before = provider.asked("/token").await;
    let former = Person { subject: person.subject.replace("127.0.0.1", "former.test"), ..person };
    assert!(matches!(oidc.recheck(&former).await, Recheck::Ended(Cause::NotPermitted(_))));
    assert_eq!(provider.asked("/token").await, before);
}

#[tokio::test]
async fn source_that_is_configured_anew_keeps_users_and_lets_logins_end_that_it_began_with_the_same_settings() {
    let Some(provider) = provider::start(&json!({})) else { return };
    let (oidc, person) = logged_in(&provider).await;
    let configure = |client: &str| {
        let registered =
            oidc.prepare(provider.settings(client), "other.test").unwrap_or_else(|problem| panic!("{problem}"));
        oidc.follow(registered);
    };
    let mut begun = Begun::new(Arc::clone(&oidc)).await;
    configure("adit-RS256");
    accepted(begun.log_in("alice").await.1);
    let begun = Begun::new(Arc::clone(&oidc)).await;
    configure("adit-public");
    assert!(not_permitted(begun.poll().await).contains("not used in time"));
    configure("adit-RS256");
    assert!(matches!(oidc.recheck(&person).await, Recheck::Allowed(_)), "its users' tokens are kept");
    let missing = Some(SecretPlace::File("/nonexistent/secret".into()));
    let broken = OidcConfig { client_secret: missing, ..provider.settings("adit-RS256") };
    assert!(oidc.prepare(broken, "other.test").is_err());
}

#[tokio::test]
async fn user_without_a_refresh_token_goes_on_and_the_reason_is_told() {
    let Some(provider) = provider::start(&json!({})) else { return };
    let (_, person) = logged_in(&provider).await;
    let other = source(provider.settings("adit-RS256"));
    let Recheck::Unknown(reason) = other.recheck(&person).await else { panic!("not unknown") };
    assert!(reason.contains("no refresh token"), "{reason}");
}
