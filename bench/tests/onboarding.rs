//! From nothing to a working tunnel: few commands, no edited file, no weakened check.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends a test")]

mod harness;

use std::fs;
use std::path::Path;
use std::process::Command;

use adit_bench::lab::{self, GATEWAY_V4, Host};
use harness::{INTERNET, PATIENCE, eventually, reach, standard_lab};

/// Most commands a person may need.
const MOST: usize = 4;

/// Somebody at a host, whose commands are counted.
struct Person {
    host: Host,
    commands: Vec<String>,
}

impl Person {
    fn at(host: Host) -> Self {
        Self { host, commands: Vec::new() }
    }

    /// Notes a command and prepares it.
    fn types(&mut self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        self.commands.push(format!("{command:?}"));
        command
    }

    fn runs(&mut self, program: &Path, arguments: &[&str]) -> String {
        let command = self.types(program, arguments);
        self.host.output(command, PATIENCE).unwrap().success().unwrap()
    }
}

#[test]
fn tunnel_takes_at_most_four_commands_of_each_person_and_no_edited_file() {
    let Some(mut lab) = standard_lab() else { return };
    let binaries = lab::binaries().unwrap();
    let mut administrator = Person::at(lab.host("gateway").unwrap());
    let mut user = Person::at(lab.host("client").unwrap());
    let folder = administrator.host.folder().join("adit");
    let (dir, public) = (folder.display().to_string(), GATEWAY_V4.to_string());

    administrator.runs(&binaries.server, &["init", "--public", &public, "--dir", &dir]);
    let file = folder.join("server.toml");
    let written = fs::read(&file).unwrap();
    let config = file.display().to_string();
    let run = administrator.types(&binaries.server, &["--config", &config, "run"]);
    let _gateway = administrator.host.spawn(run).unwrap();
    let said = administrator.runs(&binaries.server, &["--config", &config, "invite", "alice"]);
    let link = said.split_whitespace().find(|word| word.starts_with("adit://")).unwrap().to_owned();

    let dir = user.host.folder().join("adit").display().to_string();
    // The gateway may still be starting: an invite can be made before it runs.
    eventually("the gateway listens", || listens(&administrator.host).then_some(()));
    user.runs(&binaries.client, &["--dir", &dir, "join", &link]);
    let up = user.types(&binaries.client, &["--dir", &dir, "up"]);
    let _client = user.host.spawn(up).unwrap();
    for target in INTERNET {
        reach(&user.host, target);
    }

    for person in [&administrator, &user] {
        assert!(person.commands.len() <= MOST, "{:#?}", person.commands);
        assert!(!person.commands.iter().any(|command| command.contains("insecure")));
    }
    assert_eq!(fs::read(&file).unwrap(), written, "nobody edited the configuration");
}

/// Whether somebody holds UDP port 443.
fn listens(host: &Host) -> bool {
    host.run(|| std::net::UdpSocket::bind("[::]:443").is_err())
}

#[test]
fn no_program_offers_to_skip_a_check() {
    let Some(mut lab) = standard_lab() else { return };
    let binaries = lab::binaries().unwrap();
    let host = lab.host("client").unwrap();
    let help = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg("--help");
        host.output(command, PATIENCE).unwrap().success().unwrap()
    };
    let server = ["init", "run", "check", "invite", "users", "devices", "revoke", "sessions", "status"];
    let client = ["join", "up", "down", "status", "list", "forget", "cleanup"];
    let server = server.iter().map(|verb| help(&binaries.server, &[verb]));
    let client = client.iter().map(|verb| help(&binaries.client, &[verb]));
    for text in server.chain(client) {
        for word in ["insecure", "no-verify", "skip-verify", "trust-any"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}
