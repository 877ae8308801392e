//! Logging in: who somebody is, as one of several sources says.
//!
//! A *source* knows users: the gateway's own store, RADIUS servers, a directory, an OpenID Connect provider. It answers
//! a name and password, or the answer to a question of its own, with a [`Verdict`]. [`flow`] leads a client through the
//! sources, [`limits`] says how often one may try, and a [`token`] is what a login is worth.

mod encoding;
pub mod flow;
pub mod limits;
pub mod message;
pub mod token;

use std::time::Duration;

/// A person as a source knows them. `source` and `subject` together are who they are for ever; `name` is what the
/// gateway calls them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The source's word in the configuration, such as `ldap`.
    pub source: String,
    /// What the source knows them by, which never changes and is never given to another: no name and no e-mail address.
    pub subject: String,
    /// The user name.
    pub name: String,
    /// The groups that the source puts them in, by the source's own names.
    pub groups: Vec<String>,
    /// How they proved who they are, in order.
    pub methods: Vec<Method>,
    /// How long the source lets a login last; `None` leaves that to the gateway.
    pub session_lifetime: Option<Duration>,
    /// Which of the credentials that the gateway itself keeps they proved: when these change, so does the number.
    /// `None` where another keeps them.
    pub generation: Option<u64>,
}

/// One way to prove who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// A password.
    Password,
    /// A one-time code, of an app or of a challenge.
    Code,
    /// A recovery code.
    RecoveryCode,
    /// Whatever an identity provider asked for in a browser.
    Browser,
    /// A device certificate of the gateway.
    Certificate,
    /// A bearer token of the gateway.
    Token,
}

impl Method {
    /// All of them, in the order of the numbers by which tokens name them.
    pub const ALL: [Self; 6] =
        [Self::Password, Self::Code, Self::RecoveryCode, Self::Browser, Self::Certificate, Self::Token];

    /// The word in the store, in logs and in listings.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Code => "code",
            Self::RecoveryCode => "recovery-code",
            Self::Browser => "browser",
            Self::Certificate => "certificate",
            Self::Token => "token",
        }
    }

    /// The method of a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.word() == word)
    }
}

/// What a source answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It knows the person, who has proved to be them.
    Accepted(Person),
    /// It asks something more. `state` comes back to the same source, with the answer.
    Ask {
        /// What it asks.
        question: Question,
        /// What the source needs to judge the answer; at most [`MAX_STATE`] bytes.
        state: Vec<u8>,
    },
    /// It knows the name, or cannot tell, and says no. The cause is for the gateway's log alone.
    Refused(Cause),
    /// It does not know the name: the next source is asked.
    Unknown,
    /// It cannot be asked now. The text names source and reason, for the log and the administrator.
    Unavailable(String),
    /// It is asked about as many as it can be, for this reason: whoever logs in has to come again. No other source is
    /// asked meanwhile, or a flood could bring about that it gets a password which is none of its business.
    Busy(String),
}

/// Most bytes a source may want to have back with an answer. Larger ones end the login.
pub const MAX_STATE: usize = 2048;

/// A question to whoever logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The question in words. It may come from a server that is not ours: to be escaped before it is shown.
    pub text: String,
    /// What is asked for.
    pub kind: Kind,
    /// Whether the answer may be seen while it is typed.
    pub echo: bool,
}

/// What a question asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A user name.
    User,
    /// The password.
    Password,
    /// A one-time code or a recovery code.
    Code,
    /// A new password, in place of one that may not be used any longer.
    NewPassword,
    /// One of these.
    Choice(Vec<String>),
    /// Anything else.
    Text,
}

/// A login in a browser that has begun. Its state may let others take it over, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct StartedLink {
    /// The link.
    pub url: String,
    /// The code to type there, if one is wanted.
    pub user_code: Option<String>,
    /// How long it may take.
    pub lifetime: Duration,
    /// How long to wait between two looks at how far it is.
    pub interval: Duration,
    /// What the source needs to go on; at most [`MAX_STATE`] bytes.
    pub state: Vec<u8>,
    /// Whether the browser brings a proof to the client, without which the source lets nobody in.
    pub returns: bool,
}

/// Why a source refuses somebody. Strangers do not learn it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The password is wrong.
    #[error("wrong password")]
    WrongPassword,
    /// The code, or the answer to another question, is wrong.
    #[error("wrong code")]
    WrongCode,
    /// The code is right, and was used before.
    #[error("code used before")]
    ReusedCode,
    /// The source takes no password of this user for now.
    #[error("locked")]
    Locked,
    /// The user may not log in any longer.
    #[error("disabled")]
    Disabled,
    /// The password is right, and has to be changed first.
    #[error("password expired")]
    PasswordExpired,
    /// The user may not log in here, for this reason.
    #[error("not permitted: {0}")]
    NotPermitted(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_methods_name_them_and_nothing_else() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.word()), Some(method));
        }
        assert_eq!(Method::parse("Password"), None);
        assert_eq!(Method::parse(""), None);
    }
}
