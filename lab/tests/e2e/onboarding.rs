//! From nothing to a working tunnel: few commands, no edited file, no weakened check.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use adit_lab::{Binaries, GATEWAY_V4, Host, Process};
use adit_testing::{PATIENCE, eventually};

use crate::harness::{INTERNET, reach, standard_lab};

/// Most commands from nothing to a tunnel, those of the administrator and of the user together.
const MOST: usize = 4;

/// Words a program would have for skipping a check.
const WEAKENING: [&str; 6] = ["insecure", "no-verify", "no-check", "skip-verify", "trust-any", "allow-any"];

/// Somebody at a host, who types what the programs said and whose commands are counted.
struct Person {
    host: Host,
    path: String,
    commands: Vec<String>,
}

impl Person {
    fn at(host: Host, binaries: &Binaries) -> Self {
        let folder = binaries.server.parent().unwrap().display();
        let path = format!("{folder}:{}", env::var("PATH").unwrap_or_default());
        Self { host, path, commands: Vec::new() }
    }

    /// Types a command into a shell.
    fn types(&mut self, command: &str) -> Process {
        self.commands.push(command.to_owned());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {command}")]).env("PATH", &self.path);
        // Where a person's own files would be; the system's places are the whole machine's.
        shell.env("ADIT_DIR", self.host.folder().join("adit"));
        self.host.spawn(shell).unwrap()
    }

    /// Types a command and waits for its end and what it said.
    fn runs(&mut self, command: &str) -> String {
        self.types(command).output(PATIENCE).unwrap().success().unwrap()
    }
}

/// The command of `program` that an output tells to type next.
fn next(said: &str, program: &str) -> String {
    let line = said.lines().map(str::trim).find(|line| line.starts_with(program));
    line.unwrap_or_else(|| panic!("no command `{program}` is in: {said}")).to_owned()
}

#[test]
fn tunnel_takes_at_most_four_commands_and_no_edited_file() {
    let Some(mut lab) = standard_lab() else { return };
    let binaries = adit_lab::binaries().unwrap();
    let mut administrator = Person::at(lab.host("gateway").unwrap(), &binaries);
    let mut user = Person::at(lab.host("client").unwrap(), &binaries);

    let folder = administrator.host.folder().join("adit");
    let said = administrator.runs(&format!("adit-server init --public {GATEWAY_V4} --dir {}", folder.display()));
    let file = folder.join("server.toml");
    let written = fs::read(&file).unwrap();
    let _gateway = administrator.types(&next(&said, "adit-server run"));
    let said = administrator.runs(&next(&said, "adit-server invite").replace("NAME", "alice"));
    // A person reads the answer for longer than a gateway needs to start.
    eventually("the gateway listens", || listens(&administrator.host).then_some(()));
    let _client = user.types(&next(&said, "adit-client join"));
    for target in INTERNET {
        reach(&user.host, target);
    }

    let commands = [administrator.commands, user.commands].concat();
    assert!(commands.len() <= MOST, "{commands:#?}");
    assert!(commands.iter().all(|command| !WEAKENING.iter().any(|word| command.contains(word))), "{commands:#?}");
    assert_eq!(fs::read(&file).unwrap(), written, "nobody edited the configuration");
}

/// Whether somebody holds UDP port 443.
fn listens(host: &Host) -> bool {
    host.run(|| std::net::UdpSocket::bind("[::]:443").is_err())
}

#[test]
fn no_program_offers_to_skip_a_check() {
    let Some(mut lab) = standard_lab() else { return };
    let binaries = adit_lab::binaries().unwrap();
    let host = lab.host("client").unwrap();
    let help = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg("--help");
        host.output(command, PATIENCE).unwrap().success().unwrap()
    };
    for (program, known) in [(&binaries.server, ["token", "cleanup"]), (&binaries.client, ["join", "cleanup"])] {
        let overview = help(program, &[]);
        let verbs = verbs(&overview);
        assert!(known.iter().all(|verb| verbs.contains(verb)), "{verbs:?}");
        let texts = verbs.iter().map(|verb| help(program, &[verb])).chain([overview.clone()]);
        for text in texts {
            for word in WEAKENING {
                assert!(!text.contains(word), "{word} in {text}");
            }
        }
    }
}

/// The verbs that a program's help lists.
fn verbs(help: &str) -> Vec<&str> {
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help").collect()
}
