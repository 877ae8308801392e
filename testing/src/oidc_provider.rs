//! A real provider of OpenID Connect: `oidc-provider` under Node, with our few lines around it
//! (`lab/interop/oidc/provider.js`). It knows everybody, by any password.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::skip;

/// The secret of all its clients.
pub const CLIENT_SECRET: &str = "a secret: with % and +";

/// A running provider; it ends with its input.
#[derive(Debug)]
pub struct OidcProvider {
    process: Child,
    issuer: String,
    folder: PathBuf,
    /// Open, as Node ends where nobody takes what it says.
    _output: BufReader<ChildStdout>,
}

impl OidcProvider {
    /// Starts a provider on a loopback address, with options in JSON that the program describes; skips the test where
    /// it is not installed.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(options: &str) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace");
        let folder =
            env::var_os("ADIT_OIDC_PROVIDER").map_or_else(|| root.join("target/ci/oidc-provider"), PathBuf::from);
        let node = env::var_os("ADIT_NODE").unwrap_or_else(|| "node".into());
        if !folder.join("node_modules/oidc-provider").exists() || Command::new(&node).arg("--version").output().is_err()
        {
            skip(
                "Node and the npm package oidc-provider are missing; run `.ci/run tools`, or install what \
                 lab/interop/oidc/package-lock.json names and set ADIT_NODE and ADIT_OIDC_PROVIDER (the folder)",
            );
            return None;
        }
        let mut process = Command::new(node)
            .arg(program(root, &folder))
            .arg(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Node was there a moment ago");
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut issuer = String::new();
        output.read_line(&mut issuer).expect("it says where it is");
        assert!(issuer.starts_with("http://127.0.0.1:"), "the provider did not start: {issuer:?}");
        Some(Self { process, issuer: issuer.trim().to_owned(), folder, _output: output })
    }

    /// Its issuer, which is where it is found.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where tests change what it does, by `POST` of JSON.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}/control", self.issuer)
    }

    /// The folder that it is installed in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Puts our program beside the modules, which is where Node looks for them, and in one piece: others start it, too.
fn program(root: &Path, folder: &Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let (program, new) = (folder.join("provider.js"), folder.join(format!("provider.{}.{number}", std::process::id())));
    fs::copy(root.join("lab/interop/oidc/provider.js"), &new).expect("the folder can be written");
    fs::rename(&new, &program).expect("the folder can be written");
    program
}
