//! An authority, as it is asked for certificates.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use instant_acme::{
    Account, AccountBuilder, BodyWrapper, BytesResponse, CertificateIdentifier, Error, HttpClient, RenewalInfo,
};
use tokio::time::timeout;

use super::account;
use super::fault::{Fault, Refusal};
use super::kept::Kept;
use super::order::{Room, Wanted};
use super::schedule::{Window, Wish};
use crate::config::{AcmeConfig, Config, Problem};
use crate::directories::StateDir;
use crate::listener::Challenges;
use crate::trust;
use crate::web_client::WebClient;

/// How long an answer may take: some authorities sign while one waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a certificate may take, from the first word to the last.
const LONGEST_ORDER: Duration = Duration::from_secs(600);
/// The longest pause that an authority may ask for, in seconds: a day.
const LONGEST_PAUSE: u32 = 24 * 3600;

/// An authority, and the gateway as its customer.
pub struct Authority {
    settings: AcmeConfig,
    state_dir: StateDir,
    web: Web,
}

impl Authority {
    /// The one that a configuration names. It is not asked anything.
    ///
    /// # Errors
    /// What vouches for its own certificate cannot be read.
    pub fn new(config: &Config) -> Result<Self, Problem> {
        let tls = trust::tls("acme.authority", config.acme.authority.as_deref())?;
        let web = Web(Arc::new(WebClient::new(tls, PATIENCE)));
        Ok(Self { settings: config.acme.clone(), state_dir: config.state_dir.clone(), web })
    }

    /// When it wants a certificate of its own renewed.
    pub async fn wish(&self, kept: &Kept) -> Wish {
        match self.renewal_info(kept).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                Wish::Window(Window { begins: window.start.into(), ends: window.end.into() }, Some(again))
            }
            Err(Fault::Authority(Error::Unsupported(_))) => Wish::None,
            Err(fault) => {
                let reason = self.told(fault, "a certificate").reason;
                tracing::debug!(reason, "the authority does not say when it wants a certificate renewed");
                Wish::Unheard
            }
        }
    }

    async fn renewal_info(&self, kept: &Kept) -> Result<(RenewalInfo, Duration), Fault> {
        let id = identifier(kept).ok_or(Error::Unsupported("certificates without the name of their issuer's key"))?;
        Ok(self.account().await?.renewal_info(&id).await?)
    }

    /// Gets a certificate for a name, in place of a former one, and writes it. Whoever asks about the name meanwhile
    /// finds the answer in `challenges`.
    ///
    /// # Errors
    /// The reason in words. There is then nothing new, and the former certificate is as it was.
    pub async fn certificate(
        &self,
        name: &str,
        former: Option<&Kept>,
        challenges: &Arc<Challenges>,
    ) -> Result<Kept, Refusal> {
        let former = former.and_then(identifier);
        let wanted = Wanted { name, former, directory: &self.settings.directory };
        match timeout(LONGEST_ORDER, self.get(&wanted, challenges)).await {
            Ok(got) => got.map_err(|fault| self.told(fault, name)),
            Err(_elapsed) => Err(self.told(Fault::Authority(Error::Timeout(None)), name)),
        }
    }

    async fn get(&self, wanted: &Wanted<'_>, challenges: &Arc<Challenges>) -> Result<Kept, Fault> {
        match self.get_once(wanted, challenges).await {
            Err(fault) if fault.is_unknown_account() => {
                tracing::warn!("the ACME authority does not know the gateway's account; it is asked for a new one");
                account::forget_address(&self.state_dir).await?;
                self.get_once(wanted, challenges).await
            }
            done => done,
        }
    }

    async fn get_once(&self, wanted: &Wanted<'_>, challenges: &Arc<Challenges>) -> Result<Kept, Fault> {
        let room = Room::take(&self.state_dir, wanted.name).await?;
        wanted.get(room, &self.account().await?, challenges).await
    }

    async fn account(&self) -> Result<Account, Fault> {
        account::open(&self.state_dir, &self.settings, self.builder()).await
    }

    fn builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(self.web.clone()))
    }

    fn told(&self, fault: Fault, name: &str) -> Refusal {
        fault.told(name, &self.settings.directory)
    }
}

/// What the authority knows a certificate by (RFC 9773 section 4.1); not all have that.
fn identifier(kept: &Kept) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(&kept.certificate).ok().map(CertificateIdentifier::into_owned)
}

/// Asks as the gateway asks other web servers.
#[derive(Clone)]
struct Web(Arc<WebClient>);

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = Arc::clone(&self.0);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_or_else(|never| match never {}, |body| body.to_bytes());
            let answer = client.send(Request::from_parts(parts, body.into())).await;
            let (mut parts, body) = answer.map_err(|error| Error::Other(Box::new(error)))?.into_parts();
            shorten_pause(&mut parts.headers);
            Ok(BytesResponse { parts, body: Box::new(Bytes::from(body)) })
        })
    }
}

/// Cuts a pause in seconds that is longer than any good one: `instant_acme` adds it to the clock, whatever it is, and
/// the sum of a huge one does not exist.
fn shorten_pause(headers: &mut HeaderMap) {
    let asked = headers.get(RETRY_AFTER).and_then(|pause| pause.to_str().ok()?.trim().parse::<u64>().ok());
    if asked.is_some_and(|seconds| seconds > LONGEST_PAUSE.into()) {
        headers.insert(RETRY_AFTER, HeaderValue::from(LONGEST_PAUSE));
    }
}

#[cfg(test)]
mod tests;
