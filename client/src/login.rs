//! A login: the gateway asks, whoever sits at this host answers, until the gateway gives a token or refuses.
//!
//! Each step is a request on a connection of its own: nothing is held at the gateway while somebody looks for a phone.

pub mod known_password;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use adit_program::exit::{Exit, Failure};
use adit_program::foreign_text::printable;
use adit_proto::enrollment::Refusal;
use adit_proto::login::message::{LOGIN_PATH, LoginAnswer, LoginField, LoginRequest, MAX_TOKEN};
use zeroize::Zeroizing;

use crate::gateway_contact::GatewayContact;
use crate::protocols::ConnectError;
use crate::protocols::connect_ip::PostReply;

/// Most steps of a login that ask something: more than any source has questions.
const MOST_QUESTIONS: usize = 24;
/// How long the gateway may take to answer: it may have to ask servers of others, which have a minute.
const ANSWER_WITHIN: Duration = Duration::from_secs(75);
/// How often a request that only asks how far things are may be lost on the way, one after the other.
const MOST_REPEATS: u32 = 10;
/// Shortest and longest pause between two requests of a login that waits.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Longest time that a login in a browser is waited for, whatever the gateway says.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);

/// Who answers the questions of a gateway.
pub trait Person {
    /// Answers every field, by its name. The texts come from the gateway, and are safe to show.
    ///
    /// # Errors
    /// Why there is no answer, which ends the login.
    fn answer(&mut self, text: &str, fields: &[LoginField]) -> Result<BTreeMap<String, String>, Failure>;

    /// Opens a link in a browser, or shows it.
    ///
    /// # Errors
    /// Why that cannot be done, which ends the login.
    fn open(&mut self, link: &Link) -> Result<(), Failure>;

    /// Hears, about once in each pause, that the gateway is being waited for.
    fn wait(&mut self);

    /// Whether a link can be opened in a browser of this host.
    fn has_browser(&self) -> bool;
}

/// A link that somebody has to open in a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The link: `https`, or `http` to this host itself.
    pub url: String,
    /// What the page shows as well, for a browser of this host; what to type there, for one elsewhere.
    pub code: Option<String>,
    /// How long it is of use.
    pub lifetime: Duration,
    /// Whether it has to be opened on this host: its last page leads back to it.
    pub on_this_host: bool,
}

/// What a login is worth.
pub struct Granted {
    /// What the gateway calls the user.
    pub user: String,
    /// The device's session token, or a ticket that enrols a device.
    pub token: Zeroizing<String>,
    /// When the login ends, in seconds since 1970.
    pub ends_at: Option<u64>,
    /// The address that answered.
    pub remote: SocketAddr,
}

/// Leads a login to its end.
///
/// # Errors
/// A [`Failure`] with its exit code: refused 3, another gateway 4, no answer 5, not in time 7.
pub async fn log_in(gateway: &mut GatewayContact, person: &mut dyn Person) -> Result<Granted, Failure> {
    let name = gateway.name();
    let mut request = LoginRequest { handle: None, answers: BTreeMap::new(), browser: person.has_browser() };
    let mut questions = 0;
    let mut waited = Duration::ZERO;
    loop {
        let reply = ask(gateway, &request).await?;
        let (next, pause) = match read(&name, &reply)? {
            LoginAnswer::Ask { handle, text, fields } => {
                questions += 1;
                if questions > MOST_QUESTIONS {
                    return Err(strange(&name, "it asks without end"));
                }
                let (text, fields) = (printable(&text), fields.into_iter().map(harmless).collect::<Vec<_>>());
                let answers = person.answer(&text, &fields)?;
                (LoginRequest { handle: Some(handle), answers, browser: request.browser }, Duration::ZERO)
            }
            LoginAnswer::Open { handle, url, code, seconds, interval } => {
                let code = code.map(|code| printable(&code));
                let (url, lifetime) = (safe_link(&name, url)?, Duration::from_secs(seconds));
                person.open(&Link { url, code, lifetime, on_this_host: false })?;
                (again(handle, &request), Duration::from_secs(interval))
            }
            LoginAnswer::Wait { handle, seconds } => (again(handle, &request), Duration::from_secs(seconds)),
            LoginAnswer::Done { user, token, ends_at } => {
                let token = Zeroizing::new(token);
                if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(strange(&name, "the token it gave cannot be used"));
                }
                return Ok(Granted { user: printable(&user), token, ends_at, remote: reply.remote });
            }
            LoginAnswer::Refused { message, retry_after } => return Err(refused(&name, &message, retry_after)),
        };
        if !pause.is_zero() {
            let pause = pause.clamp(PAUSES.0, PAUSES.1);
            waited += pause;
            if waited > LONGEST_WAIT {
                return Err(Failure::new(Exit::TimedOut, name, "nobody finished the login in time", "begin it again"));
            }
            person.wait();
            tokio::time::sleep(pause).await;
        }
        request = next;
    }
}

