//! The built `adit-server`, as its user meets it.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "cli/sources.rs"]
mod sources;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

#[path = "cli/users.rs"]
mod users;

/// A user without rights, where the tests run as root.
const NOBODY: u32 = 65_534;

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit-server"));
    command.env_clear().env("LANG", "C.UTF-8").args(arguments);
    command
}

fn adit(arguments: &[&str]) -> Run {
    command(arguments).output().unwrap().into()
}

/// A gateway made by `init` in a scratch directory.
struct Made {
    directory: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = adit(&["init", "--public", "vpn.example.org", "--dir", directory.path().to_str().unwrap()]);
        assert_eq!((made.code, made.stderr.as_str()), (0, ""), "{}", made.stdout);
        Self { directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("server.toml")
    }

    fn state(&self, name: &str) -> PathBuf {
        self.directory.path().join("state").join(name)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let file = self.file();
        adit(&[arguments, &["--config", file.to_str().unwrap()]].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let run = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(run.stdout.lines().count(), 1, "one object: {}", run.stdout);
        serde_json::from_str(&run.stdout).unwrap()
    }

    fn append(&self, text: &str) {
        let old = std::fs::read_to_string(self.file()).unwrap();
        std::fs::write(self.file(), format!("{old}\n{text}")).unwrap();
    }

    fn replace(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The indented lines of a failure that each hold one problem.
fn problems(run: &Run) -> Vec<&str> {
    let indented = run.stderr.lines().filter_map(|line| line.strip_prefix("  "));
    indented.filter(|line| !line.starts_with("next: ")).collect()
}

#[test]
fn init_makes_a_gateway_that_passes_its_check_and_names_the_next_commands() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let made = adit(&["init", "--public", "vpn.example.org:8443", "--dir", place]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert!(made.stdout.contains(&format!("adit-server run --config {place}/server.toml")), "{}", made.stdout);
    assert!(made.stdout.contains("adit-server invite NAME"));
    let state = directory.path().join("state");
    assert_eq!(mode(&state), 0o700);
    for secret in ["authority.key", "endpoint.key", "service.key", "store.db"] {
        assert_eq!(mode(&state.join(secret)), 0o600, "{secret}");
    }
    let text = std::fs::read_to_string(directory.path().join("server.toml")).unwrap();
    assert!(text.contains("# Largest packet inside the tunnel"), "the file is commented");
    let checked = adit(&["check", "--config", &format!("{place}/server.toml")]);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert!(checked.stdout.contains("is good"));
}

#[test]
fn second_init_refuses_to_overwrite() {
    let made = Made::new();
    let key = std::fs::read(made.state("authority.key")).unwrap();
    let again = adit(&["init", "--public", "other.example", "--dir", made.directory.path().to_str().unwrap()]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    assert_eq!(std::fs::read(made.state("authority.key")).unwrap(), key);
    assert_eq!(made.run(&["check"]).code, 0);
}

#[test]
fn init_refuses_a_bad_public_address_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("gateway");
    let run = adit(&["init", "--public", "not a host", "--dir", place.to_str().unwrap()]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("neither a DNS name nor an IP address"), "{}", run.stderr);
    assert!(!place.exists());
}

#[test]
fn every_problem_of_a_configuration_is_one_line_of_one_answer() {
    let made = Made::new();
    let state = made.directory.path().join("state");
    made.replace(&format!(
        "public = [\"vpn.example.org\"]\nlisten = [\"[::]:443\", \"nonsense\"]\nmasquerde = true\nstate_dir = {state:?}\n\
         [tun]\nmtu = 1200\n[pool]\nv4 = \"10.77.0.1/24\"\n"
    ));
    let run = made.run(&["check"]);
    assert_eq!(run.code, 2);
    let found = problems(&run);
    assert_eq!(found.len(), 4, "{}", run.stderr);
    assert!(found.contains(&"masquerde: unknown key; did you mean `masquerade`?"), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("tun.mtu: ") && line.contains("1280")), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("listen: ") && line.contains("nonsense")), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("pool.v4: ") && line.contains("10.77.0.0/24")), "{found:?}");
}

