//! The login in the documents of these clients: what they post, and the pages that they are shown.
//!
//! A client posts `config-auth` documents of the types `init`, `auth-reply` and `logout`; one that was told
//! `--no-xmlpost` gets `/` and posts form-encoded fields. It is answered with a form until a token or its user's
//! patience ends it. What the gateway keeps of the login is a hidden field of the form, which comes back as it is.

use quick_xml::escape::escape;
use zeroize::Zeroizing;

use super::external_browser::CAPABILITY;
use super::form_body;
use super::xml::{self, Element};
use crate::login::Kind;
use crate::login::flow::{Answers, Asked, Form, PROOF};
use crate::login::message::MAX_HANDLE;

pub use super::xml::XmlFault;

/// Most bytes of a body.
pub const MAX_BODY: usize = xml::MAX_DOCUMENT;

/// The hidden field that leads from one form to the next.
const HANDLE: &str = "handle";

/// The field of what a browser has brought to the client; the type of such a field has a name of its own, too.
const TOKEN: &str = "sso-token";

/// The field of the choice of a group, which clients know by this name: `--authgroup` fills it in.
const GROUP: &str = "group_list";
/// The choice of none: names of groups have no dots.
const NO_GROUP: &str = ".";

/// What fields are called: by clients, and by the gateway's login. `username` and `password` are what a client fills in
/// that knows them beforehand, and `secondary_password` is where it puts the code of an app. The names `answer`,
/// `whichpin` and `new_password` come back as `password`, so none of them is used.
const NAMES: [(&str, &str); 8] = [
    ("username", "user"),
    ("password", "password"),
    ("secondary_password", "code"),
    ("next_password", "new_password"),
    ("choice", "choice"),
    ("method", "method"),
    ("text", "text"),
    (TOKEN, PROOF),
];

/// What a client wants. A password may be in it, so it has no `Debug`.
#[derive(PartialEq, Eq)]
pub enum Posted {
    /// To begin.
    Begin {
        /// The group that its user has chosen.
        group: Option<String>,
        /// Whether it can open a browser on its own host.
        opens_browser: bool,
    },
    /// To answer a form.
    Answer {
        /// The handle of that form.
        handle: Option<String>,
        /// The answers, by the names of the gateway's login.
        answers: Answers,
        /// The group that its user has chosen in it.
        group: Option<String>,
        /// Whether it can open a browser on its own host.
        opens_browser: bool,
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
        let opens_browser = elements
            .iter()
            .any(|element| element.path == "config-auth/capabilities/auth-method" && element.text.trim() == CAPABILITY);
        let field = |Element { path, text, .. }| match path.as_str() {
            "config-auth/group-select" => Some((GROUP.to_owned(), text)),
            path => Some((path.strip_prefix("config-auth/auth/")?.to_owned(), text)),
        };
        let fields = elements.into_iter().filter_map(field);
        match root.attribute("type") {
            Some("init") => Ok(Self::begin(fields, opens_browser)),
            Some("logout") => Ok(Self::LogOut),
            Some("auth-reply") => Ok(Self::answer(fields, opens_browser)),
            Some(_) | None => Err(XmlFault::Malformed),
        }
    }

    /// Reads form-encoded fields; `None` if the body has none that can be read.
    pub fn of_form(body: &[u8]) -> Option<Self> {
        Some(Self::answer(form_body::read(body)?, false))
    }

    fn begin(fields: impl IntoIterator<Item = (String, Zeroizing<String>)>, opens_browser: bool) -> Self {
        let group = fields.into_iter().find(|(name, _)| name == GROUP).and_then(|(_, value)| chosen(&value));
        Self::Begin { group, opens_browser }
    }

    fn answer(fields: impl IntoIterator<Item = (String, Zeroizing<String>)>, opens_browser: bool) -> Self {
        let (mut handle, mut answers, mut group) = (None, Answers::new(), None);
        for (name, value) in fields {
            if name == HANDLE && value.len() <= MAX_HANDLE {
                handle = Some(value.to_string());
            } else if name == GROUP {
                group = chosen(&value);
            } else if let Some((_, ours)) = NAMES.iter().find(|(theirs, _)| *theirs == name) {
                answers.insert((*ours).to_owned(), value);
            }
        }
        Self::Answer { handle, answers, group, opens_browser }
    }
}

/// The group that a client names; `None` if it wants none.
fn chosen(value: &str) -> Option<String> {
    (!value.is_empty() && value != NO_GROUP).then(|| value.to_owned())
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
    /// The groups to choose from.
    pub groups: Groups<'a>,
}

/// A page that has a client open a browser, and wait until the browser brings it a token. Only clients that post XML
/// and say that they can are shown one.
pub struct BrowserPage<'a> {
    /// What is said to the user.
    pub text: &'a str,
    /// What the browser opens.
    pub url: &'a str,
    /// What leads on from it.
    pub handle: &'a str,
    /// What is wrong with the last answer.
    pub error: Option<&'a str>,
    /// The groups to choose from.
    pub groups: Groups<'a>,
}

