use proptest::prelude::*;

use super::super::Method;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// When the logins of the tests begin.
const BEGIN: Duration = Duration::from_secs(1_800_000_000);

const PASSWORDS: [Way; 2] = [Way::Password, Way::Password];

fn flow(ways: &[Way]) -> LoginFlow {
    LoginFlow::new(ways.to_vec(), None, BEGIN)
}

fn answers(given: &[(&str, &str)]) -> Answers {
    given.iter().map(|(name, answer)| ((*name).to_owned(), (*answer).to_owned().into())).collect()
}

fn alice() -> Person {
    Person {
        source: "local".to_owned(),
        subject: "alice".to_owned(),
        name: "alice".to_owned(),
        groups: Vec::new(),
        methods: vec![Method::Password],
        session_lifetime: None,
        generation: None,
    }
}

fn question(kind: Kind) -> Verdict {
    let question = Question { text: "which?".to_owned(), kind, echo: false };
    Verdict::Ask { question, state: b"state".to_vec() }
}

fn link() -> StartedLink {
    StartedLink {
        url: "https://idp.example/device".to_owned(),
        user_code: Some("ABCD-EFGH".to_owned()),
        lifetime: 300 * SECOND,
        interval: 5 * SECOND,
        state: b"link".to_vec(),
        returns: false,
    }
}

/// The source that is asked, and the name it is asked about.
fn asked(flow: &mut LoginFlow) -> Option<(usize, String)> {
    match flow.poll_command()? {
        Command::Check { source, name, .. } => Some((source, name)),
        Command::Answer { source, .. } | Command::BeginLink { source } | Command::PollLink { source, .. } => {
            Some((source, String::new()))
        }
    }
}

fn log_in(flow: &mut LoginFlow) {
    flow.handle_answers(answers(&[("user", "alice"), ("password", "secret")]), BEGIN);
}

fn names(step: Option<Step>) -> Vec<&'static str> {
    let Some(Step::Ask(form)) = step else { panic!("{step:?} asks nothing") };
    form.fields.iter().map(|field| field.name).collect()
}

/// What strangers see, and what the log says.
fn end(mut flow: LoginFlow) -> (Option<Step>, Option<Failure>) {
    (flow.poll_step(), flow.failure)
}

#[test]
fn name_and_password_go_to_the_first_source_and_end_in_its_person() {
    let mut flow = flow(&PASSWORDS);
    flow.handle_answers(Answers::new(), BEGIN);
    let Some(Step::Ask(form)) = flow.poll_step() else { panic!("it asks nothing") };
    let fields: Vec<_> = form.fields.iter().map(|field| (field.name, field.label, field.echo)).collect();
    assert_eq!(fields, [("user", "User", true), ("password", "Password", false)]);
    assert_eq!(flow.name(), "");
    flow.handle_answers(answers(&[("user", " alice ")]), BEGIN);
    assert_eq!(names(flow.poll_step()), ["password"]);
    assert_eq!(flow.name(), "alice");
    flow.handle_answers(answers(&[("password", "secret")]), BEGIN);
    assert!(
        flow.poll_command()
            == Some(Command::Check { source: 0, name: "alice".into(), password: "secret".to_owned().into() })
    );
    assert_eq!(flow.poll_step(), None);
    flow.handle_verdict(Verdict::Accepted(alice()), BEGIN);
    assert_eq!(end(flow), (Some(Step::Done(alice())), None));
}

#[test]
fn next_source_is_asked_where_one_does_not_know_the_name_or_is_away() {
    for first in [Verdict::Unknown, Verdict::Unavailable("radius: no answer".into())] {
        let mut flow = flow(&[Way::Password, Way::Browser, Way::Password]);
        log_in(&mut flow);
        assert_eq!(asked(&mut flow), Some((0, "alice".into())));
        flow.handle_verdict(first, BEGIN);
        assert_eq!(asked(&mut flow), Some((2, "alice".into())), "one with a browser takes no passwords");
        flow.handle_verdict(Verdict::Accepted(alice()), BEGIN);
        assert_eq!(flow.poll_step(), Some(Step::Done(alice())));
    }
}