#[test]
fn pool_that_overlaps_the_outer_address_is_named() {
    let made = Made::new();
    let run = made.run(&["check", "--set", "public=10.99.0.5", "--set", "pool.v4=10.99.0.0/24"]);
    assert_eq!(run.code, 2);
    assert_eq!(problems(&run).len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("10.99.0.0/24 overlaps the public address 10.99.0.5"), "{}", run.stderr);
}

#[test]
fn pool_that_holds_an_address_of_the_host_is_named() {
    let made = Made::new();
    let own = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let Ok(std::net::SocketAddr::V4(own)) = own else { return };
    let [a, b, c, _] = own.ip().octets();
    if a == 127 {
        return;
    }
    let run = made.run(&["check", "--set", &format!("pool.v4={a}.{b}.{c}.0/24")]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("overlaps the address"), "{}", run.stderr);
}

#[test]
fn check_gives_its_problems_to_machines_too() {
    let made = Made::new();
    made.append("[nonsense]\nkey = 1\n");
    let run = made.run(&["check", "--json"]);
    assert_eq!(run.code, 2);
    let only: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(only["error"]["exit"], 2);
    assert_eq!(only["error"]["problems"][0]["what"], "nonsense");
    let listed: Value = serde_json::from_str(&made.run(&["users", "--json"]).stdout).unwrap();
    assert_eq!(listed["error"]["problems"], only["error"]["problems"], "every verb says so");
}

#[test]
fn check_parses_what_run_would_load() {
    let made = Made::new();
    std::fs::remove_file(made.state("authority.pem")).unwrap();
    for (name, content) in
        [("endpoint.key", &b"garbage"[..]), ("service.key", &b"garbage"[..]), ("store.db", &[0x5a; 4096])]
    {
        std::fs::write(made.state(name), content).unwrap();
    }
    let run = made.run(&["check"]);
    assert_eq!(run.code, 2);
    let found = problems(&run);
    assert_eq!(found.len(), 4, "{}", run.stderr);
    for name in ["authority.pem", "endpoint.key", "service.key", "store.db"] {
        assert!(found.iter().any(|line| line.contains(name)), "{name}: {found:?}");
    }
}

#[test]
fn cleanup_works_with_a_broken_configuration() {
    let made = Made::new();
    let text = std::fs::read_to_string(made.file()).unwrap();
    made.replace(&format!("[[[ a bad edit\n{text}"));
    assert_eq!(made.run(&["check"]).code, 2);
    let journal = made.state("host.journal");
    // Of an earlier boot, so that nothing on this host is touched.
    let change = r#"{"sysctl":{"key":"net.ipv4.ip_forward","previous":"0","set":"1"}}"#;
    let line = format!("{{\"boot\":\"earlier\"}}\n{{\"change\":{{\"id\":0,\"change\":{change}}}}}\n");
    std::fs::write(&journal, line).unwrap();
    set_mode(&journal, 0o600);
    let cleaned = made.json(&["cleanup"]);
    assert_eq!(cleaned["journal"], journal.to_str().unwrap());
    assert!(!journal.exists());
    std::fs::remove_file(made.file()).unwrap();
    let default = made.run(&["cleanup", "--set", &format!("state_dir={}", made.state("").display())]);
    assert_eq!(default.code, 0, "{}", default.stderr);
}

#[test]
fn missing_configuration_says_how_to_make_one() {
    let run = adit(&["users", "--config", "/nonexistent/server.toml"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("adit-server init"), "{}", run.stderr);
}

#[test]
fn environment_names_the_file_and_overrides_keys() {
    let made = Made::new();
    let run: Run = command(&["check"]).env("ADIT_CONFIG", made.file()).output().unwrap().into();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run: Run =
        command(&["check"]).env("ADIT_CONFIG", made.file()).env("ADIT_TUN_MTU", "100").output().unwrap().into();
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("ADIT_TUN_MTU"), "{}", run.stderr);
}

#[test]
fn key_file_open_to_others_is_refused_with_the_command_that_closes_it() {
    let made = Made::new();
    set_mode(&made.state("authority.key"), 0o644);
    let run = made.run(&["check"]);
    assert_eq!(run.code, 2);
    assert_eq!(problems(&run).len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("authority.key") && run.stderr.contains("chmod 600"), "{}", run.stderr);
    assert_eq!(made.run(&["invite", "alice"]).code, 2, "nothing is done with an exposed key");
}

