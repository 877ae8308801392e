//! Passwords that nobody types: kept by a flag, or printed by a command.

use std::fs;

use adit_lab::Output;
use adit_program::durable_file;
use adit_testing::{PATIENCE, eventually};

use super::{USAGE, add, assert_private, up};
use crate::harness::{INTERNET, Tunnel, reach};
use crate::logins::{PASSWORD, gateway, run};
use crate::people::{REFUSED, pin};

/// Has the client connect with nobody to ask.
fn up_alone(tunnel: &Tunnel) -> Output {
    run(tunnel.client(), &["up", "work", "--timeout", "30s"], "")
}

/// How many logins the gateway has refused.
fn refusals(tunnel: &Tunnel) -> usize {
    tunnel.gateway.process().unwrap().stderr().matches("login refused").count()
}

fn down(tunnel: &Tunnel) {
    run(tunnel.client(), &["down", "work"], "").success().unwrap();
}

#[test]
fn password_is_kept_by_a_flag_alone_and_a_wrong_one_is_tried_once() {
    let Some(mut tunnel) = gateway() else { return };
    let fingerprint = pin(&tunnel.gateway);
    add(tunnel.client(), &["--pin", &fingerprint]).success().unwrap();
    let kept = tunnel.client().folder().join("clients/.work.password");
    let typed = format!("{PASSWORD}\n");
    up(&mut tunnel.clients[0], &typed);
    down(&tunnel);
    assert!(!kept.exists(), "nobody asked for it to be kept");
    let wrong = run(tunnel.client(), &["login", "work", "--save-password", "--user", "alice"], "wrong horse battery\n");
    assert!(wrong.code == REFUSED && !kept.exists(), "{wrong:?}");
    let saved = run(tunnel.client(), &["login", "work", "--save-password", "--user", "alice"], &typed);
    saved.success().unwrap();
    assert_private(tunnel.client(), ".work.password");
    // The login of before lasts once.
    for _ in 0..2 {
        up(&mut tunnel.clients[0], "");
        reach(tunnel.client().host(), INTERNET[0]);
        down(&tunnel);
    }

    let host = tunnel.gateway.host();
    let reset = host.with_input(&tunnel.gateway.command(&["user", "reset", "alice"]), "another horse battery\n");
    host.output(reset.unwrap(), PATIENCE).unwrap().success().unwrap();
    let before = refusals(&tunnel);
    let refused = up_alone(&tunnel);
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    assert!(refused.stderr.contains("it is forgotten") && !kept.exists(), "{refused:?}");
    assert_eq!(up_alone(&tunnel).code, USAGE, "nobody is there to be asked");
    assert_eq!(refusals(&tunnel), before + 1, "a wrong password is not tried again");
    assert!(!refused.stderr.contains(PASSWORD) && !refused.stdout.contains(PASSWORD));
}

#[test]
fn command_prints_the_password_and_what_it_prints_is_told_to_the_gateway_alone() {
    let Some(mut tunnel) = gateway() else { return };
    let fingerprint = pin(&tunnel.gateway);
    let secret = tunnel.client().host().folder().join("secret");
    durable_file::create(&secret, format!("{PASSWORD}\nnote\n").as_bytes(), 0o600).unwrap();
    let with = |tunnel: &Tunnel, command: &str| {
        add(tunnel.client(), &["--pin", &fingerprint, "--credential-command", command]).success().unwrap();
    };
    with(&tunnel, &format!("cat '{}'", secret.display()));
    let both = run(tunnel.client(), &["login", "work", "--save-password"], "");
    assert_eq!(both.code, USAGE, "{both:?}");
    up(&mut tunnel.clients[0], "");
    reach(tunnel.client().host(), INTERNET[0]);
    let replaced = add(tunnel.client(), &["--pin", &fingerprint]);
    assert!(replaced.code == USAGE && replaced.stderr.contains("down work"), "its client is running: {replaced:?}");
    let process = tunnel.client().process().unwrap();
    assert!(!format!("{}{}", process.stdout(), process.stderr()).contains(PASSWORD));
    let profile = fs::read_to_string(tunnel.client().folder().join("clients/work.toml")).unwrap();
    assert!(profile.contains("credential_command") && !profile.contains(PASSWORD), "{profile}");
    down(&tunnel);

    with(&tunnel, "exit 7");
    let failed = up_alone(&tunnel);
    assert_eq!(failed.code, REFUSED, "{failed:?}");
    assert!(failed.stderr.contains("credential command: it failed: exit status: 7"), "{failed:?}");
    with(&tunnel, "echo wrong horse battery");
    let wrong = up_alone(&tunnel);
    assert_eq!(wrong.code, REFUSED, "{wrong:?}");
    assert!(wrong.stderr.contains("did not take that of the command"), "{wrong:?}");
}

#[test]
fn command_ends_with_its_client_however_that_ends() {
    let Some(tunnel) = gateway() else { return };
    let fingerprint = pin(&tunnel.gateway);
    let client = tunnel.client();
    let read = client.host().folder().join("read");
    fs::write(&read, "").unwrap();
    // It never ends by itself, and no other process has these arguments.
    let (command, arguments) = (format!("tail -f '{}'", read.display()), format!("tail\0-f\0{}\0", read.display()));
    add(client, &["--pin", &fingerprint, "--credential-command", &command]).success().unwrap();
    let login = client.host().spawn(client.command(&["login", "work"])).unwrap();
    eventually("the command runs", || runs(&arguments).then_some(()));
    login.kill();
    eventually("it has ended", || (!runs(&arguments)).then_some(()));
}

/// Whether a process runs with these arguments. One that nobody has waited for has none any more.
fn runs(arguments: &str) -> bool {
    let mut processes = fs::read_dir("/proc").unwrap().flatten();
    processes.any(|process| fs::read(process.path().join("cmdline")).is_ok_and(|line| line == arguments.as_bytes()))
}

#[test]
fn password_goes_with_its_profile() {
    let Some(tunnel) = gateway() else { return };
    let fingerprint = pin(&tunnel.gateway);
    let kept = tunnel.client().folder().join("clients/.work.password");
    for forgets in [&["forget", "work"][..], &["add"]] {
        add(tunnel.client(), &["--pin", &fingerprint]).success().unwrap();
        let login = ["login", "work", "--save-password", "--user", "alice"];
        run(tunnel.client(), &login, &format!("{PASSWORD}\n")).success().unwrap();
        assert!(kept.exists());
        match forgets {
            ["add"] => add(tunnel.client(), &["--pin", &fingerprint]).success().unwrap(),
            verb => run(tunnel.client(), verb, "").success().unwrap(),
        };
        assert!(!kept.exists(), "{forgets:?}");
    }
}
