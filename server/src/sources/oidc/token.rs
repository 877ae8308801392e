//! Requests of the gateway as a client of the provider: tokens for a code, for a device code and for a refresh token
//! (RFC 6749, RFC 7636, RFC 8628).

use adit_program::foreign_text::printable;
use data_encoding::BASE64;
use openidconnect::HttpRequest;
use openidconnect::url::form_urlencoded;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::provider::{Fault, Provider, Published, Registration};

/// The grant of RFC 8628 section 3.4.
pub(super) const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What the provider gives for a grant. Secrets, so it has no `Debug`.
#[derive(Deserialize)]
pub(super) struct Tokens {
    #[serde(deserialize_with = "secret")]
    pub(super) access_token: Zeroizing<String>,
    /// Absent from some answers to a refresh token.
    pub(super) id_token: Option<String>,
    #[serde(default, deserialize_with = "optional_secret")]
    pub(super) refresh_token: Option<Zeroizing<String>>,
}

/// What begins a login by a device code (RFC 8628 section 3.2).
#[derive(Deserialize)]
pub(super) struct DeviceAuthorization {
    #[serde(deserialize_with = "secret")]
    pub(super) device_code: Zeroizing<String>,
    pub(super) user_code: String,
    // The second is what Google calls it.
    #[serde(alias = "verification_url")]
    pub(super) verification_uri: String,
    pub(super) verification_uri_complete: Option<String>,
    pub(super) expires_in: u64,
    pub(super) interval: Option<u64>,
}

#[derive(Deserialize)]
struct Denial {
    error: String,
    error_description: Option<String>,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

fn optional_secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
}

impl Provider {
    /// Sends a form to an endpoint that knows the gateway by its client id and secret.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        published: &Published,
        endpoint: &str,
        form: &[(&str, &str)],
    ) -> Result<T, Fault> {
        let request = self.registration.form_request(published.secret_in_body, endpoint, form);
        let request = request.map_err(|error| Fault::Away(format!("{endpoint}: {error}")))?;
        let answer = self.http.send(request).await.map_err(|error| Fault::Away(error.to_string()))?;
        if answer.status().is_success() {
            return serde_json::from_slice(answer.body())
                .map_err(|error| Fault::Unbelieved(format!("the answer of {endpoint} is not understood: {error}")));
        }
        Err(denied(endpoint, answer.status().as_u16(), answer.body()))
    }
}

impl Registration {
    fn form_request(
        &self,
        secret_in_body: bool,
        endpoint: &str,
        form: &[(&str, &str)],
    ) -> Result<HttpRequest, openidconnect::http::Error> {
        let client = self.client.as_str();
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let mut request = openidconnect::http::Request::post(endpoint)
            .header("accept", "application/json")
            .header("content-type", "application/x-www-form-urlencoded");
        match &self.secret {
            Some(secret) if !secret_in_body => {
                request = request.header("authorization", basic(client, secret).as_str());
            }
            Some(secret) => {
                body.append_pair("client_id", client).append_pair("client_secret", secret);
            }
            None => {
                body.append_pair("client_id", client);
            }
        }
        request.body(body.finish().into_bytes())
    }
}

/// The head that RFC 6749 section 2.3.1 describes: both parts are encoded as in forms first.
fn basic(client: &str, secret: &str) -> Zeroizing<String> {
    let encode = |text: &str| Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
    let pair = Zeroizing::new(format!("{}:{}", *encode(client), *encode(secret)));
    Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())))
}

/// A provider that is broken, or that does not take the gateway's own secret, says nothing about the user.
fn denied(endpoint: &str, status: u16, body: &[u8]) -> Fault {
    let Ok(denial) = serde_json::from_slice::<Denial>(body) else {
        return Fault::Away(format!("{endpoint} answers with status {status}"));
    };
    let description = denial.error_description.map(|text| format!(" ({text})")).unwrap_or_default();
    let text = printable(&format!("{}{description}", denial.error));
    match denial.error.as_str() {
        "invalid_client" | "unauthorized_client" => Fault::Away(format!(
            "{endpoint} does not take this gateway: {text}; check oidc.client_id and oidc.client_secret_file, and what \
             the provider permits this client"
        )),
        "temporarily_unavailable" | "server_error" => Fault::Away(format!("{endpoint}: {text}")),
        _ if status >= 500 => Fault::Away(format!("{endpoint}: {text}")),
        _ => Fault::Denied { code: denial.error, text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_encoded_before_they_are_joined() {
        assert_eq!(basic("a b", "p:w%").as_str(), format!("Basic {}", BASE64.encode(b"a+b:p%3Aw%25")));
    }

    #[test]
    fn only_an_answer_about_the_user_denies_the_user() {
        let code = |status, body: &str| match denied("https://a.example/token", status, body.as_bytes()) {
            Fault::Denied { code, .. } => Some(code),
            Fault::Away(_) | Fault::Unbelieved(_) => None,
        };
        assert_eq!(code(400, r#"{"error":"invalid_grant"}"#).as_deref(), Some("invalid_grant"));
        for (status, body) in [
            (401, r#"{"error":"invalid_client"}"#),
            (400, r#"{"error":"unauthorized_client"}"#),
            (503, r#"{"error":"invalid_grant"}"#),
            (400, r#"{"error":"server_error"}"#),
            (400, "<html>"),
            (429, "{}"),
        ] {
            assert_eq!(code(status, body), None, "{status} {body}");
        }
    }

    #[test]
    fn words_of_a_provider_are_made_harmless() {
        let body = br#"{"error":"invalid_grant","error_description":"a\u001b[2Jb"}"#;
        let Fault::Denied { text, .. } = denied("x", 400, body) else { panic!("not denied") };
        assert_eq!(text, "invalid_grant (a\\u{1b}[2Jb)");
    }
}
