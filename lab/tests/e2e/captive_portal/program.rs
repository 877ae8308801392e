//! `adit-client portal`: one program gets to the portal, while the host stays closed for all others.

use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;

use super::*;

/// Who calls the program, by `sudo`, and is in no file of the host.
const CALLER: &str = "12345";
/// Comes to the portal, then waits for a file before each further page.
const VISITOR: &str = r#"
    trap 'echo asked to end; exit' TERM
    echo "user $(id -u)"
    cat /etc/resolv.conf
    for page in first second accept; do
        while [ ! -e "/run/$page" ]; do sleep 0.1; done
        curl --ipv4 --silent --show-error --max-time 20 "http://portal.cafe.test/$page"
        echo "$page is over"
    done
    sleep 1000
"#;

fn portal(client: &Client, program: &[&str]) -> Command {
    let mut command = client.command(&[&["portal", "--"], program].concat());
    command.envs([("SUDO_UID", CALLER), ("SUDO_GID", CALLER)]);
    command
}

/// Lets the visitor ask for a page, and waits for the answer.
fn visit(visitor: &Process, client: &Client, page: &'static str) {
    client.host().run(move || fs::write(Path::new("/run").join(page), "").unwrap());
    visitor.wait_for_line(&format!("/{page} is welcome"), PATIENCE).unwrap();
    // Its connection is closed by then.
    visitor.wait_for_line(&format!("{page} is over"), PATIENCE).unwrap();
}

/// Tries to get to the portal as another program of that user, and as root.
fn others_try(client: &Client) {
    let page = ["curl", "--ipv4", "--silent", "--max-time", "1", "http://portal.cafe.test/others"];
    let direct = ["curl", "--ipv4", "--silent", "--max-time", "1", "http://192.168.9.1/others"];
    let as_caller = ["setpriv", "--reuid", CALLER, "--regid", CALLER, "--clear-groups"];
    for command in [&page[..], &direct, &[&as_caller[..], &page].concat(), &[&as_caller[..], &direct].concat()] {
        let mut other = Command::new(command[0]);
        other.args(&command[1..]);
        let output = client.host().output(other, PATIENCE).unwrap();
        assert_ne!(output.code, 0, "{command:?} reached {}", output.stdout);
    }
}

/// Whether the client's host lets anybody out to a portal.
fn has_way(client: &Client) -> bool {
    let rules = nft(client.host(), "list ruleset");
    rules.contains("expires") || rules.contains("adit_portal_")
}

#[test]
fn program_passes_the_portal_past_a_tunnel_while_the_host_stays_closed_for_others() {
    let Some((mut tunnel, cafe)) = known_to_be_full() else { return };
    tunnel.clients[0].up().unwrap();
    let client = tunnel.client();
    cafe.enter(client.host());
    misses_gateway(client);
    told_portal(client);
    let explained = client.run(&["portal"]).unwrap().success().unwrap();
    assert!(explained.contains(PORTAL) && explained.contains("firefox --new-instance"), "{explained}");

    let visitor = client.host().spawn(portal(client, &["sh", "-c", VISITOR])).unwrap();
    visitor.wait_for_line(&format!("user {CALLER}"), PATIENCE).unwrap();
    visitor.wait_for_line(&format!("nameserver {}", ROUTER.0), PATIENCE).unwrap();
    visit(&visitor, client, "first");
    let watched = Watched::new(&tunnel, &cafe);
    others_try(client);
    watched.assert_tight(1, "while a program is let out");
    // As by `killall -USR1 adit-client`, which is for the client's statistics.
    visitor.signal(Signal::SIGUSR1).unwrap();
    // The control: the way was open all the while.
    visit(&visitor, client, "second");
    let second = client.host().output(portal(client, &["true"]), PATIENCE).unwrap();
    assert!(second.code == 2 && second.stderr.contains("is there already"), "{second:?}");

    client.host().run(|| fs::write("/run/accept", "").unwrap());
    stands(client, "connected");
    assert_eq!(visitor.wait(PATIENCE).unwrap(), 0, "{}", visitor.tail());
    assert!(visitor.stdout().contains("/accept is welcome"), "{}", visitor.tail());
    assert!(visitor.stdout().contains("connected; the way to the portal is closed"), "{}", visitor.stdout());
    assert!(!has_way(client));
    reach(client.host(), INTERNET[0]);
    Watched::new(&tunnel, &cafe).assert_tight(2, "connected again");
}

