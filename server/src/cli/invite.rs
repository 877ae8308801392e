//! `adit-server invite` and `adit-server token`.

use std::io::IsTerminal;
use std::time::Duration;

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use clap::Args;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Place, Refusal, ask, duration};
use crate::admin::{InviteAnswer, TokenAnswer};

/// Whom to invite.
#[derive(Debug, Args)]
pub(super) struct InviteFlags {
    /// The user, who is created when needed
    name: String,
    /// How long the link may be used, such as 15m or 7d [default: invite_lifetime of the configuration]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires: Option<Duration>,
    /// Print the QR code even where the output is no terminal
    #[arg(long)]
    qr: bool,
}

/// Makes an invite and shows its link.
pub(super) fn invite(place: &Place, flags: &InviteFlags) -> Result<(), Refusal> {
    let config = place.load()?;
    let body = json!({ "user": flags.name, "lifetime_seconds": flags.expires.map(|expires| expires.as_secs()) });
    let answer = ask::ask(&config, "POST", "/invite", &body)?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    let invite: InviteAnswer = decode(answer)?;
    let mut text =
        format!("Invite for {}, good for one device until {}:\n\n  {}\n", invite.user, invite.expires, invite.link);
    if flags.qr || std::io::stdout().is_terminal() {
        text.push_str(&format!("\n{}\n", qr_code(&invite.link, &Screen::of_standard_output())?));
    }
    text.push_str(&format!("\nOn the device run:\n\n  adit-client join --up '{}'", invite.link));
    output::line(&text);
    Ok(())
}

/// Makes a bearer token and shows it, once.
pub(super) fn token(place: &Place, name: &str) -> Result<(), Refusal> {
    let config = place.load()?;
    let answer = ask::ask(&config, "POST", "/token", &json!({ "user": name }))?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    let token: TokenAnswer = decode(answer)?;
    output::line(&format!(
        "Token for {}, shown only now (device {}):\n\n  {}\n\n\
         A CONNECT-IP client sends it as `authorization: Bearer …`. Take it back with:\n\n  adit-server revoke {}{}",
        token.user,
        token.device,
        token.token,
        token.device,
        place.flag_for(&config.path),
    ));
    Ok(())
}

/// What can be shown where the output goes.
struct Screen {
    /// Width of the terminal; `None` where the output is none.
    columns: Option<usize>,
    /// Whether characters beyond ASCII come out as such.
    has_unicode: bool,
}

impl Screen {
    fn of_standard_output() -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Self { columns, has_unicode: has_unicode(|name| std::env::var(name).ok()) }
    }
}

/// Whether the locale is one of UTF-8 (POSIX, "Environment Variables": the first of these that is set and not empty).
fn has_unicode(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|locale| !locale.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// A QR code, light on dark as terminals mostly are, with its quiet zone: of half blocks, or of plain characters where
/// the locale has no others. A code that the terminal would wrap cannot be read; then it is said what is missing.
fn qr_code(link: &str, screen: &Screen) -> Result<String, Failure> {
    let code = QrCode::new(link)
        .map_err(|error| Failure::new(Exit::Other, "QR code", error.to_string(), "use the link instead"))?;
    let picture = if screen.has_unicode {
        code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
    } else {
        code.render::<char>().dark_color(' ').light_color('#').module_dimensions(2, 1).build()
    };
    let width = picture.lines().map(|line| line.chars().count()).max().unwrap_or_default();
    Ok(match screen.columns {
        Some(columns) if columns < width => {
            format!("(The QR code needs {width} columns, and this terminal has {columns}: widen it, or use the link.)")
        }
        Some(_) | None => picture,
    })
}

fn decode<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        let next = "run the adit-server of the same version as the running gateway";
        Failure::new(Exit::Other, "answer of the gateway", error.to_string(), next)
    })
}

#[cfg(test)]
mod tests {
    use adit_proto::invite::MOST_PLACES;

    use super::*;

    const LINK: &str = "adit://join/192.0.2.1:443#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn shown(link: &str, columns: Option<usize>, has_unicode: bool) -> String {
        qr_code(link, &Screen { columns, has_unicode }).unwrap()
    }

    #[test]
    fn longest_link_fits_a_qr_code() {
        let place = format!("{}:65535", "a".repeat(253));
        let link = format!("adit://join/{}#{}", [place.as_str(); MOST_PLACES].join(","), "A".repeat(64));
        assert!(shown(&link, None, true).lines().count() > 20);
    }

    #[test]
    fn qr_code_is_shown_only_where_it_fits() {
        assert!(shown(LINK, Some(80), true).lines().count() > 20);
        let narrow = shown(LINK, Some(40), true);
        assert!(narrow.lines().count() == 1 && narrow.contains("this terminal has 40"), "{narrow}");
    }

    #[test]
    fn qr_code_is_of_plain_characters_where_the_locale_has_no_others() {
        let plain = shown(LINK, None, false);
        assert!(plain.is_ascii() && plain.lines().count() > 40, "{plain}");
        assert!(!shown(LINK, None, true).is_ascii());
    }

    #[test]
    fn locale_is_that_of_the_first_variable_that_is_set() {
        let locale = |set: &[(&str, &str)]| {
            has_unicode(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(locale(&[("LANG", "de_DE.UTF-8")]) && locale(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!locale(&[]) && !locale(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]) && !locale(&[("LANG", "POSIX")]));
    }
}
