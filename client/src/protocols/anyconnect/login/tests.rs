mod listed;

use std::cell::Cell;
use std::collections::VecDeque;

use listed::{Heard, ListedGateway, answer, page};

use super::*;
use crate::login::Link;
use crate::login::known_password::{KnownPassword, PasswordSource};

/// Somebody who types these answers, one for each question.
#[derive(Default)]
struct Typist {
    answers: VecDeque<&'static str>,
    shown: Vec<String>,
}

impl Typist {
    fn of(answers: impl IntoIterator<Item = &'static str>) -> Self {
        Self { answers: answers.into_iter().collect(), shown: Vec::new() }
    }
}

impl Person for Typist {
    fn answer(&mut self, text: &str, fields: &[LoginField]) -> Result<BTreeMap<String, String>, Failure> {
        self.shown.push(text.to_owned());
        let type_in = |field: &LoginField| -> Result<(String, String), Failure> {
            let answer = self.answers.pop_front();
            let answer = answer.ok_or_else(|| Failure::new(Exit::Usage, &field.label, "standard input ended", ""))?;
            Ok((field.name.clone(), answer.to_owned()))
        };
        fields.iter().map(type_in).collect()
    }

    fn open(&mut self, _link: &Link) -> Result<(), Failure> {
        Ok(())
    }

    fn wait(&mut self) {}

    fn has_browser(&self) -> bool {
        false
    }
}

const AT_ROOT: Entrance<'_> = Entrance { path: "/", group: None, has_certificate: false, has_browser: false };
const COMPLETE: &str =
    "<config-auth type=\"complete\"><session-token>t0ken</session-token><auth id=\"success\"/></config-auth>";
const LIST: &str = "<select name=\"group_list\" label=\"GROUP:\"><option value=\"staff\">Staff people</option>\
    <option value=\"guests\">Guests</option></select>";

/// A form with these fields, which is posted to `/auth`.
fn asking(fields: &str) -> String {
    page(&format!(
        "<config-auth type=\"auth-request\"><auth id=\"main\"><message>Hello.</message><form action=\"/auth\">{fields}</form></auth></config-auth>"
    ))
}

#[tokio::test]
async fn group_that_was_named_is_chosen_by_its_label_and_the_login_begins_anew_in_it() {
    let form = asking(&format!("<input name=\"username\"/>{LIST}"));
    let gateway = ListedGateway::start(vec![form.clone(), form, page(COMPLETE)]);
    let entrance = Entrance { path: "/start", group: Some("Staff people"), ..AT_ROOT };
    let token = log_in(&mut gateway.contact().await, entrance, &mut Typist::of(["alice"])).await.unwrap();
    assert_eq!(token.as_str(), "t0ken");
    let heard = gateway.heard();
    let asked: Vec<&str> = heard.iter().map(|heard| heard.asked.as_str()).collect();
    assert_eq!(asked, ["POST /start", "POST /auth", "POST /auth"]);
    let groups = ["<group-select>Staff people<", "<group-select>staff<", "</auth><group-select>staff<"];
    for (heard, group) in heard.iter().zip(groups) {
        assert!(heard.body.contains(group), "{}", heard.body);
    }
    assert!(heard[0].body.contains("/start</group-access>") && heard[1].body.contains("type=\"init\""));
}

#[tokio::test]
async fn whoever_logs_in_is_asked_for_the_group_before_anything_else() {
    let form = asking(&format!("<input name=\"username\"/>{LIST}"));
    let gateway = ListedGateway::start(vec![form.clone(), form, page(COMPLETE)]);
    let mut typist = Typist::of(["Guests", "alice"]);
    log_in(&mut gateway.contact().await, AT_ROOT, &mut typist).await.unwrap();
    let heard = gateway.heard();
    assert!(!heard[0].body.contains("group-select") && heard[1].body.contains("<group-select>guests<"));
    assert!(heard[2].body.contains("<username>alice<") && heard[2].body.contains("<group-select>guests<"));
    assert_eq!((typist.answers.len(), typist.shown), (0, vec![String::new(), "Hello.".to_owned()]));
}