#[test]
fn closed_host_without_a_client_lets_a_program_out_until_it_ends() {
    let Some((tunnel, cafe)) = known_to_be_full() else { return };
    let client = tunnel.client();
    assert!(client.run(&["block"]).unwrap().success().unwrap().contains("blocked"));
    cafe.enter(client.host());
    let explained = client.run(&["portal"]).unwrap().success().unwrap();
    assert!(explained.contains("no captive portal is known of") && explained.contains("is closed"), "{explained}");
    others_try(client);
    let ask = ["curl", "--ipv4", "--silent", "--show-error", "--max-time", "20", "http://portal.cafe.test/accept"];
    let visited = client.host().output(portal(client, &ask), PATIENCE).unwrap().success().unwrap();
    let ended = "the program has ended; the way to the portal is closed";
    assert!(visited.contains("/accept is welcome") && visited.contains(ended), "{visited}");
    assert!(!has_way(client));
    let missing = client.host().output(portal(client, &["no-such-program"]), PATIENCE).unwrap();
    assert!(missing.code == 2 && missing.stderr.contains("no-such-program: it cannot be started"), "{missing:?}");
    // What it leaves behind ends with it; it would hold the output open.
    let failing = client.host().output(portal(client, &["sh", "-c", "sleep 1000 & exit 7"]), PATIENCE).unwrap();
    assert!(failing.code == 1 && failing.stderr.contains("it ended with exit code 7"), "{failing:?}");
    assert_eq!(client.status().unwrap().state, "blocked");
    others_try(client);

    let running = begin(client, &[], &[]);
    stands(client, "connected");
    let connected = client.host().output(portal(client, &["true"]), PATIENCE).unwrap();
    assert!(connected.code == 2 && connected.stderr.contains("it is connected"), "{connected:?}");
    client.run(&["down"]).unwrap().success().unwrap();
    drop(running);
    let open = client.host().output(portal(client, &["true"]), PATIENCE).unwrap();
    assert!(open.code == 2 && open.stderr.contains("it is open"), "{open:?}");
}

#[test]
fn program_reaches_the_further_ports_of_a_portal_and_no_others() {
    let Some((tunnel, cafe)) = known_to_be_full() else { return };
    let client = tunnel.client();
    client.run(&["block"]).unwrap().success().unwrap();
    cafe.enter(client.host());
    let visit = |more: &[&str], port: u16| {
        let page = format!("http://portal.cafe.test:{port}/in");
        let ask = ["--", "curl", "--ipv4", "--silent", "--show-error", "--max-time", "20", &page];
        client.host().output(client.command(&[&["portal"], more, &ask].concat()), PATIENCE * 2).unwrap()
    };
    assert!(visit(&[], 8080).success().unwrap().contains("/in is welcome"));
    let other = visit(&[], 8880);
    assert!(other.code == 1 && !other.stdout.contains("welcome"), "{other:?}");
    assert!(visit(&["--port", "8443", "--port", "8880"], 8880).success().unwrap().contains("/in is welcome"));
    let many: Vec<String> = (1..=17).map(|port| format!("--port={port}")).collect();
    let refused = visit(&many.iter().map(String::as_str).collect::<Vec<_>>(), 80);
    assert!(refused.code == 2 && refused.stderr.contains("more than 16"), "{refused:?}");
    client.run(&["down"]).unwrap().success().unwrap();
}

/// Runs as root with a strict umask, on a host whose resolver file leads to that of a service.
#[test]
fn program_has_the_environment_and_the_resolvers_of_its_user_whatever_its_caller_has() {
    const LOOK_AROUND: &str = "env; cat /etc/resolv.conf; curl --ipv4 --silent --show-error http://portal.cafe.test/in";
    let Some((tunnel, cafe)) = known_to_be_full() else { return };
    let client = tunnel.client();
    client.run(&["block"]).unwrap().success().unwrap();
    cafe.enter(client.host());
    client.host().run(|| {
        fs::remove_file("/etc/resolv.conf").unwrap();
        symlink("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf").unwrap();
    });
    let asked = portal(client, &["sh", "-c", LOOK_AROUND]);
    let mut strict = Command::new("sh");
    strict.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(asked.get_program()).args(asked.get_args());
    strict.envs(asked.get_envs().filter_map(|(name, value)| Some((name, value?))));
    strict.envs([("A_TOKEN", "top-secret"), ("HOME", "/root"), ("LANG", "C.UTF-8")]);
    let said = client.host().output(strict, PATIENCE * 2).unwrap().success().unwrap();
    for part in ["LANG=C.UTF-8", "PATH=", &format!("nameserver {}", ROUTER.0), "/in is welcome"] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    for part in ["top-secret", "SUDO_UID", "HOME=/root"] {
        assert!(!said.contains(part), "{part} is in\n{said}");
    }
    client.run(&["down"]).unwrap().success().unwrap();
}

#[test]
fn way_closes_by_itself_when_who_holds_it_open_is_killed() {
    let Some((tunnel, cafe)) = known_to_be_full() else { return };
    let client = tunnel.client();
    cafe.enter(client.host());
    let running = begin(client, &[], &[]);
    told_portal(client);
    let visitor = client.host().spawn(portal(client, &["sh", "-c", VISITOR])).unwrap();
    visit(&visitor, client, "first");
    assert!(has_way(client));
    visitor.kill();
    // It is nobody's process any more, but says what it hears.
    eventually("the program is asked to end", || visitor.stdout().contains("asked to end").then_some(()));
    eventually("the way is closed", || (!nft(client.host(), "list ruleset").contains("expires")).then_some(()));
    others_try(client);
    client.run(&["down"]).unwrap().success().unwrap();
    drop(running);
    let rules = nft(client.host(), "list ruleset");
    assert!(!rules.contains("adit_"), "{rules}");
}
