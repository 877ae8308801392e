//! From given values to what a profile holds. A value of another form is refused in the words of serde, with its line.

use std::time::Duration;

use adit_program::configuration::{Complaint, Given, Kind};
use adit_program::foreign_text::printable;
use adit_program::toml_error::TomlFault;
use adit_proto::captive_portal::PageAddress;
use adit_proto::invite::Place;
use adit_proto::mark::Mark;
use adit_proto::sealing::suite::Suite;
use serde::de::DeserializeOwned;
use toml::de::ValueDeserializer;
use zeroize::Zeroizing;

use crate::captive_portal::CaptiveProbe;
use crate::gateway_contact::parse_pin;

/// Port of a gateway that names none.
const USUAL_PORT: u16 = 443;

/// A value as it stands.
pub(super) fn plain<T: DeserializeOwned>(given: &Given<'_>) -> Result<T, Complaint> {
    let read = ValueDeserializer::parse(given.literal()).and_then(T::deserialize);
    read.map_err(|error| {
        let fault = TomlFault::of(&error, given.literal());
        Complaint { malformed_at: Some(fault.line.saturating_sub(1)), ..Complaint::malformed(fault.reason, "") }
    })
}

/// A text that is wiped from memory on drop.
pub(super) fn secret(given: &Given<'_>) -> Result<Zeroizing<String>, Complaint> {
    plain(given).map(Zeroizing::new)
}

/// A number within the bounds of its key.
pub(super) fn number<T: DeserializeOwned + Copy + Into<u64>>(given: &Given<'_>) -> Result<T, Complaint> {
    let number = plain::<T>(given)?;
    let Kind::Integer { least, most } = given.kind() else { panic!("the row says which numbers the key takes") };
    if (least..=most).contains(&number.into()) { Ok(number) } else { Err(out_of_bounds(given)) }
}

/// A length of time within the bounds of its key.
pub(super) fn duration(given: &Given<'_>) -> Result<Duration, Complaint> {
    let text = plain::<String>(given)?;
    let duration = humantime::parse_duration(&text)
        .map_err(|error| Complaint::malformed(format!("`{text}` is no duration: {error}"), ""))?;
    let (least, most) = given.kind().durations().expect("the row says which lengths of time the key takes");
    if (least..=most).contains(&duration) { Ok(duration) } else { Err(out_of_bounds(given)) }
}

/// A firewall mark.
pub(super) fn mark(given: &Given<'_>) -> Result<Mark, Complaint> {
    let text = plain::<String>(given)?;
    text.parse().map_err(|error| Complaint::malformed(format!("`{text}` is no mark: {error}"), ""))
}

/// The path of a link.
pub(super) fn path(given: &Given<'_>) -> Result<String, Complaint> {
    let text = plain::<String>(given)?;
    let is_path = text.starts_with('/') && !text.starts_with("//") && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_path { Ok(text) } else { Err(Complaint::malformed(format!("`{text}` is no path of a link"), "")) }
}

/// Whom to ask whether the network has a captive portal.
pub(super) fn captive_probe(given: &Given<'_>) -> Result<CaptiveProbe, Complaint> {
    let text = plain::<String>(given)?;
    let complaint =
        || Complaint::malformed(format!("`{text}` is neither `usual` nor `off` nor an address with http://"), "");
    match text.as_str() {
        "usual" => Ok(CaptiveProbe::Usual),
        "off" => Ok(CaptiveProbe::Off),
        address => {
            // Over TLS no portal can answer.
            let page = PageAddress::parse(address).filter(|page| !page.is_encrypted());
            page.map(CaptiveProbe::Site).ok_or_else(complaint)
        }
    }
}

/// Where a gateway is reached.
pub(super) fn places(given: &Given<'_>) -> Result<Vec<Place>, Complaint> {
    let place = |text: &String| {
        Place::parse(text, USUAL_PORT).map_err(|error| {
            Complaint::malformed(format!("`{}` is no place of a gateway: {error}", printable(text)), "")
        })
    };
    plain::<Vec<String>>(given)?.iter().map(place).collect()
}

/// A fingerprint.
pub(super) fn pin(given: &Given<'_>) -> Result<[u8; 32], Complaint> {
    parse_pin(&plain::<String>(given)?).map_err(|error| Complaint::malformed(error, ""))
}

/// Cipher suites, at least one.
pub(super) fn suites(given: &Given<'_>) -> Result<Vec<Suite>, Complaint> {
    let suite = |label: &String| {
        let known = Suite::ALL.into_iter().find(|suite| suite.label() == label);
        let all = || Suite::ALL.map(Suite::label).join(", ");
        known.ok_or_else(|| Complaint::malformed(format!("unknown suite `{label}`; known are {}", all()), ""))
    };
    let suites = plain::<Vec<String>>(given)?.iter().map(suite).collect::<Result<Vec<_>, _>>()?;
    if suites.is_empty() {
        return Err(Complaint::unfit("is empty; use `enabled = false` to switch it off", ""));
    }
    Ok(suites)
}

/// The complaint of a value beyond the bounds of its key, as the end of a sentence that begins with the key.
fn out_of_bounds(given: &Given<'_>) -> Complaint {
    let (least, most) = given.kind().bounds().expect("a key with bounds");
    let reason =
        if least == "0" { format!("is more than {most}") } else { format!("is not between {least} and {most}") };
    Complaint::unfit(reason, "")
}
