//! The login as a client sees it: what a gateway says to each step, and the documents that answer it.
//!
//! Names, labels and texts come from the gateway. Whoever shows them makes them fit to be shown.

use std::collections::BTreeMap;

use quick_xml::escape::escape;
use zeroize::Zeroizing;

use super::xml::{self, Element, XmlFault};

/// Most fields of a form, hidden ones among them.
const MAX_FIELDS: usize = 32;
/// What a client says that its user may log in in a browser of its host.
const CAPABILITIES: &str = "<capabilities><auth-method>single-sign-on-v2</auth-method>\
    <auth-method>single-sign-on-external-browser</auth-method></capabilities>";
/// The select of the group, whose value stands beside the other answers.
const GROUP: &str = "group_list";
/// Fields whose value is called a password in the answer, whatever they are called in the form.
const PASSWORDS: [&str; 3] = ["answer", "whichpin", "new_password"];
/// Fields that repeat another one, for people who mistype, and are not sent.
const REPETITIONS: [&str; 2] = ["verify_pin", "verify_password"];

/// What a gateway says to a step of a login. A token may be in it, so it has no `Debug`.
pub enum Told {
    /// Something is to be filled in.
    Form(GatewayForm),
    /// The login is complete.
    Complete {
        /// The session token, of gateways that say it here and not in a cookie.
        token: Option<Zeroizing<String>>,
        /// What is to be told to who has logged in, a line for each text; may be empty.
        text: String,
    },
    /// The gateway wants a certificate of the user, or to hear that there is none.
    CertificateWanted,
    /// There is nothing to go on from, for this reason.
    Refused(String),
}

/// What a login begins with.
#[derive(Debug, Clone, Copy)]
pub struct Beginning<'a> {
    /// The gateway as its user names it.
    pub url: &'a str,
    /// The group, if one was chosen.
    pub group: Option<&'a str>,
    /// Whether the gateway has to do without a certificate of the user.
    pub has_no_certificate: bool,
    /// Whether its user may log in in a browser of this host.
    pub has_browser: bool,
}

/// Why a document leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormFault {
    /// It cannot be read.
    #[error(transparent)]
    Xml(#[from] XmlFault),
    /// It is none of a login.
    #[error("the document is none of a login")]
    Unknown,
    /// It has two of what there can be one of.
    #[error("the document has two of {0}")]
    Twice(&'static str),
    /// It has more fields than any login asks for.
    #[error("the form has too many fields")]
    TooMany,
    /// It has a field without a name that could be sent back.
    #[error("the form has a field that cannot be answered")]
    Nameless,
    /// It wants a browser, but none of this host.
    #[error("it wants a login in a browser that is a part of its client")]
    Browser,
}

/// A form to be filled in. Hidden fields may be secrets, so it has no `Debug`.
pub struct GatewayForm {
    /// The link that it is posted to, as it stands in the document.
    pub action: String,
    /// What is to be told above it, a line for each text; may be empty.
    pub text: String,
    /// What was wrong with the last answer.
    pub error: Option<String>,
    /// The page at which its user logs in in a browser, if that is what it wants.
    page: Option<String>,
    fields: Vec<Field>,
    /// What is sent back as it came, as a part of a document.
    opaque: Option<Zeroizing<String>>,
}

/// A field of a form.
struct Field {
    name: String,
    label: String,
    kind: Kind,
}

enum Kind {
    Text,
    Secret,
    Choice(Vec<Choice>),
    Hidden(Zeroizing<String>),
    /// What a browser brings.
    Brought,
}

/// One of the values of a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What is sent.
    pub value: String,
    /// What is shown.
    pub label: String,
}

/// A field that somebody has to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The name of its answer.
    pub name: &'a str,
    /// What it is called.
    pub label: &'a str,
    /// Whether nobody is to see the answer.
    pub is_secret: bool,
    /// What there is to choose from; an empty list where anything may be typed.
    pub choices: &'a [Choice],
}

impl Question<'_> {
    fn is_of_groups(&self) -> bool {
        self.name == GROUP && !self.choices.is_empty()
    }

    /// What there is to choose under this name: the label of a choice, or else its value.
    pub fn choice(&self, named: &str) -> Option<&Choice> {
        let choices = self.choices;
        let labelled = choices.iter().find(|choice| choice.label == named);
        labelled.or_else(|| choices.iter().find(|choice| choice.value == named))
    }
}

