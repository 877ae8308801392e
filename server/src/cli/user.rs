//! `adit-server user`: the gateway's own users, their passwords and second factors.

use std::io::IsTerminal;
use std::time::Duration;

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use adit_program::prompt::{Echo, Unanswered, at_terminal};
use adit_program::qr_code::{Screen, qr_code};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Place, Refusal, ask, duration, limits, list};
use crate::accounts::UserName;
use crate::admin::{FactorAnswer, FactorOffer, PasswordAnswer, StandingAnswer};
use crate::config::Config;
use crate::sources::local::passwords::{self, Cost, Memory, Password};

/// How often a code may be typed wrong before all begins anew.
const TRIES: usize = 3;

/// What to do with a user.
#[derive(Debug, Subcommand)]
pub(super) enum UserVerb {
    /// Make a user who logs in with a password
    Add(PasswordFlags),
    /// List the users
    List,
    /// Shut a user out until further notice; sessions end at once
    Disable {
        /// The user
        name: String,
    },
    /// Let a disabled user in again
    Enable {
        /// The user
        name: String,
    },
    /// Forget the failed logins of a user
    Unlock {
        /// The user
        name: String,
    },
    /// Take password and second factor from a user, and give a new password
    Reset(PasswordFlags),
    /// Let somebody of another source log in as a user that exists; that source keeps the password from then on
    Link(LinkFlags),
    /// Set up an app that shows codes as the second factor of a user
    Totp {
        /// The user
        name: String,
        /// Print the QR code even where the output is no terminal
        #[arg(long)]
        qr: bool,
    },
}

/// Whose password, and where it comes from: it is asked for, or read from standard input, unless there is a link.
#[derive(Debug, Args)]
pub(super) struct PasswordFlags {
    /// The user
    name: String,
    /// Make a one-time code instead, by which the user chooses a password at the first login
    #[arg(long)]
    link: bool,
    /// How long the one-time code is good, such as 15m or 7d [default: invite_lifetime of the configuration]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "link")]
    expires: Option<Duration>,
}

/// Who is to log in as a user. Nobody is known by a name or an e-mail address, which may go to somebody else.
#[derive(Debug, Args)]
pub(super) struct LinkFlags {
    /// The user
    name: String,
    /// The source that knows them: radius, ldap or oidc
    #[arg(long)]
    source: String,
    /// What the source knows them by, as the log names it when it refuses them; of oidc the claim `sub`
    #[arg(long)]
    subject: String,
    /// The provider whose subject it is, for oidc [default: oidc.issuer of the configuration]
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
}

/// Does what was asked with a user.
pub(super) fn user(place: &Place, verb: &UserVerb) -> Result<(), Refusal> {
    match verb {
        UserVerb::Add(flags) => give_password(place, "/user/add", flags, "Added"),
        UserVerb::List => list::users(place),
        UserVerb::Disable { name } => set_disabled(place, name, true),
        UserVerb::Enable { name } => set_disabled(place, name, false),
        UserVerb::Unlock { name } => limits::unlock(place, name),
        UserVerb::Reset(flags) => give_password(place, "/user/reset", flags, "Reset"),
        UserVerb::Link(flags) => link(place, flags),
        UserVerb::Totp { name, qr } => totp(place, name, *qr),
    }
}

fn give_password(place: &Place, path: &str, flags: &PasswordFlags, done: &str) -> Result<(), Refusal> {
    let config = place.load()?;
    let seconds = flags.expires.map(|expires| expires.as_secs());
    let body = if flags.link {
        json!({ "user": flags.name, "lifetime_seconds": seconds })
    } else {
        json!({ "user": flags.name, "password_hash": ask_for_password(&flags.name)? })
    };
    let answer = ask::ask(&config, "POST", path, &body)?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    let PasswordAnswer { user, code, expires } = ask::decode(answer)?;
    match (code, expires) {
        (Some(code), Some(expires)) => output::line(&format!(
            "{done} {user}. One-time code, shown only now, good until {expires}:\n\n  {code}\n\n\
             {user} logs in with it in place of a password, once, and is asked to choose a password."
        )),
        _ => output::line(&format!("{done} {user}, who can log in with this password now.")),
    }
    Ok(())
}

