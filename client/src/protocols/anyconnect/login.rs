//! A login in the forms of an AnyConnect gateway: it asks, whoever sits at this host answers, until it gives a token.
//!
//! Each step is a request on a connection of its own; cookies lead from one to the next.

mod browser;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use adit_net::http::h1::Reply;
use adit_net::tls::{self, Seen};
use adit_program::exit::{Exit, Failure};
use adit_program::foreign_text::printable;
use adit_proto::anyconnect::form::{self, Beginning, FormFault, GatewayForm, Question, Told};
use adit_proto::anyconnect::link::{LinkFault, path_at};
use adit_proto::anyconnect::{MAX_COOKIE, cookie};
use adit_proto::http::field::value;
use adit_proto::login::message::{FieldKind, LoginField};
use zeroize::Zeroizing;

use super::VERSION;
use crate::gateway_contact::{GatewayContact, PROMPTLY};
use crate::login::Person;
use crate::obstacle::join_failure;
use crate::profile::{Identity, LoginTable, Profile};
use crate::protocols::ConnectError;
use crate::protocols::connect_ip::Endpoint;
use crate::protocols::stream::shake;
use browser::BrowserKey;
use request::{fields, post};

/// Most forms of a login: more than any gateway has.
const MOST_FORMS: usize = 24;
/// Most redirections of a request.
const MOST_REDIRECTIONS: usize = 5;
/// How long the gateway may take to answer: it may have to ask servers of others.
const ANSWER_WITHIN: Duration = Duration::from_secs(75);
/// What to do where a gateway lets nobody in, or ends the connection, perhaps for want of a certificate.
const WANTS_CERTIFICATE: &str = "ask the gateway's administrator; a certificate of the user that it may want is given to \
    `adit-client add` with `--certificate` and `--key`";
/// What to do where the gateway breaks the handshake off.
const TURNED_AWAY: &str = "try again later: some gateways do that for a while where wrong passwords came from; if it \
    stays so, ask the gateway's administrator";
/// What the login of the native protocol calls a user's name, which whoever answers may know beforehand.
const USER: (&str, &str) = ("username", "user");

/// Where a login begins, and what was chosen before it.
#[derive(Debug, Clone, Copy)]
pub struct Entrance<'a> {
    /// The path of the gateway's link.
    pub path: &'a str,
    /// The group, by its label or its value in the gateway's list.
    pub group: Option<&'a str>,
    /// Whether the gateway is shown a certificate of the user if it asks for one.
    pub has_certificate: bool,
    /// Whether the gateway may have its user log in in a browser of this host.
    pub has_browser: bool,
}

impl<'a> Entrance<'a> {
    /// That of a profile.
    #[must_use]
    pub fn of(profile: &'a Profile) -> Self {
        let LoginTable { path, group, browser: has_browser, .. } = &profile.login;
        let group = Some(group.as_str()).filter(|group| !group.is_empty());
        let has_certificate = matches!(profile.identity, Identity::Certificate { .. });
        Self { path, group, has_certificate, has_browser: *has_browser }
    }
}

/// Asks for the first form of a login, which shows that a gateway of this family is there, and whether it has the group
/// that was chosen.
///
/// # Errors
/// A [`Failure`] with its exit code: no such group 2, another gateway 4, no answer 5.
pub async fn greet(gateway: &mut GatewayContact, entrance: Entrance<'_>) -> Result<(), Failure> {
    let mut conversation = Conversation::new(gateway, entrance);
    if let Told::Form(form) = conversation.begin(entrance.path, entrance.group).await?
        && let (Some(list), Some(named)) = (form.groups(), entrance.group)
    {
        conversation.group_named(list, named)?;
    }
    Ok(())
}

/// What a gateway shows that nobody vouches for. Nothing is said to it.
///
/// # Errors
/// A [`Failure`] with its exit code: no answer 5.
pub async fn look(gateway: &GatewayContact) -> Result<Seen, Failure> {
    let unusable = |error: rustls::Error| Failure::new(Exit::Other, gateway.name(), error.to_string(), "");
    let (tls, sight) = tls::looking_client_config().map_err(unusable)?;
    let looked = shake(&gateway.endpoint(tls, "nobody"), PROMPTLY).await;
    let seen = sight.seen(&gateway.place().host);
    match (seen, looked) {
        (Some(seen), _) => Ok(seen),
        (None, Err(error)) => Err(gateway.failure(&error).await),
        (None, Ok(_)) => Err(strange(&gateway.name(), "it shows no certificate")),
    }
}

