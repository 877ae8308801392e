//! Strangers at the gateway's listener on TCP: curl, openssl, and those who only take places.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use adit_lab::{GATEWAY_V4, Host, Output};
use adit_testing::{PATIENCE, alone, eventually, skip};

use crate::harness::{Options, Tunnel};

/// Many more than the share of one network, and more than all places.
const HALF_OPEN: usize = 2_000;
/// Handshakes that go as far as the gateway's answer, and requests that never come to an end.
const HALF_SHAKEN: usize = 1_000;
const SLOW: usize = 100;

/// Begins handshakes and leaves them, then requests of which a byte comes each second, half of them in the body; says
/// when all that is done, and when the gateway has given the slow ones up. Arguments: the gateway, and how many.
const SLOW_HOST: &str = r#"
import resource, socket, ssl, sys, time
host, half_shaken, slow = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
context = ssl._create_unverified_context()

def hello():
    said = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), said).do_handshake()
    except ssl.SSLWantReadError:
        return said.read()

def connect():
    return socket.create_connection((host, 443), 15)

held, hello = [], hello()
while len(held) < half_shaken:
    held.append(connect())
    try:
        held[-1].sendall(hello)
    except OSError:
        pass
heads = ["GET / HTTP/1.1\r\nHost: a\r\nX: ", "POST / HTTP/1.1\r\nHost: a\r\nX-Aggregate-Auth: 1\r\nContent-Length: 999\r\n\r\n"]
streams = []
while len(streams) < slow:
    try:
        stream = context.wrap_socket(connect())
        stream.sendall(heads[len(streams) % 2].encode())
    except OSError:
        # Nobody gives way in the first second.
        time.sleep(0.1)
        continue
    stream.setblocking(False)
    streams.append(stream)
print("all are on their way", flush=True)

def waits(stream):
    try:
        stream.sendall(b"a")
        stream.recv(1)
    except ssl.SSLWantReadError:
        return True
    except OSError:
        pass
    return False

while streams:
    streams = [stream for stream in streams if waits(stream)]
    time.sleep(1)
print("none is waited for", flush=True)
"#;

/// A gateway that runs, with these settings, and a host beside it.
fn gateway(settings: &[(&str, &str)]) -> Option<Tunnel> {
    for program in ["curl", "openssl"] {
        if Command::new(program).arg("version").output().is_err() {
            skip(format!("{program} is not installed"));
            return None;
        }
    }
    let mut tunnel = Tunnel::prepare(Options { settings, ..Options::default() })?;
    tunnel.gateway.start().unwrap();
    Some(tunnel)
}

/// Asks by curl, which takes any certificate, and shows the head of the answer as well.
fn curl(host: &Host, path: &str, more: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--insecure", "--include", "--max-time", "10"]).args(more);
    command.arg(format!("https://{GATEWAY_V4}{path}"));
    host.output(command, PATIENCE).unwrap()
}

/// Whether a handshake of openssl is accepted.
fn shakes_hands(host: &Host, options: &[&str]) -> bool {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("{GATEWAY_V4}:443"), "-brief", "-no_ign_eof"]).args(options);
    let output = host.output(command, PATIENCE).unwrap();
    let said = format!("{}{}", output.stdout, output.stderr);
    let is_accepted = said.contains("CONNECTION ESTABLISHED");
    assert!(is_accepted || said.contains("alert") || said.contains("no protocols available"), "{options:?}: {said}");
    is_accepted
}

#[test]
fn browser_gets_a_page_without_anything_of_who_is_inside_and_all_else_is_nothing() {
    let Some(tunnel) = gateway(&[]) else { return };
    tunnel.gateway.invite("alice", &[]).unwrap();
    let host = tunnel.client().host();
    for more in [&["--http1.1"][..], &["--http2"]] {
        let page = curl(host, "/", more).success().unwrap();
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        assert!(head.starts_with("http/1.1 200 ok"), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
        assert!(body.contains("adit-client join") && body.contains(&GATEWAY_V4.to_string()), "{body}");
        assert!(body.contains(&format!("sudo openconnect {GATEWAY_V4}")), "{body}");
        assert!(!body.contains("alice") && !body.contains("<script"), "{body}");
    }
    assert!(curl(host, "/style.css", &[]).success().unwrap().to_lowercase().contains("content-type: text/css"));
    for (path, more) in [
        ("/login/start", &[][..]),
        ("/.well-known/masque/ip/*/*/", &[]),
        ("/remote/login", &["--head"]),
        ("/.well-known/adit/login", &["--data", "{}"]),
        ("/%2e%2e/etc/passwd", &["--path-as-is"]),
    ] {
        let nothing = curl(host, path, more).success().unwrap();
        assert!(nothing.starts_with("HTTP/1.1 404") && nothing.ends_with("\r\n\r\n"), "{path}: {nothing}");
    }
    assert!(curl(host, "/", &["--data", "a"]).success().unwrap().starts_with("HTTP/1.1 405"));
    let long = format!("x: {}", "y".repeat(64 << 10));
    assert!(!curl(host, "/", &["--header", &long]).stdout.contains("HTTP/1.1 200"));
}

#[test]
fn tunnel_by_upgrade_needs_credentials_like_any_other() {
    let Some(tunnel) = gateway(&[]) else { return };
    let host = tunnel.client().host();
    let path = "/.well-known/masque/ip/*/*/";
    let upgrade = ["--http1.1", "--globoff", "--header", "connection: Upgrade", "--header", "upgrade: connect-ip"];
    let answer = |path: &str, more: &[&str]| curl(host, path, &[&upgrade, more].concat()).stdout;
    let refused = answer(path, &[]);
    assert!(refused.starts_with("HTTP/1.1 401") && !refused.contains("adit-"), "{refused}");
    assert!(answer(path, &["--header", "authorization: Bearer guess"]).starts_with("HTTP/1.1 401"));
    assert!(answer("/.well-known/masque/ip/192.0.2.9/17/", &[]).starts_with("HTTP/1.1 501"));
    assert!(answer("/elsewhere", &[]).starts_with("HTTP/1.1 404"));
    assert!(answer(path, &["--data", "a"]).starts_with("HTTP/1.1 400"));
    // The positive control: with a token of the gateway it is a tunnel, until curl gives it up.
    let made = tunnel.gateway.admin_json(&["token", "alice"]).unwrap();
    let token = format!("authorization: Bearer {}", made["token"].as_str().unwrap());
    let opened = answer(path, &["--header", &token, "--max-time", "2"]);
    assert!(opened.starts_with("HTTP/1.1 101"), "{opened}");
}

#[test]
fn tls_is_1_3_and_1_2_only_where_that_is_permitted_and_good() {
    for old in [false, true] {
        let Some(tunnel) = gateway(&[("anyconnect.tls12", if old { "true" } else { "false" })]) else { return };
        let host = tunnel.client().host();
        assert!(shakes_hands(host, &["-tls1_3"]), "the positive control");
        for cipher in ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"] {
            assert_eq!(shakes_hands(host, &["-tls1_2", "-cipher", cipher]), old, "{cipher}");
        }
        for weak in ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA"] {
            assert!(!shakes_hands(host, &["-tls1_2", "-cipher", weak]), "{weak}");
        }
        assert!(!shakes_hands(host, &["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"]));
    }
}