#[test]
fn source_that_knows_the_name_has_the_last_word() {
    let mut flow = flow(&PASSWORDS);
    log_in(&mut flow);
    flow.poll_command();
    flow.handle_verdict(Verdict::Refused(Cause::WrongPassword), BEGIN);
    assert!(flow.poll_command().is_none());
    let refused = Some(Step::Refused(Refusal::NotAccepted));
    assert_eq!(end(flow), (refused, Some(Failure::Refused(Cause::WrongPassword))));
}

#[test]
fn strangers_see_one_refusal_and_the_log_sees_the_cause() {
    let causes = [Cause::WrongPassword, Cause::Locked, Cause::Disabled, Cause::PasswordExpired, Cause::WrongCode];
    let mut seen = Vec::new();
    for verdict in causes.into_iter().map(Verdict::Refused).chain([Verdict::Unknown]) {
        let mut flow = flow(&[Way::Password]);
        log_in(&mut flow);
        flow.poll_command();
        flow.handle_verdict(verdict, BEGIN);
        seen.push(end(flow));
    }
    for (name, password) in [
        ("alice", ""),
        ("alice", "a\0b"),
        ("alice", &"x".repeat(1025)),
        (&"x".repeat(257), "secret"),
        ("al\nice", "secret"),
    ] {
        let mut flow = flow(&[Way::Password]);
        flow.handle_answers(answers(&[("user", name), ("password", password)]), BEGIN);
        assert!(flow.poll_command().is_none(), "no source is asked");
        seen.push(end(flow));
    }
    assert!(seen.iter().all(|(step, _)| *step == Some(Step::Refused(Refusal::NotAccepted))), "{seen:?}");
    let mut causes: Vec<_> = seen.iter().map(|(_, failure)| failure.as_ref().unwrap().to_string()).collect();
    causes.dedup();
    assert_eq!(causes.len(), 8, "six verdicts, and two things that can be malformed: {causes:?}");
}

#[test]
fn largest_name_and_password_are_tried() {
    let mut flow = flow(&[Way::Password]);
    flow.handle_answers(answers(&[("user", &"x".repeat(256)), ("password", &"y".repeat(1024))]), BEGIN);
    assert!(flow.poll_command().is_some());
}

#[test]
fn while_a_source_is_away_no_refusal_tells_whether_another_knows_a_name() {
    let away = || Some("radius: no answer".to_owned());
    for (known_before, verdicts) in [
        (None, vec![Verdict::Unavailable("radius: no answer".into()), Verdict::Unknown]),
        (None, vec![Verdict::Unavailable("radius: no answer".into()), Verdict::Refused(Cause::WrongPassword)]),
        (away(), vec![Verdict::Refused(Cause::WrongPassword)]),
        (away(), vec![Verdict::Unknown, Verdict::Unknown]),
    ] {
        let mut flow = LoginFlow::new(PASSWORDS.to_vec(), known_before, BEGIN);
        log_in(&mut flow);
        for verdict in verdicts {
            assert!(flow.poll_command().is_some());
            flow.handle_verdict(verdict, BEGIN);
        }
        assert_eq!(flow.poll_step(), Some(Step::Refused(Refusal::SourceAway)));
    }
}

#[test]
fn source_without_room_ends_the_login_and_no_other_gets_the_password() {
    let mut busy = flow(&PASSWORDS);
    log_in(&mut busy);
    assert!(busy.poll_command().is_some());
    busy.handle_verdict(Verdict::Busy("ldap: full".into()), BEGIN);
    assert!(busy.poll_command().is_none());
    assert_eq!(end(busy), (Some(Step::Refused(Refusal::Busy)), Some(Failure::Busy("ldap: full".into()))));
}