#[test]
fn state_directory_that_others_can_write_is_one_problem_and_stops_every_verb() {
    let made = Made::new();
    set_mode(&made.state(""), 0o770);
    let run = made.run(&["check"]);
    assert_eq!(run.code, 2);
    assert_eq!(problems(&run).len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("mode 0770") && run.stderr.contains("chmod go-w"), "{}", run.stderr);
    std::fs::write(made.state("host.journal"), "").unwrap();
    for verb in [&["invite", "alice"][..], &["cleanup"]] {
        assert_eq!(made.run(verb).code, 2, "{verb:?}");
    }
    set_mode(&made.state(""), 0o700);
    set_mode(&made.state("host.journal"), 0o600);
    assert_eq!(made.run(&["check"]).code, 0);
}

#[test]
fn missing_and_linked_key_files_are_both_reported() {
    let made = Made::new();
    std::fs::remove_file(made.state("endpoint.key")).unwrap();
    std::fs::rename(made.state("authority.key"), made.state("elsewhere.key")).unwrap();
    std::os::unix::fs::symlink("elsewhere.key", made.state("authority.key")).unwrap();
    let run = made.run(&["check"]);
    assert_eq!(run.code, 2);
    assert_eq!(problems(&run).len(), 2, "{}", run.stderr);
    assert!(run.stderr.contains("endpoint.key: does not exist"), "{}", run.stderr);
    assert!(run.stderr.contains("authority.key: is a symbolic link"), "{}", run.stderr);
}

#[test]
fn unreadable_key_file_is_one_clear_message() {
    let made = Made::new();
    let file = made.file();
    let mut checked = command(&["check", "--config", file.to_str().unwrap()]);
    if nix::unistd::geteuid().is_root() {
        // Root reads everything, so another user looks: the directories are open, the key is root's alone.
        set_mode(made.directory.path(), 0o755);
        for name in ["", "endpoint.key", "service.key", "store.db"] {
            std::os::unix::fs::chown(made.state(name), Some(NOBODY), None).unwrap();
        }
        checked.uid(NOBODY);
    } else {
        set_mode(&made.state("authority.key"), 0o000);
    }
    let Ok(output) = checked.output() else { return };
    let run = Run::from(output);
    assert_eq!(run.code, 2);
    assert_eq!(problems(&run).len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("authority.key: cannot be read: permission denied"), "{}", run.stderr);
}

#[test]
fn stopped_gateway_invites_lists_and_revokes() {
    let made = Made::new();
    let invite = made.json(&["invite", "Alice", "--expires", "15m"]);
    assert_eq!(invite["user"], "alice");
    assert!(invite["link"].as_str().unwrap().starts_with("adit://join/vpn.example.org:443#"));
    let token = made.json(&["token", "alice"]);
    let device = token["device"].as_str().unwrap();

    let users = made.json(&["users"]);
    assert_eq!(users["users"][0]["name"], "alice");
    assert_eq!((users["users"][0]["devices"].as_u64(), users["users"][0]["invites"].as_u64()), (Some(1), Some(1)));
    assert_eq!(made.json(&["devices"])["devices"][0]["id"], device);

    let revoked = made.json(&["revoke", "alice"]);
    assert_eq!((revoked["devices"][0].as_str(), revoked["invites"].as_u64()), (Some(device), Some(1)));
    assert!(made.json(&["devices"])["devices"][0]["revoked_at"].is_number());
    let nobody = made.run(&["revoke", "nobody"]);
    assert_eq!(nobody.code, 1);
    assert!(nobody.stderr.contains("no such user or device: nobody"), "{}", nobody.stderr);
}

#[test]
fn invite_for_people_shows_link_end_and_next_command() {
    let made = Made::new();
    let plain = made.run(&["invite", "alice"]);
    assert_eq!(plain.code, 0, "{}", plain.stderr);
    assert!(plain.stdout.contains("good for one device until 20"), "{}", plain.stdout);
    assert!(plain.stdout.contains("adit-client join --up 'adit://join/vpn.example.org:443#"));
    assert!(!plain.stdout.contains('█'), "no picture where no terminal is");
    assert!(made.run(&["invite", "alice", "--qr"]).stdout.contains('█'));
    let users = made.run(&["users"]);
    assert!(
        users.stdout.starts_with(
            "NAME   SOURCE  STATE   LOGS IN BY  DEVICES  OPEN INVITES  SINCE\n\
             alice  local   active  -           0        2             20"
        ),
        "{}",
        users.stdout
    );
}

