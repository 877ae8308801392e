//! A real provider: `oidc-provider` under Node, with our few lines around it (`lab/interop/oidc/provider.js`).

use std::collections::HashMap;
use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use adit_server::config::{OidcConfig, PublicAddress, SecretPlace};
use adit_server::sources::oidc::{Oidc, RefreshTokens};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::browser::Browser;

/// Where browsers find the gateway.
pub(super) const GATEWAY: &str = "https://gateway.test";
const SECRET: &str = "a secret: with % and +";

/// A running provider; it ends with its input.
pub(super) struct Provider {
    process: Child,
    pub(super) issuer: String,
    folder: PathBuf,
    /// Open, as Node ends where nobody takes what it says.
    _output: BufReader<ChildStdout>,
}

/// Starts a provider, or says why it cannot be.
pub(super) fn start(options: &Value) -> Option<Provider> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = env::var_os("ADIT_OIDC_PROVIDER").map_or_else(|| root.join("target/ci/oidc-provider"), PathBuf::from);
    let node = env::var_os("ADIT_NODE").unwrap_or_else(|| "node".into());
    if !folder.join("node_modules/oidc-provider").exists() || Command::new(&node).arg("--version").output().is_err() {
        adit_testing::skip(
            "Node and the npm package oidc-provider are missing; run `.ci/run tools`, or install what \
             lab/interop/oidc/package-lock.json names and set ADIT_NODE and ADIT_OIDC_PROVIDER (the folder)",
        );
        return None;
    }
    // Modules are looked for beside the program.
    let program = folder.join("provider.js");
    std::fs::copy(root.join("lab/interop/oidc/provider.js"), &program).unwrap();
    let mut process = Command::new(node)
        .arg(program)
        .arg(options.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut issuer = String::new();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    output.read_line(&mut issuer).unwrap();
    assert!(issuer.starts_with("http://127.0.0.1:"), "the provider did not start: {issuer:?}");
    Some(Provider { process, issuer: issuer.trim().to_owned(), folder, _output: output })
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Provider {
    /// Changes what the provider does.
    pub(super) async fn control(&self, wishes: Value) -> Value {
        let url = format!("{}/control", self.issuer);
        let seen = Browser::new(([127, 0, 0, 1], 1).into()).request("POST", &url, wishes.to_string()).await;
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
        let secret = self.folder.join(format!("secret-{}", std::process::id()));
        if !secret.exists() {
            let _raced = adit_program::durable_file::create(&secret, format!("{SECRET}\n").as_bytes(), 0o600);
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