#[test]
fn password_of_a_user_goes_to_no_other_source_while_their_own_is_away() {
    let asked_next = |own: bool| {
        let mut flow = flow(&PASSWORDS);
        log_in(&mut flow);
        flow.poll_command();
        if own {
            flow.handle_own_source_away("ldap: no answer".into(), BEGIN);
        } else {
            flow.handle_verdict(Verdict::Unavailable("ldap: no answer".into()), BEGIN);
            assert_eq!(asked(&mut flow), Some((1, "alice".into())), "the positive control");
            flow.handle_verdict(Verdict::Unknown, BEGIN);
        }
        assert!(flow.poll_command().is_none());
        end(flow).0
    };
    assert_eq!(asked_next(true), Some(Step::Refused(Refusal::SourceAway)));
    assert_eq!(asked_next(true), asked_next(false), "strangers cannot tell whose user it is");
}

#[test]
fn login_in_a_browser_goes_on_when_its_source_has_no_room() {
    let mut flow = flow(&[Way::Browser]);
    flow.handle_answers(Answers::new(), BEGIN);
    flow.poll_command();
    flow.handle_started(Ok(link()), BEGIN);
    flow.poll_step();
    flow.handle_answers(Answers::new(), BEGIN + 5 * SECOND);
    assert!(flow.poll_command().is_some());
    flow.handle_busy("oidc: full".into(), BEGIN + 5 * SECOND);
    assert_eq!(flow.poll_step(), Some(Step::Wait { again_in: 2 * SECOND }));
    flow.handle_answers(Answers::new(), BEGIN + 7 * SECOND);
    assert!(flow.poll_command().is_some());
    flow.handle_verdict(Verdict::Accepted(alice()), BEGIN + 7 * SECOND);
    assert_eq!(flow.poll_step(), Some(Step::Done(alice())));
    let mut beginning = self::flow(&[Way::Browser]);
    beginning.handle_answers(Answers::new(), BEGIN);
    beginning.handle_busy("oidc: full".into(), BEGIN);
    assert_eq!(end(beginning).0, Some(Step::Refused(Refusal::Busy)), "nobody is on the way yet");
}

#[test]
fn question_goes_to_the_client_and_its_answer_to_the_same_source() {
    let mut flow = flow(&PASSWORDS);
    log_in(&mut flow);
    flow.poll_command();
    flow.handle_verdict(Verdict::Unknown, BEGIN);
    flow.poll_command();
    flow.handle_verdict(question(Kind::Code), BEGIN);
    assert_eq!(names(flow.poll_step()), ["code"]);
    flow.handle_answers(answers(&[("password", "1")]), BEGIN);
    assert_eq!(names(flow.poll_step()), ["code"], "that was not asked for");
    flow.handle_answers(answers(&[("code", "")]), BEGIN);
    assert_eq!(names(flow.poll_step()), ["code"]);
    flow.handle_answers(answers(&[("code", "123456")]), BEGIN);
    let answer = Command::Answer { source: 1, state: b"state".to_vec(), answer: "123456".to_owned().into() };
    assert!(flow.poll_command() == Some(answer));
    flow.handle_verdict(question(Kind::Text), BEGIN);
    assert_eq!(names(flow.poll_step()), ["text"], "as many questions as the source likes");
    flow.handle_answers(answers(&[("text", "")]), BEGIN);
    assert!(flow.poll_command().is_some(), "free words may be none");
    flow.handle_verdict(Verdict::Unknown, BEGIN);
    assert_eq!(end(flow), (Some(Step::Refused(Refusal::NotAccepted)), Some(Failure::UnknownName)));
}

