//! Seeds for the fuzzer: for each target, valid inputs of every kind and the best known invalid ones.

use adit_proto::capsule::{self, AssignedAddress, Capsule, DnsAssign, RequestedAddress, RouteRange};
use adit_proto::connect_ip::client::{Client, ClientConfig};
use adit_proto::esp::capsule::EspCapsule;
use adit_proto::esp::field::{NAME, Offer};
use adit_proto::http::field::Field;
use adit_proto::http::h3::connection::Connection;
use adit_proto::http::h3::frame;
use adit_proto::http::h3::message::{encode_data, encode_headers};
use adit_proto::invite::Invite;
use adit_proto::role::Role;
use adit_proto::varint;

mod anyconnect;
mod dtls;
mod esp;
mod login;
mod offload;
mod openvpn;

/// An input and where it belongs.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    pub(crate) target: &'static str,
    pub(crate) name: &'static str,
    pub(crate) input: Vec<u8>,
}

/// All seeds.
pub(crate) fn all() -> Vec<Seed> {
    [
        numbers(),
        version_answers(),
        connections(),
        messages(),
        capsules(),
        tunnels(),
        packets(),
        offload::superpackets(),
        esp::carrier(),
        invites(),
        radius(),
        captive_portals(),
        announced_prefixes(),
        login::logins(),
        anyconnect::clients(),
        anyconnect::gateways(),
        policies(),
        dtls::associations(),
        openvpn::openvpn(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn seeds<const N: usize>(target: &'static str, inputs: [(&'static str, Vec<u8>); N]) -> Vec<Seed> {
    inputs.into_iter().map(|(name, input)| Seed { target, name, input }).collect()
}

fn raw(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(kind, payload, &mut out);
    out
}

fn version_answers() -> Vec<Seed> {
    const ID: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
    let answer = |source: [u8; 8], versions: &[u8]| {
        let head: [&[u8]; 6] = [&[0xca, 0, 0, 0, 0], &[8], &ID, &[8], &source, versions];
        head.concat()
    };
    seeds(
        "version_answer",
        [
            ("two_versions", answer(ID, &[0, 0, 0, 1, 0x0a, 0x1a, 0x2a, 0x3a])),
            ("other_source", answer([9; 8], &[0, 0, 0, 1])),
            ("no_version", answer(ID, &[])),
            ("cut_short", answer(ID, &[0, 0])),
        ],
    )
}

fn numbers() -> Vec<Seed> {
    let encoded = |value| {
        let mut out = Vec::new();
        varint::encode(value, &mut out);
        out
    };
    let varints = seeds(
        "varint",
        [
            ("one_byte", encoded(37)),
            ("two_bytes", encoded(15_293)),
            ("four_bytes", encoded(494_878_333)),
            ("eight_bytes", encoded(varint::MAX)),
            ("longer_than_needed", vec![0x40, 0x25]),
            ("cut_short", vec![0xc2, 0x19]),
        ],
    );
    let datagrams = seeds(
        "datagram",
        [
            ("first_stream", vec![0, 0, 0x45, 0]),
            ("stream_256", vec![0x40, 0x40, 0, 0x60]),
            ("other_context", vec![1, 0x40, 2, 0xff]),
            ("impossible_stream", vec![0xff; 10]),
            ("cut_short", vec![0, 0x40]),
        ],
    );
    [varints, datagrams].into_iter().flatten().collect()
}

fn connections() -> Vec<Seed> {
    let server = Connection::new(Role::Server).control_stream();
    let with_role = |role: u8, stream: &[u8]| [&[role], stream].concat();
    let after_settings = |frames: &[Vec<u8>]| [&[0x83, 0x00, 0x04, 0x00][..], &frames.concat()].concat();
    let streams = seeds(
        "h3_uni",
        [
            ("control_of_server", with_role(0x04, &server)),
            ("control_of_client", with_role(0x84, &Connection::new(Role::Client).control_stream())),
            (
                "grease_and_goaway",
                after_settings(&[raw(0x21, b"grease"), raw(frame::GOAWAY, &[8]), raw(frame::GOAWAY, &[4])]),
            ),
            ("max_push_id", after_settings(&[raw(frame::MAX_PUSH_ID, &[8]), raw(frame::CANCEL_PUSH, &[4])])),
            ("settings_twice", after_settings(&[raw(frame::SETTINGS, &[])])),
            ("http2_frame", after_settings(&[raw(0x06, &[0; 8])])),
            ("missing_settings", vec![0x80, 0x00, 0x07, 1, 0]),
            ("qpack_encoder", vec![0x80, 0x02, 0x20]),
            ("qpack_insertion", vec![0x80, 0x02, 0xc0, 1, b'x']),
            ("qpack_decoder", vec![0x80, 0x03, 0x44, 0x7f, 0x80, 1]),
            ("push", vec![0x00, 0x01, 0x00]),
            ("greased_type", vec![0x80, 0x40, 0x21, 1, 2, 3]),
        ],
    );
    let settings = seeds(
        "h3_settings",
        [
            ("gateway", server.get(3..).unwrap_or_default().to_vec()),
            ("greased", vec![0x40, 0x40, 9, 0x33, 1, 0x01, 0, 0x07, 0]),
            ("http2", vec![0x02, 0]),
            ("twice", vec![0x33, 1, 0x33, 1]),
            ("not_a_flag", vec![0x33, 2]),
            ("cut_short", vec![0x06, 0x80, 0]),
        ],
    );
    [streams, settings].into_iter().flatten().collect()
}

fn fields(pairs: &[(&str, &str)]) -> Vec<Field> {
    pairs.iter().map(|(name, value)| Field::new(*name, *value)).collect()
}

fn tunnel_request() -> Vec<Field> {
    let config = ClientConfig {
        authority: "vpn.example:443".into(),
        path: "/.well-known/masque/ip/*/*/".into(),
        bearer: Some("token".into()),
        wants_dns: true,
        login: None,
        esp: None,
    };
    Client::new(config).request()
}

fn section(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    adit_proto::http::h3::qpack::encode(fields, &mut out);
    out
}

fn messages() -> Vec<Seed> {
    let post = fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/e"),
        ("content-length", "2"),
    ]);
    let ok = encode_headers(&fields(&[(":status", "200")]));
    let message = |options: u8, frames: &[Vec<u8>]| [&[options][..], &frames.concat()].concat();
    let streams = seeds(
        "h3_message",
        [
            ("tunnel_request", message(0x87, &[encode_headers(&tunnel_request()), encode_data(&[0x02, 0x00])])),
            ("post", message(0x82, &[raw(0x21, b"grease"), encode_headers(&post), encode_data(b"{}")])),
            ("trailers", message(0x01, &[ok.clone(), encode_data(b"x"), encode_headers(&fields(&[("a", "b")]))])),
            ("informational", message(0x05, &[encode_headers(&fields(&[(":status", "103")])), ok.clone()])),
            ("wrong_length", message(0x81, &[encode_headers(&post), encode_data(b"{")])),
            ("data_first", message(0x80, &[encode_data(b"x")])),
            ("push_promise", message(0x00, &[raw(frame::PUSH_PROMISE, &[0, 0, 0])])),
            ("settings_on_a_request", message(0x80, &[raw(frame::SETTINGS, &[])])),
            ("cut_short", message(0x03, &[ok, vec![0x00, 0x05, b'x']])),
        ],
    );
    let sections = seeds(
        "qpack",
        [
            ("tunnel_request", section(&tunnel_request())),
            ("status", section(&fields(&[(":status", "200")]))),
            ("literal_status", section(&fields(&[(":status", "401"), ("www-authenticate", "Bearer")]))),
            (
                "huffman_value",
                vec![0, 0, 0x50, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
            ),
            ("huffman_name", vec![0, 0, 0x2f, 0x01, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x01, b'v']),
            ("last_static_entry", vec![0, 0, 0xff, 35]),
            ("beyond_the_static_table", vec![0, 0, 0xff, 36]),
            ("dynamic_table", vec![2, 0, 0x80, 0x10]),
            ("long_integer", vec![0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ],
    );
    let strings = seeds(
        "huffman",
        [
            ("host", vec![0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            ("no_cache", vec![0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("end_of_string", vec![0xff; 4]),
            ("long_padding", vec![0x07, 0xff]),
            ("zero_padding", vec![0x00]),
        ],
    );
    [streams, sections, strings].into_iter().flatten().collect()
}

fn encoded(capsule: &Capsule) -> Vec<u8> {
    let mut out = Vec::new();
    capsule::encode(capsule, &mut out);
    out
}

fn assignment() -> Vec<u8> {
    let prefixes = ["10.64.0.2/32", "fd00::2/128"].map(|prefix| prefix.parse().expect("prefix"));
    encoded(&Capsule::AddressAssign(prefixes.map(|prefix| AssignedAddress { request_id: 0, prefix }).to_vec()))
}

fn address_request() -> Vec<u8> {
    encoded(&Capsule::AddressRequest(vec![RequestedAddress::any_v4(1), RequestedAddress::any_v6(2)]))
}

fn routes() -> Vec<u8> {
    encoded(&Capsule::RouteAdvertisement(vec![
        RouteRange { start: [0; 4].into(), end: [9, 255, 255, 255].into(), protocol: 0 },
        RouteRange { start: [11, 0, 0, 0].into(), end: [255; 4].into(), protocol: 0 },
        RouteRange { start: [0; 16].into(), end: [255; 16].into(), protocol: 17 },
    ]))
}

fn dns() -> Vec<u8> {
    encoded(&Capsule::DnsAssign(DnsAssign::plain(
        &[[10, 64, 0, 1].into(), [0xfd; 16].into()],
        &["corp.example".into()],
    )))
}

fn capsules() -> Vec<Seed> {
    let stream = |size: u8, capsules: &[Vec<u8>]| [&[size][..], &capsules.concat()].concat();
    seeds(
        "capsule",
        [
            ("assignment", stream(3, &[assignment()])),
            ("request", stream(0, &[address_request()])),
            ("routes", stream(7, &[routes()])),
            ("dns", stream(2, &[dns()])),
            ("datagram", stream(1, &[encoded(&Capsule::Datagram(vec![0, 0x45, 0].into()))])),
            ("grease_between", stream(4, &[raw(0x21, b"grease"), assignment(), raw(0x5c21, b""), routes()])),
            ("empty_request", stream(0, &[raw(0x02, &[])])),
            ("host_bits", stream(0, &[raw(0x01, &[0, 4, 10, 0, 0, 1, 8])])),
            ("routes_overlap", stream(0, &[raw(0x03, &[4, 1, 0, 0, 0, 2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 3, 0, 0, 0, 0])])),
            ("too_long", stream(0, &[vec![0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]])),
            ("cut_short", stream(0, &[assignment().get(..9).unwrap_or_default().to_vec()])),
            ("esp", stream(0x85, &[esp::first_init(), encoded(&Capsule::Esp(EspCapsule::RekeyRequest(1)))])),
            ("esp_not_negotiated", stream(5, &[esp::first_init(), assignment()])),
        ],
    )
}

fn lines(fields: &[Field]) -> Vec<u8> {
    fields.iter().map(|field| format!("{} {}\n", field.name, field.value)).collect::<String>().into_bytes()
}

/// One step of data for a state machine.
fn step(data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).ok().filter(|length| *length < 0x80).expect("short step");
    [&[length][..], data].concat()
}

fn tunnels() -> Vec<Seed> {
    let post = fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/e"),
        ("content-length", "2"),
    ]);
    let path = |path: &str| {
        let mut request = tunnel_request();
        request.iter_mut().filter(|field| field.name == ":path").for_each(|field| field.value = path.to_owned());
        lines(&request)
    };
    let mut esp_request = tunnel_request();
    esp_request.push(Field::new(NAME, Offer::default().to_string()));
    let requests = seeds(
        "connect_ip_request",
        [
            ("tunnel", lines(&tunnel_request())),
            ("offers_esp", lines(&esp_request)),
            ("scoped", path("/.well-known/masque/ip/192.0.2.0%2F24/17/")),
            ("another_path", path("/vpn")),
            ("host_bits", path("/.well-known/masque/ip/192.0.2.1%2F24/17/")),
            ("post", lines(&post)),
            ("plain_connect", lines(&fields(&[(":method", "CONNECT"), (":authority", "a:1")]))),
        ],
    );
    let template = |variables: &str| format!("/.well-known/masque/ip/{variables}").into_bytes();
    let templates = seeds(
        "connect_ip_template",
        [
            ("any", template("*/*/")),
            ("encoded_any", template("%2A/%2a/")),
            ("ipv4", template("192.0.2.1/17/")),
            ("ipv4_prefix", template("192.0.2.0%2F24/*/")),
            ("ipv6_prefix", template("2001%3Adb8%3A%3A%2F32/*/")),
            ("name", template("target.example/6/")),
            ("broken_escape", template("%2/*/")),
            ("host_bits", template("192.0.2.1%2F24/*/")),
        ],
    );
    let content = |options: u8, steps: &[Vec<u8>]| [&[options][..], &steps.concat()].concat();
    let datagram = encoded(&Capsule::Datagram(vec![0, 0x45].into()));
    let clients = seeds(
        "connect_ip_client",
        [
            ("assigned_unasked", content(3, &[step(&assignment()), step(&routes()), step(&dns()), vec![0xff]])),
            ("asked", content(0, &[vec![0x9e], step(&assignment())])),
            ("gateway_asks", content(0, &[step(&address_request()), step(&datagram)])),
            ("refused", content(4, &[step(&assignment())])),
            ("malformed", content(0, &[step(&raw(0x02, &[])), step(&assignment())])),
            ("esp", content(24, &[step(&assignment()), step(&esp::first_init())])),
            ("esp_not_offered", content(16, &[step(&esp::first_init()), step(&assignment())])),
        ],
    );
    let servers = seeds(
        "connect_ip_server",
        [
            ("sets_up_esp", content(0, &[step(&esp::first_init()), vec![0x80]])),
            ("asks", content(0, &[step(&address_request())])),
            ("asks_twice", content(0, &[step(&address_request()), step(&address_request())])),
            ("packet_then_update", content(0, &[step(&datagram), vec![0x80], step(&address_request())])),
            ("assigns", content(0, &[step(&assignment()), step(&routes()), step(&raw(0x21, b"grease"))])),
        ],
    );
    [requests, templates, clients, servers].into_iter().flatten().collect()
}

/// An IPv4 packet without options; `fragment` is the field of flags and offset.
fn ipv4(fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("short packet").to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let head = [0x45, 0, length[0], length[1], 0, 1, high, low, 64, protocol, 0, 0, 10, 64, 0, 2, 192, 0, 2, 1];
    [&head[..], payload].concat()
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short packet").to_be_bytes();
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    (source[0], source[15]) = (0xfd, 2);
    (destination[0], destination[1], destination[15]) = (0x20, 0x01, 1);
    [&[0x60, 0, 0, 0, length[0], length[1], next_header, 64][..], &source, &destination, payload].concat()
}

fn packets() -> Vec<Seed> {
    let udp = [0x04, 0xd2, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
    let options_then_udp = [&[17, 0, 5, 2, 0, 0, 1, 0][..], &udp].concat();
    let fragment_then_udp = [&[17, 0, 0, 1, 0, 0, 0, 9][..], &udp].concat();
    let ttl_0 = {
        let mut packet = ipv4(0x4000, 17, &udp);
        packet[8] = 0;
        packet
    };
    let inputs = [
        ("ipv4_udp", ipv4(0x4000, 17, &udp)),
        ("ipv4_first_fragment", ipv4(0x2000, 17, &udp)),
        ("ipv4_later_fragment", ipv4(0x0001, 17, &udp)),
        ("ipv4_icmp_error", ipv4(0x4000, 1, &[3, 4, 0, 0, 0, 0, 5, 0, 0x45])),
        ("ipv4_echo", ipv4(0x4000, 1, &[8, 0, 0, 0, 0, 1, 0, 1])),
        ("ipv6_udp", ipv6(17, &udp)),
        ("ipv6_hop_by_hop", ipv6(0, &options_then_udp)),
        ("ipv6_fragment", ipv6(44, &fragment_then_udp)),
        ("ipv6_icmp_error", ipv6(58, &[2, 0, 0, 0, 0, 0, 5, 0, 0x60])),
        ("ttl_0", ttl_0),
        ("cut_short", ipv4(0x4000, 17, &udp).get(..24).unwrap_or_default().to_vec()),
        ("version_5", vec![0x55; 20]),
    ];
    let with_mtu = inputs.clone().map(|(name, packet)| (name, [&1280_u16.to_be_bytes()[..], &packet].concat()));
    [seeds("packet", inputs), seeds("icmp", with_mtu)].into_iter().flatten().collect()
}

fn invites() -> Vec<Seed> {
    let link = |host: &str| {
        Invite { host: host.into(), port: 443, others: vec![], pin: [7; 32], code: [9; 16] }.to_string().into_bytes()
    };
    seeds(
        "invite",
        [
            ("name", link("vpn.example.org")),
            ("ipv4", link("192.0.2.1")),
            ("ipv6", link("2001:db8::1")),
            ("cut_at_hash", b"adit://join/vpn.example.org:443".to_vec()),
            ("without_port", b"adit://join/vpn.example.org#AAAA".to_vec()),
            ("short_secret", b"adit://join/vpn.example.org:443#AAAA".to_vec()),
        ],
    )
}

fn policies() -> Vec<Seed> {
    seeds(
        "policy_text",
        [
            (
                "attempts",
                b"tcp 10.1.2.3:443\nudp [fd00::53]:53\nicmp wiki.example.org\ntcp Wiki.Example.org.:80".to_vec(),
            ),
            ("services", b"tcp 10.1.2.3:443\ntcp/1-442\ntcp/443\ntcp/444-65535\nudp\nicmp\nudp/53".to_vec()),
            (
                "limits",
                b"200 Mbit/s\n8kbit/s\n100 GiB/month\n5 GB/day\nblock\nnotify\n18446744073709551615 Gbit/s".to_vec(),
            ),
            ("hours", b"Mon-Fri 07:00-20:00 Europe/Berlin\nSat-Mon,Wed 22:00-06:00 UTC\nSun 00:00-24:00 UTC".to_vec()),
            ("members", b"alice\nldap:cn=staff,dc=example\nradius:\n:staff".to_vec()),
        ],
    )
}

fn radius() -> Vec<Seed> {
    let attribute = |kind: u8, value: &[u8]| {
        let length = u8::try_from(value.len() + 2).expect("values of seeds are short");
        [&[kind, length][..], value].concat()
    };
    seeds(
        "radius_reply",
        [
            ("class", attribute(25, b"OU=staff;ops")),
            ("challenge", [attribute(18, b"Enter the code"), attribute(24, &[7; 16])].concat()),
            ("timeout", attribute(27, &3600_u32.to_be_bytes())),
            ("second_authenticator", attribute(80, &[0; 16])),
            ("not_whole", vec![25, 9, 1]),
            ("without_length", vec![25]),
            ("length_0", vec![25, 0]),
            ("packet", [&[2, 7, 0, 20][..], &[0; 16]].concat()),
        ],
    )
}

fn captive_portals() -> Vec<Seed> {
    seeds(
        "captive_portal",
        [
            (
                "captive",
                br#"{"captive":true,"user-portal-url":"https://portal.example/in?a=1","seconds-remaining":60}"#
                    .to_vec(),
            ),
            ("open", br#"{"captive":false,"venue-info-url":"https://venue.example/"}"#.to_vec()),
            ("no_page", br#"{"captive":true}"#.to_vec()),
            ("unfit_page", br#"{"captive":true,"user-portal-url":"javascript:alert(1)"}"#.to_vec()),
            ("not_boolean", br#"{"captive":"true"}"#.to_vec()),
            ("address", b"http://[2001:db8::7]:8880/guest/?u='`|#top".to_vec()),
            ("user_in_address", b"https://bank.example@portal.example/".to_vec()),
            ("unrestricted", b"urn:ietf:params:capport:unrestricted".to_vec()),
        ],
    )
}

fn announced_prefixes() -> Vec<Seed> {
    // Half an hour, and the codes of /96 and /64.
    let option = |field: u16, prefix: &[u8; 12]| [&[38, 2][..], &field.to_be_bytes(), prefix].concat();
    let well_known = option(1800, b"\x00\x64\xff\x9b\0\0\0\0\0\0\0\0");
    let of_network = option(1800 | 1, b"\x20\x01\x0d\xb8\x01\x22\x03\x44\0\0\0\0");
    let resolver = [&[25, 3, 0, 0, 0, 0, 7, 8][..], &[0x20; 16]].concat();
    seeds(
        "pref64",
        [
            ("well_known", well_known.clone()),
            ("among_others", [&resolver[..], &of_network, &well_known].concat()),
            ("taken_back", option(0, &[0x20; 12])),
            ("unknown_code", option(1800 | 7, &[0x20; 12])),
            ("too_long", [&[38, 3][..], &[0x20; 22]].concat()),
            ("no_length", [&[38, 0, 7, 8][..], &well_known].concat()),
        ],
    )
}
