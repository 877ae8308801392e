//! `login`, and the person who logs in: at a terminal, or by standard input.

mod browser;
mod credential_command;
mod foreign;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use adit_net::control::{self, CallError};
use adit_program::exit::{Exit, Failure};
use adit_program::output;
use adit_program::prompt::{self, Echo, Unanswered};
use adit_program::qr_code::{Screen, qr_code};
use adit_proto::login::message::{FieldKind, LoginField};
use clap::Args;
use serde_json::Value;

use super::lock::ClientLock;
use super::tunnel::call_failure;
use super::{ClientFiles, LoginArgs};
use crate::gateway_contact::GatewayContact;
use crate::login::{Granted, Link, Person, log_in};
use crate::profile::{GatewayProtocol, Identity, KeptLogin, Profile, ProfileName};

/// How somebody logs in.
#[derive(Debug, Args)]
pub(super) struct LoginFlags {
    /// The user's name; asked for otherwise
    #[arg(long, value_name = "NAME")]
    pub(super) user: Option<String>,
    /// Open no browser: show the link and its code for one on another device
    #[arg(long)]
    no_browser: bool,
}

/// Has the user of a profile log in, keeps what that is worth, and tells a client that runs.
pub(super) async fn login(files: &ClientFiles, args: &LoginArgs) -> Result<(), Failure> {
    let name = files.choose(&args.profile)?;
    let profile = files.store.load(&name)?;
    check(&profile, args.save_password)?;
    let mut person = AtTerminal::new(&args.flags, &profile.user);
    match profile.protocol {
        GatewayProtocol::ConnectIp => {
            let mut gateway = GatewayContact::of(&profile, usable_mark(&profile)).await?;
            let Granted { user, token, ends_at, .. } = log_in(&mut gateway, &mut person).await?;
            files.store.save_login(&name, &KeptLogin::new(&token, ends_at, SystemTime::now()))?;
            output::line(&format!("{name}: {user} is logged in{}", lasts(ends_at)));
        }
        GatewayProtocol::AnyConnect => {
            foreign::log_in(files, &profile, &mut person, args.save_password).await?;
            output::line(&format!("{name}: logged in"));
        }
    }
    tell(files, &name).await
}

/// Whether there is a login, and a password to keep, at the gateway of a profile.
fn check(profile: &Profile, saves_password: bool) -> Result<(), Failure> {
    let what = || format!("profile {}", profile.name);
    if matches!(profile.identity, Identity::Token(_)) {
        let next = "connect with `adit-client up`";
        return Err(Failure::new(Exit::Usage, what(), "its bearer token needs no login", next));
    }
    let reason = match profile.protocol {
        GatewayProtocol::ConnectIp => "its login lasts without a password that is kept",
        GatewayProtocol::AnyConnect if !profile.login.credential_command.is_empty() => "a command prints its password",
        GatewayProtocol::AnyConnect => return Ok(()),
    };
    if saves_password {
        return Err(Failure::new(Exit::Usage, what(), reason, "log in without `--save-password`"));
    }
    Ok(())
}

/// Has the user of an AnyConnect profile log in, unless there is a login from before; whether there is one. Other
/// profiles need none to connect.
pub(super) async fn ensure(files: &ClientFiles, profile: &Profile) -> Result<bool, Failure> {
    if profile.protocol != GatewayProtocol::AnyConnect {
        return Ok(false);
    }
    if files.store.login(&profile.name).is_some() {
        return Ok(true);
    }
    // Nobody is asked for a password in vain.
    files.directories.create_for_running()?;
    drop(ClientLock::acquire(&files.directories, &profile.name)?);
    log_in_anew(files, profile).await?;
    Ok(false)
}

/// Has the user of an AnyConnect profile log in.
pub(super) async fn log_in_anew(files: &ClientFiles, profile: &Profile) -> Result<(), Failure> {
    let user = Some(profile.user.clone()).filter(|user| !user.is_empty());
    let mut person = AtTerminal::new(&LoginFlags { user, no_browser: true }, &profile.user);
    foreign::log_in(files, profile, &mut person, false).await
}

