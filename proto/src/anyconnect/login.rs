//! The login in the documents of these clients: what they post.
//!
//! A client posts `config-auth` documents of the types `init`, `auth-reply` and `logout`; one that was told
//! `--no-xmlpost` gets `/` and posts form-encoded fields. It is answered with a form until a token or its user's
//! patience ends it. What the gateway keeps of the login is a hidden field of the form, which comes back as it is.

use zeroize::Zeroizing;

use super::form_body;
use super::xml::{self, Element};
use crate::login::flow::Answers;
use crate::login::message::MAX_HANDLE;

pub use super::xml::XmlFault;

/// Most bytes of a body.
pub const MAX_BODY: usize = xml::MAX_DOCUMENT;

/// The hidden field that leads from one form to the next.
const HANDLE: &str = "handle";

/// What fields are called: by clients, and by the gateway's login. `username` and `password` are what a client fills in
/// that knows them beforehand, and `secondary_password` is where it puts the code of an app. The names `answer`,
/// `whichpin` and `new_password` come back as `password`, so none of them is used.
const NAMES: [(&str, &str); 7] = [
    ("username", "user"),
    ("password", "password"),
    ("secondary_password", "code"),
    ("next_password", "new_password"),
    ("choice", "choice"),
    ("method", "method"),
    ("text", "text"),
];

/// What a client wants. A password may be in it, so it has no `Debug`.
#[derive(PartialEq, Eq)]
pub enum Posted {
    /// To begin.
    Begin,
    /// To answer a form.
    Answer {
        /// The handle of that form.
        handle: Option<String>,
        /// The answers, by the names of the gateway's login.
        answers: Answers,
    },
    /// To have its cookie made worthless.
    LogOut,
}

impl Posted {
    /// Reads a document.
    ///
    /// # Errors
    /// It is none, or says nothing that a login knows.
    pub fn of_xml(document: &[u8]) -> Result<Self, XmlFault> {
        let mut elements = xml::read(document)?;
        let root = elements.pop().filter(|root| root.path == "config-auth").ok_or(XmlFault::Malformed)?;
        match root.kind.as_deref() {
            Some("init") => Ok(Self::Begin),
            Some("logout") => Ok(Self::LogOut),
            Some("auth-reply") => {
                let field =
                    |Element { path, text, .. }| Some((path.strip_prefix("config-auth/auth/")?.to_owned(), text));
                Ok(Self::answer(elements.into_iter().filter_map(field)))
            }
            Some(_) | None => Err(XmlFault::Malformed),
        }
    }

    /// Reads form-encoded fields; `None` if the body has none that can be read.
    pub fn of_form(body: &[u8]) -> Option<Self> {
        Some(Self::answer(form_body::read(body)?))
    }

    fn answer(fields: impl IntoIterator<Item = (String, Zeroizing<String>)>) -> Self {
        let (mut handle, mut answers) = (None, Answers::new());
        for (name, value) in fields {
            if name == HANDLE && value.len() <= MAX_HANDLE {
                handle = Some(value.to_string());
            } else if let Some((_, ours)) = NAMES.iter().find(|(theirs, _)| *theirs == name) {
                answers.insert((*ours).to_owned(), value);
            }
        }
        Self::Answer { handle, answers }
    }
}

#[cfg(test)]
mod tests;