fn again(handle: String, request: &LoginRequest) -> LoginRequest {
    LoginRequest { handle: Some(handle), answers: BTreeMap::new(), browser: request.browser }
}

/// Asks for the next step. Answers are sent once: the gateway may have taken them, and a code is good once.
async fn ask(gateway: &mut GatewayContact, request: &LoginRequest) -> Result<PostReply, Failure> {
    let name = gateway.name();
    let body = serde_json::to_vec(request).map_err(|_| strange(&name, "its question cannot be answered"))?;
    let body = Zeroizing::new(body);
    let may_repeat = request.handle.is_some() && request.answers.is_empty();
    let mut left = if may_repeat { MOST_REPEATS } else { 0 };
    loop {
        match gateway.post(LOGIN_PATH, &body, ANSWER_WITHIN).await {
            Ok(reply) => return Ok(reply),
            Err(ConnectError::Closed(_) | ConnectError::Restarts(_) | ConnectError::Unreachable(_)) if left > 0 => {
                left -= 1
            }
            Err(error) => return Err(gateway.failure(&error).await),
        }
        tokio::time::sleep(PAUSES.0).await;
    }
}

fn read(name: &str, reply: &PostReply) -> Result<LoginAnswer, Failure> {
    match reply.status {
        200..=299 => serde_json::from_slice(&reply.body).map_err(|_| strange(name, "its answer cannot be read")),
        404 | 405 => Err(Failure::new(
            Exit::AuthRefused,
            name,
            "it does not let users log in",
            "ask the gateway's administrator for an invite",
        )),
        status => {
            let refusal = serde_json::from_slice::<Refusal>(&reply.body);
            let reason = refusal.map_or_else(|_| format!("status {status}"), |refusal| printable(&refusal.message));
            let exit = if (400..500).contains(&status) { Exit::AuthRefused } else { Exit::Other };
            Err(Failure::new(exit, name, reason, "try again later"))
        }
    }
}

/// A field whose texts show nothing but themselves.
fn harmless(field: LoginField) -> LoginField {
    let choices = field.choices.iter().map(|choice| printable(choice)).collect();
    LoginField { label: printable(&field.label), choices, ..field }
}

/// A link that a browser may be given.
fn safe_link(name: &str, url: String) -> Result<String, Failure> {
    if is_safe_link(&url) { Ok(url) } else { Err(strange(name, "the link it gave is none that a browser should open")) }
}

/// Whether a browser may be given a link: whoever answers for the gateway must not have it open a file or a program.
pub(crate) fn is_safe_link(url: &str) -> bool {
    let local = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
    let may_open = url.starts_with("https://") || local.iter().any(|prefix| url.starts_with(prefix));
    may_open && url.bytes().all(|byte| byte.is_ascii_graphic()) && url.len() <= 4096
}

fn refused(name: &str, message: &str, retry_after: Option<u64>) -> Failure {
    let next = match retry_after {
        Some(seconds) if seconds > 0 => {
            format!("try again in {}", humantime::format_duration(Duration::from_secs(seconds)))
        }
        Some(_) | None => {
            "check what you typed and try again; if it stays so, ask the gateway's administrator".to_owned()
        }
    };
    Failure::new(Exit::AuthRefused, name, printable(message), next)
}

fn strange(name: &str, reason: &str) -> Failure {
    let next = "ask the gateway's administrator; its version may differ from this client's";
    Failure::new(Exit::Other, name, reason, next)
}

#[cfg(test)]
mod tests;
