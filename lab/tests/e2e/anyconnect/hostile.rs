//! What no client says: whoever says it is refused, and nobody else notices.

use std::process::Command;

use adit_lab::GATEWAY_V4;
use adit_testing::PATIENCE;

use super::{cookie, log_in, reach_internet, start};
use crate::logins::PASSWORD;

/// Says what no client says, and prints how each is answered. Arguments: the gateway, and a cookie that is good.
const HOSTILE: &str = r#"
import base64, socket, ssl, sys
host, cookie = sys.argv[1:]

def connect():
    return ssl._create_unverified_context().wrap_socket(socket.create_connection((host, 443), 15))

def heard(stream):
    said = b""
    try:
        while piece := stream.recv(65536):
            said += piece
    except (ConnectionError, ssl.SSLError):
        pass
    return said

def ask(name, head, body=b""):
    stream = connect()
    try:
        stream.sendall(head.encode() + b"\r\n" + body)
    except (ConnectionError, ssl.SSLError):
        pass
    print(name, heard(stream)[:12].decode() or "closed")

def post(name, body, more=""):
    head = "POST / HTTP/1.1\r\nHost: a\r\nX-Aggregate-Auth: 1\r\nConnection: close\r\n"
    ask(name, f"{head}{more}Content-Length: {len(body)}\r\n", body.encode())

def key(name, point):
    spki = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200") + point
    method = "<auth-method>single-sign-on-external-browser</auth-method>"
    post(name, f'<config-auth type="init"><capabilities>{method}</capabilities></config-auth>',
         f"X-AnyConnect-STRAP-DH-Pubkey: {base64.b64encode(spki).decode()}\r\n")

def tunnel(cookie):
    stream = connect()
    stream.sendall(f"CONNECT /CSCOSSLC/tunnel HTTP/1.1\r\nHost: a\r\nCookie: webvpn={cookie}\r\n"
                   "X-CSTP-Hostname: hostile\r\nX-CSTP-MTU: 4294968576\r\n\r\n".encode())
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        said += stream.recv(65536)
    return stream, said

post("init", '<config-auth type="init"/>')
generator = bytes.fromhex("046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
                          "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
key("point", generator)
key("beside", generator[:-1] + b"\xf4")
key("zero", b"\x04" + bytes(64))
key("compressed", b"\x03" + generator[1:33])
key("bomb", generator * 999)
laughs = "".join(f'<!ENTITY l{n + 1} "' + f"&l{n};" * 10 + '">' for n in range(9))
post("laughs", f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><config-auth type="init">&l9;</config-auth>')
post("deep", "<a>" * 999 + "</a>" * 999)
post("large", "x" * 200000)
ask("headers", "GET / HTTP/1.1\r\nHost: a\r\nX-Transcend-Version: 1\r\n" + "A: b\r\n" * 1000)
posting = "POST / HTTP/1.1\r\nHost: a\r\nX-Aggregate-Auth: 1\r\nConnection: close\r\n"
ask("negative", posting + "Content-Length: -1\r\n")
ask("beyond", posting + "Content-Length: 18446744073709551617\r\n", b"<")
ask("chunk", posting + "Transfer-Encoding: chunked\r\n", b"fffffffffffffffff1\r\n<\r\n0\r\n\r\n")
connecting = "CONNECT /CSCOSSLC/tunnel HTTP/1.1\r\nHost: a\r\nCookie: webvpn="
ask("none", connecting + "\r\n")
ask("long", connecting + "A" * 9000 + "\r\n")
ask("longer", connecting + "A" * 90000 + "\r\n")
stream, said = tunnel(cookie)
print("tunnel", said[:12].decode(), b"X-CSTP-MTU: 1420\r\n" in said)
question = b"STF\x01\x00\x02\x03\x00ab"
stream.sendall(question[:5])
stream.sendall(question[5:] + question)
for byte in question:
    stream.sendall(bytes([byte]))
said = b""
while len(said) < 30:
    said += stream.recv(65536)
print("questions", said == b"STF\x01\x00\x02\x04\x00ab" * 3)
stream.sendall(b"STF\x01\xff\xff\x00\x00" + b"x" * 100)
print("wrapping", heard(stream) or "closed")
"#;

#[test]
fn hostile_requests_and_frames_cost_only_who_sends_them() {
    let Some(tunnel) = start() else { return };
    let cookie = cookie(&tunnel);
    let token = cookie.rsplit("webvpn=").next().unwrap();
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    let host = tunnel.client().host();
    reach_internet(host);
    let mut hostile = Command::new("python3");
    hostile.args(["-c", HOSTILE, &GATEWAY_V4.to_string(), token]);
    let said = host.output(hostile, 3 * PATIENCE).unwrap().success().unwrap();
    for line in [
        "init HTTP/1.1 200",
        "point HTTP/1.1 200",
        // Here no login leads to a browser, so nobody looks at keys for one.
        "beside HTTP/1.1 200",
        "zero HTTP/1.1 200",
        "compressed HTTP/1.1 200",
        "laughs HTTP/1.1 400",
        "deep HTTP/1.1 400",
        "none HTTP/1.1 401",
        "long HTTP/1.1 401",
        "tunnel HTTP/1.1 200 True",
        "questions True",
        "wrapping closed",
    ] {
        assert!(said.lines().any(|told| told == line), "{line}: {said}");
    }
    // Whoever goes on sending may miss the answer.
    for refused in ["large", "bomb", "headers", "negative", "beyond", "chunk", "longer"] {
        let told = said.lines().find(|line| line.starts_with(&format!("{refused} "))).unwrap();
        assert!(["400", "431", "closed"].iter().any(|end| told.ends_with(end)), "{said}");
    }
    let sessions = tunnel.gateway.sessions().unwrap();
    assert_eq!(sessions.iter().map(|told| told.session).collect::<Vec<_>>(), [session.session], "nobody else suffers");
    reach_internet(host);
}
