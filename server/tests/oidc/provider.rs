//! A real provider, and what a gateway is told of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use adit_server::config::{OidcConfig, PublicAddress, SecretPlace};
use adit_server::sources::oidc::{Oidc, RefreshTokens};
use adit_testing::browser::Browser;
use adit_testing::oidc_provider::{CLIENT_SECRET, OidcProvider};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Where browsers find the gateway.
pub(super) const GATEWAY: &str = "https://gateway.test";

/// A running provider.
pub(super) struct Provider {
    process: OidcProvider,
    pub(super) issuer: String,
}

/// Starts a provider, or says why it cannot be.
pub(super) fn start(options: &Value) -> Option<Provider> {
    let process = OidcProvider::start(&options.to_string())?;
    Some(Provider { issuer: process.issuer().to_owned(), process })
}

impl Provider {
    /// Changes what the provider does.
    pub(super) async fn control(&self, wishes: Value) -> Value {
        let mut browser = Browser::new(GATEWAY, ([127, 0, 0, 1], 1).into());
        let seen = browser.request("POST", &self.process.control(), wishes.to_string()).await;
        serde_json::from_str(&seen.body).unwrap()
    }

    /// How often a path was asked for.
    pub(super) async fn asked(&self, path: &str) -> u64 {
        self.control(json!({})).await[path].as_u64().unwrap_or(0)
    }

    /// Ends it, and starts another in the same place.
    pub(super) fn restart(self) -> (impl FnOnce() -> Self, u16) {
        let port: u16 = self.issuer.rsplit(':').next().unwrap().parse().unwrap();
        drop(self);
        (move || start(&json!({ "port": port })).unwrap(), port)
    }

    pub(super) fn settings(&self, client: &str) -> OidcConfig {
        let secret = self.process.folder().join(format!("secret-{}", std::process::id()));
        if !secret.exists() {
            let _raced = adit_program::durable_file::create(&secret, format!("{CLIENT_SECRET}\n").as_bytes(), 0o600);
        }
        OidcConfig {
            issuer: Some(self.issuer.clone()),
            client_id: Some(client.to_owned()),
            client_secret: (client != "adit-public").then_some(SecretPlace::File(secret)),
            scopes: ["openid", "profile", "email", "groups"].map(ToOwned::to_owned).to_vec(),
            parameters: vec![("prompt".to_owned(), "login consent".to_owned())],
            name_claim: "preferred_username".to_owned(),
            groups_claim: "groups".to_owned(),
            authority: None,
            listen: vec![([127, 0, 0, 1], 0).into()],
            redirect_host: Some(PublicAddress { host: "gateway.test".to_owned(), port: 443 }),
        }
    }

    pub(super) fn source(&self, client: &str) -> Arc<Oidc> {
        source(self.settings(client))
    }
}

pub(super) fn source(settings: OidcConfig) -> Arc<Oidc> {
    Arc::new(Oidc::new(settings, "other.test", Arc::new(Memory::default())).unwrap())
}

/// Refresh tokens in memory.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<String, Zeroizing<String>>>);

impl RefreshTokens for Memory {
    fn keep(&self, subject: &str, token: &Zeroizing<String>) -> Result<bool, String> {
        self.0.lock().unwrap().insert(subject.to_owned(), token.clone());
        Ok(true)
    }

    fn kept(&self, subject: &str) -> Result<Option<Zeroizing<String>>, String> {
        Ok(self.0.lock().unwrap().get(subject).cloned())
    }
}
