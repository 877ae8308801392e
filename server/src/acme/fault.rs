//! Why a certificate could not be had, in words for an administrator.

use std::time::Duration;

use adit_program::causes::with_causes;
use adit_program::exit::Failure;
use adit_program::foreign_text::printable;
use instant_acme::Error;

use crate::web_client::WebError;

/// What the kinds of problems begin with (RFC 8555 section 6.7).
const KIND: &str = "urn:ietf:params:acme:error:";
/// How long an authority is left alone whose limit is reached.
const AFTER_LIMIT: Duration = Duration::from_secs(3600);

/// Why a step of an order failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The authority refused it, or could not be asked.
    Authority(Error),
    /// It could not be done on this host.
    Here(Failure),
}

/// Why there is no new certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: String,
    /// What an administrator can do.
    pub next: String,
    /// How long to wait at least.
    pub pause: Option<Duration>,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Authority(error)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

impl Fault {
    /// Whether the authority has forgotten the account.
    pub(super) fn is_unknown_account(&self) -> bool {
        matches!(self, Self::Authority(error) if kind_of(error) == Some("accountDoesNotExist"))
    }

    /// The same in words, about the certificate of a name.
    pub(super) fn told(self, name: &str, directory: &str) -> Refusal {
        match self {
            Self::Here(Failure { what, reason, next, .. }) => {
                Refusal { reason: format!("{what}: {reason}"), next, pause: None }
            }
            Self::Authority(error) => {
                let kind = kind_of(&error);
                let pause = (kind == Some("rateLimited")).then_some(AFTER_LIMIT);
                let next = kind.map_or_else(|| way_to_authority(&error, directory), |kind| after_refusal(kind, name));
                Refusal { reason: in_words(&error), next, pause }
            }
        }
    }
}

/// Whether an order may be taken without word of the certificate that it replaces (RFC 9773 section 5).
pub(super) fn is_about_former(error: &Error) -> bool {
    match kind_of(error) {
        Some(kind) => !["rateLimited", "accountDoesNotExist", "badNonce"].contains(&kind),
        None if matches!(error, Error::Other(cause) if cause.is::<WebError>()) => false,
        None => matches!(error, Error::Unsupported(_) | Error::Other(_)),
    }
}

/// The kind of a problem that an authority tells; empty if it names none.
fn kind_of(error: &Error) -> Option<&str> {
    let Error::Api(problem) = error else { return None };
    let kind = problem.r#type.as_deref().unwrap_or_default();
    Some(kind.strip_prefix(KIND).unwrap_or(kind))
}

fn in_words(error: &Error) -> String {
    let text = if let Error::Api(problem) = error {
        let detail = problem.detail.as_deref().unwrap_or("no reason given");
        format!("the authority refuses: {detail} ({})", kind_of(error).unwrap_or_default())
    } else if let Error::Other(cause) = error {
        with_causes(cause.as_ref())
    } else {
        with_causes(error)
    };
    printable(&text)
}

/// What to do about a refusal of this kind.
fn after_refusal(kind: &str, name: &str) -> String {
    match kind {
        "connection" | "dns" | "tls" | "unauthorized" | "incorrectResponse" => {
            format!("have {name} lead to TCP port 443 of this gateway from everywhere in the internet")
        }
        "caa" | "rejectedIdentifier" | "unsupportedIdentifier" => {
            format!("look at {name} in acme.names, and at its CAA records")
        }
        "rateLimited" => "wait; for trials, name the authority's directory for them in acme.directory".to_owned(),
        "invalidContact" | "unsupportedContact" => "mend acme.contact".to_owned(),
        "externalAccountRequired" | "userActionRequired" => {
            "name another authority in acme.directory: this one wants an account that was made by hand".to_owned()
        }
        _ => "look whether the authority of acme.directory has troubles; the gateway tries again".to_owned(),
    }
}

/// What to do about an authority that could not be asked.
fn way_to_authority(error: &Error, directory: &str) -> String {
    if matches!(error, Error::Json(_)) {
        return format!("look whether acme.directory = {directory:?} is the directory of an authority");
    }
    format!("let this host reach {directory} by HTTPS; look at its clock, and at acme.authority")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str) -> Fault {
        let problem = format!("{{\"type\":\"{KIND}{kind}\",\"detail\":\"so \\u001b[1m\"}}");
        Fault::Authority(Error::Api(serde_json::from_str(&problem).unwrap()))
    }

    fn told(fault: Fault) -> Refusal {
        fault.told("vpn.example.org", "https://acme.example/dir")
    }

    #[test]
    fn refusal_tells_reason_and_next_step_and_nothing_harms_a_terminal() {
        let refusal = told(refused("connection"));
        assert_eq!(refusal.reason, "the authority refuses: so \\u{1b}[1m (connection)");
        assert!(refusal.next.contains("vpn.example.org lead to TCP port 443"), "{refusal:?}");
        assert_eq!(refusal.pause, None);
        assert_eq!(told(refused("rateLimited")).pause, Some(AFTER_LIMIT));
        assert!(told(refused("somethingNew")).next.contains("tries again"));
    }

    #[test]
    fn authority_that_cannot_be_asked_is_told_apart_from_one_that_refuses() {
        let away = WebError::Broken { host: "acme.example".to_owned(), reason: "no route".to_owned() };
        let refusal = told(Fault::Authority(Error::Other(Box::new(away))));
        assert_eq!(refusal.reason, "acme.example cannot be reached: no route");
        assert!(refusal.next.contains("clock") && refusal.next.contains("acme.authority"), "{refusal:?}");
        let page = serde_json::from_str::<instant_acme::Problem>("<html>").unwrap_err();
        assert!(told(Fault::Authority(Error::Json(page))).next.contains("is the directory"));
    }

    #[test]
    fn only_what_concerns_the_former_certificate_is_tried_without_it() {
        let is_retried = |fault: &Fault| matches!(fault, Fault::Authority(error) if is_about_former(error));
        assert!(is_retried(&refused("alreadyReplaced")) && is_retried(&refused("malformed")));
        assert!(!is_retried(&refused("rateLimited")) && !is_retried(&refused("accountDoesNotExist")));
        assert!(is_retried(&Fault::Authority(Error::Unsupported("ARI"))));
        let late = WebError::Long { host: "acme.example".to_owned() };
        assert!(!is_retried(&Fault::Authority(Error::Other(Box::new(late)))));
    }
}
