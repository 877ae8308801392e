//! The login in the documents of these clients: what they post, and the pages that they are shown.
//!
//! A client posts `config-auth` documents of the types `init`, `auth-reply` and `logout`; one that was told
//! `--no-xmlpost` gets `/` and posts form-encoded fields. It is answered with a form until a token or its user's
//! patience ends it. What the gateway keeps of the login is a hidden field of the form, which comes back as it is.

use quick_xml::escape::escape;
use zeroize::Zeroizing;

use super::form_body;
use super::xml::{self, Element};
use crate::login::Kind;
use crate::login::flow::{Answers, Asked, Form};
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

/// Which documents a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The present one: everything is in a `config-auth`.
    Aggregate,
    /// That of clients that post no XML.
    Plain,
}

/// A form to be filled in.
pub struct Page<'a> {
    /// What is asked for.
    pub form: &'a Form,
    /// What leads on from it.
    pub handle: &'a str,
    /// What is wrong with the last answer.
    pub error: Option<&'a str>,
}

impl Page<'_> {
    /// The page as a document.
    pub fn document(&self, dialect: Dialect) -> String {
        let has_name = self.form.fields.iter().any(|field| field.kind == Kind::User);
        let id = if has_name { "main" } else { "challenge" };
        let message = if self.form.text.is_empty() { "Please log in." } else { &self.form.text };
        let error = self.error.map(|error| format!("<error>{}</error>", escape(error))).unwrap_or_default();
        let fields: String = self.form.fields.iter().map(input).collect();
        // The path of a form's action is where all later posts go: it is always the same one.
        let auth = format!(
            "<auth id=\"{id}\"><title>Login</title><message>{}</message>{error}<form method=\"post\" action=\"/\">\
             <input type=\"hidden\" name=\"{HANDLE}\" value=\"{}\"/>{fields}</form></auth>",
            escape(message),
            escape(self.handle),
        );
        document(dialect, "auth-request", "", &auth)
    }
}

/// Says that the login is complete. The token is in it for clients that read it there; others read the cookie.
pub fn complete(token: &str, dialect: Dialect) -> String {
    let token = format!("<session-token>{}</session-token>", escape(token));
    document(dialect, "complete", &token, "<auth id=\"success\"><message>Welcome.</message></auth>")
}

/// Says that there is no login here, and why.
pub fn refusal(reason: &str, dialect: Dialect) -> String {
    let auth = format!("<auth id=\"main\"><error>{}</error></auth>", escape(reason));
    document(dialect, "auth-request", "", &auth)
}

fn document(dialect: Dialect, kind: &str, before: &str, auth: &str) -> String {
    let declaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    match dialect {
        Dialect::Plain => format!("{declaration}{auth}\n"),
        Dialect::Aggregate => format!(
            "{declaration}<config-auth client=\"vpn\" type=\"{kind}\" aggregate-auth-version=\"2\">\
             {before}{auth}</config-auth>\n"
        ),
    }
}

fn input(asked: &Asked) -> String {
    let name = NAMES.iter().find(|(_, ours)| *ours == asked.name).map_or(asked.name, |(theirs, _)| theirs);
    let (name, label) = (escape(name), escape(asked.label));
    if let Kind::Choice(choices) = &asked.kind {
        // Clients match what a user chooses by the label of an option, and send back its value.
        let option = |choice: &String| format!("<option value=\"{0}\">{0}</option>", escape(choice.as_str()));
        let options: String = choices.iter().map(option).collect();
        return format!("<select name=\"{name}\" label=\"{label}:\">{options}</select>");
    }
    let kind = if asked.echo { "text" } else { "password" };
    format!("<input type=\"{kind}\" name=\"{name}\" label=\"{label}:\"/>")
}

#[cfg(test)]
mod tests;
