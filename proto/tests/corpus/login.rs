//! Requests, handles and tokens of logins.

use std::time::Duration;

use adit_proto::login::flow::{LoginFlow, Way};
use adit_proto::login::token::{Boot, Sealing, SessionToken};
use adit_proto::login::{Kind, Method, Question, StartedLink, Verdict};
use zeroize::Zeroizing;

use super::{Seed, seeds};

const NOW: Duration = Duration::from_secs(1_800_000_000);

/// No cipher: what is sealed is the text.
struct Open;

impl Sealing for Open {
    fn seal(&self, text: &[u8]) -> Option<Vec<u8>> {
        Some(text.to_vec())
    }

    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        Some(sealed.to_vec().into())
    }
}

pub(super) fn logins() -> Vec<Seed> {
    let handles = [
        ("start", handle(&[("user", "alice")], |_| {})),
        ("code", handle(&[("user", "alice"), ("password", "secret")], |flow| ask(flow, Kind::Code))),
        ("choice", handle(&[("user", "alice"), ("password", "secret")], |flow| ask(flow, choice()))),
        ("link", handle(&[("method", "browser")], begin)),
    ];
    let token = |device: Option<&str>, methods: &[Method]| {
        let token = SessionToken {
            user: "alice".to_owned(),
            device: device.map(str::to_owned),
            login: [5; 16],
            generation: 3,
            methods: methods.to_vec(),
            logged_in_at: 1_800_000_000,
            ends_at: 1_800_043_200,
            boot: Boot::of([7; 16]),
            since_boot: 4000,
        };
        token.seal(&Open).expect("nothing random is needed")
    };
    let tokens = [
        ("device", token(Some("dev-0123456789abcdef"), &Method::ALL)),
        ("ticket", token(None, &[Method::Browser])),
        ("too_long", [token(None, &[]).as_slice(), &[9]].concat()),
    ];
    let answers = |count: usize| {
        let answers: Vec<_> = (0..count).map(|number| format!(r#""field-{number}":"answer""#)).collect();
        format!(r#"{{"answers":{{{}}}}}"#, answers.join(",")).into_bytes()
    };
    let requests = [
        ("begun", br#"{"handle":null,"answers":{},"browser":true}"#.to_vec()),
        ("answered", br#"{"handle":"aGFuZGxl","answers":{"user":"alice","password":"\u00fc \"secret\""}}"#.to_vec()),
        ("most_answers", answers(8)),
        ("too_many_answers", answers(9)),
        ("unknown_member", br#"{"handle":"h","more":[[[]]]}"#.to_vec()),
        ("same_member_twice", br#"{"browser":true,"browser":false}"#.to_vec()),
    ];
    let seeds = [seeds("login_handle", handles), seeds("login_token", tokens), seeds("login_request", requests)];
    seeds.into_iter().flatten().collect()
}

/// The handle of a login that was answered so far.
fn handle(answers: &[(&str, &str)], then: impl FnOnce(&mut LoginFlow)) -> Vec<u8> {
    let mut flow = LoginFlow::new(vec![Way::Password, Way::Browser], None, NOW);
    let answers = answers.iter().map(|(name, answer)| ((*name).to_owned(), (*answer).to_owned().into()));
    flow.handle_answers(answers.collect(), NOW);
    then(&mut flow);
    flow.encode().expect("it waits for the client")
}

fn ask(flow: &mut LoginFlow, kind: Kind) {
    let question = Question { text: "Which?".to_owned(), kind, echo: true };
    flow.handle_verdict(Verdict::Ask { question, state: vec![7; 24] }, NOW);
}

fn choice() -> Kind {
    Kind::Choice(vec!["push".to_owned(), "telephone".to_owned()])
}

fn begin(flow: &mut LoginFlow) {
    let link = StartedLink {
        url: "https://idp.example.org/device".to_owned(),
        user_code: None,
        lifetime: Duration::from_secs(300),
        interval: Duration::from_secs(5),
        state: vec![8; 40],
        returns: false,
    };
    flow.handle_started(Ok(link), NOW);
}
