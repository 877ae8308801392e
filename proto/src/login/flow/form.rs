//! What the client is asked, as fields with names.

use super::super::{Kind, Question};

/// Longest question that is passed on, in bytes.
const MAX_TEXT: usize = 512;
/// Most answers to choose from, and the longest of them in bytes.
const MAX_CHOICES: usize = 32;
const MAX_CHOICE: usize = 64;

/// The answer of a client to which a browser has brought something at the end of a login. No form asks for it.
pub const PROOF: &str = "proof";
pub(super) const USER: &str = "user";
pub(super) const PASSWORD: &str = "password";
pub(super) const METHOD: &str = "method";
/// The choice of [`METHOD`] that means a browser.
pub(super) const BROWSER: &str = "browser";

/// Fields to fill in together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What is said above them; may be empty. It may come from a server that is not ours.
    pub text: String,
    /// The fields, each with a name of its own.
    pub fields: Vec<Asked>,
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The name its answer bears.
    pub name: &'static str,
    /// What to call it on the screen.
    pub label: &'static str,
    /// What is asked for.
    pub kind: Kind,
    /// Whether the answer may be seen while it is typed.
    pub echo: bool,
}

impl Form {
    pub(super) fn name_and_password() -> Self {
        Self { text: String::new(), fields: vec![asked(Kind::User, true), asked(Kind::Password, false)] }
    }

    pub(super) fn password() -> Self {
        Self { text: String::new(), fields: vec![asked(Kind::Password, false)] }
    }

    /// The choice between a password and a browser.
    pub(super) fn method() -> Self {
        let choices = [PASSWORD, BROWSER].map(str::to_owned).to_vec();
        let field = Asked { name: METHOD, label: "Log in with", kind: Kind::Choice(choices), echo: true };
        Self { text: String::new(), fields: vec![field] }
    }

    pub(super) fn of(question: &Question) -> Self {
        Self { text: question.text.clone(), fields: vec![asked(question.kind.clone(), question.echo)] }
    }
}

fn asked(kind: Kind, echo: bool) -> Asked {
    Asked { name: name_of(&kind), label: label_of(&kind), kind, echo }
}

/// The name of the field that asks for something.
pub(super) fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::User => USER,
        Kind::Password => PASSWORD,
        Kind::Code => "code",
        Kind::NewPassword => "new_password",
        Kind::Choice(_) => "choice",
        Kind::Text => "text",
    }
}

fn label_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::User => "User",
        Kind::Password => "Password",
        Kind::Code => "Code",
        Kind::NewPassword => "New password",
        Kind::Choice(_) => "Choice",
        Kind::Text => "Answer",
    }
}

/// A question no larger than what is passed on.
pub(super) fn bounded(question: Question) -> Question {
    let Question { mut text, kind, echo } = question;
    cut(&mut text, MAX_TEXT);
    let kind = match kind {
        Kind::Choice(mut choices) => {
            choices.truncate(MAX_CHOICES);
            choices.iter_mut().for_each(|choice| cut(choice, MAX_CHOICE));
            Kind::Choice(choices)
        }
        Kind::User | Kind::Password | Kind::Code | Kind::NewPassword | Kind::Text => kind,
    };
    Question { text, kind, echo }
}

fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}
