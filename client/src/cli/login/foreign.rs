//! A login at an AnyConnect gateway: with a password that is kept or that a command prints, or by who is asked.

use std::time::SystemTime;

use adit_program::causes::with_causes;
use adit_program::exit::Failure;
use adit_program::output;

use super::{AtTerminal, credential_command, usable_mark};
use crate::cli::ClientFiles;
use crate::gateway_contact::GatewayContact;
use crate::login::known_password::{KnownPassword, PasswordSource};
use crate::profile::{KeptLogin, Profile};
use crate::protocols::anyconnect::login::{self, Entrance};

/// Leads a login to its end, and keeps what it is worth. With `saves_password` the password that is typed is kept, too.
pub(super) async fn log_in(
    files: &ClientFiles,
    profile: &Profile,
    person: &mut AtTerminal,
    saves_password: bool,
) -> Result<(), Failure> {
    let (store, name) = (&files.store, &profile.name);
    let mut gateway = GatewayContact::of(profile, usable_mark(profile)).await?;
    let command = profile.login.credential_command.as_str();
    let source: PasswordSource<'_> = if saves_password {
        Box::new(|| Ok(None))
    } else if command.is_empty() {
        Box::new(|| Ok(store.password(name)?))
    } else {
        Box::new(|| credential_command::password_of(command).map(Some))
    };
    // Asked for at each start of a service, a wrong one would lock its user out.
    let refused = || {
        let whose = match store.forget_password(name) {
            Err(error) => format!("the password that was kept, which cannot be forgotten: {}", with_causes(&error)),
            Ok(()) if command.is_empty() => "the password that was kept: it is forgotten".to_owned(),
            Ok(()) => "that of the command".to_owned(),
        };
        output::note(&format!("{name}: the gateway did not take {whose}"));
    };
    let mut person = KnownPassword::new(person, source, Box::new(refused));
    let outcome = login::log_in(&mut gateway, Entrance::of(profile), &mut person).await;
    person.handle_outcome(&outcome);
    let kept = outcome.and_then(|token| Ok(store.save_login(name, &KeptLogin::new(&token, None, SystemTime::now()))?));
    person.sent_once(name, kept)?;
    match person.into_typed() {
        Some(typed) if saves_password => store.save_password(name, &typed)?,
        None if saves_password => output::note(&format!("{name}: no password was asked for, so none is kept")),
        Some(_) | None => {}
    }
    Ok(())
}
