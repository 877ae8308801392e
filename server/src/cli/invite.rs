//! `adit-server invite` and `adit-server token`.

use std::io::IsTerminal;
use std::time::Duration;

use adit_program::output;
use adit_program::qr_code::{Screen, qr_code};
use clap::Args;
use serde_json::json;

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
    let invite: InviteAnswer = ask::decode(answer)?;
    let mut text =
        format!("Invite for {}, good for one device until {}:\n\n  {}\n", invite.user, invite.expires, invite.link);
    if flags.qr || std::io::stdout().is_terminal() {
        text.push_str(&format!("\n{}\n", qr_code(&invite.link, &Screen::of(std::io::stdout()))?));
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
    let token: TokenAnswer = ask::decode(answer)?;
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
