//! From values of a policy file to checked types.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use adit_program::configuration::Complaint;
use adit_proto::policy::attempt::domain;
use adit_proto::policy::{FormError, Hours, Member};
use ipnet::IpNet;
use jiff::tz::TimeZone;
use toml::de::DeValue;

use crate::accounts::UserName;
use crate::config::SourceName;

/// What reading a value gives.
pub(super) type Parsed<T> = Result<T, Complaint>;

/// Longest name of a group or a network.
const LONGEST_NAME: usize = 64;

/// A text.
pub(super) fn text<'a>(value: &'a DeValue<'_>) -> Parsed<&'a str> {
    value.as_str().ok_or_else(|| {
        let found = value.type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        Complaint::malformed(format!("a text is wanted here, not {article} {found}"), "put it in quotes")
    })
}

/// A yes or no.
pub(super) fn boolean(value: &DeValue<'_>) -> Parsed<bool> {
    value.as_bool().ok_or_else(|| Complaint::malformed("is neither true nor false", "write true or false"))
}

/// A text in the form that a type of the policy has.
pub(super) fn parsed<T: FromStr<Err = FormError>>(value: &DeValue<'_>) -> Parsed<T> {
    text(value)?.parse().map_err(|FormError { reason, next }| Complaint::unfit(reason, next))
}

/// A network, or a single address.
pub(super) fn network(value: &DeValue<'_>) -> Parsed<IpNet> {
    let text = text(value)?;
    let refused =
        || Complaint::unfit(format!("{text:?} is no network"), "write one such as \"10.1.0.0/16\" or \"fd00:1::/48\"");
    network_in(text)?.ok_or_else(refused)
}

/// A network, or a single address, if the text has the form of one.
pub(super) fn network_in(text: &str) -> Parsed<Option<IpNet>> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Some(address.into()));
    }
    let Ok(net) = text.parse::<IpNet>() else { return Ok(None) };
    if net.addr() == net.network() {
        return Ok(Some(net));
    }
    Err(Complaint::unfit(format!("{text:?} has bits beyond its prefix"), format!("write \"{}\"", net.trunc())))
}

/// An address.
pub(super) fn address(value: &DeValue<'_>) -> Parsed<IpAddr> {
    let text = text(value)?;
    text.parse().map_err(|_| Complaint::unfit(format!("{text:?} is no address"), "write one such as \"10.1.0.53\""))
}

/// A DNS name.
pub(super) fn domain_name(value: &DeValue<'_>) -> Parsed<String> {
    let text = text(value)?;
    domain(text)
        .ok_or_else(|| Complaint::unfit(format!("{text:?} is no domain"), "write one such as \"corp.example.org\""))
}

/// A user's name, in its one form.
pub(super) fn user(value: &DeValue<'_>) -> Parsed<String> {
    user_name(text(value)?)
}

fn user_name(text: &str) -> Parsed<String> {
    let user =
        UserName::parse(text).map_err(|error| Complaint::unfit(format!("{text:?}: {error}"), "write a user's name"))?;
    Ok(user.as_str().to_owned())
}

/// A user's name, or a group of a source there is.
pub(super) fn member(value: &DeValue<'_>) -> Parsed<Member> {
    let sources = SourceName::ALL.map(SourceName::word);
    match parsed(value)? {
        Member::User(name) => user_name(&name).map(Member::User),
        Member::OfSource { source, .. } if !sources.contains(&source.as_str()) => {
            let next = adit_program::closest::next_step(&source, sources);
            Err(Complaint::unfit(format!("{source:?} is no source of logins"), next))
        }
        of_source @ Member::OfSource { .. } => Ok(of_source),
    }
}

/// Hours by the clocks of a time zone that this host knows.
pub(super) fn hours(value: &DeValue<'_>) -> Parsed<Hours> {
    let hours: Hours = parsed(value)?;
    TimeZone::get(hours.zone()).map_err(|_| {
        let next = "write one such as Europe/Berlin or UTC; if it is right, install the package tzdata";
        Complaint::unfit(format!("{:?} is no time zone that this host knows", hours.zone()), next)
    })?;
    Ok(hours)
}

/// A length of time within bounds.
pub(super) fn duration(value: &DeValue<'_>, bounds: &RangeInclusive<Duration>) -> Parsed<Duration> {
    let text = text(value)?;
    let Ok(duration) = humantime::parse_duration(text) else {
        let next = "write a number with its unit in quotes, such as \"30m\" or \"12h\"";
        return Err(Complaint::unfit(format!("{text:?} is not a length of time"), next));
    };
    let [least, most] = [bounds.start(), bounds.end()].map(|bound| humantime::format_duration(*bound));
    within(duration, bounds, text, least, most)
}

/// A number within bounds.
pub(super) fn integer<T: FromStr + PartialOrd + Display>(value: &DeValue<'_>, bounds: &RangeInclusive<T>) -> Parsed<T> {
    let number = value.as_integer().filter(|number| number.radix() == 10).map(toml::de::DeInteger::as_str);
    let Some(digits) = number else {
        return Err(Complaint::malformed(
            "a number is wanted here",
            format!("write {} to {}", bounds.start(), bounds.end()),
        ));
    };
    let out_of_range = || out_of_range(digits, bounds.start(), bounds.end());
    digits.parse().ok().filter(|number| bounds.contains(number)).ok_or_else(out_of_range)
}

fn within<T: PartialOrd>(
    value: T,
    bounds: &RangeInclusive<T>,
    text: &str,
    least: impl Display,
    most: impl Display,
) -> Parsed<T> {
    if bounds.contains(&value) { Ok(value) } else { Err(out_of_range(text, least, most)) }
}

fn out_of_range(text: &str, least: impl Display, most: impl Display) -> Complaint {
    Complaint::unfit(format!("{text} is not in range"), format!("write {least} to {most}"))
}

/// The name of a group or a network, which can be neither an address nor a domain.
pub(super) fn name(text: &str) -> Parsed<()> {
    let fits = (1..=LONGEST_NAME).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        return Ok(());
    }
    Err(Complaint::unfit(format!("{text:?} cannot be a name"), "write 1 to 64 letters, digits, '-' or '_'"))
}