/// Until when a login lasts, for the end of a sentence.
pub(super) fn lasts(ends_at: Option<u64>) -> String {
    let end = ends_at.map(|ends_at| SystemTime::UNIX_EPOCH + Duration::from_secs(ends_at));
    end.map_or_else(String::new, |end| format!(", until {}", humantime::format_rfc3339_seconds(end)))
}

/// Has a client that runs take the new login.
async fn tell(files: &ClientFiles, name: &ProfileName) -> Result<(), Failure> {
    match control::call(&files.directories.socket(name), "POST", "/login", &Value::Null).await {
        Ok(_) | Err(CallError::NotRunning { .. }) => Ok(()),
        Err(error) => Err(call_failure(name, &error)),
    }
}

/// The mark that lets datagrams out of a host that is closed, where this user may set one.
fn usable_mark(profile: &Profile) -> Option<u32> {
    let mark = profile.mark.value;
    adit_net::quic::bind((std::net::Ipv4Addr::LOCALHOST, 0).into(), Some(mark)).is_ok().then_some(mark)
}

/// Somebody at a terminal, or whoever wrote to standard input.
pub(super) struct AtTerminal {
    /// The answer to the first question for a user name.
    user: Option<String>,
    /// Offered to who is asked for a user name.
    usual_user: String,
    has_browser: bool,
    waited: bool,
}

impl AtTerminal {
    /// `usual_user` is who logs in here as a rule; empty if nobody is known.
    pub(super) fn new(flags: &LoginFlags, usual_user: &str) -> Self {
        Self {
            user: flags.user.clone(),
            usual_user: usual_user.to_owned(),
            has_browser: !flags.no_browser && browser::is_there(),
            waited: false,
        }
    }

    fn ask(&mut self, field: &LoginField) -> Result<String, Failure> {
        if field.name == "user" {
            return self.ask_for_user(field);
        }
        match field.kind {
            FieldKind::Choice => choose(field),
            FieldKind::Text => answer(&field.label, Echo::Shown),
            FieldKind::Secret | FieldKind::Code => answer(&field.label, Echo::Hidden),
        }
    }

    fn ask_for_user(&mut self, field: &LoginField) -> Result<String, Failure> {
        if let Some(user) = self.user.take() {
            return Ok(user);
        }
        // Whoever writes to standard input would have to know whether a name is offered.
        if self.usual_user.is_empty() || !prompt::at_terminal() {
            return answer(&field.label, Echo::Shown);
        }
        let user = answer(&format!("{} [{}]", field.label, self.usual_user), Echo::Shown)?;
        Ok(if user.is_empty() { self.usual_user.clone() } else { user })
    }
}

impl Person for AtTerminal {
    fn answer(&mut self, text: &str, fields: &[LoginField]) -> Result<BTreeMap<String, String>, Failure> {
        if !text.is_empty() {
            output::note(text);
        }
        fields.iter().map(|field| Ok((field.name.clone(), self.ask(field)?))).collect()
    }

    fn open(&mut self, link: &Link) -> Result<(), Failure> {
        if self.has_browser {
            output::note(&beside_browser(link));
            browser::open(&link.url);
            return Ok(());
        }
        output::note(&without_browser(link, &Screen::of(std::io::stderr()))?);
        Ok(())
    }

    fn wait(&mut self) {
        let sign = if self.waited { "." } else { "waiting for the login " };
        self.waited = true;
        output::raw_error(sign);
        std::io::stderr().flush().ok();
    }

    fn has_browser(&self) -> bool {
        self.has_browser
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        if self.waited {
            output::note("");
        }
    }
}

/// What is said while a browser of this host opens. The page it shows names the same code, so that nobody goes on with
/// a login that somebody else began.
fn beside_browser(link: &Link) -> String {
    let code = link
        .code
        .as_ref()
        .map_or_else(String::new, |code| format!("Go on there only if the page shows this code: {code}\n"));
    format!("Log in in the browser. If none opens, open this link on this host:\n\n  {}\n\n{code}", link.url)
}