/// Leads a login to its end and returns the session token.
///
/// # Errors
/// A [`Failure`] with its exit code: no such group 2, refused 3, another gateway 4, no answer 5.
pub async fn log_in(
    gateway: &mut GatewayContact,
    entrance: Entrance<'_>,
    person: &mut dyn Person,
) -> Result<Zeroizing<String>, Failure> {
    let mut conversation = Conversation::new(gateway, entrance);
    conversation.browser = entrance.has_browser.then(BrowserKey::generate).transpose()?;
    let mut told = conversation.begin(entrance.path, entrance.group).await?;
    for _ in 0..MOST_FORMS {
        let form = match told {
            Told::Complete { token, text } => {
                if !text.is_empty() {
                    person.answer(&lines(&text), &[])?;
                }
                return conversation.token(token);
            }
            Told::Refused(reason) => return Err(conversation.refused(&reason)),
            Told::CertificateWanted => {
                told = conversation.show_certificate().await?;
                continue;
            }
            Told::Form(form) => form,
        };
        told = match conversation.choose_group(&form, person)? {
            // Stock clients begin anew in the group, too: what is asked may depend on it.
            Some(group) => conversation.begin(&form.action, Some(&group)).await?,
            None => conversation.fill_in(&form, person).await?,
        };
    }
    Err(strange(&conversation.name, "it asks without end"))
}

/// The requests of one login.
struct Conversation<'a> {
    gateway: &'a mut GatewayContact,
    name: String,
    entrance: Entrance<'a>,
    /// The value of the group that was chosen in a list.
    group: Option<String>,
    /// Secrets that were asked for: a gateway that asks for one again did not like it.
    asked: BTreeSet<String>,
    /// How often the gateway has asked for a certificate.
    certificate_requests: usize,
    /// The path of the gateway's last page.
    page: String,
    cookies: cookie::Kept,
    /// What tokens are sealed for that a browser brings, if there may be a browser.
    browser: Option<BrowserKey>,
}

impl<'a> Conversation<'a> {
    fn new(gateway: &'a mut GatewayContact, entrance: Entrance<'a>) -> Self {
        let name = gateway.name();
        let (asked, cookies) = (BTreeSet::new(), cookie::Kept::default());
        let page = entrance.path.to_owned();
        Self { gateway, name, entrance, group: None, asked, certificate_requests: 0, page, cookies, browser: None }
    }

    /// Begins a login where a link of the gateway leads.
    async fn begin(&mut self, link: &str, group: Option<&str>) -> Result<Told, Failure> {
        let has_no_certificate = self.certificate_requests > usize::from(self.entrance.has_certificate);
        let url = format!("https://{}{}", self.name, self.path(link)?);
        let has_browser = self.browser.is_some();
        self.say(link, form::begin(VERSION, Beginning { url: &url, group, has_no_certificate, has_browser })).await
    }

    /// Begins anew at a gateway that wants a certificate. As each request has a connection of its own, it sees the
    /// certificate if it asks for it there; if it does not, it hears that there is none.
    async fn show_certificate(&mut self) -> Result<Told, Failure> {
        self.certificate_requests += 1;
        if self.certificate_requests > usize::from(self.entrance.has_certificate) + 1 {
            return Err(self.refused_for_certificate("it lets nobody in without a certificate of the user"));
        }
        let group = self.group.clone();
        self.begin(self.entrance.path, group.as_deref().or(self.entrance.group)).await
    }

    /// The group to begin anew in, where a form has a list of which nothing was chosen yet.
    fn choose_group(&mut self, form: &GatewayForm, person: &mut dyn Person) -> Result<Option<String>, Failure> {
        let Some(list) = form.groups() else { return Ok(None) };
        if self.group.as_ref().is_some_and(|chosen| list.choices.iter().any(|choice| choice.value == *chosen)) {
            return Ok(None);
        }
        let chosen = match (self.entrance.group, list.choices) {
            (Some(named), _) => self.group_named(list, named)?,
            (None, [only]) => only.value.clone(),
            (None, several) => {
                let field = field(list);
                let answers = person.answer("", std::slice::from_ref(&field))?;
                let label = answers.get(&field.name).map(String::as_str).unwrap_or_default();
                let chosen = several.iter().find(|choice| printable(&choice.label) == label);
                chosen.map(|choice| choice.value.clone()).ok_or_else(|| self.no_group(list, label))?
            }
        };
        self.group = Some(chosen.clone());
        Ok(Some(chosen))
    }

    fn group_named(&self, list: Question<'_>, named: &str) -> Result<String, Failure> {
        list.choice(named).map(|choice| choice.value.clone()).ok_or_else(|| self.no_group(list, named))
    }

