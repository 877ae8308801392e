//! Logins with a real FreeRADIUS.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use adit_program::durable_file;
use adit_proto::login::{Cause, Kind, Method, Person, Verdict};
use adit_testing::free_radius::{FreeRadius, Replies, SECRET};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::Radius;
use super::settings::{GroupAttribute, RadiusSettings};
use crate::config::SecretPlace;
use crate::sources::status::ServerStatus;
use crate::sources::{Origin, Recheck, Source};

/// A source, and the folder with its secret.
struct Lab {
    source: Radius,
    _folder: TempDir,
}

fn settings(folder: &Path, servers: &[SocketAddr], secret: &str) -> RadiusSettings {
    let path = folder.join("secret");
    durable_file::create(&path, secret.as_bytes(), 0o600).unwrap();
    RadiusSettings {
        servers: servers.to_vec(),
        secret: Some(SecretPlace::File(path)),
        timeout: Duration::from_secs(14),
        nas_identifier: "adit".to_owned(),
        ..RadiusSettings::default()
    }
}

fn lab_with(servers: &[SocketAddr], change: impl FnOnce(&mut RadiusSettings)) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path(), servers, SECRET);
    change(&mut settings);
    Lab { source: Radius::new(&settings).unwrap(), _folder: folder }
}

fn lab(server: &FreeRadius) -> Lab {
    lab_with(&[server.authentication()], |_| {})
}

/// A source that gives up soon, for servers that do not answer.
fn impatient(servers: &[SocketAddr]) -> Lab {
    lab_with(servers, |settings| settings.timeout = Duration::from_secs(3))
}

fn origin() -> Origin {
    Origin { address: Ipv4Addr::new(192, 0, 2, 77).into(), device: None }
}

impl Lab {
    async fn check(&self, name: &str, password: &str) -> Verdict {
        self.source.check(name, &Zeroizing::new(password.to_owned()), &origin()).await
    }

    async fn answer(&self, state: &[u8], answer: &str) -> Verdict {
        self.source.answer(state, &Zeroizing::new(answer.to_owned()), &origin()).await
    }

    /// The state of the question that bob is asked.
    async fn question_to_bob(&self) -> Vec<u8> {
        let Verdict::Ask { question, state } = self.check("bob", "builder").await else {
            panic!("bob is asked for a code")
        };
        assert_eq!((question.text.as_str(), question.kind, question.echo), ("Enter the code", Kind::Code, false));
        state
    }
}

fn person(verdict: Verdict) -> Person {
    let Verdict::Accepted(person) = verdict else { panic!("not accepted: {verdict:?}") };
    person
}

fn reason(verdict: Verdict) -> String {
    let Verdict::Unavailable(reason) = verdict else { panic!("the source is there: {verdict:?}") };
    reason
}

#[tokio::test]
async fn right_password_gives_groups_and_how_long_it_counts() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let expected = Person {
        source: "radius".to_owned(),
        subject: "alice".to_owned(),
        name: "alice".to_owned(),
        groups: vec!["staff".to_owned(), "vpn".to_owned()],
        methods: vec![Method::Password],
        session_lifetime: Some(Duration::from_secs(3600)),
        generation: None,
    };
    assert_eq!(lab(&server).check("alice", "wonderland").await, Verdict::Accepted(expected));
    let by_filter = lab_with(&[server.authentication()], |settings| settings.groups = GroupAttribute::FilterId);
    assert_eq!(person(by_filter.check("alice", "wonderland").await).groups, ["filtered"]);
}

#[tokio::test]
async fn wrong_password_unknown_user_disabled_and_expired_are_refused() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let lab = lab(&server);
    for (name, password) in [
        ("alice", "Wonderland"),
        ("nobody", "wonderland"),
        ("dave", "diver"),
        ("erin", "easter"),
        ("*", "wonderland"),
        (")(uid=*", "wonderland"),
    ] {
        assert_eq!(lab.check(name, password).await, Verdict::Refused(Cause::WrongPassword), "{name}");
    }
    person(lab.check("alice", "wonderland").await);
}

