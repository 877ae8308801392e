//! The JSON messages of a login, which travel as bodies of HTTP requests and responses inside TLS.
//!
//! A client posts [`LoginRequest`]s to [`LOGIN_PATH`] until an answer is [`LoginAnswer::Done`] or
//! [`LoginAnswer::Refused`]. The gateway keeps nothing between two requests but what the handle says, which the client
//! sends back as it came.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// Path of the login request (POST, with the device certificate if there is one).
pub const LOGIN_PATH: &str = "/.well-known/adit/login";
/// Field of a tunnel's request in which a client sends its session token, and of a refusal by which the gateway says
/// that it wants a login.
pub const LOGIN_FIELD: &str = "adit-login";
/// Value of [`LOGIN_FIELD`] in the refusal of a tunnel whose user has to log in.
pub const LOGIN_NEEDED: &str = "needed";

/// Largest handle, in bytes: what a source keeps for one question (RADIUS has 253 bytes of state), sealed.
pub const MAX_HANDLE: usize = 8 * 1024;
/// Most answers of one request.
pub const MAX_ANSWERS: usize = 8;
/// Longest name of an answered field, in bytes.
pub const MAX_FIELD_NAME: usize = 32;
/// Longest answer, in bytes.
pub const MAX_ANSWER: usize = 1024;
/// Longest session token, in bytes: the field that carries it must fit a request's head.
pub const MAX_TOKEN: usize = 4 * 1024;

/// One step of a login, as the client asks for it. The answers are wiped from memory on drop; they have no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedRequest")]
pub struct LoginRequest {
    /// The handle of the answer before; `None` begins a login.
    pub handle: Option<String>,
    /// What was asked for, by the names of its fields.
    pub answers: BTreeMap<String, String>,
    /// Whether the client can open a link in a browser of this host. Without it, a link comes with a code to type into
    /// a browser elsewhere.
    pub browser: bool,
}

/// A request whose sizes nobody has looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedRequest {
    #[serde(default)]
    handle: Option<String>,
    #[serde(default)]
    answers: BTreeMap<String, String>,
    #[serde(default)]
    browser: bool,
}

/// A request with a part that is larger than any client has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} of the login request is too large")]
pub struct TooLarge(&'static str);

impl TryFrom<UncheckedRequest> for LoginRequest {
    type Error = TooLarge;

    fn try_from(request: UncheckedRequest) -> Result<Self, TooLarge> {
        let UncheckedRequest { handle, answers, browser } = request;
        // Made first, so that what is refused is wiped as well.
        let request = Self { handle, answers, browser };
        if request.handle.as_ref().is_some_and(|handle| handle.len() > MAX_HANDLE) {
            return Err(TooLarge("the handle"));
        }
        if request.answers.len() > MAX_ANSWERS {
            return Err(TooLarge("the number of answers"));
        }
        if request.answers.keys().any(|name| name.len() > MAX_FIELD_NAME) {
            return Err(TooLarge("a name"));
        }
        if request.answers.values().any(|answer| answer.len() > MAX_ANSWER) {
            return Err(TooLarge("an answer"));
        }
        Ok(request)
    }
}

impl Drop for LoginRequest {
    fn drop(&mut self) {
        self.answers.values_mut().for_each(Zeroize::zeroize);
    }
}

/// What the gateway answers to a step. The token has no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum LoginAnswer {
    /// Something is to be answered.
    Ask {
        /// To be sent back with the answers.
        handle: String,
        /// What to tell the user above the fields; may be empty.
        #[serde(default)]
        text: String,
        /// What is asked for.
        fields: Vec<LoginField>,
    },
    /// A link is to be opened in a browser.
    Open {
        /// To be sent back, without answers, to hear how it goes on.
        handle: String,
        /// The link.
        url: String,
        /// What the page shows as well, for a browser of the client's host; what to type there, for one elsewhere.
        code: Option<String>,
        /// Seconds until the link is of no use any more.
        seconds: u64,
        /// Seconds to wait before each request with the handle.
        #[serde(default = "usual_interval")]
        interval: u64,
    },
    /// Nothing has happened yet.
    Wait {
        /// To be sent back, without answers.
        handle: String,
        /// Seconds to wait before that.
        seconds: u64,
    },
    /// The user has logged in.
    Done {
        /// What the gateway calls the user.
        user: String,
        /// The session token of the device that showed its certificate; without a certificate, a ticket that enrols one
        /// device.
        token: String,
        /// When the login ends, in seconds since 1970 by the gateway's clock; `None` if it does not.
        ends_at: Option<u64>,
    },
    /// Nobody has logged in.
    Refused {
        /// The reason in words, as far as strangers may know it.
        message: String,
        /// Seconds to wait before the next try, if it has to wait.
        retry_after: Option<u64>,
    },
}