#[test]
fn others_get_in_while_one_host_holds_thousands_of_handshakes_half_open() {
    let _turn = alone();
    let Some(mut tunnel) = gateway(&[]) else { return };
    let host = tunnel.client().host().clone();
    let gateway = SocketAddr::from((GATEWAY_V4, 443));
    let holder = host.start(move || {
        let mut held = Vec::new();
        for _ in 0..HALF_OPEN {
            held.extend(TcpStream::connect_timeout(&gateway, Duration::from_secs(5)));
        }
        held
    });
    while !holder.is_finished() {
        thread::sleep(Duration::from_millis(20));
    }
    let held = holder.join().unwrap();
    assert!(held.len() > HALF_OPEN / 2, "{} connections", held.len());
    // From the very same host, and so from the same network, whose share they have taken.
    eventually("a browser gets its page", || curl(&host, "/", &[]).stdout.starts_with("HTTP/1.1 200").then_some(()));
    tunnel.join(0);
    tunnel.clients[0].up_with(&["--carrier", "tls"], &[]).unwrap();
    drop(held);
}

#[test]
fn others_get_in_beside_handshakes_that_are_left_and_requests_that_never_end() {
    let Some(tunnel) = gateway(&[]) else { return };
    let host = tunnel.client().host();
    let mut slow = Command::new("python3");
    slow.args(["-c", SLOW_HOST, &GATEWAY_V4.to_string(), &HALF_SHAKEN.to_string(), &SLOW.to_string()]);
    let slow = host.spawn(slow).unwrap();
    slow.wait_for_line("all are on their way", 2 * PATIENCE).unwrap();
    // From the very same host, and so from the same network, whose share they have taken.
    eventually("a browser gets its page", || curl(host, "/", &[]).stdout.starts_with("HTTP/1.1 200").then_some(()));
    slow.wait_for_line("none is waited for", 2 * PATIENCE).unwrap();
    assert_eq!(slow.wait(PATIENCE).unwrap(), 0, "{}", slow.tail());
}

#[test]
fn browser_shows_the_page_with_its_style() {
    let Some(tunnel) = gateway(&[]) else { return };
    let host = tunnel.client().host();
    let page = curl(host, "/", &[]).success().unwrap();
    let without_style = host.folder().join("page.html");
    fs::write(&without_style, page.split_once("\r\n\r\n").unwrap().1).unwrap();
    let Some(plain) = photographed(host, &format!("file://{}", without_style.display())) else { return };
    let shown = photographed(host, &format!("https://{GATEWAY_V4}/")).unwrap();
    assert!(plain.starts_with(b"\x89PNG") && shown.starts_with(b"\x89PNG"));
    assert!(plain != shown, "the style sheet is permitted");
}

/// What Chromium shows of an address, as PNG; `None`, loudly, where it is missing. It takes any certificate.
fn photographed(host: &Host, address: &str) -> Option<Vec<u8>> {
    let picture = host.folder().join("page.png");
    let mut browser = Command::new("chromium");
    browser.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--ignore-certificate-errors",
    ]);
    browser.arg(format!("--user-data-dir={}", host.folder().join("browser").display()));
    browser.arg(format!("--screenshot={}", picture.display())).args(["--window-size=800,900", address]);
    if Command::new("chromium").arg("--version").output().is_err() {
        skip("needs chromium (the package of that name)");
        return None;
    }
    host.output(browser, PATIENCE).unwrap().success().unwrap();
    Some(fs::read(picture).unwrap())
}
