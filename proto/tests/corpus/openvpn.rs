//! Seeds for the targets of OpenVPN.

use adit_proto::openvpn::key_method::{CLIENT_RANDOM_LEN, FromClient, FromServer, SERVER_RANDOM_LEN};
use adit_proto::openvpn::message::put;
use adit_proto::openvpn::wire::{Acks, KeyId, Kind, Message, Packet, SessionId};

use super::{Seed, seeds};

pub(super) fn openvpn() -> Vec<Seed> {
    [packets(), reliability(), greetings(), key_methods(), messages(), pushes(), data(), profiles()].concat()
}

/// A step of data: its length and the data.
fn step(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).expect("a step is short")][..], data].concat()
}

fn steps(all: &[&[u8]]) -> Vec<u8> {
    all.iter().flat_map(|data| step(data)).collect()
}

fn packet(kind: Option<Kind>, acks: &[u32], payload: &[u8]) -> Vec<u8> {
    let session = SessionId([1; 8]);
    let message = kind.map(|kind| Message { kind, number: 0, payload: payload.to_vec() });
    let acks = Acks::new(SessionId([2; 8]), acks.to_vec());
    let packet = Packet { key: KeyId::FIRST, session, acks, message };
    [&packet.preface()[..], &packet.body()].concat()
}

fn packets() -> Vec<Seed> {
    seeds(
        "openvpn_packet",
        [
            ("reset", packet(Some(Kind::ResetClient), &[], &[])),
            ("answer", packet(Some(Kind::ResetServer), &[0], &[0, 1, 0, 2, 0, 1])),
            ("control", packet(Some(Kind::Control), &[1, 2, 3, 4, 5, 6, 7, 8], &[22, 3, 1])),
            ("ack", packet(None, &[1, 2], &[])),
            ("ack_of_nothing", packet(None, &[], &[])),
            ("wrapped_key", [packet(Some(Kind::ResetClientWithKey), &[], &[]), vec![7; 30], vec![0, 32]].concat()),
            ("wrapped_key_too_long", [packet(Some(Kind::ControlWithKey), &[], &[]), vec![0xff, 0xff]].concat()),
            ("early_records", vec![0, 9, 0, 1, 7, 0, 1, 0, 2, 0, 1]),
        ],
    )
}

fn reliability() -> Vec<Seed> {
    seeds(
        "openvpn_reliability",
        [
            ("in_order", steps(&[&[0], &[0], &[1, 0, 0], &[1, 1, 1]])),
            ("out_of_order", steps(&[&[1, 2], &[1, 1], &[1, 0], &[1, 3]])),
            ("too_far_ahead", steps(&[&[1, 12], &[1, 11]])),
            ("old", steps(&[&[1, 0], &[1, 0], &[1, 0]])),
            ("silence", [&steps(&[&[0], &[0]])[..], &[0xff; 30]].concat()),
            ("overtaken", steps(&[&[0], &[0], &[0], &[0], &[1, 0, 1, 2, 3]])),
            ("full", steps(&[&[0][..]; 70])),
        ],
    )
}

fn greetings() -> Vec<Seed> {
    seeds(
        "openvpn_greeting",
        [
            ("reset", step(&packet(Some(Kind::ResetClient), &[], &[]))),
            ("guess", step(&packet(Some(Kind::Control), &[0], &[22]))),
            ("ack", step(&packet(None, &[0], &[]))),
            ("with_key", step(&[packet(Some(Kind::ResetClientWithKey), &[], &[]), vec![0, 2]].concat())),
            ("data", step(&[0x48; 40])),
        ],
    )
}

fn key_methods() -> Vec<Seed> {
    let client = |user: &str, password: &str| {
        let message = FromClient {
            options:
                "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client"
                    .to_owned(),
            user: user.to_owned(),
            password: password.to_owned().into(),
            peer_info: "IV_VER=2.6.14\nIV_PLAT=linux\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM\nIV_PROTO=990\n"
                .to_owned(),
        };
        message.encode(&[7; CLIENT_RANDOM_LEN]).to_vec()
    };
    let server = FromServer { options: "V4,tls-server".to_owned() }.encode(&[7; SERVER_RANDOM_LEN]);
    let mut cut = client("ada", "secret");
    cut.truncate(200);
    seeds(
        "openvpn_key_method",
        [
            ("client", client("ada", "secret")),
            ("certificate_alone", client("", "")),
            ("followed", [client("ada", "CRV1::state::42"), put("PUSH_REQUEST")].concat()),
            ("server", server),
            ("cut_short", cut),
            ("method_1", vec![0, 0, 0, 0, 1]),
        ],
    )
}