#[test]
fn answer_is_bounded_and_holds_no_nul() {
    let answered = |answer: &str| {
        let mut flow = flow(&[Way::Password]);
        log_in(&mut flow);
        flow.poll_command();
        flow.handle_verdict(question(Kind::Text), BEGIN);
        flow.poll_step();
        flow.handle_answers(answers(&[("text", answer)]), BEGIN);
        (flow.poll_command().is_some(), flow.failure().cloned())
    };
    assert_eq!(answered(&"x".repeat(1024)), (true, None));
    let malformed = (false, Some(Failure::Malformed("the answer")));
    assert_eq!(answered(&"x".repeat(1025)), malformed);
    assert_eq!(answered("a\0b"), malformed);
}

#[test]
fn rounds_are_bounded() {
    let mut flow = flow(&[Way::Password]);
    for round in 1..=16 {
        flow.handle_answers(Answers::new(), BEGIN);
        let step = flow.poll_step();
        assert!(matches!(step, Some(Step::Ask(_))), "{step:?} in round {round}");
        assert_eq!(flow.failure(), None);
    }
    flow.handle_answers(Answers::new(), BEGIN);
    assert_eq!(end(flow), (Some(Step::Refused(Refusal::NotAccepted)), Some(Failure::TooManyRounds)));
}

#[test]
fn state_of_a_source_is_bounded_and_its_texts_are_cut() {
    let ask = |size: usize| {
        let kind = Kind::Choice(vec!["ä".repeat(100); 100]);
        let question = Question { text: "ü".repeat(1000), kind, echo: true };
        let mut flow = flow(&[Way::Password]);
        log_in(&mut flow);
        flow.poll_command();
        flow.handle_verdict(Verdict::Ask { question, state: vec![0; size] }, BEGIN);
        flow
    };
    assert_eq!(end(ask(MAX_STATE + 1)).1, Some(Failure::TooMuchState));
    let mut largest = ask(MAX_STATE);
    let Some(Step::Ask(Form { text, fields })) = largest.poll_step() else { panic!("it asks") };
    let Kind::Choice(choices) = &fields[0].kind else { panic!("a choice") };
    assert_eq!((text.len(), choices.len(), choices[0].len()), (512, 32, 64));
    let largest = largest.encode().unwrap().len();
    assert!(largest <= 6 * 1024);
    assert!(
        (largest + 28) * 4 / 3 < crate::login::message::MAX_HANDLE,
        "sealed, and in base 64, a client sends it back"
    );
}

#[test]
fn login_that_takes_too_long_is_over() {
    let mut waiting = flow(&[Way::Password]);
    waiting.handle_answers(answers(&[("user", "alice")]), BEGIN + 119 * SECOND);
    assert!(matches!(waiting.poll_step(), Some(Step::Ask(_))));
    assert_eq!(waiting.poll_timeout(), Some(BEGIN + 120 * SECOND));
    waiting.handle_answers(answers(&[("password", "secret")]), BEGIN + 120 * SECOND);
    assert!(waiting.poll_command().is_none());
    assert_eq!(waiting.poll_timeout(), None);
    assert_eq!(end(waiting), (Some(Step::Refused(Refusal::Expired)), Some(Failure::Expired)));

    let mut late = flow(&[Way::Password]);
    log_in(&mut late);
    late.poll_command();
    late.handle_verdict(Verdict::Accepted(alice()), BEGIN + 120 * SECOND);
    assert_eq!(end(late).0, Some(Step::Refused(Refusal::Expired)), "what a source says too late counts for nothing");
}

#[test]
fn nothing_changes_a_login_that_is_over() {
    let mut done = flow(&[Way::Password]);
    log_in(&mut done);
    done.poll_command();
    done.handle_verdict(Verdict::Accepted(alice()), BEGIN);
    assert!(matches!(done.poll_step(), Some(Step::Done(_))));
    done.handle_timeout(BEGIN + 500 * SECOND);
    done.handle_verdict(Verdict::Refused(Cause::Disabled), BEGIN);
    log_in(&mut done);
    assert_eq!(end(done), (None, None));
}