#[tokio::test]
async fn gateway_that_wants_a_certificate_gets_another_chance_to_see_it_and_then_hears_that_there_is_none() {
    let wanted = || page("<config-auth type=\"auth-request\"><client-cert-request/></config-auth>");
    for has_certificate in [false, true] {
        let number = usize::from(has_certificate) + 1;
        let answers = [vec![wanted(); number], vec![page(COMPLETE)]].concat();
        let gateway = ListedGateway::start(answers);
        let entrance = Entrance { has_certificate, ..AT_ROOT };
        log_in(&mut gateway.contact().await, entrance, &mut Typist::default()).await.unwrap();
        let gives_up: Vec<bool> = gateway.heard().iter().map(|heard| heard.body.contains("client-cert-fail")).collect();
        let expected: Vec<bool> = (0..=number).map(|request| request == number).collect();
        assert_eq!(gives_up, expected, "{has_certificate}");
    }
    let gateway = ListedGateway::start(vec![wanted(), wanted()]);
    let refused = log_in(&mut gateway.contact().await, AT_ROOT, &mut Typist::default()).await.err().unwrap();
    assert!(refused.exit == Exit::AuthRefused && refused.next.contains("--certificate"), "{refused}");
    assert_eq!(gateway.heard().len(), 2, "it is not asked without end");
}

/// What becomes of a login that is redirected to this link, and the requests.
async fn log_in_redirected(location: &str) -> (Result<(), Failure>, Vec<String>) {
    let redirection = answer("302 Found", &[&format!("Location: {location}"), "Set-Cookie: a=b"], "");
    let mut answers = vec![redirection.clone(), asking(PASSWORD), redirection, page(COMPLETE)];
    // Whoever is not followed asks for nothing more.
    if location.starts_with("https://") {
        answers.truncate(1);
    }
    let gateway = ListedGateway::start(answers);
    let outcome = log_in(&mut gateway.contact().await, AT_ROOT, &mut Typist::of(["alice", "secret"])).await.map(drop);
    let heard = gateway.heard().into_iter().map(|Heard { asked, body }| format!("{asked} {body}"));
    (outcome, heard.collect())
}

#[tokio::test]
async fn redirection_is_followed_within_the_gateway_with_what_was_said() {
    let (outcome, heard) = log_in_redirected("/elsewhere?a=1").await;
    outcome.unwrap();
    for (heard, part) in heard.iter().zip(["POST / ", "POST /elsewhere?a=1 ", "POST /auth ", "POST /elsewhere?a=1 "]) {
        assert!(heard.starts_with(part), "{heard}");
    }
    assert!(heard[1].contains("type=\"init\"") && heard[3].contains("<password>secret<"), "{heard:?}");
}

#[tokio::test]
async fn redirection_to_another_host_is_refused_with_its_name() {
    let (outcome, heard) = log_in_redirected("https://other.test:8443/auth").await;
    let failure = outcome.err().unwrap();
    assert!(failure.reason.contains("other.test:8443") && failure.next.contains("add https://other.test:8443"));
    assert_eq!(heard.len(), 1);
    let form = "<auth id=\"main\"><form action=\"https://other.test/auth\"><input name=\"username\"/></form></auth>";
    let gateway = ListedGateway::start(vec![page(form)]);
    let refused = log_in(&mut gateway.contact().await, AT_ROOT, &mut Typist::of(["alice"])).await.err().unwrap();
    assert!(refused.reason.contains("other.test"), "{refused}");
    assert_eq!(gateway.heard().len(), 1, "nobody hears what was typed");
}

#[tokio::test]
async fn redirections_without_end_are_left() {
    let redirection = |page: usize| answer("302 Found", &[&format!("Location: /{page}")], "");
    let gateway = ListedGateway::start((0..=MOST_REDIRECTIONS).map(redirection).collect());
    let failure = log_in(&mut gateway.contact().await, AT_ROOT, &mut Typist::default()).await.err().unwrap();
    assert!(failure.reason.contains("without end"), "{failure}");
    assert_eq!(gateway.heard().len(), MOST_REDIRECTIONS + 1);
}

#[tokio::test]
async fn no_page_gets_what_was_typed_twice_by_a_redirection() {
    for (fields, words) in [
        (&[][..], "to nowhere"),
        (&["Location: "][..], "to nowhere"),
        (&["Location: /auth"][..], "in a circle"),
        (&["Location: #top"][..], "in a circle"),
    ] {
        let gateway = ListedGateway::start(vec![asking(PASSWORD), answer("302 Found", fields, "")]);
        let mut typist = Typist::of(["alice", "secret"]);
        let failure = log_in(&mut gateway.contact().await, AT_ROOT, &mut typist).await.err().unwrap();
        assert!(failure.exit == Exit::Other && failure.reason.contains(words), "{fields:?}: {failure}");
        assert_eq!(gateway.heard().iter().filter(|heard| heard.body.contains("secret")).count(), 1, "{fields:?}");
    }
    let ways = ["/other", "/auth"].map(|page| answer("302 Found", &[&format!("Location: {page}")], ""));
    let gateway = ListedGateway::start([vec![asking(PASSWORD)], ways.to_vec()].concat());
    let mut typist = Typist::of(["alice", "secret"]);
    let failure = log_in(&mut gateway.contact().await, AT_ROOT, &mut typist).await.err().unwrap();
    assert!(failure.reason.contains("in a circle") && gateway.heard().len() == 3, "{failure}");
}

