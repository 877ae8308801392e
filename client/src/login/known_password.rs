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

/// What is done once the gateway shows that it did not take the password.
pub type PasswordRefused<'a> = Box<dyn FnOnce() + 'a>;

/// Somebody who logs in with a password that is known beforehand. What else is asked, and a password where none is
/// known or the known one was not taken, is for a person.
pub struct KnownPassword<'a> {
    person: &'a mut dyn Person,
    source: Option<PasswordSource<'a>>,
    refused: Option<PasswordRefused<'a>>,
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
    /// The password of `source`, and `person` for all else. `refused` is called as soon as it shows that the gateway
    /// did not take it: whoever is asked for another one may leave then.
    pub fn new(person: &'a mut dyn Person, source: PasswordSource<'a>, refused: PasswordRefused<'a>) -> Self {
        Self { person, source: Some(source), refused: Some(refused), fate: Fate::Kept, typed: None }
    }

    /// The login ended so, which may show as well that the password was not taken.
    pub fn handle_outcome<T>(&mut self, outcome: &Result<T, Failure>) {
        let is_refused = matches!(outcome, Err(failure) if failure.exit == Exit::AuthRefused);
        if self.fate == Fate::Given && is_refused {
            self.refuse();
        }
    }

    fn refuse(&mut self) {
        self.fate = Fate::Refused;
        if let Some(refused) = self.refused.take() {
            refused();
        }
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
        match (self.fate, is_asked) {
            (Fate::Given, true) => self.refuse(),
            (Fate::Given, false) => self.fate = Fate::Taken,
            (Fate::Kept | Fate::Taken | Fate::Refused, _) => {}
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Somebody who leaves when asked for a password, and has seen then whether the one that was known is forgotten.
    struct Leaver<'a> {
        forgotten: &'a Cell<bool>,
        seen: Option<bool>,
    }

    impl Person for Leaver<'_> {
        fn answer(&mut self, _text: &str, fields: &[LoginField]) -> Result<BTreeMap<String, String>, Failure> {
            if fields.is_empty() {
                return Ok(BTreeMap::new());
            }
            self.seen = Some(self.forgotten.get());
            Err(Failure::new(Exit::Usage, "the question", "nobody answers", ""))
        }

        fn open(&mut self, _link: &Link) -> Result<(), Failure> {
            Ok(())
        }

        fn wait(&mut self) {}

        fn has_browser(&self) -> bool {
            false
        }
    }

    #[test]
    fn password_that_was_not_taken_is_forgotten_before_anybody_is_asked_for_another() {
        let field = |name: &str| {
            let (name, label) = (name.to_owned(), String::new());
            [LoginField { name, label, kind: FieldKind::Secret, choices: Vec::new() }]
        };
        for (next, is_forgotten) in [(PASSWORD, true), ("code", false)] {
            let forgotten = Cell::new(false);
            let mut leaver = Leaver { forgotten: &forgotten, seen: None };
            let source: PasswordSource<'_> = Box::new(|| Ok(Some(Zeroizing::new("kept".to_owned()))));
            let mut person = KnownPassword::new(&mut leaver, source, Box::new(|| forgotten.set(true)));
            assert_eq!(person.answer("", &field(PASSWORD)).unwrap()[PASSWORD], "kept");
            assert!(person.answer("", &field(next)).is_err());
            drop(person);
            assert_eq!((leaver.seen, forgotten.get()), (Some(is_forgotten), is_forgotten), "{next}");
        }
    }
}
