//! Seeds for what AnyConnect clients send, and what gateways answer.

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

/// What ocserv 1.1.6 shows after a wrong password.
const FORM: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<config-auth client=\"vpn\" type=\"auth-request\">\
    <version who=\"sg\">0.1(1)</version><auth id=\"main\"><message>Login failed.\nPlease enter your password.</message>\
    <form method=\"post\" action=\"/auth\"><input type=\"password\" name=\"password\" label=\"Password:\" /></form>\
    </auth></config-auth>";
/// What a gateway with groups shows.
const GROUPS: &str = "<config-auth type=\"auth-request\"><opaque is-for=\"sg\"><tunnel-group>a</tunnel-group></opaque>\
    <auth><banner>b</banner><error>e</error><form><input type=\"hidden\" name=\"h\" value=\"&quot;\"/>\
    <input type=\"text\" name=\"username\"/><select name=\"group_list\"><option value=\"g\">G</option></select></form>\
    </auth></config-auth>";
const SET: &str =
    "webvpncontext=; expires=Thu, 01 Jan 1970 22:00:00 GMT; path=/\nwebvpn=a+/b=; Secure; HttpOnly\nwebvpn=a b";

/// What ocserv answers to a CONNECT.
const SETTINGS: &str = "X-CSTP-Address: 10.79.0.50\nX-CSTP-Netmask: 255.255.255.0\nX-CSTP-Address-IP6: fd79::9/128\n\
    X-CSTP-DNS: 10.79.0.1\nX-CSTP-Split-DNS: corp.example\nX-CSTP-Split-Include-IP6: 2001:db8:3::/64\n\
    X-CSTP-Split-Include: 198.51.100.0/255.255.255.0\nX-CSTP-DPD: 60\nX-CSTP-Keepalive: 300\nX-CSTP-MTU: 1472";
const EXCLUDED: &str = "X-CSTP-Address: 10.79.0.50\nX-CSTP-Split-Exclude: 10.0.0.0/8\n\
    X-CSTP-Split-Exclude: 0.0.0.0/255.255.255.255\nX-CSTP-Split-Exclude: 255.255.255.255/32\nX-CSTP-MTU: 1280";
const RECORDS: &str = concat!(
    "X-CSTP-Address: 10.79.0.50\nX-CSTP-MTU: 1434\nX-DTLS-Port: 443\nX-DTLS-CipherSuite: PSK-NEGOTIATE\n",
    "X-DTLS-App-ID: a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5\nX-DTLS-DPD: 90",
);
const WRAPPED: &str = "X-CSTP-Address: 10.79.0.50\nX-CSTP-DPD: 4294967296\nX-CSTP-MTU: 66816";

/// What gateways answer.
pub(super) fn gateways() -> Vec<Seed> {
    let text = |text: &str| text.as_bytes().to_vec();
    let complete =
        "<config-auth type=\"complete\"><session-token>t</session-token><auth id=\"success\"/></config-auth>";
    let forms = [("stock", FORM), ("groups", GROUPS), ("complete", complete), ("bomb", BOMB), ("cookies", SET)];
    let settings = [("stock", SETTINGS), ("excluded", EXCLUDED), ("records", RECORDS), ("wrapped", WRAPPED)];
    let forms = seeds("anyconnect_form", forms.map(|(name, form)| (name, text(form))));
    forms.into_iter().chain(seeds("anyconnect_settings", settings.map(|(name, fields)| (name, text(fields))))).collect()
}

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