#[test]
fn source_with_a_browser_gives_a_link_that_is_asked_for_in_time() {
    let mut flow = flow(&[Way::Browser]);
    flow.handle_answers(Answers::new(), BEGIN);
    assert!(flow.poll_command() == Some(Command::BeginLink { source: 0 }));
    flow.handle_started(Ok(link()), BEGIN);
    let Some(Step::Open { lifetime, again_in, .. }) = flow.poll_step() else { panic!("a link") };
    assert_eq!((lifetime, again_in), (300 * SECOND, 5 * SECOND));
    flow.handle_answers(Answers::new(), BEGIN + 2 * SECOND);
    assert_eq!(flow.poll_step(), Some(Step::Wait { again_in: 3 * SECOND }));
    assert!(flow.poll_command().is_none(), "too early to ask");
    let poll = |flow: &mut LoginFlow, at: u32| {
        flow.handle_answers(Answers::new(), BEGIN + at * SECOND);
        flow.poll_command() == Some(Command::PollLink { source: 0, state: b"link".to_vec(), proof: None })
    };
    assert!(poll(&mut flow, 5));
    flow.handle_pending(10 * SECOND, BEGIN + 5 * SECOND);
    assert_eq!(flow.poll_step(), Some(Step::Wait { again_in: 10 * SECOND }));
    assert!(!poll(&mut flow, 14) && flow.poll_step().is_some());
    assert!(poll(&mut flow, 200), "longer than a login with a password");
    flow.handle_verdict(Verdict::Accepted(alice()), BEGIN + 200 * SECOND);
    assert_eq!(flow.poll_step(), Some(Step::Done(alice())));
}

#[test]
fn client_that_brings_what_its_browser_brought_is_heard_at_once() {
    let mut flow = flow(&[Way::Browser]);
    flow.handle_answers(Answers::new(), BEGIN);
    flow.poll_command();
    flow.handle_started(Ok(StartedLink { returns: true, ..link() }), BEGIN);
    assert!(matches!(flow.poll_step(), Some(Step::Open { returns: true, .. })));
    flow.handle_answers(answers(&[("proof", &"p".repeat(MAX_ANSWER + 1))]), BEGIN);
    assert_eq!(flow.poll_step(), Some(Step::Wait { again_in: 5 * SECOND }), "one that is too long is none");
    flow.handle_answers(answers(&[("proof", "p")]), BEGIN);
    let proof = Some(Zeroizing::new("p".to_owned()));
    assert!(flow.poll_command() == Some(Command::PollLink { source: 0, state: b"link".to_vec(), proof }));
}

#[test]
fn proof_skips_the_wait_only_where_the_link_has_the_browser_bring_one() {
    for returns in [false, true] {
        let mut begun = flow(&[Way::Browser]);
        begun.handle_answers(Answers::new(), BEGIN);
        begun.poll_command();
        begun.handle_started(Ok(StartedLink { returns, ..link() }), BEGIN);
        begun.poll_step();
        let mut again = come_back(&begun, &[Way::Browser]);
        again.handle_answers(Answers::new(), BEGIN + 5 * SECOND);
        assert!(again.poll_command().is_some(), "the pace of polls is kept");
        again.handle_pending(5 * SECOND, BEGIN + 5 * SECOND);
        again.poll_step();
        let back = come_back(&again, &[Way::Browser]);
        for (mut flow, asked) in [(begun, BEGIN), (again, BEGIN + 5 * SECOND), (back, BEGIN + 5 * SECOND)] {
            flow.handle_answers(answers(&[("proof", "p")]), asked + SECOND);
            let waits = Some(Step::Wait { again_in: 4 * SECOND });
            assert_eq!(flow.poll_command().is_some(), returns, "{asked:?}");
            assert_eq!(flow.poll_step(), waits.filter(|_| !returns));
        }
    }
}