impl Told {
    /// Reads a document.
    ///
    /// # Errors
    /// It leads nowhere.
    pub fn of_document(document: &[u8]) -> Result<Self, FormFault> {
        let elements = xml::read(document)?;
        let root = elements.last().ok_or(FormFault::Unknown)?;
        let auth = match root.path.as_str() {
            "config-auth" => "config-auth/auth",
            "auth" => "auth",
            _ => return Err(FormFault::Unknown),
        };
        let id = only(&elements, auth, "auth")?.and_then(|auth| auth.attribute("id"));
        if root.attribute("type") == Some("complete") || id == Some("success") {
            let token = only(&elements, "config-auth/session-token", "session-token")?;
            let token = token.map(|token| Zeroizing::new(token.text.trim().to_owned()));
            let text = text_of(&elements, &[&format!("{auth}/banner"), &format!("{auth}/message")]);
            return Ok(Self::Complete { token: token.filter(|token| !token.is_empty()), text });
        }
        let has = |name: &str| elements.iter().any(|element| is_at(element, root.path.as_str(), name));
        if has("client-cert-request") {
            return Ok(Self::CertificateWanted);
        }
        let error = text_of(&elements, &[&format!("{auth}/error"), "config-auth/error"]);
        let text = text_of(&elements, &[&format!("{auth}/banner"), &format!("{auth}/message")]);
        let Some(form) = only(&elements, &format!("{auth}/form"), "form")? else {
            let reason = [error, text].into_iter().find(|reason| !reason.is_empty());
            return reason.map(Self::Refused).ok_or(FormFault::Unknown);
        };
        Ok(Self::Form(GatewayForm {
            action: form.attribute("action").unwrap_or_default().to_owned(),
            text,
            error: Some(error).filter(|error| !error.is_empty()),
            page: page(&elements, auth)?,
            fields: fields(&elements, &format!("{auth}/form/"))?,
            opaque: opaque(&elements),
        }))
    }
}

impl GatewayForm {
    /// The list of the groups that users may choose from, if there is one. The value of the one that was chosen goes
    /// with the answers, under the name of this question.
    pub fn groups(&self) -> Option<Question<'_>> {
        self.visible().find(Question::is_of_groups)
    }

    /// The login in a browser that the form waits for: the name of the answer, which is the token that it brings, and
    /// the page where it begins.
    pub fn browser(&self) -> Option<(&str, &str)> {
        let field = self.fields.iter().find(|field| matches!(field.kind, Kind::Brought))?;
        Some((&field.name, self.page.as_deref()?))
    }

    /// What else has to be answered, in order.
    pub fn questions(&self) -> impl Iterator<Item = Question<'_>> {
        self.visible().filter(|question| !question.is_of_groups())
    }

    fn visible(&self) -> impl Iterator<Item = Question<'_>> {
        self.fields.iter().filter_map(|Field { name, label, kind }| {
            let (is_secret, choices) = match kind {
                Kind::Text => (false, &[][..]),
                Kind::Secret => (true, &[][..]),
                Kind::Choice(choices) => (false, choices.as_slice()),
                Kind::Hidden(_) | Kind::Brought => return None,
            };
            (!REPETITIONS.contains(&name.as_str())).then_some(Question { name, label, is_secret, choices })
        })
    }

    /// The document with the answers, by the names of the questions. `version` is what the client calls its own.
    pub fn reply(&self, version: &str, answers: &BTreeMap<String, Zeroizing<String>>) -> Zeroizing<String> {
        let (mut inside, mut beside) = (secret_text(answers), Zeroizing::new(String::new()));
        for Field { name, kind, .. } in &self.fields {
            let value = match kind {
                Kind::Hidden(value) => Some(value),
                Kind::Text | Kind::Secret | Kind::Choice(_) | Kind::Brought => answers.get(name),
            };
            let Some(value) = value.filter(|_| !REPETITIONS.contains(&name.as_str())) else { continue };
            match name.as_str() {
                GROUP => add_element(&mut beside, "group-select", value),
                name if PASSWORDS.contains(&name) => add_element(&mut inside, "password", value),
                name => add_element(&mut inside, name, value),
            }
        }
        let opaque = self.opaque.as_ref().map_or("", |opaque| opaque.as_str());
        let body = Zeroizing::new(format!("{opaque}<auth>{}</auth>{}", *inside, *beside));
        document("auth-reply", version, &body)
    }
}

/// The document that begins a login.
pub fn begin(version: &str, beginning: Beginning<'_>) -> Zeroizing<String> {
    let Beginning { url, group, has_no_certificate, has_browser } = beginning;
    let capabilities = if has_browser { CAPABILITIES } else { "" };
    let group = group.map(|group| format!("<group-select>{}</group-select>", escape(group))).unwrap_or_default();
    let certificate = if has_no_certificate { "<client-cert-fail/>" } else { "" };
    document(
        "init",
        version,
        &format!("{capabilities}<group-access>{}</group-access>{certificate}{group}", escape(url)),
    )
}

fn document(kind: &str, version: &str, body: &str) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<config-auth client=\"vpn\" type=\"{kind}\" \
         aggregate-auth-version=\"2\"><version who=\"vpn\">{}</version><device-id>linux-64</device-id>{body}</config-auth>\n",
        escape(version),
    ))
}