const fn usual_interval() -> u64 {
    5
}

impl fmt::Debug for LoginAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ask { .. } => "Ask",
            Self::Open { .. } => "Open",
            Self::Wait { .. } => "Wait",
            Self::Done { .. } => "Done",
            Self::Refused { .. } => "Refused",
        })
    }
}

/// One thing that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginField {
    /// Its name in [`LoginRequest::answers`].
    pub name: String,
    /// What to call it on the screen.
    pub label: String,
    /// What may be answered, and how it is asked for.
    pub kind: FieldKind,
    /// The answers to choose from, for [`FieldKind::Choice`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// How a field is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// A text that may be seen.
    Text,
    /// A secret, such as a password.
    Secret,
    /// A code that is good once.
    Code,
    /// One of several answers.
    Choice,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Result<LoginRequest, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn messages_have_the_documented_members() {
        let begun = LoginRequest { handle: None, answers: BTreeMap::new(), browser: true };
        assert_eq!(serde_json::to_string(&begun).unwrap(), r#"{"handle":null,"answers":{},"browser":true}"#);
        let field = |name: &str, kind| LoginField { name: name.into(), label: "L".into(), kind, choices: Vec::new() };
        let ask = LoginAnswer::Ask {
            handle: "h".into(),
            text: "t".into(),
            fields: vec![field("user", FieldKind::Text), field("password", FieldKind::Secret)],
        };
        assert_eq!(
            serde_json::to_string(&ask).unwrap(),
            r#"{"step":"ask","handle":"h","text":"t","fields":[{"name":"user","label":"L","kind":"text"},{"name":"password","label":"L","kind":"secret"}]}"#
        );
        let done = LoginAnswer::Done { user: "alice".into(), token: "k".into(), ends_at: Some(9) };
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"step":"done","user":"alice","token":"k","ends_at":9}"#);
        let refused = LoginAnswer::Refused { message: "m".into(), retry_after: None };
        assert_eq!(serde_json::to_string(&refused).unwrap(), r#"{"step":"refused","message":"m","retry_after":null}"#);
    }

    #[test]
    fn request_may_leave_out_what_it_has_not() {
        let begun = request("{}").unwrap();
        assert!(begun.handle.is_none() && begun.answers.is_empty() && !begun.browser);
        assert!(request(r#"{"more":1}"#).is_err(), "a gateway takes no unknown member");
        let answer = r#"{"step":"wait","handle":"h","seconds":2,"more":1}"#;
        assert!(serde_json::from_str::<LoginAnswer>(answer).is_ok(), "a client does");
    }

    #[test]
    fn every_part_of_a_request_is_bounded() {
        let answers = |count: usize, name: usize, answer: usize| {
            let one = |number: usize| format!("\"{}{number}\":\"{}\"", "n".repeat(name - 1), "a".repeat(answer));
            request(&format!("{{\"answers\":{{{}}}}}", (0..count).map(one).collect::<Vec<_>>().join(",")))
        };
        assert!(answers(MAX_ANSWERS, MAX_FIELD_NAME, MAX_ANSWER).is_ok());
        assert!(request(&format!("{{\"handle\":\"{}\"}}", "h".repeat(MAX_HANDLE))).is_ok());
        for (refused, part) in [
            (answers(MAX_ANSWERS + 1, 2, 1), "the number of answers"),
            (answers(1, MAX_FIELD_NAME + 1, 1), "a name"),
            (answers(1, 2, MAX_ANSWER + 1), "an answer"),
            (request(&format!("{{\"handle\":\"{}\"}}", "h".repeat(MAX_HANDLE + 1))), "the handle"),
        ] {
            let error = refused.err().unwrap();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let done = LoginAnswer::Done { user: "alice".into(), token: "secret".into(), ends_at: None };
        assert_eq!(format!("{done:?}"), "Done");
    }
}