    fn no_group(&self, list: Question<'_>, named: &str) -> Failure {
        let labels: Vec<String> = list.choices.iter().map(|choice| printable(&choice.label)).collect();
        let (reason, next) = (format!("it has no group `{named}`"), format!("choose one of: {}", labels.join(", ")));
        Failure::new(Exit::Usage, &self.name, reason, next)
    }

    /// Has the questions of a form answered, and posts the answers.
    async fn fill_in(&mut self, form: &GatewayForm, person: &mut dyn Person) -> Result<Told, Failure> {
        let (text, fields) = (shown_text(form), form.questions().map(field).collect::<Vec<_>>());
        let secrets = fields.iter().filter(|field| field.kind == FieldKind::Secret).map(|field| field.name.clone());
        let secrets = secrets.collect::<BTreeSet<_>>();
        let is_refused = form.error.is_some() || !secrets.is_disjoint(&self.asked);
        let answers = person.answer(&text, &fields).map_err(|failure| {
            // Whoever has nothing else to say hears what the gateway said.
            if is_refused && failure.exit == Exit::Usage { self.refused(reason(form)) } else { failure }
        })?;
        self.asked.extend(secrets);
        let mut given = given(form, answers);
        if let (Some(list), Some(chosen)) = (form.groups(), &self.group) {
            given.insert(list.name.to_owned(), Zeroizing::new(chosen.clone()));
        }
        if let Some((name, page)) = form.browser() {
            let key = self.browser.as_ref().ok_or_else(|| wants_browser(&self.name))?;
            given.insert(name.to_owned(), key.log_in(page, person).await?);
        }
        self.say(&form.action, form.reply(VERSION, &given)).await
    }

    /// Posts a document to where a link of the gateway leads, and to where it redirects that.
    async fn say(&mut self, link: &str, document: Zeroizing<String>) -> Result<Told, Failure> {
        let (mut path, mut asked) = (self.path(link)?, BTreeSet::new());
        for _ in 0..=MOST_REDIRECTIONS {
            // What a page did not take it would not take again, and a password in it would count as another attempt.
            if !asked.insert(path.clone()) {
                return Err(strange(&self.name, "it redirects in a circle"));
            }
            let reply = self.post(&path, document.clone()).await?;
            self.page = path;
            path = match reply.status {
                200 => return Told::of_document(&reply.body).map_err(|fault| unusable(&self.name, &fault)),
                301 | 302 | 307 | 308 => self.redirection(&reply)?,
                status @ (401 | 403) => return Err(self.refused_with(status)),
                status => return Err(strange(&self.name, &format!("it answers a login with the status {status}"))),
            };
        }
        Err(strange(&self.name, "it redirects without end"))
    }

    /// The path that a redirection leads to.
    fn redirection(&self, reply: &Reply) -> Result<String, Failure> {
        match value(&reply.fields, "location") {
            Some(link) if !link.is_empty() => self.path(link),
            Some(_) | None => Err(strange(&self.name, "it redirects to nowhere")),
        }
    }