/// Asks for a new password, twice where it cannot be seen, and hashes it: the password itself goes nowhere.
fn ask_for_password(name: &str) -> Result<String, Failure> {
    let user = UserName::parse(name)
        .map_err(|error| Failure::new(Exit::Usage, name, error.to_string(), "choose another name"))?;
    let typed = prompted(&format!("New password of {user}"))?;
    if at_terminal() && *prompted("The same again")? != *typed {
        return Err(Failure::new(Exit::Usage, "password", "the two are not the same", "try again"));
    }
    let password = Password::choose(&typed, user.as_str())
        .map_err(|error| Failure::new(Exit::Usage, "password", error.to_string(), "choose another"))?;
    passwords::hash(&password, Cost::USUAL, &mut Memory::default())
        .map_err(|error| Failure::new(Exit::Other, "password", error.to_string(), "try again"))
}

fn prompted(question: &str) -> Result<Zeroizing<String>, Failure> {
    adit_program::prompt::ask(question, Echo::Hidden).map_err(|error| unanswered("password", &error))
}

fn unanswered(what: &str, error: &Unanswered) -> Failure {
    let next = "type it at a terminal, or write it to standard input";
    Failure::new(Exit::Usage, what, error.to_string(), next)
}

fn set_disabled(place: &Place, name: &str, disabled: bool) -> Result<(), Refusal> {
    let config = place.load()?;
    let path = if disabled { "/user/disable" } else { "/user/enable" };
    let answer = ask::ask(&config, "POST", path, &json!({ "user": name }))?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    let StandingAnswer { user, changed, sessions } = ask::decode(answer)?;
    output::line(&match (disabled, changed) {
        (true, true) => format!(
            "Disabled {user}: sessions ended {sessions}. Let them in again with:\n\n  adit-server user enable {user}{}",
            place.flag_for(&config.path)
        ),
        (true, false) => format!("{user} was disabled already."),
        (false, true) => format!("Enabled {user}, who logs in anew."),
        (false, false) => format!("{user} was not disabled."),
    });
    Ok(())
}

fn link(place: &Place, flags: &LinkFlags) -> Result<(), Refusal> {
    let config = place.load()?;
    let LinkFlags { name, source, subject, issuer } = flags;
    let body = json!({ "user": name, "source": source, "subject": subject, "issuer": issuer });
    let answer = ask::ask(&config, "POST", "/user/link", &body)?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    let StandingAnswer { user, .. } = ask::decode(answer)?;
    output::line(&format!("{user} logs in by {source} from now on."));
    Ok(())
}

/// Shows a secret for an app, and makes it count once the app's code was told.
fn totp(place: &Place, name: &str, qr: bool) -> Result<(), Refusal> {
    let config = place.load()?;
    let offer: FactorOffer = ask::decode(ask::ask(&config, "POST", "/user/totp/offer", &json!({ "user": name }))?)?;
    // Standard output is for the one object then.
    let show = if place.json { output::note } else { output::line };
    if qr || std::io::stdout().is_terminal() {
        show(&qr_code(&offer.link, &Screen::of(std::io::stdout()))?);
    }
    show(&format!(
        "Secret for the app of {}, shown only now: read the QR code with it, or type\n\n  {}\n\n\
         It counts once the app's present code was typed here.",
        offer.user, offer.secret
    ));
    let answer = confirm(&config, &offer)?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    let FactorAnswer { user, recovery_codes } = ask::decode(answer)?;
    output::line(&format!(
        "{user} is asked for a code of the app from now on. Recovery codes, shown only now; each stands for the app once:\n\n  {}",
        recovery_codes.join("\n  ")
    ));
    Ok(())
}

/// Asks for the code of the app until it is right.
fn confirm(config: &Config, offer: &FactorOffer) -> Result<Value, Failure> {
    let mut tries = if at_terminal() { TRIES } else { 1 };
    loop {
        tries -= 1;
        let code = adit_program::prompt::ask("Code that the app shows", Echo::Shown);
        let code = code.map_err(|error| unanswered("code", &error))?;
        let body = json!({ "user": offer.user, "secret": offer.secret, "code": *code });
        match ask::ask(config, "POST", "/user/totp", &body) {
            Err(failure) if failure.exit == Exit::AuthRefused && tries > 0 => {
                output::note(&format!("{}; try again", failure.reason));
            }
            outcome => return outcome,
        }
    }
}