#[tokio::test]
async fn banner_is_shown_to_who_has_logged_in() {
    let complete = "<config-auth type=\"complete\"><session-token>t0ken</session-token><auth id=\"success\">\
        <banner>Be\u{202e} good.\nOr else.</banner></auth></config-auth>";
    let gateway = ListedGateway::start(vec![page(complete)]);
    let mut typist = Typist::default();
    log_in(&mut gateway.contact().await, AT_ROOT, &mut typist).await.unwrap();
    assert_eq!(typist.shown, ["Be\\u{202e} good.\nOr else."]);
    gateway.heard();
}

/// The password that is known beforehand, and what becomes of a login with it that is answered so.
async fn log_in_with_known_password(answers: Vec<String>, typed: &[&'static str]) -> (Vec<String>, bool, Option<Exit>) {
    let gateway = ListedGateway::start(answers);
    let mut typist = Typist::of(typed.iter().copied());
    let was_refused = Cell::new(false);
    let source: PasswordSource<'_> = Box::new(|| Ok(Some(Zeroizing::new("kept".to_owned()))));
    let mut person = KnownPassword::new(&mut typist, source, Box::new(|| was_refused.set(true)));
    let outcome = log_in(&mut gateway.contact().await, AT_ROOT, &mut person).await.map(drop);
    person.handle_outcome(&outcome);
    let outcome = person.sent_once(&"work".parse().unwrap(), outcome);
    let sent = gateway.heard().into_iter().map(|heard| heard.body);
    let passwords = sent.filter_map(|body| Some(body.split_once("<password>")?.1.split_once('<')?.0.to_owned()));
    (passwords.collect(), was_refused.get(), outcome.err().map(|failure| failure.exit))
}

const PASSWORD: &str = "<input name=\"username\"/><input type=\"password\" name=\"password\"/>";
const CODE: &str = "<input type=\"password\" name=\"answer\"/>";

#[tokio::test]
async fn password_that_is_known_answers_the_question_for_one_and_no_other() {
    let answers = vec![asking(PASSWORD), asking(CODE), page(COMPLETE)];
    let (sent, was_refused, failed) = log_in_with_known_password(answers, &["alice", "123456"]).await;
    assert_eq!((sent, was_refused, failed), (vec!["kept".to_owned(), "123456".to_owned()], false, None));
}

#[tokio::test]
async fn password_that_is_known_and_wrong_is_not_tried_again() {
    // With nobody to ask the login ends; somebody may type another one.
    let answers = || vec![asking(PASSWORD), asking(PASSWORD)];
    let (sent, was_refused, failed) = log_in_with_known_password(answers(), &["alice", "alice"]).await;
    assert_eq!((sent, was_refused, failed), (vec!["kept".to_owned()], true, Some(Exit::AuthRefused)));
    let answers = [answers(), vec![page(COMPLETE)]].concat();
    let (sent, was_refused, failed) = log_in_with_known_password(answers, &["alice", "alice", "typed"]).await;
    assert_eq!((sent, was_refused, failed), (vec!["kept".to_owned(), "typed".to_owned()], true, None));
}

#[tokio::test]
async fn password_is_not_tried_again_after_a_refusal_without_a_form_or_a_wrong_code() {
    let refusal = page("<config-auth><auth id=\"main\"><error>Too many.</error></auth></config-auth>");
    let (sent, was_refused, failed) = log_in_with_known_password(vec![asking(PASSWORD), refusal], &["alice"]).await;
    assert_eq!((sent, was_refused, failed), (vec!["kept".to_owned()], true, Some(Exit::AuthRefused)));
    let answers = vec![asking(PASSWORD), asking(CODE), asking(PASSWORD)];
    let (sent, was_refused, _) = log_in_with_known_password(answers, &["alice", "000000", "alice"]).await;
    assert_eq!(sent, ["kept", "000000"], "it may have been right, but nobody knows");
    assert!(!was_refused);
}

#[tokio::test]
async fn password_that_was_sent_without_a_verdict_is_kept_and_not_sent_again_by_a_service() {
    let without_verdict =
        || [answer("429 Too Many", &[], ""), answer("503 Busy", &[], ""), page("<nonsense/>"), String::new()];
    for said in without_verdict() {
        let outcome = log_in_with_known_password(vec![asking(PASSWORD), said.clone()], &["alice"]).await;
        assert_eq!(outcome, (vec!["kept".to_owned()], false, Some(Exit::AuthRefused)), "{said}");
    }
    let answers = vec![asking(PASSWORD), asking(CODE), answer("503 Busy", &[], "")];
    let (sent, was_refused, failed) = log_in_with_known_password(answers, &["alice", "123456"]).await;
    assert_eq!((sent.len(), was_refused, failed), (2, false, Some(Exit::AuthRefused)), "nor one that was taken");
    for said in without_verdict() {
        let (sent, _, failed) = log_in_with_known_password(vec![said.clone()], &[]).await;
        assert!(sent.is_empty() && failed.is_some_and(|exit| exit != Exit::AuthRefused), "{said}: it was not sent");
    }
}

#[tokio::test]
async fn group_that_is_not_in_the_list_is_refused_with_those_that_are() {
    let entrance = Entrance { group: Some("nosuch"), ..AT_ROOT };
    let gateway = ListedGateway::start(vec![asking(LIST), asking(LIST)]);
    let mut contact = gateway.contact().await;
    let greeted = greet(&mut contact, entrance).await;
    let refused = log_in(&mut contact, entrance, &mut Typist::default()).await.map(drop);
    for failure in [greeted.err().unwrap(), refused.err().unwrap()] {
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.reason.contains("nosuch") && failure.next.contains("Staff people, Guests"), "{failure}");
    }
    assert_eq!(gateway.heard().len(), 2, "nothing else was sent");
}

