//! `adit-server user`, and that whom it lets in can log in.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use adit_proto::login::{Cause, Kind, Method, Person, Verdict};
use adit_server::accounts::sqlite::Store;
use adit_server::config::SecondFactor;
use adit_server::directories::StateDir;
use adit_server::identity::ServiceKey;
use adit_server::sources::local::Local;
use adit_server::sources::{Origin, Source};
use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
use data_encoding::BASE32_NOPAD;
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::Value;

use super::{Made, Run, command};

const PASSWORD: &str = "correct horse";

impl Made {
    /// Starts a verb that asks something.
    fn start(&self, arguments: &[&str], stdin: Stdio) -> Child {
        let mut command = command(arguments);
        command.args(["--config", self.file().to_str().unwrap()]);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a verb with these answers.
    fn answered(&self, arguments: &[&str], answers: &str) -> Run {
        let mut child = self.start(arguments, Stdio::piped());
        // A verb that needs no answer may be over already.
        drop(child.stdin.take().unwrap().write_all(answers.as_bytes()));
        child.wait_with_output().unwrap().into()
    }

    fn alice(&self) -> Value {
        self.json(&["user", "list"])["users"][0].clone()
    }

    /// What the source of local users says to a name and a password.
    fn login(&self, name: &str, password: &str) -> Verdict {
        let state_dir = StateDir::new(self.state(""));
        let store = Arc::new(Store::open(&state_dir.store()).unwrap());
        let key = ServiceKey::load_or_create(&state_dir).unwrap();
        let local = Local::new(store, &key, SecondFactor::Device).unwrap();
        let origin = Origin { address: [192, 0, 2, 1].into(), device: None };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(local.check(name, &password.to_owned().into(), &origin))
    }
}

/// The code that an app shows now (RFC 6238).
fn code_of(secret: &str) -> String {
    let secret = BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let step = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 30;
    let tag = sign(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret), &step.to_be_bytes());
    let offset = usize::from(tag.as_ref()[19] & 15);
    let part: [u8; 4] = tag.as_ref()[offset..offset + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(part) & 0x7fff_ffff) % 1_000_000)
}

/// Reads until a text has come.
fn read_until(from: &mut impl Read, text: &str) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&read).contains(text) {
        assert_eq!(from.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&read));
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

#[test]
fn user_who_was_added_logs_in_until_disabled() {
    let made = Made::new();
    let added = made.answered(&["user", "add", "Alice"], &format!("{PASSWORD}\n"));
    assert_eq!((added.code, added.stderr.as_str()), (0, ""), "{}", added.stdout);
    assert!(added.stdout.starts_with("Added alice, who can log in"), "{}", added.stdout);
    assert!(matches!(made.login("alice", PASSWORD), Verdict::Accepted(_)));
    assert_eq!(made.login("alice", "wrong"), Verdict::Refused(Cause::WrongPassword));
    let listed = made.run(&["user", "list"]);
    assert!(listed.stdout.lines().nth(1).unwrap().contains("local   active  password"), "{}", listed.stdout);

    let again = made.answered(&["user", "add", "alice"], &format!("{PASSWORD}\n"));
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("`adit-server user reset` gives a new password"), "{}", again.stderr);

    let disabled = made.run(&["user", "disable", "alice"]);
    assert!(disabled.stdout.contains("user enable alice --config"), "{}", disabled.stdout);
    assert_eq!(made.login("alice", PASSWORD), Verdict::Refused(Cause::Disabled));
    assert!(made.run(&["user", "list"]).stdout.contains("disabled"));
    assert_eq!(made.json(&["user", "enable", "alice"])["changed"], true);
    assert!(matches!(made.login("alice", PASSWORD), Verdict::Accepted(_)));
    assert_eq!(made.run(&["user", "disable", "nobody"]).code, 1);
}

