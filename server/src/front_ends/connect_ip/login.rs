//! `POST /.well-known/adit/login`: the login of the core, in JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adit_net::http::StreamError;
use adit_net::http::stream::TunnelStream;
use adit_proto::login::Kind;
use adit_proto::login::flow::Asked;
use adit_proto::login::message::{FieldKind, LoginAnswer, LoginField, LoginRequest};
use zeroize::Zeroizing;

use super::answer::{HttpRefusal, answer_json, answer_refusal};
use super::request::{Context, read_json};
use super::stage;
use crate::core::login::Identity;
use crate::core::login::logins::{LoginStep, LoginWish};
use crate::front_ends::peer::Peer;
use crate::sources::{LinkWish, Origin};

impl Context {
    /// Takes a login one step further. Whoever asks may be anybody, and keeps the place of a stranger.
    pub(super) async fn log_in(&self, stream: &mut TunnelStream) -> Result<(), StreamError> {
        let device = match *self.asker.peer {
            Peer::Anonymous => None,
            Peer::Nameless => return answer_refusal(stream, 403, "refused", "this certificate names no device").await,
            Peer::Certificate { .. } => match self.asker.authenticate(None).await {
                Ok(Identity { device, .. }) => Some(device.id),
                Err(HttpRefusal { status, reason }) => return answer_refusal(stream, status, "refused", reason).await,
            },
        };
        let Some(request) = read_json::<LoginRequest>(stream).await? else {
            return answer_refusal(stream, 400, "malformed", "the body is no login request").await;
        };
        let _served = if device.is_some() { self.logged_in() } else { stage::attend(&self.stage) };
        let address = self.http.quic().remote_address().ip().to_canonical();
        let wish = wish(request, Origin { address, device });
        let step = Arc::clone(&self.asker.front_end.core).login(wish).await;
        answer_json(stream, Ok(answer_of(step))).await
    }
}

fn wish(mut request: LoginRequest, origin: Origin) -> LoginWish {
    let answers = std::mem::take(&mut request.answers).into_iter().map(|(name, answer)| (name, Zeroizing::new(answer)));
    LoginWish {
        handle: request.handle.take(),
        answers: answers.collect::<BTreeMap<_, _>>(),
        link: if request.browser { LinkWish::Redirect } else { LinkWish::DeviceCode },
        origin,
    }
}

/// A step of the core in the words of the protocol.
fn answer_of(step: LoginStep) -> LoginAnswer {
    match step {
        LoginStep::Ask { handle, form } => {
            LoginAnswer::Ask { handle, text: form.text, fields: form.fields.into_iter().map(field_of).collect() }
        }
        LoginStep::Open { handle, url, user_code, lifetime, again_in, .. } => {
            let (seconds, interval) = (lifetime.as_secs(), whole_seconds(again_in));
            LoginAnswer::Open { handle, url, code: user_code, seconds, interval }
        }
        LoginStep::Wait { handle, again_in } => LoginAnswer::Wait { handle, seconds: whole_seconds(again_in) },
        LoginStep::Done { user, token, ends_at } => LoginAnswer::Done { user, token, ends_at: Some(ends_at) },
        LoginStep::Refused { message, retry_after } => {
            LoginAnswer::Refused { message: message.to_owned(), retry_after: retry_after.map(whole_seconds) }
        }
    }
}

/// Seconds that are not less than the time.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn field_of(asked: Asked) -> LoginField {
    let (name, label) = (asked.name.to_owned(), asked.label.to_owned());
    let (kind, choices) = match asked.kind {
        Kind::Choice(choices) => (FieldKind::Choice, choices),
        Kind::Code if !asked.echo => (FieldKind::Code, Vec::new()),
        Kind::User | Kind::Password | Kind::Code | Kind::NewPassword | Kind::Text => {
            (if asked.echo { FieldKind::Text } else { FieldKind::Secret }, Vec::new())
        }
    };
    LoginField { name, label, kind, choices }
}

#[cfg(test)]
mod tests {
    use adit_proto::login::flow::Form;

    use super::*;

    fn asked(kind: Kind, echo: bool) -> Asked {
        Asked { name: "n", label: "L", kind, echo }
    }

    #[test]
    fn what_is_asked_for_keeps_its_secrecy() {
        for (kind, echo, told) in [
            (Kind::User, true, FieldKind::Text),
            (Kind::Password, false, FieldKind::Secret),
            (Kind::NewPassword, false, FieldKind::Secret),
            (Kind::Code, false, FieldKind::Code),
            (Kind::Code, true, FieldKind::Text),
            (Kind::Text, false, FieldKind::Secret),
            (Kind::Text, true, FieldKind::Text),
        ] {
            assert_eq!(field_of(asked(kind.clone(), echo)).kind, told, "{kind:?} {echo}");
        }
        let choice = field_of(asked(Kind::Choice(vec!["a".into(), "b".into()]), true));
        assert_eq!((choice.kind, choice.choices), (FieldKind::Choice, vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn nobody_is_told_to_come_back_too_early() {
        let wait = LoginStep::Wait { handle: "h".into(), again_in: Duration::from_millis(1500) };
        assert_eq!(answer_of(wait), LoginAnswer::Wait { handle: "h".into(), seconds: 2 });
        let form = Form { text: "t".into(), fields: vec![asked(Kind::User, true)] };
        let ask = answer_of(LoginStep::Ask { handle: "h".into(), form });
        assert!(matches!(ask, LoginAnswer::Ask { fields, .. } if fields[0].name == "n"));
    }

    #[test]
    fn answers_reach_the_login_by_the_names_of_their_fields() {
        let origin = Origin { address: [192, 0, 2, 1].into(), device: None };
        let request = LoginRequest {
            handle: Some("h".into()),
            answers: [("user".to_owned(), "alice".to_owned())].into(),
            browser: true,
        };
        let wish = wish(request, origin);
        assert_eq!((wish.handle.as_deref(), wish.answers["user"].as_str()), (Some("h"), "alice"));
        assert!(matches!(wish.link, LinkWish::Redirect), "it has a browser");
    }
}
