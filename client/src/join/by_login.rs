//! Enrolment without an invite: the user logs in, and the device gets its certificate.

use std::time::SystemTime;

use adit_program::exit::Failure;
use adit_proto::invite::Place;

use super::{Proof, enroll, local};
use crate::device_key;
use crate::gateway_contact::{GatewayContact, Trust};
use crate::login::{Granted, Person, log_in};
use crate::profile::{KeptLogin, Profile, ProfileName, ProfileStore};

/// Has somebody log in at a gateway of which only the name is known, enrols this device for them, and saves the
/// profile, under `name` or the gateway's host name.
///
/// # Errors
/// A [`Failure`] with the exit code and next step of the design: a gateway whose identity `trust` does not vouch for 4,
/// a refused login 3, no answer 5.
pub async fn join_by_login(
    place: Place,
    trust: &Trust,
    person: &mut dyn Person,
    name: Option<ProfileName>,
    replace: bool,
    store: &ProfileStore,
) -> Result<Profile, Failure> {
    let name = match name {
        Some(name) => name,
        None => ProfileName::from_host(&place.host)?,
    };
    // Nobody is asked for a password before there is room for what it is worth.
    let room = store.prepare(&name, replace)?;
    let mut gateway = GatewayContact::find(vec![place], trust).await?;
    let Granted { token: ticket, .. } = log_in(&mut gateway, person).await?;
    let key = device_key::new_key().map_err(local)?;
    let pin = match trust {
        Trust::Pin(pin) => Some(*pin),
        Trust::Roots { .. } => None,
    };
    let proof = Proof { ticket: Some(ticket), pin, ..Proof::default() };
    let enrolled = enroll(&mut gateway, &proof, name, &key).await.map_err(|unenrolled| Failure {
        next: "once that is mended, run the same `join` again".to_owned(),
        ..unenrolled.failure
    })?;
    let profile = enrolled.profile;
    // They are of the gateway that had this name before, and not for the new one, whatever fails in between.
    store.forget_login(&profile.name)?;
    store.forget_password(&profile.name)?;
    room.save(&profile)?;
    if let Some(session) = enrolled.session {
        let login = KeptLogin::new(&session.token, session.ends_at, SystemTime::now());
        store.save_login(&profile.name, &login)?;
    }
    Ok(profile)
}