#[test]
fn link_has_its_own_end_and_a_source_that_gives_none_is_away() {
    let mut over = flow(&[Way::Browser]);
    over.handle_answers(Answers::new(), BEGIN);
    over.poll_command();
    over.handle_started(Ok(StartedLink { lifetime: 3600 * SECOND, ..link() }), BEGIN);
    assert_eq!(over.poll_timeout(), Some(BEGIN + 600 * SECOND));
    over.handle_answers(Answers::new(), BEGIN + 600 * SECOND);
    assert_eq!(end(over).0, Some(Step::Refused(Refusal::Expired)));

    let begun = |state: usize, at: Duration| {
        let mut flow = flow(&[Way::Browser]);
        flow.handle_answers(Answers::new(), BEGIN);
        flow.handle_started(Ok(StartedLink { state: vec![0; state], ..link() }), at);
        flow
    };
    assert!(matches!(end(begun(MAX_STATE, BEGIN)).0, Some(Step::Open { .. })));
    let too_much = (Some(Step::Refused(Refusal::NotAccepted)), Some(Failure::TooMuchState));
    assert_eq!(end(begun(MAX_STATE + 1, BEGIN)), too_much);
    let late = begun(1, BEGIN + 120 * SECOND);
    assert_eq!(late.poll_timeout(), None, "a link that comes too late begins nothing");
    assert_eq!(end(late), (Some(Step::Refused(Refusal::Expired)), Some(Failure::Expired)));

    let mut away = flow(&[Way::Browser]);
    away.handle_answers(Answers::new(), BEGIN);
    away.handle_started(Err("oidc: no answer".into()), BEGIN);
    assert_eq!(end(away), (Some(Step::Refused(Refusal::SourceAway)), Some(Failure::Away("oidc: no answer".into()))));
}

#[test]
fn where_there_are_both_the_user_chooses_between_password_and_browser() {
    let both = [Way::Password, Way::Browser];
    let mut choosing = flow(&both);
    choosing.handle_answers(Answers::new(), BEGIN);
    assert_eq!(names(choosing.poll_step()), ["method"]);
    choosing.handle_answers(answers(&[("method", "browser")]), BEGIN);
    assert!(choosing.poll_command() == Some(Command::BeginLink { source: 1 }));
    let mut choosing = flow(&both);
    choosing.handle_answers(answers(&[("method", "password")]), BEGIN);
    assert_eq!(names(choosing.poll_step()), ["user", "password"]);
    let mut typed = flow(&both);
    log_in(&mut typed);
    assert_eq!(asked(&mut typed), Some((0, "alice".into())), "who has typed a name has chosen");
}

#[test]
fn name_that_was_typed_is_not_that_of_who_logs_in_in_a_browser() {
    let mut flow = flow(&[Way::Password, Way::Browser]);
    flow.handle_answers(answers(&[("user", "bob")]), BEGIN);
    assert_eq!((names(flow.poll_step()), flow.name()), (vec!["password"], "bob"));
    flow.handle_answers(answers(&[("method", "browser")]), BEGIN);
    assert!(flow.poll_command() == Some(Command::BeginLink { source: 1 }));
    assert_eq!(flow.name(), "");
}

/// The flow that comes back as a handle.
fn come_back(flow: &LoginFlow, ways: &[Way]) -> LoginFlow {
    LoginFlow::decode(&flow.encode().unwrap(), ways.to_vec(), None).unwrap()
}

#[test]
fn handle_keeps_what_was_asked_and_until_when() {
    let kinds = [Kind::User, Kind::Password, Kind::Code, Kind::NewPassword, Kind::Choice(vec!["a".into()]), Kind::Text];
    for (kind, echo) in kinds.into_iter().flat_map(|kind| [(kind.clone(), true), (kind, false)]) {
        let mut flow = flow(&PASSWORDS);
        log_in(&mut flow);
        let question = Question { text: "which?".to_owned(), kind: kind.clone(), echo };
        flow.handle_verdict(Verdict::Ask { question, state: b"state".to_vec() }, BEGIN);
        let asked = flow.poll_step();
        let mut back = come_back(&flow, &PASSWORDS);
        assert_eq!((back.name(), back.poll_timeout()), ("alice", Some(BEGIN + 120 * SECOND)));
        back.handle_answers(Answers::new(), BEGIN + 119 * SECOND);
        assert_eq!(back.poll_step(), asked, "{kind:?} {echo}");
        back.handle_answers(Answers::new(), BEGIN + 120 * SECOND);
        assert_eq!(back.poll_step(), Some(Step::Refused(Refusal::Expired)));
    }
}