#[tokio::test]
async fn what_no_packet_carries_is_refused_without_asking() {
    let nobody = impatient(&["127.0.0.1:9".parse().unwrap()]);
    assert_eq!(nobody.check("alice", "").await, Verdict::Refused(Cause::WrongPassword));
    assert_eq!(nobody.check("alice", &"x".repeat(129)).await, Verdict::Refused(Cause::WrongPassword));
    assert_eq!(nobody.check("", "x").await, Verdict::Unknown);
    assert_eq!(nobody.check("ali\nce", "x").await, Verdict::Unknown);
    assert_eq!(nobody.check(&"x".repeat(254), "x").await, Verdict::Unknown);
    // It would have asked.
    assert!(reason(nobody.check("alice", "x").await).contains("127.0.0.1:9 cannot be reached"));
}

#[tokio::test]
async fn right_code_lets_in_and_a_wrong_one_does_not() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let lab = lab(&server);
    let state = lab.question_to_bob().await;
    assert_eq!(lab.answer(&state, "654321").await, Verdict::Refused(Cause::WrongCode));
    let state = lab.question_to_bob().await;
    let bob = person(lab.answer(&state, "123456").await);
    assert_eq!((bob.name.as_str(), bob.groups.as_slice()), ("bob", &["ops".to_owned()][..]));
    assert_eq!(bob.methods, [Method::Password, Method::Code]);
}

#[tokio::test]
async fn question_can_be_answered_once() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let lab = lab(&server);
    let state = lab.question_to_bob().await;
    person(lab.answer(&state, "123456").await);
    assert_eq!(lab.answer(&state, "123456").await, Verdict::Refused(Cause::WrongCode));
}

#[tokio::test]
async fn wrong_password_is_refused_before_any_question() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    assert_eq!(lab(&server).check("bob", "Builder").await, Verdict::Refused(Cause::WrongPassword));
}

#[tokio::test]
async fn server_that_asks_for_ever_is_refused_after_16_questions() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let lab = lab(&server);
    let mut verdict = lab.check("quiz", "master").await;
    let mut questions = 0;
    while let Verdict::Ask { question, state } = verdict {
        assert!(question.echo, "the server says that the answer may be seen");
        questions += 1;
        verdict = lab.answer(&state, "again").await;
    }
    assert_eq!(questions, 16);
    assert!(matches!(verdict, Verdict::Refused(Cause::NotPermitted(_))), "{verdict:?}");
}

#[tokio::test]
async fn server_says_what_a_user_is_called_and_names_300_groups() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let carol = person(lab(&server).check("carol", "christmas").await);
    assert_eq!((carol.name.as_str(), carol.subject.as_str()), ("caroline", "caroline"));
    let expected: Vec<String> = (0..300).map(|number| format!("group-{number:03}")).collect();
    assert_eq!(carol.groups, expected);
}

#[tokio::test]
async fn reply_without_message_authenticator_is_not_believed() {
    let Some(server) = FreeRadius::start(Replies::Bare) else { return };
    let strict = impatient(&[server.authentication()]);
    for password in ["wonderland", "wrong"] {
        let reason = reason(strict.check("alice", password).await);
        assert!(reason.contains("without Message-Authenticator"), "{reason}");
        assert!(reason.contains(&server.authentication().to_string()), "{reason}");
    }
    // It is that alone which is missing.
    let lenient = lab_with(&[server.authentication()], |settings| settings.require_message_authenticator = false);
    person(lenient.check("alice", "wonderland").await);
}

#[tokio::test]
async fn wrong_secret_is_named_as_a_possible_cause_of_silence() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path(), &[server.authentication()], "another secret of the lab");
    settings.timeout = Duration::from_secs(3);
    let other = Lab { source: Radius::new(&settings).unwrap(), _folder: folder };
    let reason = reason(other.check("alice", "wonderland").await);
    assert!(reason.contains("does not answer") && reason.contains("radius.secret_file"), "{reason}");
    person(lab(&server).check("alice", "wonderland").await);
}

#[tokio::test]
async fn next_server_is_asked_where_one_is_away_or_silent() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let away = "127.0.0.1:9".parse().unwrap();
    let lab = impatient(&[away, silent.local_addr().unwrap(), server.authentication()]);
    silent.set_nonblocking(true).unwrap();
    let asked = || std::iter::from_fn(|| silent.recv(&mut [0; 4096]).ok()).count();
    person(lab.check("alice", "wonderland").await);
    assert_ne!(asked(), 0, "it was asked in its turn");
    person(lab.check("alice", "wonderland").await);
    assert_eq!(asked(), 0, "it is asked last now, and so not at all");
}

