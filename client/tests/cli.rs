//! The program's answers to bad input: the exit code, one message with the next step, and nothing left behind.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
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
        self.file(&format!("clients/{name}.toml"), text, mode);
    }

    /// Writes a journal as a client does.
    fn journal(&self, name: &str, text: &str) {
        self.file(&format!("state/client-{name}.journal"), text, 0o600);
    }

    fn file(&self, path: &str, text: &str, mode: u32) {
        let path = self.path().join(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap()).unwrap();
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
    Invite { host: "127.0.0.1".into(), port: 9, others: Vec::new(), pin: [1; 32], code: [2; 16] }.to_string()
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
    assert!(message.contains("mode 0644") && message.contains("chmod 600"), "{message}");
}

#[test]
fn files_that_others_could_swap_are_refused_with_the_command_that_closes_them() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    home.journal("home", "nonsense\n");
    for (folder, arguments) in [("clients", &["up", "home"][..]), ("state", &["cleanup"])] {
        let folder = home.path().join(folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let (code, message) = home.fail(arguments);
        assert_eq!(code, 2, "{message}");
        let command = format!("chmod go-w {}", folder.display());
        assert!(message.contains("mode 0777") && message.contains(&command), "{message}");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn symbolic_link_is_no_profile() {
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    let clients = home.path().join("clients");
    symlink(clients.join("home.toml"), clients.join("alias.toml")).unwrap();
    let (code, message) = home.fail(&["up", "alias"]);
    assert_eq!(code, 2);
    assert!(message.contains("is a symbolic link"), "{message}");
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
    home.journal("home", "entry\n");
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

/// Waits until a condition holds, for at most ten seconds.
fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "not within ten seconds");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn interrupt_before_the_connection_ends_the_detached_process_too() {
    if !nix::unistd::Uid::effective().is_root() || !Path::new("/dev/net/tun").exists() {
        assert!(std::env::var_os("CI").is_none(), "needs root and /dev/net/tun");
        return eprintln!("*** SKIPPED: needs root and /dev/net/tun ***");
    }
    let home = Home::new();
    home.profile("home", &token_profile(), 0o600);
    // Whoever runs this test in the background may have it ignore the signal.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", "unshare", "--net", env!("CARGO_BIN_EXE_adit-client"), "--dir"]);
    command
        .arg(home.path())
        .args(["up", "--detach", "home", "--timeout", "0s"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut waiting = command.spawn().unwrap();
    let reason = || {
        // A client that is just ending may hang up.
        let answer = serde_json::from_slice(&home.run(&["status", "--json"]).stdout);
        let Ok::<serde_json::Value, _>(status) = answer else { return String::new() };
        status["state"].as_str().unwrap().to_owned() + status["reason"].as_str().unwrap_or("")
    };
    wait_for(|| reason().starts_with("connecting"));
    let log = home.path().join("run/client-home.log");
    fs::write(&log, "earlier\n").unwrap();
    let (code, message) = home.fail(&["up", "--detach", "home"]);
    assert_eq!(code, 2, "{message}");
    assert!(fs::read_to_string(&log).unwrap().starts_with("earlier"), "a second start truncated the running one's log");

    let pid = nix::unistd::Pid::from_raw(waiting.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(!waiting.wait().unwrap().success());
    wait_for(|| reason() == "disconnected");
    assert_eq!(text(&home.run(&["cleanup"])), "nothing to clean up\n");
}

#[test]
fn unreadable_journal_does_not_keep_the_others_from_being_cleaned_up() {
    let home = Home::new();
    for (name, text) in [("a", "nonsense\n"), ("b", "nonsense\n"), ("c", "")] {
        home.journal(name, text);
    }
    let output = home.run(&["cleanup"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("c: 0 changes"), "the third was not looked at");
    assert!(errors.contains("client-a.journal") && errors.contains("client-b.journal"), "{errors}");
    assert!(errors.contains("remove the file") && !errors.contains("next: run `adit-client cleanup`"), "{errors}");
}
