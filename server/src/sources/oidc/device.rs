//! Logins by a code that the user types at the provider, in any browser anywhere (RFC 8628).

use std::time::Duration;

use adit_program::foreign_text::printable;
use adit_proto::login::Person;
use tokio::time::Instant;

use super::flows::{Device, LIFETIME};
use super::provider::{Fault, Published, check_url};
use super::token::{DEVICE_CODE, DeviceAuthorization, Tokens};
use super::{LinkAnswer, Origin, Registered, StartedLink, Unavailable, unavailable, unguessable, verdict_of};

/// How long to wait between two questions where the provider names no time, and how much longer each time it asks for
/// patience (RFC 8628 sections 3.2 and 3.5).
const INTERVAL: Duration = Duration::from_secs(5);

impl Registered {
    pub(super) async fn begin_device(
        &self,
        published: &Published,
        endpoint: &str,
        origin: &Origin,
    ) -> Result<StartedLink, Unavailable> {
        let scopes = self.settings.scopes.join(" ");
        let begun: DeviceAuthorization = self.provider.post(published, endpoint, &[("scope", &scopes)]).await?;
        let url = begun.verification_uri_complete.as_ref().unwrap_or(&begun.verification_uri);
        let url = check_url(url).map_err(|error| unavailable(printable(&error)))?;
        let ticket = unguessable()?;
        let (lifetime, interval) = times(begun.expires_in, begun.interval);
        let now = Instant::now();
        let device = Device { code: begun.device_code, interval, next: now + interval };
        self.flows().begin_device(ticket.clone(), device, lifetime, origin, now);
        Ok(StartedLink {
            url: url.into(),
            user_code: Some(printable(&begun.user_code)),
            lifetime,
            interval,
            state: ticket.into_bytes(),
            returns: false,
        })
    }

    /// Asks the provider once whether the user has typed the code.
    pub(super) async fn poll_device(&self, ticket: &str, code: &str) -> LinkAnswer {
        let outcome = self.exchange_device_code(code).await;
        match &outcome {
            Err(Fault::Denied { code, .. }) if code == "authorization_pending" => {
                LinkAnswer::Pending { interval: self.flows().slow_down(ticket, Duration::ZERO, Instant::now()) }
            }
            Err(Fault::Denied { code, .. }) if code == "slow_down" => {
                LinkAnswer::Pending { interval: self.flows().slow_down(ticket, INTERVAL, Instant::now()) }
            }
            // The user may be typing: what broke may be whole at the next question.
            Err(Fault::Away(reason)) => {
                tracing::debug!(reason, "the provider was not asked about a device code");
                LinkAnswer::Pending { interval: self.flows().slow_down(ticket, INTERVAL, Instant::now()) }
            }
            Ok(_) | Err(Fault::Denied { .. } | Fault::Unbelieved(_)) => {
                self.flows().forget(ticket);
                LinkAnswer::Settled(verdict_of(outcome))
            }
        }
    }

    async fn exchange_device_code(&self, code: &str) -> Result<Person, Fault> {
        let published = self.provider.published().await?;
        let form = [("grant_type", DEVICE_CODE), ("device_code", code)];
        let tokens: Tokens = self.provider.post(&published, &published.token, &form).await?;
        self.person(&published, tokens, None).await
    }
}

/// How long a code lives, and how often to ask about it: within bounds, whatever the provider says.
fn times(expires_in: u64, interval: Option<u64>) -> (Duration, Duration) {
    let lifetime = Duration::from_secs(expires_in).min(LIFETIME);
    let interval = interval.map_or(INTERVAL, Duration::from_secs);
    (lifetime, interval.clamp(Duration::from_secs(1), Duration::from_secs(60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_without_an_interval_is_asked_about_every_five_seconds() {
        let seconds = |expires_in, interval| {
            let (lifetime, interval) = times(expires_in, interval);
            (lifetime.as_secs(), interval.as_secs())
        };
        assert_eq!(seconds(120, None), (120, 5));
        assert_eq!(seconds(120, Some(7)), (120, 7));
        assert_eq!(seconds(u64::MAX, Some(0)), (600, 1));
        assert_eq!(seconds(600, Some(u64::MAX)), (600, 60));
    }
}