/// Stands between a source and a server: `first` gets the first request and who sent it, and the next one goes through.
fn between(
    server: &FreeRadius,
    first: impl FnOnce(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (own, server) = (socket.local_addr().unwrap(), server.authentication());
    let relay = std::thread::spawn(move || {
        let (mut request, mut again, mut reply) = ([0; 4096], [0; 4096], [0; 4096]);
        let (length, client) = socket.recv_from(&mut request).unwrap();
        first(&socket, &request[..length], client);
        let repeated = socket.recv(&mut again).unwrap();
        assert_eq!(request[..length], again[..repeated], "the same bytes are sent again");
        socket.send_to(&again[..repeated], server).unwrap();
        let length = socket.recv(&mut reply).unwrap();
        socket.send_to(&reply[..length], client).unwrap();
    });
    (own, relay)
}

#[tokio::test]
async fn request_that_was_lost_is_sent_again() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let (lossy, relay) = between(&server, |_, _, _| {});
    person(lab_with(&[lossy], |_| {}).check("alice", "wonderland").await);
    relay.join().unwrap();
}

#[tokio::test]
async fn forged_replies_do_not_end_the_wait() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let (forger, relay) = between(&server, |socket, request, client| {
        // Answers with the right identifier, as somebody could make who does not have the secret.
        for code in [2, 3, 11] {
            socket.send_to(&[&[code, request[1], 0, 20][..], &[7; 16]].concat(), client).unwrap();
        }
        socket.send_to(b"noise", client).unwrap();
    });
    person(lab_with(&[forger], |_| {}).check("alice", "wonderland").await);
    relay.join().unwrap();
}

#[tokio::test]
async fn answer_goes_to_the_server_that_asked() {
    let (Some(first), Some(second)) = (FreeRadius::start(Replies::Authentic), FreeRadius::start(Replies::Authentic))
    else {
        return;
    };
    let asked = lab(&second).question_to_bob().await;
    let both = lab_with(&[first.authentication(), second.authentication()], |_| {});
    person(both.answer(&asked, "123456").await);
    let without = lab(&first);
    assert!(reason(without.answer(&asked, "123456").await).contains("configured no longer"));
    assert!(reason(both.answer(b"no state of ours", "123456").await).contains("configured no longer"));
}

#[tokio::test]
async fn nothing_is_said_of_a_user_without_the_password() {
    let lab = impatient(&["127.0.0.1:9".parse().unwrap()]);
    let alice = Person {
        source: "radius".to_owned(),
        subject: "alice".to_owned(),
        name: "alice".to_owned(),
        groups: Vec::new(),
        methods: Vec::new(),
        session_lifetime: None,
        generation: None,
    };
    assert!(matches!(lab.source.recheck(&alice).await, Recheck::Unknown(_)));
}

#[tokio::test]
async fn status_names_what_is_wrong_with_each_server() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let lab = impatient(&[server.authentication(), "127.0.0.1:9".parse().unwrap()]);
    let status = lab.source.status().await;
    assert_eq!(status[0], ServerStatus::new(server.authentication(), Ok(())));
    assert!(status[1].problem.as_ref().unwrap().contains("127.0.0.1:9 cannot be reached"), "{status:?}");
}

#[test]
fn settings_that_cannot_work_are_refused_with_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let good = settings(folder.path(), &["127.0.0.1:1812".parse().unwrap()], SECRET);
    assert!(Radius::new(&good).is_ok());
    let what = |settings: &RadiusSettings| Radius::new(settings).err().map(|problem| problem.what);
    let servers = RadiusSettings { servers: Vec::new(), ..good.clone() };
    assert_eq!(what(&servers).as_deref(), Some("radius.servers"));
    let secret = RadiusSettings { secret: None, ..good.clone() };
    assert_eq!(what(&secret).as_deref(), Some("radius.secret_file"));
    let short = folder.path().join("short");
    durable_file::create(&short, b"fifteen letters\n", 0o600).unwrap();
    let short = RadiusSettings { secret: Some(SecretPlace::File(short)), ..good };
    assert_eq!(what(&short).as_deref(), Some("radius.secret_file"));
}
