//! What a client asks of a login, and what it is told to do next.

use std::time::Duration;

use adit_program::foreign_text::printable;
use adit_proto::login::Kind;
use adit_proto::login::flow::{Answers, Form};

use crate::sources::{LinkWish, Origin};

/// What a client wants next of a login. A password may be in it, so it has no `Debug`.
pub struct LoginWish {
    /// The handle of the step before; `None` begins a login.
    pub handle: Option<String>,
    /// What was asked for.
    pub answers: Answers,
    /// Which link suits the client, if there is to be one.
    pub link: LinkWish,
    /// Where it comes from.
    pub origin: Origin,
}

/// What a client is to do next. A token may be in it, so it has no `Debug`.
pub enum LoginStep {
    /// Fill in a form.
    Ask {
        /// To be sent back.
        handle: String,
        /// The form. Its text may come from a server that is not ours: it is escaped.
        form: Form,
    },
    /// Open a link or show it, then come back with the handle.
    Open {
        /// To be sent back.
        handle: String,
        /// The link.
        url: String,
        /// The code to type there, if one is wanted.
        user_code: Option<String>,
        /// How long it is good.
        lifetime: Duration,
        /// When to come back.
        again_in: Duration,
        /// Whether the browser brings a proof to the client, which then comes back at once, with it.
        returns: bool,
    },
    /// Come back with the handle after this time.
    Wait {
        /// To be sent back.
        handle: String,
        /// When to come back.
        again_in: Duration,
    },
    /// Nothing: the user has logged in.
    Done {
        /// What the gateway calls the user.
        user: String,
        /// The session token of the device that the client came with; without one, a ticket that enrols a device.
        token: String,
        /// When the login ends, in seconds of Unix time.
        ends_at: u64,
    },
    /// Nothing: nobody has logged in.
    Refused {
        /// The reason, as far as strangers may know it.
        message: &'static str,
        /// When to try again, where it has to wait.
        retry_after: Option<Duration>,
    },
}

pub(super) const NOT_ACCEPTED: LoginStep = refused("the name, the password or the code is not accepted");
pub(super) const SOURCE_AWAY: LoginStep =
    refused("not accepted, or the service that knows you cannot be reached now; try again in a minute");
/// Where strangers could tell from which of the two it is whether a source knows a name.
pub(super) const UNSURE: LoginStep =
    refused("the name, the password or the code is not accepted, or the service that knows you cannot be reached now");
pub(super) const EXPIRED: LoginStep = refused("the login took too long, or is none of this gateway's; begin again");
pub(super) const BROKEN: LoginStep =
    refused("the gateway cannot log anybody in now; its administrator finds the reason in its log");
pub(super) const OTHERS_DEVICE: LoginStep =
    refused("this device belongs to another user; that user has to log in, or you join anew");

pub(super) const BUSY: LoginStep = wait("too many log in at this moment; try again", Duration::from_secs(2));

/// What everybody hears at a gateway without sources of users.
pub(in crate::core) const NOBODY: LoginStep = refused("no user can log in at this gateway");

const fn refused(message: &'static str) -> LoginStep {
    LoginStep::Refused { message, retry_after: None }
}

pub(super) const fn wait(message: &'static str, time: Duration) -> LoginStep {
    LoginStep::Refused { message, retry_after: Some(time) }
}

/// A form whose text is safe to show on a terminal.
pub(super) fn escaped(form: Form) -> Form {
    let Form { text, mut fields } = form;
    for field in &mut fields {
        if let Kind::Choice(choices) = &mut field.kind {
            choices.iter_mut().for_each(|choice| *choice = printable(choice));
        }
    }
    Form { text: printable(&text), fields }
}