    /// Posts a document. It is posted once: the gateway may have taken it, and a code is good once.
    async fn post(&mut self, path: &str, document: Zeroizing<String>) -> Result<Reply, Failure> {
        let cookies = self.cookies.field();
        let key = self.browser.as_ref().map(BrowserKey::public).transpose()?;
        let answered = self.gateway.reach(ANSWER_WITHIN, async |endpoint: &Endpoint<'_>, timeout: Duration| {
            let fields = fields(endpoint, cookies.as_ref().map(|cookies| cookies.as_str()), key.as_deref());
            post(endpoint, path, fields, document.clone(), timeout).await
        });
        let reply = match answered.await {
            Ok(reply) => reply,
            Err(error) => return Err(self.unanswered(&error).await),
        };
        for set in reply.fields.iter().filter(|field| field.name == "set-cookie") {
            self.cookies.take(&set.value);
        }
        Ok(reply)
    }

    /// The failure of a document that was posted in vain.
    async fn unanswered(&self, error: &ConnectError) -> Failure {
        if matches!(error, ConnectError::Refused(_) | ConnectError::OutOfDate) {
            return self.refused_for_certificate(&error.to_string());
        }
        if let Some(at_portal) = self.gateway.held_up(error).await {
            return at_portal;
        }
        let failure = join_failure(&self.name, error);
        if matches!(error, ConnectError::BrokenOff(_)) {
            return Failure { next: TURNED_AWAY.to_owned(), ..failure };
        }
        // Some gateways do that instead of saying what they want.
        let is_unsaid = matches!(error, ConnectError::Closed(_)) && !self.entrance.has_certificate;
        if is_unsaid { Failure { next: WANTS_CERTIFICATE.to_owned(), ..failure } } else { failure }
    }

    /// The path of this gateway that a link on its last page leads to.
    fn path(&self, link: &str) -> Result<String, Failure> {
        path_at(link, self.gateway.place(), &self.page).map_err(|fault| match fault {
            LinkFault::Elsewhere(host) => {
                let host = printable(&host);
                let next = format!(
                    "what this host knows of the one gateway says nothing of the other; if its administrator means that, \
                     add it, too: `adit-client add https://{host}`"
                );
                Failure::new(Exit::Other, &self.name, format!("it leads the login on to {host}"), next)
            }
            LinkFault::Unusable => strange(&self.name, &fault.to_string()),
        })
    }

    fn token(&self, told: Option<Zeroizing<String>>) -> Result<Zeroizing<String>, Failure> {
        let token = told.or_else(|| self.cookies.value(cookie::SESSION).cloned());
        let token =
            token.ok_or_else(|| strange(&self.name, "it says that the login is complete, and gives no token"))?;
        let is_sendable = token.bytes().all(|byte| byte.is_ascii_graphic() && !b";,\"".contains(&byte));
        if is_sendable && !token.is_empty() && token.len() <= MAX_COOKIE {
            Ok(token)
        } else {
            Err(strange(&self.name, "the token it gave cannot be used"))
        }
    }

    fn refused_with(&self, status: u16) -> Failure {
        let reason = format!("it lets nobody log in (status {status})");
        if self.asked.is_empty() { self.refused_for_certificate(&reason) } else { self.refused(&reason) }
    }

    /// Why nobody gets in, where that may be for want of a certificate.
    fn refused_for_certificate(&self, reason: &str) -> Failure {
        Failure::new(Exit::AuthRefused, &self.name, reason, WANTS_CERTIFICATE)
    }

    fn refused(&self, reason: &str) -> Failure {
        let next = "check what you typed and try again; if it stays so, ask the gateway's administrator";
        Failure::new(Exit::AuthRefused, &self.name, printable(reason), next)
    }
}

/// What is shown above a form: what was wrong, and what it says, a line each.
fn shown_text(form: &GatewayForm) -> String {
    let parts = form.error.iter().chain(Some(&form.text)).filter(|part| !part.is_empty());
    parts.map(|part| lines(part)).collect::<Vec<_>>().join("\n")
}

/// The lines of a text, as they may be shown.
fn lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Why a form came again, in one line.
fn reason(form: &GatewayForm) -> &str {
    let said = form.error.as_deref().unwrap_or(&form.text);
    said.lines().next().unwrap_or("it does not accept that")
}

/// A question as it is shown.
fn field(question: Question<'_>) -> LoginField {
    let name = if question.name == USER.0 { USER.1 } else { question.name };
    let kind = match (question.is_secret, question.choices) {
        (true, _) => FieldKind::Secret,
        (false, []) => FieldKind::Text,
        (false, _) => FieldKind::Choice,
    };
    let label = if question.label.is_empty() { question.name } else { question.label };
    let choices = question.choices.iter().map(|choice| printable(&choice.label)).collect();
    LoginField { name: name.to_owned(), label: printable(label), kind, choices }
}

/// The answers to what was shown, as the form has them.
fn given(form: &GatewayForm, mut answers: BTreeMap<String, String>) -> BTreeMap<String, Zeroizing<String>> {
    let mut given = BTreeMap::new();
    for question in form.questions() {
        let name = if question.name == USER.0 { USER.1 } else { question.name };
        let Some(answer) = answers.remove(name).map(Zeroizing::new) else { continue };
        let chosen = question.choices.iter().find(|choice| printable(&choice.label) == **answer);
        let answer = chosen.map_or(answer, |choice| Zeroizing::new(choice.value.clone()));
        given.insert(question.name.to_owned(), answer);
    }
    given
}

fn unusable(name: &str, fault: &FormFault) -> Failure {
    match fault {
        FormFault::Browser => {
            let next = "use a client of its maker, or ask the gateway's administrator for another login";
            Failure::new(Exit::Other, name, fault.to_string(), next)
        }
        FormFault::Xml(_) | FormFault::Unknown | FormFault::Twice(_) | FormFault::TooMany | FormFault::Nameless => {
            strange(name, &fault.to_string())
        }
    }
}

fn wants_browser(name: &str) -> Failure {
    let next = "add it again with `--browser`, where a browser runs on this host";
    Failure::new(Exit::Other, name, "it wants a login in a browser", next)
}

fn strange(name: &str, reason: &str) -> Failure {
    let next = "check that an AnyConnect gateway listens there, and ask its administrator";
    Failure::new(Exit::Other, name, reason, next)
}

#[cfg(test)]
mod tests;