#[test]
fn handle_of_a_link_keeps_when_it_may_be_asked_for() {
    let mut flow = flow(&[Way::Browser]);
    flow.handle_answers(Answers::new(), BEGIN);
    flow.handle_started(Ok(link()), BEGIN);
    let mut back = come_back(&flow, &[Way::Browser]);
    assert_eq!(back.poll_timeout(), Some(BEGIN + 300 * SECOND));
    back.handle_answers(Answers::new(), BEGIN + SECOND);
    assert_eq!(back.poll_step(), Some(Step::Wait { again_in: 4 * SECOND }));
    back.handle_answers(Answers::new(), BEGIN + 5 * SECOND);
    assert!(back.poll_command() == Some(Command::PollLink { source: 0, state: b"link".to_vec(), proof: None }));
}

#[test]
fn handle_of_another_chain_or_version_is_none() {
    let mut asked = flow(&PASSWORDS);
    log_in(&mut asked);
    asked.handle_verdict(Verdict::Unknown, BEGIN);
    asked.handle_verdict(question(Kind::Code), BEGIN);
    let bytes = asked.encode().unwrap();
    let decode = |bytes: &[u8], ways: &[Way]| LoginFlow::decode(bytes, ways.to_vec(), None).is_some();
    assert!(decode(&bytes, &PASSWORDS), "the positive control");
    assert!(!decode(&bytes, &[Way::Password]), "there is no second source");
    for length in 0..bytes.len() {
        assert!(!decode(&bytes[..length], &PASSWORDS), "{length}");
    }
    assert!(!decode(&[&bytes[..], &[0]].concat(), &PASSWORDS));
    for (place, value) in [(0, 2), (1, 3)] {
        let mut changed = bytes.clone();
        changed[place] = value;
        assert!(!decode(&changed, &PASSWORDS), "{place}");
    }
    let mut busy = flow(&PASSWORDS);
    log_in(&mut busy);
    assert!(busy.encode().is_none(), "a password would be in it");
}

/// What happens next, asked for or not.
#[derive(Debug, Clone)]
enum Op {
    Answers(Vec<(usize, String)>),
    Verdict(Verdict),
    Started(bool),
    Pending(u8),
    Timeout,
    /// The flow becomes a handle and comes back.
    Handle,
}

fn op() -> impl Strategy<Value = (Op, u8)> {
    let fields = proptest::collection::vec((0..8_usize, "[a-z\0]{0,3}"), 0..3);
    let kinds = [Kind::User, Kind::Password, Kind::Code, Kind::NewPassword, Kind::Choice(vec!["a".into()]), Kind::Text];
    let verdict = prop_oneof![
        Just(Verdict::Accepted(alice())),
        Just(Verdict::Unknown),
        Just(Verdict::Unavailable("away".into())),
        Just(Verdict::Busy("full".into())),
        Just(Verdict::Refused(Cause::Disabled)),
        proptest::sample::select(kinds.to_vec()).prop_map(question),
        Just(Verdict::Ask {
            question: Question { text: String::new(), kind: Kind::Text, echo: true },
            state: vec![0; 2049]
        }),
    ];
    let op = prop_oneof![
        4 => fields.prop_map(Op::Answers),
        4 => verdict.prop_map(Op::Verdict),
        1 => any::<bool>().prop_map(Op::Started),
        1 => any::<u8>().prop_map(Op::Pending),
        1 => Just(Op::Timeout),
        2 => Just(Op::Handle),
    ];
    (op, 0..20_u8)
}