fn form(fields: &str, error: &str) -> GatewayForm {
    let document = format!(
        "<config-auth type=\"auth-request\"><auth id=\"main\"><message>Say\nwho you are.\u{202e}</message>{error}\
         <form>{fields}</form></auth></config-auth>"
    );
    match Told::of_document(document.as_bytes()) {
        Ok(Told::Form(form)) => form,
        Ok(Told::Complete { .. } | Told::CertificateWanted | Told::Refused(_)) | Err(_) => panic!("it is a form"),
    }
}

const FIELDS: &str = "<input type=\"text\" name=\"username\" label=\"User:\"/><input type=\"password\" name=\"password\"/>\
    <select name=\"realm\" label=\"Realm\"><option value=\"r1\">One</option><option>Two</option></select>\
    <input type=\"hidden\" name=\"h\" value=\"1\"/>";

#[test]
fn questions_are_shown_as_those_of_the_native_login() {
    let form = form(FIELDS, "");
    let shown: Vec<_> = form.questions().map(field).map(|field| (field.name, field.label, field.kind)).collect();
    let expected = [
        ("user", "User", FieldKind::Text),
        ("password", "password", FieldKind::Secret),
        ("realm", "Realm", FieldKind::Choice),
    ];
    assert_eq!(shown, expected.map(|(name, label, kind)| (name.to_owned(), label.to_owned(), kind)));
    let choices: Vec<_> = form.questions().map(field).flat_map(|field| field.choices).collect();
    assert_eq!(choices, ["One", "Two"]);
}

#[test]
fn answers_go_back_under_the_names_and_values_of_the_form() {
    let answers = [("user", "alice"), ("password", "p"), ("realm", "One"), ("other", "o")];
    let answers = answers.map(|(name, answer)| (name.to_owned(), answer.to_owned()));
    let given = given(&form(FIELDS, ""), answers.into());
    let given: Vec<_> = given.iter().map(|(name, answer)| (name.as_str(), answer.as_str())).collect();
    assert_eq!(given, [("password", "p"), ("realm", "r1"), ("username", "alice")]);
}

#[test]
fn texts_are_shown_line_by_line_and_harmless_with_the_error_first() {
    let refused = form(FIELDS, "<error>No.</error>");
    assert_eq!(shown_text(&refused), "No.\nSay\nwho you are.\\u{202e}");
    assert_eq!((reason(&refused), reason(&form(FIELDS, ""))), ("No.", "Say"));
}
