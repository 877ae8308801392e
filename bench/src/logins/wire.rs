//! Logins as the native client has them: requests in JSON over HTTP/3.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_net::http::h3::H3Connection;
use adit_net::http::post::post_json;
use adit_net::quic;
use adit_proto::enrollment::MAX_BODY;
use adit_proto::login::message::{LOGIN_PATH, LoginAnswer, LoginRequest};
use adit_proto::role::Role;
use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::timeout;

/// Longest wait for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A gateway, and what connections to it are made with.
#[derive(Clone)]
pub(super) struct Door {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Its name in its certificate.
    pub(super) host: String,
    /// The settings of connections.
    pub(super) quic: quinn::ClientConfig,
}

impl Door {
    /// Opens a connection.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(&self, endpoint: &quinn::Endpoint) -> Result<H3Connection> {
        let connecting = endpoint.connect_with(self.quic.clone(), self.address, &self.host)?;
        let connected = timeout(HANDSHAKE, connecting).await.context("no handshake in time")??;
        Ok(H3Connection::start(connected, Role::Client))
    }

    /// Asks for one step of a login.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn step(&self, http: &H3Connection, request: &LoginRequest) -> Result<LoginAnswer> {
        let body = serde_json::to_vec(request).context("write a request")?;
        let stream = http.open_request().await?;
        let (status, body) = post_json(stream.into(), &self.host, LOGIN_PATH, &body, MAX_BODY).await?;
        ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).context("read the answer")
    }

    /// Logs a user in from an address, each step on a connection of its own; returns how long that took.
    ///
    /// # Errors
    /// Why the user was not let in.
    pub(super) async fn log_in(&self, source: Ipv4Addr, user: &str, password: &str) -> Result<Duration> {
        let began = Instant::now();
        let begin = LoginRequest { handle: None, answers: BTreeMap::new(), browser: false };
        let LoginAnswer::Ask { handle, .. } = self.step_alone(source, &begin).await? else {
            bail!("the gateway asks for no password");
        };
        let answers = credentials(user, password);
        match self.step_alone(source, &LoginRequest { handle: Some(handle), answers, browser: false }).await? {
            LoginAnswer::Done { .. } => Ok(began.elapsed()),
            LoginAnswer::Refused { message, .. } => bail!(message),
            LoginAnswer::Ask { .. } | LoginAnswer::Open { .. } | LoginAnswer::Wait { .. } => {
                bail!("the gateway wants more than a password")
            }
        }
    }

    async fn step_alone(&self, source: Ipv4Addr, request: &LoginRequest) -> Result<LoginAnswer> {
        let endpoint = endpoint(source)?;
        let http = self.connect(&endpoint).await?;
        self.step(&http, request).await
    }
}

/// Answers to the question for a name and password.
pub(super) fn credentials(user: &str, password: &str) -> BTreeMap<String, String> {
    [("user", user), ("password", password)].map(|(name, answer)| (name.to_owned(), answer.to_owned())).into()
}

/// A socket for connections at an address of the calling thread's host, on a port of the kernel's choice.
///
/// # Errors
/// What the system refuses.
pub(super) fn endpoint(source: Ipv4Addr) -> Result<quinn::Endpoint> {
    let socket = quic::bind(SocketAddr::from((source, 0)), None).with_context(|| format!("bind {source}"))?;
    quic::client_endpoint(socket).context("open a QUIC endpoint")
}