/// The groups that users may choose from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Groups<'a> {
    /// Their names; none where a form has no such choice.
    pub offered: &'a [String],
    /// The group that was chosen.
    pub chosen: Option<&'a str>,
}

impl Groups<'_> {
    /// The choice. Clients match what a user names by the labels of the options.
    fn field(&self) -> String {
        if self.offered.is_empty() {
            return String::new();
        }
        let option = |value: &str, label: &str, is_selected: bool| {
            let selected = if is_selected { " selected=\"true\"" } else { "" };
            format!("<option value=\"{}\"{selected}>{}</option>", escape(value), escape(label))
        };
        let groups: String = self.offered.iter().map(|name| option(name, name, self.chosen == Some(name))).collect();
        let none = option(NO_GROUP, "default", self.chosen.is_none());
        format!("<select name=\"{GROUP}\" label=\"GROUP:\">{groups}{none}</select>")
    }

    /// Where a form is posted to, and all that come after it: what was chosen in an earlier one stands there.
    fn action(&self) -> String {
        let chosen = self.chosen.filter(|_| self.offered.is_empty()).unwrap_or_default();
        format!("/{}", escape(chosen))
    }
}

impl Page<'_> {
    /// The page as a document.
    pub fn document(&self, dialect: Dialect) -> String {
        let has_name = self.form.fields.iter().any(|field| field.kind == Kind::User);
        let id = if has_name { "main" } else { "challenge" };
        let message = if self.form.text.is_empty() { "Please log in." } else { &self.form.text };
        let fields: String = self.form.fields.iter().map(input).collect();
        let auth = auth(id, (message, self.error), "", (self.handle, self.groups, &fields));
        document(dialect, "auth-request", "", &auth)
    }
}

impl BrowserPage<'_> {
    /// The page as a document. Of the elements that clients expect, those that tell of cookies in a browser inside the
    /// client have no meaning here.
    pub fn document(&self) -> String {
        let url = escape(self.url);
        let browser = format!(
            "<sso-v2-login>{url}</sso-v2-login><sso-v2-login-final>{url}</sso-v2-login-final>\
             <sso-v2-token-cookie-name>acSamlv2Token</sso-v2-token-cookie-name>\
             <sso-v2-error-cookie-name>acSamlv2Error</sso-v2-error-cookie-name>\
             <sso-v2-browser-mode>external</sso-v2-browser-mode>"
        );
        let field = format!("<input type=\"sso\" name=\"{TOKEN}\"/>");
        let auth = auth("main", (self.text, self.error), &browser, (self.handle, self.groups, &field));
        document(Dialect::Aggregate, "auth-request", "", &auth)
    }
}

/// What a page consists of: texts, what stands in front of the form, and the form with its fields.
fn auth(
    id: &str,
    (message, error): (&str, Option<&str>),
    before: &str,
    (handle, groups, fields): (&str, Groups<'_>, &str),
) -> String {
    let error = error.map(|error| format!("<error>{}</error>", escape(error))).unwrap_or_default();
    format!(
        "<auth id=\"{id}\"><title>Login</title><message>{}</message>{error}{before}<form method=\"post\" \
         action=\"{}\"><input type=\"hidden\" name=\"{HANDLE}\" value=\"{}\"/>{}{fields}</form></auth>",
        escape(message),
        groups.action(),
        escape(handle),
        groups.field(),
    )
}

const WELCOME: &str = "<auth id=\"success\"><message>Welcome.</message></auth>";

/// Says that the login is complete. The token is in it for clients that read it there; others read the cookie.
pub fn complete(token: &str, dialect: Dialect) -> String {
    let token = format!("<session-token>{}</session-token>", escape(token));
    document(dialect, "complete", &token, WELCOME)
}

/// As [`complete`], with what Cisco's clients ask for on top: a name of the session, which nobody asks for again, and
/// the SHA-1 of the gateway's certificate in hex.
pub fn complete_for_cisco(token: &str, fingerprint: &str, dialect: Dialect) -> String {
    let session = format!("<session-id>1</session-id><session-token>{}</session-token>", escape(token));
    // Clients that post no XML read what is in `auth` alone.
    let config = match dialect {
        Dialect::Plain => String::new(),
        Dialect::Aggregate => format!(
            "<config client=\"vpn\" type=\"private\"><vpn-base-config><server-cert-hash>{}</server-cert-hash>\
             </vpn-base-config></config>",
            escape(fingerprint)
        ),
    };
    document(dialect, "complete", &session, &format!("{WELCOME}{config}"))
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
    // Clients that have the app fill its code in where a password is asked for, and nowhere else.
    let is_shown = asked.echo && asked.kind != Kind::Code;
    let kind = if is_shown { "text" } else { "password" };
    format!("<input type=\"{kind}\" name=\"{name}\" label=\"{label}:\"/>")
}

#[cfg(test)]
mod tests;
