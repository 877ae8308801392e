//! Packets in records of DTLS, where UDP passes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_lab::traffic::{Capture, Captured, UdpEcho, echo, inject, udp_packet};

use crate::harness::{answers, filter, run as run_on, unfilter};

use super::*;

/// How long openconnect waits before it tries DTLS again, and somewhat more.
const NEXT_TRY: Duration = Duration::from_secs(120);
const NO_UDP: &str = "no_udp";
/// Datagrams that are sent again, and how many of them before it is waited for that the gateway has counted them, so
/// that no buffer overflows.
const REPLAYS: u64 = 100_000;
const AT_ONCE: u64 = 2_000;

/// Nothing comes to the gateway by UDP.
fn block_udp(tunnel: &Tunnel) {
    filter(tunnel.gateway.host(), NO_UDP, &[("input priority 0", "meta l4proto udp drop")]);
}

/// Waits until the session has this carrier, while packets go on.
fn comes_to(tunnel: &Tunnel, session: &ToldSession, carrier: &str, patience: Duration) -> ToldSession {
    comes_to_at(tunnel, 0, session, carrier, patience)
}

/// As [`comes_to`], of that client's session.
pub(super) fn comes_to_at(
    tunnel: &Tunnel,
    client: usize,
    session: &ToldSession,
    carrier: &str,
    patience: Duration,
) -> ToldSession {
    let (deadline, host) = (Instant::now() + patience, tunnel.clients[client].host());
    loop {
        // It may be lost as long as the other way is not noticed to be the better one.
        answers(host, INTERNET[0]);
        let told = tunnel.session_of(session.addresses[0]).expect("the session goes on");
        assert_eq!((told.session, &told.addresses), (session.session, &session.addresses), "it is the same one");
        if told.carrier == carrier {
            reach_internet(host);
            return told;
        }
        assert!(Instant::now() < deadline, "never in {patience:?}: {carrier}, but {told:?}");
        thread::sleep(Duration::from_millis(500));
    }
}

with_each_version!(twenty_mebibytes_arrive_intact_each_way_in_records);

fn twenty_mebibytes_arrive_intact_each_way_in_records(version: Version) {
    let _turn = alone();
    let Some(tunnel) = start_with(version) else { return };
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    let told = comes_to(&tunnel, &session, "dtls", PATIENCE);
    assert!(told.suite.as_ref().is_some_and(|suite| !suite.starts_with("TLS13_")), "{told:?}");
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let done = transfer(tunnel.client().host(), server.address(), direction, TRANSFER).unwrap();
            println!("{direction:?} with {address}: {:.0} Mbit/s", done.megabits_per_second());
            assert!(done.bytes == TRANSFER && done.is_intact(), "{direction:?} with {address}");
        }
    }
    let told = tunnel.gateway.sessions().unwrap().pop().unwrap();
    assert_eq!((told.session, told.carrier.as_str()), (session.session, "dtls"), "{told:?}");
}

#[test]
fn sessions_stay_on_tls_while_udp_is_blocked_and_come_to_records_when_it_passes() {
    let versions = [Version::Own, Version::Newest];
    let Some(tunnel) = start_many(&[versions, versions].concat(), &[]) else { return };
    // Two have had records before, and two find UDP blocked from the start.
    let early = [0, 1].map(|client| (client, log_in_at(&tunnel, client)));
    for (client, (_, session)) in &early {
        comes_to_at(&tunnel, *client, session, "dtls", PATIENCE);
    }
    block_udp(&tunnel);
    let late = [2, 3].map(|client| (client, log_in_at(&tunnel, client)));
    let all = || early.iter().chain(&late).map(|(client, (_, session))| (*client, session));
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    for (client, session) in all() {
        // Those that begin now try for some seconds before they set their devices up.
        comes_to_at(&tunnel, client, session, "tls", NEXT_TRY);
        let done = transfer(tunnel.clients[client].host(), server.address(), Direction::Download, 1 << 20).unwrap();
        assert!(done.bytes == 1 << 20 && done.is_intact());
    }
    unfilter(tunnel.gateway.host(), NO_UDP);
    for (client, session) in all() {
        comes_to_at(&tunnel, client, session, "dtls", NEXT_TRY);
    }
}

with_each_version!(packets_are_as_large_as_the_path_takes);

fn packets_are_as_large_as_the_path_takes(version: Version) {
    /// Bytes of a UDP header and what it carries, and those of them that are not the packet's: of UDP 8, of the record
    /// 13, 8 and 16, of its type 1.
    const LARGEST: u16 = 1400;
    const OVERHEAD: u16 = 46;
    let Some(tunnel) = start_with(version) else { return };
    filter(tunnel.gateway.host(), "narrow", &[("input priority 0", &format!("udp length > {LARGEST} drop"))]);
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    comes_to(&tunnel, &session, "dtls", NEXT_TRY);
    // Packets pass, so the client has found what it looked for.
    let told = tunnel.session_of(session.addresses[0]).unwrap();
    let host = tunnel.client().host();
    let link: u16 = run_on(host, &["cat", &format!("/sys/class/net/{LINK}/mtu")]).trim().parse().unwrap();
    assert_eq!((link, told.mtu), (LARGEST - OVERHEAD, LARGEST - OVERHEAD), "the client has found it, and we heard it");
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        let done = transfer(host, server.address(), direction, 1 << 20).unwrap();
        assert!(done.bytes == 1 << 20 && done.is_intact(), "{direction:?}");
    }
}