const FIELDS: [&str; 8] = ["user", "password", "code", "new_password", "choice", "text", "method", "proof"];

fn ways() -> impl Strategy<Value = Vec<Way>> {
    proptest::collection::vec(prop_oneof![Just(Way::Password), Just(Way::Browser)], 1..4)
}

proptest! {
    #[test]
    fn no_order_of_inputs_disturbs_a_login(ways in ways(), ops in proptest::collection::vec(op(), 0..60)) {
        let (mut flow, mut now) = (flow(&ways), BEGIN);
        let (mut outstanding, mut over, mut client_turn, mut rounds) = (false, false, true, 0);
        for (op, seconds) in ops {
            now += SECOND * u32::from(seconds);
            let was_turn = client_turn;
            let accepts = matches!(op, Op::Verdict(Verdict::Accepted(_)));
            match op {
                Op::Answers(given) => {
                    let given: Vec<_> = given.iter().map(|(place, text)| (FIELDS[*place], text.as_str())).collect();
                    flow.handle_answers(answers(&given), now);
                    rounds += 1;
                }
                Op::Verdict(verdict) => flow.handle_verdict(verdict, now),
                Op::Started(good) => flow.handle_started(good.then(link).ok_or_else(|| "away".into()), now),
                Op::Pending(seconds) => flow.handle_pending(SECOND * u32::from(seconds), now),
                Op::Timeout => flow.handle_timeout(now),
                Op::Handle => {
                    let bytes = flow.encode();
                    prop_assert_eq!(bytes.is_some(), client_turn && !over, "a handle is what waits for the client");
                    if let Some(bytes) = bytes {
                        prop_assert!(bytes.len() <= 6 * 1024);
                        let away = flow.away.clone();
                        flow = LoginFlow::decode(&bytes, ways.clone(), away).expect("it stands for a flow");
                        prop_assert_eq!(flow.encode(), Some(bytes));
                    }
                }
            }
            let (command, step) = (flow.poll_command(), flow.poll_step());
            prop_assert!(command.is_none() || step.is_none(), "one thing at a time");
            prop_assert!(!over || (command.is_none() && step.is_none()), "nothing comes after the end");
            if let Some(command) = &command {
                let (Command::Check { source, .. } | Command::Answer { source, .. } | Command::BeginLink { source } | Command::PollLink { source, .. }) = command;
                let is_link = matches!(command, Command::BeginLink { .. } | Command::PollLink { .. });
                prop_assert!(*source < ways.len());
                prop_assert!(is_link <= (ways[*source] == Way::Browser));
                prop_assert!(now < BEGIN + 900 * SECOND);
                if let Command::Check { name, password, .. } = command {
                    prop_assert!(!name.is_empty() && !password.is_empty() && ways[*source] == Way::Password);
                }
                outstanding = true;
            }
            match step {
                Some(Step::Done(_)) => {
                    prop_assert!(accepts && outstanding && !was_turn, "only a source that was asked lets anybody in");
                    over = true;
                }
                Some(Step::Refused(_)) => {
                    prop_assert!(flow.failure().is_some());
                    over = true;
                }
                Some(Step::Ask(_) | Step::Open { .. } | Step::Wait { .. }) => {
                    outstanding = false;
                    client_turn = true;
                }
                None => {}
            }
            if command.is_some() || over {
                client_turn = false;
            }
            prop_assert!(flow.rounds <= MAX_ROUNDS + 1);
        }
        prop_assert!(rounds <= 60);
        flow.handle_timeout(now + 600 * SECOND);
        prop_assert_eq!(flow.poll_timeout(), None, "every login ends");
    }

    #[test]
    fn no_bytes_disturb_the_decoder_of_handles(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        crate::fuzzing::login_handle(&bytes);
    }
}