#[test]
fn user_who_is_linked_no_longer_logs_in_here() {
    let made = Made::new();
    made.answered(&["user", "add", "alice"], &format!("{PASSWORD}\n"));
    let link = |source: &str| made.run(&["user", "link", "alice", "--source", source, "--subject", "u-1"]);
    assert_eq!(link("pam").code, 2);
    assert!(matches!(made.login("alice", PASSWORD), Verdict::Accepted(_)));
    let linked = link("ldap");
    assert_eq!((linked.code, linked.stdout.as_str()), (0, "alice logs in by ldap from now on.\n"), "{}", linked.stderr);
    assert_eq!(made.login("alice", PASSWORD), Verdict::Unknown);
    assert_eq!(made.answered(&["user", "reset", "alice"], &format!("{PASSWORD}\n")).code, 2, "it has no password here");
}

#[test]
fn user_of_a_provider_is_linked_by_issuer_and_subject_and_by_nothing_else() {
    let made = Made::new();
    made.answered(&["user", "add", "alice"], &format!("{PASSWORD}\n"));
    let link = |rest: &[&str]| made.run(&[&["user", "link", "alice", "--source", "oidc"][..], rest].concat());
    assert_eq!(link(&[]).code, 2, "a subject is wanted");
    let unknown = link(&["--subject", "42"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("the configuration names none"), "{}", unknown.stderr);
    assert!(matches!(made.login("alice", PASSWORD), Verdict::Accepted(_)), "nothing changed by that");

    let issuer = "https://login.example.org/realms/staff";
    let linked = link(&["--subject", "42", "--issuer", issuer]);
    assert_eq!((linked.code, linked.stdout.as_str()), (0, "alice logs in by oidc from now on.\n"), "{}", linked.stderr);
    assert_eq!(made.login("alice", PASSWORD), Verdict::Unknown);
    let store = Store::open(&StateDir::new(made.state("")).store()).unwrap();
    let who = |subject: &str, name: &str| {
        let person = Person {
            source: "oidc".to_owned(),
            subject: subject.to_owned(),
            name: name.to_owned(),
            groups: Vec::new(),
            methods: vec![Method::Browser],
            session_lifetime: None,
            generation: None,
        };
        store.record_person(&person, SystemTime::now()).map(|known| known.user).map_err(|error| error.to_string())
    };
    assert_eq!(who(&format!("{issuer} 42"), "alice.smith").unwrap(), "alice", "whatever the name is now");
    let other = who("https://login.example.org/realms/guests 42", "alice").unwrap_err();
    let flags = "--source oidc --issuer 'https://login.example.org/realms/guests' --subject '42'`";
    assert!(other.contains(flags), "another provider's 42 is somebody else: {other}");
    assert!(who(&format!("{issuer} 43"), "alice").is_err(), "and so is another subject of the same name");
}

#[test]
fn passwords_that_are_no_good_add_nobody() {
    let made = Made::new();
    let long = "a".repeat(129);
    for (answers, reason) in [
        ("", "standard input ended"),
        ("\n", "at least 8"),
        ("short\n", "at least 8"),
        ("password\n", "first that are tried"),
        ("alice.smith\n", "first that are tried"),
        ("correct\0horse\n", "no NUL"),
        (&format!("{long}\n"), "at most 128"),
    ] {
        let run = made.answered(&["user", "add", "alice.smith"], answers);
        assert_eq!(run.code, 2, "{answers:.20?}: {}", run.stderr);
        assert!(run.stderr.contains(reason), "{answers:.20?}: {}", run.stderr);
    }
    assert_eq!(made.answered(&["user", "add", "a b"], &format!("{PASSWORD}\n")).code, 2);
    assert_eq!(made.run(&["user", "add", "alice", PASSWORD]).code, 2, "never as argument");
    assert_eq!(made.run(&["user", "add", "alice", "--expires", "1h"]).code, 2, "only of a one-time code");
    assert_eq!(made.json(&["user", "list"])["users"].as_array().unwrap().len(), 0);
}

#[test]
fn one_time_code_asks_for_a_password_and_is_over_in_time() {
    let made = Made::new();
    let added = made.json(&["user", "add", "alice", "--link", "--expires", "1s"]);
    let code = added["code"].as_str().unwrap();
    assert_eq!(made.run(&["user", "add", "alice", "--link"]).code, 2, "it is out already");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(matches!(made.login("alice", code), Verdict::Refused(Cause::NotPermitted(_))));
    let reset = made.run(&["user", "reset", "alice", "--link"]);
    let code = reset.stdout.lines().nth(2).unwrap().trim();
    let Verdict::Ask { question, .. } = made.login("alice", code) else { panic!("{}", reset.stdout) };
    assert_eq!(question.kind, Kind::NewPassword);
}

#[test]
fn app_counts_once_its_code_was_told_and_reset_takes_it() {
    let made = Made::new();
    made.answered(&["user", "add", "alice"], &format!("{PASSWORD}\n"));
    let wrong = made.answered(&["user", "totp", "alice"], "000000\n");
    assert_eq!(wrong.code, 3, "{}", wrong.stderr);
    assert_eq!(made.alice()["has_factor"], false);
    assert!(matches!(made.login("alice", PASSWORD), Verdict::Accepted(_)));

    let mut child = made.start(&["user", "totp", "alice", "--qr"], Stdio::piped());
    let mut stdout = child.stdout.take().unwrap();
    let shown = read_until(&mut stdout, "typed here.\n");
    assert!(shown.contains('█'), "{shown}");
    let secret = shown
        .lines()
        .map(str::trim)
        .find(|line| BASE32_NOPAD.decode(line.as_bytes()).is_ok_and(|bytes| bytes.len() == 20));
    let code = code_of(secret.unwrap());
    write_line(&mut child.stdin.take().unwrap(), &code);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(rest.matches('-').count(), 30, "ten codes of four groups: {rest}");
    assert_eq!((&made.alice()["has_factor"], &made.alice()["recovery_codes"]), (&Value::Bool(true), &Value::from(10)));
    let Verdict::Ask { question, .. } = made.login("alice", PASSWORD) else { panic!("no code is asked for") };
    assert_eq!(question.kind, Kind::Code);

    let reset = made.answered(&["user", "reset", "alice"], "another horse\n");
    assert_eq!(reset.code, 0, "{}", reset.stderr);
    assert_eq!((&made.alice()["has_factor"], &made.alice()["recovery_codes"]), (&Value::Bool(false), &Value::from(0)));
    assert!(matches!(made.login("alice", "another horse"), Verdict::Accepted(_)));
    assert_eq!(made.login("alice", PASSWORD), Verdict::Refused(Cause::WrongPassword));
}

fn write_line(to: &mut ChildStdin, text: &str) {
    to.write_all(format!("{text}\n").as_bytes()).unwrap();
}

#[test]
fn password_is_asked_for_twice_at_a_terminal_and_not_shown() {
    let made = Made::new();
    let typed_twice = |second: &str| {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut keyboard = std::fs::File::from(terminal.master);
        let mut child = made.start(&["user", "add", "alice"], terminal.slave.into());
        let mut stderr = child.stderr.take().unwrap();
        read_until(&mut stderr, "New password of alice: ");
        until_hidden(&keyboard);
        keyboard.write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
        read_until(&mut stderr, "The same again: ");
        until_hidden(&keyboard);
        keyboard.write_all(format!("{second}\n").as_bytes()).unwrap();
        let code = child.wait().unwrap().code().unwrap();
        // Echo, had there been any; the end of the terminal is an error.
        let mut shown = Vec::new();
        keyboard.read_to_end(&mut shown).ok();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert!(!shown.contains("horse"), "{shown:?}");
        code
    };
    assert_eq!(typed_twice("correct house"), 2, "the two differ");
    assert_eq!(made.json(&["user", "list"])["users"].as_array().unwrap().len(), 0);
    assert_eq!(typed_twice(PASSWORD), 0);
    assert!(matches!(made.login("alice", PASSWORD), Verdict::Accepted(_)));
}

/// Waits until the terminal shows nothing of what is typed: what was typed before is thrown away.
fn until_hidden(keyboard: &std::fs::File) {
    let begun = std::time::Instant::now();
    while tcgetattr(keyboard).unwrap().local_flags.contains(LocalFlags::ECHO) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "it stays visible");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