fn messages() -> Vec<Seed> {
    let said = |texts: &[&str]| texts.iter().flat_map(|text| put(text)).collect::<Vec<u8>>();
    seeds(
        "openvpn_message",
        [
            ("client", said(&["PUSH_REQUEST", "CR_RESPONSE,MTIz", "EXIT"])),
            ("refusals", said(&["AUTH_FAILED", "AUTH_FAILED,no", "AUTH_FAILED,SESSION: expired"])),
            ("later", said(&["AUTH_FAILED,TEMP[backoff 2,advance no]:text", "AUTH_FAILED,TEMP"])),
            ("challenge", said(&["AUTH_FAILED,CRV1:R,E:state:Y3Ix:Please enter token PIN"])),
            (
                "pending",
                said(&["AUTH_PENDING,timeout 30", "INFO_PRE,CR_TEXT:R,E:Code", "INFO_PRE,WEB_AUTH::https://a/"]),
            ),
            ("end", said(&["RESTART,[N]soon", "HALT", "INFO,text", "EXIT\r\n"])),
            ("passwords", said(&["SCRV1:cHc=:MTIz", "CRV1::state::42", "SCRV1:!"])),
            ("characters", b"EX\x1bIT\0".to_vec()),
        ],
    )
}

fn pushes() -> Vec<Seed> {
    let text = |text: &str| text.as_bytes().to_vec();
    let least = "ifconfig 10.8.0.2 255.255.255.0,topology subnet,cipher AES-256-GCM,protocol-flags tls-ekm";
    seeds(
        "openvpn_push",
        [
            ("least", text(least)),
            (
                "most",
                text(&format!(
                    "{least},ifconfig-ipv6 fd00::2/64 fd00::1,route 10.0.0.0 255.0.0.0,route-ipv6 fd00::/8 net_gateway,\
                     redirect-gateway def1 ipv6,dns server 0 address 10.8.0.1 [fd00::1]:53,dns search-domains a.example,\
                     tun-mtu 1400,ping 10,ping-restart 60,peer-id 7,explicit-exit-notify"
                )),
            ),
            ("older_dns", text(&format!("{least},dhcp-option DNS 10.8.0.1,dhcp-option DOMAIN a.example"))),
            ("token", text(&format!("{least},auth-token SESS_ID,auth-token-user YWRh"))),
            ("continued", text(&format!("route 10.0.0.0 255.0.0.0,push-continuation 2\n{least},push-continuation 1"))),
            ("net30", text("ifconfig 10.8.0.6 10.8.0.5,topology net30,cipher AES-256-GCM,key-derivation tls-ekm")),
            ("compression", text(&format!("{least},comp-lzo no"))),
            ("quotes", text(r#"a "b \"c\" \\d" e\ f 'g\h'"#)),
        ],
    )
}

fn data() -> Vec<Seed> {
    let v2 = |number: u8| step(&[&[0x48, 0, 0, 1, 0, 0, 0, number][..], &[0x45; 40]].concat());
    let epoch =
        |epoch: u8, counter: u8| step(&[&[0x48, 0, 0, 1, 0, epoch, 0, 0, 0, 0, 0, counter][..], &[0x45; 40]].concat());
    seeds(
        "openvpn_data",
        [
            ("v2", [vec![0], v2(1), v2(2), v2(2), v2(1)].concat()),
            ("v2_number_0", [vec![0], v2(0)].concat()),
            ("v2_too_short", [vec![0], step(&[0x48; 23])].concat()),
            ("epochs", [vec![1], epoch(1, 1), epoch(2, 1), epoch(1, 2), epoch(3, 1), epoch(1, 3)].concat()),
            ("epoch_too_far_ahead", [vec![1], epoch(6, 1), epoch(5, 1), epoch(9, 1)].concat()),
            ("epoch_0", [vec![1], epoch(0, 1)].concat()),
        ],
    )
}

fn profiles() -> Vec<Seed> {
    let text = |text: &str| text.as_bytes().to_vec();
    let least = "client\ndev tun\nremote vpn.example 1194 udp\nca ca.pem\nauth-user-pass\n";
    seeds(
        "openvpn_profile",
        [
            ("least", text(least)),
            (
                "inline",
                text(
                    "client\r\ndev tun\r\nremote a 443 tcp\r\n<ca>\r\nPEM\r\n</ca>\r\n<tls-crypt-v2>\r\nPEM\r\n</tls-crypt-v2>\r\ncert c\r\nkey k\r\n",
                ),
            ),
            ("connections", text(&format!("{least}<connection>\nremote b\nproto tcp\n</connection>\n"))),
            (
                "settings",
                text(&format!("{least}route 10.0.0.0 255.0.0.0\ndhcp-option DNS 10.8.0.1\nkeepalive 10 60\n")),
            ),
            ("program", text(&format!("{least}up /bin/true\n"))),
            ("compression", text(&format!("{least}comp-lzo\n"))),
            ("tolerated", text(&format!("{least}ignore-unknown-option a\na b\nsetenv opt c d\n"))),
            ("quotes", text(&format!("{least}verify-x509-name 'C=DE, O=\"Ada\"' subject # end\n"))),
            ("no_end", text(&format!("{least}<cert>\nPEM\n"))),
        ],
    )
}