/// What is said where no browser is opened: where the link works, and how it gets there.
fn without_browser(link: &Link, screen: &Screen) -> Result<String, Failure> {
    let Link { url, code, lifetime, on_this_host } = link;
    let (place, picture) =
        if *on_this_host { ("this host", String::new()) } else { ("any device", qr_code(url, screen)?) };
    let code = code.as_ref().map_or_else(String::new, |code| format!("\nand type the code {code}\n"));
    let within = humantime::format_duration(*lifetime);
    Ok(format!("Open this link on {place}, within {within}:\n\n  {url}\n\n{picture}{code}"))
}

fn choose(field: &LoginField) -> Result<String, Failure> {
    if prompt::at_terminal() {
        for (number, choice) in (1..).zip(&field.choices) {
            output::note(&format!("  {number}) {choice}"));
        }
    }
    let given = answer(&field.label, Echo::Shown)?;
    let chosen = field.choices.iter().find(|choice| **choice == given).or_else(|| {
        let number: usize = given.parse().ok()?;
        field.choices.get(number.checked_sub(1)?)
    });
    chosen.cloned().ok_or_else(|| {
        let next = format!("choose one of: {}", field.choices.join(", "));
        Failure::new(Exit::Usage, field.label.clone(), "that is none of the choices", next)
    })
}

pub(super) fn answer(label: &str, echo: Echo) -> Result<String, Failure> {
    prompt::ask(label, echo).map(|answer| answer.to_string()).map_err(|error| {
        let next = match error {
            Unanswered::Ended => "run it at a terminal, or give one answer for each line of standard input",
            Unanswered::Interrupted => "run it again when you have what is asked for",
            Unanswered::Unusable | Unanswered::Io(_) => "type it again",
        };
        Failure::new(Exit::Usage, label, error.to_string(), next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(user: Option<&str>) -> AtTerminal {
        let flags = LoginFlags { user: user.map(str::to_owned), no_browser: true };
        AtTerminal::new(&flags, "")
    }

    fn field(name: &str, kind: FieldKind) -> LoginField {
        LoginField { name: name.into(), label: name.into(), kind, choices: Vec::new() }
    }

    #[test]
    fn user_of_the_command_line_answers_the_first_question_for_one() {
        let answers = person(Some("alice")).answer("", &[field("user", FieldKind::Text)]).unwrap();
        assert_eq!(answers["user"], "alice");
    }

    #[test]
    fn without_a_browser_the_gateway_hears_so() {
        assert!(!person(None).has_browser());
    }

    #[test]
    fn code_of_the_page_is_told_beside_a_browser() {
        let (url, lifetime) = ("https://gw.example/login".to_owned(), Duration::from_secs(600));
        let told =
            beside_browser(&Link { url: url.clone(), code: Some("ABCD-EFGH".into()), lifetime, on_this_host: false });
        assert!(told.contains(&url) && told.contains("only if the page shows this code: ABCD-EFGH"), "{told}");
        assert!(!beside_browser(&Link { url, code: None, lifetime, on_this_host: false }).contains("code"));
    }

    #[test]
    fn link_that_works_on_this_host_alone_is_not_shown_for_others() {
        let screen = Screen::of(std::io::stderr());
        let link = |on_this_host| {
            let (url, lifetime) = ("https://gw.example/login".to_owned(), Duration::from_secs(600));
            let link = Link { url, code: None, lifetime, on_this_host };
            (without_browser(&link, &screen).unwrap(), qr_code(&link.url, &screen).unwrap())
        };
        let (told, picture) = link(false);
        assert!(told.contains("on any device, within 10m") && told.contains(&picture), "{told}");
        let (told, picture) = link(true);
        assert!(told.contains("on this host, within 10m") && told.contains("https://gw.example/login"), "{told}");
        assert!(!told.contains("any device") && !told.contains(&picture), "{told}");
    }

    #[test]
    fn end_of_a_login_is_told_as_a_time() {
        assert_eq!(lasts(None), "");
        assert_eq!(lasts(Some(1_800_000_000)), ", until 2027-01-15T08:00:00Z");
    }
}
