//! The program's answers to bad input: the exit code, one message with the next step, and nothing left behind.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use adit_proto::invite::Invite;

/// A directory for profiles, sockets and journals of one test.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a profile file with a permission mode.
    fn profile(&self, name: &str, text: &str, mode: u32) {
        let clients = self.path().join("clients");
        fs::create_dir_all(&clients).unwrap();
        let path = clients.join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit-client"));
        command.arg("--dir").arg(self.path()).args(args);
        command.env_remove("ADIT_DIR").env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a verb that must fail, and returns its exit code and message.
    fn fail(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(output.stdout.is_empty(), "a failure printed a result");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn token_profile() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::new(vec!["authority".into()]).unwrap().self_signed(&key).unwrap();
    format!("host = \"127.0.0.1\"\nport = 9\ntoken = \"secret-token\"\nauthority = '''\n{}'''\n", authority.pem())
}

/// An invite to a port of this host on which nothing listens.
fn invite() -> String {
    Invite { host: "127.0.0.1".into(), port: 9, pin: [1; 32], code: [2; 16] }.to_string()
}

#[test]
fn unknown_verbs_and_flags_are_usage_errors() {
    let home = Home::new();
    assert_eq!(home.fail(&["fly"]).0, 2);
    assert_eq!(home.fail(&["up", "--fast"]).0, 2);
    assert_eq!(home.fail(&["up", "--timeout", "soon"]).0, 2);
}

#[test]
fn bad_invite_is_a_usage_error_that_says_what_is_wrong() {
    let home = Home::new();
    for (url, reason) in [("https://vpn.example.org", "adit://join/"), ("adit://join/vpn.example.org:443", "after #")] {
        let (code, message) = home.fail(&["join", url]);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(reason) && message.contains("next:"), "{message}");
    }
    assert!(!home.path().join("clients").exists(), "a refused invite left files");
}

#[test]
fn bad_invite_on_standard_input_is_refused_like_one_in_the_arguments() {
    let home = Home::new();
    let (code, message) = home.fail(&["join", "-"]);
    assert_eq!(code, 2);
    assert!(message.contains("invite"), "{message}");
}

#[test]
fn invite_is_not_used_when_the_profile_exists() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    let (code, message) = home.fail(&["join", &invite(), "--name", "home"]);
    assert_eq!(code, 2);
    assert!(message.contains("--replace"), "{message}");
}

#[test]
fn join_without_a_gateway_is_unreachable_and_leaves_no_profile() {
    let home = Home::new();
    let (code, message) = home.fail(&["join", &invite()]);
    assert_eq!(code, 5, "{message}");
    assert!(message.contains("127.0.0.1:9") && message.contains("next:"), "{message}");
    assert_eq!(fs::read_dir(home.path().join("clients")).unwrap().count(), 0);
}

#[test]
fn profile_that_is_not_there_is_named_with_the_next_step() {
    let home = Home::new();
    for verb in ["up", "status", "forget"] {
        let (code, message) = home.fail(&[verb, "nowhere"]);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("profile nowhere") && message.contains("adit-client"), "{message}");
    }
    let (code, message) = home.fail(&["up"]);
    assert_eq!(code, 2);
    assert!(message.contains("there is no profile"), "{message}");
}

#[test]
fn profile_names_cannot_leave_the_directory() {
    let home = Home::new();
    let (code, message) = home.fail(&["forget", "../../etc/passwd"]);
    assert_eq!(code, 2);
    assert!(message.contains("not a profile name"), "{message}");
}

#[test]
fn profile_that_others_can_read_is_refused() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o644);
    let (code, message) = home.fail(&["up", "home"]);
    assert_eq!(code, 2);
    assert!(message.contains("mode 644") && message.contains("chmod 600"), "{message}");
}

#[test]
fn symbolic_link_is_no_profile() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    let clients = home.path().join("clients");
    symlink(clients.join("home.toml"), clients.join("alias.toml")).unwrap();
    let (code, message) = home.fail(&["up", "alias"]);
    assert_eq!(code, 2);
    assert!(message.contains("not a regular file"), "{message}");
}

#[test]
fn unknown_key_in_a_profile_is_named_with_the_nearest_one() {
    let home = Home::new();
    home.profile("home", &format!("tokn = \"x\"\n{}", token_profile()), 0o600);
    let (code, message) = home.fail(&["up"]);
    assert_eq!(code, 2);
    assert!(message.contains("unknown key `tokn`") && message.contains("did you mean `token`?"), "{message}");
}

#[test]
fn broken_profile_names_the_line_but_not_the_secret_on_it() {
    let home = Home::new();
    home.profile("home", "host = \"h\"\ntoken = \"secret-token\" oops\n", 0o600);
    let (code, message) = home.fail(&["up"]);
    assert_eq!(code, 2);
    assert!(message.contains("line 2") && !message.contains("secret-token"), "{message}");
}

#[test]
fn status_without_a_client_is_honestly_disconnected() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    assert!(text(&home.run(&["status"])).starts_with("home: disconnected\n"));
    let status: serde_json::Value = serde_json::from_str(&text(&home.run(&["status", "--json"]))).unwrap();
    assert_eq!(status["state"], "disconnected");
    assert_eq!(status["gateway"], "127.0.0.1:9");
    assert_eq!(status["counters"]["rx_packets"], 0);
}

#[test]
fn status_tells_of_a_crash_that_left_changes() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    fs::create_dir_all(home.path().join("state")).unwrap();
    fs::write(home.path().join("state/client-home.journal"), "entry\n").unwrap();
    assert!(text(&home.run(&["status"])).contains("adit-client cleanup"));
}

#[test]
fn list_shows_unusable_profiles_too() {
    let home = Home::new();
    home.profile("good", &token_profile(), 0o600);
    home.profile("open", &token_profile(), 0o666);
    let listing = text(&home.run(&["list"]));
    assert!(listing.contains("good") && listing.contains("disconnected") && listing.contains("unusable"), "{listing}");
    let rows: serde_json::Value = serde_json::from_str(&text(&home.run(&["list", "--json"]))).unwrap();
    assert_eq!(rows[0]["name"], "good");
    assert!(rows[1]["error"].is_string());
}

#[test]
fn several_profiles_need_a_name() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    home.profile("work", &token_profile(), 0o600);
    let (code, message) = home.fail(&["up"]);
    assert_eq!(code, 2);
    assert!(message.contains("home, work"), "{message}");
}

#[test]
fn down_and_cleanup_have_nothing_to_do_on_a_clean_host() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    assert_eq!(text(&home.run(&["down"])), "home: not running\n");
    assert_eq!(text(&home.run(&["cleanup"])), "nothing to clean up\n");
}

#[test]
fn forget_deletes_the_profile() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    assert!(text(&home.run(&["forget", "home"])).contains("forgotten"));
    assert!(!home.path().join("clients/home.toml").exists());
}

#[test]
fn detached_client_that_fails_passes_its_exit_code_and_message_on() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    let (code, message) = home.fail(&["up", "--detach", "--timeout", "300ms", "--tun", "not a device"]);
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("not a device name") && message.contains("next:"), "{message}");
    assert!(!home.path().join("run/client-home.sock").exists());
}
