//! Seeds for what AnyConnect clients send.

use super::{Seed, seeds};

/// What openconnect 9.01 posts first.
const INIT: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<config-auth client=\"vpn\" type=\"init\" \
    aggregate-auth-version=\"2\"><version who=\"vpn\">v9.01-3</version><device-id>linux-64</device-id><capabilities>\
    <auth-method>single-sign-on-v2</auth-method></capabilities><group-access>https://127.0.0.1/</group-access>\
    </config-auth>";
/// What it posts next.
const REPLY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<config-auth client=\"vpn\" type=\"auth-reply\">\
    <version who=\"vpn\">v9.01-3</version><auth><handle>aGFuZGxl</handle><username>alice</username>\
    <password>a &amp; &#x62;</password></auth></config-auth>";
const BOMB: &str = "<!DOCTYPE a [<!ENTITY l \"ha\"><!ENTITY m \"&l;&l;&l;&l;&l;\">]><config-auth type=\"init\">&m;\
    </config-auth>";

/// The head of its CONNECT.
const CONNECT: &str = "Host: 127.0.0.1\nUser-Agent: Open AnyConnect VPN Agent v9.01-3\nCookie: webvpn=t0ken\n\
    X-CSTP-Version: 1\nX-CSTP-Hostname: laptop\nX-CSTP-Base-MTU: 1500\nX-CSTP-MTU: 1390\n\
    X-CSTP-Address-Type: IPv6,IPv4\nX-CSTP-Full-IPv6-Capability: true";
const COOKIES: &str = "Cookie: webvpncontext=a; webvpn=; webvpn=b=;webvpnc=\nCookie: webvpn=c\nX-CSTP-MTU: -1";

pub(super) fn clients() -> Vec<Seed> {
    let text = |text: &str| text.as_bytes().to_vec();
    let deep = "<a>".repeat(17) + &"</a>".repeat(17);
    let login = seeds(
        "anyconnect_login",
        [
            ("init", text(INIT)),
            ("reply", text(REPLY)),
            ("logout", text("<config-auth client=\"vpn\" type=\"logout\"/>")),
            (
                "section",
                text("<config-auth type=\"auth-reply\"><auth><password><![CDATA[<&]]></password></auth></config-auth>"),
            ),
            ("bomb", text(BOMB)),
            ("deep", text(&deep)),
            ("form", text("username=al%69ce&password=a+b%26&handle=h")),
        ],
    );
    let connect = seeds("anyconnect_connect", [("stock", text(CONNECT)), ("cookies", text(COOKIES))]);
    let frames = seeds(
        "anyconnect_frames",
        [
            ("packet", b"\x40STF\x01\x00\x06\x00\x00packet".to_vec()),
            ("question", b"\x01STF\x01\x00\x02\x03\x00abSTF\x01\x00\x00\x07\x00".to_vec()),
            ("leaving", b"\x09STF\x01\x00\x04\x05\x00\xb0byeSTF\x01\x00\x00\x09\x00".to_vec()),
            ("not_whole", b"\x40STF\x01\x00\x06\x00\x00pack".to_vec()),
            ("largest", b"\x40STF\x01\x3f\xf8\x00\x00".to_vec()),
            ("too_large", b"\x40STF\x01\x3f\xf9\x00\x00".to_vec()),
            ("no_frame", b"\x40STF\x01\x00\x00\x07\x00GET / HTTP/1.1".to_vec()),
        ],
    );
    login.into_iter().chain(connect).chain(frames).collect()
}
