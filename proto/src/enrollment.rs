//! The JSON messages of enrolment and renewal, which travel as bodies of HTTP requests and responses inside TLS.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Path of the enrolment request (POST, no client certificate).
pub const ENROLL_PATH: &str = "/.well-known/adit/enroll";
/// Path of the renewal request (POST, with the present device certificate).
pub const RENEW_PATH: &str = "/.well-known/adit/renew";
/// Largest request or response body, in bytes.
pub const MAX_BODY: usize = 16 * 1024;

/// A device asks to be enrolled, by an invite or by a login: exactly one of `code` and `login` is there.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The invite's single-use code, base64url without padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The ticket of a login ([`LoginAnswer::Done`](crate::login::message::LoginAnswer::Done)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// PKCS#10 certificate request, PEM.
    pub csr: String,
    /// What the device calls itself; shown to administrators.
    pub device_name: String,
}

/// The gateway's answer to an enrolment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnrollResponse {
    /// The user the invite was for, or who has logged in.
    pub user: String,
    /// The new device's id.
    pub device: String,
    /// The device certificate, PEM.
    pub certificate: String,
    /// The gateway's certificate authority, PEM.
    pub authority: String,
    /// The new device's session token, after a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionGrant>,
}

/// How long a device may have sessions without another login. `Debug` does not show the token.
#[derive(Clone, Serialize, Deserialize)]
pub struct SessionGrant {
    /// The session token, to be sent with each request for a tunnel.
    pub token: String,
    /// When the login ends, in seconds since 1970 by the gateway's clock; `None` if it does not.
    pub ends_at: Option<u64>,
}

impl fmt::Debug for SessionGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionGrant").field("ends_at", &self.ends_at).finish_non_exhaustive()
    }
}

/// A device asks for a fresh certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS#10 certificate request, PEM.
    pub csr: String,
}

/// The gateway's answer to a renewal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewResponse {
    /// The device certificate, PEM.
    pub certificate: String,
}

/// Why the gateway refused, as the body of a 4xx or 5xx answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    /// Short machine-readable reason, such as `invite_used`.
    pub code: String,
    /// The reason in words.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_documented_members() {
        let enroll = EnrollRequest { code: Some("c".into()), login: None, csr: "r".into(), device_name: "d".into() };
        assert_eq!(serde_json::to_string(&enroll).unwrap(), r#"{"code":"c","csr":"r","device_name":"d"}"#);
        let ticket = EnrollRequest { code: None, login: Some("t".into()), ..enroll };
        assert_eq!(serde_json::to_string(&ticket).unwrap(), r#"{"login":"t","csr":"r","device_name":"d"}"#);
        let renew = RenewRequest { csr: "r".into() };
        assert_eq!(serde_json::to_string(&renew).unwrap(), r#"{"csr":"r"}"#);
        let refusal = Refusal { code: "invite_used".into(), message: "m".into() };
        assert_eq!(serde_json::to_string(&refusal).unwrap(), r#"{"code":"invite_used","message":"m"}"#);
    }

    #[test]
    fn gateway_takes_no_unknown_member_and_a_client_does() {
        assert!(serde_json::from_str::<RenewRequest>(r#"{"csr":"r","more":1}"#).is_err());
        assert!(serde_json::from_str::<RenewResponse>(r#"{"certificate":"c","more":1}"#).is_ok());
    }
}