#[test]
fn bad_user_names_and_lifetimes_are_usage_errors() {
    let made = Made::new();
    for arguments in [
        &["invite", "a b"][..],
        &["invite", "dev-x"],
        &["invite", "alice", "--expires", "soon"],
        &["invite", "alice", "--expires", "31d"],
        &["invite", "alice", "--expires", "0s"],
        &["invite"],
        &["frobnicate"],
    ] {
        let run = made.run(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn verbs_of_a_running_gateway_say_that_none_runs() {
    let made = Made::new();
    for verb in [&["sessions"][..], &["status"], &["check", "--live"]] {
        let run = made.run(verb);
        assert_eq!(run.code, 5, "{verb:?}: {}", run.stderr);
        assert!(run.stderr.contains("the gateway is not running"), "{}", run.stderr);
    }
    let failed = made.run(&["status", "--json"]);
    let error: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(error["error"]["exit"], 5);
}

/// The user of the service in a test's own /etc/passwd.
const SERVICE: u32 = 64_998;

impl Made {
    /// Gives everything in the state directory to the service's user.
    fn give_to_service(&self) {
        let state = self.state("");
        for entry in std::fs::read_dir(&state).unwrap() {
            std::os::unix::fs::chown(entry.unwrap().path(), Some(SERVICE), Some(SERVICE)).unwrap();
        }
        for directory in [state, self.directory.path().join("run")] {
            std::os::unix::fs::chown(directory, Some(SERVICE), Some(SERVICE)).unwrap();
        }
        // The service's user has to get there.
        set_mode(self.directory.path(), 0o755);
        set_mode(&self.file(), 0o644);
    }

    /// Runs a verb as root of a host that has the service's user.
    fn run_beside_service(&self, arguments: &[&str]) -> Run {
        let passwd = self.directory.path().join("passwd");
        std::fs::write(&passwd, format!("root:x:0:0::/root:/bin/sh\nadit:x:{SERVICE}:{SERVICE}::/:/bin/false\n"))
            .unwrap();
        let script = "mount --bind \"$1\" /etc/passwd && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "-"]).arg(passwd).arg(env!("CARGO_BIN_EXE_adit-server"));
        command.args(arguments).args(["--config", self.file().to_str().unwrap()]).output().unwrap().into()
    }
}

#[test]
fn root_works_on_the_state_of_the_service_as_its_user() {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        return adit_testing::skip("needs root to give files away");
    }
    let made = Made::new();
    made.give_to_service();
    let invited = made.run_beside_service(&["invite", "alice"]);
    assert_eq!(invited.code, 0, "{}", invited.stderr);
    std::fs::write(made.state("../root"), "").unwrap();
    assert_eq!(std::fs::metadata(made.state("../root")).unwrap().uid(), 0, "the positive control: this is root");
    for entry in std::fs::read_dir(made.state("")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().uid(), SERVICE, "{:?}", entry.path());
    }
    let run = made.run_beside_service(&["run"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(
        run.stderr.contains("belongs to the user adit") && run.stderr.contains("systemctl start"),
        "{}",
        run.stderr
    );
}

#[test]
fn cleanup_by_root_does_nothing_to_files_that_the_service_s_journal_names() {
    if !nix::unistd::geteuid().is_root() {
        return adit_testing::skip("needs root to give files away");
    }
    let made = Made::new();
    let target = made.directory.path().join("target");
    let was = serde_json::json!({ "regular": { "content": b"x".to_vec(), "mode": 0o4755, "uid": 0, "gid": 0 } });
    let change = serde_json::json!({ "resolver_file": { "path": target, "was": was } });
    let line = serde_json::json!({ "change": { "id": 0, "change": change } });
    std::fs::write(made.state("host.journal"), format!("{line}\n")).unwrap();
    set_mode(&made.state("host.journal"), 0o600);
    for beside_service in [false, true] {
        if beside_service {
            made.give_to_service();
        }
        let run = if beside_service { made.run_beside_service(&["cleanup"]) } else { made.run(&["cleanup"]) };
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains("resolver"), "{}", run.stderr);
        assert!(!target.exists());
    }
}

/// A gateway with a policy file beside its configuration.
fn with_policy(text: &str) -> (Made, PathBuf) {
    let made = Made::new();
    let path = made.directory.path().join("policy.toml");
    std::fs::write(&path, text).unwrap();
    set_mode(&path, 0o644);
    let configuration = std::fs::read_to_string(made.file()).unwrap();
    made.replace(&format!("policy = {path:?}\n{configuration}"));
    (made, path)
}

const POLICY: &str = "[groups.staff]\nmembers = [\"alice\"]\nroutes = [\"10.1.0.0/16\"]\n\
    [[rules]]\ngroups = [\"staff\"]\naction = \"allow\"\nto = [\"10.1.0.0/16\"]\nports = [\"tcp/443\"]\n\
    [[tests]]\nuser = \"alice\"\nallow = [\"tcp 10.1.2.3:443\"]\n";

#[test]
fn policy_check_runs_the_tests_and_names_those_that_fail() {
    let (made, path) = with_policy(POLICY);
    let checked = made.json(&["policy", "check"]);
    assert_eq!((checked["rules"].as_u64(), checked["compared"].as_bool()), (Some(1), Some(true)), "{checked}");
    assert_eq!(made.run(&["check"]).code, 0);
    let failing = made.directory.path().join("new.toml");
    std::fs::write(&failing, format!("{POLICY}deny = [\"tcp 10.1.2.3:443\"]\n")).unwrap();
    set_mode(&failing, 0o644);
    let refused = made.run(&["policy", "check", failing.to_str().unwrap()]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let expected = format!(
        "{}:9: test of alice: tcp 10.1.2.3:443: is allowed by the rule in line 4, and should be denied; mend the rules or the test",
        failing.display()
    );
    assert_eq!(problems(&refused), [expected]);
    std::fs::copy(&failing, &path).unwrap();
    assert_eq!(made.run(&["check"]).code, 2, "as `run` would only warn");
}

#[test]
fn policy_is_checked_without_a_gateway_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    std::fs::write(&path, POLICY).unwrap();
    set_mode(&path, 0o644);
    let nowhere = directory.path().join("server.toml");
    let flags = ["--config", nowhere.to_str().unwrap()];
    let checked = adit(&[&["policy", "check", path.to_str().unwrap()], &flags[..]].concat());
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert!(checked.stdout.contains("not compared with a gateway"), "{}", checked.stdout);
    assert_eq!(adit(&[&["policy", "check"], &flags[..]].concat()).code, 2);
    assert_eq!(Made::new().run(&["policy", "check"]).code, 2, "the configuration names none");
}

#[test]
fn explain_answers_for_a_stopped_gateway() {
    let (made, path) = with_policy(POLICY);
    let told = made.json(&["explain", "Alice", "tcp", "10.1.2.3:443"]);
    let verdict = &told["verdicts"][0];
    assert_eq!((verdict["action"].as_str(), verdict["rule"].as_u64()), (Some("allow"), Some(4)), "{told}");
    assert_eq!(told["groups"][0]["reason"], "it names the user");
    let text = made.run(&["explain", "alice", "tcp", "10.1.2.3:22"]).stdout;
    assert!(text.contains("tcp 10.1.2.3:22 is denied: no rule matches; route 10.1.0.0/16"), "{text}");
    assert!(text.contains(&format!("routes = [\"10.1.0.0/16\"] ({}:3, group staff)", path.display())), "{text}");
    let nobody = made.run(&["explain", "bob", "icmp", "10.1.2.3"]).stdout;
    assert!(
        nobody.contains("does not know yet") && nobody.contains("none") && nobody.contains("is denied"),
        "{nobody}"
    );
    for bad in [["a b", "tcp", "10.1.2.3:1"], ["alice", "sctp", "10.1.2.3:1"], ["alice", "tcp", "10.1.2.3"]] {
        let [user, protocol, destination] = bad;
        assert_eq!(made.run(&["explain", user, protocol, destination]).code, 2, "{bad:?}");
    }
}