#[test]
fn client_without_a_pre_shared_key_resumes_a_session_by_the_secret_that_it_told() {
    let Some(tunnel) = start() else { return };
    for (options, said, suite) in [
        (&["--dtls-ciphers", "OC-DTLS1_2-AES256-GCM"][..], "-(RSA)-(AES-256-GCM)", "aes-256-gcm"),
        (
            &["--dtls-ciphers", "AES128-SHA", "--dtls12-ciphers", "AES128-GCM-SHA256"],
            "-(RSA)-(AES-128-GCM)",
            "aes-128-gcm",
        ),
        (
            &["--dtls-ciphers", "AES128-SHA", "--dtls12-ciphers", "ECDHE-RSA-AES256-GCM-SHA384"],
            "-(ECDHE-RSA)-(AES-256-GCM)",
            "aes-256-gcm",
        ),
    ] {
        let arguments = [&["--user", "alice", "--passwd-on-stdin"], options].concat();
        let (stranger, session) = up(&tunnel, &arguments, &format!("{PASSWORD}\n"));
        let told = comes_to(&tunnel, &session, "dtls", PATIENCE);
        assert_eq!(told.suite.as_deref(), Some(suite));
        assert!(stranger.0.stdout().contains(said), "{said}: {}", stranger.0.tail());
        for address in INTERNET {
            let server = TcpServer::start(&tunnel.internet, address).unwrap();
            for direction in [Direction::Upload, Direction::Download] {
                let done = transfer(tunnel.client().host(), server.address(), direction, 1 << 20).unwrap();
                assert!(done.bytes == 1 << 20 && done.is_intact(), "{direction:?} with {address} by {suite}");
            }
        }
        let told = tunnel.gateway.sessions().unwrap().pop().unwrap();
        assert_eq!((told.session, told.carrier.as_str()), (session.session, "dtls"), "{told:?}");
        drop(stranger);
        eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    }
}

/// Tells a gateway a secret, and has OpenSSL resume sessions with it and with others; prints who gets an answer.
/// Arguments: the gateway, and a cookie that is good.
const RESUMING: &str = r#"
import base64, re, select, socket, ssl, subprocess, sys, tempfile, time
host, cookie = sys.argv[1:]
secret, suite = bytes(range(48)), "ECDHE-RSA-AES256-GCM-SHA384"

def tagged(tag, value):
    return bytes([tag, len(value)]) + value

def answers(name, secret):
    session = tagged(2, b"\1") + tagged(2, b"\0\xfe\xfd") + tagged(4, b"\xc0\x30") + tagged(4, name)
    session += tagged(4, secret) + tagged(0xa1, tagged(2, int(time.time()).to_bytes(4, "big")))
    session = base64.encodebytes(tagged(0x30, session + tagged(0xa2, tagged(2, b"\x1c\x20")))).decode()
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(f"-----BEGIN SSL SESSION PARAMETERS-----\n{session}-----END SSL SESSION PARAMETERS-----\n")
        file.flush()
        command = ["openssl", "s_client", "-dtls1_2", "-connect", f"{host}:443", "-cipher", suite, "-quiet"]
        child = subprocess.Popen(command + ["-sess_in", file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        heard = None
        # What overtakes the end of the handshake is lost.
        for _ in range(5):
            child.stdin.write(b"\x03are you there?\n")
            child.stdin.flush()
            if select.select([child.stdout], [], [], 1)[0]:
                heard = child.stdout.readline()
                break
        child.kill()
        child.wait()
    return heard == b"\x04are you there?\n"

stream = ssl._create_unverified_context().wrap_socket(socket.create_connection((host, 443), 15))
stream.sendall(f"CONNECT /CSCOSSLC/tunnel HTTP/1.1\r\nHost: a\r\nCookie: webvpn={cookie}\r\n"
               f"X-DTLS-Master-Secret: {secret.hex()}\r\nX-DTLS12-CipherSuite: {suite}\r\n\r\n".encode())
said = b""
while not said.endswith(b"\r\n\r\n"):
    said += stream.recv(65536)
name = bytes.fromhex(re.search(rb"X-DTLS-Session-ID: (\w+)", said).group(1).decode())
print("right", answers(name, secret))
print("secret", answers(name, bytes(48)))
print("session", answers(bytes(32), secret))
print("again", answers(name, secret))
"#;

#[test]
fn nobody_resumes_a_session_without_its_secret() {
    let Some(tunnel) = start() else { return };
    let cookie = cookie(&tunnel);
    let token = cookie.rsplit("webvpn=").next().unwrap();
    let mut resuming = Command::new("python3");
    resuming.args(["-c", RESUMING, &GATEWAY_V4.to_string(), token]);
    let said = tunnel.client().host().output(resuming, 3 * PATIENCE).unwrap().success().unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), ["right True", "secret False", "session False", "again True"]);
}

