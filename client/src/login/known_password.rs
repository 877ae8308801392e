//! A password that is known before a login. It answers the first question for one, and no second: a gateway that asks
//! again did not take it, and would lock its user out.

use std::collections::BTreeMap;

use adit_program::exit::{Exit, Failure};
use adit_proto::login::message::{FieldKind, LoginField};
use zeroize::Zeroizing;

use super::{Link, Person};
use crate::profile::ProfileName;

/// What the question is called.
const PASSWORD: &str = "password";

/// Where a password comes from, once it is asked for; from nowhere if there is none.
pub type PasswordSource<'a> = Box<dyn FnOnce() -> Result<Option<Zeroizing<String>>, Failure> + 'a>;

/// Somebody who logs in with a password that is known beforehand. What else is asked, and a password where none is
/// known or the known one was not taken, is for a person.
pub struct KnownPassword<'a> {
    person: &'a mut dyn Person,
    source: Option<PasswordSource<'a>>,
    fate: Fate,
    typed: Option<Zeroizing<String>>,
}

/// What has become of the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was not given.
    Kept,
    /// It answered the last form.
    Given,
    /// The gateway went on to something else.
    Taken,
    /// The gateway asked for it again.
    Refused,
}

impl<'a> KnownPassword<'a> {
    /// The password of `source`, and `person` for all else.
    pub fn new(person: &'a mut dyn Person, source: PasswordSource<'a>) -> Self {
        Self { person, source: Some(source), fate: Fate::Kept, typed: None }
    }

    /// Whether a login that ended so did not take the password that was known.
    #[must_use]
    pub fn was_refused<T>(&self, outcome: &Result<T, Failure>) -> bool {
        let is_refused = matches!(outcome, Err(failure) if failure.exit == Exit::AuthRefused);
        self.fate == Fate::Refused || (self.fate == Fate::Given && is_refused)
    }

    /// The outcome of a login to this profile, for a service manager that starts the client again when it fails. Where
    /// the known password was sent, and the gateway did not say whether it is right, the user has to log in: sent again
    /// and again, a wrong one would lock its user out.
    ///
    /// # Errors
    /// That of the outcome, with exit code 2 or 3 if the password was sent.
    pub fn sent_once<T>(&self, name: &ProfileName, outcome: Result<T, Failure>) -> Result<T, Failure> {
        let was_sent = matches!(self.fate, Fate::Given | Fate::Taken);
        outcome.map_err(|failure| {
            if !was_sent || matches!(failure.exit, Exit::Usage | Exit::AuthRefused) {
                return failure;
            }
            let then = if failure.next.is_empty() { String::new() } else { format!("{}; then ", failure.next) };
            let next =
                format!("{then}`adit-client login {name}`: a service does not send the password again by itself");
            Failure { exit: Exit::AuthRefused, next, ..failure }
        })
    }

    /// The password that the person typed last, if the person was asked for one.
    #[must_use]
    pub fn into_typed(self) -> Option<Zeroizing<String>> {
        self.typed
    }

    fn take(&mut self) -> Result<Option<Zeroizing<String>>, Failure> {
        self.source.take().map_or(Ok(None), |source| source())
    }
}

impl Person for KnownPassword<'_> {
    fn answer(&mut self, text: &str, fields: &[LoginField]) -> Result<BTreeMap<String, String>, Failure> {
        let is_asked = fields.iter().any(is_password);
        if self.fate == Fate::Given {
            self.fate = if is_asked { Fate::Refused } else { Fate::Taken };
        }
        let known = if is_asked { self.take()? } else { None };
        let Some(known) = known else {
            let answers = self.person.answer(text, fields)?;
            if is_asked {
                self.typed = answers.get(PASSWORD).cloned().map(Zeroizing::new);
            }
            return Ok(answers);
        };
        let others: Vec<LoginField> = fields.iter().filter(|field| !is_password(field)).cloned().collect();
        let mut answers = self.person.answer(text, &others)?;
        answers.insert(PASSWORD.to_owned(), known.to_string());
        self.fate = Fate::Given;
        Ok(answers)
    }

    fn open(&mut self, link: &Link) -> Result<(), Failure> {
        self.person.open(link)
    }

    fn wait(&mut self) {
        self.person.wait();
    }

    fn has_browser(&self) -> bool {
        self.person.has_browser()
    }
}

fn is_password(field: &LoginField) -> bool {
    field.name == PASSWORD && field.kind == FieldKind::Secret
}