/// An empty text with room for the answers, so that no copy of them is left behind when it grows.
fn secret_text(answers: &BTreeMap<String, Zeroizing<String>>) -> Zeroizing<String> {
    /// The longest escape, in bytes.
    const ESCAPE: usize = 6;
    /// Tags of one element and a hidden value beside the answers.
    const BESIDE: usize = 16 * 1024;
    let length: usize = answers.values().map(|answer| answer.len()).sum();
    Zeroizing::new(String::with_capacity(length.saturating_mul(ESCAPE).saturating_add(BESIDE)))
}

fn add_element(text: &mut String, name: &str, value: &str) {
    let value = Zeroizing::new(escape(value).into_owned());
    for part in ["<", name, ">", &value, "</", name, ">"] {
        text.push_str(part);
    }
}

/// Where a login in a browser of this host begins, if a form waits for one.
fn page(elements: &[Element], auth: &str) -> Result<Option<String>, FormFault> {
    let waits = elements
        .iter()
        .any(|element| element.path == format!("{auth}/form/input") && element.attribute("type") == Some("sso"));
    if !waits {
        return Ok(None);
    }
    let text = |name: &'static str| only(elements, &format!("{auth}/{name}"), name);
    let mode = text("sso-v2-browser-mode")?.map(|mode| mode.text.trim());
    let page = text("sso-v2-login")?.map(|page| page.text.trim().to_owned());
    page.filter(|_| mode == Some("external")).map(Some).ok_or(FormFault::Browser)
}

/// The element at a path; an error if there are two.
fn only<'a>(elements: &'a [Element], path: &str, name: &'static str) -> Result<Option<&'a Element>, FormFault> {
    let mut found = elements.iter().filter(|element| element.path == path);
    match (found.next(), found.next()) {
        (found, None) => Ok(found),
        (_, Some(_)) => Err(FormFault::Twice(name)),
    }
}

/// Whether an element is a child of another one.
fn is_at(element: &Element, parent: &str, name: &str) -> bool {
    element.path.strip_prefix(parent).and_then(|path| path.strip_prefix('/')) == Some(name)
}

/// What the elements at these paths say, a line each.
fn text_of(elements: &[Element], paths: &[&str]) -> String {
    let said = elements.iter().filter(|element| paths.contains(&element.path.as_str()));
    let lines = said.flat_map(|element| element.text.lines()).map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

/// The fields of the form below a path.
fn fields(elements: &[Element], form: &str) -> Result<Vec<Field>, FormFault> {
    let (mut fields, mut choices) = (Vec::<Field>::new(), Vec::new());
    for element in elements {
        let kind = match (element.path.strip_prefix(form), element.attribute("type")) {
            (Some("input"), None | Some("text")) => Kind::Text,
            (Some("input"), Some("password")) => Kind::Secret,
            (Some("input"), Some("hidden")) => {
                Kind::Hidden(Zeroizing::new(element.attribute("value").unwrap_or_default().to_owned()))
            }
            (Some("input"), Some("sso")) => Kind::Brought,
            (Some("select/option"), _) => {
                choices.push(choice(element));
                continue;
            }
            // Its options have ended before it.
            (Some("select"), _) => Kind::Choice(std::mem::take(&mut choices)),
            // Buttons, and what is only to be looked at.
            (Some(_) | None, _) => continue,
        };
        let name = element.attribute("name").filter(|name| is_name(name)).ok_or(FormFault::Nameless)?.to_owned();
        if fields.iter().any(|field| field.name == name) {
            return Err(FormFault::Twice("a field"));
        }
        if fields.len() >= MAX_FIELDS {
            return Err(FormFault::TooMany);
        }
        let label = element.attribute("label").unwrap_or(&name).trim().trim_end_matches(':').to_owned();
        fields.push(Field { label, name, kind });
    }
    Ok(fields)
}

fn choice(option: &Element) -> Choice {
    let label = option.text.trim();
    let value = option.attribute("value").unwrap_or(label);
    Choice { value: value.to_owned(), label: if label.is_empty() { value } else { label }.to_owned() }
}

/// Whether a field's name can be the name of an element.
fn is_name(name: &str) -> bool {
    let mut letters = name.bytes();
    let begins = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    begins && name.len() <= 64 && letters.all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// What a gateway wants back as it came: an element with texts in elements of its own.
fn opaque(elements: &[Element]) -> Option<Zeroizing<String>> {
    const PATH: &str = "config-auth/opaque";
    let opaque = elements.iter().find(|element| element.path == PATH)?;
    let mut text = Zeroizing::new(String::new());
    for element in elements {
        let name = element.path.strip_prefix(PATH).and_then(|path| path.strip_prefix('/'));
        if let Some(name) = name.filter(|name| is_name(name)) {
            add_element(&mut text, name, &element.text);
        }
    }
    let whose = opaque.attribute("is-for").map(|whose| format!(" is-for=\"{}\"", escape(whose))).unwrap_or_default();
    Some(Zeroizing::new(format!("<opaque{whose}>{}</opaque>", *text)))
}

#[cfg(test)]
mod tests;