#[test]
fn records_go_to_a_port_of_their_own_where_there_is_one() {
    let Some(mut tunnel) = start() else { return };
    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("anyconnect.dtls_port", "4433");
    tunnel.gateway.start().unwrap();
    filter(tunnel.gateway.host(), NO_UDP, &[("input priority 0", "udp dport != 4433 drop")]);
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    comes_to(&tunnel, &session, "dtls", PATIENCE);
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let done = transfer(tunnel.client().host(), server.address(), direction, 1 << 20).unwrap();
            assert!(done.bytes == 1 << 20 && done.is_intact(), "{direction:?} with {address}");
        }
    }
    let told = tunnel.gateway.sessions().unwrap().pop().unwrap();
    assert_eq!((told.session, told.carrier.as_str()), (session.session, "dtls"), "{told:?}");
}

#[test]
fn client_that_wants_no_records_is_not_disturbed() {
    let Some(tunnel) = start() else { return };
    let arguments = ["--user", "alice", "--passwd-on-stdin", "--no-dtls"];
    let (_stranger, session) = up(&tunnel, &arguments, &format!("{PASSWORD}\n"));
    let told = comes_to(&tunnel, &session, "tls", PATIENCE);
    assert!(told.suite.is_some_and(|suite| suite.starts_with("TLS13_")));
}

#[test]
fn old_tls_lets_nobody_in_unless_it_is_permitted_and_gives_keys_for_records_then() {
    let options = ["--gnutls-priority", "NORMAL:-VERS-ALL:+VERS-TLS1.2", "--user", "alice", "--passwd-on-stdin"];
    let input = format!("{PASSWORD}\n");
    for is_permitted in ["false", "true"] {
        let settings = [("anyconnect.tls12", is_permitted)];
        let Some(tunnel) = start_many(&[Version::Own, Version::Newest], &settings) else { return };
        for client in [0, 1] {
            if is_permitted == "false" {
                let refused = run_at(&tunnel, client, &options, &input);
                assert_eq!(refused.code, NO_LOGIN, "{refused:?}");
                assert!(refused.stderr.contains("fatal alert"), "{refused:?}");
                continue;
            }
            let (stranger, session) = up_at(&tunnel, client, &options, &input);
            comes_to_at(&tunnel, client, &session, "dtls", PATIENCE);
            assert!(stranger.0.stdout().contains("(TLS1.2)"), "{}", stranger.0.tail());
        }
    }
}

#[test]
fn none_of_100_000_replayed_records_is_accepted() {
    let Some(tunnel) = start() else { return };
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    comes_to(&tunnel, &session, "dtls", PATIENCE);
    let host = tunnel.client().host();
    let recorded = recorded(&tunnel);
    let told = || tunnel.session_of(session.addresses[0]).unwrap();
    let refused = || {
        let drops = told().drops;
        ["replayed", "too_old"].iter().filter_map(|reason| drops.get(*reason)).sum::<u64>()
    };
    let before = told();
    let mut rounds = recorded.iter().cycle();
    for sent in (AT_ONCE..=REPLAYS).step_by(AT_ONCE.try_into().unwrap()) {
        inject(host, OUTER_LINK, rounds.by_ref().take(AT_ONCE.try_into().unwrap()).cloned().collect()).unwrap();
        eventually("replays are counted", || (refused() >= sent).then_some(()));
    }
    let after = comes_to(&tunnel, &session, "dtls", PATIENCE);
    assert_eq!(refused(), REPLAYS, "each is refused and counted once");
    let accepted = after.rx_packets - before.rx_packets;
    assert!(accepted < AT_ONCE, "{accepted} packets are more than the client's host sends by itself");
}

/// Records of packets, as they left the client.
fn recorded(tunnel: &Tunnel) -> Vec<Vec<u8>> {
    let (host, gateway) = (tunnel.client().host(), SocketAddr::from((GATEWAY_V4, 443)));
    let server = UdpEcho::start(&tunnel.internet, INTERNET[0]).unwrap();
    let is_record = move |packet: &Captured| {
        let udp = packet.udp().filter(|_| packet.destination == GATEWAY_V4);
        udp.is_some_and(|(_, _, payload)| payload.first() == Some(&23))
    };
    let capture = Capture::start_for(host, is_record).unwrap();
    echo(host, server.address(), 5_000, 5_000, 60).unwrap();
    let seen = capture.packets(|_| true);
    assert!(seen.len() > 1_000, "{} records", seen.len());
    let again = |packet: &Captured| {
        let (port, _, payload) = packet.udp().unwrap();
        // The checksum was not there yet when the packet was captured.
        udp_packet((packet.source, port).into(), gateway, 64, payload)
    };
    seen.iter().map(again).collect()
}
