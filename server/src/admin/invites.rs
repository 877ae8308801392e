//! The verbs that let a device in: by an invite, or by a bearer token.

use std::time::{Duration, SystemTime};

use adit_proto::invite::{Invite, MOST_PLACES, Place};
use serde::{Deserialize, Serialize};

use super::{Admin, AdminRefusal, bad_request, store_refusal, user_name};
use crate::accounts::sqlite::Clock;
use crate::config::PublicAddress;

/// Longest life of an invite, whoever asks.
pub const MAX_INVITE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Asks for an invite.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// The user.
    pub user: String,
    /// Lifetime; the configured one when absent.
    pub lifetime_seconds: Option<u64>,
}

/// A new invite. Its link is a secret, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct InviteAnswer {
    /// The user, in canonical form.
    pub user: String,
    /// The link, which admits one device.
    pub link: String,
    /// End of the invite, RFC 3339.
    pub expires: String,
}

/// Asks for a bearer token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The user.
    pub user: String,
}

/// A new bearer token, which is a secret, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The user, in canonical form.
    pub user: String,
    /// The device the token stands for.
    pub device: String,
    /// The token.
    pub token: String,
}

impl Admin {
    pub(super) fn invite(&self, request: &InviteRequest, clock: impl Clock) -> Result<InviteAnswer, AdminRefusal> {
        let user = user_name(&request.user)?;
        let lifetime = request.lifetime_seconds.map_or(self.config.load().invite_lifetime, Duration::from_secs);
        if lifetime.is_zero() || lifetime > MAX_INVITE_LIFETIME {
            return Err(bad_request("an invite lives from 1s to 30d"));
        }
        let config = self.config.load();
        let Some((public, others)) = config.public.split_first() else {
            return Err(bad_request("the configuration names no public address"));
        };
        let place = |other: &PublicAddress| Place { host: other.host.clone(), port: other.port };
        let others = others.iter().take(MOST_PLACES - 1).map(place).collect();
        let code = self.store.invite(&user, lifetime, clock).map_err(store_refusal)?;
        let (host, port, pin) = (public.host.clone(), public.port, self.authority.pin());
        let invite = Invite { host, port, others, pin, code };
        let expires = humantime::format_rfc3339_seconds(clock.read() + lifetime).to_string();
        Ok(InviteAnswer { user: user.to_string(), link: invite.to_string(), expires })
    }

    pub(super) fn token(&self, request: &TokenRequest, now: SystemTime) -> Result<TokenAnswer, AdminRefusal> {
        let user = user_name(&request.user)?;
        let (device, token) = self.store.token(&user, now).map_err(store_refusal)?;
        Ok(TokenAnswer { user: device.user, device: device.id, token })
    }
}
