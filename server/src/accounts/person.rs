//! People, as the accounts keep them.

use super::subject::link_flags;
use super::{NameError, StoreFault};

/// A user as listings show them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// Devices that are not revoked.
    pub devices: u32,
    /// Invites that can still be used.
    pub invites: u32,
    /// Creation, in seconds of Unix time.
    pub created_at: i64,
    /// The source that says who they are: `local` is the gateway itself.
    pub source: String,
    /// When they were shut out until further notice, in seconds of Unix time.
    pub disabled_at: Option<i64>,
    /// Whether they can log in with a password that the gateway keeps.
    pub has_password: bool,
    /// Whether they have an app that shows codes.
    pub has_factor: bool,
    /// Recovery codes that are not used.
    pub recovery_codes: u32,
}

/// What decides whether somebody may connect, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPerson {
    /// The user name.
    pub user: String,
    /// The source that says who they are.
    pub source: String,
    /// What that source knows them by; `None` for those of the gateway itself.
    pub subject: Option<String>,
    /// The groups that the source put them in when it was asked last, by its own names.
    pub groups: Vec<String>,
    /// Rises whenever everything that was given to them before is to be void: a session or token of another generation
    /// is over.
    pub generation: u64,
    /// Whether they are shut out until further notice.
    pub is_disabled: bool,
    /// When the source was asked last, in seconds of Unix time.
    pub checked_at: Option<i64>,
}

/// What the gateway itself can check a user by. It holds secrets, so it has no `Debug`.
pub struct LocalUser {
    /// The hash of the password (PHC string); `None` where there is none.
    pub password: Option<String>,
    /// The sealed secret of the app that shows codes.
    pub totp: Option<Vec<u8>>,
    /// Recovery codes that are not used.
    pub recovery_codes: u32,
    /// Whether they are shut out until further notice.
    pub is_disabled: bool,
    /// See [`KnownPerson::generation`].
    pub generation: u64,
}

/// How a user comes to a password.
pub enum FirstPassword {
    /// It is given already: its hash (PHC string).
    Hash(String),
    /// By a one-time code, of which this is the hash, that is good for as many seconds.
    Link {
        /// SHA-256 of the code.
        hash: [u8; 32],
        /// How long it is good.
        seconds: u64,
    },
}

/// Why a user could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is a user of that name.
    #[error("{0}: there is a user of that name")]
    Exists(String),
    /// The person is another user already.
    #[error("this person is the user {0}")]
    Linked(String),
    /// There is none of that name.
    #[error("{0}: no such user")]
    NotFound(String),
    /// Another source keeps the user's password.
    #[error("{name}: is a user of the source {owner}, which keeps the password")]
    NotLocal {
        /// The user.
        name: String,
        /// The source.
        owner: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreFault),
}

/// Why somebody whom a source let in is not let in.
#[derive(Debug, thiserror::Error)]
pub enum PersonError {
    /// The source's name for them is none that a user can have here.
    #[error("the source calls them by a name that cannot be used here: {0}")]
    Name(#[from] NameError),
    /// The name is another person's. People are never merged by their names.
    #[error(
        "the name {name} belongs to a user of the source {owner} already; if they are the same person, \
         `adit-server user link {name} {}`",
        link_flags(.by, .subject)
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Whose user it is.
        owner: String,
        /// The source that let them in.
        by: String,
        /// What it knows them by, fit to be shown.
        subject: String,
    },
    /// They are shut out until further notice.
    #[error("disabled")]
    Disabled,
    /// What they proved counts no more: it was changed or taken away since the login began.
    #[error("password or factor was changed since the login began")]
    Changed,
    /// The store failed.
    #[error(transparent)]
    Store(StoreFault),
}

impl PersonError {
    /// The same without names, for the log.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Name(_) => "the source calls them by a name that cannot be used here",
            Self::NameTaken { .. } => "the name is another user's; the trail says what makes them one",
            Self::Disabled => "disabled",
            Self::Changed => "password or factor was changed since the login began",
            Self::Store(_) => "the store failed",
        }
    }
}

/// Why a one-time code sets no password.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no such code.
    #[error("unknown code")]
    Unknown,
    /// It was used before.
    #[error("code used before")]
    Used,
    /// Its time is over.
    #[error("code expired")]
    Expired,
    /// The store failed; the code is still good.
    #[error(transparent)]
    Store(StoreFault),
}
